"""From what the directory has ("1003030", "sip:101@condominio.local") to what Asterisk is asked to call.

A directory is data that many hands edit: whatever stands there can name a number and a host, and never
another technology, another channel (`&`), an option (`/n`, `,`) or a header.
"""

from __future__ import annotations

import re

NUMBER = re.compile(r"[A-Za-z0-9*#+._-]{1,64}")
"""An extension, an endpoint's name or the user of a SIP URI."""
HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")

_URI = re.compile(r"(?:(?:sips?):)?([^@]*)@(.*)", re.IGNORECASE)
_TEL = re.compile(r"tel:(.*)", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_TEMPLATE = re.compile(r"[A-Za-z][A-Za-z0-9_]*/[!-~]*")

ALLOWED = (
    "an extension such as 101, or a SIP address such as sip:101@condominio.local; "
    "in both, letters, digits and * # + . _ -"
)


def check_template(template: str) -> None:
    """Refuse a dial string that Asterisk could not read, or that has a placeholder that nothing fills.

    Raises:
        ValueError: saying what is allowed.
    """
    names = _PLACEHOLDER.findall(template)
    if not _TEMPLATE.fullmatch(template) or "number" not in names or set(names) - {"number", "host"}:
        raise ValueError(
            "a dial string such as PJSIP/{number}, PJSIP/{number}@trunk, Local/{number}@from-porteiro or "
            "PJSIP/trunk/sip:{number}@{host}, with {number} in it and no blanks"
        )


def endpoint_of(template: str, number: str) -> str:
    """What Asterisk is asked to call.

    ``{number}`` is the extension, or the user of a SIP address; ``{host}`` is the address's host (and port),
    which a template without that placeholder leaves to Asterisk's own routing.

    Raises:
        ValueError: what the directory has can't be dialled; the text is for people.
    """
    user, host = _parts(number.strip())
    if "{host}" in template and not host:
        raise ValueError(f"the directory has {number!r}, without the host that {template} asks for")
    return template.replace("{number}", user).replace("{host}", host)


def _parts(number: str) -> tuple[str, str]:
    if tel := _TEL.fullmatch(number):
        user, host = tel[1], ""
    elif uri := _URI.fullmatch(number):
        user, host = uri[1], uri[2]
        if not HOST.fullmatch(host):
            raise ValueError(f"the directory has {number!r}; allowed: {ALLOWED}")
    else:
        user, host = number, ""
    if not NUMBER.fullmatch(user):
        raise ValueError(f"the directory has {number!r}; allowed: {ALLOWED}")
    return user, host
