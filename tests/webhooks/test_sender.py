"""The sender with real databases and real receivers: in order, whatever fails, nobody waits for another."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bridge.settings import build
from bridge.tenants import TenantInForce, Version
from bridge.webhooks import delivery, lease, sender
from bridge.webhooks.posting import post
from bridge.webhooks.sender import WebhookSender
from storage.journalled import JournalledStorage
from storage.sqlite import SqliteStorage
from storage.store import SqlStorage
from tests.postgres import Postgres
from tests.storage.test_store import TENANT, Visit, records, whole_visit
from tests.webhooks.receiver import SECRET, Receiver
from visits.directory import Directory

KINDS = ("started", "decided", "ended")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundredths of seconds in place of seconds."""
    monkeypatch.setattr(delivery, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(delivery, "LONGEST_PAUSE_S", 0.1)
    monkeypatch.setattr(sender, "PUT_OFF_S", 0.05)
    monkeypatch.setattr(sender, "DEPTH_S", 0.0)


@pytest.fixture(params=["sqlite", "postgresql"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqlStorage]:
    if request.param == "sqlite":
        opened: SqlStorage = await SqliteStorage.open(tmp_path / "porteiro.db")
    else:
        server: Postgres = request.getfixturevalue("postgres")
        opened = await JournalledStorage.open_for(await server.make(), None, tmp_path / "journal")
    async with opened:
        yield opened


def in_force(tenants: Mapping[str, Mapping[str, Any] | None]) -> dict[str, TenantInForce]:
    """Tenants with these webhooks."""
    tree: dict[str, Any] = {"service": {"visitor_port": 0, "resident_port": 0}, "tenants": {}}
    for name, webhooks in tenants.items():
        told = {} if webhooks is None else {"webhooks": {"secret_env": "SECRET", "timeout_s": 1, **webhooks}}
        tree["tenants"][name] = {"directory": "none.json", **told}
    built = build(tree, environ={"SECRET": SECRET})
    return {
        name: TenantInForce(one, Directory(()), Version(None, "0" * 64), secrets={"SECRET": SECRET})
        for name, one in built.tenants.items()
    }


@asynccontextmanager
async def sending(
    storage: SqlStorage, tenants: Mapping[str, TenantInForce], **more: Any
) -> AsyncIterator[WebhookSender]:
    """A sender at work."""
    made = WebhookSender(storage, lambda: tenants, look_s=0.02, **more)
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.wait({task})


async def subscribed(storage: SqlStorage, *tenants: str) -> None:
    async with asyncio.timeout(10):
        while not (await storage.outbox.subscriptions()).keys() >= set(tenants):
            await asyncio.sleep(0.01)


async def empty(storage: SqlStorage) -> None:
    """Wait until nothing is to be told any more."""
    async with asyncio.timeout(20):
        while (await storage.outbox.depth()).waiting:
            await asyncio.sleep(0.01)


def orders(receiver: Receiver) -> dict[str, list[str]]:
    """What was taken of each visit, in its order."""
    found: dict[str, list[str]] = {}
    for one in receiver.accepted:
        found.setdefault(one.visit, []).append(one.id.rpartition("-")[2])
    return found


async def test_a_receiver_that_fails_at_random_gets_every_visit_in_its_order(storage: SqlStorage) -> None:
    chance = random.Random(7)
    answers = [b"200 OK", b"503 Busy", b"500 Oops", b"302 Found\r\nLocation: /", b"junk"]

    async with Receiver(lambda _id, _n: chance.choice(answers)) as receiver:
        tenants = in_force({TENANT: {"url": receiver.url}})
        async with sending(storage, tenants) as made:
            await subscribed(storage, TENANT)
            visits = [await whole_visit(storage) for _ in range(6)]
            await receiver.until(lambda: len(receiver.accepted) == 18)
            await empty(storage)
            async with asyncio.timeout(5):
                while made.backlog is None or made.backlog.waiting:
                    await asyncio.sleep(0.01)
            assert made.warnings == [] and (made.backlog.oldest_s, made.backlog.given_up) == (0.0, 0)
        assert orders(receiver) == {visit.id: list(KINDS) for visit in visits}
        assert len(receiver.got) > 18 and receiver.most <= delivery.AT_ONCE
        # The same event is the same text, however often it came; and it names nobody.
        assert len({(one.id, one.body) for one in receiver.got}) == 18
        assert not any("João" in one.body.decode() for one in receiver.got)
    assert await storage.verify() == []


async def test_a_dead_receiver_holds_up_nobody_elses_events(storage: SqlStorage) -> None:
    async with Receiver(lambda _id, _n: None) as dead, Receiver() as well:
        tenants = in_force({"dead": {"url": dead.url}, TENANT: {"url": well.url}, "none": None})
        async with sending(storage, tenants):
            await subscribed(storage, "dead", TENANT)
            stuck = [await Visit(storage, "dead").begin() for _ in range(6)]
            await dead.until(lambda: dead.now == delivery.AT_ONCE)
            before = asyncio.get_running_loop().time()
            visit = await whole_visit(storage)
            await well.until(lambda: len(well.accepted) == 3)
            assert asyncio.get_running_loop().time() - before < 1.0  # the dead one's time is not over yet
            assert well.accepted[0].visit == visit.id
            async with asyncio.timeout(10):
                while (await storage.outbox.depth()).waiting > len(stuck):
                    await asyncio.sleep(0.01)
        assert {row.visit for row in (await storage.outbox.page()).items} == {each.id for each in stuck}


async def test_what_is_given_up_lets_the_next_go_and_is_sent_again_when_somebody_asks(
    storage: SqlStorage,
) -> None:
    gone = {"gone": True}

    def answer(id: str, _: int) -> bytes:
        return b"410 Gone" if gone["gone"] and id.endswith("started") else b"200 OK"

    async with (
        Receiver(answer) as receiver,
        sending(storage, in_force({TENANT: {"url": receiver.url, "personal": True}})) as made,
    ):
        await subscribed(storage, TENANT)
        visit = await whole_visit(storage)
        await receiver.until(lambda: len(receiver.accepted) == 2)
        await empty(storage)
        assert orders(receiver) == {visit.id: ["decided", "ended"]}
        ended = receiver.accepted[-1].event["data"]
        assert ended["personal"] == {"caller_id": None, "visitor_name": "João", "resident": None}
        (row,) = (await storage.outbox.page(given_up=True)).items
        assert (row.attempts, row.answer) == (1, "status 410")
        async with asyncio.timeout(5):
            while made.warnings != ["webhooks_given_up"]:
                await asyncio.sleep(0.01)
        gone["gone"] = False
        assert await storage.outbox.resend(TENANT, [row.seq], by="cli:ana", at=row.since) == 1
        await receiver.until(lambda: len(receiver.accepted) == 3)
        await empty(storage)
    kinds = [each.kind for each in await records(storage, visit=visit.id)]
    told = [kind for kind in kinds if kind.startswith("webhook.")]
    assert told == ["webhook.given_up", "webhook.resent"]
    assert len(receiver.got) == 4
    assert await storage.verify() == []


async def test_settings_that_change_are_followed_and_who_leaves_leaves_nothing(storage: SqlStorage) -> None:
    async with Receiver() as receiver:
        tenants = in_force({TENANT: {"url": receiver.url, "events": ["visit.ended"]}})
        async with sending(storage, tenants) as made:
            await subscribed(storage, TENANT)
            await whole_visit(storage)
            await receiver.until(lambda: receiver.accepted)
            assert [one.event["type"] for one in receiver.accepted] == ["visit.ended"]
            tenants |= in_force({TENANT: {"url": receiver.url, "events": ["visit.started"]}})
            made.changed(frozenset({TENANT}))
            async with asyncio.timeout(5):
                while (await storage.outbox.subscriptions())[TENANT].kinds != {"visit.started"}:
                    await asyncio.sleep(0.01)
            tenants |= in_force({TENANT: None})
            made.changed(frozenset({TENANT}))
            async with asyncio.timeout(5):
                while await storage.outbox.subscriptions():
                    await asyncio.sleep(0.01)
            await whole_visit(storage)
            assert (await storage.outbox.page()).items == () and made.backlog is None


async def test_what_a_secret_that_is_none_puts_off_is_sent_with_the_right_one(storage: SqlStorage) -> None:
    async with Receiver() as receiver:
        tenants = in_force({TENANT: {"url": receiver.url}})
        wrong = {**tenants[TENANT].secrets, "SECRET": "no secret"}
        right = tenants[TENANT]
        tenants[TENANT] = TenantInForce(right.tenant, right.directory, right.version, secrets=wrong)
        async with sending(storage, tenants):
            await subscribed(storage, TENANT)
            visit = await whole_visit(storage)
            async with asyncio.timeout(10):
                while not any(row.answer for row in (await storage.outbox.page()).items):
                    await asyncio.sleep(0.01)
            (answer,) = {row.answer for row in (await storage.outbox.page()).items} - {""}
            assert answer.startswith("the secret holds no key; allowed: 24 to 64 bytes")
            assert receiver.got == []
            tenants[TENANT] = right
            await receiver.until(lambda: len(receiver.accepted) == 3)
            assert orders(receiver) == {visit.id: list(KINDS)}


async def test_two_services_on_one_database_never_send_at_the_same_time(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside each other; and where one dies in its midst, the other takes over after a while."""
    monkeypatch.setattr(lease, "COUNT_S", 0.1)
    monkeypatch.setattr(lease, "TAKE_OVER_S", 1.5)
    first = await JournalledStorage.open_for(postgres_url, None, tmp_path / "one")
    second = await JournalledStorage.open_for(postgres_url, None, tmp_path / "two")
    async with first, second, Receiver() as receiver:
        tenants = in_force({TENANT: {"url": receiver.url}})
        senders: list[str] = []

        def noting(name: str) -> Any:
            async def counted(*what: Any) -> delivery.Answer:
                senders.append(name)
                return await post(*what)

            return counted

        async with sending(first, tenants, post=noting("one")):
            await subscribed(first, TENANT)
            async with sending(second, tenants, post=noting("two")):
                visits = [await whole_visit(store) for store in (first, second, first)]
                await receiver.until(lambda: len(receiver.accepted) == 9)
                await empty(first)
        assert len(receiver.got) == 9 and orders(receiver) == {visit.id: list(KINDS) for visit in visits}
        # Who has died in its midst still holds the tenant; the other waits, and then goes on.
        assert await first.outbox.take(TENANT, first.service or "", (await first.outbox.senders())[TENANT][1])
        began = asyncio.get_running_loop().time()
        visit = await whole_visit(first)
        async with sending(second, tenants, post=noting("two")):
            await receiver.until(lambda: len(receiver.accepted) == 12)
            await empty(second)
        assert asyncio.get_running_loop().time() - began >= 1.4
        assert orders(receiver)[visit.id] == list(KINDS) and senders[-3:] == ["two"] * 3
        assert await first.verify() == []
