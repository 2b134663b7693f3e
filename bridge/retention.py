"""What is kept of people is let go of: when a tenant has kept it long enough, or when somebody asks.

First the record and what the database has, in one transaction; then the recordings' files, which are crossed
out in the database when they are gone: a crash in between is finished by the next run.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

import structlog

from bridge.settings import Tenant
from storage.base import Counted, Storage, StorageError, StorageRefused
from visits.audit import ErasedScope, stamp
from visits.words import fold

BATCH: Final = 4
"""Visits that are erased in one transaction: a few milliseconds, in which SQLite does no other write."""
PAUSE_S: Final = 0.02
"""Between two of them: visits that run write meanwhile."""
NIGHT: Final = (3, 5)
"""The hours, by the tenant's own clock, between which its retention is carried out."""
LOOK_S: Final = 300.0
"""How often the service looks whether it is night somewhere, and whether files are left to remove."""
DIGITS: Final = 4
"""A number that somebody is looked for by has at least so many."""

log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True)
class Erased:
    """What went, or would."""

    visits: int = 0
    records: int = 0
    sealed: int = 0
    """Records of an older version that keep what they say, because their chain seals it."""
    recordings: int = 0
    refused: list[str] = field(default_factory=list)
    """Visits that can't be erased, and why."""

    def add(self, counted: Counted) -> None:
        """With these as well."""
        self.visits += len(counted.visits)
        self.records += counted.records
        self.sealed += counted.sealed
        self.recordings += len(counted.recordings)


# --------------------------------------------------------------------------------------------------------
# Visits
# --------------------------------------------------------------------------------------------------------


async def erase_visits(
    storage: Storage,
    tenant: str,
    visits: Sequence[str],
    *,
    by: str,
    scope: ErasedScope = "visit",
    kind: Literal["person.erased", "retention.carried_out"] = "person.erased",
    more: Mapping[str, str] | None = None,
    dry_run: bool = False,
) -> Erased:
    """Erase what ended visits of a tenant have of people, a few at a time.

    Args:
        storage: the audit log.
        tenant: whose visits.
        visits: their ids.
        by: who has it done, as records say it: ``operator:ana``, ``key:k1``, ``service``.
        scope: how much of them.
        kind: on request, or because they were kept long enough.
        more: the record's other fields, ``reason`` for instance. Nobody's name belongs there.
        dry_run: only count.

    Raises:
        StorageError: the database can't be written. What was done until then stands.
    """
    found = Erased()
    for start in range(0, len(visits), BATCH):
        batch = list(visits[start : start + BATCH])
        try:
            found.add(await _erase(storage, tenant, batch, by, scope, kind, more, dry_run))
        except StorageRefused:  # by one of them: each for itself
            for visit in batch:
                try:
                    found.add(await _erase(storage, tenant, [visit], by, scope, kind, more, dry_run))
                except StorageRefused as refusal:
                    found.refused.append(f"{visit}: {refusal}")
        if not dry_run:
            await asyncio.sleep(PAUSE_S)
    return found


async def _erase(
    storage: Storage,
    tenant: str,
    visits: list[str],
    by: str,
    scope: ErasedScope,
    kind: Literal["person.erased", "retention.carried_out"],
    more: Mapping[str, str] | None,
    dry_run: bool,
) -> Counted:
    if dry_run:
        return await storage.to_erase(tenant, visits, scope)
    at = stamp(datetime.now(UTC))
    return await storage.erase(tenant, visits, scope=scope, kind=kind, by=by, at=at, more=more)


# --------------------------------------------------------------------------------------------------------
# Recordings
# --------------------------------------------------------------------------------------------------------


async def remove_recordings(storage: Storage, root: Path, service: str | None) -> int:
    """Remove the files of recordings that were erased; how many are crossed out.

    Args:
        storage: the audit log, which says which.
        root: the directory of all recordings. Nothing outside is touched.
        service: whose recordings are in it (:attr:`Storage.service`).
    """
    removed = 0
    for recording in await storage.recordings_to_remove(service):
        try:
            await asyncio.to_thread(_remove, root, recording)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            log.error("recording.not_removed", recording=recording, reason=reason)
            continue
        await storage.recording_removed(recording)
        removed += 1
    return removed


def _remove(root: Path, recording: str) -> None:
    """Remove one file below ``root``; one that is gone already is no error. Raises OSError."""
    base = root.resolve()
    path = base / recording
    if "\0" in recording or path.parent.resolve() != path.parent or not path.is_relative_to(base):
        # A name from the database that climbs out, or a link that leads out: nobody's recording.
        raise OSError(errno.EPERM, "not inside the directory of recordings")
    path.unlink(missing_ok=True)
    if path.parent.is_dir():
        handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)  # before it is crossed out, or a power cut brings the file back
        finally:
            os.close(handle)


# --------------------------------------------------------------------------------------------------------
# Retention
# --------------------------------------------------------------------------------------------------------


def limits_of(tenant: Tenant) -> dict[ErasedScope, int]:
    """After how many days what goes; without what is kept for good. The widest first."""
    days: dict[ErasedScope, int] = {
        "visit": tenant.retention.visits_days,
        "transcripts": tenant.retention.transcripts_days,
        "recordings": tenant.recording.retention_days,
    }
    return {scope: count for scope, count in days.items() if count}


async def carry_out(
    storage: Storage, tenant: Tenant, *, now: datetime, by: str, dry_run: bool = False
) -> dict[ErasedScope, Erased]:
    """Erase what a tenant has kept long enough; the recordings' files are left to :func:`remove_recordings`.

    ``dry_run``: only count; what would go by a wider limit is not counted again by a narrower one.

    Raises:
        StorageError: the database can't be written. What was done until then stands.
    """
    found: dict[ErasedScope, Erased] = {}
    counted: set[str] = set()
    for scope, days in limits_of(tenant).items():
        before = stamp(now - timedelta(days=days))
        total = found.setdefault(scope, Erased())
        after: tuple[str, str] | None = ("", "")
        while after is not None:
            page = await storage.due(tenant.id, scope, before, after)
            after = page.last
            visits = [visit for visit in page.visits if visit not in counted]
            if dry_run:
                counted.update(visits)
            done = await erase_visits(
                storage,
                tenant.id,
                visits,
                by=by,
                scope=scope,
                kind="retention.carried_out",
                more={"before": before},
                dry_run=dry_run,
            )
            total.visits += done.visits
            total.records += done.records
            total.sealed += done.sealed
            total.recordings += done.recordings
            total.refused += done.refused
            await asyncio.sleep(0)
    return found


class RetentionKeeper:
    """Carries retention out while a service runs: each tenant's once a night, files as soon as may be."""

    def __init__(
        self,
        storage: Storage,
        tenants: Callable[[], Mapping[str, Tenant]],
        recordings: Path,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """``tenants``: those that this service answers for, as they are now."""
        self._storage = storage
        self._tenants = tenants
        self._recordings = recordings
        self._clock = clock
        self._done: dict[str, date] = {}

    async def run(self) -> None:
        """Until it is cancelled. What fails is in the log, and is tried again."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Do what is due now."""
        try:
            for tenant in tuple(self._tenants().values()):
                local = self._clock().astimezone(ZoneInfo(tenant.timezone))
                if NIGHT[0] <= local.hour < NIGHT[1] and self._done.get(tenant.id) != local.date():
                    await self._carry_out(tenant)
                    self._done[tenant.id] = local.date()
            removed = await remove_recordings(self._storage, self._recordings, self._storage.service)
        except StorageError as error:
            log.warning("retention.put_off", error=type(error).__name__, reason=str(error))
            return
        if removed:
            log.info("recordings.removed", count=removed)

    async def _carry_out(self, tenant: Tenant) -> None:
        found = await carry_out(self._storage, tenant, now=self._clock(), by="service")
        for scope, erased in found.items():
            if erased.visits or erased.refused:
                log.info(
                    "retention.carried_out",
                    tenant=tenant.id,
                    scope=scope,
                    visits=erased.visits,
                    records=erased.records,
                    recordings=erased.recordings,
                )
            for refusal in erased.refused:
                log.error("retention.refused", tenant=tenant.id, reason=refusal)


# --------------------------------------------------------------------------------------------------------
# Whose visits
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """A visit that says something of the person who was looked for."""

    visit: str
    kinds: tuple[str, ...]
    """In which of its records, each kind once."""


async def find_person(
    storage: Storage, tenant: str, *, name: str = "", number: str = ""
) -> AsyncIterator[Found]:
    """The visits of a tenant that name somebody, or have a number of theirs.

    Reads all that is kept of the tenant's visits, in pages. What is erased is not found any more.

    Args:
        storage: the audit log.
        tenant: whose visits.
        name: upper case and accents are all the same; any part of what was said or noted.
        number: at least four digits; any other sign in it is passed over.
    """
    words, digits = fold(name).strip(), "".join(filter(str.isdigit, number))
    if number and len(digits) < DIGITS:
        raise ValueError(f"number: found {len(digits)} digits; allowed: at least {DIGITS}")
    if not words and not digits:
        raise ValueError("name a person, or a number of theirs")
    found: dict[str, dict[str, None]] = {}
    async for record in storage.audit(tenant=tenant):
        if record.visit and record.personal != "erased" and _names(record.data, words, digits):
            found.setdefault(record.visit, {})[record.kind] = None
    for visit, kinds in found.items():
        yield Found(visit, tuple(kinds))


def _names(value: Any, words: str, digits: str) -> bool:
    if isinstance(value, Mapping):
        return any(_names(item, words, digits) for item in value.values())
    if isinstance(value, list):
        return any(_names(item, words, digits) for item in value)
    if not isinstance(value, str):
        return False
    if words and words in fold(value):
        return True
    return bool(digits) and digits in "".join(filter(str.isdigit, value))


__all__ = [
    "Erased",
    "Found",
    "RetentionKeeper",
    "carry_out",
    "erase_visits",
    "find_person",
    "limits_of",
    "remove_recordings",
]
