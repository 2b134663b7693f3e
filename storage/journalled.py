"""PostgreSQL for a running service: records are journalled while it is away, and written when it is back.

What a record follows from is known here for every visit that this process runs: what the database would
refuse is refused while it is away, too. Once one record went to the journal all go there, until each of them
is in the database: the order stays. A record of which nobody knows whether the database has it is journalled
as well. It is written once: the same record is not appended a second time.

A record that can be kept in neither place is an error, as ever: nothing follows from it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Self

import structlog

from storage.base import StorageError, StorageRefused, StorageTimeout, StorageUnavailable
from storage.identity import service_id
from storage.journal import SUFFIX, InUse, Journal
from storage.postgresql import PostgresStorage, session
from storage.postgresql_schema import check_version
from storage.projection import Undo, VisitRows
from storage.steps import Sql, Step
from storage.store import Heads, appended, appended_once, checked, locked
from visits.audit import AuditRecord, Draft

DEADLINE_S: Final = 3.0
"""For an operation: a database that hangs costs the first visit that meets it so long, and then no other."""
LOOK_S: Final = 5.0
"""Between two looks at a database that is there, which also say that this service is."""
AGAIN_S: Final = (0.2, 0.5, 1.0, 2.0)
"""Between two tries to reach one that is away, the last for every further time."""
LEASE_S: Final = 10_800.0
"""A service that was not seen for so long has no running visit: that is more than any may last."""
PAGE_BYTES: Final = 16 * 1024
"""Of the journal, written to the database in one transaction: a hundred records, well within the deadline."""
KEPT_AFTER_END: Final = 200
"""Visits that are over and remembered, for what may still be told of them."""

_NOW: Final = "clock_timestamp() AT TIME ZONE 'UTC'"
_FORMAT: Final = """'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'"""

log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True)
class _Running:
    """What this process knows of a visit."""

    rows: VisitRows = field(default_factory=VisitRows)
    told: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def apply(self, record: Draft) -> Undo:
        undo = self.rows.apply(record, self.told + 1)  # its number in the chain is not known here, nor needed
        self.told += 1
        return undo

    def follow(self, record: Draft) -> None:
        """The same of a record that the database has taken."""
        try:
            self.apply(record)
        except StorageRefused as refusal:
            # What it rests on was given up by whoever wrote it, and is in the database all the same.
            log.warning("storage.visit_known_in_part", visit=record.visit, reason=str(refusal))


@dataclass(frozen=True, slots=True)
class _Recovery:
    """Visits to be closed once the database is back."""

    at: str
    tenants: tuple[str, ...] | None
    visits: tuple[str, ...] | None
    services: tuple[str, ...] | None
    why: str


class JournalledStorage(PostgresStorage):
    """See :class:`storage.base.Storage`. Made by :meth:`open_for`."""

    _journal: Journal
    _directory: Path

    @classmethod
    async def open_for(
        cls,
        url: str,
        password: str | None,
        directory: Path,
        *,
        front: bool = True,
        deadline_s: float = DEADLINE_S,
    ) -> Self:
        """Open the database for a service; where its server is not there now, the journal alone.

        Args:
            directory: where the journal and the service's id are.
            front: the process that closes what others of the service left; workers do not.

        Raises:
            StorageUnavailable: the schema is of another version, the journal can't be written …
        """
        storage = cls(url, password, read_only=False, deadline_s=deadline_s)
        storage.service = await asyncio.to_thread(service_id, directory)
        storage._directory = directory
        name = f"{'service' if front else 'worker'}-{os.getpid()}{SUFFIX}"
        storage._journal = await asyncio.to_thread(Journal.open, directory / name)
        await storage._begin(front)
        try:
            await storage._come_back()  # with what an earlier run left
        except (StorageUnavailable, StorageTimeout) as error:
            if isinstance(error, StorageUnavailable) and error.reason != "away":
                await storage.close()
                raise
            storage._lost(error)
        except BaseException:
            await storage.close()
            raise
        storage._keeper = asyncio.create_task(storage._keep(), name="keeper of the journal")
        return storage

    async def _begin(self, front: bool) -> None:
        self._front = front
        self._running: dict[str, _Running] = {}
        self._over: list[str] = []
        self._checked_version = False
        self._away = ""
        self._written = self._journal.begin
        """Up to here the journal is in the database."""
        self._page = PAGE_BYTES
        self._not_durable = False
        self._woken = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._recoveries: dict[tuple[str, ...] | None, _Recovery] = {}
        self._in_touch_since: float | None = None
        await self._make_readers()
        self._writer = asyncio.create_task(self._write_all(), name=f"writer to {self.place}")

    @property
    def warnings(self) -> list[str]:
        """See :class:`Storage`."""
        return ["database_away"] if self._away else []

    @property
    def troubles(self) -> list[str]:
        """See :class:`Storage`."""
        return ["nothing_durable"] if self._away and (self._not_durable or self._journal.broken) else []

    async def close(self) -> None:
        """See :meth:`Storage.close`. What the journal holds stays there for the next start."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
            self._keeper = None
        await super().close()
        waiting = self._journal.end - self._written
        if waiting:
            log.warning("storage.records_wait", journal=str(self._journal.path), bytes=waiting)
        await self._journal.close(remove=not waiting)

    # ---- writing ---------------------------------------------------------------------------------------

    async def append(  # type: ignore[override]  # a store on a database alone always knows the place
        self, tenant: str, visit: str, at: str, kind: str, data: Mapping[str, object]
    ) -> AuditRecord | None:
        """See :meth:`Storage.append`. None: it is in the journal, and has no place in the chain yet."""
        record = self._checked(tenant, visit, at, kind, data)
        if not visit:
            return await self._kept(record)
        running = self._running.get(visit)
        if running is None:
            running = self._running.setdefault(visit, _Running())
        try:
            async with running.lock:
                sealed = await self._kept(record, running)
        finally:
            self._forget(record, running)
        return sealed

    async def _kept(self, record: Draft, running: _Running | None = None) -> AuditRecord | None:
        if not self._away:
            try:
                sealed = await self._write(partial(appended, record), (record.tenant,))
            except (StorageUnavailable, StorageTimeout) as error:
                if isinstance(error, StorageUnavailable) and error.reason == "overloaded":
                    raise
                self._lost(error)
            else:
                if running is not None and (running.told or record.kind == "visit.started"):
                    running.follow(record)
                return sealed
        undo = running.apply(record) if running is not None else []
        try:
            await self._journal.append(record, self._deadline_s)
        except StorageError as error:
            self._not_durable = True
            if running is not None and isinstance(error, StorageUnavailable):  # else it may be kept
                running.rows.undo(undo)
            raise
        self._not_durable = False
        return None

    def _forget(self, record: Draft, running: _Running) -> None:
        """Let go of what is known of visits that never were, and of those that are long over."""
        if not running.told and not running.lock.locked():
            self._running.pop(record.visit, None)
        elif record.kind == "visit.ended":
            self._over.append(record.visit)
            while len(self._over) > KEPT_AFTER_END:
                self._running.pop(self._over.pop(0), None)

    async def recover(
        self,
        at: str,
        tenants: Collection[str] | None = None,
        *,
        visits: Collection[str] | None = None,
        services: Collection[str] | None = None,
        why: str = "the service ended while the visit was running",
    ) -> list[str]:
        """See :meth:`Storage.recover`. While the database is away it is put off, and raises."""
        if not self._away:
            try:
                await self._drain_left()  # what they journalled comes before their end
                return await super().recover(at, tenants, visits=visits, services=services, why=why)
            except (StorageUnavailable, StorageTimeout) as error:
                self._lost(error)
        named = None if visits is None else tuple(sorted(visits))
        self._recoveries[named] = _Recovery(
            at,
            None if tenants is None else tuple(tenants),
            named,
            None if services is None else tuple(services),
            why,
        )
        raise StorageUnavailable("away", f"{self.place} is away: they will be closed when it is back")

    # ---- away and back ---------------------------------------------------------------------------------

    def _lost(self, error: StorageError) -> None:
        self._in_touch_since = None
        if not self._away:
            self._away = str(error)
            log.error("storage.away", reason=str(error), journal=str(self._journal.path))
            self._woken.set()

    async def _keep(self) -> None:
        """Look whether the database is there; where it was away, bring it what the journal has."""
        tries = 0
        while True:
            pause = AGAIN_S[min(tries, len(AGAIN_S) - 1)] if self._away else LOOK_S
            try:
                async with asyncio.timeout(pause):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()
            try:
                if self._away:
                    tries += 1
                    await self._come_back()
                    tries = 0
                elif self._front:
                    await self._look()
            except StorageError as error:
                self._lost(error)
                if str(error) != self._away:  # another reason than before: a schema, a damaged journal
                    self._away = str(error)
                    log.error("storage.still_away", reason=str(error))
            except Exception as error:
                log.error("storage.keeper_failed", error=type(error).__name__, exc_info=error)

    async def _check(self) -> None:
        """Whether the database is there, and of our version."""
        async with session(self._url, self._password, self._deadline_s) as connection:
            await check_version(connection, self.place)

    async def _come_back(self) -> None:
        if not self._checked_version:
            await self._check()
            self._checked_version = True
        loop = asyncio.get_running_loop()
        began, count = loop.time(), 0
        if self._front:
            await self._drain_left()
        was_away = self._away
        while True:
            count += await self._drain(self._journal, self._written)
            # No await between this look and the change: no record can come in between.
            if self._written == self._journal.end and not self._journal.busy:
                break
            if self._journal.busy:
                await asyncio.sleep(0.01)
        self._away = ""
        self._written = self._journal.begin
        await self._journal.clear()
        if was_away or count:
            log.info("storage.back", records=count, ms=round((loop.time() - began) * 1000))
        for key, one in tuple(self._recoveries.items()):
            await self._recover_now(one)
            del self._recoveries[key]

    async def _recover_now(self, put_off: _Recovery) -> None:
        """Close what was open when it was asked for: visits that began since then run."""
        open_ = await self.open_visits(put_off.tenants, put_off.services)
        wanted = [
            visit.id
            for visit in open_
            if visit.started_at < put_off.at and (put_off.visits is None or visit.id in put_off.visits)
        ]
        closed = await super().recover(put_off.at, put_off.tenants, visits=wanted, why=put_off.why)
        log.warning("visits.recovered", count=len(closed), visits=closed)

    async def _drain(self, journal: Journal, begin: int) -> int:
        """Write a journal's records from a place on, up to where it ends now; how many there were."""
        count = 0
        while begin < journal.end:
            records, after = await journal.read(begin, self._page)
            try:
                await self._write_again(records)
            except StorageTimeout:
                self._page = max(1, self._page // 2)  # a slow database is asked for less, down to one record
                raise
            self._page = min(PAGE_BYTES, self._page * 2)
            begin = after
            if journal is self._journal:
                self._written = after
            count += len(records)
        return count

    async def _write_again(self, records: list[Draft]) -> None:
        """Write journalled records in one transaction: all of them, in their order, or none."""
        tenants = tuple(sorted({record.tenant for record in records}))
        try:
            refused = await self._write(partial(_appended_in_order, records), tenants)
        except StorageRefused as refusal:
            if len(records) > 1:  # the database itself does not take one of them
                for record in records:
                    await self._write_again([record])
                return
            await self._write(partial(_noted_refusal, records[0], str(refusal), elsewhere=True), ("",))
            refused = records
        for record in refused:
            log.error("storage.journalled_record_refused", kind=record.kind, visit=record.visit)

    async def _drain_left(self) -> None:
        """Write what processes of this service journalled that are gone."""
        for path in sorted(self._directory.glob(f"*{SUFFIX}")):
            if path == self._journal.path:
                continue
            try:
                left = await asyncio.to_thread(Journal.open, path)
            except InUse:
                continue
            done = False
            try:
                count = await self._drain(left, left.begin)
                done = True
            finally:
                await left.close(remove=done)
            if count:
                log.warning("storage.left_records_written", journal=str(path), records=count)

    # ---- who else is there -----------------------------------------------------------------------------

    async def _look(self) -> None:
        """Say that this service is there; close the visits of one that has not been for long."""
        assert self.service is not None
        await self._write(partial(_seen, self.service), ())
        now = asyncio.get_running_loop().time()
        if self._in_touch_since is None:
            self._in_touch_since = now
        # After an outage that everybody had, all others were last seen before it: they get as long.
        if now - self._in_touch_since < LEASE_S:
            return
        if gone := await self._read(partial(_gone, self.service, LEASE_S)):
            at = await self._read(_database_time)
            closed = await super().recover(at, services=gone, why="its service has not been seen for hours")
            if closed:
                log.warning("visits.recovered", count=len(closed), visits=closed, services=gone)


def _seen(service: str, heads: Heads) -> Step[None]:
    yield Sql(
        f"INSERT INTO services (id, seen_at) VALUES ($1, to_char({_NOW}, {_FORMAT}))"
        " ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at",
        (service,),
        writes=True,
    )


def _gone(service: str, lease_s: float) -> Step[list[str]]:
    """Other services that were not seen for so long, and have open visits."""
    rows = yield Sql(
        "SELECT DISTINCT v.service FROM visits v JOIN services s ON s.id = v.service"
        " WHERE v.ended_at IS NULL AND v.service <> $1"
        f" AND s.seen_at < to_char({_NOW} - make_interval(secs => $2), {_FORMAT})",
        (service, lease_s),
    )
    return [row[0] for row in rows]


def _database_time() -> Step[str]:
    rows = yield Sql(f"SELECT to_char({_NOW}, {_FORMAT})")
    return str(rows[0][0])


def _appended_in_order(records: list[Draft], heads: Heads) -> Step[list[Draft]]:
    """The records, each once; those that can follow no more become notes, and are returned."""
    for tenant in sorted({record.tenant for record in records}):
        yield from locked(tenant, heads)
    refused = []
    for record in records:
        try:
            yield from appended_once(record, heads)
        except StorageRefused as refusal:
            yield from _noted_refusal(record, str(refusal), heads)
            refused.append(record)
    return refused


def _noted_refusal(
    record: Draft, why: str, heads: Heads, *, elsewhere: bool = False
) -> Step[AuditRecord | None]:
    """What was journalled and can't follow any more is kept as a note: it happened.

    Of its visit, where that is known; ``elsewhere``: in the service's own chain.
    """
    known = yield Sql("SELECT 1 FROM visits WHERE id = $1 AND tenant = $2", (record.visit, record.tenant))
    data = {"about": "journal", "text": why, "kind": record.kind, "data": record.data}
    if known and not elsewhere:
        note = checked(record.tenant, record.visit, record.at, "note", data, salt=record.salt)
    else:
        data |= {"visit": record.visit, "tenant": record.tenant}
        note = checked("" if elsewhere else record.tenant, "", record.at, "note", data, salt=record.salt)
    return (yield from appended_once(note, heads))
