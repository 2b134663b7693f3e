"""What goes between the processes: everything arrives as it was, and nothing else gets through."""

from __future__ import annotations

from typing import get_args
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.calls import RegisteredCall
from bridge.workers.messages import (
    MAX_BYTES,
    Expects,
    Failed,
    HangUp,
    Known,
    LegGone,
    Message,
    MessageError,
    Ping,
    Pong,
    Ready,
    Saw,
    Stop,
    Take,
    ToFront,
    ToWorker,
    VisitOver,
    for_front,
    for_worker,
    packed,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NUMBERS = st.integers(1, 2**63)
CALLS = st.builds(
    RegisteredCall,
    uuid=st.uuids(),
    tenant=TEXTS,
    caller_id=TEXTS,
    dialled=TEXTS,
    channel=TEXTS,
    registered_at=st.floats(0, 1e9),
)
TAKES = st.builds(
    Take,
    number=NUMBERS,
    role=st.sampled_from(("visitor", "resident")),
    tenant=TEXTS,
    endpoint=st.sampled_from(("audiosocket", "asterisk_websocket")),
    call_id=st.uuids(),
    host=TEXTS,
    port=st.integers(0, 65535),
    call=st.none() | CALLS,
)
TO_WORKER: st.SearchStrategy[Message] = st.one_of(
    TAKES,
    st.builds(Known, attempt=st.uuids()),
    st.builds(HangUp, visit=st.uuids(), leg=st.none() | TEXTS, by=TEXTS),
    st.builds(Stop, reason=TEXTS),
    st.builds(Ping),
)
TO_FRONT: st.SearchStrategy[Message] = st.one_of(
    st.builds(Ready),
    st.builds(Failed, problems=st.lists(TEXTS, max_size=3), of_settings=st.booleans()),
    st.builds(Expects, visit=st.uuids(), attempt=st.uuids()),
    st.builds(LegGone, number=NUMBERS),
    st.builds(VisitOver, number=NUMBERS),
    st.builds(Saw, dropped=st.dictionaries(TEXTS, NUMBERS, max_size=3)),
    st.builds(Pong),
)


@given(TO_WORKER, st.binary(max_size=200))
def test_a_worker_hears_what_the_front_said(message: Message, raw: bytes) -> None:
    assert for_worker(packed(message, raw)) == (message, raw)


@given(TO_FRONT, st.binary(max_size=20))
def test_the_front_hears_what_a_worker_said(message: Message, raw: bytes) -> None:
    assert for_front(packed(message, raw)) == (message, raw)


@given(st.one_of(TO_WORKER, TO_FRONT))
def test_neither_takes_the_others_words(message: Message) -> None:
    with pytest.raises(MessageError):
        (for_front if isinstance(message, get_args(ToWorker)) else for_worker)(packed(message))


@given(st.one_of(st.binary(max_size=300), TEXTS.map(str.encode)))
def test_anything_else_is_no_message(packet: bytes) -> None:
    for read in (for_front, for_worker):
        with pytest.raises(MessageError):
            read(packet)


@given(st.one_of(TO_WORKER, TO_FRONT), st.data())
def test_a_damaged_message_is_another_valid_one_or_none(message: Message, data: st.DataObject) -> None:
    packet = bytearray(packed(message))
    at = data.draw(st.integers(0, len(packet) - 1))
    packet[at] = data.draw(st.integers(0, 255))
    for read, kinds in ((for_front, get_args(ToFront)), (for_worker, get_args(ToWorker))):
        try:
            found, _ = read(bytes(packet))
        except MessageError:
            continue
        assert isinstance(found, kinds)


def test_a_packet_that_no_socket_would_carry_is_not_sent() -> None:
    with pytest.raises(MessageError, match=str(MAX_BYTES)):
        packed(Known(attempt=uuid4()), bytes(MAX_BYTES))
