"""From what the directory has to what FreeSWITCH is asked to call: one phone, whatever stands there."""

from __future__ import annotations

import re

from bridge.dialing.ari_numbers import endpoint_of
from bridge.esl_commands import check_endpoint

PLACEHOLDERS = frozenset({"number", "host", "domain"})
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def check_template(template: str) -> None:
    """Refuse a dial string that FreeSWITCH could not read, or that has a placeholder that nothing fills.

    Raises:
        ValueError: saying what is allowed.
    """
    names = set(_PLACEHOLDER.findall(template))
    try:
        check_endpoint(_PLACEHOLDER.sub("x", template))
    except ValueError:
        names = set()
    if "number" not in names or names - PLACEHOLDERS:
        raise ValueError(
            "a dial string of one phone, such as user/{number}@{domain} or sofia/gateway/NAME/{number}, with "
            "{number} in it and no blanks"
        )


def phone_of(template: str, domain: str, number: str) -> str:
    """What FreeSWITCH is asked to call.

    ``{number}`` is the extension, or the user of a SIP address; ``{host}`` is that address's host;
    ``{domain}`` is `domain`.

    Raises:
        ValueError: what the directory has can't be dialled; the text is for people.
    """
    phone = endpoint_of(template.replace("{domain}", domain), number)
    check_endpoint(phone)
    return phone
