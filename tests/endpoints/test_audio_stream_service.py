"""FreeSWITCH's audio streams through the service: whose they are, who may, what is heard of us."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from websockets.exceptions import InvalidStatus

from bridge.settings import SettingsError, build
from bridge.softphone import load_wav
from tests.service.doorman import LOWEST, Cast, Part
from tests.service.household import AUDIO, Household, household, until, with_cast
from tests.simulators.audio_stream import Kind, Refused, Started, Stream, start

STORY = Part(exact_ms=10_000, piece_ms=200)
SPEECH = load_wav(AUDIO / "v21-leticia.wav")
DOMAIN = UUID("9d2f1c1e-4a1b-4f0e-8f5e-2f6f3a1b7c55")
OTHER = UUID("0b0f7e1c-51a5-4c62-9b1a-6f7d1d9e2a10")


def freeswitch(cast: Cast, domain: UUID = DOMAIN, **own: Any) -> dict[str, Any]:
    return with_cast(cast, freeswitch={"domain_uuid": str(domain), **own})


def url(house: Household, call: UUID, domain: UUID = DOMAIN, *, query: str = "", http: bool = False) -> str:
    port = house.service.http_port if http else house.service.audio_stream_port
    return f"ws://127.0.0.1:{port}/stream/{domain}/{call}{query}"


METADATA = json.dumps({"caller_id": "1001", "extension": "8001", "domain": "jardim.example"})


@pytest.mark.parametrize(
    ("kind", "rate", "mix", "buffer_ms"),
    [("binary", 8000, "mono", 20), ("fork", 8000, "mono", 20), ("base64", 16000, "stereo", 60)],
)
async def test_a_visitor_speaks_over_us_and_the_model_remembers_what_was_heard(
    tmp_path: Path, kind: Kind, rate: int, mix: str, buffer_ms: int
) -> None:
    said = json.dumps({**json.loads(METADATA), "playback": kind, "sample_rate": rate})
    async with Cast(STORY) as cast:
        tenants = {"jardim": freeswitch(cast, channels=2 if mix == "stereo" else 1)}
        async with household(tmp_path, tenants, audio_stream_port=0) as house:
            visit = uuid4()
            stream = await start(
                kind, Started(url(house, visit), said, mix, rate, buffer_ms=buffer_ms, channel_rate=8000)
            )
            await until(lambda: ours(stream) > 1200, 15, "our voice")
            doorman = cast.doormen[-1]
            stream.to_say = SPEECH if rate == 8000 else doubled(SPEECH)
            await until(lambda: doorman.truncated, 10, "the truncation")
            await asyncio.sleep(0.4)
            heard_ms = ours(stream)
            await asyncio.sleep(0.3)
            assert ours(stream) == heard_ms, "nothing of before the barge-in is heard behind it"
            await stream.end()
            await house.service.visit_over(visit)
            assert not stream.problems
            assert stream.deepest_ms <= 300, "a reply of ten seconds waits with us, not there"
            assert abs(float(doorman.truncated["say_1"]) - heard_ms) <= 62, "to three frames"
            (posted,) = house.of(visit, "barge_in")
            turns = [record for record in await house.records(visit) if record.kind == "turn"]
            (turn,) = [record for record in turns if record.data["speaker"] == "agent"]
            assert turn.data["heard_ms"] == posted.data["heard_ms"]
            if kind == "fork":
                assert len(stream.cleared_ms) == 1 and stream.cleared_ms[0] > 0


def doubled(pcm: bytes) -> bytes:
    """The same at 16 kHz, roughly."""
    return b"".join(pcm[at : at + 2] * 2 for at in range(0, len(pcm), 2))


def ours(stream: Stream) -> float:
    """Milliseconds of the model's voice that the other side heard."""
    return stream.heard_ms(LOWEST)


async def refused(address: str, kind: Kind = "base64", metadata: str = METADATA) -> tuple[int | None, str]:
    """The HTTP status, or close code, that a stream is turned away with, and why; None where it is not."""
    try:
        stream = await start(kind, Started(address, metadata))
    except InvalidStatus as error:
        return error.response.status_code, error.response.body.decode()
    try:
        async with asyncio.timeout(1):
            await stream.connection.wait_closed()
    except TimeoutError:
        return None, ""
    finally:
        await stream.end()
    return stream.closed


async def test_a_domain_is_one_tenants_and_its_token_is_asked_for(tmp_path: Path) -> None:
    async with Cast(STORY) as cast:
        tenants = {
            "jardim": freeswitch(cast, token_env="STREAM_TOKEN"),
            "bosque": freeswitch(cast, OTHER, enabled=False),
        }
        environ = {"STREAM_TOKEN": "of jardim"}
        async with household(tmp_path, tenants, environ=environ, audio_stream_port=0, http_port=0) as house:
            for http in (False, True):
                nobody = await refused(url(house, uuid4(), uuid4(), http=http))
                assert nobody == (1008, "found a domain_uuid that is no tenant's")
                assert await refused(url(house, uuid4(), http=http)) == (1008, "found no valid token")
                wrong = await refused(url(house, uuid4(), query="?token=no", http=http), "fork")
                assert wrong[0] == 401, "mod_audio_fork shows no close frame"
                disabled = await refused(url(house, uuid4(), OTHER, http=http))
                assert disabled == (1008, "tenants.bosque.freeswitch.enabled is false")
                right = url(house, call := uuid4(), query="?token=of+jardim", http=http)
                running = await start("base64", Started(right, METADATA))
                await until(lambda: house.service.open_legs("jardim") == 1, what="the leg")
                code, reason = await refused(right)
                assert code == 1008 and str(call) in reason, "a call has one stream"
                assert house.service.open_legs("jardim") == 1
                await running.end()
                await until(lambda: house.service.open_legs("jardim") == 0, what="its end")
            assert await refused(url(house, uuid4()).replace(str(DOMAIN), "x")) != (None, "")
            lost = await refused(f"ws://127.0.0.1:{house.service.audio_stream_port}/elsewhere")
            assert lost[0] == 404


async def test_a_token_may_come_in_a_header_too(tmp_path: Path) -> None:
    async with Cast(STORY) as cast:
        tenants = {"jardim": freeswitch(cast, token_env="STREAM_TOKEN")}
        async with household(
            tmp_path, tenants, environ={"STREAM_TOKEN": "abc"}, audio_stream_port=0
        ) as house:
            for given, taken in (
                ("Bearer abc", True),
                ("Basic dTphYmM=", True),  # u:abc
                ("Bearer abd", False),
                ("Basic ////", False),
                ("Basic gICAgIA=", False),
                ("Bearer \xe9", False),
            ):
                headers = {"Authorization": given}
                stream = await start("base64", Started(url(house, uuid4()), METADATA, headers=headers))
                if taken:
                    await until(lambda: house.service.open_legs() == 1, what="the leg")
                else:
                    async with asyncio.timeout(3):
                        await stream.connection.wait_closed()
                    assert stream.closed == (1008, "found no valid token")
                await stream.end()
                await until(lambda: house.service.open_legs() == 0, what="its end")


async def test_the_address_of_a_proxy_is_nobodys(tmp_path: Path) -> None:
    """Behind one everybody has an address that is allowed."""
    async with Cast(STORY) as cast:
        tenants = {
            "jardim": freeswitch(cast),
            "bosque": freeswitch(cast, OTHER, token_env="STREAM_TOKEN"),
        }
        environ = {"STREAM_TOKEN": "abc"}
        async with household(tmp_path, tenants, environ=environ, http_port=0) as house:
            passed_on = {"X-Forwarded-For": "203.0.113.9"}
            for headers in (passed_on, {"Forwarded": "for=203.0.113.9"}, {"X-Real-IP": "203.0.113.9"}):
                address = url(house, uuid4(), http=True)
                stream = await start("base64", Started(address, METADATA, headers=headers))
                async with asyncio.timeout(3):
                    await stream.connection.wait_closed()
                assert stream.closed[0] == 1008 and "through a proxy" in stream.closed[1]
            with_token = url(house, uuid4(), OTHER, query="?token=abc", http=True)
            stream = await start("base64", Started(with_token, METADATA, headers=passed_on))
            await until(lambda: house.service.open_legs("bosque") == 1, what="the leg")
            await stream.end()
            await until(lambda: house.service.open_legs() == 0, what="its end")


async def test_a_stream_goes_with_the_tenants_settings_and_without_metadata(tmp_path: Path) -> None:
    async with (
        Cast(STORY) as cast,
        household(tmp_path, {"jardim": freeswitch(cast)}, audio_stream_port=0) as house,
    ):
        visit = uuid4()
        stream = await start("base64", Started(url(house, visit)))
        await until(lambda: ours(stream) > 300, 15, "our voice")
        await stream.end()
        assert await house.service.visit_over(visit, 10)


async def test_what_the_metadata_says_is_in_the_record(tmp_path: Path) -> None:
    async with (
        Cast(STORY) as cast,
        household(tmp_path, {"jardim": freeswitch(cast)}, audio_stream_port=0) as house,
    ):
        visit = uuid4()
        stream = await start("base64", Started(url(house, visit), METADATA))
        await until(lambda: house.of(visit), what="the visit")
        await stream.end()
        assert await house.service.visit_over(visit, 10)
        (started,) = [one for one in await house.records(visit) if one.kind == "visit.started"]
        assert "1001" in json.dumps(started.data)


def test_settings_that_make_no_sense_are_refused() -> None:
    def tenant(**own: Any) -> dict[str, Any]:
        return {"directory": "x.json", "freeswitch": {"domain_uuid": str(DOMAIN), **own}}

    two = {"visitor_port": 0, "resident_port": 0}
    for service, tenants, found in (
        ({}, {"jardim": tenant(), "bosque": tenant() | two}, "which tenants.jardim has"),
        ({"allowed_peers": ["0.0.0.0/0"]}, {"jardim": tenant()}, "lets everybody in"),
        ({"http_proxies": ["127.0.0.1/32"]}, {"jardim": tenant()}, "service.http_proxies"),
        ({}, {"jardim": tenant(domain_uuid="jardim")}, "a UUID"),
        ({"audio_stream_port": 8082}, {"jardim": tenant()}, "http_port"),
    ):
        with pytest.raises(SettingsError, match=found):
            build({"service": service, "tenants": tenants})


def test_the_simulator_refuses_what_the_module_would() -> None:
    for wrong in (
        Started("ws://h/x", metadata="x" * 8192),
        Started("http://h/x"),
        Started("ws://h/x", mix="left"),
        Started("ws://h/x", rate=11025),
    ):
        with pytest.raises(Refused):
            wrong.check()
