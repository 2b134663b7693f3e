"""Keeps settings in step with the table `extension_ia`, by its notifications.

A notification says that something changed; what counts is what the table says then. So each one, and each gap
in which one may have been lost, is followed by a look at the whole table: at the beginning, after each lost
connection, and every minute besides, which also finds a connection that died without a word.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any

import asyncpg

from bridge.importing.database import DatabaseError, connect, look
from bridge.importing.extensions import CHANNEL, read_notification

LOOK_EVERY_S = 60.0
SETTLE_S = 0.1
"""How long more notifications are waited for: many rows are often changed at once."""
RETRY_S = (1.0, 2.0, 5.0, 10.0, 30.0)
CLOSE_S = 5.0

Rows = Sequence[Mapping[str, Any]]


async def follow(
    url: str,
    apply: Callable[[Rows], Awaitable[None]],
    say: Callable[[str], None],
    *,
    look_every_s: float = LOOK_EVERY_S,
    retry_s: Sequence[float] = RETRY_S,
) -> None:
    """Follow the table until cancelled.

    Args:
        apply: takes the whole table, after each look.
        say: takes a line for people.
    """
    failures = 0
    while True:
        try:
            connection = await connect(url)
            try:
                async with aclosing(_looks(connection, say, look_every_s)) as looks:
                    async for rows in looks:
                        failures = 0
                        await apply(rows)
            finally:
                with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    await connection.close(timeout=CLOSE_S)
        except DatabaseError as error:
            wait = retry_s[min(failures, len(retry_s) - 1)]
            failures += 1
            say(f"{error}; trying again in {wait:g} s")
            await asyncio.sleep(wait)


async def _looks(
    connection: asyncpg.Connection, say: Callable[[str], None], every_s: float
) -> AsyncGenerator[Rows, None]:
    """The table, each time that it may be another; ends with a DatabaseError when the connection does."""
    changed = asyncio.Event()

    def notified(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        try:
            heard = read_notification(str(payload))
            say(f"{heard.action} of row {heard.id or '?'}")
        except ValueError as error:
            say(f"a notification that can't be read: {error}")
        changed.set()

    connection.add_termination_listener(lambda _connection: changed.set())
    try:
        # Listened first, looked then: what changes in between is seen, at worst twice.
        await connection.add_listener(CHANNEL, notified)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise DatabaseError(f"the database can't be listened to: {error}") from None
    while True:
        changed.clear()
        yield (await look(connection, ["extension_ia"])).rows["extension_ia"]
        with suppress(TimeoutError):
            async with asyncio.timeout(every_s):
                await changed.wait()
            await asyncio.sleep(SETTLE_S)
        if connection.is_closed():
            raise DatabaseError("the connection to the database is lost")


__all__ = ["follow"]
