"""The service under test, in a process of its own, as `porteiro serve` runs it.

Beside the service it holds nothing but a watcher that keeps the barge-in times which the service itself
reckons, and the answers to the benchmark's questions, outside of the measured window.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import uvloop

from bench.children import say, serve_parent
from bridge import collector
from bridge import log as logs
from bridge.service import Service
from bridge.settings import Settings, build
from bridge.watch import Seen

TENANT = "bench"
DIRECTORY = Path(__file__).resolve().parent.parent / "data" / "apartamentos.json"


def settings(
    folder: Path,
    model_url: str,
    calls: int,
    seconds: float,
    record: bool,
    provider_format: str = "pcm24",
    workers: int = 1,
) -> Settings:
    """Settings for `calls` visits at a time with a model at `model_url`; everything is kept in `folder`.

    The callers are to talk for as long as it takes: no silence and no time limit ends a visit.
    """
    service: dict[str, Any] = {
        "data_dir": str(folder),
        "visitor_port": 0,
        "resident_port": 0,
        "listen": ["127.0.0.1"],
        "http_port": None,
        "max_calls": calls + 1,
        "drain_s": 0,
    }
    if workers != 1:
        service["workers"] = workers
    tenant = {
        "directory": str(DIRECTORY),
        "provider": "openai",
        "base_url": model_url,
        "provider_format": provider_format,
        "recording": {"enabled": record},
        "echo": {"gate_uplink": False},  # what callers say while we talk is measured too
        "limits": {
            "max_calls": calls + 1,
            "max_visit_s": min(7200.0, seconds + 600),
            "silence_s": 120,
            "silence_prompts": 10,
        },
    }
    # The key is for the replaying server, which asks for none: no secret of the environment goes anywhere.
    return build({"service": service, "tenants": {TENANT: tenant}}, environ={"OPENAI_API_KEY": "bench"})


class Probe:
    """Answers what the benchmark asks about this process and the service in it.

    With several workers the visits run in processes of their own: this one is their front, and knows nothing
    of their clocks, tasks and endpoints.
    """

    def __init__(self, alone: bool) -> None:
        self.service: Service | None = None
        self._alone = alone
        self._barge_ins: list[tuple[float, float]] = []
        self._taken: dict[str, dict[str, Any]] = {}

    def watch(self, seen: Seen) -> None:
        """Keep the service's own reckoning of a barge-in."""
        if seen.kind == "barge_in":
            self._barge_ins.append((time.monotonic(), seen.data["speech_to_silence_ms"]))

    def answer(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        """What is asked before and after the measured window, and the snapshots at its ends.

        `{"snapshot": name}` takes one, `{"report": [visits]}` gives them all,
        `{"count": true}` says how many tasks there are, and `{"trim": true}` gives memory that was freed back
        to the system; `"garbage"` in place of true looks for garbage first.
        """
        if "snapshot" in command:
            self._snapshot(command["snapshot"])
            return {}
        if "count" in command:
            return {"tasks": len(asyncio.all_tasks())}
        if "trim" in command:
            _trim(garbage=command["trim"] == "garbage")
            return {}
        if not self._alone:
            return {"snapshots": None}
        assert self.service is not None
        visits = [self.service.visit(UUID(visit)) for visit in command["report"]]
        endpoints = [visit.visitor.endpoint for visit in visits if visit is not None]
        return {
            "snapshots": self._taken,
            "barge_ins": self._barge_ins,
            "frames_dropped": sum(endpoint.frames_dropped for endpoint in endpoints),
        }

    def _snapshot(self, name: str) -> None:
        if not self._alone:
            return
        assert self.service is not None
        clock = self.service.clock
        self._taken[name] = {
            "lateness_ms": list(clock.lateness_ms),
            "frames_skipped": clock.frames_skipped,
            "collections": [generation["collections"] for generation in gc.get_stats()],
        }
        clock.lateness_ms.clear()  # the next snapshot has what came since


def _trim(*, garbage: bool) -> None:
    """Hand back what was freed: calls would live in it, and seem to need next to nothing."""
    if garbage:
        gc.collect()
    with contextlib.suppress(AttributeError):  # glibc's alone
        ctypes.CDLL(None).malloc_trim(0)


async def serve(given: Settings, *, alone: bool, keeps: bool) -> None:
    """Run the service until the benchmark is through.

    Args:
        alone: its visits run in this process.
        keeps: what it says itself is kept, for the figures.
    """
    probe = Probe(alone)
    probe.service = service = Service(given, watchers=(probe.watch,) if keeps and alone else ())
    await service.start()
    collector.settle()
    try:
        say({"port": service.ports(TENANT)[0]})
        await serve_parent(probe.answer)
    finally:
        await service.stop()


def main() -> None:
    """`python -m bench.service_process '{"folder": …}'`; started by `bench.run`."""
    asked = orjson.loads(sys.argv[1])
    keeps = asked.pop("keeps", True)
    given = settings(Path(asked.pop("folder")), **asked)
    with logs.configure(given.service.log.format, given.service.log.level):
        uvloop.run(serve(given, alone=asked.get("workers", 1) == 1, keeps=keeps))


if __name__ == "__main__":
    main()
