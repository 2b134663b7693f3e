"""Ours and a peer under the same load, one after the other: CPU time for each second of each call.

The same: the machine, the callers and what they say, the model server, the run, and the measured window; and
what both do with a call: silero VAD, 8 kHz resampled to the model's 24 kHz and back, an OpenAI realtime
session for each call, barge-in. What is not the same is said in `bench.peers.pipecat_process` and
docs/benchmarks.md.
"""

from __future__ import annotations

import hashlib
import importlib
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from audio.frames import SILENCE
from bench import figures, media, run
from bench.callers import Callers, CallLost, Manner
from bench.children import Child

PEERS: Final = ("pipecat",)
HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent.parent
REQUIREMENTS: Final = HERE / "requirements.txt"
INSTALL_S: Final = 900.0

Tell = Callable[[str], None]


class PeerError(RuntimeError):
    """The peer can't be installed; the text says what was tried."""


class WebSocketWire:
    """8 kHz PCM in binary messages of 20 ms, over a WebSocket."""

    def __init__(self) -> None:
        self._protocol = ClientProtocol(parse_uri("ws://127.0.0.1/"), max_size=None)

    def open(self, connection: socket.socket, call_id: UUID) -> None:
        """The handshake. The peer knows no calls by name: `call_id` is left out.

        Raises:
            CallLost: it was refused.
        """
        self._protocol.send_request(self._protocol.connect())
        connection.sendall(b"".join(self._protocol.data_to_send()))
        while True:
            data = connection.recv(1 << 16)
            if not data:
                raise CallLost("the peer closed the connection in the handshake")
            self._protocol.receive_data(data)
            if any(isinstance(event, Response) for event in self._protocol.events_received()):
                break
        if isinstance(self._protocol.handshake_exc, InvalidHandshake):
            raise CallLost(f"the peer refused the handshake: {self._protocol.handshake_exc}")

    def encoded(self, pcm: bytes) -> bytes:
        """A binary message."""
        self._protocol.send_binary(pcm)
        return b"".join(self._protocol.data_to_send())

    def sounds(self, data: bytes) -> list[bool]:
        """Of each binary message.

        Raises:
            CallLost: the peer hung up.
        """
        self._protocol.receive_data(data)
        frames = [event for event in self._protocol.events_received() if isinstance(event, Frame)]
        if any(frame.opcode is Opcode.CLOSE for frame in frames):
            raise CallLost("the peer hung up")
        return [bytes(frame.data) != SILENCE for frame in frames if frame.opcode is Opcode.BINARY]


def installed(folder: Path, tell: Tell) -> Path:
    """The Python of the peer's own virtual environment in `folder`, which is made where it is not there yet.

    Raises:
        PeerError: it can't be made.
    """
    digest = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    python, stamp = folder / "bin" / "python", folder / "installed"
    if stamp.is_file() and stamp.read_text(encoding="ascii") == digest:
        return python
    try:
        # By name: an installed package has no `setup`, and only this command needs it.
        bootstrap: Any = importlib.import_module("setup.bootstrap")
    except ImportError as error:
        raise PeerError(
            "peers are installed from a checkout of the project, by its setup/bootstrap.py"
        ) from error
    tell(f"installing {folder.name} into {folder} …")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with redirect_stdout(sys.stderr):
            uv = bootstrap.find_uv(ROOT / ".cache" / "uv")
            environment = bootstrap.uv_environment() | {"UV_DEFAULT_INDEX": bootstrap.index_url()}
        for command in (
            ["venv", "--quiet", "--python", sys.executable, str(folder)],
            ["pip", "install", "--quiet", "--python", str(python), "--requirements", str(REQUIREMENTS)],
        ):
            done = subprocess.run(
                [uv, *command], env=environment, capture_output=True, text=True, timeout=INSTALL_S
            )
            if done.returncode:
                raise PeerError(f"`uv {command[0]}` failed for {folder.name}: {done.stderr.strip()[-2000:]}")
    except (bootstrap.SetupError, OSError, subprocess.TimeoutExpired) as error:
        raise PeerError(f"{folder.name} could not be installed: {error}") from error
    stamp.write_text(digest, encoding="ascii")
    return python


def compare(peer: str, calls: Sequence[int], seconds: float, talk: float, tell: Tell) -> dict[str, Any]:
    """For each number of calls: ours, then the peer.

    Raises:
        ValueError: a peer or a number of calls that there is not.
        PeerError: the peer can't be installed.
        ChildError: a process did not do its part.
        CallLost: a call ended, or was not taken.
    """
    if peer not in PEERS:
        raise ValueError(f"peer: found {peer!r}; allowed are {', '.join(PEERS)}")
    plans = [run.Plan(count, seconds, talk) for count in calls]
    python = installed(ROOT / ".cache" / "peers" / peer, tell)
    rows = []
    for plan in plans:
        tell(f"{plan.calls} calls, ours …")
        ours = run.measure(plan, tell)
        tell(f"{plan.calls} calls, {peer} …")
        theirs = measure(peer, python, plan)
        rows.append(
            {
                "calls": plan.calls,
                "ours": {"cpu": ours["cpu"], "spoken_share": ours["spoken_share"]},
                "theirs": theirs,
                "ratio": round(theirs["cpu"]["ms_per_call_second"] / ours["cpu"]["ms_per_call_second"], 2),
            }
        )
    return {"machine": run.machine(), "peer": peer, "seconds": seconds, "rows": rows}


def measure(peer: str, python: Path, plan: run.Plan) -> dict[str, Any]:
    """The peer under `plan`, as `bench.run.measure` does it with ours."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="porteiro-bench-")))
        model = stack.enter_context(Child("bench.model_process", {}, folder / "model.log"))
        url = model.ready()["url"].replace("http://", "ws://") + "/realtime?model=bench"
        script = HERE / f"{peer}_process.py"
        service = stack.enter_context(
            Child(peer, {"model_url": url}, folder / "peer.log", command=(python, script))
        )
        port = service.ready()["port"]
        stack.enter_context(run.explained(service))
        run.try_out(port, WebSocketWire)
        callers = stack.enter_context(Callers(port, Manner(plan.talk), WebSocketWire))
        for _ in range(plan.calls):
            callers.call(uuid4())
        window = figures.Window(*run.window(plan.seconds))
        for name, at in (("start", window.start), ("end", window.end)):
            service.tell({"snapshot": name, "at": at})
        callers.go_on(window.end + run.COOL_DOWN_S)
        service.tell({"report": True})
        model.tell({})
        for _ in ("start", "end"):
            service.heard()
        taken = service.heard()["snapshots"]
        sessions = model.heard()["sessions"][1:]
        return _figures(plan, window, callers, taken, sessions)


def _figures(
    plan: run.Plan,
    window: figures.Window,
    callers: Callers,
    taken: dict[str, Any],
    sessions: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """What it cost, and what shows that it worked: sound that reached the model, replies that were heard."""
    logs = [caller.log for caller in callers.callers]
    sound = [
        (max(appended) - min(appended)) / media.MODEL_RATE
        for session in sessions
        if (appended := _appended(session, window))
    ]
    heard = sum(
        audible for log in logs for at, audible in zip(log.arrived, log.audible, strict=True) if at in window
    )
    return {
        "cpu": figures.cpu(taken["start"], taken["end"], plan.calls * plan.seconds),
        "spoken_share": figures.spoken_share(logs, window),
        "heard_share": round(heard / (len(logs) * plan.seconds * 50), 3),
        "sound_share_to_model": round(sum(sound) / (len(logs) * plan.seconds), 3),
        "replies": sum(at in window for session in sessions for at, _, _ in session["replies"]),
    }


def _appended(session: dict[str, Any], window: figures.Window) -> list[int]:
    """The model server's counts of samples within the window."""
    times, samples = session["append_times"], session["append_samples"]
    return [count for at, count in zip(times, samples, strict=True) if at in window]


__all__ = ["PEERS", "PeerError", "WebSocketWire", "compare", "installed", "measure"]
