"""`porteiro bench --clock`: how exactly our frames keep to their 20 ms, at the AudioSocket socket.

One call that listens, while the model server replays speech without a pause. The kernel stamps what comes
(SO_TIMESTAMPNS), so that this process may be late itself. Beside it a thread does nothing but sleep from one
20 ms place to the next: how exact that is, is what the machine allows just then.
"""

from __future__ import annotations

import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import numpy as np

from audio.frames import SILENCE
from bench.callers import SO_TIMESTAMPNS, CallLost
from bench.children import Child
from bench.run import machine
from bridge.endpoints.audiosocket_frames import encode_audio, encode_uuid

FRAME_S: Final = 0.02
NEAR_S: Final = 0.005
"""As far as a frame may be from its place on the grid."""
BEGINS_S: Final = 20.0
"""How long we wait for the first sound."""
SETTLED_S: Final = 1.0
"""Of the speech, before the measured time begins."""
READ_S: Final = 2.0
"""A call of which nothing is read for so long is lost."""
SECONDS: Final = (2.0, 500.0)

_HEADER_BYTES: Final = 3
_AUDIO: Final = 0x10


@dataclass(frozen=True, slots=True)
class Grid:
    """How well times fit the 20 ms grid that fits them best.

    Attributes:
        count: how many there are.
        near: the share of those within 5 ms of their place.
        worst_ms: the furthest from it.
    """

    count: int
    near: float
    worst_ms: float


def on_grid(times: Sequence[float]) -> Grid:
    """Lay the grid through times (seconds), the n-th of which belongs to its n-th place.

    Raises:
        ValueError: there are none.
    """
    if not times:
        raise ValueError("found no times to lay a grid through")
    off = np.asarray(times) - np.arange(len(times)) * FRAME_S
    off = off - np.median(off)
    return Grid(len(times), float(np.mean(np.abs(off) <= NEAR_S)), float(np.abs(off).max() * 1000))


def stamped(source: socket.socket) -> None:
    """Have the kernel say when what is read from a socket came."""
    source.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)


def receive(source: socket.socket, size: int, to_monotonic: float) -> tuple[bytes, float]:
    """Exactly so many bytes, and when the kernel got the last of them; fewer at the end of the stream.

    Args:
        source: one that is :func:`stamped`.
        to_monotonic: what to add to the kernel's time of day.

    Raises:
        OSError: the connection is lost, or nothing came in its time.
    """
    data, at = b"", 0.0
    while len(data) < size:
        piece, extra, _, _ = source.recvmsg(size - len(data), 64)
        if not piece:
            break
        data += piece
        at = time.monotonic()
        for level, kind, content in extra:
            if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
                seconds, nanoseconds = struct.unpack("@ll", content[:16])
                at = seconds + nanoseconds / 1e9 + to_monotonic
    return data, at


def yardstick(ticks: list[float], over: threading.Event) -> None:
    """Wake every 20 ms by absolute deadlines, and note when."""
    due = time.monotonic()
    while not over.wait(max(0.0, due - time.monotonic())):
        ticks.append(time.monotonic())
        due += FRAME_S


def measure_clock(seconds: float, tell: Callable[[str], None]) -> dict[str, Any]:
    """Measure so many seconds of speech. `tell` is told, in words, what goes on.

    Raises:
        ValueError: `seconds` is not allowed.
        ChildError: a process did not do its part.
        CallLost: the service ended the call, or said nothing.
    """
    least, most = SECONDS
    if not least <= seconds <= most:
        raise ValueError(f"seconds: found {seconds:g}; allowed are {least:g} to {most:g}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="porteiro-bench-")))
        tell("starting the service and the replaying model server …")
        speaks = {"greeting_s": seconds + 2 * SETTLED_S}
        model = stack.enter_context(Child("bench.model_process", speaks, folder / "model.log"))
        asked = {"folder": str(folder), "calls": 1, "seconds": seconds, "record": False}
        asked["model_url"] = model.ready()["url"]
        service = stack.enter_context(Child("bench.service_process", asked, folder / "service.log"))
        port = service.ready()["port"]
        tell(f"listening for {seconds:g} s …")
        frames, ticks = _listen(port, seconds)
    began = next(at for at, audible in frames if audible) + SETTLED_S
    within = [(at, audible) for at, audible in frames if began <= at < began + seconds]
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "seconds": seconds,
        "spoken_share": round(sum(audible for _, audible in within) / len(within), 3),
        "socket": asdict(on_grid([at for at, _ in within])),
        "sleeper": asdict(on_grid([at for at in ticks if began <= at < began + seconds])),
    }


def _listen(port: int, seconds: float) -> tuple[list[tuple[float, bool]], list[float]]:
    """One call: each frame's time and whether it sounds; and the sleeping thread's times."""
    ticks: list[float] = []
    over = threading.Event()
    with socket.create_connection(("127.0.0.1", port), READ_S) as call:
        call.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stamped(call)
        call.sendall(encode_uuid(uuid4()))
        threads = [
            threading.Thread(target=yardstick, args=(ticks, over)),
            threading.Thread(target=_be_silent, args=(call, over)),
        ]
        for thread in threads:
            thread.start()
        try:
            return _frames(call, seconds), ticks
        except OSError as error:
            raise CallLost(f"the call was lost: {error}") from error
        finally:
            over.set()
            for thread in threads:
                thread.join()


def _frames(call: socket.socket, seconds: float) -> list[tuple[float, bool]]:
    to_monotonic = time.monotonic() - time.time()
    frames: list[tuple[float, bool]] = []
    end = time.monotonic() + BEGINS_S
    begun = False
    while not frames or frames[-1][0] < end:
        header, _ = receive(call, _HEADER_BYTES, to_monotonic)
        size = int.from_bytes(header[1:], "big")
        body, at = receive(call, size, to_monotonic)
        if len(header) < _HEADER_BYTES or len(body) < size:
            raise CallLost("the service ended the call")
        if header[0] != _AUDIO:
            continue
        audible = body != SILENCE
        if audible and not begun:
            begun, end = True, at + SETTLED_S + seconds
        frames.append((at, audible))
    if not begun:
        raise CallLost(f"no sound of the greeting within {BEGINS_S:g} s")
    return frames


def _be_silent(call: socket.socket, over: threading.Event) -> None:
    """What a caller sends who says nothing."""
    frame, due = encode_audio(SILENCE), time.monotonic()
    while not over.wait(max(0.0, due - time.monotonic())):
        try:
            call.sendall(frame)
        except OSError:
            return  # whoever reads finds the end of the call, and says so
        due += FRAME_S


__all__ = ["CallLost", "Grid", "measure_clock", "on_grid", "receive", "stamped", "yardstick"]
