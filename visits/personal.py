"""What of an audit record is about a person, and how it is kept apart from what the chain seals.

The chain can't forget: whoever takes a word out of a record breaks it. So a record seals only what stands for
good, and in place of the rest a **commitment**: SHA-256 over a random salt of 16 bytes and the canonical JSON
of what was taken out. That JSON and its salt are kept beside the chain. As long as they are there, they are
proven; once they are erased the chain still verifies, and nothing can be guessed from the commitment.

What was taken out is an object of JSON pointers (RFC 6901) and values. In its place in the record is a null.
Null, "", [] and {} say nothing of anybody, and stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

COMMITMENT: Final = "personal"
"""The field of a record that holds the commitment."""

ERASED: Final = "[apagado]"
"""What a reader gets in place of what was erased."""

SALT_BYTES: Final = 16

_HASH: Final = re.compile(r"[0-9a-f]{64}\Z")


class Personal(NamedTuple):
    """What is kept beside the chain for one record."""

    salt: str
    """In hexadecimal."""
    text: str
    """Canonical JSON of pointers and values."""

    @property
    def commitment(self) -> str:
        """What the record carries in its place."""
        return commitment(self.salt, self.text)


def commitment(salt: str, text: str) -> str:
    """SHA-256 of the salt's bytes and the text's, in hexadecimal. Raises ValueError for what is no salt."""
    raw = bytes.fromhex(salt)
    if len(raw) != SALT_BYTES:
        raise ValueError(f"found a salt of {len(raw)} bytes; allowed: {SALT_BYTES}")
    return sha256(raw + text.encode()).hexdigest()


def committed(public: Mapping[str, Any]) -> str | None:
    """The commitment that a record's sealed data carries; None: nothing of it is kept apart."""
    found = public.get(COMMITMENT)
    return found if isinstance(found, str) and _HASH.match(found) else None


# --------------------------------------------------------------------------------------------------------
# Which fields are about a person
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fields:
    """Of an object: a rule for each of these fields, and one for all others."""

    named: Mapping[str, Rule]
    others: Rule = None


@dataclass(frozen=True, slots=True)
class Each:
    """Of a list: the same rule for each entry."""

    rule: Rule


Rule = Fields | Each | Literal["personal"] | None
"""``personal``: all of it is; None: nothing is. What has not the rule's shape is personal as a whole."""


def _only(names: str) -> Fields:
    return Fields(dict.fromkeys(names.split(), "personal"))


def _all_but(names: str) -> Fields:
    return Fields(dict.fromkeys(names.split()), "personal")


_EVIDENCE: Final = _all_but("attempt by reading key item began_s")
"""That words or a key were the evidence, how they were read and when, stays; the words go."""


@dataclass(frozen=True, slots=True)
class About:
    """What of a kind of record is about a person.

    Attributes:
        rule: which fields.
        transcript: they are what was said and done; else who it was (names, numbers, addresses).
    """

    rule: Fields
    transcript: bool = field(default=True, kw_only=True)


PERSONAL: Final[Mapping[str, About]] = MappingProxyType(
    {
        "visit.started": About(_only("caller_id channel"), transcript=False),
        "leg.connected": About(_only("peer"), transcript=False),
        "leg.ended": About(_only("detail"), transcript=False),
        "turn": About(_only("text")),
        "tool.called": About(_only("arguments")),
        "tool.answered": About(_only("result")),
        "dial.started": About(_only("resident"), transcript=False),
        "dial.ended": About(_only("detail"), transcript=False),
        "evidence": About(_EVIDENCE),
        "decision": About(Fields({"evidence": Each(_EVIDENCE), "reason": "personal"})),
        "note": About(_all_but("about leg kind visit tenant")),
        "visit.reviewed": About(_only("note")),
        "visit.hung_up": About(_only("reason")),
        "visit.ended": About(_only("visitor_name resident detail"), transcript=False),
    }
)
"""By kind. What is not named here is sealed for good: times, outcomes, apartments, the gate's answer."""

_NOTHING: Final = Fields({})


def is_transcript(kind: str) -> bool:
    """Whether what a kind's record says of people is what they said and did, and not who they were."""
    about = PERSONAL.get(kind)
    return about is None or about.transcript


TRANSCRIPTS: Final = frozenset(kind for kind, about in PERSONAL.items() if about.transcript)
"""The kinds of :func:`is_transcript` that can have anything of a person."""


# --------------------------------------------------------------------------------------------------------
# Apart, and together again
# --------------------------------------------------------------------------------------------------------


def split(kind: str, data: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a record seals, without its commitment; and what is kept beside it, by JSON pointer.

    Args:
        kind: of the record.
        data: JSON's own types; left as it is.
    """
    taken: dict[str, Any] = {}
    about = PERSONAL.get(kind)
    public = _part(data, about.rule if about else _NOTHING, "", taken)
    if COMMITMENT in data:  # a field of the data's own of that name: its place is the commitment's
        taken = {at: value for at, value in taken.items() if not at.startswith(f"/{COMMITMENT}/")}
        taken[f"/{COMMITMENT}"] = data[COMMITMENT]
        del public[COMMITMENT]
    return public, taken


def _part(value: Any, rule: Rule, at: str, taken: dict[str, Any]) -> Any:
    if rule is None:
        return value
    if isinstance(rule, Fields) and isinstance(value, Mapping):
        return {
            name: _part(item, rule.named.get(name, rule.others), f"{at}/{_escaped(name)}", taken)
            for name, item in value.items()
        }
    if isinstance(rule, Each) and isinstance(value, list):
        return [_part(item, rule.rule, f"{at}/{index}", taken) for index, item in enumerate(value)]
    if value is None or value in ("", [], {}):
        return value
    taken[at] = value
    return None


def merged(public: dict[str, Any], taken: Mapping[str, Any]) -> dict[str, Any]:
    """The whole data again. ``public`` is changed in place: its commitment goes, its nulls are filled.

    Raises:
        ValueError: a pointer leads nowhere: this was not taken from that.
    """
    public.pop(COMMITMENT, None)
    try:
        for at, value in taken.items():
            if (name := at[1:]) in public and public[name] is None and "~" not in name:  # most are so
                public[name] = value
                continue
            *above, last = map(_unescaped, at.split("/")[1:])
            place: Any = public
            for name in above:
                place = place[int(name)] if isinstance(place, list) else place[name]
            if isinstance(place, list):
                place[int(last)] = value
            else:
                place[last] = value
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError("what is kept of a record's persons is not of this record") from error
    return public


def blanked(kind: str, public: dict[str, Any]) -> dict[str, Any]:
    """What is left of data whose personal part is gone, with :data:`ERASED` where it was. In place."""
    public.pop(COMMITMENT, None)
    about = PERSONAL.get(kind)
    if about is not None:
        for place, name in _nulls(public, about.rule):
            place[name] = ERASED
    return public


def _nulls(value: Any, rule: Rule) -> Iterator[tuple[Any, Any]]:
    """Where a null stands for what the rule takes: (container, key)."""
    items: list[tuple[Any, Any, Rule]]
    if isinstance(rule, Fields) and isinstance(value, dict):
        items = [(name, item, rule.named.get(name, rule.others)) for name, item in value.items()]
    elif isinstance(rule, Each) and isinstance(value, list):
        items = [(index, item, rule.rule) for index, item in enumerate(value)]
    else:
        return
    for name, item, below in items:
        if below is not None and item is None:
            yield value, name
        else:
            yield from _nulls(item, below)


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1") if "~" in name or "/" in name else name


def _unescaped(name: str) -> str:
    return name.replace("~1", "/").replace("~0", "~") if "~" in name else name


__all__ = [
    "COMMITMENT",
    "ERASED",
    "PERSONAL",
    "SALT_BYTES",
    "TRANSCRIPTS",
    "About",
    "Each",
    "Fields",
    "Personal",
    "Rule",
    "blanked",
    "commitment",
    "committed",
    "is_transcript",
    "merged",
    "split",
]
