"""Calls that a real Asterisk registers over HTTP before they come, by the example dialplan as it is."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from tests.pbx.asterisk import HOST, Asterisk
from tests.pbx.phone import ATTENDANT, Phone
from tests.ports import free_port
from tests.service.doorman import AGREES, ASKS, Cast, Part
from tests.service.household import Household, household, until, with_cast

pytestmark = [pytest.mark.pbx, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]

KEY = "change-me-registrations"
EXTENSIONS = ("portaria", "portaria16", "portariaws")
TENANTS: dict[str, dict[str, Any]] = {
    "jardim": {"registration": "required", "numbers": EXTENSIONS},
    "bosque": {"registration": "optional"},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Household]:
    """A service with the HTTP API and a port for WebSocket channels."""
    path = tmp_path_factory.mktemp("house")
    async with Cast(Part(ASKS, AGREES)) as cast:
        tenants = {name: with_cast(cast, **own) for name, own in TENANTS.items()}
        async with household(
            path, tenants, environ={"API_KEY": KEY}, http_port=0, http_key_env="API_KEY", websocket_port=0
        ) as running:
            yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asterisk(run_asterisk: Callable[..., Asterisk], house: Household) -> Asterisk:
    """Asterisk, which knows the API's key and where WebSocket channels go."""
    uri = f"ws://{HOST}:{house.service.websocket_port}/asterisk/jardim/visitor"
    site = {"websocket_client.conf": f"[porteiro](+)\nuri = {uri}\n"}
    return await asyncio.to_thread(run_asterisk, site, PORTEIRO_API_KEY=KEY)


@pytest_asyncio.fixture(loop_scope="module")
async def attendant(asterisk: Asterisk) -> AsyncIterator[Phone]:
    """The attendant's telephone."""
    async with Phone(asterisk.sip, *ATTENDANT, codec="PCMU") as phone:
        yield phone


async def dialplan(asterisk: Asterisk, **settings: str) -> None:
    """Set global variables of the dialplan."""
    for name, value in settings.items():
        await asterisk.ask(f'dialplan set global {name} "{value}"')


async def point_to(asterisk: Asterisk, house: Household, tenant: str, api: str | None = None) -> None:
    """Tell the dialplan whose calls these are, and where they are registered; None: at the service."""
    await dialplan(
        asterisk,
        PORTEIRO=f"{HOST}:{house.service.ports(tenant)[0]}",
        PORTEIRO_API=f"http://{HOST}:{house.service.http_port}" if api is None else api,
        PORTEIRO_API_KEY=KEY,
    )


async def becomes_a_visit(
    asterisk: Asterisk, house: Household, intercom: Phone, extension: str
) -> tuple[dict[str, Any], str]:
    """A call becomes a visit: its start as it is on record, and the call's channel. The call is ended."""
    known = {one.visit for one in house.seen}
    call = await intercom.call(extension)
    await call.wait_answered()
    await until(lambda: {one.visit for one in house.seen} - known, what="the visit")
    channel = next(one.name for one in await asterisk.channels() if one.name.startswith("PJSIP/"))
    (visit,) = {one.visit for one in house.seen} - known
    await call.hang_up()
    assert await house.service.visit_over(UUID(visit), 20)
    (started,) = [one for one in await house.records(visit) if one.kind == "visit.started"]
    return dict(started.data), channel


async def goes_to_the_attendant(house: Household, intercom: Phone, attendant: Phone, extension: str) -> None:
    """A call that no visit comes of, and that a person answers."""
    visits = len(await house.service.storage.visits())
    call = await intercom.call(extension)
    theirs = await attendant.next_call()
    await theirs.wait_answered()
    assert len(await house.service.storage.visits()) == visits
    await call.hang_up()
    await theirs.wait_closed()


@pytest.mark.parametrize("extension", EXTENSIONS)
async def test_a_call_is_registered_with_its_caller_its_channel_and_what_was_dialled(
    asterisk: Asterisk, house: Household, intercom: Phone, extension: str
) -> None:
    await point_to(asterisk, house, "jardim")
    started, channel = await becomes_a_visit(asterisk, house, intercom, extension)
    assert (started["caller_id"], started["dialled"], started["channel"]) == ("intercom", extension, channel)
    assert started["endpoint"] == ("asterisk_websocket" if extension == "portariaws" else "audiosocket")
    assert not await asterisk.quiet()


@pytest.mark.parametrize("extension", EXTENSIONS)
async def test_what_must_be_registered_and_is_not_goes_to_the_attendant(
    asterisk: Asterisk, house: Household, intercom: Phone, attendant: Phone, extension: str
) -> None:
    await point_to(asterisk, house, "jardim", "")  # the dialplan registers nothing
    await goes_to_the_attendant(house, intercom, attendant, extension)
    assert not await asterisk.quiet()


async def test_a_wrong_key_is_in_asterisks_log_and_the_call_goes_to_the_attendant(
    asterisk: Asterisk, house: Household, intercom: Phone, attendant: Phone
) -> None:
    await point_to(asterisk, house, "jardim")
    await dialplan(asterisk, PORTEIRO_API_KEY="another-key-altogether")
    await goes_to_the_attendant(house, intercom, attendant, "portaria")
    assert f"is not registered at http://{HOST}:{house.service.http_port}" in asterisk.log()


@pytest.mark.parametrize("api", ["hangs", "is away"])
async def test_an_api_that_is_slow_or_away_keeps_no_visitor_waiting(
    asterisk: Asterisk, house: Household, intercom: Phone, api: str
) -> None:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()  # it takes the connection and never says a word: who waits for it is never answered
        port = listener.getsockname()[1] if api == "hangs" else free_port()
        await point_to(asterisk, house, "bosque", f"http://{HOST}:{port}")
        started, _ = await becomes_a_visit(asterisk, house, intercom, "portaria")
    assert "channel" not in started  # a visit all the same: here registration is optional
    assert not await asterisk.quiet()
