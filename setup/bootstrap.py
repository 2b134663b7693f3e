"""Set the project up on a machine that has Python and nothing else: uv, `.venv`, the model files.

Standard library only, and readable by old Pythons: it must be able to say "your Python is too old". What it
does, in order, each step only when something changed since the last time:

1. uv: the one on the PATH where its version fits, otherwise the wheel of :data:`UV_VERSION` for this
   platform from the package index, checked against its digest below, unpacked into `.cache/uv/`.
2. `.venv`: `uv sync --locked`, or, where the environment names another package index, the same locked
   versions and digests installed from there.
3. the speech models: `porteiro models fetch`.
"""

from __future__ import annotations

import argparse
import base64
import fcntl
import hashlib
import html.parser
import http.client
import io
import os
import platform
import re
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path
from typing import Dict, List, Optional, Tuple  # noqa: UP035 - old Pythons must get as far as the check

ROOT = Path(__file__).resolve().parent.parent
PYTHON_MIN = (3, 11)
PYTHON_BELOW = (3, 15)
PYTHON_WANTED = ">=3.11,<3.15"

UV_VERSION = "0.13.8"
# The wheels of that version and their SHA-256, from the package index. To move to another version: change
# the version and these lines together (the file names and digests are on the index's page of uv).
UV_WHEELS: Dict[str, Tuple[str, str]] = {  # noqa: UP006
    "linux-x86_64-gnu": (
        "uv-0.13.8-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "e18a57b8b352eb7c8feb317b9f6f533c8f0ad9673fd6cf34bbe3cf1a9f6a8984",
    ),
    "linux-x86_64-musl": (
        "uv-0.13.8-py3-none-musllinux_1_1_x86_64.whl",
        "29451c60f5e8b07403e0a175d5229efc36b0289b34143ff4aaa499a5dd52553a",
    ),
    # One static build serves both C libraries on aarch64.
    "linux-aarch64-gnu": (
        "uv-0.13.8-py3-none-manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64.whl",
        "0b3e8b1a4f5e405e31e2ff33de8af4744831e9f7338539671efbd8c3c94e791d",
    ),
    "linux-aarch64-musl": (
        "uv-0.13.8-py3-none-manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64.whl",
        "0b3e8b1a4f5e405e31e2ff33de8af4744831e9f7338539671efbd8c3c94e791d",
    ),
    "darwin-arm64": (
        "uv-0.13.8-py3-none-macosx_11_0_arm64.whl",
        "62b6943c7fd64fac6854f780bea6e0359e5a5bc3241f83ee357bb38276afac49",
    ),
    "darwin-x86_64": (
        "uv-0.13.8-py3-none-macosx_10_12_x86_64.whl",
        "b7124ca1956ec2e476a1003ea5715a15f0266afaec37f4dc9c6972ba8183e6d1",
    ),
}
DEFAULT_INDEX = "https://pypi.org/simple"
INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
CA_VARIABLES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

READ_TIMEOUT_S = 30.0  # a connection that says nothing for so long is dead
DOWNLOAD_DEADLINE_S = 900.0  # 25 MB in that time: slower than 30 KB/s is not worth waiting for
SYNC_DEADLINE_S = 3600.0
MODELS_DEADLINE_S = 3600.0
ATTEMPTS = 3


class SetupError(Exception):
    """The set-up can't go on; the message says what was tried and what to do."""


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


# --------------------------------------------------------------------------------------------------------
# Which machine is this
# --------------------------------------------------------------------------------------------------------


def platform_key(system: str, machine: str, libc: str) -> str:
    """The key of :data:`UV_WHEELS` for a platform as `platform` names it; SetupError where there is none."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine.lower(), machine.lower())
    if system == "Linux":
        key = f"linux-{machine}-{'gnu' if libc == 'glibc' else 'musl'}"
    elif system == "Darwin":
        key = "darwin-arm64" if machine == "aarch64" else f"darwin-{machine}"
    else:
        key = f"{system.lower()}-{machine}"
    if key not in UV_WHEELS:
        raise SetupError(
            f"no uv is known for this platform ({system} {machine}). Install uv {UV_VERSION} yourself "
            "(https://docs.astral.sh/uv/) so that it is on the PATH, and run this again."
        )
    return key


def fitting_python(version: Tuple[int, ...]) -> bool:  # noqa: UP006
    return PYTHON_MIN <= version[:2] < PYTHON_BELOW


# --------------------------------------------------------------------------------------------------------
# uv
# --------------------------------------------------------------------------------------------------------


def uv_fits(text: str) -> bool:
    """Whether `uv --version` printed a version of our minor series, not older than ours.

    uv may change its lock file and its options with each minor version, so a newer series is not taken.
    """
    found = re.match(r"uv (\d+)\.(\d+)\.(\d+)", text)
    if not found:
        return False
    have = tuple(int(part) for part in found.groups())
    want = tuple(int(part) for part in UV_VERSION.split("."))
    return have[:2] == want[:2] and have >= want


def uv_version(path: str) -> str:
    """What `uv --version` prints; empty where it can't be run."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, cwd=str(ROOT))
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def find_uv(cache: Path) -> str:
    """A uv that fits: the one named by $UV, on the PATH, from an earlier set-up, or downloaded now."""
    named = os.environ.get("UV", "")
    if named:
        version = uv_version(named)
        if not version:
            raise SetupError(f"UV={named} can't be run. Unset it, or name a uv that works.")
        say(f"using {version} ({named}, named by UV)")
        return named
    on_path = shutil.which("uv")
    if on_path:
        version = uv_version(on_path)
        if uv_fits(version):
            say(f"using {version} ({on_path})")
            return on_path
        say(f"the uv on the PATH is not {UV_VERSION} or a later one of its series; using our own")
    own = cache / UV_VERSION / "uv"
    if not uv_fits(uv_version(str(own))):
        fetch_uv(own)
    return str(own)


def fetch_uv(target: Path) -> None:
    """Download the wheel, check its digest, put its binary at ``target`` (whole or not at all)."""
    key = platform_key(platform.system(), platform.machine(), platform.libc_ver()[0])
    name, digest = UV_WHEELS[key]
    wheel = download_wheel(index_url(), "uv", name, digest)
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        member = next((entry for entry in archive.namelist() if entry.endswith("/scripts/uv")), None)
        if member is None:
            raise SetupError(f"{name} holds no uv binary; report this as a bug.")
        binary = archive.read(member)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"uv.{os.getpid()}.partial")
    partial.write_bytes(binary)
    partial.chmod(0o755)
    partial.replace(target)
    if not uv_fits(uv_version(str(target))):
        raise SetupError(f"{target} was installed but does not run on this machine.")
    say(f"uv {UV_VERSION} is in {target.parent.relative_to(ROOT)}")


# --------------------------------------------------------------------------------------------------------
# The package index
# --------------------------------------------------------------------------------------------------------


def index_url() -> str:
    """The simple index to use: what the environment names, otherwise the public one."""
    for name in INDEX_VARIABLES:
        value = os.environ.get(name, "").strip()
        if value:
            # uv's own spelling allows a name in front: `name=https://…`
            value = re.sub(r"^[A-Za-z0-9_-]+=", "", value)
            return value.rstrip("/")
    return DEFAULT_INDEX


def split_credentials(url: str) -> Tuple[str, Optional[str]]:  # noqa: UP006, UP045
    """A URL without its `user:password@`, and the Authorization header that they make (None: none)."""
    parts = urllib.parse.urlsplit(url)
    if parts.username is None:
        return url, None
    user = urllib.parse.unquote(parts.username)
    password = urllib.parse.unquote(parts.password or "")
    host = parts.netloc.rpartition("@")[2]
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    return urllib.parse.urlunsplit(parts._replace(netloc=host)), f"Basic {token}"


class _Links(html.parser.HTMLParser):
    """Collects the links of a simple index page (PEP 503) by the file name in their address."""

    def __init__(self) -> None:
        super().__init__()
        self.by_name: Dict[str, str] = {}  # noqa: UP006

    def handle_starttag(self, tag: str, attrs: List[Tuple[str, Optional[str]]]) -> None:  # noqa: UP006, UP045
        if tag == "a":
            href = dict(attrs).get("href") or ""
            path = urllib.parse.urlsplit(href).path
            self.by_name[urllib.parse.unquote(path.rsplit("/", 1)[-1])] = href


def download_wheel(index: str, package: str, name: str, digest: str) -> bytes:
    """The bytes of one file of a package, found on the index's page and checked. SetupError otherwise."""
    page, authorization = split_credentials(f"{index}/{package}/")
    say(f"looking {name} up at {page}")
    links = _Links()
    links.feed(fetch(page, authorization, "the package index").decode("utf-8", "replace"))
    if name not in links.by_name:
        raise SetupError(
            f"{page} does not list {name}. Where PIP_INDEX_URL, UV_INDEX_URL or UV_DEFAULT_INDEX name a "
            f"mirror, it needs uv {UV_VERSION}; or install uv {UV_VERSION} so that it is on the PATH."
        )
    address = urllib.parse.urldefrag(urllib.parse.urljoin(page, links.by_name[name]))[0]
    same_host = urllib.parse.urlsplit(address).netloc == urllib.parse.urlsplit(page).netloc
    body = fetch(address, authorization if same_host else None, name)
    found = hashlib.sha256(body).hexdigest()
    if found != digest:
        raise SetupError(
            f"{address} is not the file that we know: its SHA-256 is {found}, expected {digest}. Nothing "
            "was installed. A proxy that changes downloads, or a broken mirror, does this."
        )
    return body


def fetch(url: str, authorization: Optional[str], what: str) -> bytes:  # noqa: UP045
    """GET with progress, deadlines and a few attempts; SetupError says what to do."""
    reason = ""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _get(url, authorization, what, verify=True)
        except urllib.error.HTTPError as error:
            reason = f"it answered {error.code} {error.reason}"
            if error.code < 500 and error.code != 429:
                break
        except (OSError, ValueError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", error)
            if isinstance(cause, ssl.SSLCertVerificationError) and authorization is None:
                # A bare machine has no certificates at all. What is fetched here is used only when its
                # SHA-256 is the one written above, so nothing rests on the connection's authenticity.
                say("the server's certificate can't be checked here; going by the file's digest alone")
                try:
                    return _get(url, authorization, what, verify=False)
                except (OSError, ValueError, http.client.HTTPException) as second:
                    cause = getattr(second, "reason", second)
            reason = str(cause)
        if attempt < ATTEMPTS:
            say(f"{what}: {reason}; trying again")
            time.sleep(2.0 * attempt)
    raise SetupError(
        f"could not get {what} from {url}: {reason}. Check the network; behind a proxy set HTTPS_PROXY, for "
        "a mirror PIP_INDEX_URL, for a company's certificates SSL_CERT_FILE."
    )


def _get(url: str, authorization: Optional[str], what: str, verify: bool) -> bytes:  # noqa: UP045
    headers = {
        "User-Agent": "porteiro-setup",
        "Accept": "text/html, application/octet-stream;q=0.9, */*;q=0.1",
    }
    if authorization is not None:
        headers["Authorization"] = authorization
    request = urllib.request.Request(url, headers=headers)
    deadline = time.monotonic() + DOWNLOAD_DEADLINE_S
    with urllib.request.urlopen(request, timeout=READ_TIMEOUT_S, context=_tls(verify)) as response:
        length = response.headers.get("Content-Length", "")
        progress = _Progress(what, int(length) if length.isdigit() else 0)
        chunks = []
        while True:
            chunk = response.read(1 << 16)
            if not chunk:
                break
            chunks.append(chunk)
            progress.add(len(chunk))
            if time.monotonic() > deadline:
                raise OSError(f"not finished after {DOWNLOAD_DEADLINE_S:.0f} s")
        progress.end()
    body = b"".join(chunks)
    if progress.total and len(body) != progress.total:
        raise OSError(f"the connection ended after {len(body)} of {progress.total} bytes")
    return body


def _tls(verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    for path in (*(os.environ.get(name, "") for name in CA_VARIABLES), *SYSTEM_BUNDLES):
        if path and Path(path).is_file():
            context.load_verify_locations(cafile=path)
    return context


class _Progress:
    """Says how far a download is: in place on a terminal, a line each quarter elsewhere."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done = what, total, 0
        self.terminal = sys.stdout.isatty()
        self.shown = -1

    def add(self, count: int) -> None:
        self.done += count
        step = 1 if self.terminal else 25
        percent = 100 * self.done // self.total if self.total else 0
        if percent // step == self.shown:
            return
        self.shown = percent // step
        megabytes = (
            f"{self.done / 1e6:.1f} of {self.total / 1e6:.1f} MB" if self.total else f"{self.done} bytes"
        )
        if self.terminal:
            print(f"\rsetup: {self.what}: {megabytes} ({percent} %) ", end="", flush=True)
        else:
            say(f"{self.what}: {megabytes} ({percent} %)")

    def end(self) -> None:
        if self.terminal:
            print(flush=True)


# --------------------------------------------------------------------------------------------------------
# The environment
# --------------------------------------------------------------------------------------------------------


def fingerprint(extras: List[str]) -> str:  # noqa: UP006
    """Changes when anything that an installed environment rests on does."""
    digest = hashlib.sha256()
    for name in ("uv.lock", "pyproject.toml", "setup/bootstrap.py"):
        digest.update((ROOT / name).read_bytes())
    digest.update(repr((str(ROOT), sorted(extras), sys.version_info[:2])).encode())
    return digest.hexdigest()


def uv_environment() -> Dict[str, str]:  # noqa: UP006
    """The environment for uv: ours, minus what would point it elsewhere, plus the system's certificates."""
    env = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    env["UV_PROJECT_ENVIRONMENT"] = str(ROOT / ".venv")
    env.setdefault("UV_HTTP_TIMEOUT", "120")
    if not any(name in env for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS")):
        paths = ssl.get_default_verify_paths()
        given = next((env[name] for name in CA_VARIABLES if env.get(name)), "")
        # uv carries its own roots; a machine's own store may hold a company's as well. A bare machine has
        # none, and there uv's own are the right ones.
        bundle = given or next((p for p in (paths.cafile, *SYSTEM_BUNDLES) if p and Path(p).is_file()), "")
        if bundle:
            env["SSL_CERT_FILE"] = bundle
    return env


SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
)


def sync(uv: str, extras: List[str]) -> None:  # noqa: UP006
    """Make `.venv` what the lock says. SetupError where uv can't."""
    python = [sys.executable] if fitting_python(sys.version_info[:2]) else [PYTHON_WANTED]
    if not fitting_python(sys.version_info[:2]):
        say(f"this Python is {platform.python_version()}; uv will find or download a {PYTHON_WANTED} one")
    wanted = [argument for extra in extras for argument in ("--extra", extra)]
    env = uv_environment()
    if index_url() == DEFAULT_INDEX:
        run([uv, "sync", "--locked", "--python", *python, *wanted], env, SYNC_DEADLINE_S)
        return
    # The lock's addresses are the public index's, and uv calls a lock stale when the index is another. The
    # versions and digests hold for any mirror: hand those over and nothing else.
    pinned = ROOT / ".cache" / "requirements.txt"
    pinned.parent.mkdir(exist_ok=True)
    export = [uv, "export", "--frozen", "--quiet", "--no-emit-project", "--output-file", str(pinned), *wanted]
    run(export, env, SYNC_DEADLINE_S)
    if not (ROOT / ".venv" / "bin" / "python").exists():
        run([uv, "venv", "--python", *python, str(ROOT / ".venv")], env, SYNC_DEADLINE_S)
    env["UV_DEFAULT_INDEX"] = index_url()  # not as an argument: it may hold a password
    into = ["--python", str(ROOT / ".venv" / "bin" / "python")]
    run([uv, "pip", "sync", "--require-hashes", *into, str(pinned)], env, SYNC_DEADLINE_S)
    run([uv, "pip", "install", "--no-deps", *into, "--editable", str(ROOT)], env, SYNC_DEADLINE_S)


def run(command: List[str], env: Dict[str, str], deadline_s: float) -> None:  # noqa: UP006
    """Run with our standard output and error; SetupError unless it ends well in time."""
    shown = " ".join(Path(command[0]).name if n == 0 else word for n, word in enumerate(command))
    say(shown)
    try:
        code = subprocess.run(command, cwd=str(ROOT), env=env, timeout=deadline_s).returncode
    except subprocess.TimeoutExpired:
        raise SetupError(f"`{shown}` was not finished after {deadline_s:.0f} s; run this again.") from None
    except OSError as error:
        raise SetupError(f"`{shown}` could not be started: {error}") from None
    if code != 0:
        raise SetupError(
            f"`{shown}` failed (exit {code}); its own message is above. Running this again goes on where it "
            "stopped."
        )


# --------------------------------------------------------------------------------------------------------
# The whole
# --------------------------------------------------------------------------------------------------------


def set_up(extras: List[str], models: bool, force: bool) -> None:  # noqa: UP006
    """Everything, or what is left of it."""
    stamp = ROOT / ".venv" / ".porteiro-setup"
    porteiro = ROOT / ".venv" / "bin" / "porteiro"
    want = fingerprint(extras)
    if force or not porteiro.exists() or not stamp.is_file() or stamp.read_text() != want:
        sync(find_uv(ROOT / ".cache" / "uv"), extras)
        stamp.write_text(want)
        say("the environment is in .venv, the command is .venv/bin/porteiro")
    if models:
        # Each time: the files may have been moved or damaged, and when they are there it takes a moment.
        run([str(porteiro), "models", "fetch"], dict(os.environ), MODELS_DEADLINE_S)


def main(arguments: Optional[List[str]] = None) -> int:  # noqa: UP006, UP045
    parser = argparse.ArgumentParser(description="Set the project up: uv, .venv, the speech models.")
    parser.add_argument("--extra", action="append", default=[], help="an optional part of pyproject.toml")
    parser.add_argument("--only-uv", action="store_true", help="have a uv that fits in .cache/uv, no more")
    parser.add_argument("--no-models", action="store_true", help="leave the model files alone")
    parser.add_argument("--force", action="store_true", help="install again although nothing changed")
    options = parser.parse_args(arguments)
    (ROOT / ".cache").mkdir(exist_ok=True)
    try:
        with (ROOT / ".cache" / "setup.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("another set-up is running here; waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            if options.only_uv:
                own = ROOT / ".cache" / "uv" / "bin" / "uv"
                own.parent.mkdir(parents=True, exist_ok=True)
                own.unlink(missing_ok=True)
                own.symlink_to(find_uv(ROOT / ".cache" / "uv"))
            else:
                set_up(["weights", "aec3", *options.extra], not options.no_models, options.force)
    except SetupError as error:
        print(f"setup failed: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("\nsetup stopped. Running it again goes on where it stopped.", file=sys.stderr, flush=True)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
