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
from typing import Any, Self
from uuid import uuid4

import numpy as np

from bench import figures
from bench.callers import PHASES, AudioSocketWire, Callers, CallLost, Manner, Wire
from bench.children import Child, without_garbage
from bench.model_process import PACE
from bench.processes import Usage, usage, usage_here

WARM_UP_S = 3.0
"""From the last greeting to the measured window."""
COOL_DOWN_S = 2.0
"""After the window, so that what began in it comes to its end."""
TRIAL_S = 2.0
"""The length of the first call, which is not measured: what it alone loads and compiles is no call's cost."""
SETTLE_S = 1.5


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    Attributes:
        calls: at the same time.
        seconds: that are measured.
        talk: the share of the time that callers aim to speak; barge-ins come on top.
        record: with each leg recorded.
        pace: how much faster than real time the model's replies come.
        provider_format: how audio goes over the wire to the model and back.
        workers: processes that run the visits; with several a front is beside them.
    """

    calls: int
    seconds: float
    talk: float = 0.4
    record: bool = False
    pace: float = PACE
    provider_format: str = "pcm24"
    workers: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.calls <= 1000:
            raise ValueError(f"calls: found {self.calls}; allowed are 1 to 1000")
        if not 2 <= self.seconds <= 36_000:
            raise ValueError(f"seconds: found {self.seconds:g}; allowed are 2 to 36000")
        if not 0 < self.talk <= 1:
            raise ValueError(f"talk: found {self.talk:g}; allowed is more than 0, and at most 1")
        if not 1 <= self.workers <= 64:
            raise ValueError(f"workers: found {self.workers}; allowed are 1 to 64")
        if not 1 <= self.pace <= 100:
            raise ValueError(f"pace: found {self.pace:g}; allowed are 1 to 100")


class Bench:
    """The processes of one run: the replaying model server, the service, and the callers here.

    A context: it ends them on the way out.
    """

    def __init__(
        self,
        plan: Plan,
        tell: Callable[[str], None],
        manner: Manner | None = None,
        room: int | None = None,
        keeps: bool = True,
    ) -> None:
        """
        Args:
            tell: is told, in words, what goes on.
            manner: how callers behave; None: as the plan has them talk.
            room: for so many calls at a time the service is set up; None: for the plan's.
            keeps: whether model server and service keep what they saw; not where they run for hours.
        """
        self.plan = plan
        self._tell = tell
        self._manner = manner or Manner(plan.talk)
        self._room = room or plan.calls
        self._keeps = keeps
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="porteiro-bench-")))
            self._tell("starting the service and the replaying model server …")
            replays = {"pace": self.plan.pace, "keeps": self._keeps}
            self.model = stack.enter_context(Child("bench.model_process", replays, folder / "model.log"))
            asked = {
                "folder": str(folder),
                "model_url": self.model.ready()["url"],
                "calls": self._room,
                "seconds": self.plan.seconds,
                "record": self.plan.record,
                "provider_format": self.plan.provider_format,
                "workers": self.plan.workers,
                "keeps": self._keeps,
            }
            self.service = stack.enter_context(Child("bench.service_process", asked, folder / "service.log"))
            port = self.service.ready()["port"]
            stack.enter_context(explained(self.service))
            self.machine = machine()
            without_garbage()
            try_out(port)
            self.service.tell({"trim": "garbage"})
            self.service.heard()
            self.idle = usage(self.service.pid)
            self.callers = stack.enter_context(Callers(port, self._manner))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)

    @staticmethod
    def now() -> float:
        """Monotonic seconds, the time of all stamps."""
        return time.monotonic()

    def place_all(self) -> None:
        """Place the plan's calls, one after the other: so the n-th session is the n-th caller's."""
        self._tell(f"placing {self.plan.calls} calls, one after the other …")
        for _ in range(self.plan.calls):
            self.callers.call(uuid4())

    def usages(self) -> dict[str, Usage]:
        """What the service, the callers and the model server have used until now."""
        return {
            "service": usage(self.service.pid),
            "callers": usage_here(),
            "model": usage(self.model.pid),
        }


def measure(plan: Plan, tell: Callable[[str], None]) -> dict[str, Any]:
    """Run it. `tell` is told, in words, what goes on.

    Raises:
        ChildError: a process did not do its part.
        CallLost: the service ended a call, or took none.
    """
    with Bench(plan, tell) as bench:
        bench.place_all()
        callers = bench.callers
        measured = figures.Window(*window(plan.seconds))
        tell(f"measuring {plan.seconds:g} s …")
        callers.go_on(measured.start)
        del callers.lateness_s[:]
        before = bench.usages()
        bench.service.tell({"snapshot": "start"})
        callers.go_on(measured.end)
        after = bench.usages()
        bench.service.tell({"snapshot": "end"})
        lateness = spread_of(callers.lateness_s)
        callers.go_on(measured.end + COOL_DOWN_S)
        bench.service.tell({"report": [str(caller.call_id) for caller in callers.callers]})
        bench.model.tell({})
        for _ in ("start", "end"):
            bench.service.heard()
        service, model = bench.service.heard(), bench.model.heard()
        # Session 0 was the call that was tried out.
        sessions = [figures.ModelLog.of(session) for session in model["sessions"][1:]]
        edges = figures.of_calls([caller.log for caller in callers.callers], sessions, measured)
        return _result(bench, measured, before, after, edges | {"own": lateness}, service)


@contextmanager
def explained(service: Child) -> Iterator[None]:
    """A call that was lost is told of with what the service said last."""
    try:
        yield
    except CallLost as lost:
        raise CallLost(f"{lost}{service.last_words()}") from lost


def try_out(port: int, wire: Callable[[], Wire] = AudioSocketWire) -> None:
    """One call that is not measured."""
    with Callers(port, Manner(share=1.0), wire) as callers:
        callers.call(uuid4())
        callers.go_on(time.monotonic() + TRIAL_S)
    time.sleep(SETTLE_S)


def window(seconds: float) -> tuple[float, float]:
    """The start and the end of what is measured, from now on."""
    start = time.monotonic() + WARM_UP_S
    return start, start + seconds


def _result(
    bench: Bench,
    window: figures.Window,
    before: Mapping[str, Usage],
    after: Mapping[str, Usage],
    edges: dict[str, Any],
    service: Mapping[str, Any],
) -> dict[str, Any]:
    plan = bench.plan
    call_seconds = plan.calls * plan.seconds
    costs = {who: figures.cpu(before[who].as_dict(), after[who].as_dict(), call_seconds) for who in after}
    idle, loaded = bench.idle.rss_bytes, after["service"].rss_bytes
    own = edges.pop("own")
    found = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": version("porteiro"),
        "machine": bench.machine,
        "plan": asdict(plan) | {"phases": PHASES},
        "cpu": costs["service"],
        "load_cpu": {who: costs[who] for who in ("callers", "model")},
        "memory": {
            "processes": after["service"].processes,
            "idle_mb": round(idle / 1e6, 1),
            "loaded_mb": round(loaded / 1e6, 1),
            "mb_per_call": round((loaded - idle) / 1e6 / plan.calls, 3),
            "mb_grown_while_measured": round((loaded - before["service"].rss_bytes) / 1e6, 1),
        },
        **edges,
        "callers_say": {"tick_lateness_ms": own},
    }
    if service["snapshots"] is not None:
        _add_what_it_says(found, service, window)
    return found


def _add_what_it_says(found: dict[str, Any], service: Mapping[str, Any], window: figures.Window) -> None:
    """What the service itself knows; of several processes nobody does."""
    start, end = service["snapshots"]["start"], service["snapshots"]["end"]
    found["lost"] |= {
        "frames_skipped_by_clock": end["frames_skipped"] - start["frames_skipped"],
        "frames_dropped_by_endpoint": service["frames_dropped"],
    }
    found["service_says"] = {
        "tick_lateness_ms": figures.spread(end["lateness_ms"]),
        "barge_in_ms": figures.spread(ms for at, ms in service["barge_ins"] if at in window),
        "collections": [b - a for a, b in zip(start["collections"], end["collections"], strict=True)],
    }


def spread_of(seconds: Sequence[float]) -> dict[str, float | int | None]:
    """The spread of times, in milliseconds."""
    return figures.spread(np.asarray(seconds) * 1000)


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


__all__ = ["COOL_DOWN_S", "Bench", "Plan", "explained", "machine", "measure", "try_out", "window"]
