"""The settings files of a running service: what they say now, and whether that has changed.

They are looked at, several times a second: one `stat` a file, in a thread. A thousand files take some
milliseconds. The kernel's notifications would be cheaper, and say nothing on network file systems, of mounted
single files, or of what a symbolic link leads to since a moment ago.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.settings import (
    Service,
    SettingsError,
    Written,
    default_ports,
    fragments_folder,
    parsed_file,
    read,
)
from visits.directory import Directory, DirectoryError

Mark = tuple[int, int, int] | None
"""What `stat` says of a file's content; None: there is none."""


@dataclass(frozen=True, slots=True)
class FilesRead:
    """What the files say."""

    written: Written
    service: Service
    tables: Mapping[str, Mapping[str, Any]]
    """What each tenant's table holds, with the ports of one that names none."""


class SettingsFiles:
    """The settings file, its fragments, the `.env` beside it, and the directories that tenants name."""

    def __init__(self, written: Written) -> None:
        """`written`: as they were at the start."""
        self._first = written
        file = written.file
        self._file = file
        self._there = file is not None and file.exists()
        """A file that was there must stay: what is gone says nothing of its tenants."""
        self._parsed: dict[Path, tuple[Mark, dict[str, Any]]] = {}

    def read(self) -> FilesRead:
        """What they say now.

        Raises:
            SettingsError: with what is wrong, where it is not one tenant alone.
        """
        return self.split(self._written())

    def _written(self) -> Written:
        if self._file is None:
            return self._first
        path = self._file if self._there else None
        return read(path, None if self._first.dotenv else self._first.environ, parsed=self._parse)

    def _parse(self, file: Path) -> dict[str, Any]:
        """A file's content; read again only where it has changed."""
        found = mark(file)
        known, tree = self._parsed.get(file, (None, {}))
        if found is None or found != known:
            tree = parsed_file(file)
            self._parsed[file] = found, tree
        return tree

    @staticmethod
    def split(written: Written) -> FilesRead:
        """The service's part, checked, and each tenant's by itself.

        Raises:
            SettingsError: the service's part is wrong, or what holds the tenants is no table.
        """
        tables = written.tree.get("tenants", {})
        whole = {**written.tree, "tenants": tables if not isinstance(tables, Mapping) else {}}
        service = (
            Written(whole, written.origins, written.source, written.base, written.environ).checked().service
        )
        defaults = default_ports(written.tree.get("service"))
        wrong = [name for name, table in tables.items() if not isinstance(table, Mapping)]
        if wrong:
            raise SettingsError([f"tenants.{name}: allowed: a table" for name in wrong], written.source)
        return FilesRead(written, service, {name: {**defaults, **table} for name, table in tables.items()})

    def marks(self, directories: Iterable[str]) -> tuple[object, ...]:
        """What changes whenever a file does.

        Args:
            directories: the files that tenants' directories are in.
        """
        own: list[object] = []
        if self._file is not None:
            own = [mark(self._file), mark(self._file.parent / ".env"), *_folder(fragments_folder(self._file))]
        return (*own, *map(mark, directories))


def mark(file: Path | str) -> Mark:
    """Whether a file's content may be another than before."""
    try:
        return _mark(os.stat(file))
    except OSError:
        return None


def _mark(found: os.stat_result) -> Mark:
    return found.st_mtime_ns, found.st_size, found.st_ino


def _folder(folder: Path) -> Sequence[object]:
    try:
        with os.scandir(folder) as entries:
            files = [entry for entry in entries if entry.name.endswith(".toml")]
    except OSError:
        return [None]
    return sorted((entry.name, _of_entry(entry)) for entry in files)


def _of_entry(entry: os.DirEntry[str]) -> tuple[int, int, int]:
    try:
        return _mark(entry.stat()) or (0, 0, 0)
    except OSError:  # gone since, or a link to nowhere
        return 0, 0, 0


def directory_in(file: Path) -> Directory:
    """The directory that a file holds.

    Raises:
        SettingsError: it can't be read, or is none.
    """
    try:
        return Directory.from_records(json.loads(file.read_bytes()))
    except FileNotFoundError:
        problem = "no such file"
    except OSError as error:
        problem = f"can't be read: {error.strerror}"
    except DirectoryError as error:
        problem = str(error)
    except ValueError as error:
        problem = f"not valid JSON: {error}"
    raise SettingsError([f"{file}: {problem}"])


__all__ = ["FilesRead", "Mark", "SettingsFiles", "directory_in", "mark"]
