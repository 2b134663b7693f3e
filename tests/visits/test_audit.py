"""The record and its chain: what is sealed, what is refused, and how a fault is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from visits.audit import (
    GENESIS,
    KINDS,
    MAX_DATA_BYTES,
    AuditError,
    AuditRecord,
    Head,
    canonical,
    decode,
    digest,
    draft,
    seal,
    stamp,
    verify,
)

VISIT = "6f1c2e34-0000-4000-8000-00000000abcd"
AT = "2026-11-21T13:05:00.000250+00:00"


def note(previous: AuditRecord | Head | None, text: str = "", **changes: Any) -> AuditRecord:
    values: dict[str, Any] = {
        "tenant": "jardim",
        "visit": VISIT,
        "at": AT,
        "kind": "note",
        "data": {"text": text},
        **changes,
    }
    return seal(previous, **values)


def chain(length: int) -> list[AuditRecord]:
    records: list[AuditRecord] = []
    for number in range(length):
        records.append(note(records[-1] if records else None, f"number {number}"))
    return records


def found(records: list[AuditRecord], **more: Any) -> list[tuple[str, int, int]]:
    return [(fault.kind, fault.seq, fault.until) for fault in verify(records, **more)]


def test_a_chain_starts_at_genesis_and_each_record_carries_the_hash_before() -> None:
    first, second, third = chain(3)
    assert (first.seq, first.previous) == (1, GENESIS)
    assert (second.seq, second.previous) == (2, first.hash)
    assert (third.seq, third.previous) == (3, second.hash)
    assert verify([first, second, third]) == []


def test_the_hash_is_the_documented_one_and_never_changes() -> None:
    # Written out by hand: a database of today must verify with every later version.
    from hashlib import sha256

    parts = ("porteiro-audit-1", "1", "jardim", VISIT, AT, "note", '{"a":1,"text":"Olá"}', "0" * 64)
    raw = b"".join(len(p.encode()).to_bytes(8, "big") + p.encode() for p in parts)
    record = note(None, data={"text": "Olá", "a": 1})
    assert record.hash == sha256(raw).hexdigest()
    assert record.hash == "d785969876deaaad1797272a06fc35bbd86e9a3c18319a2adfeb989a0d97fefd"


def test_a_record_moved_over_a_field_boundary_has_another_hash() -> None:
    one = note(None, tenant="ab", data={})
    assert one.hash != digest(replace(one, tenant="a", visit="b" + one.visit))


def test_the_order_of_keys_is_nothing_and_the_value_everything() -> None:
    assert note(None, data={"text": "x", "a": 1}).hash == note(None, data={"a": 1, "text": "x"}).hash
    hashes = {note(None, data={"a": value}).hash for value in (1, 1.0, True, "1", None, [1], {"1": 1})}
    assert len(hashes) == 7


def test_what_the_caller_keeps_cannot_change_the_record() -> None:
    data = {"text": "x", "list": [1]}
    record = note(None, data=data)
    data["list"].append(2)  # type: ignore[attr-defined]
    data["text"] = "y"
    assert record.data == {"text": "x", "list": [1]}
    assert verify([record]) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "gate.opened"},
        {"kind": ""},
        {"data": {"text": float("nan")}},
        {"data": {"a": float("inf")}},
        {"data": {"a": {1: "key"}}},
        {"data": {"a": object()}},
        {"data": {"a": b"bytes"}},
        {"data": {"a": 10**5000}},
        {"data": {"a": "x" * MAX_DATA_BYTES}},
        {"data": dict([("\ud800", 1), ("\udc00", 2)])},  # noqa: C406 - both become U+FFFD
        {"kind": "gate.answered", "data": {"opened": False, "detail": 10**5000}},
        {"at": "2026-11-21T13:05:00Z"},
        {"at": "2026-11-21T13:05:00.000250"},
        {"at": "2026-11-21T10:05:00.000250-03:00"},
        {"at": "2026-02-30T13:05:00.000250+00:00"},
        {"at": "now"},
        {"visit": "A" + VISIT[1:]},
        {"visit": VISIT + "\n"},
        {"visit": "1"},
        {"tenant": "\ud800"},
        {"kind": "visit.started", "visit": "", "data": {}},
        {"kind": "service.started", "data": {}},
        {"kind": "decision", "data": {"decision": "authorized"}},
        {"kind": "decision", "data": {"decision": "maybe", "evidence": []}},
        {"kind": "decision", "data": {"decision": "authorized", "evidence": "words"}},
        {"kind": "gate.answered", "data": {"opened": 1, "detail": ""}},
        {"kind": "gate.answered", "data": {"opened": "false", "detail": ""}},
        {
            "kind": "turn",
            "data": {"leg": "v", "speaker": "model", "text": "", "started_ms": 0, "ended_ms": 0},
        },
        {
            "kind": "turn",
            "data": {"leg": "v", "speaker": "agent", "text": "", "started_ms": True, "ended_ms": 0},
        },
        {"kind": "visit.ended", "data": {"outcome": "opened"}},
    ],
    ids=lambda changes: " ".join(changes),
)
def test_what_is_not_a_record_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(AuditError):
        note(None, **changes)


def test_nesting_has_a_bound_and_no_stack_overflows() -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(AuditError, match="deep"):
        note(None, data={"a": deep})


def test_half_a_surrogate_pair_of_a_model_does_not_cost_the_record() -> None:
    arguments = json.loads('{"spoken": "\\ud83d"}')
    data = {"leg": "visitor", "call": "c", "name": "lookup_apartment", "arguments": arguments}
    record = note(None, kind="tool.called", data=data)
    assert record.data["arguments"] == {"spoken": "\ufffd"}
    assert verify([record]) == []
    # … but in a record that is checked it is somebody's edit, not the same thing.
    assert found([replace(record, data=data)]) == [("changed", 1, 1)]


def test_a_record_of_one_tenant_does_not_follow_one_of_another() -> None:
    with pytest.raises(AuditError):
        note(note(None), tenant="outro")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_what_it_means(kind: str) -> None:
    assert KINDS[kind].meaning.endswith(".")


MINIMAL: Mapping[str, dict[str, Any]] = {
    "visit.started": {},
    "leg.connected": {"leg": "a", "role": "visitor"},
    "leg.ended": {"leg": "a", "reason": "hangup", "recording": None},
    "session.lost": {"leg": "a", "provider": "openai", "reason": "went_away: it broke"},
    "session.replaced": {"leg": "a", "provider": "gemini", "reason": "went_away: it broke"},
    "turn": {
        "leg": "a",
        "speaker": "caller",
        "text": "Oi",
        "started_ms": 1,
        "ended_ms": 2.5,
        "response_ms": None,
    },
    "tool.called": {"leg": "a", "call": "1", "name": "x", "arguments": "{not json"},
    "tool.answered": {"leg": "a", "call": "1", "name": "x", "result": None, "ms": 1, "status": "ok"},
    "dial.started": {"attempt": "a"},
    "dial.ended": {"attempt": "a", "outcome": "busy"},
    "briefing.played": {"attempt": "a"},
    "parties.connected": {"attempt": "a"},
    "parties.ended": {"attempt": "a", "reason": "resident_key", "seconds": 12.5},
    "evidence": {"attempt": "a", "by": "voice"},
    "decision": {"decision": "denied", "evidence": [{}]},
    "gate.requested": {},
    "gate.answered": {"opened": False, "detail": ""},
    "note": {},
    "visit.cost": {
        "amount": "0.1",
        "currency": "BRL",
        "usd": "0.02",
        "final": True,
        "complete": True,
        "unknown": [],
        "usage": [],
    },
    "visit.ended": {"outcome": "failed", "apartment": None},
    "recording.failed": {"leg": "a", "reason": "full"},
    "recording.closed": {"leg": "a", "recording": "a.wav", "bytes": 44, "sha256": "0" * 64},
    "service.started": {},
    "service.stopped": {},
    "visit.recovered": {"reason": "crash", "gate": "unknown"},
    "settings.changed": {
        "by": "operator:ana",
        "action": "changed",
        "version": 2,
        "source": "database",
        "digest": "0" * 64,
    },
    "directory.changed": {"by": "key:k1", "version": 3, "created": 1, "changed": 0, "removed": 0},
    "operator.changed": {"by": "command:root", "login": "ana", "action": "created"},
    "key.changed": {"by": "operator:ana", "key": "k1", "action": "revoked"},
    "visit.reviewed": {"by": "operator:ana", "verdict": "wrong"},
    "visit.hung_up": {"by": "operator:ana"},
    "person.erased": {"by": "operator:ana", "scope": "visit", "visits": [VISIT], "removed": {"records": 4}},
    "retention.carried_out": {
        "by": "service",
        "scope": "recordings",
        "visits": [VISIT],
        "removed": {"recordings": 2},
    },
    "webhook.given_up": {"event": f"{VISIT}-ended", "attempts": 9, "answer": "503"},
    "webhook.resent": {"by": "operator:ana", "event": f"{VISIT}-ended"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_needs_its_fields_and_takes_more(kind: str) -> None:
    visit = "" if KINDS[kind].scope == "service" else VISIT
    data = MINIMAL[kind]
    assert note(None, kind=kind, visit=visit, data={**data, "more": [1]}).data["more"] == [1]
    optional = {"response_ms", "recording", "apartment"}
    for name in data.keys() - optional:
        with pytest.raises(AuditError, match=name):
            draft(
                tenant="t", visit=visit, at=AT, kind=kind, data={k: v for k, v in data.items() if k != name}
            )


def test_a_time_is_written_in_one_way() -> None:
    moment = datetime(2026, 11, 21, 10, 5, tzinfo=timezone(timedelta(hours=-3)))
    assert stamp(moment) == "2026-11-21T13:05:00.000000+00:00"
    assert stamp(datetime(2026, 11, 21, 13, 5, 0, 250, UTC)) == AT
    with pytest.raises(AuditError):
        stamp(datetime(2026, 11, 21))  # noqa: DTZ001 - the point


def test_the_text_of_a_store_is_read_back_only_as_it_was_written() -> None:
    text = canonical({"b": [1, 2.5, None, True], "a": "ção \u0000 \U0001f600"})
    assert canonical(decode(text)) == text
    for edited in (
        '{"opened":false,"opened":true}',  # our parser takes the last, another the first
        '{"opened": true}',
        '{"b":1,"a":2}',
        '{"a":NaN}',
        '{"a":1e999}',
        '["opened"]',
        '{"a":"\\ud800"}',
        '{"a":' + "[" * 5000 + "]" * 5000 + "}",
        "{",
        "",
    ):
        assert decode(edited) == {"unreadable": edited}


def test_a_head_is_read_as_it_is_written() -> None:
    head = Head(120, "ab" * 32)
    assert Head.parse(f" {head}\n") == head
    for text in ("", "120", "120:", "x:" + "ab" * 32, "1:" + "AB" * 32, "1:" + "ab" * 31, "-1:" + "ab" * 32):
        with pytest.raises(AuditError):
            Head.parse(text)


# --------------------------------------------------------------------------------------------------------
# Faults
# --------------------------------------------------------------------------------------------------------


def test_a_denial_turned_into_an_authorization_is_named() -> None:
    records = chain(2)
    records.append(note(records[-1], kind="decision", data={"decision": "denied", "evidence": []}))
    records.append(note(records[-1]))
    records[2] = replace(records[2], data={"decision": "authorized", "evidence": []})
    (fault,) = verify(records)
    assert (fault.kind, fault.seq, fault.visit, fault.tenant) == ("changed", 3, VISIT, "jardim")
    assert "record 3" in str(fault) and VISIT in str(fault)


def test_a_record_sealed_anew_in_place_is_named_by_the_one_after_it() -> None:
    records = chain(5)
    records[2] = note(records[1], "something else")
    assert found(records) == [("rewritten", 3, 4)]


def test_records_taken_out_are_named() -> None:
    records = chain(8)
    assert found(records[:2] + records[5:]) == [("missing", 3, 5)]
    assert found(records[1:]) == [("missing", 1, 1)]


def test_a_record_put_in_twice_is_named() -> None:
    records = chain(5)
    assert found([*records, records[1]]) == [("duplicated", 2, 2)]
    assert found([records[0], records[0], *records[1:]]) == [("duplicated", 1, 1)]


def test_swapped_records_are_named() -> None:
    a, b, c, d = chain(4)
    assert found([a, c, b, d]) == [("reordered", 2, 2)]


def test_a_deletion_beside_a_change_shows_both() -> None:
    records = chain(6)
    records[3] = replace(records[3], at=AT.replace("13", "14"))
    del records[2]
    assert found(records) == [("missing", 3, 3), ("changed", 4, 4)]


def test_a_record_of_another_tenant_is_named() -> None:
    records = chain(3)
    stranger = note(Head(3, records[-1].hash), tenant="outro")
    assert found([*records, stranger]) == [("forged", 4, 4)]
    assert found(records, tenant="outro") == [("forged", 1, 1), ("forged", 2, 2), ("forged", 3, 3)]


def test_a_chain_that_starts_in_the_middle_of_nothing_is_named() -> None:
    assert found([note(Head(0, "ab" * 32))]) == [("forged", 1, 1)]


def test_a_cut_tail_is_found_with_an_anchor_and_only_with_one() -> None:
    records = chain(9)
    anchor = Head(9, records[-1].hash)
    assert verify(records[:6]) == []
    assert found(records[:6], expected_head=anchor) == [("truncated", 7, 9)]
    assert found([], expected_head=anchor) == [("truncated", 1, 9)]
    assert verify(records, expected_head=anchor) == []
    more = [*records, note(records[-1])]
    assert verify(more, expected_head=anchor) == []


def test_a_tail_written_anew_is_found_with_an_anchor() -> None:
    records = chain(9)
    anchor = Head(9, records[-1].hash)
    forged = records[:6]
    while len(forged) < 12:
        forged.append(note(forged[-1], "a better story"))
    assert verify(forged) == []
    assert found(forged, expected_head=anchor) == [("rewritten", 9, 9)]


def test_a_forged_tail_that_does_not_link_is_named_without_an_anchor() -> None:
    records = chain(4)
    forged = note(Head(4, "ab" * 32))
    assert found([*records, forged, note(forged)]) == [("rewritten", 4, 5)]
