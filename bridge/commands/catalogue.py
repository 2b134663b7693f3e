"""What the commands that read and change the catalogue have in common."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime

import structlog

from bridge.commands.audit import SOUND, UNUSABLE, add_database
from bridge.settings import Settings, SettingsError, default_ports, load
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


async def with_stored_tenants(settings: Settings, catalogue: Catalogue) -> Settings:
    """The settings with the tenants of the database beside those of the files.

    One that can't be used is left out: the service refuses it too, and `porteiro check` says why.

    Raises:
        StorageError: the database can't be asked.
    """
    written, found = settings.written, dict(settings.tenants)
    for one in await catalogue.tenants():
        if one.content is not None and one.tenant not in found:
            table = {**default_ports(written.tree.get("service")), **one.content}
            with suppress(SettingsError):
                found[one.tenant] = written.one(one.tenant, table, settings.service)
    return settings.with_tenants(found, written.environ)


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
    "with_stored_tenants",
]
