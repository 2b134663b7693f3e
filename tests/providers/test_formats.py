"""The protocol's audio formats by their names, and what is no format of ours."""

from __future__ import annotations

from typing import Any

import pytest

from providers.formats import FORMATS, PCM24, PCMA, PCMU, UnknownFormat, format_of
from providers.openai_messages import confirmed_formats


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_known_by_what_messages_call_it(name: Any) -> None:
    assert format_of(FORMATS[name].wire) is FORMATS[name]
    assert format_of({"type": FORMATS[name].wire["type"]}) is FORMATS[name], "each has one rate"


@pytest.mark.parametrize(
    ("wire", "found"),
    [
        ({"type": "audio/opus"}, "found audio/opus;"),
        ({"type": "audio/pcm", "rate": 16000}, "found audio/pcm at 16000 Hz;"),
        ({"type": "audio/pcmu", "rate": 16000}, "found audio/pcmu at 16000 Hz;"),
        ({}, "found None;"),
    ],
)
def test_another_one_is_refused_by_name(wire: dict[str, Any], found: str) -> None:
    with pytest.raises(UnknownFormat, match=found) as caught:
        format_of(wire)
    assert "allowed are audio/pcm at 24000 Hz, audio/pcmu at 8000 Hz, audio/pcma at 8000 Hz" in str(
        caught.value
    )


def test_silence_and_length() -> None:
    for form, silence in ((PCM24, bytes(2)), (PCMU, b"\xff"), (PCMA, b"\xd5")):
        assert form.encode(bytes(2)) == silence
        assert form.pcm_bytes_per_ms == form.rate // 500
        assert len(silence) == form.sample_bytes


def test_each_side_has_the_format_that_was_confirmed_for_it() -> None:
    session = {"audio": {"input": {"format": PCMU.wire}, "output": {"format": PCM24.wire}}}
    assert confirmed_formats(session, PCMA) == (PCMU, PCM24)


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_side_without_a_format_or_with_another_is_named(side: str) -> None:
    other = {"input": "output", "output": "input"}[side]
    with pytest.raises(UnknownFormat, match=f"the {side} audio format; audio/pcma was asked for"):
        confirmed_formats({"audio": {other: {"format": PCMA.wire}}}, PCMA)
    audio = {other: {"format": PCMA.wire}, side: {"format": {"type": "audio/opus"}}}
    with pytest.raises(
        UnknownFormat, match=f"the {side} audio format that the provider confirmed: found audio/opus"
    ):
        confirmed_formats({"audio": audio}, PCMA)
