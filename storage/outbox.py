"""What is still to be told to other systems: records that a tenant's webhook waits for, in their order.

The database notes such a record in the record's own transaction (``webhook_outbox``, by a trigger), whoever
appends it: a worker, a journal that is written after an outage, a recovery. A row names the record and holds
nothing of it; what is told is read from the record when it is told. So what is erased of a person is told to
nobody any more, and nothing is told that is not on record.

An event waits for the one before it of the same visit, until that is told or given up.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Final

from storage.base import StorageRefused
from storage.paging import Page, checked_limit, key_of, page_of
from storage.records import RECORD
from storage.steps import LockChain, Rows, Sql, Step, where
from storage.store import Heads, SqlStorage, appended, checked, locked
from visits.audit import AuditRecord, StoredRecord

TOLD: Final = ("visit.started", "decision", "visit.ended")
"""The kinds of records that can be told; the migration's trigger has the same."""

TELLING: Final = (*TOLD, "dial.started", "gate.requested", "gate.answered")
"""The kinds of records that are read for it."""

AT_ONCE: Final = 200
"""Rows that go in one transaction: a few milliseconds, in which SQLite does no other write."""

MOST_COUNTED: Final = 1000
"""What waits is counted so far, and no further."""

_WORDS: Final = {"visit.started": "started", "decision": "decided", "visit.ended": "ended"}
_EVENT: Final = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-(started|decided|ended)")


def event_id(visit: str, kind: str) -> str:
    """What an event is called, for good and everywhere: each kind comes once in a visit."""
    return f"{visit}-{_WORDS[kind]}"


def event_of(text: str) -> tuple[str, str]:
    """The visit and the kind of an event's id. Raises :class:`StorageRefused`."""
    found = _EVENT.fullmatch(text)
    if found is None:
        raise StorageRefused(f"an event's id: found {text!r:.80}; allowed is VISIT-started, -decided, -ended")
    return found[1], next(kind for kind, word in _WORDS.items() if word == found[2])


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An event that is still to be told.

    Attributes:
        seq: the record's number in the tenant's chain.
        since: when it happened, as the record says; or when somebody had it sent again.
        next_at: not before then; "" is at once.
        attempts: how often it was tried since then.
        answer: what became of the last try.
        given_up_at: since when nobody tries any more; None: it is being tried.
    """

    tenant: str
    seq: int
    visit: str
    kind: str
    since: str
    next_at: str
    attempts: int
    answer: str
    given_up_at: str | None

    @property
    def id(self) -> str:
        """See :func:`event_id`."""
        return event_id(self.visit, self.kind)


@dataclass(frozen=True, slots=True)
class Due:
    """An event whose turn it is, and what it is told from: the visit's records so far, oldest first."""

    event: Outgoing
    records: tuple[AuditRecord, ...]


@dataclass(frozen=True, slots=True)
class Depth:
    """How much waits in the whole database, at most :data:`MOST_COUNTED` each.

    ``oldest``: since when the first of what is tried is.
    """

    waiting: int
    oldest: str | None
    given_up: int


@dataclass(frozen=True, slots=True)
class Subscription:
    """The kinds of records that are noted for a tenant, and for which service; "" where there is one."""

    kinds: frozenset[str]
    service: str


_OUTGOING: Final = (
    "SELECT o.tenant, o.seq, o.visit, o.kind, o.since, o.next_at, o.attempts, o.answer, o.given_up_at"
    " FROM webhook_outbox o"
)
_BEFORE_IT: Final = (
    "SELECT 1 FROM webhook_outbox b WHERE b.visit = o.visit AND b.tenant = o.tenant AND b.seq < o.seq"
    " AND b.given_up_at IS NULL"
)


class Outbox:
    """A store's ``outbox``. Every operation raises :class:`storage.base.StorageError` as the store's do."""

    def __init__(self, store: SqlStorage) -> None:
        """``store``: whose database it is in."""
        self._store = store

    # ---- who is told what ------------------------------------------------------------------------------

    async def subscriptions(self) -> dict[str, Subscription]:
        """What is noted for whom, by tenant."""
        return await self._store._read(_subscriptions)

    async def subscribe(self, tenant: str, kinds: Collection[str], *, since: str) -> None:
        """Have records of these kinds noted, and of no others.

        What is added is noted for records since then as well, some of which may have come before this.
        """
        service = self._store.service or ""
        wanted = tuple(sorted(kinds))
        await self._drop(tenant, tuple(sorted(set(TOLD).difference(kinds))))
        await self._store._write(partial(_subscribed, tenant, wanted, service, since), (tenant,))

    async def unsubscribe(self, tenant: str) -> None:
        """Have nothing noted any more, and forget what was to be told."""
        await self._drop(tenant, TOLD)
        await self._store._write(partial(_unsubscribed, tenant), (tenant,))

    async def _drop(self, tenant: str, kinds: tuple[str, ...]) -> None:
        """Forget what was to be told, part by part. What comes meanwhile goes with the subscription."""
        while kinds and await self._store._write(partial(_dropped, tenant, kinds), (tenant,)) == AT_ONCE:
            pass

    # ---- sending ---------------------------------------------------------------------------------------

    async def turns(self) -> dict[str, str]:
        """The tenants for which something waits, and when the first of it is to be tried."""
        return await self._store._read(_turns)

    async def due(self, tenant: str, now: str, limit: int) -> list[Due]:
        """A tenant's events whose turn it is, at most one of each visit."""
        return await self._store._read(partial(_due, tenant, now, limit))

    async def told(self, event: Outgoing) -> None:
        """Forget an event that was taken."""
        await self._store._write(partial(_told, event.tenant, event.seq), (event.tenant,))

    async def put_off(self, event: Outgoing, next_at: str, answer: str) -> None:
        """Try an event again, and what follows it of its visit, not before then."""
        await self._store._write(partial(_put_off, event, next_at, answer), (event.tenant,))

    async def give_up(self, event: Outgoing, at: str, answer: str) -> None:
        """Try an event no more, which goes on record; what follows it of its visit has its turn."""
        await self._store._write(partial(_given_up, event, at, answer), (event.tenant,))

    # ---- who sends -------------------------------------------------------------------------------------

    async def senders(self) -> dict[str, tuple[str, int]]:
        """Who sends a tenant's events, and how far they have counted; "" is nobody."""
        return await self._store._read(_senders)

    async def take(self, tenant: str, sender: str, seen: int) -> int | None:
        """Be a tenant's sender from now on, or go on being it; "" lets go.

        Args:
            seen: how far its sender had counted; 0: there was none yet.

        Returns:
            How far it is counted now; None: somebody else was quicker.
        """
        return await self._store._write(partial(_taken, tenant, sender, seen), (tenant,))

    # ---- for people ------------------------------------------------------------------------------------

    async def page(
        self,
        tenants: Collection[str] | None = None,
        *,
        given_up: bool | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> Page[Outgoing]:
        """A page of what is still to be told, or was given up, by tenant and number.

        Raises:
            StorageRefused: ``after`` is no cursor of such a page, or ``limit`` is too large.
        """
        return await self._store._read(partial(_page, tenants, given_up, after, limit))

    async def find(self, id: str) -> Outgoing | None:
        """An event that waits or was given up, by its id. Raises :class:`StorageRefused`: that is none."""
        return await self._store._read(partial(_found, *event_of(id)))

    async def resend(self, tenant: str, seqs: Collection[int], *, by: str, at: str) -> int:
        """Try events anew and at once, given up or not; those that were given up on record. How many."""
        return await self._store._write(partial(_resent, tenant, sorted(seqs), by, at), (tenant,))

    async def forget_given_up(self, tenant: str, before: str) -> None:
        """Let go of what was given up before then, some of it at a time: it stays on record."""
        await self._store._write(partial(_forgotten, tenant, before), (tenant,))

    async def depth(self) -> Depth:
        """How much waits."""
        return await self._store._read(_depth)


# --------------------------------------------------------------------------------------------------------
# Steps
# --------------------------------------------------------------------------------------------------------


def _subscriptions() -> Step[dict[str, Subscription]]:
    rows = yield Sql("SELECT tenant, kind, service FROM webhook_subscriptions ORDER BY tenant")
    kinds: dict[str, set[str]] = {}
    for tenant, kind, _ in rows:
        kinds.setdefault(tenant, set()).add(kind)
    services = {tenant: service for tenant, _, service in rows}
    return {tenant: Subscription(frozenset(some), services[tenant]) for tenant, some in kinds.items()}


def _subscribed(tenant: str, kinds: tuple[str, ...], service: str, since: str, heads: Heads) -> Step[None]:
    yield from locked(tenant, heads)  # no record comes between those that are there and those that follow
    rows = yield Sql("SELECT kind FROM webhook_subscriptions WHERE tenant = $1", (tenant,))
    there = {row[0] for row in rows}
    for kind in sorted(there.difference(kinds)):
        for table in ("webhook_subscriptions", "webhook_outbox"):
            yield Sql(f"DELETE FROM {table} WHERE tenant = $1 AND kind = $2", (tenant, kind), writes=True)
    for kind in kinds:
        yield Sql(
            "INSERT INTO webhook_subscriptions (tenant, kind, service) VALUES ($1, $2, $3)"
            " ON CONFLICT (tenant, kind) DO UPDATE SET service = excluded.service",
            (tenant, kind, service),
            writes=True,
        )
        if kind not in there:
            yield Sql(
                "INSERT INTO webhook_outbox (tenant, seq, visit, kind, since, next_at, attempts, answer)"
                " SELECT a.tenant, a.seq, a.visit, a.kind, a.at, '', 0, '' FROM audit a"
                " WHERE a.tenant = $1 AND a.kind = $2 AND a.at >= $3"
                " ON CONFLICT (tenant, seq) DO NOTHING",
                (tenant, kind, since),
                writes=True,
            )


def _dropped(tenant: str, kinds: tuple[str, ...], heads: Heads) -> Step[int]:
    yield LockChain(tenant)
    clause, values = where((("tenant = ?", tenant), ("kind IN ?", kinds)))
    rows = yield Sql(
        f"DELETE FROM webhook_outbox WHERE tenant = $1 AND seq IN"
        f" (SELECT seq FROM webhook_outbox{clause} LIMIT {AT_ONCE}) RETURNING seq",
        values,
        writes=True,
    )
    return len(rows)


def _unsubscribed(tenant: str, heads: Heads) -> Step[None]:
    yield from locked(tenant, heads)
    for table in ("webhook_subscriptions", "webhook_outbox", "webhook_senders"):
        yield Sql(f"DELETE FROM {table} WHERE tenant = $1", (tenant,), writes=True)


def _turns() -> Step[dict[str, str]]:
    # Hops from tenant to tenant along the index, however much waits.
    rows = yield Sql(
        "WITH RECURSIVE names(name) AS ("
        "SELECT min(tenant) FROM webhook_outbox WHERE given_up_at IS NULL UNION ALL"
        " SELECT (SELECT min(tenant) FROM webhook_outbox WHERE given_up_at IS NULL AND tenant > name)"
        " FROM names WHERE name IS NOT NULL)"
        " SELECT name, (SELECT min(next_at) FROM webhook_outbox WHERE given_up_at IS NULL AND tenant = name)"
        " FROM names WHERE name IS NOT NULL"
    )
    return {row[0]: row[1] for row in rows}


def _due(tenant: str, now: str, limit: int) -> Step[list[Due]]:
    rows = yield Sql(
        f"{_OUTGOING} WHERE o.tenant = $1 AND o.given_up_at IS NULL AND o.next_at <= $2"
        f" AND NOT EXISTS ({_BEFORE_IT}) ORDER BY o.next_at, o.seq LIMIT $3",
        (tenant, now, limit),
    )
    found = []
    for row in rows:
        event = Outgoing(*row)
        conditions = (("a.visit = ?", event.visit), ("a.tenant = ?", tenant), ("a.seq <= ?", event.seq))
        clause, values = where((*conditions, ("a.kind IN ?", TELLING)))
        records: Rows = yield Sql(f"{RECORD}{clause} ORDER BY a.seq", values)
        found.append(Due(event, tuple(StoredRecord(*record).read() for record in records)))
    return found


# Whatever changes these tables has the tenant's chain first, as whoever appends has: two services that share
# a database could wait for each other otherwise.


def _told(tenant: str, seq: int, heads: Heads) -> Step[None]:
    yield LockChain(tenant)
    yield Sql("DELETE FROM webhook_outbox WHERE tenant = $1 AND seq = $2", (tenant, seq), writes=True)


def _put_off(event: Outgoing, next_at: str, answer: str, heads: Heads) -> Step[None]:
    yield LockChain(event.tenant)
    yield Sql(
        "UPDATE webhook_outbox SET attempts = $1, answer = $2"
        " WHERE tenant = $3 AND seq = $4 AND given_up_at IS NULL",
        (event.attempts + 1, answer, event.tenant, event.seq),
        writes=True,
    )
    yield Sql(
        "UPDATE webhook_outbox SET next_at = $1"
        " WHERE visit = $2 AND tenant = $3 AND seq >= $4 AND given_up_at IS NULL",
        (next_at, event.visit, event.tenant, event.seq),
        writes=True,
    )


def _given_up(event: Outgoing, at: str, answer: str, heads: Heads) -> Step[None]:
    yield from locked(event.tenant, heads)
    rows = yield Sql(
        "UPDATE webhook_outbox SET given_up_at = $1, attempts = $2, answer = $3"
        " WHERE tenant = $4 AND seq = $5 AND given_up_at IS NULL RETURNING seq",
        (at, event.attempts + 1, answer, event.tenant, event.seq),
        writes=True,
    )
    if rows:  # else somebody else has done it, or nobody is to be told any more
        data = {"event": event.id, "attempts": event.attempts + 1, "answer": answer}
        yield from appended(checked(event.tenant, event.visit, at, "webhook.given_up", data), heads)


def _senders() -> Step[dict[str, tuple[str, int]]]:
    rows = yield Sql("SELECT tenant, sender, beat FROM webhook_senders")
    return {tenant: (sender, beat) for tenant, sender, beat in rows}


def _taken(tenant: str, sender: str, seen: int, heads: Heads) -> Step[int | None]:
    yield LockChain(tenant)
    rows = yield Sql(
        "INSERT INTO webhook_senders (tenant, sender, beat) VALUES ($1, $2, $3)"
        " ON CONFLICT (tenant) DO UPDATE SET sender = excluded.sender, beat = excluded.beat"
        " WHERE webhook_senders.beat = $4 RETURNING beat",
        (tenant, sender, seen + 1, seen),
        writes=True,
    )
    return int(rows[0][0]) if rows else None


def _page(
    tenants: Collection[str] | None, given_up: bool | None, after: str | None, limit: int
) -> Step[Page[Outgoing]]:
    checked_limit(limit)
    behind = None if after is None else key_of(after, str, int)
    clause, values = where(
        (
            ("o.tenant IN ?", None if tenants is None else tuple(sorted(tenants))),
            ("(o.tenant, o.seq) > (?, ?)", behind),
        )
    )
    if given_up is not None:
        state = f"o.given_up_at IS {'NOT ' if given_up else ''}NULL"
        clause = f"{clause} AND {state}" if clause else f" WHERE {state}"
    rows = yield Sql(f"{_OUTGOING}{clause} ORDER BY o.tenant, o.seq LIMIT {limit + 1}", values)
    return page_of([Outgoing(*row) for row in rows], limit, lambda one: (one.tenant, one.seq))


def _found(visit: str, kind: str) -> Step[Outgoing | None]:
    rows = yield Sql(f"{_OUTGOING} WHERE o.visit = $1 AND o.kind = $2", (visit, kind))
    return Outgoing(*rows[0]) if rows else None


def _resent(tenant: str, seqs: list[int], by: str, at: str, heads: Heads) -> Step[int]:
    yield from locked(tenant, heads)
    count = 0
    for seq in seqs:
        rows = yield Sql(f"{_OUTGOING} WHERE o.tenant = $1 AND o.seq = $2", (tenant, seq))
        for row in rows:
            event = Outgoing(*row)
            count += 1
            yield Sql(
                "UPDATE webhook_outbox SET since = $1, next_at = '', attempts = 0, given_up_at = NULL"
                " WHERE tenant = $2 AND seq = $3",
                (at, tenant, seq),
                writes=True,
            )
            if event.given_up_at is not None:
                data = {"by": by, "event": event.id}
                yield from appended(checked(tenant, event.visit, at, "webhook.resent", data), heads)
    return count


def _forgotten(tenant: str, before: str, heads: Heads) -> Step[None]:
    yield LockChain(tenant)
    yield Sql(
        "DELETE FROM webhook_outbox WHERE tenant = $1 AND seq IN (SELECT seq FROM webhook_outbox"
        f" WHERE tenant = $1 AND given_up_at < $2 ORDER BY seq LIMIT {AT_ONCE})",
        (tenant, before),
        writes=True,
    )


def _depth() -> Step[Depth]:
    oldest = yield Sql("SELECT min(since) FROM webhook_outbox WHERE given_up_at IS NULL")
    counts = []
    for given_up in ("", "NOT "):
        some = f"SELECT 1 FROM webhook_outbox WHERE given_up_at IS {given_up}NULL LIMIT {MOST_COUNTED}"
        counts.append((yield Sql(f"SELECT count(*) FROM ({some}) counted"))[0][0])
    return Depth(counts[0], oldest[0][0], counts[1])


__all__ = [
    "TELLING",
    "TOLD",
    "Depth",
    "Due",
    "Outbox",
    "Outgoing",
    "Subscription",
    "event_id",
    "event_of",
]
