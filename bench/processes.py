"""What processes use, as the kernel tells (Linux): CPU time, memory, descriptors, threads.

A service may be several processes: what is asked is asked of one and of all that descend from it. The CPU
time of those that have ended meanwhile is in it as soon as their parent has waited for them.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one process and its descendants, together.

    Attributes:
        at: monotonic seconds.
        user_s, system_s: CPU time, to a hundredth of a second a process.
        waits: how often a thread has waited for something.
        rss_bytes: in memory; what two processes share counts twice.
        processes, threads, descriptors: how many there are.
    """

    at: float
    user_s: float
    system_s: float
    waits: int
    rss_bytes: int
    processes: int
    threads: int
    descriptors: int

    def as_dict(self) -> dict[str, float]:
        """For figures and JSON."""
        return asdict(self)


def usage(pid: int) -> Usage:
    """Of a process and all that descend from it.

    Raises:
        ProcessLookupError: there is no such process.
    """
    user = system = waits = rss = threads = descriptors = processes = 0
    for member in family(pid):
        here = PROC / str(member)
        try:
            stat = _stat(here)
            # Fields 14 to 17 of stat: its own time, and that of the children it has waited for.
            user += int(stat[11]) + int(stat[13])
            system += int(stat[12]) + int(stat[14])
            threads += int(stat[17])
            rss += int((here / "statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES
            descriptors += len(list((here / "fd").iterdir()))
            waits += sum(_waits(task) for task in (here / "task").iterdir())
            processes += 1
        except (FileNotFoundError, ProcessLookupError):
            if member == pid:
                raise ProcessLookupError(f"there is no process {pid}") from None
    return Usage(
        time.monotonic(),
        user / TICKS_PER_S,
        system / TICKS_PER_S,
        waits,
        rss,
        processes,
        threads,
        descriptors,
    )


def usage_here() -> Usage:
    """Of this process alone, without its children: its CPU time to the microsecond."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    pages = int((PROC / "self" / "statm").read_text(encoding="ascii").split()[1])
    descriptors = len(list((PROC / "self" / "fd").iterdir()))
    return Usage(
        time.monotonic(),
        used.ru_utime,
        used.ru_stime,
        used.ru_nvcsw,
        pages * PAGE_BYTES,
        1,
        threading.active_count(),
        descriptors,
    )


def family(pid: int) -> Iterator[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for folder in PROC.glob("[0-9]*"):
        try:
            children.setdefault(int(_stat(folder)[1]), []).append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
    waiting = [pid]
    while waiting:
        member = waiting.pop()
        yield member
        waiting += children.get(member, ())


def _stat(folder: Path) -> list[str]:
    """The fields of stat from the third on: the second, the name, may hold anything."""
    return (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def _waits(task: Path) -> int:
    try:
        text = (task / "status").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0  # the thread has ended meanwhile
    return next(
        int(line.split()[1]) for line in text.splitlines() if line.startswith("voluntary_ctxt_switches:")
    )


__all__ = ["Usage", "family", "usage", "usage_here"]
