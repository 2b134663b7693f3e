"""Opens a SQLite database as ours: its settings, and the schema's versions one after the other.

The version is SQLite's ``user_version``; ``application_id`` says that a file is ours at all. The versions are
those of :mod:`storage.versions`; each is applied whole or not at all.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from storage.base import Reason, StorageUnavailable
from storage.versions import scripts

APPLICATION_ID: Final = int.from_bytes(b"Prt1", "big")

_HEADER: Final = 100
"""Bytes of a database's header: https://www.sqlite.org/fileformat.html#the_database_header."""

_REASONS: Final[dict[int, Reason]] = {
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_READONLY: "read-only",
    sqlite3.SQLITE_PERM: "read-only",
    sqlite3.SQLITE_BUSY: "busy",
    sqlite3.SQLITE_LOCKED: "busy",
    sqlite3.SQLITE_CORRUPT: "corrupt",
    sqlite3.SQLITE_NOTADB: "not-ours",
    sqlite3.SQLITE_CANTOPEN: "missing",
}


def _primary(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_IOERR)) & 0xFF


def unavailable(error: sqlite3.Error, path: Path) -> StorageUnavailable:
    """SQLite's error in our words."""
    name = getattr(error, "sqlite_errorname", "no code")
    return StorageUnavailable(_REASONS.get(_primary(error), "io"), f"{path}: {error} ({name})")


def trouble_with(path: Path) -> str:
    """Why a file can't be our database, told by its first bytes; empty where it may be, or is not there.

    Nothing is opened as a database: that would leave files of this user's beside it. Not for a process that
    has the database open: closing it here would drop SQLite's locks.
    """
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"can't be read: {error.strerror}"
    if not header:
        return ""
    if not header.startswith(b"SQLite format 3\0") or len(header) < _HEADER:
        return "not a database"
    version, application = (int.from_bytes(header[at : at + 4], "big") for at in (60, 68))
    # Of a database that has a log beside it the first page may be older than the log.
    if application != APPLICATION_ID and (application or not path.with_name(f"{path.name}-wal").exists()):
        return "a database of another program"
    if version > len(scripts("sqlite")):
        return "written by a newer version of Porteiro"
    return ""


def connect(path: Path, *, read_only: bool, busy_s: float, scripts: Sequence[str]) -> sqlite3.Connection:
    """Open the database and bring it to the newest version.

    Commits are durable: WAL with ``synchronous=FULL``, the log is synced before COMMIT returns. ``read_only``
    changes nothing, works beside a running service, and needs a database of the newest version.

    Raises:
        StorageUnavailable: it can't be opened, is not ours, or is newer than this program.
    """
    try:
        if not read_only:
            _create(path)
        connection = _connect(path, read_only, busy_s)
        try:
            _configure(connection, read_only=read_only)
            # Before anything is changed: a file that is not ours stays as it is.
            _check_version(connection, path, len(scripts), exact=read_only)
            if not read_only:
                _use_wal(connection, path, busy_s)
                _migrate(connection, path, scripts)
        except BaseException:
            connection.close()
            raise
    except OSError as error:
        reason: Reason = "read-only" if isinstance(error, PermissionError) else "io"
        raise StorageUnavailable(reason, f"{path}: {error.strerror}") from error
    except sqlite3.Error as error:
        if _primary(error) == sqlite3.SQLITE_CANTOPEN and path.exists() and not _writable(path.parent):
            message = f"{path}: the disk or its directory cannot be written"
            raise StorageUnavailable("read-only", message) from error
        raise unavailable(error, path) from error
    return connection


def _create(path: Path) -> None:
    """Make the file, readable by its owner alone, where there is none (SQLite would let all read it).

    A file that exists is never opened here: closing it again would drop the locks that SQLite holds on it in
    this process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    os.close(handle)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)  # or a power cut takes the new file's name with all that was committed to it
    finally:
        os.close(directory)


def _writable(directory: Path) -> bool:
    return os.access(directory, os.W_OK)


def _connect(path: Path, read_only: bool, busy_s: float) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}"
    if read_only and not _writable(path.parent) and not path.with_name(f"{path.name}-wal").exists():
        # A copy on a disk that can't be written: even a reader of a log needs its -shm file there, unless it
        # promises that the file stands still. Without a log beside it nobody has it open.
        uri += "&immutable=1"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=busy_s)


def _configure(connection: sqlite3.Connection, *, read_only: bool) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA recursive_triggers = ON")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = ON")  # what is erased of a person is overwritten
    if read_only:
        connection.execute("PRAGMA query_only = ON")


def _use_wal(connection: sqlite3.Connection, path: Path, busy_s: float) -> None:
    # Two processes that switch a new file at once: SQLite gives one of them BUSY without waiting.
    until = time.monotonic() + busy_s
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            busy = _primary(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not busy or time.monotonic() > until:
                raise
            time.sleep(0.01)
            continue
        if mode != "wal":
            raise StorageUnavailable(
                "io", f"{path}: this file system cannot hold a SQLite log (WAL), only {mode}"
            )
        return


def _check_version(connection: sqlite3.Connection, path: Path, newest: int, *, exact: bool = False) -> int:
    """The schema's version; 0 for an empty file."""
    # One snapshot: between two looks another process may have made the whole schema.
    alone = not connection.in_transaction
    if alone:
        connection.execute("BEGIN")
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if alone:
        connection.execute("COMMIT")
    if application != APPLICATION_ID and (application or version or tables):
        raise StorageUnavailable("not-ours", f"{path} is a database of another program")
    if version > newest:
        raise StorageUnavailable(
            "newer",
            f"{path} was written by a newer version of Porteiro (schema {version}; this one knows up to "
            f"{newest}): run that version, or restore a backup from before it",
        )
    if exact and version < newest:
        raise StorageUnavailable(
            "older",
            f"{path} is of an older version (schema {version}; this one needs {newest}): "
            "start the service once, which brings it up to date",
        )
    return int(version)


def _migrate(connection: sqlite3.Connection, path: Path, scripts: Sequence[str]) -> None:
    if _check_version(connection, path, len(scripts)) == len(scripts):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Looked at again: another process may have migrated while we waited for the lock.
        version = _check_version(connection, path, len(scripts))
        for script in scripts[version:]:
            for statement in statements(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(scripts)}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def statements(script: str) -> list[str]:
    """The single statements of a script (``executescript`` would commit before it begins)."""
    found: list[str] = []
    part = ""
    for line in script.splitlines(keepends=True):
        part += line
        if sqlite3.complete_statement(part):
            found.append(part)
            part = ""
    if any(line.strip() and not line.strip().startswith("--") for line in part.splitlines()):
        raise ValueError(f"a migration ends in the middle of a statement: {part.strip():.60}")
    return found
