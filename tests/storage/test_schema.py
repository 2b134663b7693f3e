"""The schema's versions: applied in order, whole or not at all, once."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from storage.base import StorageUnavailable
from storage.schema import connect, statements
from storage.versions import scripts

FIRST = "CREATE TABLE a (x);\n-- a comment; with a semicolon\nINSERT INTO a VALUES ('one; two');"
SECOND = (
    "ALTER TABLE a ADD COLUMN y;\nCREATE TRIGGER t AFTER INSERT ON a BEGIN\n  SELECT 1;\n  SELECT 2;\nEND;"
)
BROKEN = "CREATE TABLE b (x);\nINSERT INTO nowhere VALUES (1);"


def opened(path: Path, *scripts: str, read_only: bool = False) -> sqlite3.Connection:
    return connect(path, read_only=read_only, busy_s=5, scripts=scripts)


def version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def test_each_version_is_applied_once_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    opened(path, FIRST).close()
    connection = opened(path, FIRST, SECOND)
    assert version(connection) == 2
    connection.close()
    connection = opened(path, FIRST, SECOND)
    assert connection.execute("SELECT x, y FROM a").fetchall() == [("one; two", None)]
    connection.close()


def test_a_version_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    opened(path, FIRST).close()
    with pytest.raises(StorageUnavailable):
        opened(path, FIRST, BROKEN)
    connection = opened(path, FIRST)
    assert version(connection) == 1
    assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("a",)]
    connection.close()


def test_a_reader_says_that_an_older_database_needs_the_service(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    opened(path, FIRST).close()
    with pytest.raises(StorageUnavailable, match="start the service once") as caught:
        opened(path, FIRST, SECOND, read_only=True)
    assert caught.value.reason == "older"


def test_many_that_make_the_database_at_once_make_one(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    errors: list[Exception] = []

    def make() -> None:
        try:
            opened(path, FIRST, SECOND).close()
        except StorageUnavailable as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    connection = opened(path, FIRST, SECOND)
    assert connection.execute("SELECT count(*) FROM a").fetchone() == (1,)
    connection.close()


def test_a_script_that_ends_in_the_middle_is_an_error() -> None:
    with pytest.raises(ValueError, match="middle"):
        statements("CREATE TABLE a (x);\nCREATE TABLE b (")


def test_our_own_versions_are_numbered_without_gaps() -> None:
    assert len(scripts("sqlite")) >= 1
    assert all(statements(script) for script in scripts("sqlite"))
