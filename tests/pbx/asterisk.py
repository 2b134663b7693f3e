"""One real Asterisk with the project's own example configuration, on loopback and on free ports."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self

from tests.pbx.installation import Installation
from tests.ports import free_port

EXAMPLES = Path(__file__).resolve().parents[2] / "asterisk"
HOST = "127.0.0.1"

START_S = 60.0
STOP_S = 15.0
COMMAND_S = 20.0

RTP_PORTS = 120
"""Two a call leg. Below the kernel's own ephemeral ports, so that nobody is given one meanwhile."""
RTP_FROM, RTP_TO = 11_000, 32_000

PREFIX = "porteiro-pbx-"
"""Of a run's folder; the test run's process id follows."""

PATIENTLY = 0.05
"""How often Asterisk is asked for something that is awaited."""


class AsteriskError(RuntimeError):
    """Asterisk did not start, or did not do as told; the text says what it said."""


@dataclass(frozen=True, slots=True)
class Channel:
    """A line of `core show channels concise`."""

    name: str
    context: str
    extension: str
    state: str
    application: str
    data: str


@dataclass(slots=True)
class Ports:
    """Free ports of this run."""

    sip: int
    http: int
    ami: int
    rtp: int
    """The first of `RTP_PORTS`."""


def free_range(count: int) -> int:
    """The first of so many free UDP ports in a row; even, as RTP wants it."""
    for _ in range(100):
        first = random.randrange(RTP_FROM, RTP_TO - count, 2)
        probes: list[socket.socket] = []
        try:
            for port in range(first, first + count):
                probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                probes.append(probe)
                probe.bind((HOST, port))
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
        return first
    raise AsteriskError(f"found no {count} free UDP ports in a row between {RTP_FROM} and {RTP_TO}")


@dataclass(slots=True)
class Asterisk:
    """A running Asterisk. A context: started on entry; on exit stopped by process id, its files removed.

    Args:
        installation: which Asterisk.
        settings: the dialplan's global variables in place of the example's.
        keep: where its configuration and logs are put when `failed` was set.
        site: text by file name, read behind the examples as a site's own configuration is.
        examples: the configuration to run with.
    """

    installation: Installation
    settings: Mapping[str, str] = field(default_factory=dict)
    keep: Path | None = None
    site: Mapping[str, str] = field(default_factory=dict)
    examples: Path = EXAMPLES
    failed: bool = False
    ports: Ports = field(init=False)
    home: Path = field(init=False)
    _process: subprocess.Popen[bytes] | None = field(init=False, default=None)
    _log: IO[bytes] | None = field(init=False, default=None)

    def __enter__(self) -> Self:
        """Start it, and wait until it is fully booted.

        Raises:
            AsteriskError: it did not.
        """
        self.ports = Ports(free_port(socket.SOCK_DGRAM), free_port(), free_port(), free_range(RTP_PORTS))
        temporary = self.installation.root / "tmp"
        _remove_abandoned(temporary)
        self.home = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=temporary))
        try:
            self._configure()
            self._start()
        except BaseException:
            self.failed = True
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it, whatever it is doing."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.failed = True
                self._process.kill()
                self._process.wait(STOP_S)
            self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None
        if self.failed and self.keep is not None:
            shutil.copytree(
                self.home,
                self.keep / self.home.name,
                ignore=lambda folder, names: [n for n in names if (Path(folder) / n).is_socket()],
            )
        shutil.rmtree(self.home)

    # ---- Start -----------------------------------------------------------------------------------------

    def _configure(self) -> None:
        """The examples as they are; what is this site's own in `site/`."""
        etc = self.home / "etc"
        (etc / "site").mkdir(parents=True)
        for example in self.examples.glob("*.conf"):
            shutil.copy(example, etc)
        for folder in ("run", "log", "spool", "db", "agi", "keys"):
            (self.home / folder).mkdir()
        ports = self.ports
        site = {
            "pjsip.conf": f"[udp](+)\nbind = {HOST}:{ports.sip}\n",
            "http.conf": f"[general](+)\nbindport = {ports.http}\n",
            "manager.conf": f"[general](+)\nport = {ports.ami}\n",
            "rtp.conf": f"[general]\nrtpstart = {ports.rtp}\nrtpend = {ports.rtp + RTP_PORTS - 1}\n",
            "extensions.conf": "[globals](+)\n" + "".join(f"{k}={v}\n" for k, v in self.settings.items()),
        }
        for name in site.keys() | self.site.keys():
            (etc / "site" / name).write_text(site.get(name, "") + self.site.get(name, ""))
        (etc / "logger.conf").write_text(
            "[general]\n[logfiles]\nfull = notice,warning,error,verbose(4),debug(0)\n"
        )
        (etc / "asterisk.conf").write_text(self._asterisk_conf())

    def _asterisk_conf(self) -> str:
        inside = self.installation.inside(self.home)
        modules = next(self.installation.root.glob("usr/lib/*/asterisk/modules"), None) or next(
            self.installation.root.glob("usr/lib/asterisk/modules"), None
        )
        lines = ["[directories]", f"astetcdir => {inside}/etc"]
        if modules is not None:
            lines.append(f"astmoddir => {self.installation.inside(modules)}")
        if (self.installation.root / "usr/share/asterisk").is_dir():
            lines.append("astdatadir => /usr/share/asterisk")
        for name, folder in (
            ("astvarlibdir", "db"),
            ("astdbdir", "db"),
            ("astkeydir", "keys"),
            ("astagidir", "agi"),
            ("astspooldir", "spool"),
            ("astrundir", "run"),
            ("astlogdir", "log"),
        ):
            lines.append(f"{name} => {inside}/{folder}")
        return "\n".join([*lines, "", "[options]", "verbose = 4", "nocolor = yes", ""])

    def _start(self) -> None:
        self._log = (self.home / "log" / "console").open("wb")
        command = self.installation.command("asterisk", "-C", self._conf, "-f")
        # pdeathsig: a test run that is killed takes its Asterisk with it.
        if shutil.which("setpriv"):
            command = ["setpriv", "--pdeathsig", "KILL", *command]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True
        )
        try:
            self.command("core waitfullybooted", timeout_s=START_S, attempts=200)
        except AsteriskError as error:
            raise AsteriskError(f"{error}\n{self.log()[-3000:]}") from error

    @property
    def _conf(self) -> str:
        return f"{self.installation.inside(self.home)}/etc/asterisk.conf"

    # ---- Use -------------------------------------------------------------------------------------------

    @property
    def sip(self) -> tuple[str, int]:
        """Where phones register."""
        return HOST, self.ports.sip

    @property
    def ari_url(self) -> str:
        """Where its REST interface is."""
        return f"http://{HOST}:{self.ports.http}/ari"

    def log(self) -> str:
        """All that it has logged."""
        paths = (self.home / "log" / name for name in ("console", "full"))
        return "\n".join(path.read_text(errors="replace") for path in paths if path.exists())

    def command(self, text: str, *, timeout_s: float = COMMAND_S, attempts: int = 1) -> str:
        """What its command line answers. Blocks; `ask` does not.

        Args:
            attempts: how often to try to reach it, every 50 ms.

        Raises:
            AsteriskError: it can't be reached.
        """
        command = self.installation.command("asterisk", "-C", self._conf, "-rx", text)
        for attempt in range(attempts):
            if self._process is None or self._process.poll() is not None:
                raise AsteriskError(f"Asterisk is not running; asked for {text!r}")
            try:
                done = subprocess.run(
                    command,
                    capture_output=True,
                    text=True,
                    timeout=timeout_s,
                    check=False,
                    stdin=subprocess.DEVNULL,
                )
            except subprocess.TimeoutExpired as error:
                raise AsteriskError(f"Asterisk did not answer {text!r} in {timeout_s:g} s") from error
            if done.returncode == 0:
                return done.stdout
            if attempt < attempts - 1:
                time.sleep(PATIENTLY)
        raise AsteriskError(f"Asterisk did not answer {text!r}: {done.stdout}{done.stderr}")

    async def ask(self, text: str) -> str:
        """What its command line answers."""
        return await asyncio.to_thread(self.command, text)

    async def channels(self) -> Sequence[Channel]:
        """Every channel that it has."""
        found = []
        for line in (await self.ask("core show channels concise")).splitlines():
            if line.count("!") < 6:
                continue
            name, context, extension, _, state, application, data = line.split("!")[:7]
            found.append(Channel(name, context, extension, state, application, data))
        return found

    async def quiet(self, timeout_s: float = 5.0) -> Sequence[Channel]:
        """The channels that it still has after having been given so long to have none."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while (left := await self.channels()) and loop.time() < end:
            await asyncio.sleep(PATIENTLY)
        return left

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid


def _remove_abandoned(temporary: Path) -> None:
    """What test runs that were killed have left; their Asterisk died with them."""
    for folder in temporary.glob(f"{PREFIX}*-*"):
        owner = folder.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdigit() and not alive(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
