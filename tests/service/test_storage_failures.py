"""A record that can't be made durable keeps the gate shut, and only its own visit feels it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from bridge.gates.base import Gate, GateAnswer, GateOrder
from bridge.live import NoSuchCallError
from bridge.softphone import CallEnded, Softphone
from storage.base import StorageUnavailable
from storage.sqlite import SqliteStorage
from tests.service.doorman import AGREES, ASKS, Cast, Part
from tests.service.household import (
    AUDIO,
    Household,
    Talk,
    household,
    listens,
    spoken_by_host,
    until,
    with_cast,
)
from visits.audit import AuditRecord

WAY_TO_THE_GATE = (
    "visit.started",
    "leg.connected",
    "dial.started",
    "dial.ended",
    "leg.connected resident-1",
    "briefing.played",
    "evidence",
    "decision",
    "gate.requested",
)
AT_A_TIME = 6
SORRY = "Desculpe, tive um problema técnico. Por favor, chame de novo."
SORRY_RESIDENT = "Desculpe, tive um problema. O portão continua fechado. Até logo."


class LeakyStorage(SqliteStorage):
    """The real store on a disk that fills up for some visits: at a kind of record, or from it on."""

    full: dict[str, tuple[str, bool]]

    async def append(
        self, tenant: str, visit: str, at: str, kind: str, data: Mapping[str, object]
    ) -> AuditRecord:
        """As the real one, or StorageUnavailable."""
        at_kind, for_good = LeakyStorage.full.get(visit, ("", False))
        if at_kind and (at_kind in (kind, f"{kind} {data.get('leg')}") or at_kind == "*"):
            LeakyStorage.full[visit] = ("*" if for_good else "", for_good)
            raise StorageUnavailable("full", "database or disk is full")
        return await super().append(tenant, visit, at, kind, data)


class CountingGate:
    """A gate that opens, and remembers for whom."""

    def __init__(self) -> None:
        self.orders: list[GateOrder] = []

    async def open(self, order: GateOrder) -> GateAnswer:
        """Open."""
        self.orders.append(order)
        return GateAnswer(True, "opened", 1, False)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> CountingGate:
    made = CountingGate()

    def build(*_: object) -> Gate:
        return made

    LeakyStorage.full = {}
    monkeypatch.setattr("storage.opening.SqliteStorage", LeakyStorage)
    monkeypatch.setattr("bridge.runner.build_gate", build)
    return made


async def says_yes(phone: Softphone) -> None:
    """A resident who consents by voice."""
    try:
        await phone.wait_for_speech(timeout_s=10)
        await phone.wait_for_quiet(250, timeout_s=20)
        await phone.say(AUDIO / "r03-leticia.wav")
    except CallEnded:
        return
    await asyncio.wait({phone.closed})


async def test_without_the_record_the_gate_is_never_asked(tmp_path: Path, gate: CountingGate) -> None:
    broken = {uuid4(): (kind, for_good) for kind in WAY_TO_THE_GATE for for_good in (False, True)}
    sound = [uuid4() for _ in range(3)]
    LeakyStorage.full = {str(visit): how for visit, how in broken.items()}
    async with (
        Cast(Part(ASKS, AGREES)) as cast,
        household(tmp_path, {"jardim": with_cast(cast, limits={"max_calls": 40, "ring_s": 5.0})}) as house,
    ):
        house.residents = dict.fromkeys((*broken, *sound), says_yes)
        places = asyncio.Semaphore(AT_A_TIME)

        async def play(visit: UUID) -> float:
            async with places:
                began = asyncio.get_running_loop().time()
                phone = await house.visit("jardim", patient(house, visit), visit=visit)
                assert phone.closed.result().kind == "hangup", broken.get(visit)
                return asyncio.get_running_loop().time() - began

        with capture_logs() as logs:
            await asyncio.gather(*(play(visit) for visit in (sound[0], *broken, *sound[1:])))

        assert sorted(order.visit for order in gate.orders) == sorted(map(str, sound))
        for visit in sound:
            assert await house.outcome(visit) == ("authorized", "opened", True)
        for visit, (kind, for_good) in broken.items():
            case = f"{kind}, {'for good' if for_good else 'once'}"
            kinds = await house.kinds(visit)
            assert kind not in kinds or kind == "leg.connected", case
            assert "gate.requested" not in kinds, case
            if kinds and not for_good:
                outcome, reason, opened = await house.outcome(visit)
                assert (outcome, opened) == ("failed", None), case
                assert reason is not None and reason.startswith("audit: "), case
            if kind.startswith("leg.connected") and not for_good:
                leg, words = ("resident-1", SORRY_RESIDENT) if kind[13:] else ("visitor", SORRY)
                turns = [one.data for one in await house.records(visit) if one.kind == "turn"]
                heard = [one["text"] for one in turns if one["leg"] == leg and not one["interrupted"]]
                assert heard == [words], "there is no model to say it: we do"
        visitors = spoken_by_host(cast, "visitor").count(SORRY)
        residents = spoken_by_host(cast, "resident").count(SORRY_RESIDENT)
        assert visitors == 2 * len(WAY_TO_THE_GATE[2:])  # before that there is no model to say it
        assert residents == 2 * len(WAY_TO_THE_GATE[5:])

        lines = [line for line in logs if line["event"] == "record.failed"]
        assert {line["visit"] for line in lines} == set(map(str, broken))
        assert [line for line in logs if line.get("exc_info")] == []
        await until(lambda: house.service.open_legs() == 0)


def patient(house: Household, visit: UUID) -> Talk:
    """A visitor who says what they want once greeted, if it comes to that."""

    async def talk(phone: Softphone) -> None:
        greeted = asyncio.create_task(house.greeted(visit))
        over = asyncio.ensure_future(asyncio.wait({phone.closed}))
        await asyncio.wait({greeted, over}, return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        if phone.closed.done():
            greeted.cancel()
            return
        await phone.say(AUDIO / "v06-leticia.wav")

    return talk


@pytest.mark.parametrize("for_good", [False, True])
async def test_a_person_who_hangs_up_is_obeyed_although_it_can_t_be_on_record(
    tmp_path: Path, gate: CountingGate, for_good: bool
) -> None:
    async with Cast(Part(ASKS, AGREES)) as cast, household(tmp_path, {"jardim": with_cast(cast)}) as house:
        visit = uuid4()
        house.residents[visit] = listens
        running = asyncio.create_task(house.visit("jardim", visit=visit))
        await until(lambda: house.of(visit, "briefing.played"), 20, what="the briefing")
        LeakyStorage.full[str(visit)] = ("visit.hung_up", for_good)
        with capture_logs() as logs, pytest.raises(NoSuchCallError):
            await house.service.hub.hang_up(visit, None, "operator:ana")
        assert (await running).closed.result().kind == "hangup"
        failed = [line["kind"] for line in logs if line["event"] == "record.failed"]
        assert failed[0] == "visit.hung_up" and ("visit.ended" in failed) == for_good
        assert gate.orders == []
        assert house.service.hub.running() == [] and house.service.open_legs() == 0
        assert "visit.hung_up" not in await house.kinds(visit)
