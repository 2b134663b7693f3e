"""Extensions of the older system: rows, the tenants they become, and notifications."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.importing.extensions import (
    JSON_NAMES,
    TABLE_NAMES,
    Extension,
    Notification,
    collisions,
    drafts_of,
    notes_of,
    read_extensions,
    read_notification,
    read_ramais,
)
from bridge.importing.tenants import TENANT_ID, TenantDraft


def ramal(**changes: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "ramal_ia": "1001",
        "ramal_retorno": "1002",
        "ip_servidor": "10.0.0.5",
        "porta_ia": 8080,
        "porta_retorno": 8081,
        "condominio_id": 3,
        **changes,
    }


ONE = Extension("1", "1001", "1002", "10.0.0.5", 8080, 8081, "3")


def test_a_file_of_extensions() -> None:
    content = json.dumps({"ramais": [ramal()]}).encode()
    assert read_ramais(content, "x").rows == (ONE,)


def test_numbers_may_be_texts_and_texts_numbers() -> None:
    row = ramal(id="1", ramal_ia=1001, ramal_retorno=None, ip_servidor="", porta_ia="8080", condominio_id="3")
    assert read_extensions([row], JSON_NAMES, "x").rows == (Extension("1", "1001", "", "", 8080, 8081, "3"),)


def test_a_table_has_other_names_for_the_same() -> None:
    row = dict(zip(TABLE_NAMES, ramal().values(), strict=True))
    assert read_extensions([row], TABLE_NAMES, "x").rows == (ONE,)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "x: not valid JSON"),
        (b"\xff{}", "x: not valid JSON"),
        (b"[" * 100_000, "x: not valid JSON"),
        (b"{}", 'x: found no list "ramais"; allowed: '),
        (b'{"ramais": {}}', 'x: found no list "ramais"'),
        (b'{"ramais": [7]}', "x: row 1: found 7; allowed: an object with id, ramal_ia"),
    ],
)
def test_what_is_no_such_file_is_refused(content: bytes, problem: str) -> None:
    (found,) = read_ramais(content, "x").problems
    assert str(found).startswith(problem)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"id": None}, "id: not set; it must be given"),
        ({"id": True}, "id: found True; allowed: a number or a text"),
        ({"ramal_ia": "10 01"}, "ramal_ia: found '10 01'; allowed: an extension such as 1001"),
        ({"ramal_retorno": "a/b"}, "ramal_retorno: found 'a/b'; allowed: an extension such as 1002"),
        ({"ip_servidor": "here"}, "ip_servidor: found 'here'; allowed: an IP address such as 10.0.0.5"),
        ({"porta_ia": 0}, "porta_ia: found 0; allowed: 1 to 65535"),
        ({"porta_ia": "80a"}, "porta_ia: found '80a'; allowed: 1 to 65535"),
        ({"porta_retorno": 8080}, "porta_retorno: found 8080, which porta_ia has; allowed: another port"),
        ({"condominio_id": [3]}, "condominio_id: found [3]; allowed: a number or a text"),
    ],
)
def test_every_wrong_row_says_what_is_wrong(changes: dict[str, Any], problem: str) -> None:
    read = read_extensions([ramal(id=9), ramal(**changes)], JSON_NAMES, "x")
    assert [str(one) for one in read.problems] == [f"x: row 2: {problem}"]


def test_an_id_stands_for_one_row() -> None:
    (found,) = read_extensions([ramal(), ramal(id="1")], JSON_NAMES, "x").problems
    assert str(found) == "x: row 2: id: found '1', which row 1 has"


def other(**changes: Any) -> Extension:
    return read_extensions([ramal(**changes)], JSON_NAMES, "x").rows[0]


def test_a_condominium_is_a_tenant() -> None:
    rows = [ONE, other(id=2, ramal_ia="1003")]
    settings: dict[str, Any] = {"visitor_port": 8080, "resident_port": 8081, "numbers": ["1001", "1003"]}
    assert drafts_of(rows, {}, "") == (TenantDraft("condominio-3", settings),)
    (named,) = drafts_of(rows, {"3": "jardim"}, "openai")
    assert named == TenantDraft("jardim", {**settings, "provider": "openai"})


def test_further_ports_of_a_condominium_are_a_tenant_of_their_own() -> None:
    rows = [other(id=12, ramal_ia="1007", porta_ia=8090, porta_retorno=8091), ONE]
    assert [one.id for one in drafts_of(rows, {}, "")] == ["condominio-3", "condominio-3-1007"]
    assert drafts_of(rows, {}, "") == drafts_of(rows[::-1], {}, "")


def test_two_condominiums_never_become_one_tenant() -> None:
    rows = [other(condominio_id="A b"), other(id=2, condominio_id="a-b"), other(id=3, condominio_id="c")]
    texts = [str(one) for one in collisions(rows, {"c": "not this"}, "x")]
    assert texts == [
        "x: condominium a-b (ports 8080 and 8081): would be the tenant condominio-a-b, which condominium A b "
        "(ports 8080 and 8081) is; name another with --as",
        "x: condominium c (ports 8080 and 8081): found 'not this'; allowed: letters a to z, digits, _ and -",
    ]


def test_two_pairs_of_ports_never_become_one_tenant() -> None:
    further = [other(id=2, porta_ia=1, ramal_ia="7"), other(id=3, porta_ia=2, ramal_ia="7")]
    (found,) = collisions([ONE, *further], {}, "x")
    assert "would be the tenant condominio-3-7, which condominium 3 (ports 1 and 8081) is" in str(found)
    (found,) = collisions([ONE, further[0], other(id=4, condominio_id="3-7")], {}, "x")
    assert "which condominium 3 (ports 1 and 8081) is" in str(found)


def test_what_has_no_place_here_is_said() -> None:
    returned, address = notes_of([ONE], ("127.0.0.1",))
    assert "1002" in returned and "10.0.0.5" in address
    assert len(notes_of([ONE], ("0.0.0.0",))) == len(notes_of([ONE], ("10.0.0.5",))) == 1


usual = st.sampled_from([1, "2", 3, "1001", 8080])
values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | usual
anything = st.recursive(
    values,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
likely = st.fixed_dictionaries(dict.fromkeys(JSON_NAMES, usual))


@given(
    st.lists(likely, max_size=6)
    | st.lists(st.fixed_dictionaries(dict.fromkeys(JSON_NAMES, anything)) | anything, max_size=4)
)
def test_any_rows_give_problems_or_tenants(rows: list[object]) -> None:
    read = read_extensions(rows, JSON_NAMES, "x")
    if not read.problems and not collisions(read.rows, {}, "x"):
        drafts = drafts_of(read.rows, {}, "")
        assert all(TENANT_ID.fullmatch(one.id) for one in drafts)
        pairs = {(one.condominium, one.port, one.return_port) for one in read.rows}
        assert len({one.id for one in drafts}) == len(drafts) == len(pairs)


@given(st.binary(max_size=60) | anything.map(lambda tree: json.dumps({"ramais": tree}).encode()))
def test_any_file_gives_problems_or_rows(content: bytes) -> None:
    read = read_ramais(content, "x")
    assert read.problems or isinstance(read.rows, tuple)


def test_notifications() -> None:
    for action in ("INSERT", "UPDATE", "DELETE"):
        payload = json.dumps({"action": action, "data": {"extension_ia_id": 7}})
        assert read_notification(payload).id == "7"
    assert read_notification('{"action": "DELETE", "data": {}}') == Notification("DELETE", "")


@given(st.text(max_size=60) | anything.map(json.dumps))
def test_any_other_payload_is_refused(payload: str) -> None:
    with suppress(ValueError):
        read_notification(payload)
        raise AssertionError(payload)
