"""The one tick: a leg that fails falls alone; a loop that stood still neither bursts nor bends recordings."""

from __future__ import annotations

import asyncio
import selectors
import socket
import threading
import time
import wave
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import pytest
from structlog.testing import capture_logs

from bridge.clock import FRAME_S, GIVE_UP_FRAMES, Clock
from bridge.endpoints.audiosocket_frames import encode_audio, encode_uuid
from bridge.leg import Leg
from tests.service.doorman import LOWEST, Cast, Part
from tests.service.household import household, listens, until, with_cast

# ---- Without a machine's moods: virtual time -----------------------------------------------------------


class _Selector(selectors.DefaultSelector):
    """Waits by moving its loop's time on."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready now."""
        self.loop.now += max(0.0, timeout or 0.0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only while it waits, and when a test says so."""

    def __init__(self) -> None:
        selector = _Selector()
        selector.loop = self
        self.now = 1000.0
        super().__init__(selector)

    def time(self) -> float:
        """Virtual seconds."""
        return self.now


class Line:
    """A leg that notes when each of its frames went out."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.played: list[float] = []
        self.skipped = 0
        self.failed: list[Exception] = []

    def tick(self, skipped: int) -> None:
        """A frame."""
        self.skipped += skipped
        self.played.append(self.loop.now)

    def fail(self, error: Exception) -> None:
        """Its tick raised."""
        self.failed.append(error)


def run_with_stall(stall_s: float) -> tuple[Line, float, Clock]:
    """Two seconds of ticks with a loop that stands still in the middle."""
    loop = VirtualLoop()
    line, clock = Line(loop), Clock()

    async def run() -> float:
        began = loop.now
        clock.start()
        clock.add(line)
        await asyncio.sleep(1.0)
        loop.now += stall_s
        await asyncio.sleep(1.0)
        clock.stop()
        return loop.now - began

    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            lasted = runner.run(run())
    finally:
        loop.close()
    return line, lasted, clock


def most_within(times: Sequence[float], window_s: float) -> int:
    """The most frames that went out within any stretch of time."""
    return max(sum(1 for other in times if 0 <= other - one < window_s) for one in times)


@pytest.mark.parametrize("stall_ms", [0, 19, 21, 40, 55, 150, 199])
def test_a_short_stall_is_made_good_without_a_burst(stall_ms: int) -> None:
    line, lasted, clock = run_with_stall(stall_ms / 1000)
    assert abs(len(line.played) - lasted / FRAME_S) <= 1
    assert (line.skipped, clock.frames_skipped) == (0, 0)
    # Two a tick; the first tick of them may lie just before a place of the grid.
    assert most_within(line.played, FRAME_S * 0.9) <= 4
    assert most_within(line.played, 5 * FRAME_S * 0.98) <= 12


@pytest.mark.parametrize("stall_ms", [260, 400, 5000])
def test_a_long_stall_is_let_go_and_counted(stall_ms: int) -> None:
    with capture_logs() as logs:
        line, lasted, clock = run_with_stall(stall_ms / 1000)
    assert clock.frames_skipped == line.skipped > GIVE_UP_FRAMES
    assert abs(len(line.played) + line.skipped - lasted / FRAME_S) <= 1
    assert most_within(line.played, FRAME_S * 0.9) == 1
    assert [entry["event"] for entry in logs] == ["clock.stood_still"]


@pytest.mark.parametrize(("legs", "instants"), [(1, 1), (24, 1), (60, 2), (200, 4)])
def test_few_legs_share_an_instant_and_many_are_spread(legs: int, instants: int) -> None:
    loop = VirtualLoop()
    lines, clock = [Line(loop) for _ in range(legs)], Clock()

    async def run() -> None:
        clock.start()
        for line in lines:
            clock.add(line)
        await asyncio.sleep(0.2)
        for line in lines:
            clock.discard(line)
        assert all(len(line.played) in (9, 10) for line in lines)
        await asyncio.sleep(0.2)

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(run())
    loop.close()
    assert all(len(line.played) in (9, 10) for line in lines), "a clock without legs sleeps"
    places = sorted({round(at % FRAME_S * 1000) % 20 for line in lines for at in line.played})
    assert len(places) == instants
    crowds = [sum(round(line.played[0] % FRAME_S * 1000) % 20 == place for line in lines) for place in places]
    assert max(crowds) <= 60


def test_who_leaves_and_comes_back_ticks_on_the_same_grid() -> None:
    loop = VirtualLoop()
    first, again, clock = Line(loop), Line(loop), Clock()

    async def run() -> None:
        clock.start()
        clock.add(first)
        await asyncio.sleep(0.1)
        clock.discard(first)
        await asyncio.sleep(0.113)
        clock.add(again)
        clock.add(again)
        await asyncio.sleep(0.1)
        clock.stop()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(run())
    loop.close()
    apart = [(at - first.played[0]) / FRAME_S for at in again.played]
    assert len(apart) == 5
    assert apart == pytest.approx([round(one) for one in apart], abs=1e-6)


# ---- In the whole service ------------------------------------------------------------------------------


class DeskPhone(threading.Thread):
    """A telephone in a thread of its own: it hears what a loop that stands still can't.

    Frame k that it sends has the level k: the recording's left channel is a clock.
    """

    def __init__(self, port: int, call: UUID) -> None:
        super().__init__(daemon=True)
        self._address = ("127.0.0.1", port)
        self._call = call
        self.began = 0.0
        self.heard: list[tuple[float, bytes]] = []
        self.leaving = threading.Event()

    def run(self) -> None:
        """Call, and talk until told to leave."""
        with socket.create_connection(self._address) as line:
            line.sendall(encode_uuid(self._call))
            talker = threading.Thread(target=self._talk, args=(line,), daemon=True)
            talker.start()
            pending = b""
            line.settimeout(0.2)
            while not self.leaving.is_set():
                try:
                    got = line.recv(4096)
                except TimeoutError:
                    continue
                if not got:
                    break
                now = time.monotonic()
                pending += got
                while len(pending) >= 323:
                    self.heard.append((now, pending[3:323]))
                    pending = pending[323:]
            self.leaving.set()
            talker.join()

    def _talk(self, line: socket.socket) -> None:
        self.began = time.monotonic()
        for number in range(10_000):
            if self.leaving.wait(max(0.0, self.began + number * 0.02 - time.monotonic())):
                return
            try:
                line.sendall(encode_audio(np.full(160, number % 250, "<i2").tobytes()))
            except OSError:
                return

    def loud(self) -> list[float]:
        """When each frame that carried our voice came, in seconds since the first frame was sent."""
        level = [(at, int(np.median(np.frombuffer(pcm, "<i2")))) for at, pcm in self.heard]
        return [at - self.began for at, loudness in level if abs(loudness - LOWEST) < 200]


async def test_a_loop_that_stood_still_skips_and_the_recording_stays_true(tmp_path: Path) -> None:
    tenant = {"recording": {"enabled": True}}
    async with (
        Cast(Part(exact_ms=2500)) as cast,
        household(tmp_path, {"jardim": with_cast(cast, **tenant)}) as house,
    ):
        visit = uuid4()
        phone = DeskPhone(house.service.ports("jardim")[0], visit)
        phone.start()
        await until(lambda: len(phone.loud()) > 40, what="the greeting")
        before = house.service.clock.frames_skipped
        time.sleep(0.4)  # noqa: ASYNC251 - this is the fault under test
        await house.greeted(visit)
        skipped = house.service.clock.frames_skipped - before
        assert skipped >= 15
        await asyncio.sleep(0.3)
        phone.leaving.set()
        await asyncio.to_thread(phone.join, 5)
        assert await house.service.visit_over(visit)
        loud = phone.loud()
        assert len(loud) >= 2500 / 20 - 1  # nothing of the greeting was lost
        pauses = [later - earlier for earlier, later in pairwise(loud)]
        assert 0.3 < max(pauses) < 0.7
        files = list((tmp_path / "recordings").rglob("*.wav"))
    (file,) = files
    with wave.open(str(file)) as recording:
        assert (recording.getnchannels(), recording.getframerate()) == (2, 8000)
        stereo = np.frombuffer(recording.readframes(recording.getnframes()), "<i2").reshape(-1, 2)
    ours = np.flatnonzero(abs(stereo[:, 1].astype(int) - LOWEST) < 100)
    # Where our voice ends in the recording, the caller's clock shows when the phone heard it end.
    shown = int(stereo[min(ours[-1], len(stereo) - 1), 0])
    heard = (loud[-1] / 0.02) % 250
    assert min(abs(shown - heard), 250 - abs(shown - heard)) <= 5, (shown, heard)
    # And the pause in our voice is in the recording as long as it was on the line.
    assert abs(np.diff(ours).max() / 8000 - max(pauses)) <= 0.1


async def test_a_leg_that_cannot_be_ticked_ends_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    doomed, sound = uuid4(), uuid4()
    real = Leg.tick

    def tick(leg: Leg, skipped: int) -> None:
        if leg.endpoint.call_id == doomed and leg.now > 0.6:
            raise KeyError("Pedro da Silva")
        real(leg, skipped)

    monkeypatch.setattr(Leg, "tick", tick)
    async with Cast() as cast, household(tmp_path, {"jardim": with_cast(cast)}) as house:
        with capture_logs() as logs:
            phone, _ = await asyncio.gather(
                house.visit("jardim", listens, visit=doomed), house.visit("jardim", visit=sound)
            )
        assert phone.closed.result().kind == "hangup"
        assert await house.outcome(doomed) == ("failed", "session_lost", None)
        assert await house.outcome(sound) == ("authorized", "opened", True)
        (failed,) = [line for line in logs if line["log_level"] == "error"]
        assert (failed["event"], failed["visit"], failed["leg"]) == ("leg.failed", str(doomed), "visitor")
        assert "Pedro" not in str({key: value for key, value in failed.items() if key != "exc_info"})
