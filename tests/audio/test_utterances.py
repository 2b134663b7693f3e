"""Utterances in a stream that never stops: real speech between silences, however the stream is cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.frames import TELEPHONE_RATE, level_dbov
from audio.g711 import ulaw_decode, ulaw_encode
from audio.resample import Resampler
from audio.utterances import LEAD_MS, LOUD_DBOV, WINDOW_MS, Utterances, without_pauses
from bridge.softphone import load_wav

DATA = Path(__file__).parents[2] / "data" / "audio"
SPEECH = load_wav(DATA / "v05-leticia.wav")
MS = TELEPHONE_RATE // 1000 * 2
QUIET_MS = 400


def silence(ms: int) -> bytes:
    return bytes(ms * MS)


def tone(ms: int, level: int = 3000) -> bytes:
    return np.where(np.arange(ms * MS // 2) // 10 % 2, level, -level).astype("<i2").tobytes()


def found(stream: Utterances, pcm: bytes, cuts: list[int]) -> list[bytes]:
    """The utterances, each in one piece; one that has no end is not among them."""
    whole: list[bytes] = []
    current: bytes | None = None
    cuts = [*sorted(cuts), len(pcm)]
    begin = 0
    for cut in cuts:
        for piece in stream.feed(pcm[begin:cut]):
            if piece == "began":
                assert current is None
                current = b""
            elif piece == "ended":
                assert current is not None
                whole.append(current)
                current = None
            else:
                assert isinstance(piece, bytes) and current is not None and piece
                current += piece
        begin = cut
    return whole


def test_speech_between_silences_is_found_whole() -> None:
    pcm = silence(700) + SPEECH + silence(900) + SPEECH + silence(900)
    stream = Utterances(TELEPHONE_RATE, QUIET_MS)
    pieces = found(stream, pcm, [])
    assert not stream.speaking
    loud = sum(len(without_pauses(piece, TELEPHONE_RATE)) for piece in pieces)
    assert loud >= 0.99 * len(without_pauses(pcm, TELEPHONE_RATE)), "no word is lost"
    assert all(level_dbov(piece[-QUIET_MS * MS + WINDOW_MS * MS :]) < LOUD_DBOV for piece in pieces)
    assert len(found(Utterances(TELEPHONE_RATE, 800), pcm, [])) == 2, "pauses within a say are shorter"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3 * 1000 * MS // 2 - 1), max_size=40))
def test_how_a_stream_is_cut_changes_nothing(cuts: list[int]) -> None:
    """But for half a sample, which nobody sends."""
    pcm = silence(310) + tone(500) + silence(450) + tone(240) + silence(300) + tone(300) + silence(900)
    whole = found(Utterances(TELEPHONE_RATE, QUIET_MS), pcm, [])
    assert len(whole) == 2
    assert (
        found(Utterances(TELEPHONE_RATE, QUIET_MS), pcm, [2 * cut for cut in cuts if 2 * cut < len(pcm)])
        == whole
    )


def test_what_came_just_before_belongs_to_it() -> None:
    stream = Utterances(TELEPHONE_RATE, QUIET_MS)
    (only,) = found(stream, tone(200) + silence(600), [])
    assert only == silence(LEAD_MS) + tone(200) + silence(QUIET_MS), (
        "a cushion, also where nothing came before"
    )
    assert stream.loud_until_ms == 200 and stream.at_ms == 800
    soft = tone(60, 20)
    (only,) = found(stream, soft + tone(200) + silence(600), [])
    assert only.startswith(silence(LEAD_MS - 60) + soft + tone(40))


@pytest.mark.parametrize("pcm", [tone(20), tone(2000, 60), silence(2000)])
def test_a_click_and_a_breath_are_no_utterance(pcm: bytes) -> None:
    assert found(Utterances(TELEPHONE_RATE, QUIET_MS), silence(200) + pcm + silence(900), []) == []


def test_a_codecs_silence_is_silent_at_any_rate() -> None:
    coded = ulaw_decode(ulaw_encode(silence(1000)))
    assert found(Utterances(TELEPHONE_RATE, QUIET_MS), coded, []) == []
    up = Resampler(TELEPHONE_RATE, 24000)
    pcm = up.process(silence(300) + SPEECH + silence(1200))
    assert found(Utterances(24000, QUIET_MS), pcm, [])


def test_a_stream_that_broke_off_begins_anew() -> None:
    stream = Utterances(TELEPHONE_RATE, QUIET_MS)
    assert found(stream, tone(300), []) == []
    stream.stop()
    assert found(stream, silence(600) + tone(300) + silence(600), []) == [
        silence(LEAD_MS) + tone(300) + silence(QUIET_MS)
    ]


def test_pauses_are_skipped_and_nothing_else() -> None:
    pcm = tone(100) + silence(200) + tone(60) + b"\x01\x00" * 3
    assert without_pauses(pcm, TELEPHONE_RATE) == tone(100) + tone(60) + b"\x01\x00" * 3
    assert without_pauses(b"\x01\x00", TELEPHONE_RATE) == b"\x01\x00"
