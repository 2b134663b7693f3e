"""FreeSWITCH's script against a running service: asked over HTTP, streamed to over a WebSocket."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from uuid import UUID

from tests.endpoints.test_audio_stream_service import DOMAIN, OTHER, freeswitch, ours
from tests.freeswitch.lua_host import Call, Switch
from tests.http.people import make_key
from tests.service.doorman import ASKS, Cast, Part
from tests.service.household import Household, household, until
from tests.simulators.audio_stream import Kind, Stream

ENVIRON = {"STREAM_TOKEN": "of jardim", "API_KEY": "a-key-of-21-characters"}


KINDS: tuple[tuple[str, UUID, Kind], ...] = (("jardim", DOMAIN, "base64"), ("bosque", OTHER, "fork"))


async def a_switch(house: Household, tenant: str, kind: Kind) -> Switch:
    """A FreeSWITCH with a key of the tenant's."""
    key = await make_key(house.service, "pbx", tenant)
    variables = {"porteiro_api": f"http://127.0.0.1:{house.service.http_port}", "porteiro_key": key}
    module = "mod_audio_fork" if kind == "fork" else "mod_audio_stream"
    loop = asyncio.get_running_loop()
    return Switch(modules=("mod_curl", module), variables=variables, loop=loop, kind=kind)


def a_call(switch: Switch, domain: UUID) -> Call:
    place = {"porteiro_attendant": "1000", "domain_uuid": str(domain)}
    return Call(switch, destination_number="8001", caller_id_number="201", **place)


async def streaming(call: Call) -> Stream:
    """The call's stream, once our voice is heard there."""
    await until(lambda: call.stream is not None and ours(call.stream) > 200, 15, "our voice")
    assert call.stream is not None
    return call.stream


async def test_calls_from_the_scripts_question_to_the_end_of_their_channels(tmp_path: Path) -> None:
    async with Cast(Part(ASKS)) as cast:
        tenants = {
            "jardim": freeswitch(cast, token_env="STREAM_TOKEN"),
            "bosque": freeswitch(cast, OTHER, playback="fork"),
        }
        async with household(
            tmp_path, tenants, environ=ENVIRON, http_port=0, http_key_env="API_KEY"
        ) as house:
            for tenant, domain, kind in KINDS:
                switch = await a_switch(house, tenant, kind)
                call = a_call(switch, domain)
                script = asyncio.create_task(asyncio.to_thread(switch.run, call))
                stream = await streaming(call)
                assert house.service.open_legs(tenant) == 1
                call.keys.append("5")
                await until(partial(bool, call.texts), what="the key")
                (started,) = house.of(UUID(call.uuid), "visit.started")
                assert (started.data["caller_id"], started.data["dialled"]) == ("201", "8001")
                await house.service.hub.hang_up(UUID(call.uuid), None, "operator:test")
                await asyncio.wait_for(script, 20)
                assert (call.cause, call.gone_to) == ("NORMAL_CLEARING", None), switch.log
                assert not stream.problems
                await until(lambda: house.service.open_legs() == 0, what="the end")

            switch = await a_switch(house, "jardim", "base64")
            stranger = a_call(switch, OTHER)
            await asyncio.to_thread(switch.run, stranger)
            assert stranger.gone_to is not None and "404" in switch.log[-2][1], "the key is another tenant's"
            house.service._draining = True  # what SIGTERM sets
            full = a_call(switch, DOMAIN)
            await asyncio.to_thread(switch.run, full)
            assert full.gone_to == ("1000", "XML", "default") and "503 draining" in switch.log[-2][1]
        gone = a_call(switch, DOMAIN)
        await asyncio.to_thread(switch.run, gone)
        assert gone.gone_to == ("1000", "XML", "default") and "does not answer" in switch.log[-2][1]
