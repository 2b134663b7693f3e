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
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", "rabbitmq-server"]):
        done = subprocess.run(
            ["apt-get", "--quiet", *arguments], env=quiet, capture_output=True, text=True, timeout=300
        )
        if done.returncode:
            raise NoRabbit(f"apt-get {arguments[0]}: {done.stderr[-500:]}")


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
"""Class and method of basic.publish, as they begin a method frame's payload."""


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

    def _due(self, data: bytes) -> bool:
        before = self.messages
        self.messages += data.count(PUBLISH)
        return before < self.cut_after <= self.messages

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, down: bool) -> None:
        try:
            while data := await source.read(65536):
                cut = not down and self._due(data)
                if cut:
                    self.lets_back.clear()
                if down:
                    await self.lets_back.wait()
                sink.write(data)
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
