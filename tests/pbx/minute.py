"""The frame clock over a minute of speech, measured beside tests that need little of the machine.

`porteiro serve` as a process of its own, behind an Asterisk of its own, with the tap between the two.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.clock import FRAME_S as GRID_S
from bench.clock import Grid, on_grid
from bridge.demo.stage import DATA
from tests.pbx import tap
from tests.pbx.asterisk import Asterisk
from tests.pbx.listening import speech
from tests.pbx.phone import INTERCOM, Phone
from tests.ports import free_port

SPEECH_S = 60.0
START_S = 60.0
STOP_S = 30.0
SENTENCE = (
    "Olá, você ligou para a portaria do condomínio. Por favor, diga com calma o número do apartamento. "
)
SENTENCES = 14
"""Of over 5 s each."""

SETTINGS = """
[service]
data_dir = "{out}"
listen = ["127.0.0.1"]
http_listen = []

[tenants.clock]
name = "Condomínio Jardim das Flores"
directory = "{directory}"
visitor_port = {visitor}
resident_port = {resident}
greeting = "{greeting}"
"""


@dataclass(frozen=True, slots=True)
class Minute:
    """What came of it.

    Attributes:
        spoken_s: of the minute, so many seconds were speech.
        socket, telephone: our frames at the AudioSocket socket, and behind Asterisk.
        sleeper: the wakings of a thread that only sleeps.
        left: how many channels Asterisk has left.
    """

    spoken_s: float
    socket: Grid
    telephone: Grid
    sleeper: Grid
    left: int

    def __str__(self) -> str:
        return (
            f"frames within 5 ms of their 20 ms grid over {SPEECH_S:g} s: at the AudioSocket socket "
            f"{self.socket.near:.2%} (worst {self.socket.worst_ms:.1f} ms), at the telephone "
            f"{self.telephone.near:.2%}; a thread that only sleeps {self.sleeper.near:.2%} (worst "
            f"{self.sleeper.worst_ms:.1f} ms)"
        )


@asynccontextmanager
async def served(out: Path) -> AsyncIterator[int]:
    """`porteiro serve`, with a greeting of over a minute; its visitor port."""
    visitor = free_port()
    settings = out / "porteiro.toml"
    settings.write_text(
        SETTINGS.format(
            out=out,
            directory=DATA / "apartamentos.json",
            visitor=visitor,
            resident=free_port(),
            greeting=(SENTENCE * SENTENCES).strip(),
        )
    )
    log = out / "serve.log"
    with log.open("w") as to:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bridge.cli", "serve", "--config", str(settings)), stdout=to, stderr=to
        )
    try:
        await _opened(log, process)
        yield visitor
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(STOP_S):
            await process.wait()


async def _opened(log: Path, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(START_S):
        while "tenant.open" not in (said := await asyncio.to_thread(log.read_text)):
            assert process.returncode is None, said
            await asyncio.sleep(0.1)


async def measure(asterisk: Asterisk, out: Path) -> Minute:
    """One call that listens for a minute.

    Args:
        asterisk: one whose `PORTEIRO` may be changed.
        out: where everything is kept.
    """
    listen, noted = free_port(), out / "arrivals"
    await asterisk.ask(f"dialplan set global PORTEIRO 127.0.0.1:{listen}")
    async with served(out) as visitor:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", tap.__name__, str(listen), str(visitor), str(noted)
        )
        try:
            async with Phone(asterisk.sip, *INTERCOM) as phone:
                while not _listens(listen):
                    await asyncio.sleep(0.05)
                call = await phone.call("portaria")
                await call.wait_answered()
                began = await call.wait_for_speech(since=call.answered_at)
                await asyncio.sleep(SPEECH_S)
                await call.hang_up()
            async with asyncio.timeout(10):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    end = began + SPEECH_S
    spans = await asyncio.to_thread(lambda: speech(call.heard().between(began, end)))
    return Minute(
        sum(span.seconds for span in spans),
        on_grid(_within(noted, began, end)),
        on_grid([packet.at for packet in call.sound.packets if began <= packet.at <= end]),
        on_grid(_within(noted.with_name("arrivals.machine"), began, end)),
        len(await asterisk.quiet()),
    )


def _within(noted: Path, began: float, end: float) -> Sequence[float]:
    """The noted times of a stretch."""
    return [at for at in map(float, noted.read_text().split()) if began <= at <= end]


def _listens(port: int) -> bool:
    """Whether somebody listens there, asked without connecting: the tap takes one call."""
    wanted = f"0100007F:{port:04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return any(row[1] == wanted and row[3] == "0A" for row in rows)


__all__ = ["GRID_S", "SPEECH_S", "Minute", "measure"]
