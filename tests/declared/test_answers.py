"""Of an answer the model sees what the settings name, in bounds, and nothing else."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.declared.answers import DEEPEST, Unreadable, chosen, read, steps


@dataclass(frozen=True)
class Field:
    """As the settings have it."""

    name: str
    at: str
    max_chars: int = 20
    max_items: int = 3


DOCUMENT = {
    "customer": {"name": "Ana Prado", "cpf": "123", "a/b": 1, "m~n": True},
    "slots": [{"time": "9:00", "secret": "x"}, {"time": "10:00"}, {"other": 1}, {"time": "11:00"}],
    "tags": ["a", {"b": 1}, None, 3],
    "long": "x" * 100,
    "nothing": None,
}


def test_only_what_is_named_is_shown() -> None:
    fields = [
        Field("name", "/customer/name"),
        Field("slash", "/customer/a~1b"),
        Field("tilde", "/customer/m~0n"),
        Field("times", "/slots/*/time"),
        Field("second", "/slots/1/time"),
        Field("tags", "/tags/*"),
        Field("tables", "/slots/*"),
        Field("long", "/long"),
        *(
            Field("no", at)
            for at in ("/customer", "/nothing", "/nobody/x", "/slots/99", "/tags", "/slots/-1/time", "")
        ),
    ]
    assert chosen(DOCUMENT, fields) == {
        "name": "Ana Prado",
        "slash": 1,
        "tilde": True,
        "times": ["9:00", "10:00"],
        "second": "10:00",
        "tags": ["a"],
        "tables": [],
        "long": "x" * 19 + "…",
    }


def test_what_turns_or_hides_text_is_taken_out() -> None:
    said = "Ana\u202e\n\x00  Prado\u2028\u200b<b>"
    assert chosen({"n": said}, [Field("n", "/n")]) == {"n": "Ana Prado <b>"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
    lambda below: st.lists(below, max_size=5) | st.dictionaries(st.text(max_size=4), below, max_size=5),
    max_leaves=20,
)
POINTERS = st.lists(st.sampled_from(["*", "a", "0", "", "-"]) | st.text(max_size=3), max_size=4).map(
    lambda names: "".join(f"/{name}" for name in names)
)


@given(document=JSON, at=POINTERS, chars=st.integers(1, 30), items=st.integers(1, 4))
def test_any_answer_is_bounded(document: object, at: str, chars: int, items: int) -> None:
    try:
        steps(at)
    except ValueError:
        assert at.count("*") > 1
        return
    shown = chosen(document, [Field("x", at, chars, items)])
    found = shown.get("x")
    values = found if isinstance(found, list) else [found]
    assert len(values) <= items
    for value in values:
        assert value is None or isinstance(value, str | int | float)
        if isinstance(value, str):
            assert len(value) <= chars
            assert not any(unicodedata.category(char)[0] == "C" for char in value)
    orjson.dumps(shown, option=orjson.OPT_PASSTHROUGH_SUBCLASS)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        read(body)
    except Unreadable:
        return


@pytest.mark.parametrize("body", [b"<html>", b"NaN", b"{", b"[" * 100_000, b'{"a": 1} x', b"\xff"])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(Unreadable):
        read(body)


@pytest.mark.parametrize("pointer", ["a", "/*/*", "/a" * (DEEPEST + 1)])
def test_what_is_no_pointer_is_refused(pointer: str) -> None:
    with pytest.raises(ValueError, match="a JSON pointer"):
        steps(pointer)
