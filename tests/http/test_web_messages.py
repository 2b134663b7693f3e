"""What a client of `/ws/audio/{number}` may send: anything at all is read, or refused with a reason."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.endpoints.web_messages import (
    MAX_AUDIO_BYTES,
    HangUp,
    Key,
    MessageError,
    Sound,
    event_text,
    read_binary,
    read_text,
    sound_text,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=6), each, max_size=3),
    max_leaves=8,
)
NEARLY = st.fixed_dictionaries(
    {"type": st.sampled_from(["audio", "key", "hangup", "answer", "", "Audio"]) | st.text(max_size=5)},
    optional={"audio": JSON, "key": JSON, "token": JSON, "more": JSON},
)


def _refused(text: str) -> str | None:
    try:
        read_text(text)
    except MessageError as error:
        return str(error)
    return None


@given(st.text(max_size=200) | JSON.map(json.dumps) | NEARLY.map(json.dumps))
def test_any_text_is_read_or_refused_with_a_short_reason(text: str) -> None:
    refusal = _refused(text)
    assert refusal is None or ("found" in refusal and "allowed" in refusal and len(refusal) < 400)


@given(st.binary(max_size=600))
def test_sound_is_read_as_it_was_sent_both_ways(data: bytes) -> None:
    text = json.dumps({"type": "audio", "audio": base64.b64encode(data).decode()})
    if len(data) % 2:
        with pytest.raises(MessageError, match="even number"):
            read_binary(data)
        assert "even number" in (_refused(text) or "")
        return
    assert read_binary(data) == read_text(text) == Sound(data)
    assert read_text(sound_text(data)) == Sound(data)


def test_a_message_has_a_longest_sound() -> None:
    assert len(read_binary(bytes(MAX_AUDIO_BYTES)).audio) == 96_000
    with pytest.raises(MessageError, match="found 96002 bytes; allowed are 96000"):
        read_binary(bytes(MAX_AUDIO_BYTES + 2))


def test_the_other_messages() -> None:
    assert read_text('{"type":"key","key":"#"}') == Key("#")
    assert read_text('{"type":"hangup"}') == HangUp()
    assert json.loads(event_text("ended", outcome=None)) == {"type": "ended", "outcome": None}
    for text in ('{"type":"key"}', '{"type":"key","key":"a"}', '{"type":"hangup","x":1}', '"\ud800"', ""):
        assert _refused(text) is not None
