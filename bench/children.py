"""How the benchmark's processes talk: a line of JSON each way, over standard input and output.

A child prints one line when it is ready, answers each line with one, and ends when its input is closed.
"""

from __future__ import annotations

import asyncio
import gc
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

START_S = 60.0
"""Loading everything that the service needs may take so long on a busy machine."""
ANSWER_S = 60.0
STOP_S = 20.0

Answer = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class ChildError(RuntimeError):
    """A process of the benchmark did not do its part; the text says which, and what its log said last."""


class Child:
    """A process, for the one that started it. A context: it is ended on the way out."""

    def __init__(
        self, module: str, arguments: Mapping[str, Any], log: Path, command: Sequence[str | Path] = ()
    ) -> None:
        """
        Args:
            module: of ours, that is run; or a name for `command`.
            arguments: its one argument, as JSON.
            log: where its standard error goes.
            command: run instead of a module of ours.
        """
        self.name = module
        self._log = log
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                [*(command or (sys.executable, "-m", module)), orjson.dumps(arguments).decode()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
            )
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close its input, which ends it; where it does not, kill it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def ready(self) -> Any:
        """What it said when it was ready.

        Raises:
            ChildError: it ended, or took too long.
        """
        return self._line(START_S)

    def tell(self, command: Mapping[str, Any]) -> None:
        """Send a command; its answer is for :meth:`heard`, whenever there is time to wait for it.

        Raises:
            ChildError: it is gone.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(orjson.dumps(command) + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._trouble(f"takes no commands ({error})") from error

    def heard(self) -> Any:
        """The answer to the oldest command that was not yet asked for.

        Raises:
            ChildError: it ended, or took too long.
        """
        return self._line(ANSWER_S)

    def _line(self, timeout_s: float) -> Any:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        until = time.monotonic() + timeout_s
        pieces = [self._rest]
        while b"\n" not in pieces[-1]:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise self._trouble(f"gave no answer in {timeout_s:g} s")
            piece = os.read(descriptor, 1 << 20)
            if not piece:
                raise self._trouble("ended")
            pieces.append(piece)
        line, _, self._rest = b"".join(pieces).partition(b"\n")
        return orjson.loads(line)

    def _trouble(self, what: str) -> ChildError:
        return ChildError(f"{self.name} {what}{self.last_words()}")

    def last_words(self) -> str:
        """The end of its log, for an error's text."""
        last = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-8:]
        return "\n".join(["; its log ends with:", *last])


async def serve_parent(answer: Answer) -> None:
    """In the child: answer what the parent asks, until it closes our input."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()
    rest = b""

    def read() -> None:
        nonlocal rest
        piece = os.read(descriptor, 1 << 16)
        if not piece:
            loop.remove_reader(descriptor)
            over.set()
            return
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            say(answer(orjson.loads(line)))

    loop.add_reader(descriptor, read)
    await over.wait()


def without_garbage() -> None:
    """Have the collector pass over all that has been loaded: searched for nothing, in long runs."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 50)


def say(what: Mapping[str, Any]) -> None:
    """In the child: one line to the parent."""
    sys.stdout.buffer.write(orjson.dumps(what) + b"\n")
    sys.stdout.buffer.flush()


__all__ = ["Child", "ChildError", "say", "serve_parent", "without_garbage"]
