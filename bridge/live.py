"""What runs now: the hub of running visits, for the API and the pages.

It is told by watchers (`bridge/watch.py`), of this process or, in batches, of the workers; it never asks a
visit anything and no visit ever waits for it. What it shows is therefore what was seen: nothing here decides.

Whoever follows it has a subscription with a bounded queue. Who reads too slowly loses events, and is told how
many; everybody else is not slowed by it. An event has an id unless it is void a moment later (`PASSING`), and
the last ones are kept: whoever comes back with the last id they had gets what they missed, as far as it is
still known.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol
from uuid import UUID, uuid4

import orjson
import structlog

from bridge.watch import PASSING, Seen
from visits.audit import KINDS, stamp

KEPT_EVENTS: Final = 1000
"""So many are kept for those who come back."""
QUEUED_EVENTS: Final = 256
"""So many wait for one reader."""
MOST_BYTES: Final = 8192
"""Of an event's data. What is longer is shortened: all of it is in the audit log."""
MOST_LETTERS: Final = 1000
"""Of a text in data that is shortened, and of a turn in what is shown of a visit."""
SHOWN_TURNS: Final = 30
SHOWN_CALLS: Final = 20
"""Of a visit: the last ones."""
SHOWN_LEGS: Final = 8
TOGETHER_S: Final = 0.1
"""What happens within it is given to a reader at once: many readers must not wake for each word."""
READINESS_S: Final = 1.0
"""So often it is looked whether visitors are taken."""
ANSWER_S: Final = 5.0
"""How long a visit may take to have a hang-up on record."""

log = structlog.get_logger(__name__)


class NoSuchCallError(LookupError):
    """No such visit runs, or it has no such leg open."""


class NotAnsweredError(RuntimeError):
    """The visit was told to hang up, and has not said in time that it did."""


# --------------------------------------------------------------------------------------------------------
# What is shown of a running visit. Never changed: what happens makes a new one.
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunningLeg:
    """One phone call of a running visit.

    Attributes:
        name: as records name it: `visitor`, `resident-1`.
        provider: who talks with the caller now.
        session: `up`; `lost`: another model is being looked for; `own_voice`: no model is there.
        caller_speaks, agent_speaks: now.
        caller_says, agent_says: the words so far of a turn that is not over; empty where none are known.
        ended: why the call is over; empty: it is not.
    """

    name: str
    role: str
    endpoint: str
    peer: str
    provider: str
    since_ms: float
    session: Literal["up", "lost", "own_voice"] = "up"
    caller_speaks: bool = False
    agent_speaks: bool = False
    caller_says: str = ""
    agent_says: str = ""
    ended: str = ""


@dataclass(frozen=True, slots=True)
class RunningTurn:
    """One side's say that is over; see :class:`visits.audit.Turn`."""

    leg: str
    speaker: str
    text: str
    started_ms: float
    ended_ms: float
    response_ms: float | None
    interrupted: bool


@dataclass(frozen=True, slots=True)
class RunningToolCall:
    """One tool call. ``result``, ``status`` and ``ms`` are None while it is unanswered."""

    leg: str
    call: str
    name: str
    arguments: Any
    at_ms: float
    result: Any = None
    status: str | None = None
    ms: float | None = None


@dataclass(frozen=True, slots=True)
class RunningVisit:
    """One running visit.

    Attributes:
        since: when it began, as `visits.audit.stamp` writes it.
        state: as in `visits/visit.py`.
        caller_id, dialled: what the PBX said of the call; empty where it said nothing.
        apartment, resident: who is called, once somebody is.
        decision: authorized, denied, or None.
        gate: None; `asked`, `opened`, `refused`, or `unknown`.
        turns, tool_calls: the last ones, the oldest first.
        cost: so far, a decimal text in ``currency``; None where nothing is known.
        hung_up_by: who hung up, where a person did.
    """

    id: str
    tenant: str
    since: str
    state: str = "greeting"
    endpoint: str = ""
    provider: str = ""
    language: str = ""
    caller_id: str = ""
    dialled: str = ""
    apartment: str = ""
    resident: str = ""
    decision: str | None = None
    gate: str | None = None
    legs: tuple[RunningLeg, ...] = ()
    turns: tuple[RunningTurn, ...] = ()
    tool_calls: tuple[RunningToolCall, ...] = ()
    cost: str | None = None
    currency: str | None = None
    cost_complete: bool | None = None
    hung_up_by: str | None = None

    def leg(self, name: str) -> RunningLeg | None:
        """The open leg of that name."""
        return next((leg for leg in self.legs if leg.name == name and not leg.ended), None)


@dataclass(frozen=True, slots=True)
class ProviderStanding:
    """How one of a tenant's providers stands, by the last word of any process; see `providers/breaker.py`.

    Attributes:
        at: when that was said.
        passed_over_s: for so long, still, another one is tried first.
    """

    provider: str
    state: Literal["well", "failing", "passed_over"]
    code: str
    at: str
    passed_over_s: float


# --------------------------------------------------------------------------------------------------------
# What is told of it
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """One thing that happened.

    Attributes:
        id: what a reader who comes back says they had last; empty: it is not kept.
        at: when it was seen.
        tenant: whose; empty: the service's own.
        visit: empty: of no visit.
        kind: one of :data:`EVENT_KINDS`: as :class:`bridge.watch.Seen` has it, or `visit.over` (it does not
            run any more), `call.registered`, `service.readiness`; or `lost`.
        json: the data, as JSON.
    """

    id: str
    at: str
    tenant: str
    visit: str
    kind: str
    json: bytes

    @property
    def data(self) -> Any:
        """The data."""
        return orjson.loads(self.json)


@dataclass(slots=True, eq=False)
class Subscription:
    """What one reader has still to read; made by :meth:`Hub.subscribe`, and ended by :meth:`close`.

    Attributes:
        tenant: None: of all.
        kinds: None: every kind.
        visit: None: every visit, and what is of none.
    """

    hub: Hub
    tenant: str | None
    kinds: frozenset[str] | None
    visit: str | None
    _waiting: deque[LiveEvent] = field(default_factory=deque)
    _lost: int = 0
    _gap: bool = False
    _over: bool = False
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def over(self) -> bool:
        """Nothing more comes: it was closed, or the service stops."""
        return self._over

    def wants(self, event: LiveEvent) -> bool:
        """Whether this reader is to have it."""
        return (
            (self.tenant is None or event.tenant == self.tenant or event.kind == READINESS)
            and (self.kinds is None or event.kind in self.kinds)
            and (self.visit is None or event.visit == self.visit)
        )

    def put(self, event: LiveEvent) -> None:
        """It happened. The oldest that waits is let go where there is no room."""
        if len(self._waiting) >= QUEUED_EVENTS:
            self._waiting.popleft()
            self._lost += 1
        self._waiting.append(event)
        self._wake.set()

    def catch_up(self, events: Iterable[LiveEvent]) -> None:
        """It happened while this reader was away. All of it is given: no more than is kept."""
        self._waiting.extend(event for event in events if self.wants(event))
        if self._waiting:
            self._wake.set()

    def lost(self, count: int) -> None:
        """So many events were lost on their way to us."""
        self._lost += count
        self._wake.set()

    def gap(self) -> None:
        """Events that this reader has missed are not known any more, nor how many."""
        self._gap = True
        self._wake.set()

    async def take(self, timeout_s: float) -> list[LiveEvent]:
        """What has happened, the oldest first; waits for something, and then a moment for more.

        Empty after so long without anything, and at the end (:attr:`over`).
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
                if not self._over:
                    await asyncio.sleep(TOGETHER_S)
        self._wake.clear()
        if self._over:
            self._wake.set()
        taken = self._told_of_loss() + list(self._waiting)
        self._waiting.clear()
        return taken

    def _told_of_loss(self) -> list[LiveEvent]:
        """A word on what is missing before what comes; ``count`` is null where it is not known."""
        if not self._lost and not self._gap:
            return []
        count = None if self._gap else self._lost
        self._lost, self._gap = 0, False
        return [LiveEvent("", _now(), self.tenant or "", "", "lost", orjson.dumps({"count": count}))]

    def end(self) -> None:
        """Nothing more comes."""
        self._over = True
        self._wake.set()

    def close(self) -> None:
        """The reader is gone. More than once is harmless."""
        self.end()
        self.hub.leave(self)


READINESS: Final = "service.readiness"
"""Whether visitors are taken, and what somebody should look after: everybody may know."""

EVENT_KINDS: Final = frozenset(
    {kind for kind, one in KINDS.items() if one.scope == "visit"}
    | {
        "note",
        "state",
        "speaking",
        "partial",
        "barge_in",
        "pause",
        "floor",
        "session.own_voice",
        "visit.over",
    }
    | {"provider.state", "call.registered", READINESS}
)
"""Every kind that is told, beside `lost`."""

HangsUp = Callable[[UUID, str | None, str], bool]
"""Tells a visit to hang up a leg, or all; by whom. False: no such visit runs, or it has no such leg."""


class Readiness(Protocol):
    """Who knows whether a visitor would be taken now; :class:`bridge.service.Service`."""

    def not_ready(self) -> list[str]:
        """Why none would, in fixed words."""

    def warnings(self) -> list[str]:
        """What somebody should look after, in fixed words."""


async def follow_readiness(hub: Hub, service: Readiness) -> None:
    """Tell, until cancelled, whenever it has changed whether visitors are taken, or what is amiss."""
    told: Mapping[str, Any] = {}
    while True:
        reasons = service.not_ready()
        now = {"ready": not reasons, "reasons": reasons, "warnings": service.warnings()}
        if now != told:
            told = now
            hub.tell("", READINESS, told)
        await asyncio.sleep(READINESS_S)


class Hub:
    """What runs now, and who follows it. Of one event loop; all but :meth:`hang_up` returns at once."""

    def __init__(self, hang_up: HangsUp) -> None:
        self._hangs_up = hang_up
        self._visits: dict[str, RunningVisit] = {}
        self._providers: dict[tuple[str, int], dict[int, tuple[ProviderStanding, float]]] = {}
        """By tenant and place in its list: what each process said last, and until when it is passed over."""
        self._readers: set[Subscription] = set()
        self._run = uuid4().hex[:12]
        """Ids of another run are none of ours."""
        self._last = 0
        self._kept: deque[tuple[int, LiveEvent]] = deque(maxlen=KEPT_EVENTS)
        self._hanging_up: list[tuple[str, str | None, asyncio.Future[None]]] = []
        self._closed = False

    # ----------------------------------------------------------------------------------------------------
    # What is asked
    # ----------------------------------------------------------------------------------------------------

    def running(self, tenant: str | None = None) -> list[RunningVisit]:
        """Visits that run, the oldest first; of one tenant, or of all."""
        return [one for one in self._visits.values() if tenant in (None, one.tenant)]

    def visit(self, visit: UUID | str, tenant: str | None = None) -> RunningVisit | None:
        """A running visit; None where none of that id runs, or it is another tenant's."""
        found = self._visits.get(str(visit))
        return found if found is not None and tenant in (None, found.tenant) else None

    def provider(self, tenant: str, place: int) -> ProviderStanding | None:
        """How one of a tenant's providers stands; None while nobody has tried it.

        Where processes differ, the one that passes it over for longest counts, and then the latest.
        """
        now = time.monotonic()
        said = [
            replace(standing, passed_over_s=max(0.0, round(until - now, 1)))
            for standing, until in self._providers.get((tenant, place), {}).values()
        ]
        said = [
            replace(one, state="failing") if one.state == "passed_over" and not one.passed_over_s else one
            for one in said
        ]
        return max(said, key=lambda one: (one.passed_over_s, one.at), default=None)

    def settings_changed(self, tenants: Collection[str]) -> None:
        """Tenants have other settings, or are gone: how their providers stood says nothing any more."""
        self._providers = {key: said for key, said in self._providers.items() if key[0] not in tenants}

    @property
    def readers(self) -> int:
        """How many subscriptions there are."""
        return len(self._readers)

    def subscribe(
        self,
        tenant: str | None = None,
        kinds: Collection[str] | None = None,
        visit: UUID | None = None,
        after: str = "",
    ) -> Subscription:
        """Follow what happens from now on.

        Args:
            tenant: None: of all, and what is the service's own.
            kinds: some of :data:`EVENT_KINDS`; None: every kind.
            visit: None: every visit, and what is of none.
            after: the id that the reader had last: what came since is given first, as far as it is kept.
        """
        wanted = None if kinds is None else frozenset(kinds)
        reader = Subscription(self, tenant, wanted, None if visit is None else str(visit))
        if after:
            self._catch_up(reader, after)
        if self._closed:
            reader.end()
        else:
            self._readers.add(reader)
        return reader

    def leave(self, reader: Subscription) -> None:
        """Forget a reader."""
        self._readers.discard(reader)

    async def hang_up(self, visit: UUID, leg: str | None, by: str) -> None:
        """Have a person hang up: one leg, or (None) the whole visit. It ends closed.

        Returns once it is on record who did.

        Raises:
            NoSuchCallError: no such visit runs, or it has no such leg open.
            NotAnsweredError: it was told, and has not answered in time.
        """
        recorded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asked = (str(visit), leg, recorded)
        self._hanging_up.append(asked)
        try:
            if not self._hangs_up(visit, leg, by):
                raise NoSuchCallError(
                    f"found no running visit {visit}" + (f" with the leg {leg}" if leg else "")
                )
            async with asyncio.timeout(ANSWER_S):
                await recorded
        except TimeoutError:
            raise NotAnsweredError(f"the visit {visit} has not hung up after {ANSWER_S:g} s") from None
        finally:
            self._hanging_up.remove(asked)

    # ----------------------------------------------------------------------------------------------------
    # What is told
    # ----------------------------------------------------------------------------------------------------

    def watch(self, seen: Seen, worker: int = 0) -> None:
        """A watcher (`bridge/watch.py`); `worker`: the number of the process in which it was seen."""
        try:
            if seen.visit:
                self._update(seen)
            elif seen.kind == "provider.state":
                self._note_provider(seen, worker)
            self._publish(seen.tenant, seen.visit, seen.kind, {"at_ms": seen.at_ms, **seen.data})
        except Exception as error:  # no visit may fail because somebody watches it
            log.error("live.not_shown", kind=seen.kind, error=type(error).__name__, exc_info=error)

    def tell(self, tenant: str, kind: str, data: Mapping[str, Any]) -> None:
        """Something happened that is no visit's; tenant "" is the service's own."""
        self._publish(tenant, "", kind, data)

    def over(self, visit: UUID) -> None:
        """A visit does not run any more, whatever was seen of its end."""
        name = str(visit)
        gone = self._visits.pop(name, None)
        for asked, _, recorded in self._hanging_up:
            if asked == name and not recorded.done():
                recorded.set_exception(NoSuchCallError(f"found the visit {visit} over"))
        if gone is not None:
            self._publish(gone.tenant, name, "visit.over", {"state": gone.state})

    def missed(self, tenant: str, count: int) -> None:
        """So many things of a tenant's were seen and could not be told in time."""
        for reader in self._readers:
            if reader.tenant in (None, tenant):
                reader.lost(count)

    def close(self) -> None:
        """The service stops: who follows is told that nothing more comes. More than once is harmless."""
        self._closed = True
        for reader in tuple(self._readers):
            reader.end()
        self._readers.clear()

    # ----------------------------------------------------------------------------------------------------

    def _update(self, seen: Seen) -> None:
        """What is shown of a visit, after what was seen."""
        known = self._visits.get(seen.visit)
        if seen.kind == "visit.started":
            self._visits[seen.visit] = _begun(seen)
        elif known is not None:
            self._visits[seen.visit] = _after(known, seen)
        if seen.kind == "visit.hung_up":
            for visit, leg, recorded in self._hanging_up:
                if visit == seen.visit and leg == seen.data.get("leg") and not recorded.done():
                    recorded.set_result(None)

    def _note_provider(self, seen: Seen, worker: int) -> None:
        data = seen.data
        standing = ProviderStanding(data["provider"], data["state"], data["code"], _now(), data["for_s"])
        said = self._providers.setdefault((seen.tenant, data["at"]), {})
        said[worker] = standing, time.monotonic() + data["for_s"]

    def _publish(self, tenant: str, visit: str, kind: str, data: Mapping[str, Any]) -> None:
        passing = kind in PASSING
        if passing and not self._readers:
            return
        if not passing:
            self._last += 1
        event = LiveEvent(
            "" if passing else f"{self._run}-{self._last}", _now(), tenant, visit, kind, _json(data)
        )
        if not passing:
            self._kept.append((self._last, event))
        for reader in self._readers:
            if reader.wants(event):
                reader.put(event)

    def _catch_up(self, reader: Subscription, after: str) -> None:
        run, _, number = after.partition("-")
        if run != self._run or not number.isdecimal() or len(number) > 18 or int(number) > self._last:
            reader.gap()
            return
        had = int(number)
        if self._kept and had < self._kept[0][0] - 1:
            reader.gap()
        reader.catch_up(event for at, event in self._kept if at > had)


# --------------------------------------------------------------------------------------------------------
# What changes in what is shown of a visit
# --------------------------------------------------------------------------------------------------------


def _begun(seen: Seen) -> RunningVisit:
    def text(name: str) -> str:
        return str(seen.data.get(name) or "")

    return RunningVisit(
        seen.visit,
        seen.tenant,
        _now(),
        endpoint=text("endpoint"),
        provider=text("provider"),
        language=text("language"),
        caller_id=text("caller_id"),
        dialled=text("dialled"),
    )


def _after(visit: RunningVisit, seen: Seen) -> RunningVisit:
    data = seen.data
    match seen.kind:
        case "state":
            return replace(visit, state=data["state"])
        case "leg.connected":
            first, later = visit.legs[:1], visit.legs[1:]
            return replace(visit, legs=(*first, *later[2 - SHOWN_LEGS :], _leg(seen)))
        case "leg.ended":
            quiet = {"caller_speaks": False, "agent_speaks": False, "caller_says": "", "agent_says": ""}
            return _with_leg(visit, data["leg"], ended=data["reason"] or "ended", **quiet)
        case "session.lost":
            return _with_leg(visit, data["leg"], session="lost")
        case "session.replaced":
            return _with_leg(visit, data["leg"], session="up", provider=data["provider"])
        case "session.own_voice":
            return _with_leg(visit, data["leg"], session="own_voice")
        case "speaking":
            return _with_leg(visit, data["leg"], **{f"{data['who']}_speaks": data["on"]})
        case "partial":
            return _with_leg(visit, data["leg"], **{f"{data['speaker']}_says": data["text"][-MOST_LETTERS:]})
        case "turn":
            said = replace(visit, turns=(*visit.turns, _turn(data))[-SHOWN_TURNS:])
            return _with_leg(said, data["leg"], **{f"{data['speaker']}_says": ""})
        case "tool.called" | "tool.answered":
            return replace(visit, tool_calls=_calls_after(visit.tool_calls, seen)[-SHOWN_CALLS:])
        case "dial.started":
            return replace(
                visit,
                apartment=str(data.get("apartment") or visit.apartment),
                resident=str(data.get("resident") or visit.resident),
            )
        case "decision":
            return replace(visit, decision=data["decision"])
        case "gate.requested":
            return replace(visit, gate="asked")
        case "gate.answered":
            return replace(visit, gate=_gate(data))
        case "visit.cost":
            complete = bool(data["complete"]) and bool(data["final"])
            return replace(visit, cost=data["amount"], currency=data["currency"], cost_complete=complete)
        case "visit.hung_up":
            return replace(visit, hung_up_by=data["by"])
        case "visit.ended":
            return replace(visit, state="ended")
        case _:
            return visit


def _leg(seen: Seen) -> RunningLeg:
    data = seen.data
    return RunningLeg(
        data["leg"],
        data["role"],
        str(data.get("endpoint") or ""),
        str(data.get("peer") or ""),
        str(data.get("provider") or ""),
        seen.at_ms,
    )


def _with_leg(visit: RunningVisit, name: str, **changes: Any) -> RunningVisit:
    return replace(
        visit, legs=tuple(replace(leg, **changes) if leg.name == name else leg for leg in visit.legs)
    )


def _turn(data: Mapping[str, Any]) -> RunningTurn:
    return RunningTurn(
        data["leg"],
        data["speaker"],
        data["text"][:MOST_LETTERS],
        data["started_ms"],
        data["ended_ms"],
        data.get("response_ms"),
        bool(data.get("interrupted")),
    )


def _calls_after(calls: tuple[RunningToolCall, ...], seen: Seen) -> tuple[RunningToolCall, ...]:
    data = seen.data
    if seen.kind == "tool.called":
        arguments = _bounded(data["arguments"])
        return (*calls, RunningToolCall(data["leg"], data["call"], data["name"], arguments, seen.at_ms))
    return tuple(
        replace(one, result=_bounded(data["result"]), status=data["status"], ms=data["ms"])
        if (one.leg, one.call) == (data["leg"], data["call"])
        else one
        for one in calls
    )


def _gate(data: Mapping[str, Any]) -> str:
    if data["opened"]:
        return "opened"
    return "unknown" if data.get("unknown") else "refused"


def _bounded(value: Any) -> Any:
    """A value of a model's, or of a tool's, as far as it is shown."""
    return orjson.loads(_json({"value": value})).get("value", {"shortened": True})


def _json(data: Mapping[str, Any]) -> bytes:
    """Data as JSON, shortened where it is too long. Never raises for what can be in a record."""
    try:
        written = orjson.dumps(data)
    except orjson.JSONEncodeError:  # half a surrogate pair in somebody's words; a number of 20 digits
        return orjson.dumps({"unreadable": True})
    if len(written) <= MOST_BYTES:
        return written
    short = {
        name: value[:MOST_LETTERS] if isinstance(value, str) else value
        for name, value in data.items()
        if isinstance(value, str | int | float | bool | None)
    }
    return orjson.dumps({**dict(list(short.items())[:7]), "shortened": True})


def _now() -> str:
    return stamp(datetime.now(UTC))


__all__ = [
    "EVENT_KINDS",
    "HangsUp",
    "Hub",
    "LiveEvent",
    "NoSuchCallError",
    "NotAnsweredError",
    "ProviderStanding",
    "RunningLeg",
    "RunningToolCall",
    "RunningTurn",
    "RunningVisit",
    "Subscription",
    "follow_readiness",
]
