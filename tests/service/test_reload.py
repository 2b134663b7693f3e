"""Tenants change while calls run: the next call has the new settings, those that run keep theirs."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from bridge.model_server import ModelServerProcess
from bridge.softphone import Softphone
from tests.ports import free_ports, listens
from tests.service.changing import Folder, fragment, handles, running, started, usual
from tests.service.doorman import Cast
from tests.service.household import HELLO, ROOT, Household, presses, spoken_by_host, until


async def changes(house: Household, tenant: str, digest: str) -> float:
    """Wait until a tenant has another version; how long that took, in seconds."""
    began = time.monotonic()
    await until(
        lambda: (
            (one := house.service.tenancy.in_force.get(tenant)) is not None and one.version.digest != digest
        ),
        what="the change",
    )
    return time.monotonic() - began


def digest_of(house: Household, tenant: str = "jardim") -> str:
    return house.service.tenancy.version_of(tenant).digest


async def test_a_running_visit_keeps_its_settings_and_the_next_has_the_new_ones(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    async with Cast() as old, Cast() as new:
        folder.tenant("jardim", base_url=old.url, greeting="Bom dia do começo.")
        async with running(folder.file) as house:
            first, second = uuid4(), uuid4()
            async with house.phone("jardim", first) as visitor:
                await house.greeted(first)
                before = digest_of(house)
                folder.tenant("jardim", base_url=new.url, greeting="Bom dia do fim.")
                assert await changes(house, "jardim", before) < 1.0
                await house.visit("jardim", visit=second)
                await visitor.say(HELLO)
                async with asyncio.timeout(40):
                    await asyncio.wait({visitor.closed})
            assert await house.service.visit_over(first)
            for visit in (first, second):
                assert (await house.outcome(visit))[:1] == ("authorized",)
            about = [dict((await started(house, visit)).data)["settings"] for visit in (first, second)]
            assert [one["digest"] for one in about] == [before, digest_of(house)]
            assert [one["version"] for one in about] == [1, 2]
            noted = await house.service.catalogue.history("jardim")
            assert [one.version for one in noted.items] == [2, 1]
            assert {one.digest for one in noted.items} == {one["digest"] for one in about}
    for cast, greeting in ((old, "Bom dia do começo."), (new, "Bom dia do fim.")):
        assert len(cast.models) == 2, "a visitor's and a resident's, each where their visit was"
        assert spoken_by_host(cast, "visitor")[0] == greeting


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"provider": "nobody"}, "tenants.jardim.provider: found 'nobody' (from porteiro.d/jardim.toml)"),
        (
            {"api_key_env": "NOT_SET"},
            "tenants.jardim.api_key_env: the environment variable NOT_SET is not set",
        ),
        ({"directory": "/no/such.json"}, "tenants.jardim.directory: /no/such.json: no such file"),
        ({"visitor_port": -1}, "tenants.jardim.visitor_port: found -1 (from porteiro.d/jardim.toml)"),
        ({"numbers": ["7"]}, "tenants.jardim.numbers: found '7', which tenants.bosque has"),
        ({"gate": {"kind": "http", "url": "https://x", "ca_file": "none"}}, "tenants.jardim.gate.ca_file: "),
    ],
)
async def test_a_bad_change_is_refused_and_the_old_version_stays(
    tmp_path: Path, change: dict[str, object], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Folder(tmp_path)
    folder.tenant("bosque", numbers=["7"])
    folder.tenant("jardim", greeting="Bom dia.")
    async with running(folder.file) as house:
        tenancy = house.service.tenancy
        before = tenancy.in_force["jardim"]
        folder.tenant("jardim", greeting="Boa noite.", **change)
        folder.tenant("bosque", numbers=["7"], greeting="Boa tarde.")
        await until(lambda: tenancy.refused, what="the refusal")
        assert list(tenancy.refused) == ["jardim"]
        assert tenancy.refused["jardim"][0].startswith(told), tenancy.refused
        assert tenancy.in_force["jardim"] is before
        assert tenancy.current["bosque"].greeting == "Boa tarde.", "the others are not held up"
        assert house.service.warnings() == ["settings_refused"]
        assert house.service.not_ready() == []
        folder.tenant("jardim", greeting="Boa noite.")
        assert await changes(house, "jardim", before.version.digest) < 1.0
        assert house.service.warnings() == []
    assert "settings.refused" in capsys.readouterr().out


async def test_files_that_say_nothing_sensible_change_nothing(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.tenant("jardim")
    async with running(folder.file) as house:
        tenancy = house.service.tenancy
        whole = folder.file.read_text()
        for text in ("[service", "tenants = 3", whole + "max_calls = 0\n", whole + "\n[nonsense]\n", None):
            if text is None:
                folder.file.unlink()
            else:
                folder.write(folder.file, text)
            await until(lambda: "" in tenancy.refused, what="the refusal")
            assert list(tenancy.current) == ["jardim"]
            folder.write(folder.file, whole)
            await until(lambda: not tenancy.refused, what="the repair")
        folder.write(folder.file, whole + "max_calls = 7\n")
        await until(lambda: house.service.warnings() == ["settings_need_restart"], what="the warning")
        folder.write(folder.file, whole)
        await until(lambda: house.service.warnings() == [], what="its end")


async def test_a_directory_file_and_a_secret_are_followed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(tmp_path)
    people = json.loads((ROOT / "data" / "apartamentos.json").read_text())
    directory = tmp_path / "people.json"
    directory.write_text(json.dumps(people[:1]))
    (tmp_path / ".env").write_text("KEY_OF_JARDIM=one-key\n")
    folder.tenant("jardim", directory="people.json", api_key_env="KEY_OF_JARDIM")
    monkeypatch.setenv("PORTEIRO_CONFIG", str(folder.file))
    async with running(folder.file, None) as house:  # type: ignore[arg-type]  # this process's own
        tenancy = house.service.tenancy
        assert len(tenancy.directory_of("jardim").apartments) == 1
        Folder.write(directory, json.dumps(people))
        await until(lambda: len(tenancy.directory_of("jardim").apartments) == len(people), what="the people")
        (tmp_path / ".env").write_text("KEY_OF_JARDIM=another-key\n")
        await until(
            lambda: tenancy.in_force["jardim"].secret("KEY_OF_JARDIM") == "another-key", what="the key"
        )


async def test_two_tenants_swap_their_ports_while_calls_run(tmp_path: Path) -> None:
    """The residents of running visits still come where they were called to, whose port that is by now."""
    ports = free_ports(4)
    folder = Folder(tmp_path)

    def write(jardim: list[int], bosque: list[int]) -> None:
        both = {
            name: usual(
                base_url=cast.url, visitor_port=own[0], resident_port=own[1], dialer={"kind": "manual"}
            )
            for name, own in (("jardim", jardim), ("bosque", bosque))
        }
        folder.write(folder.fragments / "both.toml", fragment(both))

    async with Cast() as cast:
        write(ports[:2], ports[2:])
        async with running(folder.file) as house:
            tenancy = house.service.tenancy
            calling: asyncio.Event = asyncio.Event()
            came: list[UUID] = []

            async def answers_late(phone: Softphone) -> None:
                await calling.wait()
                await presses(phone)

            first = uuid4()
            house.residents[first] = answers_late
            async with house.phone("jardim", first) as visitor:
                await house.greeted(first)
                await visitor.say(HELLO)
                await until(lambda: house.orders, 20, "the dial")
                old = house.orders[0]
                assert old.port == ports[1]
                # Both at once, and visitors' ports become residents'.
                write([ports[3], ports[2]], [ports[1], ports[0]])
                await until(lambda: tenancy.current["jardim"].visitor_port == ports[3], what="the swap")
                assert house.service.ports("jardim") == (ports[3], ports[2])
                assert house.service.ports("bosque") == (ports[1], ports[0])
                stranger = uuid4()
                async with Softphone("127.0.0.1", old.port, stranger) as other:
                    await until(lambda: house.of(stranger, "visit.started"), what="bosque's visitor")
                    assert (await house.records(stranger))[0].tenant == "bosque"
                    calling.set()
                    async with asyncio.timeout(40):
                        await asyncio.wait({visitor.closed})
                    other.hang_up()
                came.append(stranger)
            assert await house.service.visit_over(first) and await house.service.visit_over(stranger)
            assert (await house.outcome(first))[0] == "authorized"
            for tenant in ("jardim", "bosque"):
                visit = uuid4()
                await house.visit(tenant, visit=visit)
                assert (await house.outcome(visit))[0] == "authorized"


async def test_a_tenant_that_goes_lets_its_visit_come_to_its_end(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    async with Cast() as cast:
        folder.tenant("bosque", base_url=cast.url)
        async with running(folder.file) as house:
            tenancy = house.service.tenancy
            await house.visit("bosque")  # what is made at the first visit is there
            await asyncio.sleep(0.3)
            rest, tasks = handles(), len(asyncio.all_tasks())
            folder.tenant("jardim", base_url=cast.url)
            await until(lambda: "jardim" in tenancy.current, what="the new tenant")
            ports = house.service.ports("jardim")
            visit = uuid4()
            gone = asyncio.Event()

            async def answers_late(phone: Softphone) -> None:
                await gone.wait()
                assert not listens(ports[0]) and listens(ports[1])
                await presses(phone)

            house.residents[visit] = answers_late
            async with house.phone("jardim", visit) as visitor:
                await house.greeted(visit)
                await visitor.say(HELLO)
                await until(lambda: any(one.visit == visit for one in house.orders), 20, "the dial")
                folder.gone("jardim")
                await until(lambda: "jardim" not in tenancy.current, what="its end")
                gone.set()
                async with asyncio.timeout(40):
                    await asyncio.wait({visitor.closed})
            assert await house.service.visit_over(visit)
            assert (await house.outcome(visit))[::2] == ("authorized", True)
            await until(lambda: not listens(ports[1]), what="the resident port's end")
            await until(lambda: len(asyncio.all_tasks()) <= tasks, what="no task left")
            await until(lambda: handles() <= rest, what="no descriptor left")
            folder.tenant("jardim", base_url=cast.url, visitor_port=ports[0], resident_port=ports[1])
            await until(lambda: "jardim" in tenancy.current, what="its return")
            await house.visit("jardim")


async def test_a_websocket_route_comes_with_its_tenant_and_goes_with_it(tmp_path: Path) -> None:
    folder = Folder(tmp_path, websocket_port=0)
    async with Cast() as cast, running(folder.file) as house:
        tenancy = house.service.tenancy

        async def answer(role: str = "visitor") -> int:
            """What the port says to who asks for jardim's path; 101: it may speak."""
            request = f"GET /asterisk/jardim/{role} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
            request += "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: media\r\n"
            request += "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            reader, writer = await asyncio.open_connection("127.0.0.1", house.service.websocket_port)
            writer.write(request.encode())
            status = int((await reader.readline()).split()[1])
            writer.close()
            return status

        assert await answer() == 404
        folder.tenant("jardim", base_url=cast.url)
        await until(lambda: "jardim" in tenancy.current, what="the tenant")
        assert (await answer(), await answer("resident")) == (101, 101)
        visit = uuid4()
        async with house.phone("jardim", visit) as visitor:
            await house.greeted(visit)
            folder.gone("jardim")
            await until(lambda: "jardim" not in tenancy.current, what="its end")
            assert (await answer(), await answer("resident")) == (404, 101), "a resident may yet come"
            visitor.hang_up()
            assert await house.service.visit_over(visit)
        assert (await answer(), await answer("resident")) == (404, 404)


async def test_the_model_server_starts_with_the_first_tenant_that_needs_it_and_ends_with_the_last_visit(
    tmp_path: Path,
) -> None:
    """And another takes its place where it does not do."""
    folder = Folder(tmp_path)
    async with Cast() as cast:
        folder.tenant("bosque", base_url=cast.url)
        async with running(folder.file) as house:
            tenancy = house.service.tenancy

            def server() -> ModelServerProcess | None:
                return house.service.model_server

            assert server() is None
            folder.tenant("jardim", provider="local")
            await until(lambda: "jardim" in tenancy.current, 90, "the model server")
            first = server()
            assert first is not None and first.ready
            visit = uuid4()
            async with house.phone("jardim", visit) as visitor:
                await visitor.wait_for_speech(timeout_s=20)
                # A pipeline, which the one that runs does not know.
                folder.tenant("cedro", provider="pipeline")
                await until(lambda: "cedro" in tenancy.current, 90, "another model server")
                second = server()
                assert second is not None and second is not first and first.pid and second.pid
                for name in ("jardim", "cedro"):
                    other = uuid4()
                    async with house.phone(name, other) as phone:
                        await phone.wait_for_speech(timeout_s=20)
                        phone.hang_up()
                    assert await house.service.visit_over(other)
                assert first.pid, "a visit still talks with it"
                visitor.hang_up()
                assert await house.service.visit_over(visit)
            await until(lambda: first.pid is None, what="the first one's end")
            for name in ("jardim", "cedro"):
                folder.gone(name)
            await until(lambda: server() is None and second.pid is None, what="its end")
            assert house.service.not_ready() == []
