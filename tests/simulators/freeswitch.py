"""FreeSWITCH's event socket and channels, by their sources: what each command answers, and what then happens.

- mod_event_socket.c: the greeting, ``auth``, ``event plain``, ``filter`` (where there are any, an event must
  fit one), ``api`` in the listener's own thread, ``bgapi`` with ``Job-UUID``, ``-ERR no reply`` for what says
  nothing, the notice at the end, the rude rejection by an access list, commands as lines up to an empty one.
- mod_commands.c, switch_ivr_originate.c: ``originate {variables}endpoint &park()``, with blanks, quotes and
  commas parted as ``switch_separate_string`` parts them, so that an injected one would show; causes.
- switch_ivr_async.c, switch_ivr.c: ``uuid_broadcast`` queues a ``playback`` that begins five frames after the
  one before it ended, ``sendmsg`` one that begins at the next frame; ``uuid_break all`` drops the queue and
  stops the running one, or the next one where none runs (CF_BREAK).
- switch_ivr_bridge.c: the ``bridge`` of an extension that ``uuid_transfer`` names: what the caller's
  ``bridge_pre_execute_bleg_app`` has the other side execute, ten frames after it began, while neither hears
  the other; with early media it begins before anybody has picked up.
- The streams of ``uuid_audio_stream`` and ``uuid_audio_fork`` are those of ``audio_stream.py``: real
  WebSockets to the service.
"""

from __future__ import annotations

import asyncio
import re
import wave
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

from websockets.exceptions import InvalidStatus

from tests.simulators.audio_stream import Kind, Refused, Started, Stream, start

LEAD_FRAMES = 5
"""``lead-frames`` of switch_ivr_broadcast: so many frames are read before a file begins."""
BRIDGE_LEAD_S = 0.2
"""``DEFAULT_LEAD_FRAMES`` of switch_ivr_bridge.c: ten, before anything is executed."""
PASSWORD = "ClueCon"
"""The one that FreeSWITCH is shipped with."""


@dataclass
class Phone:
    """Somebody who can be called.

    Attributes:
        cause: why the call fails, after `after_s`; empty: it is answered then.
        after_s: how long it rings. None: for ever.
        answered: told of the channel once it is answered.
    """

    cause: str = ""
    after_s: float | None = 0.05
    answered: Callable[[Channel], None] | None = None


@dataclass
class Person:
    """Who answers at an extension that a channel is transferred to.

    Attributes:
        early: their telephone sends early media while it rings.
        heard: 16-bit PCM at 8 kHz that was played to them before they were connected.
        lost: what was played while the telephone still rang.
        connected: they and the caller hear each other.
    """

    after_s: float = 0.05
    early: bool = False
    heard: bytes = b""
    lost: bytes = b""
    connected: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class _File:
    path: str
    lead: int = LEAD_FRAMES
    pcm: bytes | None = None
    """Once it has begun."""


class Channel:
    """One channel, from its ring to its end."""

    def __init__(self, switch: FreeSwitch, uuid: str, variables: Mapping[str, str]) -> None:
        self.switch = switch
        self.uuid = uuid
        self.variables = dict(variables)
        self.up = False
        self.over = asyncio.Event()
        self.cause = ""
        self.stream: Stream | None = None
        self.digits = ""
        """What ``uuid_send_dtmf`` played to whoever is there."""
        self.transferred = ""
        """Where ``uuid_transfer`` sent it."""
        self.files: deque[_File] = deque()
        self.played: list[str] = []
        """Names of the files that began."""
        self.missing: list[str] = []
        """Files that were not there when their turn came."""
        self._break = False

    def answer(self) -> None:
        """Somebody answers."""
        self.up = True
        self.switch.fire("CHANNEL_ANSWER", self)

    def hang_up(self, cause: str = "NORMAL_CLEARING") -> None:
        """It is over."""
        if self.over.is_set():
            return
        self.cause = cause
        self.over.set()
        self.switch.channels.pop(self.uuid, None)
        self.switch.fire("CHANNEL_HANGUP", self, {"Hangup-Cause": cause})
        if self.stream is not None:
            self.switch.spawn(self.stream.end())

    def press(self, digit: str) -> None:
        """Whoever is there presses a key."""
        self.switch.fire("DTMF", self, {"DTMF-Digit": digit, "DTMF-Duration": "2000", "DTMF-Source": "RTP"})

    # ---- Files -----------------------------------------------------------------------------------------

    def file_tick(self, size: int) -> bytes:
        """One frame of what ``playback`` plays."""
        if not self.files:
            return b""
        file = self.files[0]
        if file.lead:
            file.lead -= 1
            return b""
        if file.pcm is None:
            try:
                with wave.open(file.path) as opened:
                    file.pcm = opened.readframes(opened.getnframes())
            except OSError:  # "Open failed" in the log, and no event
                self.files.popleft()
                self.missing.append(file.path)
                return b""
            self.played.append(Path(file.path).name)
            self.switch.fire("PLAYBACK_START", self, {"Playback-File-Path": file.path})
            if self._break:  # CF_BREAK was set while nothing played
                self._break = False
                self._file_over("break")
                return b""
        frame, file.pcm = file.pcm[:size], file.pcm[size:]
        if not file.pcm:
            self._file_over("done")
        return frame

    def break_all(self) -> None:
        """``uuid_break UUID all``"""
        running = self.files[0] if self.files else None
        self.files.clear()
        if running is not None and running.pcm is not None:
            self.files.append(running)
            self._file_over("break")
        else:
            self._break = True

    def _file_over(self, status: str) -> None:
        file = self.files.popleft()
        self.switch.fire("PLAYBACK_STOP", self, {"Playback-File-Path": file.path, "Playback-Status": status})


@dataclass
class _Listener:
    """One connection of an event socket."""

    writer: asyncio.StreamWriter
    events: set[str] = field(default_factory=set)
    filters: list[tuple[str, str]] = field(default_factory=list)

    def wants(self, name: str, subclass: str, headers: Mapping[str, str]) -> bool:
        """As event_handler of mod_event_socket.c has it."""
        if "ALL" not in self.events and (
            name not in self.events or (subclass and subclass not in self.events)
        ):
            return False
        fits = [value.lower() == headers.get(header, "").lower() for header, value in self.filters]
        return not self.filters or any(fits)


class FreeSwitch:
    """One FreeSWITCH; :meth:`open`, then its :attr:`port`."""

    def __init__(self, kind: Kind = "base64", *, password: str = PASSWORD) -> None:
        self.kind: Kind = kind
        self.password = password
        self.modules = {"mod_audio_fork" if kind == "fork" else "mod_audio_stream", "mod_event_socket"}
        self.rude = False
        """Its access list does not have us."""
        self.mute = False
        """It takes commands and says nothing."""
        self.slow_s = 0.0
        """How long it takes to give events."""
        self.phones: dict[str, Phone] = {}
        self.people: dict[str, Person] = {}
        """By their extensions."""
        self.channels: dict[str, Channel] = {}
        self.made: list[Channel] = []
        """Every channel that there ever was."""
        self.rang: list[tuple[str, dict[str, str]]] = []
        """Whom ``originate`` called, and with which variables."""
        self.commands: list[str] = []
        """Every API command."""
        self.refused: dict[str, str | None] = {}
        """What it says to a command instead of carrying it out; None: nothing, ever."""
        self.port = 0
        self._server: asyncio.Server | None = None
        self._listeners: list[_Listener] = []
        self._tasks: set[asyncio.Task[object]] = set()

    async def open(self, port: int = 0) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """It goes down: every call ends."""
        for channel in tuple(self.channels.values()):
            channel.hang_up("SYSTEM_SHUTDOWN")
        await self.shut("The system is being shut down.\n")
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def die(self) -> None:
        """It is gone in mid-call: every connection is reset, and nobody is told of anything."""
        for channel in tuple(self.channels.values()):
            channel.cause = "died"
            channel.over.set()
            if channel.stream is not None:
                channel.stream.connection.transport.abort()
        self.channels.clear()
        for listener in self._listeners:
            listener.writer.transport.abort()
        await self.shut()

    async def shut(self, notice: str = "") -> None:
        """The event socket goes away; calls go on."""
        if self._server is not None:
            self._server.close()
        for listener in self._listeners:
            if notice:
                _write(listener.writer, {"Content-Type": "text/disconnect-notice"}, notice)
            listener.writer.close()
        self._server = None

    def spawn(self, work: object) -> asyncio.Task[object]:
        task: asyncio.Task[object] = asyncio.get_running_loop().create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @property
    def listeners(self) -> int:
        """Connections that are there."""
        return len(self._listeners)

    async def call_in(
        self, uuid: str, url: str, metadata: str = "", variables: Mapping[str, str] | None = None
    ) -> Channel:
        """Somebody calls, and the dialplan answers and has the call streamed."""
        channel = self.channels[uuid] = Channel(self, uuid, variables or {})
        self.made.append(channel)
        channel.up = True
        module = "uuid_audio_fork" if self.kind == "fork" else "uuid_audio_stream"
        told = f"audio_fork {metadata} true true 8000" if self.kind == "fork" else metadata
        answer = await self._api(f"{module} {uuid} start {url} mono 8k {told}")
        assert answer.startswith("+OK"), answer
        async with asyncio.timeout(5):
            while channel.stream is None:
                await asyncio.sleep(0.01)
        return channel

    # ---- Events ----------------------------------------------------------------------------------------

    def fire(
        self, name: str, channel: Channel | None, headers: Mapping[str, str] | None = None, body: str = ""
    ) -> None:
        """Tell whoever asked for it."""
        subclass = name if "::" in name else ""
        name = "CUSTOM" if subclass else name
        said = {"Event-Name": name, "Core-UUID": "6a1b7e1e"} | dict(headers or {})
        if subclass:
            said["Event-Subclass"] = subclass
        if channel is not None:
            said |= {"Unique-ID": channel.uuid, "Caller-Caller-ID-Name": "Portão, 100%\n"}
        inner = "".join(f"{key}: {quote(value, safe='/ ()')}\n" for key, value in said.items())
        if body:
            inner += f"Content-Length: {len(body.encode())}\n"
        for listener in self._listeners:
            if listener.wants(name, subclass, said):
                _write(
                    listener.writer, {"Content-Type": "text/event-plain"}, f"{inner}\n{body}", kind_last=True
                )

    # ---- The socket ------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.rude:
            _write(writer, {"Content-Type": "text/rude-rejection"}, "Access Denied, go away.\n")
            writer.close()
            return
        _write(writer, {"Content-Type": "auth/request"})
        listener = _Listener(writer)
        self._listeners.append(listener)
        authed = False
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while not reader.at_eof():
                lines = await _command(reader)
                if self.mute:
                    continue
                if not authed:
                    authed = lines[0] == f"auth {self.password}"
                    _reply(writer, "+OK accepted" if authed else "-ERR invalid")
                    if not authed:
                        break
                    continue
                if lines[0].startswith("exit"):
                    _reply(writer, "+OK bye")
                    break
                await self._take(listener, lines)
        self._listeners.remove(listener)
        if not writer.is_closing():
            _write(writer, {"Content-Type": "text/disconnect-notice"}, "Disconnected, goodbye.\n")
        writer.close()

    async def _take(self, listener: _Listener, lines: list[str]) -> None:
        verb, _, rest = lines[0].partition(" ")
        if verb == "api":
            body = await self._api(rest) or "-ERR no reply\n"
            _write(listener.writer, {"Content-Type": "api/response"}, body)
        elif verb == "bgapi":
            extra = dict(line.split(": ", 1) for line in lines[1:])
            job = extra.get("Job-UUID") or str(uuid4())
            _write(
                listener.writer,
                {"Content-Type": "command/reply", "Reply-Text": f"+OK Job-UUID: {job}", "Job-UUID": job},
            )
            self.spawn(self._job(job, rest))
        elif verb == "sendmsg":
            _reply(listener.writer, self._message(rest, dict(line.split(": ", 1) for line in lines[1:])))
        elif verb == "event":
            await asyncio.sleep(self.slow_s)
            listener.events.update(rest.split(" ")[1:])
            _reply(listener.writer, "+OK event listener enabled plain")
        elif verb == "filter":
            self._filter(listener, rest)
        else:
            _reply(listener.writer, "-ERR command not found")

    @staticmethod
    def _filter(listener: _Listener, rest: str) -> None:
        header, _, value = rest.partition(" ")
        if header == "delete":
            header, _, value = value.partition(" ")
            listener.filters = [one for one in listener.filters if one != (header, value)]
            _reply(listener.writer, f"+OK filter deleted. [{header}][{value}]")
        elif value:
            listener.filters.append((header, value))
            _reply(listener.writer, f"+OK filter added. [{header}]=[{value}]")
        else:
            _reply(listener.writer, "-ERR invalid syntax")

    async def _job(self, job: str, command: str) -> None:
        body = await self._api(command) or "Command returned no output!"
        self.fire("BACKGROUND_JOB", None, {"Job-UUID": job, "Job-Command": command.split(" ")[0]}, body)

    # ---- The commands ----------------------------------------------------------------------------------

    async def _api(self, command: str) -> str:
        self.commands.append(command)
        verb, _, rest = command.partition(" ")
        argv = separated(rest, " ")
        if verb in self.refused:
            return self.refused[verb] or await asyncio.get_running_loop().create_future()
        if verb == "originate":
            return await self._originate(argv)
        if verb in ("uuid_audio_stream", "uuid_audio_fork"):
            return await self._stream(verb, argv)
        if verb == "module_exists":
            return "true" if rest in self.modules else "false"
        if verb == "uuid_exists":
            return "true" if rest in self.channels else "false"
        if verb == "uptime":
            return "4711\n"
        act = {
            "uuid_kill": self._kill,
            "uuid_send_dtmf": self._send_dtmf,
            "uuid_transfer": self._transfer,
            "uuid_setvar": self._set,
            "uuid_setvar_multi": self._set_multi,
            "uuid_getvar": self._get,
            "uuid_broadcast": self._broadcast,
            "uuid_break": self._break,
        }.get(verb)
        if act is None:
            return f"-ERR {verb} Command not found!\n"
        if verb == "uuid_broadcast" and argv[0] not in self.channels:
            return "+OK Message Sent\n"  # it never looks
        channel = self.channels.get(argv[0]) if argv else None
        if channel is None:
            missing = "Cannot locate session!" if verb == "uuid_send_dtmf" else "No such channel!"
            return f"-ERR {missing}\n"
        return act(channel, argv[1:])

    async def _originate(self, argv: list[str]) -> str:
        if not 2 <= len(argv) <= 7:
            return "-USAGE: <call url> <exten>|&<application_name>(<app_args>)\n"
        variables, endpoint = originated(argv[0])
        uuid = variables.get("origination_uuid") or str(uuid4())
        # A comma or :_: in it would ring another phone too, which nobody's test expects.
        self.rang += [(each, variables) for each in re.split(r",|:_:|\|", endpoint)]
        phone = self.phones.get(endpoint)
        if phone is None:
            return "-ERR USER_NOT_REGISTERED\n"
        if uuid in self.channels:
            return "-ERR DESTINATION_OUT_OF_ORDER\n"
        channel = self.channels[uuid] = Channel(self, uuid, variables)
        self.made.append(channel)
        self.fire("CHANNEL_CREATE", channel)
        limit = float(variables.get("originate_timeout", 60))
        rings = limit if phone.after_s is None else min(phone.after_s, limit)
        with suppress(TimeoutError):
            async with asyncio.timeout(rings):
                await channel.over.wait()
        if channel.over.is_set():
            return f"-ERR {channel.cause}\n"
        if phone.after_s is None or phone.after_s > limit:
            channel.hang_up("NO_ANSWER")
            return "-ERR NO_ANSWER\n"
        if phone.cause:
            channel.hang_up(phone.cause)
            return f"-ERR {phone.cause}\n"
        channel.answer()
        if phone.answered is not None:
            phone.answered(channel)
        return f"+OK {uuid}\n"

    async def _stream(self, verb: str, argv: list[str]) -> str:
        module = "mod_audio_fork" if verb == "uuid_audio_fork" else "mod_audio_stream"
        if module not in self.modules:
            return f"-ERR {verb} Command not found!\n"
        if len(argv) < 2:
            return f"-USAGE: {verb}\n"
        channel = self.channels.get(argv[0])
        if channel is None or argv[1] != "start" or len(argv) < 5:
            return "-ERR Operation Failed\n"
        rate = {"8k": 8000, "16k": 16000}.get(argv[4]) or int(argv[4])
        started = Started(argv[2], " ".join(argv[5:]), argv[3], rate)
        if module == "mod_audio_fork":
            started.metadata = argv[6] if len(argv) > 6 else ""
            started.plays = argv[7:] == ["true", "true", str(rate)]
        try:
            started.check()
        except Refused:
            return "-ERR Operation Failed\n"
        if not channel.up or channel.stream is not None:
            return "-ERR Operation Failed\n"
        self.spawn(self._streaming(module, channel, started))
        return "+OK Success\n"

    async def _streaming(self, module: str, channel: Channel, started: Started) -> None:
        try:
            stream = await start(self.kind, started)
        except (OSError, InvalidStatus):
            self.fire(
                f"{module}::error" if module != "mod_audio_fork" else f"{module}::connect_failed", channel
            )
            return
        channel.stream = stream
        stream.source = channel.file_tick
        self.fire(f"{module}::connect", channel)
        await stream.connection.wait_closed()
        self.fire(f"{module}::disconnect", channel, body='{"status":"disconnected"}')

    @staticmethod
    def _kill(channel: Channel, argv: list[str]) -> str:
        channel.hang_up(argv[0] if argv else "NORMAL_CLEARING")
        return "+OK\n"

    @staticmethod
    def _send_dtmf(channel: Channel, argv: list[str]) -> str:
        if len(argv) != 1 or not re.fullmatch(r"~?[0-9A-D*#wW]+(@\d+)?", argv[0]):
            return "-USAGE: <uuid> <dtmf_data>\n"
        if channel.up:
            channel.digits += argv[0].partition("@")[0]
        return "+OK\n"

    def _transfer(self, channel: Channel, argv: list[str]) -> str:
        if not argv:
            return "-USAGE: <uuid> [-bleg|-both] <dest-exten> [<dialplan>] [<context>]\n"
        channel.transferred = " ".join(argv)
        if person := self.people.get(argv[0]):
            self.spawn(self._bridge(channel, person))
        return "+OK\n"

    @staticmethod
    async def _bridge(channel: Channel, person: Person) -> None:
        """``bridge`` of the dialplan."""
        ringing = person.early and channel.variables.get("ignore_early_media") != "true"
        await asyncio.sleep(0 if ringing else person.after_s)
        await asyncio.sleep(BRIDGE_LEAD_S)
        application = channel.variables.get("bridge_pre_execute_bleg_app")
        path = channel.variables.get("bridge_pre_execute_bleg_data", "")
        if application == "playback":
            try:
                with wave.open(path) as opened:
                    assert (opened.getnchannels(), opened.getframerate()) == (1, 8000)
                    pcm = opened.readframes(opened.getnframes())
            except OSError:  # "Open failed" in the log; the two are connected
                channel.missing.append(path)
            else:
                await asyncio.sleep(len(pcm) / 16_000)
                if ringing:
                    person.lost += pcm
                else:
                    person.heard += pcm
        else:
            assert application is None, "another application than playback is not played here"
        person.connected.set()

    @staticmethod
    def _set(channel: Channel, argv: list[str]) -> str:
        if not argv:
            return "-ERR No variable name specified!\n"
        channel.variables[argv[0]] = " ".join(argv[1:])
        return "+OK\n"

    @staticmethod
    def _set_multi(channel: Channel, argv: list[str]) -> str:
        """A part without a value unsets its variable, one without a name is an error."""
        counted, said = 0, ""
        for part in separated(" ".join(argv), ";"):
            name, _, value = part.partition("=")
            if not name:
                said += "-ERR No variable specified\n"
                continue
            counted += 1
            if value:
                channel.variables[name] = value
            else:
                channel.variables.pop(name, None)
        return said + ("+OK\n" if counted else "-USAGE: <uuid> <var>=<value>;<var>=<value>...\n")

    def _message(self, uuid: str, headers: Mapping[str, str]) -> str:
        """``sendmsg UUID``: of its commands ``execute`` alone, of the applications ``playback``."""
        channel = self.channels.get(uuid)
        if channel is None:
            return f"-ERR invalid session id [{uuid}]"
        assert headers["call-command"] == "execute" and headers["execute-app-name"] == "playback"
        assert headers["event-lock"] == "true", "else one would begin within the other"
        channel.files.append(_File(headers["execute-app-arg"], lead=0))
        return "+OK"

    @staticmethod
    def _get(channel: Channel, argv: list[str]) -> str:
        return channel.variables.get(argv[0], "_undef_") if argv else "-ERR No variable name specified!\n"

    @staticmethod
    def _broadcast(channel: Channel, argv: list[str]) -> str:
        channel.files.append(_File(argv[0]))
        return "+OK Message Sent\n"

    @staticmethod
    def _break(channel: Channel, argv: list[str]) -> str:
        channel.break_all()
        return ""  # mod_event_socket makes "-ERR no reply" of it


def separated(text: str, delimiter: str) -> list[str]:
    """``switch_separate_string``: parts, quotes and escapes undone."""
    parts, part, quoted, escaped = [], "", False, False
    for char in text:
        if escaped:
            part, escaped = part + char, False
        elif char == "\\":
            escaped = True
        elif char == "'":
            quoted = not quoted
            part += "" if delimiter == " " and not part.startswith("{") else char
        elif char == delimiter and not quoted:
            parts.append(part)
            part = ""
        else:
            part += char
    parts.append(part)
    return [each for each in parts if each]


def originated(url: str) -> tuple[dict[str, str], str]:
    """(variables, endpoint) of ``{a=b,c='d e'}endpoint``."""
    variables: dict[str, str] = {}
    while url.startswith("{"):
        inner, _, url = url[1:].partition("}")
        delimiter = ","
        if inner.startswith("^^"):
            delimiter, inner = inner[2], inner[3:]
        for pair in separated(inner, delimiter):
            name, _, value = pair.partition("=")
            variables[name] = value.strip("'")
    return variables, url


async def _command(reader: asyncio.StreamReader) -> list[str]:
    """The lines of one command, which an empty one ends."""
    lines: list[str] = []
    while True:
        line = (await reader.readuntil(b"\n")).decode().rstrip("\r\n")
        if line:
            lines.append(line)
        elif lines:
            return lines


def _reply(writer: asyncio.StreamWriter, text: str) -> None:
    _write(writer, {"Content-Type": "command/reply", "Reply-Text": text})


def _write(
    writer: asyncio.StreamWriter, headers: Mapping[str, str], body: str = "", *, kind_last: bool = False
) -> None:
    said = dict(headers)
    if body:  # of an event the length comes first
        length = {"Content-Length": str(len(body.encode()))}
        said = length | said if kind_last else said | length
    head = "".join(f"{name}: {value}\n" for name, value in said.items())
    if not writer.is_closing():
        writer.write(f"{head}\n{body}".encode())
