"""Carries a plan out: all files are written beside their places first, then put in place, each at once."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from bridge.importing.plan import Plan
from bridge.settings import fragments_folder


class BusyError(Exception):
    """Another import writes the same settings at this moment."""


@contextmanager
def alone(config: Path) -> Iterator[None]:
    """Nobody else imports into these settings meanwhile: from the look at what there is to the last file.

    Raises:
        BusyError: somebody does.
        OSError: the settings' folder can't be written to.
    """
    folder = fragments_folder(config)
    folder.mkdir(exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"another import is writing to {folder}; try again when it is over") from None
        yield


def carry_out(plan: Plan) -> None:
    """Write a plan's files. A file is always whole: the old one, or the new one.

    Raises:
        ValueError: the plan has problems.
        OSError: a file can't be written; none has been changed unless putting in place itself failed.
    """
    if plan.problems:
        raise ValueError(f"a plan with problems is not carried out: {plan.problems[0]}")
    staged: dict[Path, Path] = {}
    try:
        for file, content in plan.files.items():
            if content is not None:
                place = file.resolve()  # a link stays one
                staged[place] = _staged(place, content)
        for place, temporary in staged.items():
            os.replace(temporary, place)
        for file, content in plan.files.items():
            if content is None:
                file.unlink(missing_ok=True)
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)
    for folder in {file.resolve().parent for file in plan.files}:
        _sync(folder)


def _staged(place: Path, content: bytes) -> Path:
    """A new file beside its place, on disk, with the rights of the one that it takes the place of."""
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.{uuid4().hex[:8]}")
    try:
        with temporary.open("xb") as out:
            if place.exists():
                os.fchmod(out.fileno(), place.stat().st_mode & 0o777)
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync(folder: Path) -> None:
    """A rename is on disk once its folder is."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


__all__ = ["BusyError", "alone", "carry_out"]
