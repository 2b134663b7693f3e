"""What is said word for word, and what the models are told, filled from prompts/ for one tenant.

prompts/ is data: `sentences.<language>.toml` holds the host's own sentences with `{fields}`, `visitor.` and
`resident.<language>.md` the models' instructions with `{{ fields }}`.
"""

from __future__ import annotations

import re
import string
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from visits.events import Outcome, Role
from visits.facts import Facts

PROMPTS = Path(__file__).resolve().parent.parent / "prompts"
_FIELD = re.compile(r"\{\{\s*(\w+)\s*\}\}")
USUAL_GOODBYES = frozenset(
    f"goodbye_{how}"
    for how in (
        *("authorized", "denied", "busy", "no_answer", "unreachable", "undecided"),
        *("abandoned", "silence", "time_limit", "failed"),
    )
)
"""What a house's own goodbye to a visitor takes the place of. Not among them is what a visitor must know all
the same: that the gate did not answer, that a person takes the call over, that nobody talks with them."""


class PromptError(ValueError):
    """A prompt or a sentence that can't be filled; says which and what it lacks."""


def own_sentence_problem(text: str) -> str:
    """What is allowed in a house's own sentence, where this one has anything else between braces; else "".

    Not a format either: `{condominio:>999999999}` would fill the memory of the whole service.
    """
    try:
        found = [part[1:] for part in string.Formatter().parse(text) if part[1] is not None]
    except ValueError:
        found = [("", "", None)]
    return "" if all(one == ("condominio", "", None) for one in found) else "{condominio} alone in braces"


def filled(text: str, known: Mapping[str, str], what: str) -> str:
    """A text with its `{{ fields }}` filled.

    Raises:
        PromptError: a field of it is not known; ``what`` says whose.
    """

    def fill(match: re.Match[str]) -> str:
        try:
            return known[match[1]]
        except KeyError:
            raise PromptError(f"{what} has {{{{ {match[1]} }}}}, which nothing fills") from None

    return _FIELD.sub(fill, text)


@dataclass(frozen=True, slots=True)
class Sentences:
    """One tenant's sentences and prompts."""

    sentences: Mapping[str, str]
    prompts: Mapping[Role, str]
    without_keys: str
    """What the resident's prompt says otherwise where no key decides."""
    key_only: str
    """What it says otherwise where nothing but a key authorises; with fields of its own."""
    without_attendant: str
    """What the visitor's prompt says otherwise where no person can take the call over."""
    declared_tools: str
    """What a prompt says of the tools that the tenant declares; `{{ ferramentas }}` are their names."""
    departments: str
    """What the visitor's prompt says of where calls are put through to: `{{ setores }}`."""
    title: str
    """What the place is called, as it follows "portaria do"."""
    goodbyes: Mapping[Outcome, str] = field(default_factory=dict)
    """The house's own, by how the visit ended."""

    @classmethod
    def load(
        cls,
        language: str,
        title: str,
        *,
        greeting: str | None = None,
        goodbyes: Mapping[Outcome, str] | None = None,
        reception: bool = False,
    ) -> Sentences:
        """Read prompts/ for a language.

        Args:
            reception: of an office, where nobody is let in; else of a condominium.
            greeting: in place of the usual first sentence.
            goodbyes: what a visitor hears last in place of the usual sentences, by how the visit ended.

        Raises:
            PromptError: there is none for this language, or the tenant's own sentence has a field that
                nothing fills.
        """
        path = PROMPTS / f"sentences.{language}.toml"
        try:
            sentences: dict[str, str] = tomllib.loads(path.read_text("utf-8"))
            prompts = {role: (PROMPTS / f"{role}.{language}.md").read_text("utf-8") for role in Role}
            without_keys = (PROMPTS / f"resident_without_keys.{language}.md").read_text("utf-8")
            key_only = (PROMPTS / f"resident_key_only.{language}.md").read_text("utf-8")
            without_attendant = (PROMPTS / f"visitor_without_attendant.{language}.md").read_text("utf-8")
            declared_tools = (PROMPTS / f"declared_tools.{language}.md").read_text("utf-8")
            departments = (PROMPTS / f"departments.{language}.md").read_text("utf-8")
            if reception:
                own = (PROMPTS / f"sentences_reception.{language}.toml").read_text("utf-8")
                sentences |= tomllib.loads(own)
                prompts[Role.VISITOR] = (PROMPTS / f"reception.{language}.md").read_text("utf-8")
        except FileNotFoundError as error:
            raise PromptError(
                f"no prompts for the language {language!r}: {error.filename} is missing"
            ) from None
        own_goodbyes = dict(goodbyes or {})
        if greeting is not None:
            sentences["greeting"] = greeting
        for key, own in (("greeting", sentences["greeting"]), *own_goodbyes.items()):
            if problem := own_sentence_problem(own):
                raise PromptError(f"{key}: found {own!r:.80}; allowed: {problem}")
        return cls(
            sentences,
            prompts,
            without_keys,
            key_only,
            without_attendant,
            declared_tools,
            departments,
            title,
            own_goodbyes,
        )

    def say(self, key: str, facts: Facts | None, fields: Mapping[str, str]) -> str:
        """A sentence, filled.

        Raises:
            PromptError: there is no such sentence, or a field of it is not known.
        """
        known = self._known(facts)
        known.update(fields)
        try:
            return self.sentences[key].format_map(known)
        except KeyError as error:
            raise PromptError(f"sentence {key!r} needs {error}; known: {', '.join(sorted(known))}") from None

    def say_last(
        self, key: str, outcome: Outcome | None, facts: Facts | None, fields: Mapping[str, str]
    ) -> str:
        """What a leg hears last, filled: the house's own goodbye where it has one for this outcome.

        Raises:
            PromptError: as :meth:`say`.
        """
        own = self.goodbyes.get(outcome) if outcome is not None and key in USUAL_GOODBYES else None
        return self.say(key, facts, fields) if own is None else own.format_map(self._known(facts))

    def announcement(self, facts: Facts | None) -> str:
        """What whoever takes a call over hears first: what is known of the errand, nothing of who came."""
        key = "announcement" if facts is None else f"announcement_{facts.intent}"
        return self.say(f"{key}_company" if facts is not None and facts.company else key, facts, {})

    def instructions(self, role: Role, facts: Facts | None, fields: Mapping[str, str]) -> str:
        """What a role's model is told, filled.

        Raises:
            PromptError: a field of the prompt is not known.
        """
        known = self._known(facts)
        known.update(fields)
        known["saudacao"] = self.say("greeting", facts, {})

        return filled(self.prompts[role], known, f"the {role}'s prompt")

    def _known(self, facts: Facts | None) -> dict[str, str]:
        known = {"condominio": self.title}
        if facts is None:
            return known
        unknown = self.sentences["unknown"]
        known |= {
            "apartamento": facts.apartment,
            "visitante": facts.visitor_name or unknown,
            "morador": facts.resident or unknown,
            "empresa": facts.company or unknown,
            "motivo": self.sentences[f"motive_{facts.intent}"],
        }
        destination = "destination_resident" if facts.resident else "destination"
        known["destino"] = self.sentences[destination].format_map(known)
        expected = self.sentences["expected"].format(esperado=facts.standing)
        known["aviso"] = f" {expected}" if facts.standing else ""
        return known
