"""`porteiro cost` sums what is on record, by the tenant's days; `porteiro check` says what it can't see."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from bridge.commands.check import run as check
from bridge.commands.cost import add_parser, run
from bridge.costs.models import billed_models, budget_warnings, price_warnings
from bridge.costs.prices import known_prices
from bridge.settings import SettingsError, build, load
from storage.sqlite import SqliteStorage
from visits.audit import stamp

ROOT = Path(__file__).resolve().parents[2]
CONFIG = f"""
[service]
data_dir = "data"

[tenants.jardim]
directory = "{ROOT / "data" / "apartamentos.json"}"
provider = "openai"
cost = {{ currency = "BRL", per_usd = 5.4, daily_budget = 10 }}
"""
LATE = datetime(2026, 11, 21, 2, 30, tzinfo=UTC)
"""Half past eleven at night of the 20th, in São Paulo."""
Cost = Callable[..., str]


async def visited(
    file: Path, tenant: str, at: datetime, amount: str | None, *, complete: bool = True
) -> None:
    async with await SqliteStorage.open(file) as storage:
        visit = str(uuid4())
        await storage.append(tenant, visit, stamp(at), "visit.started", {})
        if amount is not None:
            data = {"amount": amount, "currency": "BRL", "usd": "1", "final": True, "complete": complete}
            more = {**data, "unknown": [], "usage": []}
            await storage.append(tenant, visit, stamp(at), "visit.cost", more)


@pytest.fixture
def cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Cost:
    """The command's output."""
    (tmp_path / "porteiro.toml").write_text(CONFIG)

    def asked(*arguments: str, status: int = 0) -> str:
        parser = argparse.ArgumentParser()
        add_parser(parser.add_subparsers())
        config = ("--config", str(tmp_path / "porteiro.toml"))
        assert run(parser.parse_args(["cost", *config, *arguments])) == status
        printed = capsys.readouterr()
        return printed.out if status == 0 else printed.err

    return asked


def file_of(tmp_path: Path) -> Path:
    return tmp_path / "data" / "porteiro.db"


def test_sums_are_exact_and_by_the_tenant_s_days(tmp_path: Path, cost: Cost) -> None:
    async def house() -> None:
        for amount in ("0.1", "0.2"):
            await visited(file_of(tmp_path), "jardim", LATE, amount)
        await visited(file_of(tmp_path), "jardim", LATE + timedelta(hours=1), "0.000000001", complete=False)
        await visited(file_of(tmp_path), "jardim", LATE + timedelta(hours=2), None)
        await visited(file_of(tmp_path), "jardim", LATE - timedelta(days=25), "7")

    asyncio.run(house())
    told = json.loads(cost("--since", "2026-10-01", "--json"))
    assert told["rows"] == [
        row("2026-11-21", 1, "0.000000001", 1),
        row("2026-11-21", 1, "0", 1, currency=""),
        row("2026-11-20", 2, "0.3", 0),
        row("2026-10-26", 1, "7", 0),
    ]
    by_month = json.loads(cost("--since", "2026-10-01", "--by", "month", "--json"))["rows"]
    assert [(one["period"], one["cost"]) for one in by_month] == [
        ("2026-11", "0.300000001"),
        ("2026-11", "0"),
        ("2026-10", "7"),
    ]
    table = cost("--since", "2026-10-01")
    assert "≥ 0.00" in table and "7.00" in table and "this day's budget:" in table
    lines = cost("--since", "2026-10-01", "--until", "2026-11-01", "--csv").splitlines()
    assert lines == ["period,tenant,visits,cost,currency,incomplete", "2026-10-26,jardim,1,7,BRL,0"]


def row(period: str, visits: int, amount: str, incomplete: int, *, currency: str = "BRL") -> dict[str, Any]:
    return {
        "period": period,
        "tenant": "jardim",
        "visits": visits,
        "cost": amount,
        "currency": currency,
        "incomplete": incomplete,
    }


def test_a_budget_s_standing_is_shown(tmp_path: Path, cost: Cost) -> None:
    asyncio.run(visited(file_of(tmp_path), "jardim", datetime.now(UTC), "10.5"))
    assert "10.50 of 10.00 BRL: used up" in cost()
    (budget,) = json.loads(cost("--json"))["budgets"]
    assert (budget["spent"], budget["budget"], budget["used_up"]) == ("10.5", "10", True)


def test_tenants_of_the_database_have_their_days_and_budgets_too(tmp_path: Path, cost: Cost) -> None:
    async def house() -> None:
        await visited(file_of(tmp_path), "bosque", LATE, "0.5")
        async with await SqliteStorage.open(file_of(tmp_path)) as storage:
            table: dict[str, Any] = {"provider": "openai", "timezone": "America/Manaus"}
            table["cost"] = {"currency": "BRL", "per_usd": 5.4, "monthly_budget": 20}
            for name, settings in (("bosque", table), ("broken", {"provider": "nobody"})):
                await storage.catalogue.put_tenant(name, settings, expected=None, by="x", at=stamp(LATE))

    asyncio.run(house())
    told = json.loads(cost("--json", "--since", "2026-11-01"))
    assert [(row["period"], row["tenant"]) for row in told["rows"]] == [("2026-11-20", "bosque")]
    assert {one["tenant"] for one in told["budgets"]} == {"jardim", "bosque"}


def test_without_an_audit_log_it_says_so(cost: Cost) -> None:
    assert "there is no audit log at" in cost(status=2)


# ---- what can be set, and what check says of it ------------------------------------------------------------


def tree(**cost: Any) -> dict[str, Any]:
    tenant = {"directory": str(ROOT / "data" / "apartamentos.json"), "provider": "openai", "cost": cost}
    return {"tenants": {"jardim": tenant}}


@pytest.mark.parametrize(
    ("cost", "why"),
    [
        ({"currency": "BRL"}, "per_usd as well"),
        ({"per_usd": 2}, "per_usd = 1 for USD"),
        ({"currency": "reais", "per_usd": 5}, "cost.currency: found 'reais'"),
        ({"daily_budget": 0}, "cost.daily_budget: found 0; allowed: a number above 0"),
        ({"daily_budget": True}, "cost.daily_budget: found true"),
        ({"monthly_budget": "much"}, "cost.monthly_budget: found 'much'"),
        ({"prices": {"openai": {"m": {"audio_inn": 1}}}}, "did you mean audio_in?"),
        ({"prices": {"openai": {"m": {}}}}, "either free = true, or at least one price"),
    ],
)
def test_settings_of_costs_that_make_no_sense_are_refused(cost: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingsError) as refused:
        build(tree(**cost))
    assert why in "\n".join(refused.value.problems)


def test_amounts_from_the_environment_and_a_file_are_exact(tmp_path: Path) -> None:
    (tmp_path / "porteiro.toml").write_text(CONFIG)
    environ = {"PORTEIRO_TENANTS__JARDIM__COST__MONTHLY_BUDGET": "300.10"}
    cost = load(tmp_path / "porteiro.toml", environ).tenants["jardim"].cost
    assert (cost.per_usd, cost.daily_budget) == (Decimal("5.4"), Decimal(10))
    assert cost.monthly_budget == Decimal("300.10")
    own = build(tree(prices={"openai": {"m": {"audio_in": 0.1}}})).tenants["jardim"].cost.prices
    assert own["openai"]["m"].audio_in == Decimal("0.1")


def test_prices_by_a_name_that_nobody_bills_by_are_warned_of() -> None:
    tables: dict[str, Any] = {
        "openai": {"gpt-realtime-2.1": {"audio_in": 3}},
        "deepgram": {"*": {"free": True}},
    }
    tenant = {"directory": "x", "provider": "openai", "cost": {"prices": tables}}
    (warning,) = price_warnings(build({"tenants": {"jardim": tenant}}))
    assert warning.startswith("tenants.jardim.cost.prices.deepgram: nobody bills")
    assert warning.endswith("it is billed by openai")


def test_a_budget_that_can_t_see_a_model_is_warned_of() -> None:
    known = build(tree(daily_budget=1))
    assert budget_warnings(known, known_prices()) == []
    unknown = tree(daily_budget=1)
    unknown["tenants"]["jardim"]["model"] = "gpt-of-tomorrow"
    (warning,) = budget_warnings(build(unknown), known_prices())
    assert "the price of openai gpt-of-tomorrow is not known" in warning
    unknown["tenants"]["jardim"]["cost"]["prices"] = {"openai": {"gpt-of-tomorrow": {"audio_in": 1}}}
    assert budget_warnings(build(unknown), known_prices()) == []
    without = tree()
    without["tenants"]["jardim"]["model"] = "gpt-of-tomorrow"
    assert budget_warnings(build(without), known_prices()) == []  # nothing rests on it


def test_check_warns_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-of-nobody")
    nobody = 'provider = "openai"\nmodel = "gpt-of-tomorrow"\nbase_url = "http://127.0.0.1:9/v1"'
    (tmp_path / "porteiro.toml").write_text(CONFIG.replace('provider = "openai"', nobody))
    out = io.StringIO()
    check(argparse.Namespace(config=str(tmp_path / "porteiro.toml")), out)
    (warning,) = [line for line in out.getvalue().splitlines() if "warning: " in line]
    assert "tenants.jardim.cost: a budget is set, and the price of openai gpt-of-tomorrow" in warning


@pytest.mark.parametrize(
    ("provider", "more", "models"),
    [
        ("local", {}, [("local", "")]),
        ("openai", {}, [("openai", "gpt-realtime-2.1"), ("openai", "gpt-transcribe")]),
        ("openai-live", {}, [("openai-live", "gpt-live-1"), ("openai", "gpt-6-luna")]),
        ("gemini", {}, [("gemini", "gemini-3.8-live")]),
        (
            "openai",
            {"fallback": [{"provider": "local"}]},
            [("openai", "gpt-realtime-2.1"), ("openai", "gpt-transcribe"), ("local", "")],
        ),
        (
            "pipeline",
            {"pipeline": {"recognition": {"kind": "deepgram"}}},
            [("deepgram", "nova-3")],
        ),
    ],
)
def test_what_a_tenant_is_billed_for(
    provider: str, more: dict[str, Any], models: list[tuple[str, str]]
) -> None:
    settings = tree()
    settings["tenants"]["jardim"] |= {"provider": provider, **more}
    assert billed_models(build(settings).tenants["jardim"]) == models


def test_a_price_file_that_can_t_be_used_keeps_the_service_from_starting(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("as_of = 3")
    settings = build({**tree(), "service": {"prices_file": str(tmp_path / "mine.toml")}})
    assert any("service.prices_file" in line and "as_of" in line for line in settings.problems_at_start())
