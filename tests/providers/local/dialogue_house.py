"""A house for the dialogue tests: the prompts as the project has them, and tools over the example directory.

The tools answer as the host's do (the same statuses, the same three attempts), with the real directory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from providers.local.dialogue import new_engine
from providers.local.dialogue.base import (
    AgentSaid,
    Call,
    CallAnswered,
    CallMade,
    DialogueEngine,
    Entry,
    Say,
    SystemSaid,
    UserSaid,
)
from visits.directory import Directory

ROOT = Path(__file__).parents[3]
DIRECTORY = Directory.from_records(json.loads((ROOT / "data" / "apartamentos.json").read_text("utf-8")))
RESIDENTS = [name for apartment in DIRECTORY.apartments for name in apartment.residents]
GREETING = "Olá, você ligou para a portaria do Condomínio Jardim. Em que posso ajudar?"
VISITOR_TOOLS = (
    *("lookup_apartment", "validate_resident", "call_resident"),
    *("visit_status", "transfer_to_attendant", "end_call"),
)
RESIDENT_TOOLS = (
    *("visit_details", "ask_visitor", "connect_parties"),
    *("authorize_entry", "deny_entry", "end_call"),
)
MAX_CALLS_IN_A_ROW = 8
"""More calls than this without a word from the caller are a loop."""

FIELDS = {
    "condominio": "Condomínio Jardim",
    "saudacao": GREETING,
    "agora": "tarde",
    "extra": "",
    "visitante": "Pedro da Silva",
    "motivo": "uma entrega",
    "apartamento": "501",
    "morador": "",
    "empresa": "",
    "tecla_sim": "1",
    "tecla_nao": "2",
}


def prompt(role: str) -> str:
    """A role's prompt, filled."""
    text = (ROOT / "prompts" / f"{role}.pt-BR.md").read_text("utf-8")
    for key, value in FIELDS.items():
        text = text.replace(f"{{{{ {key} }}}}", value)
    return text


def tools(names: Sequence[str]) -> list[dict[str, Any]]:
    """Function tools as the protocol has them."""
    return [{"type": "function", "name": name, "parameters": {"type": "object"}} for name in names]


def engine_for(role: str, *, attended: bool = True) -> DialogueEngine:
    """A configured engine; not `attended`: as where no person can take the visitor's call over."""
    engine = new_engine()
    names: Sequence[str] = VISITOR_TOOLS if role == "visitor" else RESIDENT_TOOLS
    text = prompt(role)
    if not attended:
        names = tuple(name for name in names if name != "transfer_to_attendant")
        text += (ROOT / "prompts" / "visitor_without_attendant.pt-BR.md").read_text("utf-8")
    engine.configure(text, tools(names))
    return engine


class VisitorTools:
    """The visitor's tools."""

    def __init__(self, *, attendant: bool = False, broken: frozenset[str] = frozenset()) -> None:
        self.attendant = attendant
        self.broken = broken
        self.state = "collecting"
        self.failed = 0

    def __call__(self, name: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
        if name in self.broken:
            return {"status": "error", "message": "the tool broke"}
        result: Mapping[str, Any] = getattr(self, name)(**given)
        return result

    def _miss(self, status: str) -> dict[str, Any]:
        self.failed += 1
        return (
            {"status": "exhausted"}
            if self.failed >= 3
            else {"status": status, "attempts_left": 3 - self.failed}
        )

    def lookup_apartment(self, apartment: str) -> dict[str, Any]:
        if self.failed >= 3:
            return {"status": "exhausted"}
        match = DIRECTORY.find_apartment(apartment)
        if match.apartment is not None:
            return {"status": "found", "apartment": match.apartment.label}
        if match.status == "ambiguous":
            return {"status": "ambiguous", "candidates": [one.label for one in match.candidates]}
        return self._miss("not_found")

    def validate_resident(self, apartment: str, name: str) -> dict[str, Any]:
        found = DIRECTORY.find_apartment(apartment).apartment
        if self.failed >= 3 or found is None:
            return {"status": "exhausted"}
        status = DIRECTORY.match_resident(found, name).status
        return self._miss("no_match") if status == "no_match" else {"status": status}

    def call_resident(
        self, apartment: str, intent: str, visitor_name: str, resident_name: str, company: str
    ) -> dict[str, Any]:
        assert intent in ("visita", "entrega", "servico")
        assert DIRECTORY.find_apartment(apartment).apartment is not None
        self.state = "dialing"
        return {"status": "dialing"}

    def visit_status(self) -> dict[str, Any]:
        return {"status": self.state, "seconds": 3}

    def transfer_to_attendant(self, reason: str) -> dict[str, Any]:
        return {"status": "transferring" if self.attendant else "unavailable"}

    def end_call(self, reason: str) -> dict[str, Any]:
        return {"status": "ending"}


class ResidentTools:
    """The resident's tools; ``not_yet`` is what authorize_entry answers before it agrees."""

    def __init__(
        self,
        details: Mapping[str, str] | None = None,
        *,
        not_yet: Sequence[str] = (),
        broken: frozenset[str] = frozenset(),
    ) -> None:
        self.details = {
            "visitor_name": "Pedro da Silva",
            "intent": "entrega",
            "apartment": "501",
            "resident": "",
            "company": "",
            **(details or {}),
        }
        self.not_yet = list(not_yet)
        self.broken = broken

    def __call__(self, name: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
        if name in self.broken:
            return {"status": "error", "message": "the tool broke"}
        match name:
            case "visit_details":
                return self.details
            case "ask_visitor":
                return {"status": "asked"}
            case "connect_parties":
                return {"status": "connecting"}
            case "authorize_entry" if self.not_yet:
                return {"status": "not_yet", "reason": self.not_yet.pop(0)}
            case "authorize_entry":
                return {"status": "authorized"}
            case "deny_entry":
                return {"status": "denied"}
            case _:
                return {"status": "ending"}


SILENT_RESULTS = {
    ("call_resident", "dialing"),
    ("transfer_to_attendant", "transferring"),
    ("end_call", "ending"),
    ("authorize_entry", "authorized"),
    ("deny_entry", "denied"),
    ("ask_visitor", "asked"),
    ("connect_parties", "connecting"),
}
"""After these the host speaks itself and asks the model for nothing."""


class Conversation:
    """One leg: what is said and called, in a history as the model server keeps it."""

    def __init__(
        self,
        role: str,
        backend: Callable[[str, Mapping[str, Any]], Mapping[str, Any]],
        opening: str,
    ) -> None:
        self.engine = engine_for(role)
        self.backend = backend
        self.history: list[Entry] = [AgentSaid(opening)] if opening else []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.results: list[Mapping[str, Any]] = []

    def respond(self, *, heard: float = 1.0) -> str:
        """Ask for responses until one calls nothing; returns the words, cut to ``heard``."""
        said: list[str] = []
        for _ in range(MAX_CALLS_IN_A_ROW):
            parts = self.engine.respond(tuple(self.history), None, "auto")
            assert parts == self.engine.respond(tuple(self.history), None, "auto"), "not deterministic"
            assert sum(isinstance(part, Say) for part in parts) <= 1
            again = False
            for part in parts:
                if isinstance(part, Say):
                    assert part.text == part.text.strip() != ""
                    assert "{" not in part.text or "{" in str(self.history)
                    said.append(part.text)
                    cut = part.text[: round(len(part.text) * heard)]
                    if cut:
                        self.history.append(AgentSaid(cut))
                else:
                    again |= self._carry_out(part)
            if not again:
                return " ".join(said)
        raise AssertionError(f"a loop of calls: {self.calls[-MAX_CALLS_IN_A_ROW:]}")

    def _carry_out(self, call: Call) -> bool:
        """Make a call; True where the host asks the model to speak after it."""
        call_id = f"call-{len(self.calls)}"
        self.calls.append((call.name, call.arguments))
        self.history.append(CallMade(call_id, call.name, json.dumps(call.arguments, ensure_ascii=False)))
        result = self.backend(call.name, call.arguments)
        self.results.append(result)
        self.history.append(CallAnswered(call_id, json.dumps(result, ensure_ascii=False)))
        return (call.name, result.get("status")) not in SILENT_RESULTS

    def say(self, text: str, *, heard: float = 1.0) -> str:
        """The caller says something; returns the answer."""
        self.history.append(UserSaid(text))
        return self.respond(heard=heard)

    def silence(self) -> str:
        """The caller says nothing."""
        self.history.append(SystemSaid("[silêncio] A pessoa não disse nada."))
        return self.respond()

    def host_says(self, text: str) -> None:
        """The host's own words go out."""
        self.history.append(AgentSaid(text))

    def names(self) -> list[str]:
        """The tools called, in order."""
        return [name for name, _ in self.calls]

    def last(self, name: str) -> dict[str, Any]:
        """The arguments of the last call of a tool."""
        return next(given for called, given in reversed(self.calls) if called == name)


def visitor(**options: Any) -> Conversation:
    """A visitor who was just greeted."""
    return Conversation("visitor", VisitorTools(**options), GREETING)


BRIEFING = (
    "Olá, aqui é da portaria do Condomínio Jardim. Pedro da Silva está no portão com uma entrega para o "
    "apartamento 501. Autoriza a entrada?"
)


def resident(details: Mapping[str, str] | None = None, **options: Any) -> Conversation:
    """A resident who was just briefed."""
    return Conversation("resident", ResidentTools(details, **options), BRIEFING)
