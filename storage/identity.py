"""Which service this is, where several share a database: an id of its own, kept in its data directory.

A service is its directory: one at a time runs in it (:mod:`storage.lock`), so that whatever visits the
database has of it at its start are a crash's.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

from storage.base import StorageUnavailable

_FILE: Final = "service.id"


def known_service(directory: Path) -> str | None:
    """The id that is kept in a directory; None where there is none. Makes nothing; blocks for the disk.

    Raises:
        StorageUnavailable: the directory can't be read, or the file holds something else.
    """
    return service_id(directory) if (directory / _FILE).exists() else None


def service_id(directory: Path) -> str:
    """The id that is kept in a directory; a new one is made where there is none. Blocks for the disk.

    Raises:
        StorageUnavailable: the directory can't be written, or the file holds something else.
    """
    file = directory / _FILE
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            # Whole or not at all: an id that a crash cut short would be nobody's.
            new = file.with_suffix(f".{os.getpid()}")
            new.write_text(f"{uuid4()}\n")
            os.replace(new, file)
        return str(UUID(file.read_text().strip()))
    except OSError as error:
        raise StorageUnavailable("io", f"{file}: {error.strerror}") from error
    except ValueError as error:
        raise StorageUnavailable(
            "corrupt", f"{file}: found no UUID in it; remove it for a new one"
        ) from error
