"""WebRTC's canceller behind the guard: it takes our echo out, and callers are heard over it."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from audio import aec3
from audio.aec3 import Aec3, available
from audio.echo import EchoGuard
from audio.frames import FLOOR_DBOV, FRAME_BYTES, SILENCE, level_dbov, saturated
from bench.hearing import run
from tests.audio.test_echo import ECHO, echoed, frames, listen, taken_out_db, talk
from tests.audio.test_vad import model, white


def test_it_is_installed_for_the_tests() -> None:
    assert available()


def test_without_the_package_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "livekit", None)
    with pytest.raises(ImportError):
        Aec3()
    monkeypatch.setattr(aec3, "find_spec", lambda name: None)
    assert not available()


@pytest.mark.parametrize("delay_ms", [20, 133, 300])
def test_the_echo_is_taken_out(delay_ms: int) -> None:
    sound = talk(5)
    ours = [saturated(sound[n : n + 160]) for n in range(0, 40000, 160)]
    heard = frames(echoed(sound, delay_ms, -6))
    left = listen(EchoGuard(before=Aec3()), ours, heard)
    assert all(len(pcm) == FRAME_BYTES for pcm, _ in left)
    assert taken_out_db(heard[50:], left[50:]) > 15


def test_where_we_are_silent_it_is_not_asked() -> None:
    heard = frames(talk(2))
    left = listen(EchoGuard(before=Aec3()), [SILENCE] * len(heard), heard)
    assert left == [(pcm, FLOOR_DBOV) for pcm in heard]


def test_a_standstill_and_lost_frames_leave_it_well() -> None:
    sound = talk(10)
    ours = [saturated(sound[n : n + 160]) for n in range(0, 80000, 160)]
    heard = frames(echoed(sound, 100, -6))
    guard = EchoGuard(before=Aec3())
    listen(guard, ours[:100], heard[:100])
    guard.played(SILENCE, skipped=40)
    guard.heard(b"".join(heard[100:103]), speaking=False)
    left = listen(guard, ours[103:], heard[103:])
    assert taken_out_db(heard[250:], left[147:]) > 12
    assert level_dbov(b"".join(pcm for pcm, _ in left)) < level_dbov(b"".join(heard[103:]))


def test_callers_are_heard_over_our_echo_behind_it() -> None:
    found = run(model(), replace(ECHO, minutes=2, caller=True, mode="aec3"))
    assert found.spoken >= 12
    assert len(found.caught_ms) >= 0.9 * found.spoken
    assert found.false <= 1
    assert np.median(found.caught_ms) <= 150


def test_noise_alone_is_left_as_noise() -> None:
    sound = talk(3)
    ours = [saturated(sound[n : n + 160]) for n in range(0, 24000, 160)]
    left = listen(EchoGuard(before=Aec3()), ours, frames(white(3, -50)))
    assert level_dbov(b"".join(pcm for pcm, _ in left)) < -45
