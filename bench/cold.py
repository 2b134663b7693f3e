"""What sleeping costs: the same work back to back, and each time after 20 ms asleep.

A processor that sleeps loses its caches, and on a shared machine to somebody else's work; what was there
must be fetched anew, a line of 64 bytes at a time. `python -m bench.cold` measures that with a leg's echo
guard at rest, the smallest thing that each leg does each tick: for one leg and for several at a time, in
microseconds of CPU time (medians of 200 ticks).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from audio.echo import EchoGuard, work_off

TICKS = 200
LEGS = (1, 5, 20, 100)
ASLEEP_S = 0.02


def tick(guards: Sequence[EchoGuard], ours: bytes, theirs: bytes) -> float:
    """One tick of so many legs; microseconds of CPU time."""
    began = time.thread_time_ns()
    for guard in guards:
        guard.played(ours)
        guard.hear(theirs, speaking=False)
    work_off(guards)
    for guard in guards:
        guard.take()
    return (time.thread_time_ns() - began) / 1000


def measure(legs: int, asleep_s: float) -> float:
    """The median tick of so many legs."""
    chance = np.random.default_rng(1)
    ours = [(chance.normal(size=160) * 3000).astype("<i2").tobytes() for _ in range(50)]
    quiet = (chance.normal(size=160) * 3).astype("<i2").tobytes()
    guards = [EchoGuard() for _ in range(legs)]
    for number in range(100):  # until they know that there is no echo
        tick(guards, ours[number % 50], quiet)
    found = []
    for number in range(TICKS):
        if asleep_s:
            time.sleep(asleep_s)
        found.append(tick(guards, ours[number % 50], quiet))
    return statistics.median(found)


def main() -> None:
    """Print the table."""
    table = Table("legs", "back to back, µs a leg", f"after {ASLEEP_S * 1000:.0f} ms asleep", "times")
    for legs in LEGS:
        hot, cold = measure(legs, 0), measure(legs, ASLEEP_S)
        table.add_row(str(legs), f"{hot / legs:.0f}", f"{cold / legs:.0f}", f"{cold / hot:.1f}")
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
