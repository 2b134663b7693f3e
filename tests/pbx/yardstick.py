"""How long the machine itself makes sleepers wait: a process that sleeps from one 20 ms place to the next.

    python -m tests.pbx.yardstick FILE

Until its standard input is closed; then it writes the monotonic second of each waking, one a line. A process
of its own: what is measured must not wait for the tests' event loop.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from bench.clock import FRAME_S, yardstick

BEGIN_S = 30.0
END_S = 10.0


class Yardstick:
    """That process, for the one that started it. An asynchronous context; its times are there behind it."""

    def __init__(self, noted: Path) -> None:
        self._noted = noted
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        """Start it, and wait until it has begun."""
        command = [sys.executable, "-m", "tests.pbx.yardstick", str(self._noted)]
        pipe = asyncio.subprocess.PIPE
        process = self._process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        assert process.stdout is not None
        async with asyncio.timeout(BEGIN_S):
            await process.stdout.readline()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End it."""
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(END_S):
            await self._process.wait()

    def ticks(self) -> Sequence[float]:
        """When it woke."""
        return [float(line) for line in self._noted.read_text().split()]


def worst_wait(ticks: Sequence[float], began: float, end: float) -> float:
    """By how many seconds the latest waking between two monotonic seconds was late.

    Raises:
        ValueError: it was not there all the time.
    """
    if not ticks or ticks[0] > began or ticks[-1] < end - 1:
        raise ValueError(f"found ticks that do not reach from {began} to {end}")
    first = ticks[0]
    late = [at - first - number * FRAME_S for number, at in enumerate(ticks) if began <= at <= end]
    return max(late)


def main(noted: Path) -> None:
    """Sleep until told to end."""
    ticks: list[float] = []
    over = threading.Event()
    sleeper = threading.Thread(target=yardstick, args=(ticks, over))
    sleeper.start()
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    sys.stdin.read()
    over.set()
    sleeper.join()
    noted.write_text("".join(f"{at:.6f}\n" for at in ticks))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
