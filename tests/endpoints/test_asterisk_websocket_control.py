"""Control messages as Asterisk 22.10.1 writes them, and whatever else a peer may send in their place."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.endpoints.asterisk_websocket_control import (
    MAX_COMMAND_BYTES,
    MAX_EVENT_BYTES,
    MAX_VARIABLES,
    BufferingCompleted,
    ChannelError,
    Command,
    DtmfEnd,
    Event,
    Form,
    MarkProcessed,
    MediaStart,
    MediaXoff,
    MediaXon,
    QueueDrained,
    Status,
    Unknown,
    command,
    parse,
)
from bridge.endpoints.flow import ControlError

# As a real Asterisk sent them.
START = (
    b'{"event":"MEDIA_START","connection_id":"porteiro","channel":"WebSocket/porteiro/0x7fc6e8002fa0",'
    b'"channel_id":"1795229864.1","format":"slin16","optimal_frame_size":640,"ptime":20,'
    b'"channel_variables":{"PORTEIRO_CALL":"6f5f9af9-09bb-446d-a88c-183529c914c8"}}'
)
PLAIN_START = (
    b"MEDIA_START connection_id:porteiro channel:WebSocket/porteiro/0x7fc6ec008af0 "
    b"channel_id:1795229868.3 format:ulaw optimal_frame_size:160 ptime:20"
)
STATUS = Status(3, 800, 900, False, False, True)


def test_media_start_in_both_forms() -> None:
    assert parse(START) == (
        Form.JSON,
        MediaStart(
            "porteiro",
            "WebSocket/porteiro/0x7fc6e8002fa0",
            "1795229864.1",
            "slin16",
            640,
            20,
            {"PORTEIRO_CALL": "6f5f9af9-09bb-446d-a88c-183529c914c8"},
        ),
    )
    assert parse(PLAIN_START) == (
        Form.PLAIN,
        MediaStart("porteiro", "WebSocket/porteiro/0x7fc6ec008af0", "1795229868.3", "ulaw", 160, 20),
    )


def test_a_later_asterisk_may_say_more() -> None:
    """Later versions append `passthrough` and `unbuffered`, and have events of their own."""
    assert parse(PLAIN_START + b" passthrough:false unbuffered:false") == parse(PLAIN_START)
    assert parse(b'{"event":"MEDIA_DIRECTION","direction":"both"}')[1] == Unknown("MEDIA_DIRECTION")
    assert parse(b"SOMETHING_NEW a:b")[1] == Unknown("SOMETHING_NEW")


@pytest.mark.parametrize(
    ("json", "plain", "event"),
    [
        ({"event": "DTMF_END", "digit": "5"}, "DTMF_END digit:5 channel_id:1.2", DtmfEnd("5")),
        ({"event": "DTMF_END", "digit": "#"}, "DTMF_END digit:# channel_id:1.2", DtmfEnd("#")),
        ({"event": "DTMF_END", "digit": "d"}, "DTMF_END digit:D channel_id:1.2", DtmfEnd("D")),
        ({"event": "MEDIA_XOFF"}, "MEDIA_XOFF", MediaXoff()),
        ({"event": "MEDIA_XON"}, "MEDIA_XON", MediaXon()),
        ({"event": "QUEUE_DRAINED"}, "QUEUE_DRAINED", QueueDrained()),
        (
            {"event": "MEDIA_MARK_PROCESSED", "correlation_id": "12"},
            "MEDIA_MARK_PROCESSED 12",
            MarkProcessed("12"),
        ),
        ({"event": "MEDIA_MARK_PROCESSED", "correlation_id": ""}, "MEDIA_MARK_PROCESSED", MarkProcessed("")),
        (
            {"event": "MEDIA_BUFFERING_COMPLETED", "correlation_id": "a b"},
            "MEDIA_BUFFERING_COMPLETED a b",
            BufferingCompleted("a b"),
        ),
        (
            {
                "event": "STATUS",
                "queue_length": 3,
                "xon_level": 800,
                "xoff_level": 900,
                "queue_full": False,
                "bulk_media": False,
                "media_paused": True,
            },
            "STATUS channel_id:1.2 queue_length:3 xon_level:800 xoff_level:900 queue_full:false "
            "bulk_media:false media_paused:true",
            STATUS,
        ),
        (
            {"event": "ERROR", "error_text": "MARK_MEDIA not supported: digit:1"},
            "ERROR channel_id:1.2 error_text:MARK_MEDIA not supported: digit:1",
            ChannelError("MARK_MEDIA not supported: digit:1"),
        ),
    ],
)
def test_every_event_means_the_same_in_both_forms(json: dict[str, Any], plain: str, event: Event) -> None:
    assert parse(orjson.dumps({**json, "channel_id": "1.2"})) == (Form.JSON, event)
    assert parse(plain.encode()) == (Form.PLAIN, event)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b" ",
        b"{",
        b"{}",
        b'{"event":5}',
        b'{"event":"lower"}',
        b"lower case",
        b"\xff\xfe",
        b'{"event":"DTMF_END"}',
        b'{"event":"DTMF_END","digit":"55"}',
        b'{"event":"DTMF_END","digit":"E"}',
        b'{"event":"DTMF_END","digit":5}',
        b"DTMF_END",
        b"DTMF_END digit: channel_id:1",
        START.replace(b"640", b"-640"),
        START.replace(b"640", b"true"),
        START.replace(b"640", b"99999999"),
        START.replace(b'"ptime":20', b'"ptime":0'),
        START.replace(b'"ptime":20', b'"ptime":2.5'),
        START.replace(b'"slin16"', b'""'),
        START.replace(b'"slin16"', b"null"),
        START.replace(b'"porteiro"', b'"' + b"p" * 300 + b'"'),
        PLAIN_START.replace(b"160", "١٦٠".encode()),
        PLAIN_START.replace(b"ptime:20", b"ptime:"),
        b"STATUS queue_length:1",
        b"{" * 5000,
        b'{"event":' + b"[" * 5000 + b"]" * 5000 + b"}",
        START + b"x" * MAX_EVENT_BYTES,
    ],
)
def test_what_is_no_event_is_refused_with_what_was_found(message: bytes) -> None:
    with pytest.raises(ControlError, match=r"found .*; allowed is "):
        parse(message)


def test_a_channel_with_too_many_variables_is_refused() -> None:
    start = orjson.loads(START)
    start["channel_variables"] = {f"v{n}": "1" for n in range(MAX_VARIABLES)}
    parse(orjson.dumps(start))
    start["channel_variables"]["one more"] = "1"
    with pytest.raises(ControlError, match="channel_variables"):
        parse(orjson.dumps(start))


def test_commands_in_both_forms() -> None:
    assert command(Form.PLAIN, Command.FLUSH_MEDIA) == "FLUSH_MEDIA"
    assert command(Form.JSON, Command.FLUSH_MEDIA) == '{"command":"FLUSH_MEDIA"}'
    assert command(Form.PLAIN, Command.MARK_MEDIA, "7") == "MARK_MEDIA 7"
    assert command(Form.JSON, Command.MARK_MEDIA, "7") == '{"command":"MARK_MEDIA","correlation_id":"7"}'
    with pytest.raises(ValueError, match="takes no id"):
        command(Form.JSON, Command.HANGUP, "7")
    for bad in ("a b", "x" * 49, "ç", "\n"):
        with pytest.raises(ValueError, match="an id is like"):
            command(Form.PLAIN, Command.MARK_MEDIA, bad)


@given(
    st.sampled_from(Form), st.sampled_from(Command), st.from_regex(r"[A-Za-z0-9_.:-]{0,48}", fullmatch=True)
)
def test_no_command_is_longer_than_asterisk_reads(form: Form, name: Command, correlation_id: str) -> None:
    with_id = name in (Command.MARK_MEDIA, Command.STOP_MEDIA_BUFFERING)
    assert 0 < len(command(form, name, correlation_id if with_id else "").encode()) <= MAX_COMMAND_BYTES


def test_fuzz_whatever_comes_is_an_event_or_a_control_error() -> None:
    """40,000 messages: bytes of chance, and real ones cut, joined and changed."""
    dice = random.Random(22_10_1)
    real = [START, PLAIN_START, b"DTMF_END digit:5 channel_id:1.2", b'{"event":"DTMF_END","digit":"5"}']
    real += [b"MEDIA_MARK_PROCESSED 17", b"ERROR channel_id:1 error_text:x", b'{"event":"MEDIA_XOFF"}']
    real += [
        b"STATUS queue_length:3 xon_level:8 xoff_level:9 queue_full:false bulk_media:true media_paused:true"
    ]
    events = errors = 0
    for _ in range(40_000):
        message = bytearray(dice.choice(real) if dice.random() < 0.8 else dice.randbytes(dice.randrange(80)))
        for _ in range(dice.randrange(4)):
            at = dice.randrange(len(message) + 1)
            match dice.randrange(4):
                case 0:
                    message[at : at + 1] = dice.randbytes(1)
                case 1:
                    del message[at : at + dice.randrange(9)]
                case 2:
                    message[at:at] = dice.choice((b'"', b"{", b":", b" ", b"}", b"\x00", b"\xc3", b"event"))
                case _:
                    message[at:at] = dice.choice(real)[: dice.randrange(40)]
        try:
            form, event = parse(bytes(message))
        except ControlError:
            errors += 1
        else:
            events += 1
            assert isinstance(form, Form) and isinstance(event, Event)
            if isinstance(event, DtmfEnd):
                assert event.digit in set("0123456789ABCD*#")
            if isinstance(event, MediaStart):
                assert 0 <= event.optimal_frame_size <= 65_500 and 1 <= event.ptime_ms <= 300
    assert events > 4_000 and errors > 4_000


@given(st.binary(max_size=400))
def test_any_bytes_are_an_event_or_a_control_error(message: bytes) -> None:
    with contextlib.suppress(ControlError):
        parse(message)
