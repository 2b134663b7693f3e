"""ARI's dialer within the settings and the service: what may be set, what is shared, what a visitor hears."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bridge.dialing.ari import AriDialer
from bridge.dialing.ari_connection import AriConnection
from bridge.dialing.ari_rest import AriAddress
from bridge.service import Service
from bridge.settings import AriDialer as AriSettings
from bridge.settings import SettingsError, build
from tests.dialing.fake_ari import PASSWORD, USER, FakeAri
from tests.service.doorman import ASKS, Cast, Part
from tests.service.household import ROOT, household, until, with_cast
from visits.events import DialOutcome


def tree(**dialer: Any) -> dict[str, Any]:
    chosen = {"kind": "ari", "password_env": "ARI_PASSWORD", **dialer}
    return {"tenants": {"jardim": {"directory": "x.json", "dialer": chosen}}}


@pytest.mark.parametrize(
    ("dialer", "says"),
    [
        ({"url": "ws://127.0.0.1/ari"}, "dialer.url: found 'ws://127.0.0.1/ari'; allowed: a URL that begins"),
        ({"url": "http://u:p@127.0.0.1/ari"}, "dialer.url: found 'http://…@127.0.0.1/ari'"),
        ({"url": "http://10.0.0.9:8088/ari"}, "allowed: audiosocket as well: Asterisk is on 10.0.0.9"),
        ({"audiosocket": "10.0.0.5:8081,extra"}, "dialer.audiosocket: found '10.0.0.5:8081,extra'"),
        ({"dial_string": "PJSIP/101"}, "allowed: a dial string such as PJSIP/{number}"),
        ({"app": "a b"}, "dialer.app: found 'a b'"),
        ({"context": "a,b"}, "dialer.context: found 'a,b'"),
        ({"caller_id": "a\nb"}, "dialer.caller_id: found"),
        ({"password_env": "my password"}, "dialer.password_env: found something that is no variable's name"),
        ({"password": "x"}, "dialer.password: secrets don't belong in the settings"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_dialer_is_said(dialer: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError) as error:
        build(tree(**dialer))
    (line,) = error.value.problems
    assert says in line


@pytest.mark.parametrize(
    ("given", "host", "port"),
    [
        ("", "", None),
        ("10.0.0.5", "10.0.0.5", None),
        ("[::1]:99", "::1", 99),
        ("pbx.lan:8081", "pbx.lan", 8081),
    ],
)
def test_the_address_for_asterisk_is_taken_apart(given: str, host: str, port: int | None) -> None:
    dialer = build(tree(audiosocket=given)).tenants["jardim"].dialer
    assert isinstance(dialer, AriSettings)
    assert dialer.audiosocket_parts == (host, port)


async def test_tenants_of_one_ari_share_one_connection_and_the_service_ends_it(tmp_path: Path) -> None:
    async with FakeAri() as pbx, Cast() as cast:
        ari = {"kind": "ari", "url": pbx.url, "password_env": "ARI_PASSWORD"}
        tenants = {
            "jardim": with_cast(cast, dialer=ari),
            "lago": with_cast(cast, dialer=ari),
            "serra": with_cast(cast, dialer={**ari, "app": "porteiro-2"}),
        }
        usual = {"directory": str(ROOT / "data" / "apartamentos.json"), "provider": "openai"}
        listen = {
            "data_dir": str(tmp_path),
            "listen": ["127.0.0.1"],
            "visitor_port": 0,
            "resident_port": 0,
            "http_port": None,
        }
        service = Service(
            build(
                {"service": listen, "tenants": {name: usual | own for name, own in tenants.items()}},
                environ={"ARI_PASSWORD": PASSWORD, "OPENAI_API_KEY": "a key"},
            )
        )
        await service.start()
        await until(lambda: pbx.listeners == 2, what="two event sockets for two applications")
        await service.stop()
        await until(lambda: pbx.listeners == 0, what="their end")


async def test_a_visitor_hears_that_nobody_can_be_called_when_ari_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with FakeAri() as pbx:
        url = pbx.url
    monkeypatch.setattr("bridge.dialing.ari.READY_S", 0.3)
    chosen = AriSettings.model_validate({"kind": "ari", "url": url, "password_env": "ARI_PASSWORD"})
    dialer = AriDialer(chosen, AriConnection(AriAddress(url, USER, PASSWORD, chosen.app)))
    async with (
        Cast(Part(ASKS, ())) as cast,
        household(tmp_path, {"jardim": with_cast(cast)}, dialers={"jardim": dialer}) as house,
    ):
        phone = await house.visit("jardim")
        outcome = await house.outcome(phone.call_id)
        ended = [one for one in await house.records(phone.call_id) if one.kind == "dial.ended"]
    assert outcome[0] == "unreachable" and not outcome[2]
    assert [one.data["outcome"] for one in ended] == [DialOutcome.FAILED.value] * 2
    assert all("does not answer: Connection refused" in one.data["detail"] for one in ended)
