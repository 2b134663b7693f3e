"""FreeSWITCH, as far as a script in mod_lua sees it: one call, its variables, its commands and its events.

From switch_cpp.h and freeswitch_lua.cpp (the methods that there are, and no other), mod_curl.c,
switch_utils.c (how a command line is parted) and the modules' own commands. What FreeSWITCH would refuse is
refused, and what would be read otherwise than it was meant is kept, so that a test sees it.

A script blocks, so it runs in a thread of its own. Its clock is real or, where no service is asked, its own.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from lupa import lua52, lua53, lua54
from websockets.exceptions import InvalidStatus

from tests.simulators.audio_stream import Kind, Refused, Started, Stream, start

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "freeswitch" / "scripts" / "porteiro.lua"
RUNTIMES: Mapping[str, Any] = {"5.2": lua52, "5.3": lua53, "5.4": lua54}
"""FreeSWITCH brings 5.2; distributions build it with a later one."""
MOST_WORDS = 10
"""`argv[10]` of mod_curl and mod_audio_fork."""
STREAM_WORDS = 6
"""`argv[6]` of mod_audio_stream."""
MAX_BYTES = 64_000
"""Of an answer (`HTTP_DEFAULT_MAX_BYTES`)."""

UNESCAPED = {"n": "\n", "r": "\r", "t": "\t", "s": " "}


class Misused(Exception):
    """The script did what the real thing has not, or would crash at."""


def separated(text: str, most: int) -> list[str]:
    """``switch_separate_string(text, ' ', …)``: the last word has the rest of the line."""
    words: list[str] = []
    at, end = 0, len(text)
    while at < end and len(words) < most:
        while at < end and text[at] == " ":
            at += 1
        if words and at == end:
            break
        begin, quoted = at, False
        while at < end and len(words) < most - 1:
            if text[at] == "\\":
                at += 1
            elif text[at] == "'":
                quoted = not quoted
            elif text[at] == " " and not quoted:
                break
            at += 1
        if len(words) == most - 1:
            at = end
        words.append(_cleaned(text[begin:at]))
        at += 1
    return words


def _cleaned(word: str) -> str:
    """``cleanup_separated_string``: without quotes, escapes and blanks around."""
    kept, solid, quoted, at = "", 0, False, 0
    while at < len(word):
        char, after = word[at], word[at + 1 : at + 2]
        if char == "\\" and after and (after in "'\"\\" or after in UNESCAPED):
            kept += UNESCAPED.get(after, after)
            solid, at = len(kept), at + 1
        elif char == "'" and (quoted or "'" in word[at + 1 :]):
            quoted = not quoted
            solid = len(kept) if quoted else solid
        else:
            kept += char
            solid = len(kept) if char != " " or quoted else solid
        at += 1
    return kept[:solid]


@dataclass(frozen=True)
class Event:
    """One event of a module's."""

    subclass: str
    uuid: str
    body: str

    def header(self, name: str) -> str | None:
        return {"Event-Name": "CUSTOM", "Event-Subclass": self.subclass, "Unique-ID": self.uuid}.get(name)


class EventConsumer:
    """The events that were asked for, of all calls."""

    def __init__(self) -> None:
        self.subclasses: set[str] = set()
        self.waiting: deque[Event] = deque()

    def bind(self, name: str, subclass: str = "") -> int:
        if name != "CUSTOM" or not subclass:
            raise Misused(f"bind({name!r}, {subclass!r})")
        self.subclasses.add(subclass)
        return 1

    def pop(self, block: int = 0, timeout: int = 0) -> Event | None:
        if block:
            raise Misused("who blocks here hears nothing of the caller meanwhile")
        return self.waiting.popleft() if self.waiting else None


class Call:
    """One channel; :meth:`lua` is the script's `session`."""

    METHODS = (
        "answer",
        "execute",
        "getVariable",
        "get_uuid",
        "hangup",
        "ready",
        "setAutoHangup",
        "setInputCallback",
        "setVariable",
        "sleep",
        "transfer",
        "unsetInputCallback",
    )

    def __init__(self, switch: Switch, **variables: str) -> None:
        self.switch = switch
        self.uuid = str(uuid4())
        self.variables = {"direction": "inbound", "context": "default"} | variables
        self.answered = False
        self.ringing = False
        self.cause = ""
        """Why it was hung up."""
        self.gone_to: tuple[str, str, str] | None = None
        """(extension, dialplan, context) that it was transferred to."""
        self.keys: deque[str] = deque()
        self.auto_hangup = True
        self.callback = ""
        self.heard_s = 0.0
        """For how long the caller was listened to."""
        self.stream: Stream | None = None
        self.texts: list[str] = []
        """What `send_text` was given."""
        self.running = ""
        """The module that streams."""
        self.started: tuple[str, ...] = ()
        """The words of the last `start`."""

    def is_ready(self) -> bool:
        return not self.cause and self.gone_to is None

    def hang_up(self, cause: str = "NORMAL_CLEARING") -> None:
        if self.is_ready():
            self.cause = cause

    # ---- What the script calls -------------------------------------------------------------------------

    def get_uuid(self) -> str:
        return self.uuid

    def getVariable(self, name: str) -> str | None:
        return self.variables.get(name)

    def setVariable(self, name: str, value: str) -> None:
        if not isinstance(value, str):
            raise Misused(f"setVariable({name!r}, {value!r})")
        self.variables[name] = value

    def setAutoHangup(self, value: bool) -> int:
        self.auto_hangup = value
        return 0

    def setInputCallback(self, name: str, _: str) -> None:
        if self.switch.lua.globals()[name] is None:
            raise Misused(f"{name} is no global: mod_lua does not find it")
        self.callback = name

    def unsetInputCallback(self) -> None:
        self.callback = ""

    def ready(self) -> bool:
        return self.is_ready()

    def answer(self) -> int:
        self.answered = self.is_ready()
        return int(self.answered)

    def hangup(self, cause: str = "NORMAL_CLEARING") -> None:
        self.hang_up(cause)

    def transfer(self, extension: str, dialplan: str, context: str) -> int:
        if not re.fullmatch(r"[^\s'$]+", extension) or not context or dialplan != "XML":
            raise Misused(f"transfer({extension!r}, {dialplan!r}, {context!r})")
        if self.running:
            raise Misused("the other side would be streamed as well")
        if self.is_ready():
            self.gone_to = (extension, dialplan, context)
        return 1

    def execute(self, application: str, data: str = "") -> None:
        # Here FreeSWITCH puts variables in and runs ${commands()}: nothing of a caller's may come along.
        if application != "ring_ready" or data:
            raise Misused(f"execute({application!r}, {data!r})")
        self.ringing = True

    def sleep(self, ms: int, sync: int = 0) -> int:
        if not self.answered:
            raise Misused("sleep() before the answer hears nobody")
        self.switch.wait(ms / 1000, self)
        return 1

    def press_what_waits(self) -> None:
        while self.keys and self.callback:
            digit = self.keys.popleft()
            pressed = self.switch.lua.table_from({"digit": digit, "duration": 2000})
            said = self.switch.lua.globals()[self.callback](None, "dtmf", pressed)
            if said not in (None, "", "true", "undefined"):
                raise Misused(f"the callback says {said!r}, which ends the sleep")

    def lua(self) -> Any:
        """The object `session`: other methods than these are not there."""
        made = self.switch.lua.table()
        for name in self.METHODS:
            made[name] = _method(self.switch, getattr(self, name))
        return made


def _method(switch: Switch, function: Callable[..., Any]) -> Callable[..., Any]:
    """A method of an object: Lua gives the object first, and the script may catch what is raised."""

    def method(_: Any, *given: Any) -> Any:
        try:
            return function(*given)
        except (Misused, TypeError) as problem:
            switch.misuses.append(problem)
            raise

    return method


class Switch:
    """One FreeSWITCH with one call in a script.

    Args:
        modules: that are loaded.
        variables: global ones.
        loop: of the service under test; None: the clock is the script's own, and `answers` and `at` say what
            happens.
        kind: how the stream's module plays.
    """

    def __init__(
        self,
        *,
        version: str = "5.2",
        modules: tuple[str, ...] = ("mod_curl", "mod_audio_stream"),
        variables: Mapping[str, str] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        kind: Kind = "base64",
    ) -> None:
        self.lua = RUNTIMES[version].LuaRuntime(encoding="latin-1", register_eval=False)
        self.modules = set(modules)
        self.variables = dict(variables or {})
        self.kind: Kind = kind
        self.loop = loop
        self.misuses: list[Exception] = []
        self.consumers: list[EventConsumer] = []
        self.commands: list[tuple[str, str]] = []
        """(command, its line) of each that was given."""
        self.log: list[tuple[str, str]] = []
        self.answers: dict[str, str | Callable[[str], str]] = {}
        """What mod_curl gets, by the beginning of a URL's path; without an entry: nothing."""
        self.at: list[tuple[float, Callable[[Call], None]]] = []
        """What happens, in seconds after the stream's start."""
        self.requests: list[tuple[str, dict[str, str]]] = []
        """(URL, headers) of each request."""
        self.now = 1000.0
        self.call: Call | None = None
        self._began: float | None = None

    # ---- Time ------------------------------------------------------------------------------------------

    def wait(self, seconds: float, call: Call) -> None:
        call.heard_s += seconds
        if self.loop is not None:
            until = time.monotonic() + seconds
            while call.is_ready() and time.monotonic() < until:
                time.sleep(0.02)
                call.press_what_waits()
            return
        self.now += seconds
        while self._began is not None and self.at and self.at[0][0] <= self.now - self._began:
            self.at.pop(0)[1](call)
        call.press_what_waits()
        if self.now > 5000:
            raise Misused("the script never ends")

    # ---- Events ----------------------------------------------------------------------------------------

    def fire(self, subclass: str, uuid: str, body: str = "") -> None:
        for consumer in self.consumers:
            if subclass in consumer.subclasses:
                consumer.waiting.append(Event(subclass, uuid, body))

    # ---- Commands --------------------------------------------------------------------------------------

    def execute(self, command: str, line: str = "") -> str:
        """``freeswitch.API():execute``: no variable is put in here."""
        if re.search(r"[\x00-\x1f\x7f]", line):
            raise Misused(f"{command} {line!r}")
        self.commands.append((command, line))
        if command == "curl" and "mod_curl" in self.modules:
            return self._curl(line)
        if command == "uuid_audio_stream" and "mod_audio_stream" in self.modules:
            return self._stream("mod_audio_stream", separated(line, STREAM_WORDS))
        if command == "uuid_audio_fork" and "mod_audio_fork" in self.modules:
            return self._stream("mod_audio_fork", separated(line, MOST_WORDS))
        if command == "module_exists":
            return "true" if line in self.modules else "false"
        return f"-ERR {command} Command not found!\n"

    def _curl(self, line: str) -> str:
        """mod_curl's ``curl_function``; words that it does not know it passes over."""
        words = separated(line, MOST_WORDS)
        url, rest, headers, limits = words[0], words[1:], {}, {}
        while rest:
            word = rest.pop(0)
            if word in ("connect-timeout", "timeout", "append_headers") and rest:
                value = rest.pop(0)
                if word == "append_headers":
                    name, _, said = value.partition(": ")
                    headers[name] = said
                else:
                    limits[word] = int(value)
            elif word not in ("secure", "get"):
                raise Misused(f"mod_curl passes over {word!r}")
        if set(limits) != {"connect-timeout", "timeout"} or not all(
            0 < each <= 5 for each in limits.values()
        ):
            raise Misused("a service that hangs would hold the caller for minutes")
        self.requests.append((url, headers))
        if self.loop is None:
            path = re.sub(r"^https?://[^/]+", "", url)
            answer = next((one for begin, one in self.answers.items() if path.startswith(begin)), "")
            said = answer(url) if callable(answer) else answer
            return said.encode().decode("latin-1")
        request = urllib.request.Request(url, headers={"User-Agent": "freeswitch-curl/1.0", **headers})
        try:
            with urllib.request.urlopen(request, timeout=limits["timeout"]) as answer:
                body: bytes = answer.read(MAX_BYTES)
        except urllib.error.HTTPError as error:
            body = error.read(MAX_BYTES)
        except OSError:
            body = b""
        return body.decode("latin-1")

    def _stream(self, module: str, words: list[str]) -> str:
        call = self.call
        assert call is not None
        if len(words) < 2 or (words[1] == "start" and len(words) < 4):
            return "-USAGE: …\n"
        if words[0] != call.uuid:
            return "-ERR Operation Failed\n"
        if words[1] == "stop":
            if not call.running:
                return "-ERR Operation Failed\n"
            call.running = ""
            self._end(call)
            return "+OK Success\n"
        if words[1] == "send_text":
            if not call.running or len(words) != 3:
                return "-ERR Operation Failed\n"
            call.texts.append(words[2])
            if call.stream is not None and self.loop is not None:
                asyncio.run_coroutine_threadsafe(call.stream.send_text(words[2]), self.loop).result(5)
            return "+OK Success\n"
        return self._start(call, module, words)

    def _start(self, call: Call, module: str, words: list[str]) -> str:
        is_fork = module == "mod_audio_fork"
        if words[1] != "start" or call.running:
            return "-ERR Operation Failed\n"
        metadata = words[6] if is_fork and len(words) > 6 else words[5] if len(words) > 5 else ""
        if is_fork and words[7:] != ["true", "true", words[9] if len(words) > 9 else ""]:
            raise Misused(f"mod_audio_fork would play nothing: {words}")
        rate = {"8k": 8000, "16k": 16000}.get(words[4], 0)
        url = words[2]
        if not re.match(r"wss?://[A-Za-z0-9.-]+(:\d*)?(/|$)", url):  # validate_ws_uri
            return "-ERR Operation Failed\n"
        started = Started(url, metadata, words[3], rate, int(call.variables.get("STREAM_BUFFER_SIZE", "20")))
        try:
            started.check()
        except Refused:
            return "-ERR Operation Failed\n"
        json.loads(metadata)
        call.started, call.running = tuple(words), module
        self._began = self.now
        if self.loop is not None:
            asyncio.run_coroutine_threadsafe(self._streams(call, module, started), self.loop)
        return "+OK Success\n"

    async def _streams(self, call: Call, module: str, started: Started) -> None:
        try:
            call.stream = await start(self.kind, started)
        except (OSError, InvalidStatus) as error:
            failed = "connect_failed" if module == "mod_audio_fork" else "error"
            self.fire(
                f"{module}::{failed}", call.uuid, json.dumps({"status": "error", "message": str(error)})
            )
            return
        self.fire(f"{module}::connect", call.uuid, '{"status":"connected"}')
        await call.stream.connection.wait_closed()
        code, reason = call.stream.closed
        body = {"status": "disconnected", "message": {"code": code or 1006, "reason": reason}}
        self.fire(f"{module}::disconnect", call.uuid, "" if module == "mod_audio_fork" else json.dumps(body))

    def _end(self, call: Call) -> None:
        if call.stream is not None and self.loop is not None:
            asyncio.run_coroutine_threadsafe(call.stream.end(), self.loop).result(5)

    # ---- The script ------------------------------------------------------------------------------------

    def run(self, call: Call, script: Path = SCRIPT) -> None:
        """Run the script for a call, to its end.

        Raises:
            Misused: it did what it may not.
        """
        self.call = call
        lua = self.lua
        freeswitch = lua.table()
        freeswitch["consoleLog"] = self._console_log
        freeswitch["getGlobalVariable"] = self.variables.get
        freeswitch["API"] = lambda: self._object({"execute": self.execute})
        freeswitch["EventConsumer"] = self._consumer
        names = lua.globals()
        names["freeswitch"], names["session"] = freeswitch, call.lua()
        names["os"]["exit"] = None
        if self.loop is None:
            names["os"]["time"] = lambda: int(self.now)
        lua.execute(script.read_text(encoding="utf-8"))
        if self.misuses:
            raise self.misuses[0]
        if wrong := [text for _, text in self.log if "attempt to" in text]:
            raise Misused(wrong[0])
        if call.is_ready() and call.auto_hangup:
            call.hang_up()
        if call.running:
            call.running = ""
            self._end(call)

    def _object(self, methods: Mapping[str, Callable[..., Any]]) -> Any:
        made = self.lua.table()
        for name, function in methods.items():
            made[name] = _method(self, function)
        return made

    def _consumer(self, name: str, subclass: str) -> Any:
        consumer = EventConsumer()
        self.consumers.append(consumer)
        consumer.bind(name, subclass)

        def pop(block: int = 0, timeout: int = 0) -> Any:
            event = consumer.pop(block, timeout)
            if event is None:
                return None
            return self._object({"getHeader": event.header, "getBody": lambda: event.body or None})

        return self._object({"bind": consumer.bind, "pop": pop})

    def _console_log(self, level: str, text: str) -> None:
        if "%" in text or not text.endswith("\n") or text.count("\n") != 1:
            raise Misused(f"old versions print {text!r} as a format")
        self.log.append((level, text.strip()))
