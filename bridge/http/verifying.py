"""Verifies the audit log beside running calls: one check at a time, in a process that yields to them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

from storage.address import Database
from storage.base import StorageError
from storage.opening import open_storage
from storage.verifying import verify_all

TELL_S: Final = 1.0
"""Between two lines of a check that runs."""
LONGEST_S: Final = 3600.0
"""A check that takes longer is given up."""
DEADLINE_S: Final = 60.0
"""Of one operation of the database."""
NICE: Final = 15
MOST_FAULTS: Final = 1000
"""Faults that are told one by one."""

log = structlog.get_logger(__name__)


class Verifying:
    """Runs checks.

    Args:
        database: what is checked.
    """

    def __init__(self, database: Callable[[], Database]) -> None:
        self._database = database
        self._running = False

    def begin(self, tenant: str | None, *, service: bool) -> AsyncIterator[bytes] | None:
        """The lines of a check; None where another one runs.

        Args:
            tenant: whose chain; None: all.
            service: whether what is wrong with the service's own chain is told.
        """
        if self._running:
            return None
        return self._run(tenant, service)

    async def _run(self, tenant: str | None, service: bool) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        if self._running:
            yield _line({"seconds": 0.0, "error": "another check began just before"})
            return
        self._running = True
        answer: asyncio.Task[bytes] | None = None
        try:
            answer = asyncio.create_task(self._ask(tenant), name="verify")
            answer.add_done_callback(self._over)
            while loop.time() - began < LONGEST_S:
                done, _ = await asyncio.wait({answer}, timeout=TELL_S)
                if done:
                    answer_now = b"" if answer.exception() else answer.result()
                    yield _line(_told(answer_now, loop.time() - began, service))
                    return
                yield _line({"seconds": round(loop.time() - began, 1)})
            yield _line({"seconds": round(loop.time() - began, 1), "error": "it took too long"})
        finally:
            if answer is not None:
                answer.cancel()  # which ends the process, and then lets the next check begin

    def _over(self, answer: asyncio.Task[bytes]) -> None:
        self._running = False
        if not answer.cancelled() and (error := answer.exception()) is not None:
            log.error("audit.verify_failed", error=str(error))

    async def _ask(self, tenant: str | None) -> bytes:
        """What the process answers; it is gone when this returns, or is cancelled."""
        process = await self._start()
        try:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(self._asked(tenant))
            process.stdin.close()
            return await process.stdout.read()
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    @staticmethod
    async def _start() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            __name__,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )

    def _asked(self, tenant: str | None) -> bytes:
        database = self._database()
        file = None if database.file is None else str(database.file.absolute())
        # Not among the process's arguments, which everybody on the machine can read.
        asked = {"file": file, "url": database.url, "password": database.password, "tenant": tenant}
        return orjson.dumps(asked)


def _line(told: dict[str, Any]) -> bytes:
    return orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE)


def _told(answer: bytes, seconds: float, service: bool) -> dict[str, Any]:
    took = {"seconds": round(seconds, 1)}
    try:
        found = orjson.loads(answer)
    except orjson.JSONDecodeError:
        log.error("audit.verify_failed", answer=answer[:200].decode("utf-8", "replace"))
        return {**took, "error": "the check failed; the service's log says how"}
    faults = [fault for fault in found["faults"] if service or fault["tenant"]]
    return {**took, "sound": not faults, "records": found["records"], "faults": faults[:MOST_FAULTS]}


async def _verify(asked: dict[str, Any]) -> dict[str, Any]:
    file = None if asked["file"] is None else Path(asked["file"])
    database = Database(file=file, url=asked["url"], password=asked["password"])
    tenant = asked["tenant"]
    async with await open_storage(database, read_only=True, deadline_s=DEADLINE_S) as storage:
        heads = await storage.heads()
        if tenant is not None:
            faults = await storage.verify(tenant)
    if tenant is None:
        faults = await verify_all(database, 1)
    records = sum(head.seq for name, head in heads.items() if tenant in (None, name))
    return {"records": records, "faults": [asdict(fault) for fault in faults]}


def main() -> int:
    """Check what standard input names, and say on standard output what is wrong."""
    os.nice(NICE)
    asked = orjson.loads(sys.stdin.buffer.read())
    try:
        found = asyncio.run(_verify(asked))
    except StorageError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.buffer.write(orjson.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
