"""A request's body: what is read of it, and that anything else is a clear problem and never a fault."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from bridge.http import fields
from bridge.http.calls import Registration, read_registration
from bridge.http.fields import FORM, JSON, MAX_BYTES, read_fields
from bridge.http.problems import Problem


def read(kind: str, *chunks: bytes, length: str | None = None, then: Message | None = None) -> dict[str, Any]:
    """What is read of a body that comes in these chunks; `then`: what comes instead of its end."""
    headers = [(b"content-type", kind.encode())]
    if length is not None:
        headers.append((b"content-length", length.encode()))
    messages: list[Message] = [{"type": "http.request", "body": c, "more_body": True} for c in chunks]
    messages.append(then or {"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Message:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    scope = {"type": "http", "method": "POST", "path": "/v1/calls", "headers": headers}
    return asyncio.run(read_fields(Request(scope, receive)))


def status(kind: str, *chunks: bytes, **more: Any) -> tuple[int, str]:
    """How a body is turned down."""
    with pytest.raises(Problem) as caught:
        read(kind, *chunks, **more)
    return caught.value.status, caught.value.detail


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(said=st.dictionaries(texts, texts, max_size=5), cut=st.integers(0, 200))
def test_json_and_a_form_say_the_same(said: dict[str, str], cut: int) -> None:
    for kind, body in ((JSON, orjson.dumps(said)), (f"{FORM}; charset=UTF-8", urlencode(said).encode())):
        assert read(kind, body[:cut], body[cut:]) == said


@given(kind=st.sampled_from([JSON, FORM]), chunks=st.lists(st.binary(max_size=600), max_size=9))
def test_any_bytes_are_read_or_a_problem(kind: str, chunks: Sequence[bytes]) -> None:
    found: dict[str, Any] | Problem
    try:
        found = read(kind, *chunks)
    except Problem as problem:
        found = problem
    assert isinstance(found, dict) or found.status in (400, 413)


values = st.none() | st.booleans() | st.integers() | st.text(max_size=300) | st.lists(st.text(), max_size=2)
names = st.sampled_from(["uuid", "tenant", "dialled", "caller_id", "channel"]) | st.text(max_size=60)


@given(said=st.dictionaries(names, values, max_size=6), known=st.booleans())
def test_any_fields_are_a_registration_or_a_problem_that_names_them(
    said: dict[str, Any], known: bool
) -> None:
    said |= {"uuid": str(uuid4())} if known else {}
    found: Registration | Problem
    try:
        found = read_registration(said)
    except Problem as problem:
        found = problem
    if isinstance(found, Problem):
        assert found.status == 422 and "allowed" in found.detail and len(found.detail) < 1500
    else:
        assert found.model_dump(exclude_unset=True).keys() == said.keys()
        assert all(character >= " " for character in found.channel + found.caller_id + found.dialled)


@pytest.mark.parametrize("sign", ["\x1b", "\x9b", "\x85", "\u2028", "\u202e", "\u2066", "\n", "\x7f"])
@pytest.mark.parametrize("name", ["tenant", "dialled", "caller_id", "channel"])
def test_what_a_terminal_would_obey_is_refused(name: str, sign: str) -> None:
    with pytest.raises(Problem, match=f"{name}: found"):
        read_registration({"uuid": str(uuid4()), name: f"a{sign}b"})


@pytest.mark.parametrize("name", ["tenant", "dialled", "caller_id", "channel"])
@pytest.mark.parametrize("text", ["a\n", "a\r\nAction: Originate", "\x00", "a\x7f", "x" * 256])
def test_no_text_can_break_a_line(name: str, text: str) -> None:
    with pytest.raises(Problem, match=f"{name}: found"):
        read_registration({"uuid": str(uuid4()), name: text})


def test_everything_wrong_is_said_at_once() -> None:
    with pytest.raises(Problem) as caught:
        read_registration({"uuid": "abc", "chanel": "x"})
    assert caught.value.detail == (
        "uuid: found 'abc'; allowed: a UUID, such as 3f0d9a52-7c51-4f0e-9d43-6a1d2a6f7f10; "
        "found the field 'chanel'; allowed are uuid, tenant, dialled, caller_id, channel"
    )


def test_empty_texts_say_nothing() -> None:
    uuid = uuid4()
    said = {"uuid": str(uuid), "tenant": "", "dialled": "", "caller_id": "", "channel": ""}
    assert read_registration(said) == Registration(uuid=uuid)


def test_other_types_are_named() -> None:
    assert status("text/plain", b"uuid=1") == (
        415,
        "content-type: found 'text/plain'; allowed: application/json and application/x-www-form-urlencoded",
    )
    assert status("", b"")[0] == 415


def test_large_bodies_are_not_read() -> None:
    assert status(JSON, length=str(MAX_BYTES + 1))[0] == 413  # announced: not a byte of it is read
    assert status(JSON, length="9" * 5000)[0] == 413
    assert status(FORM, b"a" * MAX_BYTES, b"a")[0] == 413  # not announced
    assert read(FORM, b"a=" + b"a" * (MAX_BYTES - 2)) == {"a": "a" * (MAX_BYTES - 2)}


def test_what_is_no_object_twice_there_or_cut_is_a_problem() -> None:
    assert status(JSON, b"[]") == (400, "found JSON of another kind (list); allowed: an object")
    assert status(JSON, b'{"uuid"')[0] == 400
    assert status(FORM, b"uuid=1&uuid=2") == (400, "found a field twice; allowed: each once")
    assert status(FORM, b"uuid=%ff")[0] == 400
    assert status(FORM, b"&".join(b"a%d=1" % number for number in range(40)))[0] == 400
    assert status(JSON, b"{", then={"type": "http.disconnect"})[0] == 400


def test_a_body_that_does_not_come_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fields, "READ_S", 0.05)
    began: Message = {"type": "http.request", "body": b"", "more_body": True}
    assert status(JSON, b"{", then=began)[0] == 408
