"""The last good copy of what the database says of tenants: for a start while the database is away.

One file, for its owner alone to read: residents' names and numbers are in it, and no secret, since settings
name variables. A line a tenant.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from storage.catalogue import DATABASE, SettingsVersion
from visits.directory import Directory, DirectoryError

FORMAT: Final = 1
FILE: Final = "tenants.last.json"


@dataclass(frozen=True, slots=True)
class Copy:
    """What the database said."""

    written_at: str = ""
    tenants: Mapping[str, SettingsVersion] = field(default_factory=dict)
    directories: Mapping[str, tuple[int, Directory]] = field(default_factory=dict)
    """With their versions."""


class CopyError(Exception):
    """There is no copy that could be used; the text says why."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    tenant: str
    version: int | None
    digest: str
    content: dict[str, Any] | None
    """None: its settings are in a file."""
    directory_version: int
    """0: it has none in the database."""
    directory: list[dict[str, Any]]


class _Whole(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    format: int
    database: str
    written_at: str
    entries: list[_Entry]


def entry(
    tenant: str,
    version: tuple[int | None, str],
    content: Mapping[str, Any] | None,
    directory: tuple[int, Directory] | None,
) -> str:
    """One tenant's line.

    Args:
        version: its number and digest.
        content: what its table holds; None: that is in a file.
        directory: with its version; None: it has none in the database.
    """
    return json.dumps(
        {
            "tenant": tenant,
            "version": version[0],
            "digest": version[1],
            "content": content,
            "directory_version": directory[0] if directory is not None else 0,
            "directory": directory[1].records() if directory is not None else [],
        },
        ensure_ascii=False,
    )


def write_copy(file: Path, database: str, written_at: str, entries: Iterable[str]) -> None:
    """Write it, whole or not at all.

    Args:
        database: which one it is of; no other is to be answered for by it.

    Raises:
        OSError: it can't be written.
    """
    head = json.dumps({"format": FORMAT, "database": database, "written_at": written_at})
    text = head[:-1] + ', "entries": [\n' + ",\n".join(entries) + "\n]}\n"
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(handle, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        beside.replace(file)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def read_copy(file: Path, database: str) -> Copy:
    """What was written.

    Raises:
        CopyError: there is none, it can't be read, or it is of another database.
    """
    try:
        whole = _Whole.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        raise CopyError("there is none") from None
    except OSError as error:
        raise CopyError(f"it can't be read: {error.strerror}") from None
    except ValidationError as error:
        raise CopyError(f"it is damaged: {error.errors(include_url=False)[0]['type']}") from None
    if whole.format != FORMAT:
        raise CopyError(f"found format {whole.format}; allowed: {FORMAT}")
    if whole.database != database:
        raise CopyError("it is of another database")
    try:
        directories = {
            each.tenant: (
                each.directory_version,
                Directory.from_records(each.directory) if each.directory else Directory(()),
            )
            for each in whole.entries
            if each.directory_version
        }
    except DirectoryError as error:
        raise CopyError(f"it is damaged: {error}") from None
    tenants = {
        each.tenant: SettingsVersion(
            each.tenant, each.version or 0, "", "", DATABASE, each.content, each.digest
        )
        for each in whole.entries
        if each.content is not None
    }
    return Copy(whole.written_at, tenants, directories)


__all__ = ["FILE", "Copy", "CopyError", "entry", "read_copy", "write_copy"]
