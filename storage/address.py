"""Where the store is, as a URL says it: ``sqlite:////var/lib/porteiro/porteiro.db`` or ``postgresql://…``."""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass
from pathlib import Path

POSTGRESQL = ("postgresql", "postgres")


@dataclass(frozen=True, slots=True)
class Database:
    """Where the store is: SQLite's file, or PostgreSQL's URL and the password for it."""

    file: Path | None = None
    url: str = ""
    password: str | None = None

    def __str__(self) -> str:
        """For people: no password."""
        return str(self.file) if self.file is not None else place_of(self.url)

    def __repr__(self) -> str:
        """The same: it ends up in logs."""
        return f"Database({self})"


def database_of(url: str, password: str | None = None) -> Database:
    """What a URL names.

    Raises:
        ValueError: what is allowed, where it is none.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "sqlite" and not parts.netloc and parts.path.strip("/"):
        return Database(file=Path(urllib.parse.unquote(parts.path.removeprefix("/"))))
    if parts.scheme in POSTGRESQL and parts.path.strip("/"):
        if parts.password is not None or "password" in urllib.parse.parse_qs(parts.query):
            raise ValueError("a URL without a password in it; it comes from the environment")
        return Database(url=url, password=password)
    raise ValueError("sqlite:///FILE (sqlite:////FILE from the root on) or postgresql://USER@HOST:PORT/NAME")


def place_of(url: str) -> str:
    """A database's URL for people: without a password, and without what TLS is set up with."""
    parts = urllib.parse.urlsplit(url)
    user = f"{parts.username}@" if parts.username else ""
    return f"{parts.scheme}://{user}{parts.netloc.rpartition('@')[2]}{parts.path}"
