"""An Asterisk to run: the one on the PATH if it is recent enough, else Debian sid's in a root of its own.

The root is built once, with debootstrap, in the project's `.cache/pbx/`, and reused by every later run. That
takes a minute or two, needs root (debootstrap and chroot do), and downloads some 100 MB from the mirror that
the machine itself is configured for.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.machine import package_manager

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "pbx"
LEAST = (22, 7)
"""Since 22.7 AudioSocket says which rate it streams."""

SUITE = "sid"
PACKAGES = ("asterisk", "asterisk-modules", "asterisk-core-sounds-en")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
ANY_MIRROR = "http://deb.debian.org/debian"
"""For machines that are not Debian, whose own mirror has no Debian."""

BUILD_S = 900.0
VERSION_S = 20.0


class NoAsterisk(RuntimeError):
    """There is none, and none could be installed; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Installation:
    """An Asterisk that can be run.

    Attributes:
        root: what it sees as `/`: the machine's own, or a root of its own.
        version: as `asterisk -V` says it.
    """

    root: Path
    version: str

    def command(self, *arguments: str) -> list[str]:
        """A command line that runs inside the root, with a /proc of its own mount namespace where that is
        not the machine's: the mount is gone with the process, however it ends."""
        if self.root == Path("/"):
            return list(arguments)
        inside = f'mount --bind /proc "{self.root}/proc" && exec chroot "{self.root}" "$@"'
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", inside, "sh", *arguments]

    def inside(self, path: Path) -> str:
        """A path of this machine, as this Asterisk names it."""
        return "/" + str(path.relative_to(self.root))


def find() -> Installation:
    """The Asterisk to test with; builds it where there is none.

    Raises:
        NoAsterisk: it can't be had here.
    """
    if (own := shutil.which("asterisk")) and _number(text := _version([own])) >= LEAST:
        return Installation(Path("/"), text)
    root = CACHE / f"{SUITE}-root"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:  # two test runs at once build it once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "usr/sbin/asterisk").exists():
            _need_root()
            _build(root)
    _need_root()
    found = Installation(root, "")
    text = _version(found.command("asterisk"))
    if _number(text) < LEAST:
        raise NoAsterisk(f"found {text!r} in {root}; at least {_dotted(LEAST)} is needed: remove that folder")
    return Installation(root, text)


def _version(command: Sequence[str]) -> str:
    done = subprocess.run([*command, "-V"], capture_output=True, text=True, timeout=VERSION_S, check=False)
    return done.stdout.strip()


def _number(text: str) -> tuple[int, int]:
    found = re.search(r"Asterisk (?:certified/)?(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _dotted(number: tuple[int, int]) -> str:
    return ".".join(map(str, number))


def _need_root() -> None:
    if os.geteuid() != 0:
        raise NoAsterisk(
            f"no asterisk {_dotted(LEAST)} or later is on the PATH, and running Debian's in a root of "
            f"its own needs root: install one, or run these tests as root once ({CACHE} keeps it)"
        )


# --------------------------------------------------------------------------------------------------------
# Building the root
# --------------------------------------------------------------------------------------------------------


def _build(root: Path) -> None:
    """Build it beside, and put it in its place when it is whole."""
    _need_debootstrap()
    unfinished = root.with_name(root.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    if KEYRING.exists():
        command.append(f"--keyring={KEYRING}")
    command += [SUITE, str(unfinished), mirror()]
    _run(command, "debootstrap.log")
    shutil.rmtree(unfinished / "var/cache/apt/archives", ignore_errors=True)
    shutil.rmtree(root, ignore_errors=True)
    unfinished.rename(root)


def _need_debootstrap() -> None:
    if shutil.which("debootstrap"):
        return
    if not shutil.which("apt-get"):
        raise NoAsterisk("no asterisk is on the PATH, and without apt-get debootstrap can't be installed")
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with package_manager():
        _run(["apt-get", "update"], "apt.log", environ)
        _run(["apt-get", "install", "-y", "--no-install-recommends", "debootstrap"], "apt.log", environ)


def _run(command: Sequence[str], log: str, environ: dict[str, str] | None = None) -> None:
    path = CACHE / log
    with path.open("w") as out:
        try:
            subprocess.run(
                command,
                check=True,
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                timeout=BUILD_S,
                env=environ,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise NoAsterisk(f"{' '.join(command)}: {error}; its output is in {path}") from error


def mirror(etc: Path = Path("/etc")) -> str:
    """The Debian mirror that the machine's apt is configured for; `ANY_MIRROR` on other systems."""
    for uri, suites in _sources(etc / "apt"):
        debian = not any(word in uri for word in ("ubuntu", "security"))
        if debian and any(
            re.match(r"(bookworm|trixie|forky|sid|(old)?stable|testing|unstable)$", s) for s in suites
        ):
            return uri.rstrip("/")
    return ANY_MIRROR


def _sources(apt: Path) -> Iterator[tuple[str, list[str]]]:
    """Address and suites of each configured source of packages, in either of apt's formats."""
    files = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
    for file in (each for each in files if each.is_file()):
        text = file.read_text(errors="replace")
        if file.suffix == ".sources":
            yield from _deb822(text)
        elif file.suffix == ".list":
            yield from _one_line(text)


def _one_line(text: str) -> Iterator[tuple[str, list[str]]]:
    """`deb [options] URI SUITE COMPONENT …`"""
    for line in text.splitlines():
        found = re.match(r"\s*deb\s+(?:\[[^\]]*\]\s*)?(https?://\S+)\s+(\S+)\s+(.*)", line)
        if found and "main" in found[3].split("#")[0].split():
            yield found[1], [found[2]]


def _deb822(text: str) -> Iterator[tuple[str, list[str]]]:
    """Stanzas of `Field: value` with continuation lines."""
    for stanza in re.split(r"\n\s*\n", re.sub(r"(?m)^#.*\n?", "", text)):
        fields = {
            name.lower(): value.split()
            for name, value in re.findall(r"(?m)^([A-Za-z-]+):((?:[^\n]*)(?:\n[ \t][^\n]*)*)", stanza)
        }
        usable = fields.get("enabled", ["yes"]) != ["no"] and "deb" in fields.get("types", [])
        if usable and "main" in fields.get("components", []):
            for uri in fields.get("uris", []):
                if uri.startswith(("http://", "https://")):
                    yield uri, fields.get("suites", [])
