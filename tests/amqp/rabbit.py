"""A real RabbitMQ of the tests' own: own ports, node name, port mapper, data and cookie; and a wire to cut.

Nothing of a RabbitMQ that the machine may have is touched. Both processes (the broker and its Erlang port
mapper, which would stay behind otherwise) are stopped by process id.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiormq
from aiormq.abc import AbstractChannel

from tests.machine import package_manager
from tests.ports import free_port

BIN = Path("/usr/lib/rabbitmq/bin")
START_S = 60.0
USER, PASSWORD = "guest", "guest"


class NoRabbit(Exception):
    """RabbitMQ is not installed and can't be."""


def install() -> None:
    """Have Debian's rabbitmq-server, installed without being started where it is missing and we are root."""
    if (BIN / "rabbitmq-server").exists():
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NoRabbit("rabbitmq-server is missing: apt-get install rabbitmq-server")
    # RUNLEVEL: the package would start a broker of the machine's own.
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    with package_manager():
        for arguments in (["update"], ["install", "--yes", "--no-install-recommends", "rabbitmq-server"]):
            done = subprocess.run(
                ["apt-get", "--quiet", *arguments], env=quiet, capture_output=True, text=True, timeout=300
            )
            if done.returncode:
                raise NoRabbit(f"apt-get {arguments[0]}: {done.stderr[-500:]}")


class Rabbit:
    """One broker; it can be stopped and started again with what it kept."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.directory = directory
        self._mapper_port, self._dist_port = free_port(), free_port()
        self._processes: list[subprocess.Popen[bytes]] = []
        home = directory / "home"
        home.mkdir(parents=True)
        (directory / "plugins").write_text("[].\n")
        (directory / "rabbitmq.conf").write_text(
            "loopback_users.guest = true\nlog.file = false\nlog.console = true\nlog.console.level = warning\n"
        )
        (directory / "env.conf").write_text("")
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"porteiro-{uuid4().hex[:8]}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(directory / "env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
            "RABBITMQ_PID_FILE": str(directory / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def url(self, password: str = PASSWORD, port: int | None = None, vhost: str = "%2F") -> str:
        """As a settings' variable would hold it."""
        return f"amqp://{USER}:{password}@127.0.0.1:{port or self.port}/{vhost}"

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        if not self._processes:
            self._processes.append(self._run("epmd", "-port", str(self._mapper_port)))
        self._processes.append(self._run(str(BIN / "rabbitmq-server")))
        until = time.monotonic() + START_S
        while not self._answers():
            if time.monotonic() > until or self._processes[-1].poll() is not None:
                raise AssertionError(
                    f"RabbitMQ does not start: {(self.directory / 'out').read_text()[-2000:]}"
                )
            time.sleep(0.1)

    def _run(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.directory / "out").open("ab") as out:
            return subprocess.Popen(
                command,
                env=self._environ,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _answers(self) -> bool:
        """It speaks AMQP: the port is open before the broker is ready for logins."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                probe.sendall(b"AMQP\x00\x00\x09\x01")
                return probe.recv(1) == b"\x01"
        except OSError:
            return False

    def kill(self) -> None:
        """End it at once, as a power cut would; what it has on its disk stays."""
        self._end(self._processes.pop(), signal.SIGKILL)

    def stop(self) -> None:
        """End everything that was started."""
        while self._processes:
            self._end(self._processes.pop(), signal.SIGTERM)

    @staticmethod
    def _end(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
        # Its own process group holds the shell, the Erlang machine and its helpers, and nothing else.
        for last in (how, signal.SIGKILL):
            if process.poll() is None:
                os.killpg(process.pid, last)
            try:
                process.wait(20)
                break
            except subprocess.TimeoutExpired:
                continue

    def ctl(self, *arguments: str) -> str:
        """rabbitmqctl; takes a second or two."""
        done = subprocess.run(
            [str(BIN / "rabbitmqctl"), *arguments],
            env=self._environ,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[AbstractChannel]:
        """The site's own connection: declares its queues, takes its messages."""
        connection = await aiormq.connect(self.url())
        try:
            yield await connection.channel()
        finally:
            await connection.close()

    async def declare(self, queue: str, **arguments: Any) -> None:
        """A durable, empty queue."""
        async with self.channel() as channel:
            await channel.queue_delete(queue)
            await channel.queue_declare(queue, durable=True, arguments=arguments)

    async def take(self, queue: str, quiet_s: float = 0.3) -> list[dict[str, Any]]:
        """All messages of a queue, once nothing more has come for a while; each with its properties."""
        found: list[dict[str, Any]] = []
        async with self.channel() as channel:
            last = time.monotonic()
            while time.monotonic() - last < quiet_s:
                message = await channel.basic_get(queue, no_ack=True)
                if isinstance(message.delivery, aiormq.spec.Basic.GetOk):
                    found.append({**json.loads(message.body), "_": message.header.properties})
                    last = time.monotonic()
                else:
                    await asyncio.sleep(0.05)
        return found


PUBLISH = bytes((0, 60, 0, 40))
CONFIRM = bytes((0, 60, 0, 80))
CHANNEL_CLOSE = bytes((0, 20, 0, 40))
"""Class and method of basic.publish, basic.ack and channel.close, as they begin a method frame's payload."""

HEADER_BYTES = 7
"""Of an AMQP frame: its type (1: a method), the channel, the payload's length. One byte follows it."""


class Frames:
    """Cuts one direction of a connection into AMQP frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are whole by now; the protocol header that a client begins with counts as one."""
        self._rest += data
        found: list[bytes] = []
        while len(self._rest) > HEADER_BYTES:
            length = 8
            if not self._rest.startswith(b"AMQP"):
                length = HEADER_BYTES + int.from_bytes(self._rest[3:HEADER_BYTES], "big") + 1
            if len(self._rest) < length:
                break
            found.append(self._rest[:length])
            self._rest = self._rest[length:]
        return found


def methods(frames: list[bytes], method: bytes) -> int:
    """How many of the frames are that method's."""
    return sum(frame[0] == 1 and frame[HEADER_BYTES : HEADER_BYTES + 4] == method for frame in frames)


class Middle:
    """Brings a connection to where some messages are confirmed and others only sent, by cause, not by time.

    Args:
        messages: confirmations are withheld until so many messages have gone through to the broker.
        confirmed: so many of them are let back then. The middle is reached when the service has taken note of
            each: it closes the message's channel.
    """

    def __init__(self, messages: int, confirmed: int) -> None:
        self._messages = messages
        self._confirmed = confirmed
        self._sent = self._let_back = self._noted = 0
        self._withheld: list[tuple[asyncio.StreamWriter, bytes]] = []

    def up(self, frames: list[bytes]) -> bool:
        """Count what the service says; True where the middle is reached."""
        self._sent += methods(frames, PUBLISH)
        self._noted += methods(frames, CHANNEL_CLOSE)
        self._release()
        return self._noted >= self._confirmed

    def down(self, frames: list[bytes], sink: asyncio.StreamWriter) -> list[bytes]:
        """What of the broker's frames goes on at once."""
        self._withheld += [(sink, frame) for frame in frames if methods([frame], CONFIRM)]
        self._release()
        return [frame for frame in frames if not methods([frame], CONFIRM)]

    def _release(self) -> None:
        while self._sent >= self._messages and self._withheld and self._let_back < self._confirmed:
            sink, frame = self._withheld.pop(0)
            sink.write(frame)
            self._let_back += 1


class Wire:
    """A TCP connection between the service and the broker that can be cut, or let nothing back."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.port = 0
        self.lets_back = asyncio.Event()
        """Cleared: what the broker says is withheld."""
        self.lets_back.set()
        self.cut_after = 0
        """Cut once so many messages have gone through to the broker, and withhold what it says of them."""
        self.hold = False
        """Withhold only: the connection is not cut then, and stays silent."""
        self.cut_in: Middle | None = None
        """Cut once this middle is reached."""
        self.messages = 0
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Take connections, always on the same port."""
        self._server = await asyncio.start_server(self._join, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Refuse connections, and cut those that there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()
        self.lets_back.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    def cut(self) -> None:
        """Cut what is connected; new connections are taken."""
        for writer in tuple(self._links):
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._links |= {writer, back}
        for source, sink, down in ((reader, back, False), (there, writer, True)):
            task = asyncio.create_task(self._pump(source, sink, down=down))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _due(self, frames: list[bytes]) -> bool:
        before = self.messages
        self.messages += methods(frames, PUBLISH)
        return before < self.cut_after <= self.messages

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, down: bool) -> None:
        cutter = Frames()
        try:
            while data := await source.read(65536):
                frames = cutter.feed(data)
                cut = not down and self._due(frames)
                if cut:
                    self.lets_back.clear()
                if down:
                    await self.lets_back.wait()
                if self.cut_in is not None:
                    if down:
                        frames = self.cut_in.down(frames, sink)
                    elif self.cut_in.up(frames):
                        self.cut_in = None
                        self.cut()
                        return
                sink.write(b"".join(frames))
                await sink.drain()
                if cut and not self.hold:
                    await asyncio.sleep(0.1)
                    self.cut()
                    self.lets_back.set()
        except OSError:
            return
        finally:
            self._links.discard(sink)
            sink.close()
