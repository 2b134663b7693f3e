"""The benchmark of the store fills and measures both databases, and one that it filled before as it is."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from bench import storage as bench
from storage.sqlite import SqliteStorage
from tests.storage.test_store import Visit


async def test_both_databases_are_filled_and_measured_side_by_side(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("TENANTS", 20), ("LOOKS", 3), ("APPENDS_S", 0.05), ("PROCESSES", [1])):
        monkeypatch.setattr(bench, name, value)
    file = tmp_path / "porteiro.db"
    names = [f"sqlite:///{file}", postgres_url]
    found = await bench.run(names, 1400)
    assert list(found) == [str(file), postgres_url]
    for one in found.values():
        assert one["records"] > 1400 and one["filled_s"] > 0
        assert all(took["p50_ms"] > 0 for name in bench.GOALS_MS for took in one[name].values())
    shown = io.StringIO()
    bench.show(found, Console(file=shown, width=160))
    assert "review: visits: denied" in shown.getvalue() and "missed: " in shown.getvalue()

    (again,) = (await bench.run(names[:1], 1400)).values()
    assert again["filled_s"] is None and again["records"] > found[str(file)]["records"]


async def test_a_log_of_others_is_left_alone(tmp_path: Path) -> None:
    async with await SqliteStorage.open(tmp_path / "porteiro.db") as storage:
        await Visit(storage).begin()
        with pytest.raises(ValueError, match="found records of tenant 'jardim'; allowed: none"):
            await bench.run([f"sqlite:///{tmp_path / 'porteiro.db'}"], 1400)
        assert await storage.tenants() == ["jardim"]


def test_what_is_too_slow_is_named() -> None:
    took = {"p50_ms": 1.0, "p95_ms": 6.0}
    found = {"call": {"a": took}, "review": {"b": took}, "verify": {"1": {"a_second": 99_999.0}}}
    assert bench.missed(found) == [
        "a: 6 ms, allowed are 5",
        "verify: 99,999 records a second, allowed are 100,000 or more",
    ]
