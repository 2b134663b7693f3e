"""What an event says: what was on record by then, and of people what is wanted and still there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge.webhooks.message import NotTellableError, body_of
from storage.outbox import TOLD, Due
from storage.sqlite import SqliteStorage
from tests.storage.test_store import START, TENANT, Visit, whole_visit
from visits.audit import stamp

LATER = stamp(START.replace(year=2027))


async def dues(storage: SqliteStorage) -> list[Due]:
    """Everything that is to be told, one after the other."""
    found: list[Due] = []
    while due := await storage.outbox.due(TENANT, LATER, 50):
        found += due
        for one in due:
            await storage.outbox.told(one.event)
    return found


def said(due: Due, *, personal: bool = False) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(body_of(due.event, due.records, personal=personal))
    return told


async def test_an_event_says_what_was_on_record_by_then(tmp_path: Path) -> None:
    async with await SqliteStorage.open(tmp_path / "porteiro.db") as storage:
        await storage.outbox.subscribe(TENANT, TOLD, since=LATER)
        visit = await whole_visit(storage)
        started, decided, ended = await dues(storage)
        # Whatever was recorded later, and however late it is told.
        common = {
            "visit": visit.id,
            "tenant": TENANT,
            "started_at": "2026-11-21T13:05:00.000000+00:00",
            "test": False,
        }
        assert said(started) == {
            "type": "visit.started",
            "timestamp": "2026-11-21T13:05:00.000000+00:00",
            "data": {**common, "record": 1, "apartment": None, "intent": None},
        }
        decision = {"decision": "authorized", "decided_by": "voice"}
        assert said(decided) == {
            "type": "visit.decided",
            "timestamp": "2026-11-21T13:05:10.000000+00:00",
            "data": {**common, "record": 11, "apartment": "501", "intent": None, **decision},
        }
        assert said(ended) == {
            "type": "visit.ended",
            "timestamp": "2026-11-21T13:05:14.000000+00:00",
            "data": {
                **common,
                **decision,
                "record": 15,
                "apartment": "501",
                "intent": "visita",
                "outcome": "authorized",
                "reason": "opened",
                "gate": "opened",
            },
        }
        nobody = {"caller_id": None, "visitor_name": None, "resident": None}
        assert said(decided, personal=True)["data"]["personal"] == nobody
        assert said(ended, personal=True)["data"]["personal"] == {**nobody, "visitor_name": "João"}


async def test_a_visit_of_which_little_is_known_is_told_as_it_is(tmp_path: Path) -> None:
    async with await SqliteStorage.open(tmp_path / "porteiro.db") as storage:
        await storage.outbox.subscribe(TENANT, TOLD, since=LATER)
        visit = Visit(storage)
        await visit.write("visit.started", test=True, caller_id="11987654321")
        await visit.decide()
        await visit.write("gate.requested")
        await storage.recover(LATER)
        started, _, ended = await dues(storage)
        assert said(started, personal=True)["data"]["personal"]["caller_id"] == "11987654321"
        assert (
            said(ended)["data"] | {"test": True, "gate": "unknown", "apartment": None} == said(ended)["data"]
        )
        assert said(ended)["data"]["outcome"] == "failed"
        await storage.erase(TENANT, [visit.id], scope="visit", kind="person.erased", by="cli:ana", at=LATER)
        await storage.outbox.unsubscribe(TENANT)
        await storage.outbox.subscribe(TENANT, TOLD, since=stamp(START))
        (again, *_) = await dues(storage)
        assert said(again, personal=True)["data"]["personal"]["caller_id"] is None
        assert "11987654321" not in json.dumps([record.data for record in again.records])


async def test_what_somebody_edited_is_told_to_nobody(tmp_path: Path) -> None:
    async with await SqliteStorage.open(tmp_path / "porteiro.db") as storage:
        await storage.outbox.subscribe(TENANT, TOLD, since=LATER)
        await whole_visit(storage)
        _, decided, ended = await dues(storage)
        first, *rest = ended.records
        for records in (
            (),
            ended.records[:-1],
            (replace(first, data={**first.data, "test": True}, sealed=None), *rest),
            decided.records[:-1] + ended.records[-1:] * 2,
        ):
            with pytest.raises(NotTellableError):
                body_of(ended.event, records, personal=False)
