"""PostgreSQL's notifications: told at once what another service has committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import asyncpg

from storage.address import Database
from storage.postgresql import connect

DEADLINE_S = 5.0
PULSE_S = 5.0
"""So often the connection is asked whether it is there: one that is dead says nothing by itself."""
RETRY_S = (0.5, 1.0, 2.0, 5.0)
"""Pauses before the connection is made again, the last for every further time."""
LOST = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


async def listen(
    database: Database, channel: str, heard: Callable[[], None], *, retry_s: Sequence[float] = RETRY_S
) -> None:
    """Listen until cancelled, whatever becomes of the connection.

    Args:
        heard: called at each notification, and each time that the connection is there again: what was
            notified meanwhile is lost.
    """
    failures = 0
    while True:
        with suppress(*LOST):  # it is away: whoever reads from it says so
            connection = await connect(database.url, database.password, DEADLINE_S)
            try:
                await connection.add_listener(channel, lambda *_: heard())
                heard()
                failures = 0
                await _until_lost(connection)
            finally:
                with suppress(*LOST):
                    await connection.close(timeout=DEADLINE_S)
        await asyncio.sleep(retry_s[min(failures, len(retry_s) - 1)])
        failures += 1


async def _until_lost(connection: Any) -> None:
    lost = asyncio.Event()
    connection.add_termination_listener(lambda _: lost.set())
    while not lost.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(PULSE_S):
                await lost.wait()
        await connection.execute("SELECT 1")


__all__ = ["listen"]
