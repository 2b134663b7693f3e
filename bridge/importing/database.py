"""Reads an older system's PostgreSQL: `extension_ia`, and the tables of its clients. Never writes."""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from bridge.importing.clients import TABLES
from bridge.importing.extensions import MAX_ROWS, TABLE_NAMES

CONNECT_S = 10.0
LOOK_S = 30.0
"""How long reading all tables may take."""
_COLUMNS: Mapping[str, Sequence[str]] = {
    "extension_ia": TABLE_NAMES,
    "clients": ("client_id", "client_name"),
    "client_sip_numbers": ("client_id", "sip_number"),
    "client_configurations": ("client_id", "voice", "temperature", "max_tokens", "instructions"),
}
_OPTIONAL: Mapping[str, Sequence[str]] = {"clients": ("active",), "client_sip_numbers": ("active",)}


class DatabaseError(Exception):
    """The database can't be reached, or does not hold what is looked for. Names no password."""


@dataclass(frozen=True, slots=True)
class Tables:
    """The rows of the tables that there are, by table."""

    rows: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


def check_url(url: str) -> None:
    """Refuse an address that is none, or has a password: those come from the environment.

    Raises:
        DatabaseError: saying what is allowed.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        named = bool(parts.hostname) and (parts.port is None or parts.port > 0)
        secret = parts.password or "password" in urllib.parse.parse_qs(parts.query)
    except ValueError:
        named, secret = False, None
    if not named or not url.startswith(("postgresql://", "postgres://")):
        raise DatabaseError("the database's address must be like postgresql://user@host:5432/name")
    if secret:
        raise DatabaseError("a password in the address would be seen by others; put it in PGPASSWORD")


async def connect(url: str) -> asyncpg.Connection:
    """A connection; the password comes from PGPASSWORD or ~/.pgpass.

    Raises:
        DatabaseError: there is none to be had.
    """
    try:
        return await asyncpg.connect(url, timeout=CONNECT_S, command_timeout=LOOK_S)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise DatabaseError(f"the database can't be reached: {_why(error)}") from None


async def look(connection: asyncpg.Connection, tables: Sequence[str]) -> Tables:
    """The rows of those of these tables that there are, all as they were at one moment.

    Raises:
        DatabaseError: none of them is there, a column is missing, or the connection is lost.
    """
    try:
        moment = connection.transaction(isolation="repeatable_read", readonly=True)
        async with asyncio.timeout(LOOK_S), moment:
            found = {}
            for table in tables:
                columns = await _columns(connection, table)
                if columns:
                    found[table] = await _rows(connection, table, columns)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise DatabaseError(f"the database can't be read: {_why(error)}") from None
    if not found:
        raise DatabaseError(f"the database has none of the tables {', '.join(tables)}")
    wanted = TABLES if "clients" in found else ()
    if missing := [table for table in wanted if table not in found]:
        raise DatabaseError(f"the database has the table clients, and no table {missing[0]}")
    return Tables(found)


async def _columns(connection: asyncpg.Connection, table: str) -> set[str]:
    rows = await connection.fetch(
        "SELECT attname FROM pg_attribute "
        "WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped",
        table,
    )
    return {row["attname"] for row in rows}


async def _rows(connection: asyncpg.Connection, table: str, there: set[str]) -> Sequence[Mapping[str, Any]]:
    needed = _COLUMNS[table]
    if missing := [name for name in needed if name not in there]:
        raise DatabaseError(f"the table {table} has no column {missing[0]}; needed are {', '.join(needed)}")
    names = [*needed, *(name for name in _OPTIONAL.get(table, ()) if name in there)]
    # The names are our own, of the lists above. One more row than is allowed, so that too many are seen.
    columns = ", ".join(f'"{name}"' for name in names)
    rows = await connection.fetch(f"SELECT {columns} FROM {table} LIMIT {MAX_ROWS + 1}")
    return [dict(row) for row in rows]


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__


__all__ = ["DatabaseError", "Tables", "check_url", "connect", "look"]
