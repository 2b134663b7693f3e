"""Whatever a model writes for a tool's arguments can be on record."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.host import understood
from visits.audit import MAX_DEPTH, canonical

DEEP = '{"a":' + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1) + "}"


@pytest.mark.parametrize("text", [DEEP, '{"a":NaN}', '{"a":1e999}', '{"a":"\\ud800"}', "[" * 4000, "sim\x00"])
def test_what_can_not_be_on_record_as_it_was_understood_is_there_as_it_was_written(text: str) -> None:
    assert understood(text) == text
    canonical({"arguments": understood(text)})


@given(
    st.recursive(st.none() | st.floats() | st.text(), lambda inner: st.lists(inner), max_leaves=20)
    | st.text()
)
def test_all_arguments_can_be_on_record(given_: object) -> None:
    text = given_ if isinstance(given_, str) else json.dumps(given_)
    canonical({"arguments": understood(text.encode(errors="replace").decode())})
