"""`porteiro bench --peer`: what of it needs no peer. The peer itself is installed by the command alone."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from websockets.sync.server import Server, ServerConnection, serve

from audio.frames import SILENCE
from bench.callers import CallLost
from bench.peers import measure
from bridge.cli import main

LOUD = b"\x10\x27" * 160


@pytest.fixture
def server() -> Iterator[Server]:
    """A real WebSocket server, of the library that the peers use too: it says each message again, twice."""

    def handle(connection: ServerConnection) -> None:
        for message in connection:
            assert isinstance(message, bytes)
            if message == SILENCE:
                connection.close()
                return
            connection.send(message)
            connection.send(message)

    with serve(handle, "127.0.0.1", 0) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def connected(server: Server) -> socket.socket:
    return socket.create_connection(server.socket.getsockname(), 5.0)


def test_a_call_over_a_websocket_gets_its_sound_back(server: Server) -> None:
    wire = measure.WebSocketWire()
    with connected(server) as connection:
        wire.open(connection, uuid4())
        connection.sendall(wire.encoded(LOUD) + wire.encoded(LOUD))
        heard: list[bool] = []
        while len(heard) < 4:
            data = connection.recv(7)  # in pieces that end anywhere
            assert data
            heard += wire.sounds(data)
    assert heard == [True] * 4


def test_a_peer_that_hangs_up_has_lost_the_call(server: Server) -> None:
    wire = measure.WebSocketWire()
    with connected(server) as connection:
        wire.open(connection, uuid4())
        connection.sendall(wire.encoded(SILENCE))
        goodbye = connection.recv(1 << 16)
        with pytest.raises(CallLost, match="hung up"):
            wire.sounds(goodbye)


def test_a_peer_that_is_no_websocket_server_has_lost_the_call() -> None:
    ours, other = socket.socketpair()
    with ours, other:
        other.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        with pytest.raises(CallLost, match="403"):
            measure.WebSocketWire().open(ours, uuid4())


# -- installing --------------------------------------------------------------------------------------------


def uv(folder: Path, monkeypatch: pytest.MonkeyPatch, pip: int) -> Path:
    """Something that can be run as uv, and notes what it was asked."""
    script = folder / "uv"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {folder}/asked\n'
        '[ "$1" = --version ] && echo uv 0.13.8 && exit 0\n'
        f'[ "$1" = venv ] && mkdir -p {folder}/peer && exit 0\n'
        f'[ "$1" = pip ] && echo "no such version" >&2 && exit {pip}\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("UV", str(script))
    return folder / "asked"


def test_a_peer_is_installed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = uv(tmp_path, monkeypatch, pip=0)
    told: list[str] = []
    first = measure.installed(tmp_path / "peer", told.append)
    before = asked.read_text()
    assert "venv" in before and "pip install" in before and "requirements.txt" in before
    assert measure.installed(tmp_path / "peer", told.append) == first == tmp_path / "peer" / "bin" / "python"
    assert asked.read_text() == before
    assert len(told) == 1


def test_a_peer_that_cant_be_installed_is_said_and_tried_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = uv(tmp_path, monkeypatch, pip=2)
    for attempts in (1, 2):
        with pytest.raises(measure.PeerError, match="no such version"):
            measure.installed(tmp_path / "peer", lambda _: None)
        assert asked.read_text().count("pip install") == attempts


def test_without_uv_the_reason_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV", str(tmp_path / "none"))
    with pytest.raises(measure.PeerError, match="can't be run"):
        measure.installed(tmp_path / "peer", lambda _: None)


def test_every_version_is_pinned_and_no_index_is_named() -> None:
    lines = [
        line for line in measure.REQUIREMENTS.read_text(encoding="utf-8").splitlines() if line[:1] != "#"
    ]
    assert any(line.startswith("pipecat-ai==") for line in lines)
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+", line) for line in lines)


# -- the command -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (("--calls", "1,5"), "found 2 numbers; allowed is one, and several with --peer"),
        (("--peer", "pipecat", "--calls", "1,0"), "calls: found 0; allowed are 1 to 1000"),
    ],
)
def test_calls_that_cant_be_are_refused(
    given: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *given]) == 1
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("given", [("--calls", "a"), ("--calls", "1,"), ("--peer", "nobody")])
def test_what_is_no_number_and_no_peer_is_refused(
    given: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["bench", *given])
    assert given[1] in capsys.readouterr().err
