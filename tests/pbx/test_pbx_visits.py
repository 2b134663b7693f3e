"""A whole visit through a real Asterisk, alone: a SIP telephone as the intercom, recorded Portuguese speech.

The telephone says what it heard: our speech whole, at its level, at the right times, and an end of the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from bridge.softphone import load_wav
from tests.pbx.asterisk import Asterisk
from tests.pbx.gatehouse import Gatehouse, Leg, recording
from tests.pbx.listening import compare
from tests.pbx.phone import INTERCOM, Call, Ended, Phone
from tests.pbx.rtp import BUFFER_S, RATE, Heard

pytestmark = [pytest.mark.pbx, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

DROPOUT_MS = 40
ALIKE = 0.85
"""Correlation of a half second of speech: G.711 by itself leaves over 0.999, a dropout of 40 ms over this."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gatehouse(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gatehouse]:
    """A service with a simulated resident."""
    out = tmp_path_factory.mktemp("gatehouse")
    with (out / "model.log").open("w") as log:
        async with Gatehouse(out, log) as gatehouse:
            yield gatehouse


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asterisk(gatehouse: Gatehouse, run_asterisk: Callable[..., Asterisk]) -> Asterisk:
    """Asterisk, told where the service is."""
    return await asyncio.to_thread(run_asterisk, PORTEIRO=gatehouse.address)


def told(found: Mapping[str, Any]) -> str:
    """Who said what in a visit, to look at where it went wrong."""
    return "\n".join(f"{turn['leg']} {turn['speaker']}: {turn['text']}" for turn in found["turns"])


def stalls(call: Call) -> list[tuple[float, float]]:
    """Where two packets came further apart than the telephone's buffer bears: second of the call, and ms."""
    times = [packet.at for packet in call.sound.packets]
    return [(round(b - times[0], 2), round((b - a) * 1000)) for a, b in pairwise(times) if b - a > BUFFER_S]


def assert_both_heard_all(leg: Leg, call: Call, says: Sequence[str]) -> None:
    """The telephone heard all that we said, when we said it; and we all that it said."""
    heard = call.heard()
    ours = compare(leg.played, heard)
    assert len(ours.speech) >= 2 and sum(span.seconds for span in ours.speech) > 5, ours.speech
    # Our recording begins with the call: its place in what the telephone heard is how late the sound is.
    begun = heard.started + ours.offset / RATE - call.answered_at
    assert -0.1 < begun < 1.0, begun
    assert ours.longest_dropout_ms <= DROPOUT_MS, (ours, heard.late, stalls(call))
    assert ours.worst_likeness > ALIKE, ours
    assert abs(ours.gain_db) < 1, ours
    for name in says:
        said = np.frombuffer(load_wav(recording(name)), "<i2")
        theirs = compare(said, Heard(leg.heard, 0.0, np.ones(len(leg.heard), np.bool_), 0))
        assert theirs.longest_dropout_ms <= DROPOUT_MS, (name, theirs)
        assert theirs.worst_likeness > ALIKE, (name, theirs)


async def test_a_delivery_is_let_in(gatehouse: Gatehouse, asterisk: Asterisk, tmp_path: Path) -> None:
    says = ("v01-leticia", "v10-leticia", "v03-leticia")
    gatehouse.resident_says("r03-grave")
    async with Phone(asterisk.sip, *INTERCOM) as phone:
        call = await phone.call("portaria")
        await call.wait_answered()
        visit = await gatehouse.next_visit()
        await gatehouse.talk(call, visit, *says)
        found = await gatehouse.over(visit)
        ended = await call.wait_closed()
    assert found["outcome"] == "authorized" and found["gate_opened"] and found["audit_ok"], told(found)
    assert ended == Ended("them")
    call.save(tmp_path / "heard.wav")
    assert_both_heard_all(await gatehouse.leg(visit), call, says)
    assert not await asterisk.quiet()
