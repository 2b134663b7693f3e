"""The frame clock, where it counts: at the AudioSocket socket, and at the telephone behind Asterisk."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from bridge.demo.stage import DATA
from tests.pbx import tap
from tests.pbx.asterisk import Asterisk, free_port
from tests.pbx.listening import speech
from tests.pbx.phone import Phone

pytestmark = [pytest.mark.pbx, pytest.mark.timeout(120)]

INTERCOM = ("intercom", "change-me-intercom")
SPEECH_S = 20.0
GRID_S = 0.02
NEAR_S = 0.005
LEAST_NEAR = 0.99
ALLOWED = 0.01
"""How much less often than a thread that does nothing but sleep we may be in time."""
START_S = 60.0
SENTENCE = (
    "Olá, você ligou para a portaria do condomínio. Por favor, diga com calma o número do apartamento. "
)

SETTINGS = """
[service]
data_dir = "{out}"
listen = ["127.0.0.1"]

[tenants.clock]
name = "Condomínio Jardim das Flores"
directory = "{directory}"
visitor_port = {visitor}
resident_port = {resident}
greeting = "{greeting}"
"""


def near(times: Sequence[float]) -> tuple[float, float]:
    """The share of times within 5 ms of the 20 ms grid that fits them best; and the worst, in ms."""
    off = np.asarray(times) - np.arange(len(times)) * GRID_S
    off = off - np.median(off)
    return float(np.mean(np.abs(off) <= NEAR_S)), float(np.abs(off).max() * 1000)


def within(noted: Path, began: float, end: float) -> list[float]:
    """The noted times of a stretch."""
    return [at for at in map(float, noted.read_text().split()) if began <= at <= end]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[int]:
    """`porteiro serve` as a process of its own, with a greeting of over 20 s; its visitor port."""
    visitor = free_port()
    settings = tmp_path / "porteiro.toml"
    settings.write_text(
        SETTINGS.format(
            out=tmp_path,
            directory=DATA / "apartamentos.json",
            visitor=visitor,
            resident=free_port(),
            greeting=(SENTENCE * 5).strip(),
        )
    )
    log = tmp_path / "serve.log"
    command = [sys.executable, "-m", "bridge.cli", "serve", "--config", str(settings)]
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            _wait_open(log, process)
            yield visitor
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def _wait_open(log: Path, process: subprocess.Popen[bytes]) -> None:
    for _ in range(int(START_S / 0.1)):
        if re.search(r"tenant\.open", log.read_text()):
            return
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        break
    raise AssertionError(f"the service did not open: {log.read_text()}")


async def test_frames_come_on_their_grid_over_twenty_seconds_of_speech(
    served: int, run_asterisk: Callable[..., Asterisk], tmp_path: Path
) -> None:
    listen, noted = free_port(), tmp_path / "arrivals"
    asterisk = await asyncio.to_thread(run_asterisk, PORTEIRO=f"127.0.0.1:{listen}")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(tap.__file__), str(listen), str(served), str(noted)
    )
    try:
        async with Phone(asterisk.sip, *INTERCOM) as phone:
            while not _listens(listen):
                await asyncio.sleep(0.05)
            call = await phone.call("portaria")
            await call.wait_answered()
            began = await call.wait_for_speech(since=call.answered_at)
            await asyncio.sleep(SPEECH_S)
            spoken = sum(span.seconds for span in speech(call.heard().between(began, began + SPEECH_S)))
            await call.hang_up()
        async with asyncio.timeout(10):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert spoken > 0.8 * SPEECH_S
    end = began + SPEECH_S
    packets = [packet.at for packet in call.sound.packets if began <= packet.at <= end]
    (at_socket, worst), (at_phone, _), (machine, machine_worst) = (
        near(within(noted, began, end)),
        near(packets),
        near(within(noted.with_name("arrivals.machine"), began, end)),
    )
    figures = (
        f"frames within 5 ms of their 20 ms grid over {SPEECH_S:g} s of speech: at the AudioSocket socket "
        f"{at_socket:.2%} (worst {worst:.1f} ms), at the telephone {at_phone:.2%}; "
        f"a thread that only sleeps {machine:.2%} (worst {machine_worst:.1f} ms)"
    )
    (tmp_path / "figures.txt").write_text(figures + "\n")
    assert abs(len(packets) - SPEECH_S / GRID_S) <= 3, figures
    # A machine that is too busy to wake a sleeper in time is no fault of ours.
    assert at_socket >= min(LEAST_NEAR, machine - ALLOWED), figures
    assert not await asterisk.quiet()


def _listens(port: int) -> bool:
    """Whether somebody listens there, asked without connecting: the tap takes one call."""
    wanted = f"0100007F:{port:04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return any(row[1] == wanted and row[3] == "0A" for row in rows)
