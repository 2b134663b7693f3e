"""A gate that opens by digits: which are played, and what is answered where not all were."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.amqp import Brokers
from bridge.asterisk_manager import AsteriskManager, ManagerAddress, ManagerError
from bridge.gates import dtmf
from bridge.gates.base import GateAnswer, GateOrder
from bridge.gates.build import build_gate
from bridge.gates.dtmf import DtmfGate
from bridge.settings import DtmfGate as DtmfGateSettings
from bridge.settings import Settings, SettingsError, build
from visits.visit import VisitRules

CHANNEL = "PJSIP/intercom-00000000"


class Asterisk(AsteriskManager):
    """Plays digits, until it fails at one of them."""

    def __init__(self, fails_at: int | None = None, error: ManagerError | None = None) -> None:
        super().__init__(ManagerAddress("http://127.0.0.1:1", "porteiro", "x"))
        self.asked: list[tuple[str, str, int]] = []
        self.fails_at, self.error = fails_at, error

    async def play_digit(self, channel: str, digit: str, duration_ms: int) -> None:
        """As the real one's."""
        self.asked.append((channel, digit, duration_ms))
        if len(self.asked) - 1 == self.fails_at:
            if self.error is None:
                await asyncio.Event().wait()
            else:
                raise self.error


def order(channel: str = CHANNEL) -> GateOrder:
    return GateOrder("v", "jardim", "101", datetime.now(UTC), channel=channel)


def settings(**own: Any) -> DtmfGateSettings:
    return DtmfGateSettings.model_validate({"kind": "dtmf", "duration_ms": 50, "gap_ms": 50, **own})


async def opened(manager: Asterisk, digits: str = "9", channel: str = CHANNEL) -> GateAnswer:
    return await DtmfGate(settings(digits=digits), manager).open(order(channel))


async def test_the_digits_are_played_in_their_order_once_each() -> None:
    manager = Asterisk()
    answer = await opened(manager, "#5*")
    assert answer.opened and not answer.unknown
    assert manager.asked == [(CHANNEL, digit, 50) for digit in "#5*"]


async def test_a_call_that_was_not_registered_keeps_the_gate_closed() -> None:
    manager = Asterisk()
    answer = await opened(manager, channel="")
    assert not answer.opened and not answer.unknown and "not registered" in answer.detail
    assert manager.asked == []


@pytest.mark.parametrize(
    ("digits", "fails_at", "unknown", "known"),
    [("9", 0, False, True), ("9", 0, True, False), ("12", 0, False, True), ("12", 1, False, False)],
)
async def test_what_reached_the_intercom_is_not_called_closed(
    digits: str, fails_at: int, unknown: bool, known: bool
) -> None:
    manager = Asterisk(fails_at, ManagerError("gone", unknown=unknown))
    answer = await opened(manager, digits)
    assert not answer.opened and answer.unknown is not known and "gone" in answer.detail
    assert len(manager.asked) == fails_at + 1, "nothing follows a digit that failed, and none is repeated"


async def test_an_asterisk_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dtmf, "ASKING_S", 0.2)
    answer = await opened(Asterisk(fails_at=1), "12")
    assert not answer.opened and answer.unknown and "1 of 2 digits" in answer.detail


@given(
    digits=st.from_regex(r"\A[0-9A-D*#w]{1,16}\Z"),
    duration=st.integers(50, 1000),
    gap=st.integers(50, 1000),
)
def test_whatever_is_allowed_ends_before_the_visit_gives_the_gate_up(
    digits: str, duration: int, gap: int
) -> None:
    try:
        allowed = settings(digits=digits, duration_ms=duration, gap_ms=gap)
    except ValueError:
        return
    assert digits.strip("w")
    assert allowed.playing_s + dtmf.ASKING_S < VisitRules().gate_s


@pytest.mark.parametrize("digits", ["", "w", "ww", "9 ", "x", "a", "+9", "١", "1" * 17, "9\n"])
def test_what_is_no_digit_is_refused(digits: str) -> None:
    with pytest.raises(ValueError, match="digits"):
        settings(digits=digits)


def tenant(environ: Mapping[str, str], **own: Any) -> Settings:
    return build(
        {"tenants": {"jardim": {"directory": "x.json", **own}}}, base=Path("/"), environ=dict(environ)
    )


GATE = {"kind": "dtmf", "digits": "9"}
MANAGER = {"password_env": "AMI_PASSWORD"}


def test_the_gate_is_made_with_the_tenants_manager() -> None:
    made = tenant({"AMI_PASSWORD": "x"}, gate=GATE, manager=MANAGER)
    assert isinstance(build_gate(made.tenants["jardim"], made.secret, Brokers().lease()), DtmfGate)


def test_the_manager_that_is_needed_is_asked_for() -> None:
    with pytest.raises(SettingsError, match=r"tenants\.jardim.*manager\.password_env.*dtmf"):
        tenant({}, gate=GATE)
    with pytest.raises(SettingsError, match=r"tenants\.jardim.*manager\.password_env.*attendant"):
        tenant({}, attendant={"extension": "attendant"})
    missing = tenant({}, gate=GATE, manager=MANAGER)
    with pytest.raises(SettingsError, match=r"jardim\.manager\.password_env.*AMI_PASSWORD is not set"):
        build_gate(missing.tenants["jardim"], missing.secret, Brokers().lease())
    assert any("manager.password_env: the environment" in line for line in missing.problems_at_start())


def test_what_needs_registered_calls_says_so_where_none_can_be_registered() -> None:
    tree = {"gate": GATE, "manager": MANAGER, "attendant": {"extension": "attendant"}}
    tenants = {"jardim": {"directory": "x.json", **tree}}
    nowhere = build({"service": {"http_listen": []}, "tenants": tenants}, base=Path("/"))
    lines = nowhere.problems_at_start()
    for table in ("gate", "attendant"):
        assert any(f"jardim.{table}: works on calls" in one and "service.http_listen" in one for one in lines)
    there = tenant({"AMI_PASSWORD": "x"}, **tree)
    assert not any("works on calls" in line for line in there.problems_at_start())


@pytest.mark.parametrize("extension", ["", "a,b", "a b", "${X}", "a\nb", "9(x)"])
def test_an_attendant_who_is_no_dial_string_is_refused(extension: str) -> None:
    with pytest.raises(SettingsError, match=r"attendant\.extension"):
        tenant({}, attendant={"extension": extension}, manager=MANAGER)
