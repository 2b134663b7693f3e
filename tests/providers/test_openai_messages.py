"""What is decoded the short way is what the long way gives, and anything else is left to the long way."""

from __future__ import annotations

from base64 import b64decode, b64encode

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers import openai_messages as wire

ids = st.text(max_size=30)


@given(response=ids, item=ids, pcm=st.binary(max_size=300), event=ids, spare=st.text(max_size=400))
def test_a_delta_is_the_same_by_both_ways(
    response: str, item: str, pcm: bytes, event: str, spare: str
) -> None:
    message = {"type": "response.output_audio.delta", "event_id": event, "spare": spare}
    message |= {"response_id": response, "item_id": item, "delta": b64encode(pcm).decode()}
    frame = orjson.dumps(message)
    delta = wire.decode_delta(frame)
    long = wire.decode(frame)
    assert delta is not None
    assert (delta.response_id, delta.item_id) == (long["response_id"], long["item_id"])
    assert delta.delta == b64decode(long["delta"]) == pcm


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"[]",
        b'{"type":"response.done"}',
        b'{"type":"response.output_audio.done","note":"response.output_audio.delta"}',
        b'{"type":"error","message":"no \\"response.output_audio.delta\\" now"}',
        b'{"type":"response.output_audio.delta"}',
        b'{"type":"response.output_audio.delta","response_id":1,"item_id":"i","delta":""}',
        b'{"type":"response.output_audio.delta","response_id":"r","item_id":"i","delta":"A=A"}',
        b'{"type":"response.output_audio.delta","response_id":"r","item_id":"\xff","delta":""}',
        b'{"type":"response.output_audio.delta","response_id":"r","item_id":"i","delta":"AAAA',
        b'{"spare":"' + b"x" * 300 + b'","type":"response.output_audio.delta"}',
    ],
)
def test_what_is_no_whole_delta_goes_the_long_way(frame: bytes) -> None:
    assert wire.decode_delta(frame) is None


@given(st.binary(max_size=200))
def test_any_bytes_after_a_deltas_head_are_a_delta_or_none(rest: bytes) -> None:
    frame = b'{"type":"response.output_audio.delta",' + rest
    delta = wire.decode_delta(frame)
    if delta is not None:
        assert wire.decode(frame)["item_id"] == delta.item_id
