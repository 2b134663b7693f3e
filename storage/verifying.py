"""Verifies a large log in several processes: each opens the database for itself, and takes a part of it."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import pairwise
from typing import Final

from storage.address import Database
from storage.base import StorageUnavailable
from storage.opening import open_storage
from storage.sqlite import SqliteReader
from storage.store import CUTS, SqlStorage
from visits.audit import Anchors, Fault, Head

WORTH_IT: Final = 50_000
"""Records from which on processes cost less than they spare."""
DEADLINE_S: Final = 60.0


async def verify_all(
    database: Database, processes: int, expected_heads: Mapping[str, Anchors] | None = None
) -> list[Fault]:
    """As :meth:`storage.base.Storage.verify` does for all tenants.

    Raises:
        StorageError: the database can't be read.
    """
    async with await open_storage(database, read_only=True, deadline_s=DEADLINE_S) as storage:
        heads = await storage.heads()
        if processes < 2 or sum(head.seq for head in heads.values()) < WORTH_IT:
            return await storage.verify(expected_heads=expected_heads)
        anchors, faults = await storage.anchors(expected_heads)
        spawn = multiprocessing.get_context("spawn")  # a thread of ours may hold anything
        spans = _spans({**dict.fromkeys(anchors, 1), **{t: h.seq for t, h in heads.items()}}, processes * 4)
        chains = [(database, a, z, _between(anchors, a, z)) for a, z in spans]
        parts = [(database, after, last) for after, last in pairwise(CUTS)]
        try:
            with ProcessPoolExecutor(processes, mp_context=spawn, initializer=_alone) as pool:
                faults += await _each(pool, _chains, chains)
                ends = await storage.verify_ends()
                faults += ends + await _each(pool, _unfounded, parts)
        except BrokenProcessPool as error:
            raise StorageUnavailable("io", f"{database}: a process that verified it was ended") from error
        return list(dict.fromkeys(faults))


def _spans(sizes: Mapping[str, int], parts: int) -> list[tuple[str, str]]:
    """The tenants in their order, cut into parts of about one size: the first and last of each."""
    wanted = sum(sizes.values()) / parts
    spans: list[tuple[str, str]] = []
    first, size = "", 0.0
    names = sorted(sizes)
    for name in names:
        first, size = (name, 0.0) if not size else (first, size)
        size += sizes[name]
        if size >= wanted or name == names[-1]:
            spans.append((first, name))
            size = 0.0
    return spans


def _between(anchors: Mapping[str, set[Head]], first: str, last: str) -> dict[str, set[Head]]:
    return {name: heads for name, heads in anchors.items() if first <= name <= last}


async def _each(
    pool: Executor, work: Callable[..., list[Fault]], parts: Sequence[tuple[object, ...]]
) -> list[Fault]:
    found = await asyncio.gather(*(asyncio.wrap_future(pool.submit(work, *part)) for part in parts))
    return [fault for faults in found for fault in faults]


def _alone() -> None:
    """In a process that only verifies: what it makes has no cycles, and is gone when it is not needed."""
    gc.disable()


def _chains(database: Database, first: str, last: str, anchors: Mapping[str, set[Head]]) -> list[Fault]:
    async def run() -> list[Fault]:
        async with await _open(database) as storage:
            return await storage.verify_chains(first, last, anchors)

    return asyncio.run(run())


def _unfounded(database: Database, after: str, last: str) -> list[Fault]:
    async def run() -> list[Fault]:
        async with await _open(database) as storage:
            return await storage.verify_unfounded(after, last)

    return asyncio.run(run())


async def _open(database: Database) -> SqlStorage:
    """In a process that only verifies: nobody else waits for its event loop."""
    if database.file is not None:
        return await SqliteReader.open(database.file)
    return await open_storage(database, read_only=True, deadline_s=DEADLINE_S)
