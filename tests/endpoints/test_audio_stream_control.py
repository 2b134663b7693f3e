"""The texts of FreeSWITCH's audio streams as the modules send them, and whatever else a peer may send."""

from __future__ import annotations

import base64
import contextlib
import json
import random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.endpoints.audio_stream_control import (
    KILL_AUDIO,
    MAX_FIELD_CHARS,
    MAX_METADATA_BYTES,
    MAX_TEXT_BYTES,
    RATES,
    ControlError,
    Key,
    Metadata,
    StreamForm,
    Unknown,
    metadata_of,
    stream_audio,
    text_of,
)

FORM = StreamForm("auto", 16_000, 2)


def read(form: StreamForm = FORM, **fields: Any) -> Metadata:
    return metadata_of(orjson.dumps(fields), form)


def test_metadata_says_who_calls_whom_and_may_say_what_the_stream_is() -> None:
    assert read(
        caller_id="1001", extension=8001, domain="x", direction="inbound", more={"a": [1]}
    ) == Metadata("1001", "8001", FORM)
    assert read() == read(caller_id=None) == Metadata("", "", FORM)
    assert read(playback="fork", sample_rate=8000, channels=1).form == StreamForm("fork", 8000, 1)
    assert read(StreamForm("binary"), playback="fork").form.playback == "binary", "the site's word counts"


@pytest.mark.parametrize(
    "wrong",
    [
        {"sample_rate": 11_025},
        {"sample_rate": True},
        {"sample_rate": "8000"},
        {"sample_rate": [8000]},
        {"channels": 3},
        {"channels": True},
        {"playback": "file"},
        {"playback": {}},
        {"caller_id": "x" * (MAX_FIELD_CHARS + 1)},
        {"caller_id": "a\nb"},
        {"caller_id": ["1001"]},
        {"extension": True},
        {"extension": 1.5},
    ],
)
def test_a_field_that_can_not_be_is_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ControlError, match="allowed is"):
        read(**wrong)


def test_metadata_has_a_length_that_the_modules_have_too() -> None:
    frame = len(b'{"a":""}')
    longest = b'{"a":"' + b"x" * (MAX_METADATA_BYTES - frame) + b'"}'
    assert len(longest) == MAX_METADATA_BYTES
    metadata_of(longest, FORM)
    for wrong in (b"", longest + b" ", b"null", b"[]", b'"text"', b"{", b"\xff{}", b"{}{}"):
        with pytest.raises(ControlError):
            metadata_of(wrong, FORM)


def test_later_texts_are_keys_or_nobodys() -> None:
    assert text_of(b'{"type":"dtmf","digit":"5"}') == Key("5")
    assert text_of(b'{"type":"dtmf","digit":"d"}') == Key("D")
    for other in (b"bye", b"", b"{}", b"[]", b'{"type":["dtmf"]}', b'{"type":"mark"}', b"\xff"):
        assert text_of(other) == Unknown()
    for wrong in (b'{"type":"dtmf"}', b'{"type":"dtmf","digit":"55"}', b'{"type":"dtmf","digit":5}'):
        with pytest.raises(ControlError, match="digit"):
            text_of(wrong)
    with pytest.raises(ControlError, match="65501"):
        text_of(b" " * (MAX_TEXT_BYTES + 1))


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_are_an_error(message: bytes) -> None:
    for parse in (lambda: metadata_of(message, FORM), lambda: text_of(message)):
        with contextlib.suppress(ControlError):
            parse()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(("caller_id", "extension", "sample_rate", "channels", "playback", "type", "digit"))


@given(st.dictionaries(FIELDS, JSON))
def test_any_values_of_our_fields_are_read_or_are_an_error(fields: dict[str, Any]) -> None:
    message = json.dumps(fields).encode()
    with contextlib.suppress(ControlError):
        read_ = metadata_of(message, FORM)
        assert read_.form.rate in RATES and read_.form.channels in (1, 2)
    with contextlib.suppress(ControlError):
        assert isinstance(text_of(message), Key | Unknown)


def test_metadata_that_was_cut_or_mangled_is_read_or_is_an_error() -> None:
    chance = random.Random(7)
    whole = b'{"caller_id":"1001","extension":"8001","playback":"fork","sample_rate":16000,"channels":2}'
    for _ in range(5_000):
        bent = bytearray(whole[: chance.randrange(1, len(whole) + 1)])
        for _ in range(chance.randrange(3)):
            bent[chance.randrange(len(bent))] = chance.randrange(256)
        with contextlib.suppress(ControlError):
            metadata_of(bytes(bent), FORM)


@given(st.binary(max_size=2000), st.sampled_from(RATES))
def test_stream_audio_is_what_the_module_reads(pcm: bytes, rate: int) -> None:
    data = {"audioDataType": "raw", "sampleRate": rate, "audioData": base64.b64encode(pcm).decode()}
    assert json.loads(stream_audio(pcm, rate)) == {"type": "streamAudio", "data": data}
    assert json.loads(KILL_AUDIO) == {"type": "killAudio"}
