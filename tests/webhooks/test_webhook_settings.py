"""What a tenant's settings may say of its webhooks, and what is wrong with the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bridge.settings import SettingsError
from tests.service.household import settings
from tests.webhooks.receiver import SECRET

WELL = {"url": "https://house.example/events", "secret_env": "HOOK"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"url": "http://house.example/events"}, "allowed: a URL that begins with https://, or with http://"),
        ({"url": "http://8.8.8.8/"}, "allowed: a URL that begins with https://, or with http://"),
        ({"url": "https://house.example:99999/"}, "allowed: a URL whose port is a number from 1 to 65535"),
        ({"url": "https://ana:senha@house.example/"}, "secrets come from the environment"),
        ({"events": ["visit.began"]}, "allowed: 'visit.started', 'visit.decided' or 'visit.ended'"),
        ({"events": []}, "allowed: a list of at least one"),
        ({"timeout_s": 60}, "allowed: a number from 1 to 20"),
        ({"secret_env": SECRET}, "found something that is no variable's name"),
    ],
)
def test_what_can_not_be_is_refused_with_what_can(tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        settings(tmp_path, {"jardim": {"webhooks": {**WELL, **wrong}}}, {"HOOK": SECRET})
    assert f"tenants.jardim.webhooks.{next(iter(wrong))}" in str(refused.value)
    assert said in str(refused.value) and SECRET not in str(refused.value)


@pytest.mark.parametrize("url", ["http://10.0.0.9/open", "http://10.0.0.9:80/open?x=1"])
def test_no_event_goes_to_what_opens_a_gate(tmp_path: Path, url: str) -> None:
    """A device that opens by a POST would open as the visitor rings."""
    gate = {"kind": "http", "url": "http://10.0.0.9/open?door={apartment}", "method": "POST"}
    tenants = {"jardim": {"gate": gate}, "bosque": {"webhooks": {**WELL, "url": url}}}
    with pytest.raises(SettingsError, match=r"tenants\.bosque\.webhooks\.url: .*tenants\.jardim\.gate"):
        settings(tmp_path, tenants, {"HOOK": SECRET})
    tenants["bosque"]["webhooks"]["url"] = "http://10.0.0.9/events"  # the house's system may do both
    assert settings(tmp_path, tenants, {"HOOK": SECRET}).problems_at_start() == []


@pytest.mark.parametrize("url", ["http://10.0.0.5:8000/x", "http://localhost/x", "http://[fd00::1]/x"])
def test_in_clear_within_the_own_network_alone(tmp_path: Path, url: str) -> None:
    built = settings(tmp_path, {"jardim": {"webhooks": {**WELL, "url": url}}}, {"HOOK": SECRET})
    assert built.problems_at_start() == []


def test_a_secret_that_is_none_is_said_before_the_service_starts(tmp_path: Path) -> None:
    webhooks = {**WELL, "ca_file": str(tmp_path / "none.pem")}
    for environ, said in (
        ({}, "the environment variable HOOK is not set"),
        (
            {"HOOK": "hunter2"},
            "the environment variable HOOK holds no key; allowed: 24 to 64 bytes in base64",
        ),
    ):
        first, second = settings(tmp_path, {"jardim": {"webhooks": webhooks}}, environ).problems_at_start()
        assert first.startswith(f"tenants.jardim.webhooks.secret_env: {said}") and "hunter2" not in first
        assert second.startswith("tenants.jardim.webhooks.ca_file: ") and second.endswith("no such file")
