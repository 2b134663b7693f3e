"""Which database the settings name, and that no password is in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.settings import SettingsError, build
from storage.address import database_of


def test_the_database_is_a_file_unless_a_url_says_otherwise(tmp_path: Path) -> None:
    def where(**service: str) -> str:
        return str(build({"service": service}, base=tmp_path, environ={"PGPASSWORD": "hunter2"}).database)

    assert where() == str(tmp_path / "var" / "porteiro.db")
    assert where(database_url="sqlite:///a b.db") == str(tmp_path / "a b.db")
    assert where(database_url="sqlite:////srv/x%3F.db") == "/srv/x?.db"
    url = "postgresql://porteiro@db:5432/porteiro?sslmode=require"
    assert where(database_url=url) == "postgresql://porteiro@db:5432/porteiro"
    settings = build({"service": {"database_url": url}}, base=tmp_path, environ={"PGPASSWORD": "hunter2"})
    assert (settings.database.url, settings.database.password) == (url, "hunter2")
    assert "hunter2" not in repr(settings.database)
    assert settings.service.locked_path == tmp_path / "var" / "journal"


@pytest.mark.parametrize(
    ("service", "said"),
    [
        ({"database": "x.db", "database_url": "sqlite:///y.db"}, "not both"),
        ({"database_url": "postgresql://porteiro:hunter2@db/porteiro"}, "without a password"),
        ({"database_url": "postgresql://db/porteiro?password=hunter2"}, "without a password"),
        ({"database_url": "mysql://db/porteiro"}, "postgresql://USER@HOST"),
        ({"database_url": "postgresql://db"}, "postgresql://USER@HOST"),
        ({"database_url": "sqlite://"}, "sqlite:///FILE"),
    ],
)
def test_a_url_that_is_none_is_refused(service: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        build({"service": service})
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_place_is_told_without_its_password() -> None:
    assert str(database_of("postgresql://porteiro@db/x", "hunter2")) == "postgresql://porteiro@db/x"
