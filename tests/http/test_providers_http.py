"""`/v1/providers`: what a real service's breaker, visits and bills say of each tenant's providers."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import httpx2
import pytest

from bridge.http.providers import percentile
from tests.http.streams import follow, key_for
from tests.service.doorman import AGREES, ASKS, Cast, Part
from tests.service.household import household, with_cast
from tests.simulators.openai_realtime import Faults

PART = Part(ASKS, AGREES)
REFUSED = Faults(refuse=(401, b'{"error":{"code":"invalid_api_key"}}'))


async def test_who_is_passed_over_how_quickly_the_others_answer_and_what_today_cost(tmp_path: Path) -> None:
    async with Cast(PART, faults=REFUSED) as bad, Cast(PART) as good:
        tenants = {
            "jardim": with_cast(bad, fallback=[{"provider": "openai", "base_url": good.url}]),
            "bosque": with_cast(good),
        }
        async with household(tmp_path, tenants, http_port=0) as house:
            url = f"http://127.0.0.1:{house.service.http_port}"
            async with httpx2.AsyncClient(base_url=url, timeout=20) as client:
                mine = await key_for(house.service, "viewer", "jardim")
                (before,) = (await client.get("/v1/providers", headers=mine)).json()["items"]
                assert [one["state"] for one in before["providers"]] == ["unknown", "unknown"]
                assert [one["response_p50_ms"] for one in before["providers"]] == [None, None]

                async with follow(client, mine, "?kinds=provider.state") as stream:
                    await house.visit("jardim", visit=uuid4())
                    told = await stream.until("provider.state")
                    assert (told.data["tenant"], told.data["visit"]) == ("jardim", "")
                    assert (told.data["data"]["state"], told.data["data"]["code"]) == (
                        "passed_over",
                        "key_refused",
                    )
                await house.visit("bosque", visit=uuid4())

                (shown,) = (await client.get("/v1/providers", headers=mine)).json()["items"]
                assert shown["tenant"] == "jardim"
                first, second = shown["providers"]
                assert (first["state"], first["code"]) == ("passed_over", "key_refused")
                assert 0 < first["passed_over_s"] <= 120
                assert (second["state"], second["code"], second["passed_over_s"]) == ("well", "", 0)
                assert second["responses"] >= 1
                assert 0 < second["response_p50_ms"] <= second["response_p95_ms"] < 20_000
                assert (shown["currency"], shown["visits_today"]) == ("USD", 1)
                assert float(shown["cost_today"]) > 0
                assert "a key" not in str(shown) and "base_url" not in str(shown)

                both = await key_for(house.service, "viewer")
                page = (await client.get("/v1/providers?limit=1", headers=both)).json()
                assert [one["tenant"] for one in page["items"]] == ["bosque"]
                rest = (await client.get(f"/v1/providers?after={page['next']}", headers=both)).json()
                assert [one["tenant"] for one in rest["items"]] == ["jardim"] and rest["next"] is None
                other = await client.get("/v1/providers?tenant=bosque", headers=mine)
                assert other.status_code == 404
                wrong = await client.get("/v1/providers?after=x", headers=both)
                assert wrong.status_code in (400, 422)


@pytest.mark.parametrize(
    ("ordered", "part", "found"),
    [
        ([], 0.5, None),
        ([7.0], 0.95, 7.0),
        ([1.0, 2.0, 3.0, 4.0], 0.5, 2.0),
        (list(map(float, range(1, 101))), 0.95, 95.0),
    ],
)
def test_percentiles(ordered: list[float], part: float, found: float | None) -> None:
    assert percentile(ordered, part) == found
