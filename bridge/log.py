"""The log: structured lines on standard error, without names or words of callers, that never hold up a call.

Use::

    log = get_logger("leg")
    with bound(tenant="jardim", visit=visit_id, leg="visitor"):
        log.info("leg_started", peer="10.0.0.7")

An event is a fixed word of the code; what varies goes into keys. Which keys may not be written stands in
:data:`FORBIDDEN`: who visits whom, and what is said, belong into the audit log, which has an owner and a
retention, and not into a file that is shipped to wherever logs go.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import threading
import traceback
from collections import deque
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Literal, TextIO

import orjson
import structlog
from structlog.contextvars import bound_contextvars, merge_contextvars
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from bridge.masking import masked

FORBIDDEN = frozenset(
    {
        # people
        "name", "names", "visitor", "visitor_name", "caller_name", "resident", "residents", "resident_name",
        "company", "title", "phone", "voip_number", "extension",
        # what is said and asked
        "text", "texts", "transcript", "transcripts", "sentence", "words", "speech", "question", "reply",
        "briefing", "greeting", "goodbye", "prompt", "instructions", "heard_text",
        # what tools are given and give back
        "arguments", "args", "kwargs", "result", "results", "payload", "body", "content",
        # secrets
        "token", "access_token", "password", "passwd", "api_key", "apikey", "secret", "authorization",
        "cookie", "headers", "environ",
    }
)  # fmt: skip
FORBIDDEN_ENDINGS = ("_name", "_text", "_transcript", "_token", "_password", "_secret", "_api_key", "_words")
ALLOWED = frozenset({"task_name", "logger_name"})
"""End like a forbidden key, and hold nothing personal."""
REMOVED = "[removed]"

MAX_QUEUED = 10_000
"""Lines that wait for a slow reader; beyond them new ones are dropped and counted."""
MAX_FOREIGN = 300
"""Characters of a library's own message."""
CLOSE_S = 2.0

_FIRST = ("timestamp", "level", "event", "worker", "tenant", "visit", "leg", "room")
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_MESSAGE_IS_SAFE = ("websockets", "httpx2", "sqlite3", "ssl", "bridge.settings_problems")
"""Modules whose exceptions' messages speak of connections and files, never of people."""


def get_logger(room: str) -> FilteringBoundLogger:
    """A logger; ``room`` says which part of the program writes."""
    logger: FilteringBoundLogger = structlog.get_logger(room=room)
    return logger


def bound(**ids: str) -> AbstractContextManager[None]:
    """Put ids (`tenant`, `visit`, `leg`) on every line of this task and of the tasks that it starts."""
    return bound_contextvars(**ids)


# --------------------------------------------------------------------------------------------------------
# What is written
# --------------------------------------------------------------------------------------------------------


def remove_forbidden(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Put REMOVED in the place of each forbidden key's value, however deep."""
    return {key: _cleaned(key, value) for key, value in event.items()}


def _cleaned(key: str, value: Any) -> Any:
    lower = key.lower()
    if lower not in ALLOWED and (lower in FORBIDDEN or lower.endswith(FORBIDDEN_ENDINGS)):
        return REMOVED
    if isinstance(value, Mapping):
        return {str(inner): _cleaned(str(inner), below) for inner, below in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_cleaned("", below) for below in value]
    return value


def mask_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Take secrets out of what is logged: a library's message may quote a URL with all that is in it."""
    return {key: masked(value) if isinstance(value, str) else value for key, value in event.items()}


def render_exception(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace `exc_info` by the exception's type and its way through the code.

    Its message is kept only where it can't quote a caller: a KeyError names the key that was looked up.
    """
    info = event.pop("exc_info", None)
    if not info:
        return event
    if isinstance(info, BaseException):
        error: BaseException | None = info
    elif isinstance(info, tuple):
        error = info[1]
    else:
        error = sys.exc_info()[1]
    if error is not None:
        event["exception"] = describe(error)
    return event


def describe(error: BaseException) -> str:
    """An exception in one line: type, message where that is safe, frames, causes."""
    parts = []
    seen: set[int] = set()
    here: BaseException | None = error
    while here is not None and id(here) not in seen:
        seen.add(id(here))
        parts.append(_one_exception(here))
        here = here.__cause__ or (None if here.__suppress_context__ else here.__context__)
    return " <- ".join(parts)


def _one_exception(error: BaseException) -> str:
    kind = type(error)
    said = ""
    if isinstance(error, BaseExceptionGroup):
        said = " (" + "; ".join(_one_exception(inner) for inner in error.exceptions) + ")"
    elif isinstance(error, OSError) or kind.__module__.startswith(_MESSAGE_IS_SAFE):
        said = f": {' '.join(str(error).split())[:MAX_FOREIGN]}"
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    way = " > ".join(f"{_short(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames)
    return f"{kind.__qualname__}{said}" + (f" [{way}]" if way else "")


def _short(filename: str) -> str:
    return "/".join(filename.rsplit("/", 2)[-2:])


def in_order(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """The same keys in the same place on each line."""
    return {
        key: event[key]
        for key in (*(k for k in _FIRST if k in event), *(k for k in event if k not in _FIRST))
    }


def _of_worker(worker: int) -> Processor:
    def add(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {"worker": worker, **event}

    return add


def to_json(_: WrappedLogger, __: str, event: EventDict) -> str:
    """One line of JSON, whatever the values are."""
    try:
        return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
    except orjson.JSONEncodeError:  # a lone surrogate, a number beyond 64 bits
        return json.dumps(event, default=repr)


# --------------------------------------------------------------------------------------------------------
# How it gets out
# --------------------------------------------------------------------------------------------------------


class Writer:
    """Writes lines to a stream from a thread of its own; a stream that stalls costs lines, never time."""

    def __init__(self, stream: TextIO, max_queued: int = MAX_QUEUED) -> None:
        self._stream = stream
        self._file = _file_of(stream)
        self._max = max_queued
        self._lines: deque[str] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._unreported = 0
        self.dropped = 0
        """Lines that were never written, since the start."""
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def msg(self, line: str) -> None:
        """Queue one line; returns at once, always."""
        with self._changed:
            if self._closing or len(self._lines) >= self._max:
                self.dropped += 1
                self._unreported += 1
                return
            self._lines.append(line)
            self._changed.notify()

    # structlog calls the method that is named after the level.
    debug = info = warning = error = critical = log = msg

    def close(self) -> bool:
        """Write what is queued, for at most two seconds. True where all of it went out."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(CLOSE_S)
        return not self._thread.is_alive() and not self._lines

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._lines and not self._unreported and not self._closing:
                    self._changed.wait()
                batch, self._lines = list(self._lines), deque()
                lost, self._unreported = self._unreported, 0
                closing = self._closing
            if lost:
                batch.append(
                    orjson.dumps({"level": "warning", "event": "log_lines_dropped", "count": lost}).decode()
                )
            if batch:
                self._write(batch)
            if closing:
                return

    def _write(self, batch: list[str]) -> None:
        try:
            if self._file is None:
                self._stream.write("\n".join(batch) + "\n")
                self._stream.flush()
            else:
                # One by one: other processes may write to the same pipe, which keeps a short line together.
                for line in batch:
                    _write_all(self._file, f"{line}\n".encode("utf-8", "backslashreplace"))
        except (OSError, ValueError):  # the reader is gone, or the stream was closed
            with self._changed:
                self.dropped += len(batch)


def _file_of(stream: TextIO) -> int | None:
    """The descriptor below a stream; None where there is none.

    It is written to directly: a thread that hangs in a buffered stream holds that stream's lock, and Python
    aborts when it can't flush standard error at its end.
    """
    try:
        return stream.fileno()
    except (OSError, ValueError):  # in memory, or closed
        return None


def _write_all(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(file, rest) :]
        except BlockingIOError:  # somebody made the terminal or the pipe non-blocking
            select.select([], [file], [])


class _Foreign(logging.Handler):
    """Takes what libraries log through the standard library into our log."""

    def __init__(self, processors: list[Processor], writer: Writer) -> None:
        super().__init__(logging.WARNING)
        self._processors = processors
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            said = record.getMessage()
        except (TypeError, ValueError):
            said = str(record.msg)
        # The first line only: below it asyncio writes an exception's repr, which may quote anything.
        event: Any = {
            "event": said.partition("\n")[0][:MAX_FOREIGN],
            "level": record.levelname.lower(),
            "room": record.name,
            "exc_info": record.exc_info,
        }
        for processor in self._processors:
            event = processor(None, record.levelname.lower(), event)
        self._writer.msg(event)


class Logging:
    """A configured log; closing it writes what is left and hands standard logging back."""

    def __init__(self, writer: Writer, handler: logging.Handler) -> None:
        self._writer = writer
        self._handler = handler

    @property
    def dropped(self) -> int:
        """Lines that were lost to a slow or closed reader."""
        return self._writer.dropped

    def close(self) -> bool:
        """Write what is queued, for at most two seconds. True where nothing was left."""
        logging.getLogger().removeHandler(self._handler)
        logging.captureWarnings(False)
        structlog.reset_defaults()
        return self._writer.close()

    def __enter__(self) -> Logging:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, way: TracebackType | None
    ) -> None:
        self.close()


def configure(
    form: Literal["auto", "json", "pretty"] = "auto",
    level: Literal["debug", "info", "warning", "error"] = "info",
    stream: TextIO | None = None,
    worker: int | None = None,
) -> Logging:
    """Set the log up for this process, once at its start; the settings' `service.log` has the arguments.

    Args:
        worker: which one this process is, for each of its lines; None: it is none.
    """
    out = sys.stderr if stream is None else stream
    pretty = form == "pretty" or (form == "auto" and out.isatty())
    render: Processor = structlog.dev.ConsoleRenderer(colors=out.isatty()) if pretty else to_json
    writer = Writer(out)
    finish: list[Processor] = [
        *([] if worker is None else [_of_worker(worker)]),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        render_exception,
        remove_forbidden,
        mask_secrets,
        in_order,
        render,
    ]
    structlog.configure(
        processors=[merge_contextvars, structlog.processors.add_log_level, *finish],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=False,
    )
    handler = _Foreign([merge_contextvars, *finish], writer)
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    return Logging(writer, handler)
