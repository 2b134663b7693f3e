"""The weights: only the right bytes are ever used, and an unreachable source costs seconds."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from providers.local.models import (
    DigestError,
    FolderSource,
    HubSource,
    Model,
    ModelError,
    ModelFile,
    PackageSource,
    fetch,
    model_dir,
    models_root,
    own_checkout,
    verified_dir,
)

SMALL, BIG = b"{}\n", bytes(range(256)) * 9000


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


TOY = Model(
    name="toy",
    repository="someone/toy",
    revision="0123456789abcdef",
    files=(
        ModelFile("config.json", _digest(SMALL), (("toy_part1", "data/config.json"),)),
        ModelFile("model.bin", _digest(BIG), (("toy_part1", "data/model.1"), ("toy_part2", "data/model.2"))),
    ),
)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two installed packages that carry the model, cut in the middle."""
    site = tmp_path / "site"
    files = {
        "toy_part1": {"config.json": SMALL, "model.1": BIG[:1_000_001]},
        "toy_part2": {"model.2": BIG[1_000_001:]},
    }
    for package, contents in files.items():
        (site / package / "data").mkdir(parents=True)
        (site / package / "__init__.py").write_text("raise RuntimeError('must not be imported')")
        for name, data in contents.items():
            (site / package / "data" / name).write_bytes(data)
    monkeypatch.syspath_prepend(str(site))
    return site


def _folder(path: Path, **files: bytes) -> Path:
    path.mkdir()
    for name, data in files.items():
        (path / name.replace("_", ".")).write_bytes(data)
    return path


@contextmanager
def _hub(answer: dict[str, bytes], cut: int | None = None) -> Iterator[str]:
    """A hub on loopback. ``cut``: break off a file after so many bytes."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = answer.get(self.path.rpartition("/")[2])
            if data is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data if cut is None else data[:cut])

        def log_message(self, *_: object) -> None:
            """Quietly."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_parts_from_two_packages_make_the_file_and_their_code_is_not_run(
    tmp_path: Path, packages: Path
) -> None:
    fetched = fetch(tmp_path / "m", [PackageSource()], model=TOY)
    assert (fetched.folder / "model.bin").read_bytes() == BIG
    assert verified_dir(tmp_path / "m", TOY) == fetched.folder


def test_a_wrong_file_is_refused_by_name_and_never_lands_in_the_cache(tmp_path: Path, packages: Path) -> None:
    folder = _folder(tmp_path / "mine", config_json=SMALL, model_bin=BIG[:-1] + b"x")
    with pytest.raises(DigestError) as caught:
        fetch(tmp_path / "m", [FolderSource(folder), PackageSource()], model=TOY)
    text = str(caught.value)
    assert "model.bin" in text and _digest(BIG) in text and _digest(BIG[:-1] + b"x") in text
    assert sorted(path.name for path in model_dir(tmp_path / "m", TOY).iterdir()) == ["config.json"]


def test_a_file_that_was_changed_later_is_not_loaded(tmp_path: Path, packages: Path) -> None:
    folder = fetch(tmp_path / "m", [PackageSource()], model=TOY).folder
    (folder / "model.bin").write_bytes(BIG + b"!")
    with pytest.raises(DigestError, match=r"model\.bin"):
        verified_dir(tmp_path / "m", TOY)
    again = fetch(tmp_path / "m", [PackageSource()], model=TOY)
    assert again.sources == {"config.json": "", "model.bin": PackageSource().name}
    assert verified_dir(tmp_path / "m", TOY) == folder


def test_the_hub_gives_the_files(tmp_path: Path) -> None:
    with _hub({"config.json": SMALL, "model.bin": BIG}) as endpoint:
        seen: list[tuple[str, int, int | None]] = []
        fetch(
            tmp_path,
            [HubSource(endpoint=endpoint)],
            model=TOY,
            progress=lambda _, file, done, total: seen.append((file, done, total)),
        )
    assert verified_dir(tmp_path, TOY)
    assert seen[-1] == ("model.bin", len(BIG), len(BIG))


@pytest.mark.parametrize("cut", [0, 1, 1_500_000])
def test_a_transfer_that_breaks_off_leaves_nothing_and_the_next_source_is_used(
    tmp_path: Path, packages: Path, cut: int
) -> None:
    with _hub({"config.json": SMALL, "model.bin": BIG}, cut) as endpoint:
        fetched = fetch(tmp_path / "m", [HubSource(endpoint=endpoint), PackageSource()], model=TOY)
    assert fetched.sources["model.bin"] == PackageSource().name
    assert sorted(path.name for path in fetched.folder.iterdir()) == ["config.json", "model.bin"]
    assert "hub" in fetched.notes[0]


@pytest.mark.parametrize("silent", [False, True])
def test_an_unreachable_hub_costs_seconds(tmp_path: Path, packages: Path, silent: bool) -> None:
    """Refused at once, or a host that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        if not silent:
            listener.close()
        hub = HubSource(connect_s=0.5, read_s=0.5, endpoint=f"http://127.0.0.1:{port}")
        began = time.monotonic()
        fetched = fetch(tmp_path / "m", [hub, PackageSource()], model=TOY)
        assert time.monotonic() - began < 3
    assert set(fetched.sources.values()) == {PackageSource().name}
    assert len(fetched.notes) == 1  # asked once, not once a file


def test_without_any_source_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        fetch(tmp_path / "m", [FolderSource(tmp_path / "nowhere"), PackageSource()], model=TOY)
    assert "nowhere" in str(caught.value) and "--extra weights" in str(caught.value)
    with pytest.raises(ModelError, match="porteiro models fetch"):
        verified_dir(tmp_path / "m", TOY)


def test_where_models_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert models_root(tmp_path / "x", cwd=tmp_path, environ={}) == tmp_path / "x"
    assert models_root(None, cwd=tmp_path, environ={"XDG_CACHE_HOME": "/c"}) == Path("/c/porteiro/models")
    in_home = tmp_path / "home" / ".cache" / "porteiro" / "models"
    assert models_root(None, cwd=tmp_path, environ={"XDG_CACHE_HOME": "relative"}) == in_home
    checkout = tmp_path / "porteiro"
    assert (
        models_root(None, cwd=tmp_path, environ={}, checkout=checkout) == in_home
    )  # nothing was set up there
    (checkout / ".cache" / "models").mkdir(parents=True)
    assert models_root(None, cwd=tmp_path, environ={}, checkout=checkout) == checkout / ".cache" / "models"
    (tmp_path / "pyproject.toml").touch()
    assert models_root(None, cwd=tmp_path, environ={}, checkout=checkout) == tmp_path / ".cache" / "models"
    assert models_root(None, cwd=tmp_path, environ={}) == tmp_path / ".cache" / "models"


def test_a_program_in_a_checkout_knows_where_that_is() -> None:
    checkout = own_checkout()
    assert checkout is not None and (checkout / "uv.lock").is_file()


def test_the_real_weights_are_there(weights: Path) -> None:
    assert (weights / "model.bin").stat().st_size > 100_000_000
