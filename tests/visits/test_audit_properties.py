"""Whatever is done to a chain, verify finds it and names the right record."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from visits.audit import AuditRecord, Head, _plainly_canonical, canonical, decode, seal, verify

VISITS = ("", "6f1c2e34-0000-4000-8000-00000000abcd", "6f1c2e34-0000-4000-8000-00000000abce")
TIMES = ("2026-11-21T13:05:00.000250+00:00", "2026-11-21T13:05:01.000000+00:00")

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
data = st.dictionaries(
    st.text().filter(lambda key: key not in ("about", "text", "leg")), json_values, max_size=3
)


@st.composite
def chains(draw: st.DrawFn, min_size: int = 1) -> list[AuditRecord]:
    contents = draw(
        st.lists(
            st.tuples(st.sampled_from(VISITS), st.sampled_from(TIMES), data), min_size=min_size, max_size=8
        )
    )
    records: list[AuditRecord] = []
    for visit, at, content in contents:
        previous = records[-1] if records else None
        records.append(seal(previous, tenant="jardim", visit=visit, at=at, kind="note", data=content))
    return records


@given(chains())
def test_an_honest_chain_is_sound_to_every_reader(records: list[AuditRecord]) -> None:
    assert verify(records) == []
    assert verify(iter(records), tenant="jardim", expected_head=Head(len(records), records[-1].hash)) == []
    stored = [replace(record, data=decode(canonical(record.data))) for record in records]
    assert stored == records
    assert verify(stored) == []


hashes = st.text("0123456789abcdef", min_size=64, max_size=64) | st.text(max_size=70)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "seq": st.integers(),
    "tenant": st.text(),
    "visit": st.text() | st.sampled_from(VISITS),
    "at": st.text() | st.sampled_from(TIMES),
    "kind": st.text() | st.just("decision"),
    "data": data,
    "previous": hashes,
    "hash": hashes,
}


def differs(old: Any, new: Any) -> bool:
    # 1 == True == 1.0 in Python, not in JSON.
    return canonical({"a": old}) != canonical({"a": new})


@settings(max_examples=300)
@given(records=chains(), field=st.sampled_from(sorted(FIELDS)), source=st.data())
def test_any_change_of_any_field_of_any_record_is_found_and_that_record_is_named(
    records: list[AuditRecord], field: str, source: st.DataObject
) -> None:
    index = source.draw(st.integers(0, len(records) - 1))
    value = source.draw(FIELDS[field])
    assume(differs(getattr(records[index], field), value))
    records[index] = replace(records[index], **{field: value})
    faults = verify(records)
    assert [(fault.kind, fault.seq) for fault in faults] == [("changed", index + 1)]


@given(records=chains(), source=st.data())
def test_any_changes_of_many_records_at_once_are_found(
    records: list[AuditRecord], source: st.DataObject
) -> None:
    """Several fields of several records: each such record is named, and no other."""
    changed = source.draw(st.sets(st.integers(0, len(records) - 1), min_size=1))
    for index in changed:
        fields = source.draw(st.sets(st.sampled_from(["tenant", "visit", "at", "kind", "data"]), min_size=1))
        for field in fields:
            value = source.draw(FIELDS[field])
            assume(differs(getattr(records[index], field), value))
            records[index] = replace(records[index], **{field: value})
    assert {fault.seq for fault in verify(records)} == {index + 1 for index in changed}


@given(records=chains(min_size=2), source=st.data())
def test_any_deletion_but_of_the_tail_is_found_and_exactly_that(
    records: list[AuditRecord], source: st.DataObject
) -> None:
    last = records[-1]
    gone = source.draw(st.sets(st.sampled_from(range(1, len(records))), min_size=1))
    faults = verify([record for record in records if record.seq not in gone])
    assert {fault.kind for fault in faults} == {"missing"}
    named = {seq for fault in faults for seq in range(fault.seq, fault.until + 1)}
    assert named == gone
    anchored = verify([r for r in records if r.seq not in gone], expected_head=Head(last.seq, last.hash))
    assert anchored == faults


@given(records=chains(min_size=2), source=st.data())
def test_any_cut_tail_is_found_with_an_anchor(records: list[AuditRecord], source: st.DataObject) -> None:
    keep = source.draw(st.integers(0, len(records) - 1))
    faults = verify(records[:keep], expected_head=Head(len(records), records[-1].hash))
    assert [(f.kind, f.seq, f.until) for f in faults] == [("truncated", keep + 1, len(records))]


@given(records=chains(min_size=2), source=st.data())
def test_any_other_order_is_found_and_only_records_out_of_order_are_named(
    records: list[AuditRecord], source: st.DataObject
) -> None:
    order = source.draw(st.permutations(records))
    assume(order != records)
    faults = verify(order)
    highest = 0
    late = set()
    for record in order:
        if record.seq < highest:
            late.add(record.seq)
        highest = max(highest, record.seq)
    assert {fault.seq for fault in faults if fault.kind == "reordered"} == late
    assert len(faults) == len(late)


@given(records=chains(), source=st.data())
def test_any_copy_put_in_is_found_and_named(records: list[AuditRecord], source: st.DataObject) -> None:
    copy = source.draw(st.sampled_from(records))
    place = source.draw(st.integers(copy.seq, len(records)))
    faults = verify([*records[:place], copy, *records[place:]])
    assert [(fault.kind, fault.seq) for fault in faults] == [("duplicated", copy.seq)]


@given(records=chains(min_size=2), content=data, source=st.data())
def test_a_record_sealed_anew_in_place_is_found_unless_it_is_the_last(
    records: list[AuditRecord], content: dict[str, Any], source: st.DataObject
) -> None:
    index = source.draw(st.integers(0, len(records) - 1))
    old = records[index]
    new = seal(
        records[index - 1] if index else None,
        tenant="jardim",
        visit=old.visit,
        at=old.at,
        kind="note",
        data=content,
    )
    assume(new.hash != old.hash)
    records[index] = new
    faults = verify(
        records, expected_head=Head(len(records), records[-1].hash if new.seq < len(records) else old.hash)
    )
    assert [(fault.kind, fault.seq) for fault in faults] == [("rewritten", index + 1)]


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(codec="utf-8")),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
        max_leaves=12,
    ),
    st.sampled_from(["", " ", "\n"]),
)
def test_the_quick_way_to_read_a_stored_text_reads_what_the_whole_way_reads(value: Any, behind: str) -> None:
    text = canonical({"a": value}) + behind
    plain = _plainly_canonical(text, text.encode())
    assert plain is None or (canonical(plain) == text and plain == json.loads(text))
    assert decode(text) == ({"a": value} if not behind else {"unreadable": text})


@given(st.text('{}[]":,0123456789.eE-abc \\u', max_size=40))
@example('{"a":1e5}')
@example('{"a":12345678901234567890}')
@example('{"a":100000000000000000000.0}')
@example('{"a":1,"a":1}')
@example('{"b":1,"a":1}')
def test_no_text_is_taken_for_canonical_that_is_not(text: str) -> None:
    plain = _plainly_canonical(text, text.encode())
    assert plain is None or canonical(plain) == text
