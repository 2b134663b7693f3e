"""A real PostgreSQL of the tests' own, with its own port and data; one that the machine may have is let be.

It does not run as root, which PostgreSQL refuses: then it is Debian's user `postgres`.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg

from storage.postgresql_schema import upgrade
from tests.machine import package_manager
from tests.ports import free_port

START_S = 60.0
TEMPLATE = "porteiro_template"

IN_HASTE = ("fsync=off", "synchronous_commit=on", "full_page_writes=off")
"""What loses data at a power cut, and nothing when a process is killed."""


class NoPostgres(Exception):
    """PostgreSQL is not installed and can't be."""


def programs() -> Path | None:
    """Where the newest PostgreSQL's programs are."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: int(file.parts[-3]))
    if found:
        return found[-1].parent
    known = shutil.which("initdb")
    return Path(known).resolve().parent if known else None


def install() -> Path:
    """Where PostgreSQL's programs are; Debian's is installed where there are none and we are root."""
    if (bin_ := programs()) is not None:
        return bin_
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NoPostgres("PostgreSQL is missing: apt-get install postgresql")
    # RUNLEVEL: the package would start a server of the machine's own.
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    with package_manager():
        for arguments in (["update"], ["install", "--yes", "--no-install-recommends", "postgresql"]):
            done = subprocess.run(
                ["apt-get", "--quiet", *arguments], env=quiet, capture_output=True, text=True, timeout=300
            )
            if done.returncode:
                raise NoPostgres(f"apt-get {arguments[0]}: {done.stderr[-500:]}")
    if (bin_ := programs()) is None:
        raise NoPostgres("Debian's postgresql has no initdb")
    return bin_


class Postgres:
    """One server; it can be stopped, killed and started again with what it kept."""

    def __init__(self, settings: tuple[str, ...] = IN_HASTE) -> None:
        self._bin = install()
        self.port = free_port()
        # Not in pytest's directory, which its owner alone may enter.
        self._directory = Path(tempfile.mkdtemp(prefix="porteiro-pg-"))
        self._user = self._who()
        if self._user is not None:
            shutil.chown(self._directory, self._user, pwd.getpwnam(self._user).pw_gid)
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._names = itertools.count(1)
        self._run(
            "initdb", "-D", "data", "-U", "porteiro", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"
        )

    @staticmethod
    def _who() -> str | None:
        return "postgres" if os.geteuid() == 0 else None

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._bin / program), *arguments],
            cwd=self._directory,
            user=self._user,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def url(self, database: str) -> str:
        """A database, as the settings have it."""
        return f"postgresql://porteiro@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        options = [
            "listen_addresses=127.0.0.1",
            f"port={self.port}",
            f"unix_socket_directories={self._directory}",
            "max_connections=60",
            "shared_buffers=32MB",
            "autovacuum=off",
            *self._settings,
        ]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._bin / "postgres"), "-D", "data", *(f"--{option}" for option in options)],
                cwd=self._directory,
                user=self._user,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until = time.monotonic() + START_S
        while not self._answers():
            if time.monotonic() > until or self._process.poll() is not None:
                raise AssertionError(
                    f"PostgreSQL does not start: {(self._directory / 'log').read_text()[-2000:]}"
                )
            time.sleep(0.05)

    def _answers(self) -> bool:
        where = ["-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return (
            subprocess.run([str(self._bin / "pg_isready"), *where], timeout=10, check=False).returncode == 0
        )

    def kill(self) -> None:
        """End all of it at once; what is on its disk stays."""
        self._end(signal.SIGQUIT)

    def freeze(self) -> None:
        """It says nothing any more, and lets nobody go."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """The end of :meth:`freeze`."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, how: signal.Signals) -> None:
        # Each server process leads a session of its own: the group of the first one is not enough.
        assert self._process is not None
        parent = self._process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        for pid in (parent, *map(int, children)):
            os.kill(pid, how)

    def stop(self) -> None:
        """End it in order, and remove its data."""
        if self._process is not None:
            self._end(signal.SIGINT)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for last in (how, signal.SIGQUIT, signal.SIGKILL):
            if process.poll() is None:
                process.send_signal(last)
            try:
                process.wait(20)
                return
            except subprocess.TimeoutExpired:
                continue

    async def make_template(self) -> None:
        """A database of the newest schema, for :meth:`make`."""
        await self._admin(f"CREATE DATABASE {TEMPLATE}")
        connection = await asyncpg.connect(self.url(TEMPLATE))
        try:
            await upgrade(connection, TEMPLATE)
        finally:
            await connection.close()

    async def make(self, template: str = TEMPLATE) -> str:
        """The URL of a new database."""
        name = f"test_{next(self._names)}_{uuid4().hex[:6]}"
        await self._admin(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    async def _admin(self, sql: str) -> Any:
        connection = await asyncpg.connect(self.url("postgres"))
        try:
            return await connection.execute(sql)
        finally:
            await connection.close()
