"""`porteiro db`: the version of the database's schema, and bringing it up to date."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TextIO

from bridge.settings import SettingsError, load
from storage.base import StorageError
from storage.maintenance import current, upgrade

DEADLINE_S = 600.0
"""For an upgrade: an index over a million records takes a while."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its options."""
    parser = subparsers.add_parser(
        "db",
        help="say or change the version of the database's schema",
        description="The service starts only on a schema of its own version. SQLite's file is brought up to "
        "date by the service itself; a PostgreSQL by `porteiro db upgrade` alone.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="upgrade|current")
    for name, text in (
        ("upgrade", "bring it to this program's version: whole, or not at all"),
        ("current", "say which version it is of; exit 1 where that is not this program's"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument(
            "--config", metavar="FILE", help="default: $PORTEIRO_CONFIG, then ./porteiro.toml"
        )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, out: TextIO | None = None) -> int:
    """Do it; 1 where it can't be done, or where the version is another."""
    out = sys.stdout if out is None else out
    try:
        database = load(arguments.config).database
        if arguments.action == "upgrade":
            before, after = asyncio.run(upgrade(database, DEADLINE_S))
            done = f"schema {before} → {after}" if before != after else f"schema {after} already"
            out.write(f"{database}: {done}\n")
            return 0
        version, wanted = asyncio.run(current(database, DEADLINE_S))
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except StorageError as error:
        sys.stderr.write(f"porteiro db: {error}\n")
        return 1
    if version == wanted:
        out.write(f"{database}: schema {version}, which this program needs\n")
        return 0
    do = "run `porteiro db upgrade`" if version < wanted else "run the version of Porteiro that wrote it"
    out.write(f"{database}: schema {version}; this program needs {wanted}: {do}\n")
    return 1
