"""The framing of the event socket: whole messages whatever the pieces, and one kind of error."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.esl_frames import (
    MAX_BODY_BYTES,
    MAX_HEADER_BYTES,
    EslProtocolError,
    Message,
    MessageReader,
    read_event,
)

GREETING = b"Content-Type: auth/request\n\n"
ANSWER = b"Content-Type: api/response\nContent-Length: 5\n\ntrue\n"
BYE = b"Content-Type: text/disconnect-notice\nContent-Length: 2\n\n:\n"
JOB = (
    "Event-Name: BACKGROUND_JOB\nJob-UUID: 7f4de4bc\nJob-Command-Arg: %7Ba%3D1,b%7D\nContent-Length: 15\n"
    "\n-ERR USER_BUSY\n"
)


def event_of(body: str) -> Message:
    wire = f"Content-Length: {len(body.encode())}\nContent-Type: text/event-plain\n\n{body}"
    (message,) = MessageReader().feed(wire.encode())
    return message


@given(st.lists(st.integers(min_value=1, max_value=60), min_size=1))
def test_messages_are_whole_whatever_the_pieces(sizes: list[int]) -> None:
    wire = GREETING + ANSWER + b"\n" + BYE
    reader, at = MessageReader(), 0
    found: list[Message] = []
    while at < len(wire):
        size = sizes[len(found) % len(sizes)]
        found += reader.feed(wire[at : at + size])
        at += size
    assert [(each.kind, each.body) for each in found] == [
        ("auth/request", b""),
        ("api/response", b"true\n"),
        ("text/disconnect-notice", b":\n"),
    ]


def test_a_jobs_event_has_the_commands_answer() -> None:
    event = read_event(event_of(JOB))
    assert (event.name, event.body) == ("BACKGROUND_JOB", "-ERR USER_BUSY\n")
    assert event.headers["Job-Command-Arg"] == "{a=1,b}"


@given(st.text(max_size=80))
def test_no_value_of_a_call_makes_another_header(name: str) -> None:
    """A caller's name comes URL-encoded, line ends and colons too."""
    written = quote(name, safe="", errors="surrogatepass")
    event = read_event(event_of(f"Event-Name: DTMF\nCaller-Name: {written}\nDTMF-Digit: 1\n\n"))
    assert set(event.headers) == {"Event-Name", "Caller-Name", "DTMF-Digit"}
    assert event.headers["DTMF-Digit"] == "1"


def test_a_custom_event_is_known_by_its_subclass() -> None:
    event = read_event(event_of("Event-Name: CUSTOM\nEvent-Subclass: mod_audio_stream%3A%3Aconnect\n\n"))
    assert event.name == "mod_audio_stream::connect"


@pytest.mark.parametrize(
    ("wire", "found"),
    [
        (b"GET / HTTP/1.1\n\n", "no header"),
        (b": x\n\n", "no header"),
        (b"Content-Length: -1\n\n", "Content-Length"),
        (b"Content-Length: 1e3\n\n", "Content-Length"),
        (b"Content-Length: \xd9\xa1\n\n", "Content-Length"),
        (b"Content-Length: %d\n\n" % (MAX_BODY_BYTES + 1), "Content-Length"),
        (b"x" * (MAX_HEADER_BYTES + 1), "bytes of headers"),
        (b"a: b\n" * MAX_HEADER_BYTES + b"\n", "bytes of headers"),
    ],
)
def test_what_is_no_event_socket_is_refused(wire: bytes, found: str) -> None:
    with pytest.raises(EslProtocolError, match=found):
        MessageReader().feed(wire)


@pytest.mark.parametrize("body", ["", "x", "Job-UUID: 1\n\n", "Event-Name: DTMF\nContent-Length: 9\n\nshort"])
def test_an_event_that_is_none_is_refused(body: str) -> None:
    with pytest.raises(EslProtocolError):
        read_event(Message({"Content-Type": "text/event-plain"}, body.encode()))


@settings(max_examples=300)
@given(st.binary(max_size=400), st.sampled_from([b"", GREETING, b"Content-Length: 30\n\n"]))
def test_whatever_comes_nothing_else_is_raised(noise: bytes, before: bytes) -> None:
    with suppress(EslProtocolError):
        for message in MessageReader().feed(before + noise):
            read_event(message)
