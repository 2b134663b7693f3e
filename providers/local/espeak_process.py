"""espeak-ng in a process of its own: native code that crashes there costs one sentence's time, and no call.

The process is started at the first sentence, started again when it died or did not answer in time, and ends
by itself when ours does: its requests end then.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import structlog

from providers.local.espeak import ANSWER, OK, EspeakError

_ATTEMPTS = 3
"""A sentence that kills the process each time is refused; the next one finds a new process."""
_STOP_S = 2.0

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class _Died(Exception):
    """The process ended or did not answer in time."""


class EspeakProcess:
    """espeak-ng's voice; may be used from several threads, which wait for each other.

    ``deadline_s`` holds for one answer. Use :func:`espeak`: one process serves everybody.
    """

    def __init__(
        self, voice: str = "pt-br", *, deadline_s: float = 10.0, command: list[str] | None = None
    ) -> None:
        self._deadline_s = deadline_s
        self._command = command or [sys.executable, "-m", "providers.local.espeak", voice]
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._rate = 0

    @property
    def rate(self) -> int:
        """Samples per second of what :meth:`synthesize` gives.

        Raises:
            EspeakError: espeak-ng can't be loaded, or died each time.
        """
        if not self._rate:
            with self._lock:
                self._tried(self._started, "its start")
        return self._rate

    def synthesize(self, text: str, speed: float = 1.0) -> bytes:
        """The text as s16 mono at :attr:`rate`. Blocking, some milliseconds a sentence.

        Raises:
            EspeakError: the library refused, the text is too long, or the process died each time.
        """
        return self._ask({"say": text, "speed": speed})

    def phonemes(self, text: str) -> str:
        """How the text will be pronounced, in IPA. Raises as :meth:`synthesize` does."""
        return self._ask({"phonemes": text}).decode()

    def close(self) -> None:
        """End the process. Another call starts it again."""
        with self._lock:
            self._stop()

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        return self._process.pid if self._process else None

    def _ask(self, request: dict[str, Any]) -> bytes:
        line = json.dumps(request).encode() + b"\n"

        def asked() -> bytes:
            process = self._started()
            self._write(process, line)
            return self._read(process)

        with self._lock:
            return self._tried(asked, f"one text of {len(line)} bytes")

    def _tried(self, work: Callable[[], T], what: str) -> T:
        """Have something done, each time it died by a new process."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return work()
            except _Died as error:
                self._stop()
                _log.warning("espeak.died", reason=str(error), attempt=attempt, attempts=_ATTEMPTS)
        raise EspeakError(f"espeak-ng died {_ATTEMPTS} times at {what}")

    # ------------------------------------------------------------------------------------ the process

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
            )
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                os.set_blocking(pipe.fileno(), False)
            try:
                self._rate = int(self._read(self._process))
            except EspeakError:
                self._stop()
                raise
        return self._process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
        try:
            code = process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if code:
            _log.warning("espeak.ended", code=code)

    def _write(self, process: subprocess.Popen[bytes], data: bytes) -> None:
        assert process.stdin is not None
        end = time.monotonic() + self._deadline_s
        while data:
            self._wait(process.stdin.fileno(), select.POLLOUT, end)
            try:
                data = data[os.write(process.stdin.fileno(), data) :]
            except BrokenPipeError as error:
                raise _Died("it ended before it was asked") from error

    def _read(self, process: subprocess.Popen[bytes]) -> bytes:
        """One answer. Raises :class:`_Died`, and :class:`EspeakError` for a refusal."""
        end = time.monotonic() + self._deadline_s
        kind, size = ANSWER.unpack(self._bytes(process, ANSWER.size, end))
        content = self._bytes(process, size, end)
        if kind != OK:
            raise EspeakError(content.decode())
        return content

    def _bytes(self, process: subprocess.Popen[bytes], count: int, end: float) -> bytes:
        assert process.stdout is not None
        parts = bytearray()
        while len(parts) < count:
            self._wait(process.stdout.fileno(), select.POLLIN, end)
            if not (part := os.read(process.stdout.fileno(), count - len(parts))):
                raise _Died("it ended before it had answered")
            parts += part
        return bytes(parts)

    def _wait(self, pipe: int, event: int, end: float) -> None:
        poll = select.poll()
        poll.register(pipe, event)
        if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
            raise _Died(f"it did not answer within {self._deadline_s:g} s")


_SHARED = EspeakProcess()


def espeak() -> EspeakProcess:
    """The one that all of this process share."""
    return _SHARED
