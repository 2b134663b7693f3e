"""Sees to it that one service at a time answers for a database: a lock beside it, held while it runs.

At its start a service closes the visits that a crash left open. Were another service still running on the
same database, those would be its visits, with people on the phone. Readers (``porteiro audit``) need no lock.

The lock is the operating system's (``flock``) on ``<database>.lock``: it ends with the process, however that
ends. The file itself stays; in it stands the process that locked it last.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Final, Self

from storage.base import Reason, StorageUnavailable

PATIENCE_S: Final = 1.0
"""How long to wait for a lock that is held: for a service that is just going, or somebody's look at it."""

_PAUSE_S: Final = 0.05


def lock_file(database: Path) -> Path:
    """The lock's file. Links are followed: one database has one lock, whatever it is called."""
    real = database.resolve()
    return real.with_name(f"{real.name}.lock")


class DatabaseLock:
    """A held lock. Made by :meth:`take`."""

    def __init__(self, handle: int) -> None:
        """Use :meth:`take`."""
        self._handle: int | None = handle

    @classmethod
    def take(cls, database: Path, patience_s: float = PATIENCE_S) -> Self:
        """Lock the database for this process. Blocks for up to ``patience_s``; not for an event loop.

        Raises:
            StorageUnavailable: another process holds it (``in-use``; the text names it), or this file system
                can't lock.
        """
        path = lock_file(database)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            reason: Reason = "read-only" if isinstance(error, PermissionError) else "io"
            raise StorageUnavailable(reason, f"{path}: {error.strerror}") from error
        try:
            _lock(handle, path, database, time.monotonic() + patience_s)
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            os.close(handle)
            raise StorageUnavailable("io", f"{path}: can't be locked: {error.strerror}") from error
        except BaseException:
            os.close(handle)
            raise
        return cls(handle)

    def fileno(self) -> int:
        """For a process that is started with it: the lock then ends with the last process that has it.

        Raises:
            ValueError: it was released.
        """
        if self._handle is None:
            raise ValueError("the lock was released")
        return self._handle

    def release(self) -> None:
        """Let another have it. More than once is harmless."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)


def _lock(handle: int, path: Path, database: Path, until: float) -> None:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise StorageUnavailable(
                    "in-use",
                    f"{database} is in use: {_named(_process_in(handle))} serves with it already "
                    f"(it holds {path}); end that one, or give this one a database of its own "
                    "(service.database or service.data_dir)",
                ) from None
            time.sleep(_PAUSE_S)
        else:
            return


def _named(process: int | None) -> str:
    return "another porteiro" if process is None else f"another porteiro, process {process},"


def _process_in(handle: int) -> int | None:
    text = os.pread(handle, 32, 0).strip()
    return int(text) if text.isdigit() else None


def in_use(database: Path) -> str | None:
    """Who serves with a database now, in words; None where nobody does, or where that can't be told.

    Takes a shared lock for a moment, and changes nothing.
    """
    try:
        handle = os.open(lock_file(database), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # never locked, or not ours to read: then nobody of ours serves with it
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        process = _process_in(handle)
        return "another process" if process is None else f"process {process}"
    except OSError:  # a file system that can't lock: whoever starts there is told so
        return None
    finally:
        os.close(handle)
    return None
