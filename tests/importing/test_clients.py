"""Clients of the older system, and the tenants that they become."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.importing.clients import MAX_INSTRUCTIONS, Clients, read_clients
from bridge.importing.tenants import TENANT_ID, TenantDraft

A, B = UUID(int=1), UUID(int=2)
JARDIM = {"client_id": A, "client_name": "Condomínio Jardim", "active": True}
VISTA = {"client_id": B, "client_name": "Vista Bela", "active": True}
VOICE = {
    "client_id": A,
    "voice": "marin",
    "temperature": 0.7,
    "max_tokens": 800,
    "instructions": "Sem entregas.",
}


def read(
    clients: list[Any], numbers: list[Any] | None = None, configured: list[Any] | None = None, **changes: Any
) -> Clients:
    choices: dict[str, Any] = {"known_as": {}, "ports": {}, "first_port": 8100, "provider": "openai"}
    return read_clients(clients, numbers or [], configured or [], **{**choices, **changes})


def number(text: str, client: UUID = A, **more: Any) -> dict[str, Any]:
    return {"sip_number": text, "client_id": client, **more}


def test_a_client_is_a_tenant() -> None:
    got = read([JARDIM], [number("+5511999990001"), number("2000", active=False)], [VOICE])
    assert not got.problems
    assert got.drafts == (
        TenantDraft(
            "condominio-jardim",
            {
                "visitor_port": 8100,
                "resident_port": 8101,
                "name": "Condomínio Jardim",
                "numbers": ["+5511999990001"],
                "provider": "openai",
                "voice": "marin",
                "prompt_extra": "Sem entregas.",
            },
        ),
    )
    assert [note.partition(": ")[2] for note in got.notes] == [
        "instructions become prompt_extra, beside our own prompt: read them once",
        "temperature 0.7 is not taken over: there is no such setting",
        "max_tokens 800 is not taken over: there is no such setting",
    ]


def test_ports_that_a_tenant_has_are_kept_and_others_are_free_ones() -> None:
    got = read([JARDIM, VISTA], ports={"vista-bela": (8101, 8102), "another": (8104, 8105)})
    pairs = {one.id: (one.settings["visitor_port"], one.settings["resident_port"]) for one in got.drafts}
    assert pairs == {"vista-bela": (8101, 8102), "condominio-jardim": (8106, 8107)}


def test_who_is_not_active_is_left_out_and_said() -> None:
    got = read([{**JARDIM, "active": False}])
    assert got.drafts == () and "is not active" in got.notes[0]


def test_without_a_provider_no_voice_is_taken_over() -> None:
    got = read([JARDIM], [], [VOICE], provider="")
    assert "voice" not in got.drafts[0].settings and "provider" not in got.drafts[0].settings
    assert any("say whose it is with --provider" in note for note in got.notes)


@pytest.mark.parametrize(
    ("clients", "more", "problem"),
    [
        (
            [JARDIM, {**VISTA, "client_name": "condominio jardim"}],
            {},
            "would be the tenant condominio-jardim",
        ),
        ([JARDIM], {"first_port": None}, "the tenant condominio-jardim has no ports; give --first-port"),
        ([JARDIM], {"numbers": [number("a b")]}, "sip_number: found 'a b'; allowed: letters"),
        ([JARDIM], {"numbers": [number("1", B)]}, "there is no such client in the table clients"),
        ([JARDIM], {"configured": [{**VOICE, "client_id": B}]}, "there is no such client"),
        (
            [JARDIM],
            {"configured": [{**VOICE, "instructions": "x" * (MAX_INSTRUCTIONS + 1)}]},
            "20001 characters",
        ),
        ([{"client_id": None, "client_name": "x"}], {}, "client_id must be there"),
        ([JARDIM, {**VISTA, "client_id": A}], {}, "client_id must be there, and one client's alone"),
        ([JARDIM], {"known_as": {str(A): "No"}}, "found 'No' for the tenant's id; allowed"),
    ],
)
def test_what_can_not_be_taken_is_a_problem(clients: list[Any], more: dict[str, Any], problem: str) -> None:
    (found,) = read(clients, **more).problems
    assert problem in str(found)


values = st.none() | st.booleans() | st.integers(0, 3) | st.text(max_size=8) | st.floats()
rows = st.lists(
    st.fixed_dictionaries(
        dict.fromkeys(("client_id", "client_name", "active", "sip_number", "voice", "instructions"), values)
    ),
    max_size=4,
)


@given(rows, rows, rows, st.none() | st.integers(1, 65534))
def test_any_rows_give_problems_or_tenants(
    clients: list[Any], numbers: list[Any], configured: list[Any], first: int | None
) -> None:
    got = read(clients, numbers, configured, first_port=first)
    if not got.problems:
        assert all(TENANT_ID.fullmatch(one.id) for one in got.drafts)
        ports = [one.settings[name] for one in got.drafts for name in ("visitor_port", "resident_port")]
        assert len(set(ports)) == len(ports)
