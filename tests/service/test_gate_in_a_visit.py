"""A door with an HTTP interface, in whole visits: asked once, and after the decision was on the disk.

One that does not answer is told of as it is.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from storage.sqlite import SqliteStorage
from tests.service.doorman import AGREES, ASKS, Cast, Part
from tests.service.household import household, presses, spoken_by_host, with_cast
from visits.audit import AuditRecord


class SlowStorage(SqliteStorage):
    """The real store on a slow disk: a gate that did not wait for it would be asked too early."""

    async def append(
        self, tenant: str, visit: str, at: str, kind: str, data: Mapping[str, object]
    ) -> AuditRecord:
        """As the real one, later."""
        if kind in ("evidence", "decision", "gate.requested"):
            await asyncio.sleep(0.3)
        return await super().append(tenant, visit, at, kind, data)


@dataclass
class Door:
    """A device on a real port. It looks into the audit log's file at the moment it is asked."""

    database: Path
    mute: bool = False
    port: int = 0
    requests: list[str] = field(default_factory=list)
    on_record: list[list[str]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = head.split(" ", 2)[1]
            self.requests.append(head)
            self.on_record.append(await asyncio.to_thread(kinds_on_disk, self.database, path.split("/")[-1]))
            if self.mute:
                await reader.read()
                return
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            await writer.drain()
        finally:
            writer.close()


def kinds_on_disk(database: Path, visit: str) -> list[str]:
    """The kinds of a visit's records, as another process would read them."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as file:
        rows = file.execute("SELECT kind FROM audit WHERE visit = ? ORDER BY seq", (visit,)).fetchall()
    file.close()
    return [kind for (kind,) in rows]


@asynccontextmanager
async def door(database: Path, *, mute: bool = False) -> AsyncIterator[Door]:
    """A running device."""
    device = Door(database, mute)
    server = await asyncio.start_server(device.serve, "127.0.0.1", 0)
    device.port = server.sockets[0].getsockname()[1]
    try:
        yield device
    finally:
        server.close()


def gate(device: Door, timeout_s: float = 2.0) -> dict[str, object]:
    """The tenant's gate."""
    url = f"http://127.0.0.1:{device.port}/open/{{apartment}}/{{visit}}"
    return {"kind": "http", "method": "POST", "url": url, "timeout_s": timeout_s}


async def test_the_door_is_asked_once_and_after_the_decision_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.opening.SqliteStorage", SlowStorage)
    database = tmp_path / "porteiro.db"
    async with (
        door(database) as device,
        door(database, mute=True) as silent,
        Cast(Part(ASKS, AGREES)) as cast,
        Cast(Part(ASKS, AGREES)) as other,
        household(
            tmp_path,
            {
                "jardim": with_cast(cast, gate=gate(device)),
                "bosque": with_cast(other, gate=gate(silent, 1.0)),
            },
        ) as house,
    ):
        opened, denied, unheard = uuid4(), uuid4(), uuid4()

        house.residents[denied] = lambda phone: presses(phone, "2")
        plays: list[tuple[str, UUID]] = [("jardim", opened), ("jardim", denied), ("bosque", unheard)]
        await asyncio.gather(*(house.visit(tenant, visit=visit) for tenant, visit in plays))

        assert await house.outcome(opened) == ("authorized", "opened", True)
        assert await house.outcome(denied) == ("denied", "resident_refused", None)
        assert await house.outcome(unheard) == ("authorized", "gate_failed", False)

        (request,) = device.requests
        assert request.startswith(f"POST /open/501/{opened} ")
        (before,) = device.on_record
        assert before.index("evidence") < before.index("decision") < before.index("gate.requested")
        assert "gate.answered" not in before

        assert len(silent.requests) == 1  # asked once, and not again
        assert silent.on_record[0][-1] == "gate.requested"
        told = [text for text in spoken_by_host(other, "visitor") if "o portão não respondeu" in text]
        assert told and "atendente" not in told[0], "this tenant has none"
        assert not any("portão está aberto" in text for text in spoken_by_host(other, "visitor"))
        assert any("o portão ficou sem responder" in text for text in spoken_by_host(other, "resident"))
        answered = [r for r in await house.records(unheard) if r.kind == "gate.answered"]
        assert [record.data["opened"] for record in answered] == [False]
        assert [record.data["unknown"] for record in answered] == [True]
