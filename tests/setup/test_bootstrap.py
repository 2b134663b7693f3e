"""The set-up on a bare machine: it takes only what it knows, and says what to do where it can't go on."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAME = "uv-0.13.8-py3-none-any.whl"


@pytest.fixture
def bootstrap(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "setup" / "bootstrap.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    for name in (*module.INDEX_VARIABLES, "UV", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return module


def wheel(binary: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("uv/__init__.py", "")
        archive.writestr("uv-0.13.8.data/scripts/uv", binary)
    return buffer.getvalue()


GOOD = wheel(b"#!/bin/sh\necho uv 0.13.8\n")
PAGE = f'<html><body><a href="../../files/{NAME}#sha256=00">{NAME}</a></body></html>'.encode()
Reply = Callable[[BaseHTTPRequestHandler], None]


class Index:
    """A package index on loopback: a reply for each path, and what it was asked."""

    def __init__(self) -> None:
        self.replies: dict[str, list[Reply]] = {"/simple/uv/": [body(PAGE)], f"/files/{NAME}": [body(GOOD)]}
        self.asked: list[tuple[str, str | None]] = []
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.asked.append((self.path, self.headers.get("Authorization")))
                replies = index.replies.get(self.path, [status(404)])
                (replies.pop(0) if len(replies) > 1 else replies[0])(self)

            def log_message(self, format: str, *args: object) -> None:
                """Nobody reads it."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.url = f"http://{self.host}/simple"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def body(content: bytes, length: int | None = None) -> Reply:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content) if length is None else length))
        handler.end_headers()
        handler.wfile.write(content)

    return reply


def status(code: int) -> Reply:
    return lambda handler: handler.send_error(code)


@pytest.fixture
def index() -> Iterator[Index]:
    made = Index()
    yield made
    made.close()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# ------------------------------------------------------------------------------------- this machine


@pytest.mark.parametrize(
    ("system", "machine", "libc", "part"),
    [
        ("Linux", "x86_64", "glibc", "manylinux_2_17_x86_64"),
        ("Linux", "AMD64", "glibc", "manylinux_2_17_x86_64"),
        ("Linux", "x86_64", "", "musllinux_1_1_x86_64"),
        ("Linux", "aarch64", "glibc", "aarch64"),
        ("Linux", "arm64", "", "musllinux_1_1_aarch64"),
        ("Darwin", "arm64", "", "macosx_11_0_arm64"),
        ("Darwin", "x86_64", "", "macosx_10_12_x86_64"),
    ],
)
def test_each_platform_has_its_wheel(
    bootstrap: ModuleType, system: str, machine: str, libc: str, part: str
) -> None:
    name, sha = bootstrap.UV_WHEELS[bootstrap.platform_key(system, machine, libc)]
    assert part in name and bootstrap.UV_VERSION in name
    assert len(sha) == 64


@pytest.mark.parametrize(
    ("system", "machine"), [("Linux", "s390x"), ("Windows", "AMD64"), ("FreeBSD", "amd64")]
)
def test_another_platform_is_told_what_to_do(bootstrap: ModuleType, system: str, machine: str) -> None:
    with pytest.raises(bootstrap.SetupError, match="Install uv"):
        bootstrap.platform_key(system, machine, "glibc")


def test_the_pythons_that_fit_are_the_projects(bootstrap: ModuleType) -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == bootstrap.PYTHON_WANTED
    fits = {minor: bootstrap.fitting_python((3, minor)) for minor in (10, 11, 14, 15)}
    assert fits == {10: False, 11: True, 14: True, 15: False}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("uv 0.13.8", True),
        ("uv 0.13.12 (abc 2026-12-01)", True),
        ("uv 0.13.7", False),
        ("uv 0.14.0", False),
        ("uv 0.9.30", False),
        ("uv 1.13.8", False),
        ("", False),
        ("something else", False),
    ],
)
def test_a_uv_of_another_series_is_not_used(bootstrap: ModuleType, text: str, fits: bool) -> None:
    assert bootstrap.uv_fits(text) is fits


def fake_uv(folder: Path, version: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "uv"
    file.write_text(f"#!/bin/sh\necho uv {version}\n")
    file.chmod(0o755)
    return file


def test_a_fitting_uv_on_the_path_is_used(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = fake_uv(tmp_path / "bin", "0.13.9")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert bootstrap.find_uv(tmp_path / "cache") == str(own)


def test_an_old_uv_on_the_path_is_passed_over_for_the_one_of_an_earlier_set_up(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_uv(tmp_path / "bin", "0.4.0")
    ours = fake_uv(tmp_path / "cache" / "0.13.8", "0.13.8")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert bootstrap.find_uv(tmp_path / "cache") == str(ours)


def test_a_named_uv_that_does_not_run_is_said(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV", str(tmp_path / "none"))
    with pytest.raises(bootstrap.SetupError, match=r"UV=.*can't be run"):
        bootstrap.find_uv(tmp_path / "cache")


# ---------------------------------------------------------------------------------------- the index


def test_the_index_is_what_the_environment_names(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bootstrap.index_url() == bootstrap.DEFAULT_INDEX
    monkeypatch.setenv("PIP_INDEX_URL", "https://a/simple/")
    assert bootstrap.index_url() == "https://a/simple"
    monkeypatch.setenv("UV_INDEX_URL", "https://b/simple")
    assert bootstrap.index_url() == "https://b/simple"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "mine=https://c/simple")
    assert bootstrap.index_url() == "https://c/simple"


def test_a_wheel_is_found_fetched_and_checked(bootstrap: ModuleType, index: Index) -> None:
    assert bootstrap.download_wheel(index.url, "uv", NAME, digest(GOOD)) == GOOD
    assert [path for path, _ in index.asked] == ["/simple/uv/", f"/files/{NAME}"]


def test_credentials_go_to_the_index_as_a_header_and_nowhere_else(
    bootstrap: ModuleType, index: Index
) -> None:
    elsewhere = Index()
    page = f'<a href="http://{elsewhere.host}/files/{NAME}">x</a>'.encode()
    index.replies["/simple/uv/"] = [body(page)]
    try:
        bootstrap.download_wheel(f"http://ana:p%40ss@{index.host}/simple", "uv", NAME, digest(GOOD))
    finally:
        elsewhere.close()
    assert index.asked == [("/simple/uv/", "Basic YW5hOnBAc3M=")]
    assert elsewhere.asked == [(f"/files/{NAME}", None)]


def test_a_file_that_is_not_ours_is_not_used(bootstrap: ModuleType, index: Index) -> None:
    index.replies[f"/files/{NAME}"] = [body(wheel(b"#!/bin/sh\nrm -rf /\n"))]
    with pytest.raises(bootstrap.SetupError, match=r"is not the file that we know.*Nothing was installed"):
        bootstrap.download_wheel(index.url, "uv", NAME, digest(GOOD))


def test_a_mirror_without_the_file_is_named(bootstrap: ModuleType, index: Index) -> None:
    index.replies["/simple/uv/"] = [body(b"<html></html>")]
    with pytest.raises(bootstrap.SetupError, match=f"does not list {NAME}.*mirror"):
        bootstrap.download_wheel(index.url, "uv", NAME, digest(GOOD))


def test_a_hiccup_is_tried_again(bootstrap: ModuleType, index: Index) -> None:
    index.replies["/simple/uv/"] = [status(503), body(PAGE)]
    index.replies[f"/files/{NAME}"] = [body(GOOD[:50], len(GOOD)), body(GOOD)]
    assert bootstrap.download_wheel(index.url, "uv", NAME, digest(GOOD)) == GOOD
    assert len(index.asked) == 4


def test_a_refusal_is_not_tried_again(bootstrap: ModuleType, index: Index) -> None:
    index.replies["/simple/uv/"] = [status(403)]
    with pytest.raises(bootstrap.SetupError, match=r"403.*HTTPS_PROXY"):
        bootstrap.download_wheel(index.url, "uv", NAME, digest(GOOD))
    assert len(index.asked) == 1


def test_a_server_that_falls_silent_is_left(
    bootstrap: ModuleType, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def silent(handler: BaseHTTPRequestHandler) -> None:
        over.wait(10)
        handler.close_connection = True

    monkeypatch.setattr(bootstrap, "READ_TIMEOUT_S", 0.1)
    index.replies["/simple/uv/"] = [silent]
    with pytest.raises(bootstrap.SetupError, match="timed out"):
        bootstrap.download_wheel(index.url, "uv", NAME, digest(GOOD))
    over.set()


def test_a_server_that_drips_is_left(
    bootstrap: ModuleType, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "DOWNLOAD_DEADLINE_S", -1.0)
    with pytest.raises(bootstrap.SetupError, match="not finished after"):
        bootstrap.download_wheel(index.url, "uv", NAME, digest(GOOD))


def test_nobody_there_is_said(bootstrap: ModuleType, index: Index) -> None:
    index.close()
    with pytest.raises(
        bootstrap.SetupError, match=r"could not get the package index.*refused.*Check the network"
    ):
        bootstrap.download_wheel(index.url, "uv", NAME, digest(GOOD))
    index.server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # for the fixture to close
    index.thread = threading.Thread(target=index.server.serve_forever, args=(0.01,))
    index.thread.start()


def test_uv_is_unpacked_and_runs(
    bootstrap: ModuleType, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "UV_WHEELS", dict.fromkeys(bootstrap.UV_WHEELS, (NAME, digest(GOOD))))
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    found = bootstrap.find_uv(tmp_path / ".cache" / "uv")
    assert subprocess.run([found], capture_output=True, text=True).stdout == "uv 0.13.8\n"
    asked = len(index.asked)
    assert bootstrap.find_uv(tmp_path / ".cache" / "uv") == found
    assert len(index.asked) == asked


# ------------------------------------------------------------------------------------------ the rest


def test_the_stamp_changes_with_what_it_stands_for(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "setup").mkdir()
    for name in ("uv.lock", "pyproject.toml", "setup/bootstrap.py"):
        (tmp_path / name).write_text("")
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    first = bootstrap.fingerprint(["weights"])
    assert bootstrap.fingerprint(["weights"]) == first
    assert bootstrap.fingerprint(["weights", "piper"]) != first
    (tmp_path / "uv.lock").write_text("x")
    assert bootstrap.fingerprint(["weights"]) != first


def test_a_command_that_fails_stops_the_set_up(bootstrap: ModuleType) -> None:
    with pytest.raises(bootstrap.SetupError, match=r"failed \(exit 3\)"):
        bootstrap.run(["/bin/sh", "-c", "exit 3"], dict(os.environ), 10)
    with pytest.raises(bootstrap.SetupError, match="not finished after"):
        bootstrap.run(["/bin/sh", "-c", "exec sleep 5"], dict(os.environ), 0.1)
    with pytest.raises(bootstrap.SetupError, match="could not be started"):
        bootstrap.run(["/none/at/all"], dict(os.environ), 10)


def test_an_old_python_gets_as_far_as_being_told(tmp_path: Path) -> None:
    """The file must parse for Pythons that are too old, or they would see a SyntaxError instead of advice."""
    import ast

    ast.parse((ROOT / "setup" / "bootstrap.py").read_text(), feature_version=(3, 8))


def test_it_says_how_it_is_used() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "setup" / "bootstrap.py"), "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "--force" in done.stdout


def test_make_lists_what_it_can_do() -> None:
    done = subprocess.run(["make", "-C", str(ROOT), "--no-print-directory"], capture_output=True, text=True)
    for target in ("setup", "demo", "test", "lint", "clean"):
        assert f"make {target}" in done.stdout
