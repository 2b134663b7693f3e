"""What all visits share, and what each tenant's visits share: made once by the service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from audio.aec3 import Aec3
from audio.echo import EchoGuard, EchoProfile
from audio.hearing import Ear, Ears
from audio.hold import HoldSound
from audio.vad import VadProfile
from bridge.ahead import Ahead
from bridge.clock import Clock
from bridge.costs.account import Account
from bridge.costs.budget import Purse
from bridge.costs.prices import Prices
from bridge.declared.calls import OutsideTools
from bridge.dialing.base import Dialer
from bridge.gates.base import Gate
from bridge.pbx import Transfers
from bridge.recorder import Recorder
from bridge.sentences import Sentences, filled
from bridge.settings import Tenant
from bridge.switchboard import Switchboard
from bridge.watch import Watcher
from providers.announcer import Says
from providers.base import Provider, SessionConfig, ToolSpec, TurnDetection
from storage.base import Storage
from tools.registry import Registry
from visits.departments import Department, Departments
from visits.directory import Directory
from visits.events import Role
from visits.facts import Facts
from visits.visit import VisitRules


@dataclass(frozen=True, slots=True)
class House:
    """What every visit shares."""

    clock: Clock
    storage: Storage
    recorder: Recorder
    ears: Ears
    announcer: Provider
    """Speaks to visitors for whom no model may be asked, and says goodbye where a model is gone."""
    voice: Says
    """Our own, in which attendants hear who it is; the announcer's too."""
    ahead: Ahead
    """Sessions whose calls are still to come."""
    watchers: Sequence[Watcher] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Condominium:
    """One tenant, ready to take calls: with the settings of one version. Running visits keep theirs."""

    settings: Tenant
    directory: Directory
    sentences: Sentences
    provider: Provider
    dialer: Dialer
    gate: Gate
    hosts: tuple[str, ...]
    """The addresses on which its ports listen."""
    resident_port: int
    prices: Prices
    """The tenant's own before the others."""
    purse: Purse
    tools: Registry
    """What the models on its legs may call."""
    outside: OutsideTools
    """Carries out those of them that the tenant declares."""
    hold: HoldSound
    """What a visitor hears while nobody speaks to them."""
    transfer: Transfers | None = None
    """The way to its attendant; None where there is none."""
    switchboard: Switchboard | None = None
    """Its FreeSWITCH; None where none is reached over an event socket."""

    @property
    def id(self) -> str:
        """The tenant's id."""
        return self.settings.id

    def account(self) -> Account:
        """What a new visit's sessions are to be billed to."""
        return Account(self.prices, self.settings.cost.in_currency, self.provider.name)

    def rules(self, *, channel: str) -> VisitRules:
        """The tenant's choices, as a visit knows them.

        Args:
            channel: the PBX's channel of the visitor's call; empty where it is not known, and nobody else can
                take the call over.
        """
        limits, consent = self.settings.limits, self.settings.consent
        needs = {
            fact: frozenset(i for i, facts in self.settings.required.items() if fact in facts)
            for fact in FACTS
        }
        return VisitRules(
            lookup_attempts=limits.lookup_attempts,
            dial_attempts=limits.dial_attempts,
            ring_s=limits.ring_s,
            consult_s=limits.consult_s,
            connected_s=limits.connected_s,
            visit_s=limits.max_visit_s,
            silence_prompts=limits.silence_prompts,
            authorize_key=consent.authorize_key if consent.by_key else "",
            deny_key=consent.deny_key if consent.by_key else "",
            spoken_consent=consent.by_voice,
            gate=self.settings.gate.kind,
            attendant=self.transfer is not None and self.settings.attendant is not None and bool(channel),
            departments=self.departments if self.transfer is not None and channel else None,
            resident_name_for=needs["resident"],
            visitor_name_for=needs["visitor_name"],
        )

    def vad_profile(self) -> VadProfile:
        """How sensitive the local VAD is."""
        vad = self.settings.vad
        return VadProfile(
            onset_threshold=vad.threshold,
            offset_threshold=max(0.15, vad.threshold - 0.15),
            min_speech_ms=max(1, vad.min_speech_ms),
            hangover_ms=vad.hangover_ms,
        )

    def ear(self, ears: Ears) -> Ear:
        """What a new leg hears with."""
        echo = self.settings.echo
        if echo.mode == "none":
            return ears.ear(self.vad_profile())
        profile = EchoProfile(assumed_gain_db=echo.assumed_gain_db, margin_db=echo.margin_db)
        guard = EchoGuard(profile, before=Aec3() if echo.mode == "aec3" else None)
        return ears.ear(self.vad_profile(), guard=guard, gated=echo.gate_uplink)

    @property
    def departments(self) -> Departments | None:
        """Where callers may be put through to; None: nowhere."""
        named = [Department(name, one.extension, one.also) for name, one in self.settings.departments.items()]
        return Departments(named, self.settings.extensions) if named or self.settings.extensions else None

    def session(self, role: Role, facts: Facts | None, rules: VisitRules) -> SessionConfig:
        """What the model on a leg is told. Neither knows the other's conversation.

        Args:
            rules: the visit's. What they don't have is not offered: a person who can take the visitor's call
                over, a department to put it through to.
        """
        tenant = self.settings
        fields = {
            "agora": part_of_day(datetime.now(ZoneInfo(tenant.timezone))),
            "extra": "\n\n".join(
                filter(
                    None,
                    (
                        tenant.prompt_extra,
                        self._data_rules(role),
                        self._declared_tools(role),
                        self._keys(role),
                        self._transfers(role, rules),
                    ),
                )
            ),
            "tecla_sim": tenant.consent.authorize_key,
            "tecla_nao": tenant.consent.deny_key,
        }
        turns = tenant.turn_detection
        return SessionConfig(
            instructions=self.sentences.instructions(role, facts, fields),
            tools=[
                ToolSpec(one.name, one.description, one.parameters)
                for one in self.tools.of(role)
                if (rules.attendant or one.name != ATTENDANT_TOOL)
                and (rules.departments is not None or one.name != TRANSFER_TOOL)
                and (tenant.consent.by_key or one.name != CONNECT_TOOL)
            ],
            language=tenant.language.partition("-")[0],
            voice=tenant.voice,
            transcription_prompt=self._vocabulary(role),
            turn_detection=TurnDetection(
                turns.threshold,
                turns.prefix_padding_ms,
                turns.silence_duration_ms,
                turns.kind,
                turns.eagerness,
            ),
        )

    def visitor_session(self, *, channel: str) -> SessionConfig:
        """What the model of a visitor's leg is told as its call begins; `channel` as with :meth:`rules`."""
        return self.session(Role.VISITOR, None, self.rules(channel=channel))

    def _vocabulary(self, role: Role) -> str:
        """What the speech recogniser should expect: the house's words, and of a visitor the residents' names.

        Measured on the recorded speech: the names put right what the words alone leave wrong, and no name is
        heard where none was said.
        """
        words = self.sentences.sentences[f"transcription_{role}"]
        if role is Role.RESIDENT:
            return words
        names: list[str] = []
        residents = (name for one in self.directory.apartments for name in one.residents)
        for name in dict.fromkeys((*self.settings.departments, *residents)):
            if sum(map(len, names)) + len(name) > VOCABULARY:
                break
            names.append(name)
        return f"{words} {', '.join(names)}." if names else words

    def _keys(self, role: Role) -> str:
        """What the resident's prompt says otherwise where no key decides, or nothing but a key."""
        consent = self.settings.consent
        if role is Role.VISITOR or consent.policy == "voice_and_key":
            return ""
        if consent.policy == "voice":
            return self.sentences.without_keys
        keys = {"tecla_sim": consent.authorize_key, "tecla_nao": consent.deny_key}
        return filled(self.sentences.key_only, keys, "the resident's prompt")

    def _declared_tools(self, role: Role) -> str:
        """The prompt's section on what the tenant's own tools answer, where this role has any."""
        names = [f"`{name}`" for name, one in self.settings.tools.items() if role in one.roles]
        told = {"ferramentas": ", ".join(names)}
        return filled(self.sentences.declared_tools, told, "the declared tools' prompt") if names else ""

    def _transfers(self, role: Role, rules: VisitRules) -> str:
        """What the visitor's prompt says of the people to whom a call can be handed over, and can't."""
        if role is Role.RESIDENT:
            return ""
        told = []
        if rules.departments is not None:
            names = {"setores": ", ".join(rules.departments.names) or "nenhum; só ramais, por número"}
            told.append(filled(self.sentences.departments, names, "the departments' prompt"))
        if not rules.attendant and self.settings.kind == "condominium":
            told.append(self.sentences.without_attendant)
        return "\n\n".join(told)

    def _data_rules(self, role: Role) -> str:
        """The prompt's section on what must be known, where the tenant wants another than the prompt has."""
        given = "required" in self.settings.model_fields_set and self.settings.kind == "condominium"
        if role is not Role.VISITOR or not given:
            return ""
        lines = []
        for intent, required in self.settings.required.items():
            needed = [label for fact, label in FACTS.items() if fact in required]
            asked = [label for fact, label in FACTS.items() if fact not in required]
            lines.append(
                f"- {intent}: {', '.join(needed)}" + (f"; perguntar: {', '.join(asked)}" if asked else "")
            )
        return "# Dados\n\n" + "\n".join(lines)


ATTENDANT_TOOL = "transfer_to_attendant"
"""What a model is not given where nobody can take the call over."""

TRANSFER_TOOL = "transfer_call"
"""What a model is not given where the tenant names neither departments nor extensions."""

CONNECT_TOOL = "connect_parties"
"""What a model is not given where no key decides: nobody would hear the resident's words."""

VOCABULARY = 400
"""Characters of names: whisper reads about 220 tokens of a prompt, and forgets its beginning beyond that."""

FACTS = {"apartment": "apartamento", "resident": "morador", "visitor_name": "nome"}
"""The facts of a visit, as settings and as the Portuguese prompt name them."""


def part_of_day(now: datetime) -> str:
    """ "manhã", "tarde" or "noite": how the day is greeted in Brazil."""
    if 5 <= now.hour < 12:
        return "manhã"
    return "tarde" if 12 <= now.hour < 18 else "noite"


__all__ = ["Condominium", "House", "part_of_day"]
