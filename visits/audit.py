"""The audit record: its kinds, how it is sealed into a tenant's hash chain, how a chain is checked.

Each tenant has one chain. Record *n* carries the hash of record *n-1*, so that no record can be changed,
taken out, put in or moved without the chain showing it::

    hash = SHA-256 over, each preceded by its length in 8 bytes:
           "porteiro-audit-1", seq, tenant, visit, at, kind, canonical JSON of data, previous

The lengths make the boundaries part of what is hashed: no two different records have the same input.

What of ``data`` is about a person is not sealed itself: :mod:`visits.personal` says what, and what stands for
it. It can be erased, and the chain still verifies.

What a chain can and cannot show. A hash chain has no key. Whoever may write to the database may drop
records from its *end*, or compute the whole chain anew from some record on, and what is left is a sound
chain. Only an **anchor** shows that: a :class:`Head` noted somewhere else earlier, given to :func:`verify` as
``expected_head``. The database notes heads itself, in a table and in the service's own chain, which whoever
is not thorough forgets; a witness is only what was printed, mailed or kept in another system.
``porteiro audit head`` prints the heads to note.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType, UnionType
from typing import (
    Any,
    Final,
    Literal,
    NamedTuple,
    NotRequired,
    TypedDict,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import orjson

from visits.personal import COMMITMENT, Personal, blanked, commitment, committed, merged, split

GENESIS: Final = "0" * 64
"""What the first record of a chain carries as ``previous``."""

MAX_DATA_BYTES: Final = 262_144
"""The longest canonical JSON that one record may carry (a security limit: a model's words end up in it)."""

MAX_DEPTH: Final = 24
"""How deep ``data`` may be nested."""

_FORMAT: Final = len(b"porteiro-audit-1").to_bytes(8, "big") + b"porteiro-audit-1"
"""What every record's hash begins with, its length before it."""
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_SORTED: Final = orjson.OPT_SORT_KEYS
_LONG_NUMBER: Final = re.compile(r"[:,\[]-?[0-9.]*(?:[0-9]{16}|[0-9][eE])")


class AuditError(ValueError):
    """What was to be sealed is not a record: an unknown kind, a missing field, NaN, a malformed time."""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One thing that happened, sealed.

    Attributes:
        seq: its number in the tenant's chain, from 1, without gaps.
        tenant: whose chain; "" is the service's own.
        visit: the visit's UUID (lower case, with hyphens), or "" where it concerns no visit.
        at: when, as :func:`stamp` writes it. Clocks are set back at times: ``seq`` is the order, not ``at``.
        kind: one of :data:`KINDS`.
        data: JSON of the shape that the kind states. Never to be changed in place.
        previous: the hash of the record before, or :data:`GENESIS`.
        hash: SHA-256 in hexadecimal over all of the above; of ``sealed`` in place of ``data`` where there is
            one.
        sealed: what the chain seals of ``data`` where a part of it is kept apart; None: all of it.
        personal: whether that part is there: "" there is none, ``kept``, ``erased`` (``data`` says
            :data:`visits.personal.ERASED` in its place), ``changed``: it is not what was sealed.
    """

    seq: int
    tenant: str
    visit: str
    at: str
    kind: str
    data: Mapping[str, Any]
    previous: str
    hash: str
    sealed: Mapping[str, Any] | None = None
    personal: Literal["", "kept", "erased", "changed"] = ""


@dataclass(frozen=True, slots=True)
class Head:
    """The last record of a chain: what is noted elsewhere as an anchor. As text: ``120:9f86d0…``."""

    seq: int
    hash: str

    def __str__(self) -> str:
        """``seq:hash``, as :meth:`parse` reads it."""
        return f"{self.seq}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """The head that :meth:`__str__` wrote. Raises :class:`AuditError`."""
        match = re.fullmatch(r"([0-9]{1,18}):([0-9a-f]{64})", text.strip())
        if match is None:
            raise AuditError(f"a chain's head is written SEQ:HASH (64 hexadecimal digits), not {text!r}")
        return cls(int(match[1]), match[2])


# --------------------------------------------------------------------------------------------------------
# The kinds of records, and what each carries. Times in milliseconds count from visit.started.
# Fields beyond these are allowed in every kind; those that are not NotRequired must be there.
# --------------------------------------------------------------------------------------------------------

Role = Literal["visitor", "resident"]
Outcome = Literal["authorized", "denied", "unreachable", "abandoned", "failed"]


class VisitStarted(TypedDict):
    """A visitor's leg was accepted. Opens the visit: every other record of a visit comes after it.

    ``test``: a test call of ``tested_by``: no real gate moved and no real telephone rang.
    """

    endpoint: NotRequired[str]
    provider: NotRequired[str]
    language: NotRequired[str]
    test: NotRequired[bool]
    tested_by: NotRequired[str]
    settings: NotRequired[dict[str, Any]]
    """The tenant's settings that it runs with: ``digest``, and ``version`` where that is known."""


class LegConnected(TypedDict):
    """A leg is up. ``leg`` names it within the visit; each name is used once.

    ``opened_ms``: when it was opened, which is where its recording begins, to 20 ms.
    """

    leg: str
    role: Role
    endpoint: NotRequired[str]
    peer: NotRequired[str]
    provider: NotRequired[str]
    opened_ms: NotRequired[float]


class LegEnded(TypedDict):
    """A leg is gone, and why. ``recording`` is the file, relative to the recordings' root."""

    leg: str
    reason: str
    recording: NotRequired[str | None]


class SessionLost(TypedDict):
    """A leg's session with its model broke, and why; the call goes on, and another is opened.

    Where none can be, a note says so and the visit ends.
    """

    leg: str
    provider: str
    reason: str


class SessionReplaced(TypedDict):
    """A leg goes on with another session, of ``provider``; ``reason``: why the one before it was left."""

    leg: str
    provider: str
    reason: str


class Turn(TypedDict):
    """One side's say.

    ``response_ms``: from the end of the other side's turn to the first sound of this one. Of ours:
    ``speech_to_silence_ms``, from the caller's first sound until we were silent, where that interrupted it;
    ``pauses``, when we fell silent for a sound that left us the turn, and for how long: [[ms, ms], …].
    """

    leg: str
    speaker: Literal["caller", "agent"]
    text: str
    started_ms: float
    ended_ms: float
    response_ms: NotRequired[float | None]
    interrupted: NotRequired[bool]
    heard_ms: NotRequired[float | None]
    speech_to_silence_ms: NotRequired[float]
    pauses: NotRequired[list[Any]]


class ToolCalled(TypedDict):
    """The model asked for a tool. ``arguments`` as they were understood, or the model's text where not."""

    leg: str
    call: str
    name: str
    arguments: object


class ToolAnswered(TypedDict):
    """What the tool answered, in ``ms``. ``status``: ok, invalid, refused, timeout, failed, cancelled.

    ``outside``: of a tool that the tenant declares, how that went: ``host``, ``tries``, ``http`` (the
    answer's status code), ``cached``, ``trouble``; nothing of what was asked and answered.
    """

    leg: str
    call: str
    name: str
    result: object
    ms: float
    status: str
    outside: NotRequired[dict[str, Any]]


class DialStarted(TypedDict):
    """The resident's phone begins to ring.

    ``attempt`` is the UUID minted for this one try, ``number`` counts the tries from 1.
    """

    attempt: str
    number: NotRequired[int]
    apartment: NotRequired[str]
    resident: NotRequired[str]
    dialer: NotRequired[str]


class DialEnded(TypedDict):
    """How an attempt ended: answered, busy, no_answer, rejected, congestion, invalid, failed."""

    attempt: str
    outcome: str
    detail: NotRequired[str]


class BriefingPlayed(TypedDict):
    """The ledger says that the resident's leg heard the briefing to its end."""

    attempt: str


class PartiesConnected(TypedDict):
    """Visitor and resident hear each other from here on; what they say is recorded and not transcribed."""

    attempt: str


class PartiesEnded(TypedDict):
    """They no longer do, after ``seconds``; ``reason``: a key, the limit, the visit's end."""

    attempt: str
    reason: str
    seconds: float


class Evidence(TypedDict):
    """What the resident said or pressed after the briefing: what the decision that follows rests on."""

    attempt: str
    by: str
    reading: NotRequired[str]
    item: NotRequired[str]
    text: NotRequired[str]
    key: NotRequired[str]
    began_s: NotRequired[float]


class Decision(TypedDict):
    """What was decided, on which evidence. At most one in a visit."""

    decision: Literal["authorized", "denied"]
    evidence: list[Any]
    reason: NotRequired[str]


class GateRequested(TypedDict):
    """The gate is about to be told to open. At most one in a visit, and only after an authorized decision."""

    apartment: NotRequired[str]
    gate: NotRequired[str]


class GateAnswered(TypedDict):
    """What the gate answered."""

    opened: bool
    detail: str
    unknown: NotRequired[bool]
    """It said no, or nothing, and may have opened all the same."""
    gate: NotRequired[str]
    ms: NotRequired[float]


class Note(TypedDict):
    """Anything else that a reviewer should know. Of a visit, or of none."""

    about: NotRequired[str]
    text: NotRequired[str]
    leg: NotRequired[str]


class VisitCost(TypedDict):
    """What a visit has cost so far, in the tenant's currency, and for what. The last of a visit's counts.

    Amounts are decimal texts, exact to a billionth: no float is a sum of money.

    Attributes of ``usage``'s entries: provider, model, purpose; tokens by kind, seconds, characters, as far
    as they are not 0; ``usd``: what that cost, None where it has no price.
    """

    amount: str
    currency: str
    usd: str
    final: bool
    """The visit is over; nothing follows."""
    complete: bool
    """False: the amount is less than what was spent; ``unknown`` says why."""
    unknown: list[str]
    usage: list[Any]
    per_usd: NotRequired[str]
    prices: NotRequired[str]
    """The day of the prices."""


class VisitEnded(TypedDict):
    """The visit is over. The last word on who came for whom; at most one in a visit."""

    outcome: Outcome
    reason: NotRequired[str]
    intent: NotRequired[str | None]
    visitor_name: NotRequired[str | None]
    apartment: NotRequired[str | None]
    resident: NotRequired[str | None]
    detail: NotRequired[str]
    """Why the visitor left, in the model's words."""


class RecordingFailed(TypedDict):
    """A leg's recording stopped early; the call went on."""

    leg: str
    reason: str
    detail: NotRequired[str]


class RecordingClosed(TypedDict):
    """A leg's recording is complete: the file, as ``leg.ended`` names it, and what it holds from now on."""

    leg: str
    recording: str
    bytes: int
    sha256: str


class ServiceStarted(TypedDict):
    """The service came up. ``heads``: each tenant's :class:`Head` at that moment, as text."""

    version: NotRequired[str]
    heads: NotRequired[dict[str, str]]


class ServiceStopped(TypedDict):
    """The service went down in order. A start without a stop before it was a crash. ``heads``: as there."""

    reason: NotRequired[str]
    heads: NotRequired[dict[str, str]]


class VisitRecovered(TypedDict):
    """The visit was still open when the service came up again; ``visit.ended`` follows at once.

    ``gate``: ``untouched`` (never requested), ``opened``, ``refused``, or ``unknown``: it was requested, and
    the service died before it could record the answer. Somebody should look.
    """

    reason: str
    gate: Literal["untouched", "opened", "refused", "unknown"]


class SettingsChanged(TypedDict):
    """A version of a tenant's settings is in force from here on; ``source``: ``database``, or the file.

    ``digest`` is the SHA-256 of the settings as canonical JSON; empty where the tenant was removed.
    """

    by: str
    action: Literal["created", "changed", "removed"]
    version: int
    source: str
    digest: str
    fields: NotRequired[list[Any]]
    """What differs from the version before, without the values."""


class DirectoryChanged(TypedDict):
    """A tenant's apartments were changed. Apartments by their labels, the first hundred; nobody's name."""

    by: str
    version: int
    created: int
    changed: int
    removed: int
    apartments: NotRequired[list[Any]]
    standing: NotRequired[str]
    """The id of the standing authorisation that was put or removed, where it was just that."""
    source: NotRequired[str]


class OperatorChanged(TypedDict):
    """An operator of the console came, or was changed. In the chain of the tenant that they are bound to."""

    by: str
    login: str
    action: Literal["created", "changed", "password", "disabled", "enabled"]
    role: NotRequired[str]


class KeyChanged(TypedDict):
    """An API key was made or revoked; ``key`` is its id, never its secret."""

    by: str
    key: str
    action: Literal["created", "revoked"]
    name: NotRequired[str]
    role: NotRequired[str]
    scopes: NotRequired[list[Any] | None]
    expires_at: NotRequired[str | None]


class VisitReviewed(TypedDict):
    """A person judged what the service did in a visit. The last review of a visit counts."""

    by: str
    verdict: Literal["right", "wrong"]
    note: NotRequired[str]


class VisitHungUp(TypedDict):
    """A person had a leg hung up while the visit was running; without ``leg``: all of it."""

    by: str
    leg: NotRequired[str]
    reason: NotRequired[str]


ErasedScope = Literal["recordings", "transcripts", "visit"]
"""What is erased of a visit: its recordings; what was said and done in it; or all that it has of people.

What stands for good is what the chain seals (:mod:`visits.personal`).
"""


class PersonErased(TypedDict):
    """What some visits had of people was erased because somebody asked for it. Never names them.

    Attributes:
        visits: the ids; ended visits of this tenant.
        removed: how many ``records`` lost what they said of people, and how many ``recordings`` go;
            ``sealed`` counts the records of older versions, which keep it in the chain.
    """

    by: str
    scope: ErasedScope
    visits: list[Any]
    removed: dict[str, Any]
    reason: NotRequired[str]


class RetentionCarriedOut(TypedDict):
    """What some visits had of people was kept long enough, and was erased; fields as in ``person.erased``.

    ``before``: visits that started before then.
    """

    by: str
    scope: ErasedScope
    visits: list[Any]
    removed: dict[str, Any]
    before: NotRequired[str]


class WebhookGivenUp(TypedDict):
    """The tenant's webhook was not told of an event of this visit: it did not take it in time.

    ``event``: its id; ``answer``: what became of the last of so many attempts.
    """

    event: str
    attempts: int
    answer: str


class WebhookResent(TypedDict):
    """Somebody had an event that was given up sent again."""

    by: str
    event: str


Scope = Literal["visit", "service", "either"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of record: the shape of its data, and whether it belongs to a visit."""

    data: type
    scope: Scope = "visit"

    @property
    def meaning(self) -> str:
        """One sentence for people."""
        return (self.data.__doc__ or "").strip().split("\n")[0]


KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "visit.started": Kind(VisitStarted),
        "leg.connected": Kind(LegConnected),
        "leg.ended": Kind(LegEnded),
        "session.lost": Kind(SessionLost),
        "session.replaced": Kind(SessionReplaced),
        "turn": Kind(Turn),
        "tool.called": Kind(ToolCalled),
        "tool.answered": Kind(ToolAnswered),
        "dial.started": Kind(DialStarted),
        "dial.ended": Kind(DialEnded),
        "briefing.played": Kind(BriefingPlayed),
        "parties.connected": Kind(PartiesConnected),
        "parties.ended": Kind(PartiesEnded),
        "evidence": Kind(Evidence),
        "decision": Kind(Decision),
        "gate.requested": Kind(GateRequested),
        "gate.answered": Kind(GateAnswered),
        "note": Kind(Note, "either"),
        "visit.cost": Kind(VisitCost),
        "visit.ended": Kind(VisitEnded),
        "recording.failed": Kind(RecordingFailed),
        "recording.closed": Kind(RecordingClosed),
        "service.started": Kind(ServiceStarted, "service"),
        "service.stopped": Kind(ServiceStopped, "service"),
        "visit.recovered": Kind(VisitRecovered),
        "settings.changed": Kind(SettingsChanged, "service"),
        "directory.changed": Kind(DirectoryChanged, "service"),
        "operator.changed": Kind(OperatorChanged, "service"),
        "key.changed": Kind(KeyChanged, "service"),
        "visit.reviewed": Kind(VisitReviewed),
        "visit.hung_up": Kind(VisitHungUp),
        "person.erased": Kind(PersonErased, "service"),
        "retention.carried_out": Kind(RetentionCarriedOut, "service"),
        "webhook.given_up": Kind(WebhookGivenUp),
        "webhook.resent": Kind(WebhookResent),
    }
)
"""Every kind of record there is. :func:`seal` refuses any other."""

ERASURES: Final = frozenset({"person.erased", "retention.carried_out"})
"""The kinds by which something may be gone."""


@dataclass(frozen=True, slots=True)
class _Field:
    hint: Any
    required: bool


def _fields(shape: type) -> Mapping[str, _Field]:
    hints = get_type_hints(shape, include_extras=True)
    optional = {name for name, hint in hints.items() if get_origin(hint) is NotRequired}
    return {
        name: _Field(get_args(hint)[0] if name in optional else hint, name not in optional)
        for name, hint in hints.items()
    }


_FIELDS: Final = {name: _fields(kind.data) for name, kind in KINDS.items()}


def _fits(value: object, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if hint is object:
        return True
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin or hint)


def _check_shape(kind: str, data: Mapping[str, Any]) -> None:
    for name, field in _FIELDS[kind].items():
        if name not in data:
            if field.required:
                raise AuditError(f"a {kind} record needs the field {name!r}")
        elif not _fits(data[name], field.hint):
            # The value itself is not in the message: it may be somebody's words, and messages are logged.
            raise AuditError(
                f"the field {name!r} of a {kind} record cannot be this {type(data[name]).__name__}"
            )


# --------------------------------------------------------------------------------------------------------
# Canonical text and hash
# --------------------------------------------------------------------------------------------------------


def stamp(moment: datetime) -> str:
    """A moment as records carry it: ISO 8601, UTC, always microseconds: ``2026-11-21T13:05:00.000250+00:00``.

    Raises :class:`AuditError` for a datetime without a time zone. Texts of this form sort as the times do.
    """
    if moment.tzinfo is None:
        raise AuditError("a record's time needs a time zone")
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _check_time(at: str) -> None:
    try:
        fits = stamp(datetime.fromisoformat(at)) == at
    except ValueError as error:
        raise AuditError(f"not a time: {at!r:.60} ({error})") from error
    if not fits:
        raise AuditError(f"{at!r:.60} is not in UTC with microseconds; visits.audit.stamp writes it so")


def _plain(value: object, depth: int, *, repair: bool) -> Any:
    """A deep copy in JSON's own types. ``repair``: lone surrogates become U+FFFD instead of an error.

    Models do escape half a surrogate pair in tool arguments now and then; no database takes that as text, and
    the record must be written all the same.
    """
    if depth > MAX_DEPTH:
        raise AuditError(f"data is nested more than {MAX_DEPTH} deep")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _LONE_SURROGATE.sub("\ufffd", value) if repair else str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise AuditError(f"{value} has no place in JSON")
        return float(value)
    if isinstance(value, Mapping):
        copy: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise AuditError(f"a key must be text, not {key!r:.40}")
            name = _plain(key, depth, repair=repair)
            if name in copy:
                raise AuditError(f"the key {name!r:.40} comes twice")
            copy[name] = _plain(item, depth + 1, repair=repair)
        return copy
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth + 1, repair=repair) for item in value]
    raise AuditError(f"a {type(value).__name__} cannot be written as JSON")


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise AuditError(f"not storable as UTF-8: {text!r:.60}") from error


def _canonical(plain: Any) -> str:
    try:
        return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except ValueError as error:  # an integer of more than 4300 digits
        raise AuditError(f"cannot be written as JSON: {error}") from error


def canonical(data: Mapping[str, Any]) -> str:
    """The one text of ``data``: keys sorted by code point, no spaces, nothing escaped that need not be.

    Raises :class:`AuditError` for whatever is not JSON: NaN, infinities, keys that are not text, lone
    surrogates, other objects.
    """
    text = _canonical(_plain(data, 0, repair=False))
    _encode(text)
    return text


def decode(text: str) -> Mapping[str, Any]:
    """``data`` from its stored text; for readers of a store.

    A text that is not exactly what :func:`canonical` writes (someone edited the store) is given back as
    ``{"unreadable": text}``: no such record was ever sealed with that hash, so that :func:`verify` names it,
    and a person sees what is there.
    """
    try:
        plain = _plainly_canonical(text, text.encode())
        if plain is not None:
            return plain
        data: Any = json.loads(text)
        sound = isinstance(data, dict) and canonical(data) == text
    except (ValueError, RecursionError):
        sound = False
    return data if sound else {"unreadable": text}


def decode_sound(text: str) -> dict[str, Any]:
    """``data`` from the text of a record that was found to give its hash."""
    data: dict[str, Any] = orjson.loads(text)
    # orjson makes a float of an integer that is too long for it, in whichever depth.
    if not _EXACT.issuperset(map(type, data.values())) and _LONG_NUMBER.search(text):
        return json.loads(text)  # type: ignore[no-any-return]
    return data


_EXACT: Final = frozenset({str, int, bool, type(None)})
"""What orjson reads as it is, or not at all."""


def _plainly_canonical(text: str, encoded: bytes) -> dict[str, Any] | None:
    """``data`` of a text that is canonical beyond doubt; None: it may be, and :func:`canonical` knows.

    Ten times faster. What orjson reads and writes back the same, with sorted keys, is canonical, but for two
    things: it writes very large and very small numbers in another way, and nests deeper.

    Args:
        text: of a record.
        encoded: the same in UTF-8.
    """
    try:
        data = orjson.loads(text)
        if data.__class__ is not dict or orjson.dumps(data, option=_SORTED) != encoded:
            return None
    except (ValueError, TypeError):
        return None
    found: dict[str, Any] = data
    if _EXACT.issuperset(map(type, found.values())):
        return found
    for value in found.values():
        if value.__class__ in _EXACT:
            continue
        if value.__class__ is float:
            if not (1e-4 <= value < 1e16 or value == 0.0):
                return None
        elif _LONG_NUMBER.search(text) or text.count("{") + text.count("[") > MAX_DEPTH:
            return None
        else:
            break  # the whole text was looked at
    return found


_LENGTHS: Final = tuple(length.to_bytes(8, "big") for length in range(2048))
"""The lengths of most texts, as they are hashed."""


def _digest(seq: int, tenant: str, visit: str, at: str, kind: str, data: bytes, previous: str) -> str:
    try:
        number, when, before = b"%d" % seq, at.encode(), previous.encode()
        whose, which, what = _part(tenant), _part(visit), _part(kind)
    except UnicodeEncodeError as error:
        raise AuditError(f"not storable as UTF-8: {error.object!r:.60}") from error
    parts = (
        _FORMAT,
        _LENGTHS[len(number)],
        number,
        whose,
        which,
        _LENGTHS[len(when)] if len(when) < 2048 else len(when).to_bytes(8, "big"),
        when,
        what,
        _LENGTHS[len(data)] if len(data) < 2048 else len(data).to_bytes(8, "big"),
        data,
        _LENGTHS[len(before)] if len(before) < 2048 else len(before).to_bytes(8, "big"),
        before,
    )
    return sha256(b"".join(parts)).hexdigest()


@lru_cache(maxsize=1024)
def _part(text: str) -> bytes:
    """A text that many records share, as it is hashed: its length before it."""
    encoded = text.encode()
    return len(encoded).to_bytes(8, "big") + encoded


def digest(record: AuditRecord) -> str:
    """The hash that the record's content gives. Raises :class:`AuditError` where it can't be a record's."""
    r = record
    sealed = r.data if r.sealed is None else r.sealed
    return _digest(r.seq, r.tenant, r.visit, r.at, r.kind, canonical(sealed).encode(), r.previous)


def intact(record: AuditRecord) -> bool:
    """Whether a record's content gives its hash, and what is kept apart of it is what was sealed."""
    try:
        return record.personal != "changed" and digest(record) == record.hash
    except AuditError:
        return False


def _plain_data(row: Sequence[Any]) -> dict[str, Any] | None:
    """What a record seals, where it gives the hash beyond doubt.

    ``row``: the first eight fields of a :class:`StoredRecord`.
    """
    seq, tenant, visit, at, kind, text, previous, own = row
    try:
        data = text.encode()
        same = _digest(seq, tenant, visit, at, kind, data, previous) == own
    except (ValueError, AttributeError, TypeError):  # somebody's edit
        return None
    return _plainly_canonical(text, data) if same else None


class StoredRecord(NamedTuple):
    """A record as a store keeps it: with ``data`` as its text, unread, and what is kept beside it."""

    seq: int
    tenant: str
    visit: str
    at: str
    kind: str
    text: str
    previous: str
    hash: str
    salt: str | None = None
    personal: str | None = None

    def read(self) -> AuditRecord:
        """The record; a text that was never sealed is told as :func:`decode` does."""
        return self.told(decode(self.text))

    def told(self, public: Mapping[str, Any]) -> AuditRecord:
        """The record, with its text read already."""
        data, sealed, state = self._whole(public)
        return AuditRecord(
            self.seq,
            self.tenant,
            self.visit,
            self.at,
            self.kind,
            data,
            self.previous,
            self.hash,
            sealed,
            state,
        )

    def plain_data(self) -> dict[str, Any] | None:
        """What is sealed, where it gives the hash beyond doubt; where it is None, :func:`intact` knows."""
        return _plain_data(self[:8])

    def seals_persons(self) -> bool:
        """Whether its sealed text says something of people: an older version wrote it so."""
        public = decode(self.text)
        return committed(public) is None and bool(split(self.kind, public)[1])

    def _whole(self, public: Mapping[str, Any]) -> _Whole:
        sealed_on = committed(public)
        if sealed_on is None and self.personal is None:
            return public, None, ""
        copy: dict[str, Any] = _deep(public)
        if self.personal is None:
            return blanked(self.kind, copy), public, "erased"
        try:
            same = commitment(self.salt or "", self.personal) == sealed_on
            return merged(copy, decode_sound(self.personal)), public, "kept" if same else "changed"
        except (ValueError, AttributeError, TypeError):  # somebody's edit
            return {**public, COMMITMENT: self.personal}, public, "changed"


_Whole = tuple[Mapping[str, Any], Mapping[str, Any] | None, Literal["", "kept", "erased", "changed"]]


def _deep(value: Any) -> Any:
    """A copy of plain JSON."""
    if isinstance(value, Mapping):
        return {name: _deep(item) for name, item in value.items()}
    return [_deep(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class Draft:
    """A record that was checked and copied, but has no place in a chain yet. Made by :func:`draft`."""

    tenant: str
    visit: str
    at: str
    kind: str
    data: Mapping[str, Any]
    text: str
    """The canonical JSON of what is sealed: of ``data``, or of ``public``."""
    public: Mapping[str, Any] | None = None
    """What is sealed of ``data``, where a part of it is kept apart."""
    personal: Personal | None = None
    """That part."""
    salt: str | None = None
    """What it was made with, whether or not anything was to be kept apart."""

    def sealed(self, previous: AuditRecord | Head | None) -> AuditRecord:
        """The record that follows ``previous`` (None: the chain's first). Cheap: one hash."""
        seq, link = (1, GENESIS) if previous is None else (previous.seq + 1, previous.hash)
        own = _digest(seq, self.tenant, self.visit, self.at, self.kind, _encode(self.text), link)
        return AuditRecord(
            seq,
            self.tenant,
            self.visit,
            self.at,
            self.kind,
            self.data,
            link,
            own,
            self.public,
            "kept" if self.personal is not None else "",
        )


def draft(
    *, tenant: str, visit: str, at: str, kind: str, data: Mapping[str, Any], salt: str | None = None
) -> Draft:
    """Check what is to become a record, and copy it. Arguments and errors are those of :func:`seal`.

    ``salt``: random, :data:`visits.personal.SALT_BYTES` in hexadecimal, never used before: what is about a
    person is kept apart from what is sealed. Without it all is sealed.
    """
    if kind not in KINDS:
        raise AuditError(f"there is no kind of record {kind!r:.60}")
    _encode(tenant)
    _check_visit(kind, visit)
    _check_time(at)
    plain = _plain(data, 0, repair=True)
    _check_shape(kind, plain)
    text = _canonical(plain)
    if len(_encode(text)) > MAX_DATA_BYTES:
        raise AuditError(f"the data of a {kind} record is longer than {MAX_DATA_BYTES} bytes")
    public, taken = split(kind, plain) if salt is not None else (plain, {})
    if salt is None or not taken:
        return Draft(tenant, visit, at, kind, plain, text, salt=salt)
    personal = Personal(salt, _canonical(taken))
    try:
        public[COMMITMENT] = personal.commitment
    except ValueError as error:
        raise AuditError(str(error)) from error
    return Draft(tenant, visit, at, kind, plain, _canonical(public), public, personal, salt)


def seal(
    previous: AuditRecord | Head | None,
    *,
    tenant: str,
    visit: str,
    at: str,
    kind: str,
    data: Mapping[str, Any],
) -> AuditRecord:
    """The next record of a tenant's chain.

    Args:
        previous: the chain's last record (or its head); None where this is the first.
        tenant: whose chain. Where ``previous`` is a record, it must be of the same tenant.
        visit: the visit's UUID in lower case with hyphens, or "" for the kinds that concern no visit.
        at: as :func:`stamp` writes it.
        kind: one of :data:`KINDS`.
        data: what that kind carries. It is copied; lone surrogates in texts become U+FFFD.

    Raises:
        AuditError: an unknown kind, a field that is missing or of the wrong type, a time in another form, a
            visit where none belongs (or the reverse), anything that JSON can't carry, more than
            :data:`MAX_DATA_BYTES`.
    """
    if isinstance(previous, AuditRecord) and previous.tenant != tenant:
        raise AuditError(f"a record of {tenant!r:.60} cannot follow one of {previous.tenant!r:.60}")
    return draft(tenant=tenant, visit=visit, at=at, kind=kind, data=data).sealed(previous)


def _check_visit(kind: str, visit: str) -> None:
    scope = KINDS[kind].scope
    if visit and not _UUID.match(visit):
        raise AuditError(f"a visit is named by its UUID in lower case, not by {visit!r:.60}")
    if visit and scope == "service":
        raise AuditError(f"a {kind} record belongs to no visit")
    if not visit and scope == "visit":
        raise AuditError(f"a {kind} record belongs to a visit")


# --------------------------------------------------------------------------------------------------------
# Checking a chain
# --------------------------------------------------------------------------------------------------------

FaultKind = Literal[
    "changed",
    "missing",
    "reordered",
    "duplicated",
    "rewritten",
    "forged",
    "truncated",
    "impossible",
    "row-changed",
    "row-missing",
    "row-added",
    "recording-changed",
    "recording-missing",
    "personal-changed",
    "personal-missing",
    "personal-kept",
    "personal-added",
]

Anchors = Head | Collection[Head] | None
"""Heads of one chain that were noted elsewhere."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong in a chain, or in what follows from it, and where.

    Attributes:
        kind: ``changed``: the content does not give its hash. ``missing``: records ``seq`` to ``until`` are
            gone. ``reordered``: it stands after a later one. ``duplicated``: its number came before already.
            ``rewritten``: sound in itself, but not what the next record (or the anchor) was sealed on.
            ``forged``: it can't belong to this chain. ``truncated``: records ``seq`` to ``until``, up to the
            anchor, are gone from the end. ``impossible``: sound, but it can't follow from the visit's records
            before it. ``row-…``: a table that is read in place of the records says something else than they
            do. ``recording-…``: a recording's file is not what record ``seq`` says. ``personal-…``: what is
            kept beside record ``seq`` of people is not what was sealed, is gone although no record erased
            it, is there although one did, or belongs to no record.
        tenant: whose chain.
        seq: the place in the chain, from 1; 0 for a row of a table.
        until: the last place concerned; equal to ``seq`` for one record.
        visit: the visit that the record names; "" where there is no record or no visit.
        detail: a sentence for people.
        place: ``table.column`` for a row, the file for a recording; "" for a record.
    """

    kind: FaultKind
    tenant: str
    seq: int
    until: int
    visit: str
    detail: str
    place: str = ""

    def __str__(self) -> str:
        """One line for people."""
        place = f"record {self.seq}" if self.until == self.seq else f"records {self.seq} to {self.until}"
        place = self.place or place
        of = f" of visit {self.visit}" if self.visit else ""
        return f"{self.kind}: {place}{of} (tenant {self.tenant or '-'}): {self.detail}"


class Verifier:
    """Checks one tenant's chain, record by record, in the order in which they are kept.

    Its memory grows with the faults, not with the chain.
    """

    def __init__(self, tenant: str | None = None, expected_head: Anchors = None) -> None:
        """``tenant``: whose chain it must be; without it that of the first sound record."""
        self._tenant = tenant
        anchors = (expected_head,) if isinstance(expected_head, Head) else tuple(expected_head or ())
        self._anchors: dict[int, set[Head]] = {}
        for anchor in anchors:
            self._anchors.setdefault(anchor.seq, set()).add(anchor)
        self._next = 1
        self._links: tuple[str, ...] = (GENESIS,)
        self._suspect = False
        """The record before is already named: what follows need not fit it."""
        self._gaps: list[tuple[int, int]] = []
        self._faults: list[Fault] = []
        self._last_visit = ""
        self._head: tuple[int, str] | None = None

    @property
    def head(self) -> Head | None:
        """The last record so far: what to note as an anchor where no fault was found."""
        return None if self._head is None else Head(*self._head)

    def feed_stored(self, rows: Sequence[Sequence[Any]]) -> list[dict[str, Any] | None]:
        """The next records as a store keeps them: the same as :meth:`feed`, and quick where nothing is wrong.

        Args:
            rows: the first eight fields of each :class:`StoredRecord`.

        Returns:
            What each of them seals; None where it does not give the record's hash.
        """
        found = []
        link, following, last = self._only_link(), self._next, None
        for row in rows:
            plain = _plain_data(row)
            if (
                plain is not None
                and row[6] == link
                and row[0] == following
                and row[1] == self._tenant
                and following not in self._anchors
            ):
                link, following, last = row[7], following + 1, row
            else:
                self._went_on_to(last)
                read = StoredRecord(*row).read()
                public = read.data if read.sealed is None else read.sealed
                plain = dict(public) if self.feed(read) else None
                link, following, last = self._only_link(), self._next, None
            found.append(plain)
        self._went_on_to(last)
        return found

    def _only_link(self) -> str | None:
        """What the next record must follow; None where that is not just one thing."""
        return None if self._suspect or len(set(self._links)) > 1 else self._links[0]

    def _went_on_to(self, row: Sequence[Any] | None) -> None:
        """That record is the last one that is as it must be; None: no further one was."""
        if row is not None:
            self._next = row[0] + 1
            self._links = (row[7],)
            self._last_visit = row[2]
            self._head = row[0], row[7]

    def feed(self, record: AuditRecord) -> bool:
        """The next record as it is kept; whether it gives its hash."""
        try:
            own = digest(record)
        except AuditError:
            own = ""
        if own != record.hash:
            self._damaged(record, own)
            return False
        if self._tenant is None:
            self._tenant = record.tenant
        if record.tenant != self._tenant:
            self._report("forged", record, f"it belongs to the chain of {record.tenant!r}")
        elif record.seq < 1:
            self._report("forged", record, "records are numbered from 1")
        elif record.seq == self._next:
            self._check_link(record)
            self._accept(record, record.seq, own)
        elif record.seq > self._next:
            self._gaps.append((self._next, record.seq - 1))
            self._accept(record, record.seq, own)
        elif self._fill_gap(record.seq):
            self._report("reordered", record, f"it stands after record {self._next - 1}")
        else:
            self._report("duplicated", record, "its number came before already")
        return True

    def finish(self) -> list[Fault]:
        """All the faults, by their place."""
        for start, end in self._gaps:
            self._add("missing", start, end, "", "not there")
        last = max(self._anchors, default=0)
        if self._next <= last:
            noted = ", ".join(sorted(str(anchor) for anchor in self._anchors[last]))
            text = f"the chain ends at {self._next - 1}; the anchor is {noted}"
            self._add("truncated", self._next, last, "", text)
        return sorted(self._faults, key=lambda fault: fault.seq)

    def _damaged(self, record: AuditRecord, own: str) -> None:
        if record.seq == self._next or record.previous in self._links:
            text = "its content does not give its hash"
            if record.seq != self._next:
                text += f"; it says that it is number {record.seq}"
            self._report("changed", record, text, self._next)
            self._accept(record, self._next, own, suspect=True)
        elif record.seq > self._next:
            self._gaps.append((self._next, record.seq - 1))
            self._report("changed", record, "its content does not give its hash")
            self._accept(record, record.seq, own, suspect=True)
        elif self._fill_gap(record.seq):
            self._report("changed", record, "its content does not give its hash, and it is out of order")
        else:
            self._report("forged", record, "its content does not give its hash, and its place is taken")

    def _check_link(self, record: AuditRecord) -> None:
        if self._suspect or record.previous in self._links:
            return
        if record.seq == 1:
            self._report("forged", record, "it says that it follows another record")
            return
        before = record.seq - 1
        text = (
            f"record {before} is not the one that {record.seq} was sealed on: "
            f"either it was rewritten, or all from {record.seq} on was put in place of something else"
        )
        self._add("rewritten", before, record.seq, self._last_visit, text)

    def _accept(self, record: AuditRecord, seq: int, own: str, *, suspect: bool = False) -> None:
        # A changed record's successor links to what the record was: its kept hash, or, where the hash itself
        # was changed, what its content gives.
        self._links = (record.hash, own)
        self._suspect = suspect
        self._next = seq + 1
        self._last_visit = record.visit
        self._head = seq, record.hash
        for anchor in self._anchors.get(seq, ()):
            if not suspect and record.hash != anchor.hash:
                self._report("rewritten", record, f"the anchor says {anchor}")

    def _fill_gap(self, seq: int) -> bool:
        for index, (start, end) in enumerate(self._gaps):
            if start <= seq <= end:
                rest = [(start, seq - 1), (seq + 1, end)]
                self._gaps[index : index + 1] = [(a, b) for a, b in rest if a <= b]
                return True
        return False

    def _report(self, kind: FaultKind, record: AuditRecord, detail: str, seq: int | None = None) -> None:
        place = record.seq if seq is None else seq
        self._add(kind, place, place, record.visit, detail)

    def _add(self, kind: FaultKind, seq: int, until: int, visit: str, detail: str) -> None:
        self._faults.append(Fault(kind, self._tenant or "", seq, until, visit, detail))


def verify(
    records: Iterable[AuditRecord], *, tenant: str | None = None, expected_head: Anchors = None
) -> list[Fault]:
    """The faults of one tenant's chain, given in the order in which it is kept; none where it is sound.

    Records cut from the end, and a chain computed anew from some record on, are found only with
    ``expected_head``: a head that was noted elsewhere when the chain had (at least) that many records.
    """
    verifier = Verifier(tenant, expected_head)
    for record in records:
        verifier.feed(record)
    return verifier.finish()
