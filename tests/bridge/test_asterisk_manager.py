"""The Manager's client against a server that behaves, refuses, breaks off and says nothing.

That a real Asterisk understands it is tried in tests/pbx/test_pbx_manager.py.
"""

from __future__ import annotations

import asyncio
import re
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bridge.asterisk_manager
from bridge.asterisk_manager import AsteriskManager, ManagerAddress, ManagerError, read_answer

CHALLENGE = (
    b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nWWW-Authenticate: Digest algorithm=MD5, "
    b'realm="asterisk", nonce="44ea3eab", qop="auth", opaque="44ea3eab"\r\n\r\n'
)
CHANNEL = "PJSIP/intercom-00000000"


def http(body: str, status: str = "200 OK") -> bytes:
    """An HTTP answer."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body.encode())}\r\n\r\n{body}".encode()


PLAYED = http("Response: Success\r\nMessage: DTMF successfully queued\r\n\r\n")
SET = http("Response: Success\r\nMessage: Variable Set\r\n\r\n")
REFUSED = http("Response: Error\r\nMessage: Channel not found\r\n\r\n")

HANG, CUT = b"hang", b"cut"


@dataclass
class Pbx:
    """A web server: challenges what has no password, then gives each action the next answer of its list."""

    answers: list[bytes]
    challenge: bytes = CHALLENGE
    port: int = 0
    asked: list[dict[str, str]] = field(default_factory=list)
    """The actions that came with a password."""
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"POST /arawman HTTP/1.1\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                body = await reader.readexactly(int(length[1])) if length else b""
                if b"authorization: digest" not in head.lower():
                    writer.write(self.challenge)
                    continue
                self.asked.append(dict(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True)))
                answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
                if answer == HANG:
                    await self.over.wait()
                if answer in (HANG, CUT):
                    return
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@asynccontextmanager
async def pbx(*answers: bytes, challenge: bytes = CHALLENGE) -> AsyncIterator[tuple[AsteriskManager, Pbx]]:
    """A running server, and a client of it."""
    here = Pbx(list(answers), challenge)
    server = await asyncio.start_server(here.serve, "127.0.0.1", 0)
    here.port = server.sockets[0].getsockname()[1]
    address = ManagerAddress(f"http://127.0.0.1:{here.port}", "porteiro", "s3nh@")
    try:
        yield AsteriskManager(address), here
    finally:
        here.over.set()
        server.close()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that says nothing is not waited for as long as in earnest."""
    monkeypatch.setattr(bridge.asterisk_manager, "ANSWER_S", 0.5)


async def fails(asked: Awaitable[None]) -> ManagerError:
    """How it failed."""
    with pytest.raises(ManagerError) as caught:
        await asked
    assert "s3nh@" not in str(caught.value)
    return caught.value


async def test_a_digit_is_asked_for_once_and_as_the_manager_wants_it() -> None:
    async with pbx(PLAYED) as (manager, here):
        await manager.play_digit(CHANNEL, "#", 250)
        assert here.asked == [{"Action": "PlayDTMF", "Channel": CHANNEL, "Digit": "#", "Duration": "250"}]


@pytest.mark.parametrize(
    ("answer", "text", "unknown"),
    [
        (REFUSED, "refused PlayDTMF: Channel not found", False),
        (http("", "401 Unauthorized"), "refused the user porteiro or its password", False),
        (http("", "403 Forbidden"), "does not let the user porteiro in from here", False),
        (http("", "404 Not Found"), "has no /arawman", False),
        (http("", "503 Busy"), "answered 503", True),
        (http("", "302 Elsewhere"), "answered 302", True),
        (http("<html>"), "no Manager's answer", True),
        (http("Response: Follows\r\n\r\n"), "no Manager's answer", True),
        (b"rubbish\r\n\r\n", "can't be read", True),
        (CUT, "can't be read", True),
        (HANG, "gave no answer in", True),
    ],
)
async def test_what_went_wrong_is_said_and_no_digit_is_played_twice(
    answer: bytes, text: str, unknown: bool
) -> None:
    async with pbx(answer) as (manager, here):
        error = await fails(manager.play_digit(CHANNEL, "9", 50))
        assert text in str(error)
        assert error.unknown is unknown
        assert len(here.asked) == 1


@pytest.mark.parametrize(
    "challenge",
    [
        http("", "401 Unauthorized"),
        CHALLENGE.replace(b'Digest algorithm=MD5, realm="asterisk"', b'Basic realm="asterisk"'),
        CHALLENGE.replace(b'nonce="44ea3eab", ', b""),
        CHALLENGE.replace(b'qop="auth"', b'qop="auth-int"'),
        CHALLENGE.replace(b"MD5", b"ROT13"),
        b"rubbish\r\n\r\n",
    ],
)
async def test_a_challenge_that_cannot_be_met_plays_nothing_for_sure(challenge: bytes) -> None:
    async with pbx(PLAYED, challenge=challenge) as (manager, here):
        error = await fails(manager.play_digit(CHANNEL, "9", 50))
        assert here.asked == []
        assert error.unknown == (b"rubbish" in challenge), "an answer that can't be read may be anybody's"


async def test_nobody_there_is_known_for_sure() -> None:
    async with pbx() as (manager, here):
        pass
    error = await fails(manager.play_digit(CHANNEL, "9", 50))
    assert "connection refused" in str(error) and not error.unknown
    assert here.asked == []


@pytest.mark.parametrize("lost", [CUT, HANG, http("", "500 Oops")])
async def test_a_variable_whose_answer_was_lost_is_set_again_and_once_only(lost: bytes) -> None:
    async with pbx(lost, SET) as (manager, here):
        await manager.set_variable(CHANNEL, "PORTEIRO_THEN", "attendant")
        wanted = {"Action": "Setvar", "Channel": CHANNEL, "Variable": "PORTEIRO_THEN", "Value": "attendant"}
        assert here.asked == [wanted, wanted]
    async with pbx(lost) as (manager, here):
        assert (await fails(manager.set_variable(CHANNEL, "A", "b"))).unknown
        assert len(here.asked) == 2


async def test_a_variable_that_was_refused_is_not_tried_again() -> None:
    async with pbx(REFUSED, SET) as (manager, here):
        await fails(manager.set_variable(CHANNEL, "A", "b"))
        assert len(here.asked) == 1


@given(where=st.integers(0, 2), text=st.text(max_size=5), control=st.sampled_from("\r\n\x00\x1f\x7f\t"))
def test_no_control_character_goes_out(where: int, text: str, control: str) -> None:
    values = [CHANNEL, "NAME", "value"]
    values[where] = text + control + text
    manager = AsteriskManager(ManagerAddress("http://127.0.0.1:1", "porteiro", "x"))
    with pytest.raises(ManagerError, match="control character"):
        asyncio.run(manager.set_variable(values[0], values[1], values[2]))


@pytest.mark.parametrize(
    "ask",
    [
        lambda manager: manager.set_variable("", "A", "b"),
        lambda manager: manager.play_digit("", "9", 50),
    ],
)
async def test_without_a_channel_nothing_is_asked_for(
    ask: Callable[[AsteriskManager], Awaitable[None]],
) -> None:
    """Setvar without one would set a global variable."""
    async with pbx(SET) as (manager, here):
        assert "no channel" in str(await fails(ask(manager)))
        assert here.asked == []


@pytest.mark.parametrize("digit", ["", "x", "12", "w", "١", "a"])
async def test_a_digit_that_asterisk_would_pass_over_is_refused(digit: str) -> None:
    async with pbx(PLAYED) as (manager, here):
        with pytest.raises(ValueError, match="allowed: one of"):
            await manager.play_digit(CHANNEL, digit, 50)
        assert here.asked == []


async def test_the_actions_that_we_may_ask_for_are_listed() -> None:
    listed = "Response: Success\r\nPlayDTMF: Play DTMF.  (Priv: call,all)\r\nPing: Keepalive.\r\n\r\n"
    async with pbx(http(listed)) as (manager, _):
        assert await manager.actions() == {"PlayDTMF", "Ping"}


@given(st.text())
def test_any_answer_is_read(body: str) -> None:
    found = read_answer(body)
    assert all(name and name == name.strip() and "\n" not in name + value for name, value in found.items())


def test_the_first_message_counts_and_in_it_the_first_of_a_name() -> None:
    body = "Response: Error\r\nMessage: a: b\r\nResponse: Success\r\nnonsense\r\n\r\nResponse: Success\r\n"
    assert read_answer(body) == {"Response": "Error", "Message": "a: b"}


def test_the_password_is_in_no_text_of_the_address() -> None:
    assert "s3nh@" not in repr(ManagerAddress("http://x", "porteiro", "s3nh@"))
