"""A service with webhooks: killed in its midst; what people see of it, and have sent again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from uuid import uuid4

import pytest

from bridge.cli import main
from bridge.softphone import Softphone
from storage.sqlite import SqliteStorage
from storage.store import SqlStorage
from tests.http.people import bearer, make_key, served
from tests.service.doorman import Cast
from tests.service.served import PART
from tests.service.test_kills import Lane, forking
from tests.storage.test_store import whole_visit
from tests.webhooks.receiver import SECRET, Receiver


async def test_what_a_killed_service_had_to_tell_the_next_one_tells(tmp_path: Path) -> None:
    """Its receiver is down, it is killed in a visit's midst; the next one closes the visit and tells both."""
    well = False
    async with (
        Receiver(lambda _id, _n: b"200 OK" if well else b"503 Busy") as receiver,
        Cast(PART) as cast,
        forking() as forks,
    ):
        webhooks = {"url": receiver.url, "secret_env": "HOOK"}
        tenant = {"base_url": cast.url, "webhooks": webhooks}
        order = {"data": str(tmp_path), "tenant": tenant, "service": {}, "environ": {"HOOK": SECRET}}
        lane = Lane(0, forks, order)
        forks.lanes.append(lane)
        pid, port = await lane.start(then_stop=False)
        visit = uuid4()
        async with Softphone("127.0.0.1", port, visit) as phone:
            await receiver.until(lambda: receiver.got)
            os.kill(pid, signal.SIGKILL)
            await asyncio.wait({phone.closed}, timeout=20)
        assert [one.id for one in receiver.got] == [f"{visit}-started"]
        well = True
        pid, _ = await lane.start(then_stop=False)
        await receiver.until(lambda: len(receiver.accepted) == 2)
        os.kill(pid, signal.SIGKILL)
    assert [one.id for one in receiver.accepted] == [f"{visit}-started", f"{visit}-ended"]
    last = receiver.accepted[-1].event["data"]
    assert (last["outcome"], last["reason"], last["gate"]) == ("failed", "recovered", None)
    log = (tmp_path / "log").read_text()
    assert "webhook.subscribed" in log and SECRET not in log and "of-the-url" not in log
    async with await SqliteStorage.open(tmp_path / "porteiro.db") as storage:
        assert await storage.verify() == []


async def test_what_waits_is_seen_and_sent_again_over_http_and_by_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Receiver(lambda _id, _n: b"410 Gone") as receiver:
        webhooks = {"url": receiver.url, "secret_env": "HOOK", "events": ["visit.ended"]}
        async with served(tmp_path, {"webhooks": webhooks}, {"HOOK": SECRET}) as (service, client):
            assert isinstance(service.storage, SqlStorage)
            viewer = bearer(await make_key(service, "viewer", "jardim"))
            manager = bearer(await make_key(service, "manager", "jardim"))
            stranger = bearer(await make_key(service, "manager", "bosque"))
            async with asyncio.timeout(10):
                while not await service.storage.outbox.subscriptions():
                    await asyncio.sleep(0.01)
            visit = await whole_visit(service.storage)
            async with asyncio.timeout(20):
                while (ready := (await client.get("/ready")).json())["warnings"] != ["webhooks_given_up"]:
                    await asyncio.sleep(0.05)
            assert ready["webhooks"] == {"waiting": 0, "oldest_s": 0.0, "given_up": 1}
            listed = (await client.get("/v1/webhooks", headers=viewer, params={"given_up": True})).json()
            (shown,) = listed["items"]
            assert (shown["id"], shown["type"]) == (f"{visit.id}-ended", "visit.ended")
            assert (shown["attempts"], shown["answer"]) == (1, "status 410")
            assert (await client.get("/v1/webhooks", headers=stranger)).json()["items"] == []

            path = f"/v1/webhooks/{visit.id}-ended/resend"
            for who, status in ((viewer, 403), (stranger, 404)):
                assert (await client.post(path, headers=who)).status_code == status
            for wrong, status in ((f"{uuid4()}-ended", 404), (f"{visit.id}-opened", 422)):
                answer = await client.post(f"/v1/webhooks/{wrong}/resend", headers=manager)
                assert answer.status_code == status
            assert (await client.post(path, headers=manager)).json() == {"id": f"{visit.id}-ended"}
            await receiver.until(lambda: len(receiver.got) == 2)

            async with asyncio.timeout(10):
                while (await service.storage.outbox.depth()).waiting:
                    await asyncio.sleep(0.01)

    capsys.readouterr()  # the service's log

    async def command(*words: str) -> tuple[int, str]:
        named = ["webhook", *words, "--db", str(tmp_path / "porteiro.db")]
        return await asyncio.to_thread(main, named), capsys.readouterr().out

    id = f"{visit.id}-ended"
    (event,) = json.loads((await command("list", "--given-up", "--json"))[1])["events"]
    assert (event["id"], event["attempts"], event["answer"]) == (id, 1, "status 410")
    assert id in (await command("list", "--tenant", "jardim"))[1]
    assert (await command("resend", "--tenant", "bosque"))[0] == 1
    assert (await command("resend", "--tenant", "bosque", "--event", id))[0] == 2
    told = (0, "1 events are sent again by the service.\n")
    assert await command("resend", "--tenant", "jardim") == told
    assert await command("resend", "--tenant", "jardim", "--event", id) == told
    (event,) = json.loads((await command("list", "--json"))[1])["events"]
    assert (event["next_at"], event["given_up_at"], event["attempts"]) == ("", None, 0)
