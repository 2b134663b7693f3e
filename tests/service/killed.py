"""A whole service that is there to be killed: forked from a process that has everything loaded.

Run as `python -m tests.service.killed`. For each line on standard input, a service's settings as JSON, it
forks one and says on standard output, a line of JSON each: its process, its port, every record once it is
durable, and that it has stopped. Its residents pick up at once and decide by key.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import uvloop

from bridge import log as logs
from bridge.dialing.base import DialOrder
from bridge.dialing.simulated import Answers, Resident, SimulatedDialer
from bridge.service import Service
from bridge.watch import Seen
from tests.service.household import presses, settings
from visits.audit import KINDS

TENANT = "jardim"


def say(thing: dict[str, Any]) -> None:
    """One line, whole: several services share the pipe."""
    os.write(1, json.dumps(thing).encode() + b"\n")


def resident(order: DialOrder) -> Resident:
    """Who is called: half of them agree, by the visit's id, which both sides know."""
    key = "1" if order.visit.int % 2 else "2"
    return Resident(Answers.YES, rings_s=0.05, talk=lambda phone: presses(phone, key))


async def serve(order: dict[str, Any]) -> None:
    """Run a service until it is killed."""

    def see(seen: Seen) -> None:
        if seen.visit and seen.kind in KINDS:
            say({"lane": order["lane"], "kept": seen.kind, "visit": seen.visit})

    environ = order.get("environ", {})
    made = settings(Path(order["data"]), {TENANT: order["tenant"]}, environ, **order["service"])
    service = Service(made, watchers=(see,), dialers={TENANT: SimulatedDialer(resident)})
    await service.start()
    say({"lane": order["lane"], "port": service.ports(TENANT)[0]})
    if order["then_stop"]:
        await service.drain()
        await service.stop()
    else:
        await asyncio.Event().wait()


def main() -> None:
    """Fork a service for each line."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that are killed
    for line in sys.stdin:
        order = json.loads(line)
        if os.fork():
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        say({"lane": order["lane"], "pid": os.getpid()})
        with (
            open(Path(order["data"]) / "log", "a", encoding="utf-8") as out,
            logs.configure("json", "info", stream=out),
        ):
            uvloop.run(serve(order))
        say({"lane": order["lane"], "stopped": True})
        os._exit(0)


if __name__ == "__main__":
    main()
