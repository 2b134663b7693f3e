"""One run: starts the processes, places the calls, measures a window, and puts the figures together."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

from bench import figures
from bench.callers import PHASES, AudioSocketWire, Callers, CallLost, Log, Wire
from bench.children import Child

WARM_UP_S = 3.0
"""From the last greeting to the measured window."""
COOL_DOWN_S = 2.0
"""After the window, so that what began in it comes to its end."""
TRIAL_S = 2.0
"""The length of the first call, which is not measured: what it alone loads and compiles is no call's cost."""
SETTLE_S = 1.5


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. `talk`: the share of the time that callers aim to speak; barge-ins come on top."""

    calls: int
    seconds: float
    talk: float = 0.4
    record: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.calls <= 1000:
            raise ValueError(f"calls: found {self.calls}; allowed are 1 to 1000")
        if not 2 <= self.seconds <= 500:
            raise ValueError(f"seconds: found {self.seconds:g}; allowed are 2 to 500")
        if not 0 < self.talk <= 1:
            raise ValueError(f"talk: found {self.talk:g}; allowed is more than 0, and at most 1")


def measure(plan: Plan, tell: Callable[[str], None]) -> dict[str, Any]:
    """Run it. `tell` is told, in words, what goes on.

    Raises:
        ChildError: a process did not do its part.
        CallLost: the service ended a call, or took none.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="porteiro-bench-")))
        tell("starting the service and the replaying model server …")
        model = stack.enter_context(Child("bench.model_process", {}, folder / "model.log"))
        asked = asdict(plan) | {"folder": str(folder), "model_url": model.ready()["url"]}
        service = stack.enter_context(Child("bench.service_process", asked, folder / "service.log"))
        port = service.ready()["port"]
        stack.enter_context(explained(service))
        where = machine()
        try_out(port)
        service.tell({"trim": True})
        service.heard()
        snapshot(service, "idle")
        callers = stack.enter_context(Callers(port, plan.talk))
        tell(f"placing {plan.calls} calls, one after the other …")
        for _ in range(plan.calls):
            callers.call(uuid4())
        measured = figures.Window(*window(plan.seconds))
        for name, at in (("start", measured.start), ("end", measured.end)):
            service.tell({"snapshot": name, "at": at})
        tell(f"measuring {plan.seconds:g} s …")
        callers.lateness_s.clear()
        callers.go_on(measured.end + COOL_DOWN_S)
        service.tell({"report": [str(caller.call_id) for caller in callers.callers]})
        model.tell({})
        for _ in ("start", "end"):
            service.heard()
        return _result(plan, where, measured, callers, service.heard(), model.heard())


@contextmanager
def explained(service: Child) -> Iterator[None]:
    """A call that was lost is told of with what the service said last."""
    try:
        yield
    except CallLost as lost:
        raise CallLost(f"{lost}{service.last_words()}") from lost


def try_out(port: int, wire: Callable[[], Wire] = AudioSocketWire) -> None:
    """One call that is not measured."""
    with Callers(port, share=1.0, wire=wire) as callers:
        callers.call(uuid4())
        callers.go_on(time.monotonic() + TRIAL_S)
    time.sleep(SETTLE_S)


def snapshot(service: Child, name: str) -> None:
    """Take one now."""
    service.tell({"snapshot": name, "at": time.monotonic()})
    service.heard()


def window(seconds: float) -> tuple[float, float]:
    """The start and the end of what is measured, from now on."""
    start = time.monotonic() + WARM_UP_S
    return start, start + seconds


def _result(
    plan: Plan,
    where: Mapping[str, Any],
    window: figures.Window,
    callers: Callers,
    service: Mapping[str, Any],
    model: Mapping[str, Any],
) -> dict[str, Any]:
    snapshots = service["snapshots"]
    idle, start, end = snapshots["idle"], snapshots["start"], snapshots["end"]
    # Session 0 was the call that was tried out.
    sessions = [
        figures.ModelLog(session["appends"], session["marks"], session["replies"])
        for session in model["sessions"][1:]
    ]
    logs: Sequence[Log] = [caller.log for caller in callers.callers]
    ticks = end["ticks"] - start["ticks"]
    edges = figures.of_calls(logs, sessions, window)
    edges["lost"] |= {
        "frames_skipped_by_clock": end["frames_skipped"] - start["frames_skipped"],
        "frames_dropped_by_endpoint": service["frames_dropped"],
    }
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": version("porteiro"),
        "machine": where,
        "plan": asdict(plan) | {"phases": PHASES},
        "cpu": figures.service_cpu(start, end, plan.calls * plan.seconds),
        "memory": {
            "idle_mb": round(idle["rss_bytes"] / 1e6, 1),
            "loaded_mb": round(end["rss_bytes"] / 1e6, 1),
            "mb_per_call": round((end["rss_bytes"] - idle["rss_bytes"]) / 1e6 / plan.calls, 3),
        },
        **edges,
        "service_says": {
            "tick_lateness_ms": figures.spread(
                service["lateness_ms"][start["ticks"] : start["ticks"] + ticks]
            ),
            "barge_in_ms": figures.spread(ms for at, ms in service["barge_ins"] if at in window),
            "collections": [b - a for a, b in zip(start["collections"], end["collections"], strict=True)],
        },
        "callers_say": {"tick_lateness_ms": figures.spread(late * 1000 for late in callers.lateness_s)},
    }


def machine() -> dict[str, Any]:
    """What it ran on, and how busy that was."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "yardstick_ms": yardstick_ms(),
    }


def yardstick_ms() -> float:
    """CPU time of a fixed piece of work, the median of many: how fast this machine is just now.

    The same machine may be half as fast a minute later (neighbours, clock rate, caches): compare two runs by
    this as well. Mind that a processor which sleeps between two frames is slower than this still.
    """
    taken = []
    for _ in range(21):
        began = time.process_time()
        sum(range(200_000))
        taken.append(time.process_time() - began)
    return round(sorted(taken)[10] * 1000, 3)


__all__ = ["COOL_DOWN_S", "Plan", "explained", "machine", "measure", "snapshot", "try_out", "window"]
