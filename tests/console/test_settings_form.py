"""A tenant's settings as a form: it shows what is there, and sent back unchanged it changes nothing."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.http.console.language import read_languages
from bridge.http.console.settings_form import (
    FormField,
    changed_tops,
    complaints_of,
    every_field,
    facts_of,
    tree_after,
    values_of,
)
from bridge.http.console.wrong import in_words, of_entry
from bridge.settings import SettingsError, Tenant, build
from visits.directory import Directory, DirectoryError
from visits.facts import Intent

WHOLE: dict[str, Any] = {
    "name": "Edifício Ipê",
    "numbers": ["9000", "portaria"],
    "provider": "azure-voicelive",
    "model": "gpt-4o",
    "base_url": "https://x.services.ai.azure.com",
    "interim_texts": ["Um instante.", "Só um momento, por favor."],
    "greeting": "Bom dia! Com quem deseja falar?",
    "prompt_extra": "Entregas ficam na portaria.\nDepois das 22 horas, ninguém sobe.",
    "noise_suppression": False,
    "required": {"visita": ["apartment"], "entrega": ["apartment"], "servico": ["apartment", "resident"]},
    "limits": {"ring_s": 12.5, "dial_attempts": 3},
    "gate": {
        "kind": "http",
        "url": "http://10.0.0.9/open",
        "headers": {"X-Door": "1", "X-Apartment": "{apartment}"},
        "headers_env": {"X-Key": "DOOR_KEY"},
        "success": {"status": [200, 204], "json_path": "ok", "json_equals": True},
    },
    "dialer": {"kind": "ari", "password_env": "ARI", "dial_string": "PJSIP/{number}"},
    "manager": {"password_env": "AMI"},
    "attendant": {"extension": "100", "name": "zeladoria"},
    "fallback": [{"provider": "openai"}, {"provider": "gemini", "voice": "Aoede"}],
    "cost": {
        "currency": "BRL",
        "per_usd": 5.4,
        "daily_budget": 50,
        "prices": {"openai": {"m": {"audio_in": 32}}},
    },
    "departments": {"Zeladoria": {"extension": "101", "also": ["zelador"]}},
    "extensions": ["2XX"],
    "tools": {
        "lookup_customer": {
            "description": "Procura.",
            "url": "https://crm.example/c?q={name}",
            "parameters": {"properties": {"name": {"description": "O nome."}}},
            "answer": [{"name": "plan", "at": "/plan"}],
        }
    },
    "vad": {"threshold": 0.6},
}


def form_of(tree: dict[str, Any]) -> tuple[list[FormField], dict[str, list[str]]]:
    """What a browser sends back of a form that nobody has touched."""
    fields = every_field(tree)
    values = values_of(tree, fields)
    sent = {each.name: [values.get(each.name, "")] for each in fields if each.widget != "facts"}
    sent["required.shown"] = ["1"]
    facts = facts_of(tree)
    sent |= {f"required.{intent}": list(facts[str(intent)]) for intent in Intent}
    return fields, sent


def test_a_form_that_nobody_touched_changes_nothing() -> None:
    before = copy.deepcopy(WHOLE)
    assert tree_after(WHOLE, *form_of(WHOLE)) == before == WHOLE
    assert tree_after({}, *form_of({})) == {}
    build({"tenants": {"ipe": WHOLE}, "service": {"http_port": None}})  # and it is a tenant's


@given(st.data())
def test_any_form_gives_a_tree_that_settings_can_judge(data: st.DataObject) -> None:
    fields = every_field(WHOLE)
    texts = st.one_of(
        st.text(max_size=12),
        st.sampled_from(
            ["", "true", "1", "1,5", "-3", "nan", "1e999", "{}", "[1", "a: b", "record", "amqp", "ari"]
        ),
    )
    some = data.draw(st.lists(st.sampled_from(fields), max_size=12, unique_by=lambda each: each.name))
    sent = {each.name: [data.draw(texts)] for each in some}
    tree = tree_after(WHOLE, fields, sent)
    with contextlib.suppress(SettingsError):  # it is judged, whatever it is
        build({"tenants": {"ipe": tree}})
    untouched = {each.top for each in fields} - {each.top for each in some}
    assert {name: tree.get(name) for name in untouched} == {name: WHOLE.get(name) for name in untouched}


def test_another_kind_of_gate_begins_anew() -> None:
    fields, sent = form_of(WHOLE)
    tree = tree_after(WHOLE, fields, sent | {"gate.kind": ["dtmf"], "gate.dtmf.digits": ["#5"]})
    assert tree["gate"] == {"kind": "dtmf", "digits": "#5"}
    assert "gate" not in tree_after(WHOLE, fields, sent | {"gate.kind": [""]})


def test_a_fallback_without_a_provider_is_taken_out() -> None:
    fields, sent = form_of(WHOLE)
    tree = tree_after(WHOLE, fields, sent | {"fallback.0.provider": [""], "fallback.2.provider": ["local"]})
    assert tree["fallback"] == [{"provider": "gemini", "voice": "Aoede"}, {"provider": "local"}]


def test_an_empty_field_means_the_default_and_an_empty_table_nothing() -> None:
    fields, sent = form_of(WHOLE)
    tree = tree_after(
        WHOLE, fields, sent | {"vad.threshold": [" "], "attendant.extension": [""], "attendant.name": [""]}
    )
    assert "vad" not in tree and "attendant" not in tree


@pytest.mark.parametrize(
    ("text", "value"),
    [("12", 12), ("12,5", 12.5), ("12.5", 12.5), ("doze", "doze"), ("1.234,5", "1.234,5"), ("nan", "nan")],
)
def test_numbers_are_read_as_brazilians_write_them(text: str, value: object) -> None:
    fields, sent = form_of({})
    assert tree_after({}, fields, sent | {"limits.ring_s": [text]})["limits"]["ring_s"] == value


def test_what_is_wrong_stands_at_its_field_and_the_rest_above() -> None:
    fields = every_field(WHOLE)
    found = complaints_of(
        [
            {"field": "limits.ring_s", "detail": "found 'x'; allowed: a number from 5 to 120"},
            {"field": "gate.url", "detail": "found 'y'"},
            {"field": "numbers.1", "detail": "found '!'"},
            {"field": "fallback.0.voice", "detail": "found 'z'"},
            {"field": "", "detail": "nobody's"},
        ],
        fields,
        WHOLE,
    )
    assert set(found.fields) == {"limits.ring_s", "gate.http.url", "numbers", "fallback.0.voice"}
    assert found.others == ["nobody's"]


def test_every_setting_has_a_label_in_both_languages_and_help() -> None:
    languages = read_languages()
    for each in every_field({}):
        for language in languages.values():
            assert language.has(f"setting.{each.key}"), each.key
        assert languages["pt-BR"].has(f"setting_help.{each.key}") or each.about, each.key
    known = {each.key for each in every_field({"fallback": [{}]})}
    for key in languages["pt-BR"].texts:
        if key.startswith(("setting.", "setting_help.")):
            assert key.partition(".")[2] in known, f"{key}: there is no such setting"


def test_every_setting_of_a_tenant_is_in_the_form() -> None:
    assert {each.top for each in every_field({})} == set(Tenant.model_fields) - {"id"}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "found 'x'; allowed: a whole number from 1 to 10",
            "encontrado 'x'; permitido: um número inteiro a partir de 1 até 10",
        ),
        (
            "found '0'; allowed: a number above 0 and up to 60",
            "encontrado '0'; permitido: um número acima de 0 até 60",
        ),
        (
            "found 'x'; allowed: a sentence of up to 1000 characters",
            "encontrado 'x'; permitido: uma frase de até 1000 caracteres",
        ),
        ("found 'a'; allowed: 'b', 'c' or 'd'", "encontrado 'a'; permitido: 'b', 'c' ou 'd'"),
        ("there is no such setting; did you mean numbers?", "essa configuração não existe; seria numbers?"),
        ("there is no such setting", "essa configuração não existe"),
        ("not set; it must be given", "precisa ser preenchido"),
        ("found 'x'; allowed: something else", "encontrado 'x'; permitido: something else"),
        ("whatever was said", "whatever was said"),
    ],
)
def test_what_is_wrong_is_said_in_the_pages_language(said: str, words: str) -> None:
    assert in_words(read_languages()["pt-BR"], said) == words


STANDING = {"name": "Joana Faxina"}
FLAT = {"apartment_number": "101", "residents": ["Ana Lima"], "voip_number": "101"}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"apartment_number": "xyz"}, "Apartamento 'xyz' não reconhecido"),
        ({"residents": []}, "Falta o nome de pelo menos um morador."),
        ({"residents": ["1234"]}, "'1234' não é um nome."),
        ({"residents": [{"name": "Ana Lima", "do_not_call": True}] * 2}, "aparece duas vezes."),
        ({"voip_number": []}, "Falta um ramal ou endereço SIP"),
        (
            {"residents": [{"name": "Ana D'Ávila", "quiet_hours": ["sempre"]}]},
            "Ana D'Ávila: Não chamar das: encontrado 'sempre'; permitido: um horário, como 22:00-07:00",
        ),
        ({"standing_authorisations": [{"name": "?"}]}, "Falta o nome do visitante ou da empresa."),
        (
            {"standing_authorisations": [STANDING | {"hours": "das 30 às 12"}]},
            "Horário: encontrado 'das 30 às 12'; permitido: um horário, como 22:00-07:00",
        ),
        (
            {"standing_authorisations": [STANDING | {"until": "31/02/2026"}]},
            "Até o dia: encontrado '31/02/2026'; permitido: uma data, como 2026-12-31",
        ),
    ],
)
def test_what_is_wrong_with_an_apartment_is_said_in_the_pages_language(
    entry: dict[str, object], words: str
) -> None:
    with pytest.raises(DirectoryError) as caught:
        Directory.from_records([FLAT | entry])
    assert words in of_entry(read_languages()["pt-BR"], str(caught.value).removeprefix("entry 1: "))


def test_changes_are_named_by_their_settings() -> None:
    other = {**WHOLE, "name": "X", "limits": {"ring_s": 20.0, "dial_attempts": 3}, "vad": {}}
    assert changed_tops(WHOLE, other) == ["limits.ring_s", "name", "vad.threshold"]
