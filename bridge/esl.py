"""One FreeSWITCH, reached through its event socket: commands, their answers, events of channels we follow.

An inbound connection (mod_event_socket.c), which is made anew whenever it is lost, and is shared by the
tenants whose settings name the same host, port and password. The framing is `esl_frames.py`, the commands
are `esl_commands.py`. The socket has no TLS and its password goes over it as it is: it belongs on the
machine itself or into a tunnel.

FreeSWITCH answers commands in their order and with nothing that names them, and carries an ``api`` command
out in the thread that sends the events. So what may take long goes by :meth:`EslConnection.job`, which is
answered by an event; and an answer that is late ends the connection, because nobody could tell whose the
next one is.

Events come for followed channels alone, by filters. FreeSWITCH keeps up to 100,000 for a slow reader, then
loses some, and closes after 500. Nothing here waits while it reads, so there is no queue of ours in
between: an event is given on by a plain call.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID, uuid4

import structlog

from bridge import esl_commands as commands
from bridge.esl_frames import EslProtocolError, Event, Message, MessageReader, read_event
from bridge.pbx import PbxError

CONNECT_S = 3.0
"""For the TCP connection, and for the log-in, each."""
ANSWER_S = 3.0
"""For the answer to one command. A well FreeSWITCH needs a millisecond."""
PING_S = 5.0
"""So often it is asked whether it lives, where nothing else was asked."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0
"""Between two attempts to connect; doubled each time, and shortened by chance by up to a half."""
REFUSED_PAUSE_S = 15.0
"""After a wrong password or address: trying again often only fills FreeSWITCH's log."""
KILL_PAUSES_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Before each attempt to hang a channel up. While the connection is down they stand still."""
STOP_S = 3.0
"""How long the last hang-ups may take."""
WRITE_BUFFER = 256 * 1024
"""Bytes that wait for a FreeSWITCH that does not read; with more, commands are refused."""

EVENTS = (
    "CHANNEL_ANSWER CHANNEL_HANGUP BACKGROUND_JOB DTMF PLAYBACK_START PLAYBACK_STOP CUSTOM "
    "mod_audio_stream::connect mod_audio_stream::disconnect mod_audio_stream::error "
    "mod_audio_fork::connect mod_audio_fork::connect_failed mod_audio_fork::disconnect mod_audio_fork::error"
)
"""What is asked for. Which channels' is a matter of filters."""

NO_CHANNEL = ("no such channel", "cannot locate session", "no such session")
"""How the commands say it, in the versions since 1.6."""
SILENT = "-ERR no reply"
"""What mod_event_socket makes of a command that says nothing, as ``uuid_break`` does where it went well."""

log = structlog.get_logger(__name__)


class EslError(PbxError):
    """A command was not carried out, or nobody knows; the text is for people and holds no secret.

    Attributes:
        said: what FreeSWITCH answered, behind ``-ERR``; empty where it answered nothing.
    """

    def __init__(self, text: str, *, unknown: bool = False, said: str = "") -> None:
        super().__init__(text, unknown=unknown)
        self.said = said

    @property
    def no_channel(self) -> bool:
        """FreeSWITCH has no such channel."""
        return any(words in self.said.lower() for words in NO_CHANNEL)


@dataclass(frozen=True, slots=True)
class EslAddress:
    """Where an event socket is, and its password."""

    host: str
    port: int
    password: str = field(repr=False)


class Follower(Protocol):
    """Who wants to know what happens to a channel. Neither may raise or wait."""

    def esl_event(self, event: Event) -> None:
        """Something happened to it."""

    def esl_back(self, there: bool) -> None:
        """Events were lost with the connection, and come again: is the channel still there?"""


class _Refused(Exception):
    """FreeSWITCH does not let us in."""


class EslConnection:
    """The commands and the events; see the module."""

    def __init__(self, address: EslAddress) -> None:
        self.address = address
        self.name = f"FreeSWITCH's event socket at {address.host}:{address.port}"
        self.trouble = f"{self.name} is not connected yet"
        """Why there is no connection, for people."""
        self._up = asyncio.Event()
        self._tried = asyncio.Event()
        self._users = 0
        self._runner: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._killing: set[UUID] = set()
        self._writer: asyncio.StreamWriter | None = None
        self._answers: deque[asyncio.Future[Message]] = deque()
        self._jobs: dict[str, asyncio.Future[str]] = {}
        self._followers: dict[UUID, list[Follower]] = {}

    # ----------------------------------------------------------------------------------------------------
    # Start and stop
    # ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect in the background; what is down is no error. Each user starts, and stops, once."""
        self._users += 1
        if self._runner is None:
            self._runner = asyncio.get_running_loop().create_task(self._run(), name=self.name)

    async def stop(self) -> None:
        """Finish the hang-ups that are under way, and disconnect, once the last user stops."""
        self._users = max(0, self._users - 1)
        if self._users or self._runner is None:
            return
        if self._tasks and self._up.is_set():
            await asyncio.wait(set(self._tasks), timeout=STOP_S)
        ending = {self._runner, *self._tasks}
        self._runner = None
        for task in ending:
            task.cancel()
        await asyncio.wait(ending, timeout=STOP_S)
        if self._killing:
            log.error("esl.not_hung_up", address=self.name, channels=[str(one) for one in self._killing])
            self._killing.clear()

    async def ready(self, timeout_s: float) -> bool:
        """Wait until it is connected; False where it is not in time (`trouble` says why)."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError:
            return False
        return True

    async def tried(self, timeout_s: float) -> bool:
        """Wait for the first attempt to connect; whether it did (`trouble` says why not)."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._tried.wait()
        except TimeoutError:
            return False
        return self._up.is_set()

    # ----------------------------------------------------------------------------------------------------
    # Commands
    # ----------------------------------------------------------------------------------------------------

    async def api(self, command: str, limit_s: float = ANSWER_S) -> str:
        """Carry a quick command out, and return what it answers, without the line end.

        Args:
            command: one of `esl_commands`.

        Raises:
            EslError: there is no connection, or it failed, or nobody knows.
            ValueError: it is not one command.
        """
        answer = await self._ask(f"api {commands.checked(command)}", limit_s)
        # Where it is not allowed there is a command/reply and no body.
        said = answer.body.decode("utf-8", "replace") or answer.headers.get("Reply-Text", "")
        return _judged(command, said)

    async def play(self, channel: UUID, path: str, limit_s: float = ANSWER_S) -> None:
        """Have a file played on a channel, behind those that wait there already; return when it is queued.

        Raises:
            EslError: it is not, or nobody knows.
            ValueError: this is no file's path.
        """
        answer = await self._ask(commands.playback(channel, path), limit_s)
        if not answer.headers.get("Reply-Text", "").startswith("+OK"):
            raise EslError(f"FreeSWITCH refused to play on {channel}: {_short(answer)}")

    async def job(self, command: str, limit_s: float) -> str:
        """Carry a command out that may take long, and return what it answers, without the line end.

        Raises:
            EslError: likewise.
            ValueError: it is not one command.
        """
        job = str(uuid4())
        text = f"bgapi {commands.checked(command)}\nJob-UUID: {job}"
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._jobs[job] = future
        try:
            async with asyncio.timeout(limit_s):
                filtered = self._send(f"filter Job-UUID {job}")
                answer = await self._answered(self._send(text), min(limit_s, ANSWER_S))
                await self._answered(filtered, ANSWER_S)
                if not answer.headers.get("Reply-Text", "").startswith("+OK"):
                    raise EslError(f"{self.name} refused {_verb(command)}: {_short(answer)}")
                return _judged(command, await future)
        except TimeoutError:
            raise EslError(
                f"{self.name} did not say in {limit_s:g} s how {_verb(command)} went", unknown=True
            ) from None
        finally:
            del self._jobs[job]
            future.cancel()
            self._unasked(f"filter delete Job-UUID {job}")

    def follow(self, channel: UUID, follower: Follower) -> None:
        """Hear of a channel, which need not be there yet, until :meth:`leave`."""
        followers = self._followers.setdefault(channel, [])
        followers.append(follower)
        if len(followers) == 1:
            self._unasked(f"filter Unique-ID {channel}")

    def leave(self, channel: UUID, follower: Follower) -> None:
        """Hear of it no more; of one that is not followed nothing is changed."""
        followers = self._followers.get(channel, [])
        if follower in followers:
            followers.remove(follower)
            if not followers:
                del self._followers[channel]
                self._unasked(f"filter delete Unique-ID {channel}")

    def hang_up(self, channel: UUID, job: asyncio.Task[Any] | None = None) -> None:
        """Hang a channel up that nobody wants, as soon as there is a connection, and make sure of it.

        Args:
            job: may yet make the channel: while it runs, that there is none means nothing.
        """
        if channel not in self._killing:
            self._killing.add(channel)
            self._spawn(f"hang up {channel}", self._hang_up(channel, job))

    async def _hang_up(self, channel: UUID, job: asyncio.Task[Any] | None) -> None:
        trouble = ""
        for pause in KILL_PAUSES_S:
            await asyncio.sleep(pause)
            await self._up.wait()
            settled = job is None or job.done()
            try:
                await self.api(commands.kill(channel))
                trouble = ""
            except EslError as error:
                trouble = str(error)
                if not error.no_channel:
                    continue
            # Not there at the second look either, and nothing that could make it: nothing late has come.
            if settled and (not trouble or pause):
                trouble = ""
                break
        self._killing.discard(channel)
        if trouble:
            log.error("esl.not_hung_up", address=self.name, channels=[str(channel)], reason=trouble)

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ----------------------------------------------------------------------------------------------------
    # One question, one answer
    # ----------------------------------------------------------------------------------------------------

    async def _ask(self, text: str, limit_s: float = ANSWER_S) -> Message:
        return await self._answered(self._send(text), limit_s)

    def _send(self, text: str) -> asyncio.Future[Message]:
        """Write a command; its answer comes in its turn."""
        writer = self._writer
        if writer is None or writer.is_closing():
            raise EslError(self.trouble)
        if writer.transport.get_write_buffer_size() > WRITE_BUFFER:
            raise EslError(f"{self.name} does not read what it is sent")
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._answers.append(future)
        writer.write(f"{text}\n\n".encode())
        return future

    async def _answered(self, answer: asyncio.Future[Message], limit_s: float) -> Message:
        done, _ = await asyncio.wait({answer}, timeout=limit_s)
        if not done:
            self._drop()
            raise EslError(f"{self.name} gave no answer in {limit_s:g} s", unknown=True)
        return answer.result()

    def _unasked(self, text: str) -> None:
        """Have a filter changed, where there is a connection; a new connection sets all of them anew."""
        if self._up.is_set():
            with suppress(EslError):  # it is being lost
                self._send(text).add_done_callback(_taken_note_of)

    def _drop(self) -> None:
        """Close the connection; the reader notices, and makes another."""
        if self._writer is not None:
            self._writer.transport.abort()

    # ----------------------------------------------------------------------------------------------------
    # The connection
    # ----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Connect, read, and again."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                await self._connected_once()
                trouble = f"{self.name} closed the connection"
                pause = FIRST_PAUSE_S
            except _Refused as error:
                trouble, pause = str(error), REFUSED_PAUSE_S
            except EslProtocolError as error:
                trouble = f"{self.name} is none: {error}"
            except EslError as error:
                trouble = str(error)
            except TimeoutError:
                trouble = f"{self.name} gave no answer in {CONNECT_S:g} s"
            except OSError as error:
                trouble = f"{self.name} does not answer: {error.strerror or type(error).__name__}"
            except Exception as error:  # an error of ours must not leave the house without its telephones
                trouble = f"the connection to {self.name} failed: {type(error).__name__}"
                log.error("esl.failed", address=self.name, exc_info=error)
            if self._up.is_set() or trouble != self.trouble:
                log.warning("esl.disconnected", address=self.name, reason=trouble)
            self._disconnected(trouble)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _connected_once(self) -> None:
        """From the connection to its end."""
        async with asyncio.timeout(CONNECT_S):
            reader, self._writer = await asyncio.open_connection(self.address.host, self.address.port)
        try:
            messages = MessageReader()
            async with asyncio.timeout(CONNECT_S):
                waiting = await self._log_in(reader, messages)
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(self._read(reader, messages, waiting))
                keeping = group.create_task(self._keep())
                reading.add_done_callback(lambda _: keeping.cancel())
        except ExceptionGroup as group_error:  # of the one that failed first; the other was cancelled
            raise group_error.exceptions[0] from None
        finally:
            self._writer.transport.abort()
            self._writer = None

    async def _log_in(self, reader: asyncio.StreamReader, messages: MessageReader) -> list[Message]:
        """Show the password; what came behind the answer."""
        assert self._writer is not None
        waiting: deque[Message] = deque()

        async def next_message() -> Message:
            while not waiting:
                data = await reader.read(65_536)
                if not data:
                    raise EslError(f"{self.name} closed the connection")
                waiting.extend(messages.feed(data))
            return waiting.popleft()

        greeting = await next_message()
        if greeting.kind == "text/rude-rejection":
            raise _Refused(
                f"{self.name} does not let this machine in: its address is not in the list that "
                "apply-inbound-acl of event_socket.conf.xml names"
            )
        if greeting.kind != "auth/request":
            raise EslProtocolError(f"a greeting of the kind {greeting.kind[:60]!r}", "auth/request")
        self._writer.write(f"auth {commands.checked(self.address.password)}\n\n".encode())
        answer = await next_message()
        if answer.headers.get("Reply-Text") != "+OK accepted":
            raise _Refused(f"{self.name} refused the password")
        return list(waiting)

    async def _read(
        self, reader: asyncio.StreamReader, messages: MessageReader, waiting: list[Message]
    ) -> None:
        while True:
            for message in waiting:
                self._heard(message)
            data = await reader.read(65_536)
            if not data:
                return
            waiting = messages.feed(data)

    async def _keep(self) -> None:
        """Ask for the events, then look now and then whether anybody is there."""
        # First a filter that nothing fits: without any, the events of all channels would come.
        await self._subscribe(["filter Event-Name PORTEIRO_NONE", f"event plain {EVENTS}"])
        filtered: set[UUID] = set()
        while new := self._followers.keys() - filtered:  # more may come meanwhile
            await self._subscribe([f"filter Unique-ID {channel}" for channel in new])
            filtered |= new
        log.info("esl.connected", address=self.name)
        self._up.set()
        self._tried.set()
        for channel in tuple(self._followers):
            self._spawn(f"look at {channel}", self._look_at(channel))
        while True:
            await asyncio.sleep(PING_S)
            await self._ask("api uptime")

    async def _subscribe(self, orders: Sequence[str]) -> None:
        """Have it accept all of these."""
        for answer in [self._send(order) for order in orders]:
            said = (await self._answered(answer, ANSWER_S)).headers.get("Reply-Text", "")
            if not said.startswith("+OK"):
                raise EslError(f"{self.name} does not give events: {said[:120]}")

    async def _look_at(self, channel: UUID) -> None:
        """How a channel stands of which events were lost."""
        try:
            there = await self.api(commands.exists(channel)) != "false"
        except EslError:
            return  # the next connection looks again
        for follower in tuple(self._followers.get(channel, ())):
            follower.esl_back(there)

    def _heard(self, message: Message) -> None:
        match message.kind:
            case "command/reply" | "api/response":
                if not self._answers:
                    raise EslProtocolError("an answer to nothing", "one for each command")
                future = self._answers.popleft()
                if not future.done():
                    future.set_result(message)
            case "text/event-plain":
                self._happened(read_event(message))
            case "text/disconnect-notice":
                log.info("esl.disconnect_notice", address=self.name)
            case _:
                raise EslProtocolError(f"a message of the kind {message.kind[:60]!r}", "answers and events")

    def _happened(self, event: Event) -> None:
        if event.name == "BACKGROUND_JOB":
            future = self._jobs.get(event.headers.get("Job-UUID", ""))
            if future is not None and not future.done():
                future.set_result(event.body)
            return
        try:
            channel = UUID(event.channel)
        except ValueError:
            return
        for follower in tuple(self._followers.get(channel, ())):
            follower.esl_event(event)

    def _disconnected(self, trouble: str) -> None:
        self.trouble = trouble
        self._up.clear()
        self._tried.set()
        answers, self._answers = self._answers, deque()
        lost = EslError(f"{trouble}; whether the command was carried out is not known", unknown=True)
        waiting: tuple[asyncio.Future[Any], ...] = (*answers, *self._jobs.values())
        for future in waiting:
            if not future.done():
                future.set_exception(lost)
                future.exception()  # who asked may have gone


def _judged(command: str, said: str) -> str:
    """What a command answered.

    Raises:
        EslError: that it failed.
    """
    text = said.strip()
    if text == SILENT:
        return ""
    if text.startswith(("-ERR", "-USAGE", "-ERROR")):
        said = text.partition(" ")[2][:160]
        raise EslError(f"FreeSWITCH refused {_verb(command)}: {text[:160]}", said=said)
    return text


def _verb(command: str) -> str:
    return command.partition(" ")[0]


def _short(answer: Message) -> str:
    return answer.headers.get("Reply-Text", "without a reason")[:120]


def _taken_note_of(answer: asyncio.Future[Message]) -> None:
    """A filter that was not changed: events are missed, or passed over; the commands go on."""
    if not answer.cancelled() and answer.exception() is None:
        said = answer.result().headers.get("Reply-Text", "")
        if not said.startswith("+OK"):
            log.warning("esl.filter_refused", reason=said[:120])


__all__ = ["EslAddress", "EslConnection", "EslError", "Follower"]
