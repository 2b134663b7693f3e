"""Whatever is said in whatever order: nobody is called, named or let in wrongly, and nothing loops."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from providers.local.dialogue.base import (
    AgentSaid,
    Call,
    CallAnswered,
    CallMade,
    Entry,
    Say,
    SystemSaid,
    UserSaid,
)
from providers.local.dialogue.hearing import understand
from tests.providers.local.dialogue_house import (
    BRIEFING,
    GREETING,
    RESIDENTS,
    ROOT,
    Conversation,
    ResidentTools,
    VisitorTools,
    engine_for,
    resident,
    visitor,
)
from visits.consent import Reading, classify
from visits.words import fold

RECORDED = sorted(
    {e["text"] for e in json.loads((ROOT / "data" / "audio" / "manifest.json").read_text("utf-8"))}
)
HEARD = [
    "Boa tarde, tem uma entrega para o apartamento 5001.",
    "Entrega para a Renata Oliveira, Apastamento 5-0-1.",
    "Eu sou a Julia, vem visitar a Fernanda, Souza no 201.",
    "para o Rogério Paranhos no 500 e 2.",
    "A renata já autorizou pode abrir o portão",
    "Deixe-a pra lá, obrigado.",
    "501",
    "É no 502, quer dizer, 302",
    "Não sei.",
    "Não.",
    "Sim.",
    "Sim, por favor",
    "entrega",
    "É um serviço",
    "Lucas Martins",
    "Pedro",
    "Quem mora no 501?",
    "",
    "...",
]
SENTENCES = st.one_of(st.sampled_from(RECORDED), st.sampled_from(HEARD), st.text(max_size=60))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), SENTENCES, st.sampled_from([0.0, 0.3, 0.8, 1.0])),
        st.tuples(st.just("silence"), st.just(""), st.just(1.0)),
        st.tuples(
            st.just("host"), st.sampled_from([GREETING, BRIEFING, "Você ainda está aí?"]), st.just(1.0)
        ),
        st.tuples(st.just("again"), st.just(""), st.just(1.0)),
    ),
    max_size=14,
)
BROKEN = st.frozensets(
    st.sampled_from(["lookup_apartment", "validate_resident", "call_resident", "visit_status", "end_call"]),
    max_size=2,
)
NAME_WORDS = {word for name in RESIDENTS for word in fold(name).split() if len(word) > 3}


def take(talk: Conversation, step: tuple[str, str, float]) -> str:
    kind, text, heard = step
    if kind == "say":
        return talk.say(text, heard=heard)
    if kind == "silence":
        return talk.silence()
    if kind == "host":
        talk.host_says(text)
        return ""
    return talk.respond()


class Watched(VisitorTools):
    """The visitor's tools, watching in which order they are called."""

    def __init__(self, broken: frozenset[str], attendant: bool) -> None:
        super().__init__(broken=broken, attendant=attendant)
        self.found: set[str] = set()
        self.matched: set[tuple[str, str]] = set()
        self.calls = 0

    def __call__(self, name: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
        if name == "call_resident":
            self._judge(given)
        result = super().__call__(name, given)
        if name == "lookup_apartment" and result["status"] == "found":
            self.found.add(result["apartment"])
        if name == "validate_resident" and result["status"] == "match":
            self.matched.add((given["apartment"], given["name"]))
        return result

    def _judge(self, given: Mapping[str, Any]) -> None:
        assert given["intent"] in ("visita", "entrega", "servico")
        assert given["apartment"] in self.found
        named = given["resident_name"]
        assert not named or (given["apartment"], named) in self.matched
        if given["intent"] == "visita":
            assert named and given["visitor_name"]
        if given["intent"] == "servico":
            assert given["visitor_name"]
        self.calls += "call_resident" not in self.broken
        assert self.calls <= 1, "called twice"


@settings(max_examples=250, deadline=None)
@given(steps=STEPS, broken=BROKEN, attendant=st.booleans())
def test_a_visitors_leg(steps: list[tuple[str, str, float]], broken: frozenset[str], attendant: bool) -> None:
    talk = visitor()
    talk.backend = Watched(broken, attendant)
    spoken: set[str] = set()
    for step in steps:
        spoken |= set(re.findall(r"\w+", fold(step[1]))) if step[0] == "say" else set()
        answer = take(talk, step)
        leaked = (set(re.findall(r"\w+", fold(answer))) & NAME_WORDS) - spoken
        assert not leaked, answer
        assert not {"authorize_entry", "deny_entry"} & set(talk.names())
    for name, arguments in talk.calls:
        if name == "call_resident":
            words = [understand(s[1]) for s in steps if s[0] == "say"]
            assert any(word.errand or word.hint for word in words), arguments


@settings(max_examples=250, deadline=None)
@given(
    steps=STEPS,
    not_yet=st.lists(
        st.sampled_from(["no_briefing", "question", "refusal", "unclear", "no_answer"]), max_size=3
    ),
    broken=st.frozensets(st.sampled_from(["visit_details", "ask_visitor", "authorize_entry"]), max_size=2),
)
def test_a_residents_leg(
    steps: list[tuple[str, str, float]], not_yet: list[str], broken: frozenset[str]
) -> None:
    talk = resident(not_yet=not_yet, broken=broken)
    tools = ResidentTools(not_yet=not_yet, broken=broken)

    def watched(name: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
        last = next((e.text for e in reversed(talk.history) if isinstance(e, UserSaid)), "")
        if name == "authorize_entry":
            assert classify(last) is Reading.CONSENT
        if name == "deny_entry":
            assert classify(last) is Reading.REFUSAL
        assert name != "call_resident"
        return tools(name, given)

    talk.backend = watched
    for step in steps:
        before = talk.names().count("authorize_entry")
        take(talk, step)
        after = talk.names().count("authorize_entry")
        assert after - before <= (step[0] != "host"), "asked for the gate more than once in one turn"


ENTRIES = st.one_of(
    st.builds(UserSaid, SENTENCES),
    st.builds(AgentSaid, st.one_of(SENTENCES, st.just(GREETING), st.just("É visita, entrega ou serviço?"))),
    st.builds(SystemSaid, st.sampled_from(["[silêncio] nada", "outra nota", ""])),
    st.builds(
        CallMade,
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(
            [
                "lookup_apartment",
                "validate_resident",
                "call_resident",
                "visit_details",
                "authorize_entry",
                "other",
            ]
        ),
        st.sampled_from(['{"apartment": "501"}', '{"apartment": "501", "name": "Renata"}', "{", "[]", ""]),
    ),
    st.builds(
        CallAnswered,
        st.sampled_from(["a", "b", "c", "z"]),
        st.one_of(
            st.sampled_from(
                [
                    '{"status": "found", "apartment": "501"}',
                    '{"status": "ambiguous", "candidates": [1, null]}',
                    '{"status": "ambiguous", "candidates": []}',
                    '{"status": "dialing"}',
                    '{"status": "refused", "reason": 7}',
                    '{"intent": "entrega", "visitor_name": null}',
                    '{"status": "not_yet"}',
                    "{}",
                ]
            ),
            st.text(max_size=20),
        ),
    ),
)


@settings(max_examples=400, deadline=None)
@given(history=st.lists(ENTRIES, max_size=20), role=st.sampled_from(["visitor", "resident"]))
def test_no_history_whatever_breaks_the_engine(history: list[Entry], role: str) -> None:
    engine = ENGINES[role]
    parts = engine.respond(history, None, "auto")
    assert parts == engine.respond(tuple(history), None, "auto")
    assert sum(isinstance(part, Say) for part in parts) <= 1
    assert all(part.text.strip() if isinstance(part, Say) else isinstance(part, Call) for part in parts)
    if any(isinstance(part, Call) and part.name == "authorize_entry" for part in parts):
        last = next(e.text for e in reversed(history) if isinstance(e, UserSaid))
        assert classify(last) is Reading.CONSENT


ENGINES = {role: engine_for(role) for role in ("visitor", "resident")}
