"""The dialer and the gate by themselves, what may be set, and what `porteiro check` says of brokers."""

from __future__ import annotations

import asyncio
import io
import json
from argparse import Namespace
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aiormq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.amqp import Broker
from bridge.amqp_address import read_address
from bridge.commands.check import run as check_command
from bridge.dialing.amqp import AmqpDialer
from bridge.dialing.amqp_message import CLICK_TO_CALL, PLACEHOLDERS, check, fill
from bridge.dialing.base import DialOrder
from bridge.gates.amqp import AmqpGate
from bridge.gates.base import GateOrder
from bridge.settings import AmqpDialer as AmqpDialerSettings
from bridge.settings import AmqpGate as AmqpGateSettings
from bridge.settings import SettingsError, build
from tests.amqp.rabbit import Rabbit, Wire
from tests.amqp.site import CALLS, DOOR
from tests.service.household import ROOT
from visits.events import DialOutcome

VALUES: Mapping[str, str | int] = {name: f"<{name}>" for name in PLACEHOLDERS} | {"timestamp": 7}


def order(number: str = "1003030", ring_s: float = 0.2) -> DialOrder:
    return DialOrder(uuid4(), uuid4(), "jardim", number, ("127.0.0.1",), 8081, ring_s)


def gate_order(visit: UUID) -> GateOrder:
    return GateOrder(str(visit), "jardim", "501", datetime.now(UTC), "Renata", "Pedro", "visita")


def dialer(broker: Broker, **own: Any) -> AmqpDialer:
    return AmqpDialer(AmqpDialerSettings(kind="amqp", **own), broker)


# -- the message


def test_the_usual_order_is_what_click_to_call_systems_take() -> None:
    check(CLICK_TO_CALL)
    assert fill(CLICK_TO_CALL, VALUES) == {
        "data": {"destiny": "IA", "guid": "<visit>", "license": "<license>", "origin": "<number>"},
        "operation": {
            "eventcode": "8001",
            "guid": "cmd-<visit>",
            "msg": "",
            "timestamp": 7,
            "type": "clicktocall",
        },
    }


@given(st.text(), st.text())
def test_nothing_that_is_filled_in_becomes_structure(number: str, license: str) -> None:
    """A directory or a setting with quotes and braces in it stays a text, and is not filled a second time."""
    filled = fill(CLICK_TO_CALL, {**VALUES, "number": number, "license": license})
    again = json.loads(json.dumps(filled))
    assert again["data"]["origin"] == number
    assert again["data"]["license"] == license
    assert set(again["data"]) == {"destiny", "guid", "license", "origin"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("ab {}vistnumber", max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(JSON)
def test_what_the_check_lets_pass_can_be_filled(message: Any) -> None:
    whole = {"a": message, "number": "{number}", "visit": "x{visit}"}
    try:
        check(whole)
    except ValueError:
        return
    filled = fill(whole, VALUES)
    assert (filled["number"], filled["visit"]) == ("<number>", "x<visit>")


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"to": "{number}", "id": "{vist}"}, "not {vist}"),
        ({"id": "{visit}"}, "whom to call"),
        ({"to": "{number}"}, "what the call comes back with"),
    ],
)
def test_a_message_that_could_not_work_is_refused_at_the_start(message: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError) as told:
        build({"tenants": {"jardim": {"directory": "x", "dialer": {"kind": "amqp", "message": message}}}})
    assert said in str(told.value)


# -- settings


def tree(**own: Any) -> dict[str, Any]:
    usual = {"directory": str(ROOT / "data" / "apartamentos.json"), "provider": "openai"}
    return {"tenants": {"jardim": usual | own}}


def test_a_call_must_be_able_to_come_back() -> None:
    amqp = {"kind": "amqp", "visit_uuid_on_resident_port": False}
    with pytest.raises(SettingsError, match="visit_uuid_on_resident_port = true"):
        build(tree(dialer=amqp))
    with_attempt = build(tree(dialer={**amqp, "message": {"to": "{number}", "id": "{attempt}"}}))
    assert with_attempt.tenants["jardim"].dialer.visit_uuid_on_resident_port is False
    assert build(tree(dialer={"kind": "amqp"})).tenants["jardim"].dialer.visit_uuid_on_resident_port


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "AMQP_URL is not set"),
        ("http://u:hunter2@host", "AMQP_URL holds no URL of a broker"),
        ("amqp://u:hunter2@host:port", "AMQP_URL holds no URL of a broker"),
        ("amqp://host/", "AMQP_URL holds a URL without a user and a password"),
    ],
)
def test_a_url_that_is_none_is_said_before_the_start_and_never_quoted(url: str, said: str) -> None:
    settings = build(
        tree(dialer={"kind": "amqp"}, gate={"kind": "amqp"}), environ={"AMQP_URL": url, "OPENAI_API_KEY": "k"}
    )
    problems = settings.problems_at_start()
    assert [line.partition(":")[0] for line in problems] == [
        "tenants.jardim.dialer.url_env",
        "tenants.jardim.gate.url_env",
    ]
    assert all(said in line and "hunter2" not in line for line in problems)


@given(st.text())
def test_any_text_as_a_url_is_an_address_or_an_error_in_words(text: str) -> None:
    try:
        address = read_address(text)
    except ValueError as error:
        said = str(error)
    else:
        said = ""
        assert address.host and address.user
    assert not said or "allowed: amqp://" in said


def test_the_password_is_in_no_text() -> None:
    address = read_address("amqps://por%20teiro:hunter2@[::1]:1234/condom%C3%ADnio")
    assert (address.name, address.user, address.vhost) == (
        "RabbitMQ at [::1]:1234",
        "por teiro",
        "condomínio",
    )
    assert "hunter2" not in repr(address) + address.name


# -- the dialer and the gate, with the broker


@pytest.mark.rabbitmq
async def test_nobody_answering_is_said_when_the_ring_time_is_over(rabbit: Rabbit, broker: Broker) -> None:
    asked = order("sip:1003030@condominio.local", 0.5)
    began = asyncio.get_running_loop().time()
    result = await dialer(broker).dial(asked)
    assert result.outcome is DialOutcome.NO_ANSWER
    assert 0.45 <= asyncio.get_running_loop().time() - began < 2
    await asyncio.sleep(0.3)  # the order's own time began when the broker had it
    assert await rabbit.take(CALLS) == []


@pytest.mark.rabbitmq
async def test_an_order_of_the_sites_own_making(rabbit: Rabbit, broker: Broker) -> None:
    message = {"call": {"to": "{address}", "ext": "{number}"}, "ids": ["{attempt}", "{visit}"], "n": 1}
    asked = order("sip:101@condominio.local", 5)
    task = asyncio.create_task(dialer(broker, message=message, queue=DOOR).dial(asked))
    await asyncio.sleep(0.3)
    (found,) = await rabbit.take(DOOR)
    task.cancel()
    assert found.pop("_").message_id == str(asked.attempt)
    assert found == {
        "call": {"to": "sip:101@condominio.local", "ext": "101"},
        "ids": [str(asked.attempt), str(asked.visit)],
        "n": 1,
    }


@pytest.mark.rabbitmq
async def test_a_number_that_is_none_is_not_called(rabbit: Rabbit, broker: Broker) -> None:
    assert (await dialer(broker).dial(order("101&Local/9"))).outcome is DialOutcome.INVALID
    assert await rabbit.take(CALLS) == []


@pytest.mark.rabbitmq
@pytest.mark.parametrize("cut", [False, True])
async def test_a_hundred_visits_at_once(rabbit: Rabbit, wire: Wire, wired: Broker, cut: bool) -> None:
    """Each is called and let in once. Where the wire is cut in their middle, none is more than once, and what
    is said of each is true."""
    wire.cut_after = 100 if cut else 0
    call, gate = dialer(wired, timeout_s=15), AmqpGate(AmqpGateSettings(kind="amqp", timeout_s=20), wired)
    taken = await _taking(rabbit)

    async def visit(asked: DialOrder) -> tuple[DialOutcome | None, bool, bool]:
        result = await call.dial(asked)
        answer = await gate.open(gate_order(asked.visit))
        return result.outcome, answer.opened, answer.unknown

    orders = [order(ring_s=1.0) for _ in range(100)]
    results = dict(
        zip((str(one.visit) for one in orders), await asyncio.gather(*map(visit, orders)), strict=True)
    )
    await asyncio.sleep(0.5)
    called = Counter(message["data"]["guid"] for message in await anext(taken))
    opened = Counter(message["call_id"] for message in await rabbit.take(DOOR))
    assert set(called.values()) | set(opened.values()) == {1}
    for one, (outcome, said_open, unknown) in results.items():
        assert outcome in (DialOutcome.NO_ANSWER, DialOutcome.FAILED)
        assert called[one] or outcome is DialOutcome.FAILED
        assert opened[one] == 1 if said_open else unknown or opened[one] == 0
    if not cut:
        assert len(called) == len(opened) == 100
        assert all(result == (DialOutcome.NO_ANSWER, True, False) for result in results.values())
    else:
        assert any(outcome is DialOutcome.FAILED or unknown for outcome, _, unknown in results.values())


async def _taking(rabbit: Rabbit) -> AsyncIterator[list[dict[str, Any]]]:
    """Take every order for a call from now on; what it returns gives what came, once, and stops."""
    connection = await aiormq.connect(rabbit.url())
    found: list[dict[str, Any]] = []

    async def take(message: Any) -> None:
        found.append(json.loads(message.body))

    channel = await connection.channel()
    await channel.basic_consume(CALLS, take, no_ack=True)

    async def give() -> AsyncIterator[list[dict[str, Any]]]:
        await connection.close()
        yield found

    return give()


# -- porteiro check


@pytest.mark.rabbitmq
@pytest.mark.usefixtures("provider_there")
async def test_check_says_in_words_how_brokers_and_queues_stand(
    rabbit: Rabbit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "porteiro.toml"
    table = f'[tenants.jardim]\ndirectory = "{ROOT / "data" / "apartamentos.json"}"\nprovider = "openai"\n'
    config.write_text(table + 'dialer = { kind = "amqp" }\ngate = { kind = "amqp", queue = "nowhere" }\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    at = f"RabbitMQ at 127.0.0.1:{rabbit.port}"

    async def told(url: str) -> tuple[int, str]:
        monkeypatch.setenv("AMQP_URL", url)
        out = io.StringIO()
        status = await asyncio.to_thread(check_command, Namespace(config=str(config)), out)
        return status, out.getvalue()

    status, text = await told(rabbit.url())
    assert status == 1
    assert f"tenants.jardim.dialer: {at}: nobody takes messages from the queue {CALLS} now" in text
    assert f"tenants.jardim.gate: {at} has no queue nowhere (virtual host /); have the site's system" in text
    status, text = await told(rabbit.url("hunter2"))
    assert status == 1 and "hunter2" not in text
    assert f"tenants.jardim.dialer, tenants.jardim.gate: {at} refuses the login of guest" in text
    config.write_text(table + 'dialer = { kind = "amqp" }\n')
    taken = await _taking(rabbit)
    status, text = await told(rabbit.url())
    assert status == 0, text
    assert f"tenants.jardim.dialer: {at} answers, and has the queue {CALLS}, 1 take from it" in text
    await anext(taken)
