"""What the commands that read and change the catalogue have in common."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime

import structlog

from bridge.commands.audit import SOUND, UNUSABLE, add_database
from bridge.settings import SettingsError, load
from bridge.showing import safe
from storage.base import StorageError, StorageRefused
from storage.catalogue import Catalogue
from storage.opening import open_storage
from visits.audit import stamp

REFUSED = 1
"""The exit status where what was asked for can't be done; nothing was changed then."""
DEADLINE_S = 30.0


class Refused(Exception):
    """What was asked for can't be done; the text says why, in a line or more."""


def add_places(parser: argparse.ArgumentParser) -> None:
    """The options that say which database."""
    parser.add_argument("--config", metavar="FILE", help="default: $PORTEIRO_CONFIG, then ./porteiro.toml")
    add_database(parser)


def carry_out(command: str, args: argparse.Namespace, do: Callable[[], Coroutine[None, None, int]]) -> int:
    """Do it; what goes wrong is said, and is the exit status."""
    try:
        if args.db is None:
            args.db = load(args.config).database
        return asyncio.run(do())
    except SettingsError as error:
        _complain(command, *(f"{error.source}: {line}" for line in error.problems))
        return UNUSABLE
    except (Refused, StorageRefused) as error:
        _complain(command, *str(error).splitlines())
        return REFUSED
    except (StorageError, OSError) as error:
        _complain(command, str(error))
        return UNUSABLE


def _complain(command: str, *lines: str) -> None:
    for line in lines:
        sys.stderr.write(f"porteiro {command}: {safe(line)}\n")


@asynccontextmanager
async def opened_catalogue(args: argparse.Namespace) -> AsyncIterator[Catalogue]:
    """The catalogue of the database, beside a running service too."""
    async with await open_storage(args.db, deadline_s=DEADLINE_S) as storage:
        yield storage.catalogue


@contextmanager
def log_on_stderr() -> Iterator[None]:
    """What is logged meanwhile is not mixed into what a program reads."""
    before = structlog.get_config() if structlog.is_configured() else None
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        yield
    finally:
        if before is None:
            structlog.reset_defaults()
        else:
            structlog.configure(**before)


def author() -> str:
    """Who gives commands here, for the record."""
    return f"command:{getpass.getuser()}"


def now() -> str:
    """The time, for the record."""
    return stamp(datetime.now(UTC))


__all__ = [
    "REFUSED",
    "SOUND",
    "UNUSABLE",
    "Refused",
    "add_places",
    "author",
    "carry_out",
    "log_on_stderr",
    "now",
    "opened_catalogue",
]
