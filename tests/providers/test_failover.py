"""A conversation outlives its sessions: nothing owed is lost or said twice, and it ends in bounded time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from providers.base import (
    AudioDelta,
    AudioDone,
    AudioSent,
    Event,
    Failed,
    Heard,
    ItemStarted,
    Line,
    Lost,
    PastCall,
    Ready,
    Replaced,
    ResponseDone,
    SessionConfig,
    SpeechStarted,
    ToolCall,
    Transcript,
    TranscriptFailed,
)
from providers.breaker import LASTING_S
from providers.failover import (
    APOLOGY_S,
    GIVE_UP_S,
    OPEN_S,
    SILENT_S,
    Candidate,
    FailoverProvider,
    FailoverSession,
    OneMoment,
)
from providers.local.speech import RATE, SpeechError
from providers.openai_realtime import OpenAIProvider, OpenAISettings
from tests.simulators.openai_realtime import Reply, Say, Simulator
from tests.simulators.scripted_session import Fate, ScriptedProvider, ScriptedSession
from tests.simulators.talk import Talk
from tests.simulators.virtual_time import run_virtually

SORRY = "Desculpe a demora."
MOMENT = "Só um instante, por favor."
CONFIG = SessionConfig(instructions="Seja breve.", tools=[], voice="dela")


class Voice:
    """A voice of our own that takes a fifth of a second."""

    async def say(self, sentence: str) -> bytes:
        await asyncio.sleep(0.2)
        if not sentence:
            raise SpeechError("nothing to say")
        return bytes(RATE * 2)


@dataclass
class Ear:
    """A leg, as far as sessions know: what it was told, and what it has asked for."""

    session: FailoverSession
    events: list[Event] = field(default_factory=list)
    sentences: dict[str, str] = field(default_factory=dict)
    """Asked for, by receipt."""
    said: list[str] = field(default_factory=list)
    """Receipts of sentences that came whole."""
    over: set[str] = field(default_factory=set)
    """Receipts of sentences of which nothing more comes, for a reason that the leg knows."""
    calls: list[ToolCall] = field(default_factory=list)
    items: dict[str, str | None] = field(default_factory=dict)
    """Every item → the receipt of its sentence."""
    responses: dict[str, str] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)

    def take(self, event: Event) -> None:
        """What the session says."""
        assert not self.failed, "nothing comes after the end"
        self.events.append(event)
        match event:
            case ItemStarted():
                assert event.item not in self.items, "two items of one name"
                self.items[event.item] = event.receipt
                self.responses[event.item] = event.response
                self.open.add(event.item)
            case AudioDelta():
                assert event.item in self.items
                assert event.item in self.open, "more of what was over"
            case AudioDone():
                self.open.remove(event.item)
                receipt = self.items[event.item]
                if receipt in self.sentences:
                    assert receipt not in self.said, "said twice"
                    self.said.append(receipt)
            case ResponseDone():
                self.open -= {item for item, response in self.responses.items() if response == event.response}
                if event.receipt in self.sentences and event.status != "completed":
                    self.over.add(event.receipt)
            case Lost():
                for item in self.open:
                    receipt = self.items[item]
                    assert receipt not in self.sentences or receipt in event.again
                self.open.clear()
            case ToolCall():
                assert all((event.id, event.epoch) != (one.id, one.epoch) for one in self.calls)
                self.calls.append(event)
            case _:
                pass

    @property
    def failed(self) -> bool:
        """The session is over."""
        return any(event.kind == "session" for event in self.of(Failed))

    def of(self, kind: type[Event]) -> list[Any]:
        """The events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def say(self, text: str) -> str:
        """Ask for a sentence."""
        receipt = self.session.say_exactly(text)
        assert receipt not in self.sentences
        self.sentences[receipt] = text
        return receipt

    def barge_in(self, heard_ms: int = 20) -> None:
        """The caller speaks over what is being said."""
        if self.open:
            first, *rest = sorted(self.open, key=list(self.items).index)
            for item in self.open:
                if (receipt := self.items[item]) in self.sentences:
                    self.over.add(receipt)
            self.open.clear()
            self.session.interrupt(Heard(first, heard_ms, tuple(rest)))
        else:
            self.session.interrupt(None)


def providers(*fates: tuple[Fate, ...]) -> list[ScriptedProvider]:
    return [ScriptedProvider(f"p{n}", *each) for n, each in enumerate(fates)]


def opened(made: list[ScriptedProvider], moment: str = MOMENT) -> tuple[FailoverProvider, Ear]:
    candidates = [Candidate(one, f"voz {n}" if n else None) for n, one in enumerate(made)]
    provider = FailoverProvider(candidates, SORRY, OneMoment(Voice(), moment))
    return provider, Ear(provider.open(CONFIG))


async def with_ear(made: list[ScriptedProvider], story: Any, moment: str = MOMENT) -> Ear:
    """Open a session, have the story happen, close; nothing may be left of it."""
    _, ear = opened(made, moment)
    running = asyncio.create_task(ear.session.run(ear.take))
    try:
        await story(ear)
    finally:
        await ear.session.close()
        await running
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, left
    assert all(session.closed for one in made for session in one.sessions)
    return ear


def told(made: list[ScriptedProvider], story: Any, moment: str = MOMENT) -> Ear:
    return run_virtually(with_ear(made, story, moment))


def live(made: list[ScriptedProvider]) -> ScriptedSession:
    return next(s for one in made for s in reversed(one.sessions) if s.ready and not s.closed)


def test_a_session_that_breaks_is_replaced_and_goes_on_with_the_sentence_from_its_beginning() -> None:
    made = providers((Fate(after=3), Fate()))

    async def story(ear: Ear) -> None:
        ear.session.note("o visitante está no portão")
        ear.say("Olá, em que posso ajudar?")
        await asyncio.sleep(5)

    ear = told(made, story)
    first, second = made[0].sessions
    assert first.said == [] and second.said == ["Olá, em que posso ajudar?"]
    (lost,) = ear.of(Lost)
    assert (lost.provider, lost.code, lost.again) == ("p0", "went_away", ("receipt_1",))
    assert ear.of(Replaced) == [Replaced("p0", "went_away: p0-1 is lost")]
    kinds = [event.type for event in ear.events]
    assert kinds[kinds.index("replaced") - 1] == "ready" and kinds.count("ready") == 2
    assert ear.said == ["receipt_1"] and len(ear.items) == 2
    assert Line("system", "o visitante está no portão") in second.config.history


def test_a_session_is_told_its_first_words_before_it_is_ready_and_the_next_one_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where those alone are said word for word. What comes after them waits, in its order."""
    made = providers((Fate(opens="unreachable"), Fate(opens="unreachable")), (Fate(),))
    asked: list[tuple[str, str, bool]] = []

    def say_exactly(session: ScriptedSession, text: str) -> str:
        asked.append((session.name, text, session.ready))
        return say(session, text)

    say = ScriptedSession.say_exactly
    monkeypatch.setattr(ScriptedSession, "say_exactly", say_exactly)

    async def story(ear: Ear) -> None:
        ear.say("Olá, aqui é da portaria.")
        ear.say("Com quem deseja falar?")
        await asyncio.sleep(8)

    ear = told(made, story)
    assert asked == [
        *((one.name, "Olá, aqui é da portaria.", False) for each in made for one in each.sessions),
        (made[1].sessions[0].name, "Com quem deseja falar?", True),
    ]
    assert ear.said == ["receipt_1", "receipt_2"]


@pytest.mark.parametrize(("asks_for", "patience_s"), [(None, SILENT_S), (15.0, 15.0)])
def test_a_model_that_says_nothing_for_too_long_is_replaced_and_the_caller_hears_that_we_are_sorry(
    asks_for: float | None, patience_s: float
) -> None:
    made = providers((Fate(after=1, end="stalls", patience_s=asks_for), Fate()))
    at: list[float] = []

    async def story(ear: Ear) -> None:
        loop = asyncio.get_running_loop()
        ear.say("Olá?")
        while not ear.of(Lost):
            await asyncio.sleep(0.1)
        at.append(loop.time())
        await asyncio.sleep(5)

    ear = told(made, story)
    assert patience_s <= at[0] <= patience_s + 2
    assert ear.of(Lost)[0].code == "stalled" and SILENT_S > APOLOGY_S
    assert made[0].sessions[1].said == [SORRY, "Olá?"]
    assert ear.said == ["receipt_1"]


@pytest.mark.parametrize("moment", [MOMENT, ""])
def test_who_waits_for_a_session_hears_a_voice_of_our_own_where_there_is_one(moment: str) -> None:
    """And then the new session does not say that we are sorry as well."""
    made = providers((Fate(after=3), Fate(opens_in_s=4)))

    async def story(ear: Ear) -> None:
        ear.say("Olá?")
        await asyncio.sleep(0.7)
        assert ear.of(Lost)
        await asyncio.sleep(APOLOGY_S + 0.3)
        said = [event.text for event in ear.of(Transcript)]
        assert said == ([MOMENT] if moment else [])
        sound = sum(len(delta.pcm) for delta in ear.of(AudioDelta) if delta.item == "moment~1")
        assert sound == (48000 if moment else 0), "a second, at the rate that the leg knows"
        await asyncio.sleep(6)

    assert told(made, story, moment).said == ["receipt_1"]
    assert made[0].sessions[1].said == (["Olá?"] if moment else [SORRY, "Olá?"])


def test_one_that_can_ask_again_does_so_before_it_is_replaced() -> None:
    made = providers((Fate(after=1, end="stalls", asks_again=True), Fate()))

    async def story(ear: Ear) -> None:
        ear.say("Olá?")
        await asyncio.sleep(SILENT_S + 2)
        assert made[0].sessions[0].ask_agains == 1 and not ear.of(Lost)
        await asyncio.sleep(8)

    assert told(made, story).said == ["receipt_1"]


@pytest.mark.parametrize("code", ["key_refused", "quota", "unknown_model", "rate_limit", "unreachable"])
def test_a_refusal_leads_to_the_next_provider_at_once(code: str) -> None:
    made = providers((Fate(opens=code),), (Fate(),))

    async def story(ear: Ear) -> None:
        ear.say("Olá?")
        await asyncio.sleep(2)

    with capture_logs() as logs:
        ear = told(made, story)
    assert ear.said == ["receipt_1"] and len(made[0].sessions) == 1
    second = made[1].sessions[0]
    assert second.said == ["Olá?"], "nobody has waited for long: no apology"
    assert second.config.voice == "voz 1" and made[0].sessions[0].config.voice == "dela"
    errors = [line for line in logs if line["log_level"] == "error"]
    if code in ("rate_limit", "unreachable"):
        assert not errors
    else:
        assert [(line["event"], line["provider"], line["code"]) for line in errors] == [
            ("provider.refused", "p0", code)
        ]


def test_a_provider_that_refused_the_key_is_passed_over_for_a_while_and_said_once() -> None:
    made = providers((Fate(opens="key_refused"),), (Fate(),))

    async def story() -> list[int]:
        provider, _ = opened(made)
        tried = []
        for wait in (0.0, 1.0, LASTING_S, 0.0):
            await asyncio.sleep(wait)
            ear = Ear(provider.open(CONFIG))
            running = asyncio.create_task(ear.session.run(ear.take))
            await asyncio.sleep(1)
            tried.append(len(made[0].sessions))
            await ear.session.close()
            await running
        return tried

    with capture_logs() as logs:
        # The session that `opened` opened is the first to be refused.
        assert run_virtually(story()) == [2, 2, 3, 3]
    assert len([line for line in logs if line["event"] == "provider.refused"]) == 1


def test_a_conversation_that_has_begun_is_tried_to_be_saved_once_more_a_second_later() -> None:
    """A server that starts anew refuses connections for a moment."""
    made = providers((Fate(after=3), Fate(opens="unreachable"), Fate()))

    async def story(ear: Ear) -> None:
        ear.say("Olá?")
        await asyncio.sleep(5)

    ear = told(made, story)
    assert [lost.code for lost in ear.of(Lost)] == ["went_away", "unreachable"]
    assert ear.said == ["receipt_1"] and made[0].sessions[2].said == ["Olá?"]


@pytest.mark.parametrize("code", ["key_refused", "unreachable"])
def test_where_that_does_not_help_it_is_over(code: str) -> None:
    made = providers((Fate(after=3), Fate(opens=code)))

    async def story(ear: Ear) -> None:
        ear.say("Olá?")
        await asyncio.sleep(5)

    ear = told(made, story)
    assert ear.failed and ear.of(Failed)[-1].code == code
    assert len(made[0].sessions) == (2 if code == "key_refused" else 3)


def test_where_nobody_answers_the_session_fails_and_says_why() -> None:
    made = providers((Fate(opens="unreachable"),), (Fate(opens="never"),))

    async def story(ear: Ear) -> None:
        ear.say("Olá?")
        await asyncio.sleep(OPEN_S + 2)
        assert ear.failed and not ear.session.busy

    ear = told(made, story)
    assert ear.of(Failed) == [Failed("session", "timeout", f"no confirmed configuration after {OPEN_S:g} s")]


def test_the_answer_of_another_sessions_call_is_told_as_a_note_and_the_call_is_not_made_again() -> None:
    made = providers((Fate(after=1), Fate(history=False)))

    async def story(ear: Ear) -> None:
        await asyncio.sleep(0.5)
        made[0].sessions[0].call()
        await asyncio.sleep(0.5)
        ear.say("Um momento.")  # the session breaks over it
        await asyncio.sleep(2)
        (call,) = ear.calls
        ear.session.answer(call, {"status": "found"}, "now")
        ear.session.answer(call, {"status": "found"}, "now")
        ear.session.answer(replace(call, epoch=call.epoch + 1), {"status": "found"}, "now")
        await asyncio.sleep(2)

    told(made, story)
    first, second = made[0].sessions
    assert first.answers == {} and second.answers == {}
    assert second.told == [
        "Você está no meio desta conversa. Até aqui foi dito:\n"
        "Você já chamou look({}). Não chame de novo por isso.",
        'look respondeu: {"status":"found"}',
    ]


@pytest.mark.parametrize("while_opening", [True, False])
def test_a_call_that_was_answered_is_told_with_its_answer(while_opening: bool) -> None:
    """Also where the answer came while the next session was being opened already."""
    made = providers((Fate(leaves_in_s=1), Fate()))

    async def story(ear: Ear) -> None:
        await asyncio.sleep(0.5)
        live(made).call()
        await asyncio.sleep(1.0 if while_opening else 0.2)
        ear.session.answer(ear.calls[0], {"status": "found"}, "never")
        await asyncio.sleep(3)
        assert ear.of(Replaced)

    told(made, story)
    second = made[0].sessions[1]
    if while_opening:
        assert second.told[1:] == ['look respondeu: {"status":"found"}']
    else:
        assert list(second.config.history) == [PastCall("call_1", "look", "{}", {"status": "found"})]


def test_calls_of_two_sessions_have_other_names_and_other_epochs() -> None:
    made = providers((Fate(after=0), Fate()))

    async def story(ear: Ear) -> None:
        await asyncio.sleep(0.5)
        live(made).call()
        await asyncio.sleep(0.5)
        ear.session.speak_about("x")
        await asyncio.sleep(2)
        live(made).call()
        await asyncio.sleep(0.5)
        first, second = ear.calls
        assert first.id != second.id and first.epoch != second.epoch
        ear.session.answer(second, {"status": "ok"}, "never")
        assert made[0].sessions[1].answers == {"call_1": {"status": "ok"}}

    told(made, story)


def test_what_the_caller_said_while_nobody_heard_it_is_a_turn_without_words_and_asked_for_again() -> None:
    made = providers((Fate(after=0), Fate(opens_in_s=2)))

    async def story(ear: Ear) -> None:
        await asyncio.sleep(0.5)
        live(made).turn("Pode", whole=False)
        ear.session.caller_began()
        ear.session.speak_about("x")
        await asyncio.sleep(1)
        assert ear.of(Lost)
        ear.session.send_audio(b"\1\0" * 480)
        await asyncio.sleep(2)
        second = live(made)
        ear.session.send_audio(b"\1\0" * 480)
        assert not any(second.audio), "the end of what it didn't hear from its beginning"
        ear.session.caller_ended(300)
        ear.session.send_audio(b"\1\0" * 480)
        assert any(second.audio)
        await asyncio.sleep(2)

    ear = told(made, story)
    begun, lost = [e.item for e in ear.of(SpeechStarted)], [e.item for e in ear.of(TranscriptFailed)]
    assert begun == lost == ["turn_1", "unheard~1"]
    assert any("Peça que ela repita" in text for text in made[0].sessions[1].told)


def test_who_begins_to_speak_as_a_session_takes_over_is_heard_from_before_our_vad_knew() -> None:
    made = providers((Fate(after=0), Fate(opens_in_s=1, rate=16000)))

    async def story(ear: Ear) -> None:
        await asyncio.sleep(0.5)
        ear.session.speak_about("x")
        await asyncio.sleep(0.5)
        assert ear.of(Lost)
        for _ in range(100):
            ear.session.send_audio(b"\0\4" * 480)
        await asyncio.sleep(1)
        heard = live(made).audio
        assert len(heard) == pytest.approx(16000, rel=0.05), "half a second, at the new session's rate"

    told(made, story)


@pytest.mark.parametrize("heard_s", [0.65, 0.75])
def test_what_the_caller_did_not_hear_is_not_in_what_the_new_session_is_told(heard_s: float) -> None:
    """Whether its words were known by then or not."""
    made = providers((Fate(after=9), Fate()))
    text = "Olá, aqui é da portaria do condomínio, tudo bem com você?"

    async def story(ear: Ear) -> None:
        ear.say(text)
        await asyncio.sleep(heard_s)
        ear.barge_in(40)
        await asyncio.sleep(0.5)
        ear.session.speak_about("x")
        ear.session.speak_about("y")
        await asyncio.sleep(3)

    told(made, story)
    history = made[0].sessions[1].config.history
    kept = [line.text for line in history if isinstance(line, Line) and line.speaker == "agent"]
    assert text not in kept and all(text.startswith(one) for one in kept[:1] if one != "x")


def test_before_its_time_is_over_a_session_is_left_between_two_turns_without_a_gap() -> None:
    made = providers((Fate(leaves_in_s=5), Fate()))

    async def story(ear: Ear) -> None:
        ear.say("Olá?")
        await asyncio.sleep(4.7)
        receipt = ear.say("Um momento, por favor.")
        await asyncio.sleep(0.5)
        assert len(made[0].sessions) == 2, "prepared"
        await asyncio.sleep(0.2)
        assert not ear.of(Replaced), "not while something is said"
        await asyncio.sleep(3)
        assert receipt in ear.said
        assert ear.of(Replaced) == [Replaced("p0", "the session's time was over")]
        assert not ear.of(Lost) and made[0].sessions[0].closed

    told(made, story)
    assert made[0].sessions[1].said == []


def test_a_session_whose_time_ends_in_the_middle_of_things_is_left_in_any_case() -> None:
    made = providers((Fate(leaves_in_s=5), Fate()))

    async def story(ear: Ear) -> None:
        await asyncio.sleep(4)
        ear.session.caller_began()
        await asyncio.sleep(8)
        assert [lost.code for lost in ear.of(Lost)] == ["time_over"] and ear.of(Replaced)
        ear.session.caller_ended(300)

    told(made, story)


async def test_a_session_of_openais_is_left_before_its_hour_and_the_next_one_knows_what_was_said() -> None:
    going = OpenAISettings(api_key="k", session_limit_s=8.0, going_away_s=7.0)
    async with Simulator(Reply((Say(text="Pois não?"),))) as server:
        inner = OpenAIProvider(replace(going, base_url=server.url))
        talk = Talk(FailoverProvider([Candidate(inner)], SORRY).open(CONFIG))
        talk.session.say_exactly("Pois não?")
        await talk.a(ResponseDone)
        assert talk.session.audio_sent() == AudioSent(0.0, 0.0), "it sends all that it gets"
        await talk.a(Replaced, reason="the session's time was over")
        talk.session.say_exactly("Um momento.")
        await server.until(lambda: len(server.models) == 2 and server.model.creates)
        await server.until(lambda: server.open_connections == 1)
        first, second = server.models
        items = [m["item"] for m in second.received if m["type"] == "conversation.item.create"]
        assert [item["content"][0]["text"] for item in items] == ["Pois não?"]
        assert first.violations == second.violations == []
        assert not any(isinstance(event, Lost | Failed) for event in talk.events)
        await talk.session.close()
        assert not any("session" in task.get_name() for task in asyncio.all_tasks())


def test_what_sessions_spared_and_cost_is_counted_over_all_of_them() -> None:
    made = providers((Fate(after=0), Fate()))

    async def story(ear: Ear) -> None:
        await asyncio.sleep(0.5)
        ear.session.speak_about("x")
        await asyncio.sleep(3)
        assert ear.session.audio_sent() == AudioSent(2.0, 4.0)
        assert [one.seconds for one in ear.session.time_billed()] == [1.0, 1.0]

    told(made, story)


# -- any order of anything -----------------------------------------------------------------------------------

FATES = st.builds(
    Fate,
    opens=st.sampled_from(["", "", "", "", "unreachable", "key_refused", "rate_limit", "never"]),
    opens_in_s=st.sampled_from([0.0, 0.3, 3.0]),
    after=st.one_of(st.none(), st.integers(0, 20)),
    end=st.sampled_from(["breaks", "stalls", "rate_limit"]),
    leaves_in_s=st.sampled_from([None, None, 4.0]),
    history=st.booleans(),
    rate=st.sampled_from([8000, 24000]),
    asks_again=st.booleans(),
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "say", "say", "about", "note", "turn", "half-turn", "call", "answer", "barge-in", "quiet",
                "mute", "unmute", "speaks", "silent", "audio", "doubt", "settle",
            ]
        ),
        st.sampled_from([0.0, 0.05, 0.4, 1.7, 9.0]),
    ),
    max_size=14,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(FATES, min_size=1, max_size=3), st.lists(FATES, min_size=1, max_size=2), STEPS)
def test_whatever_happens_nothing_owed_is_lost_or_said_twice(
    first: list[Fate], second: list[Fate], steps: list[tuple[str, float]]
) -> None:
    made = providers((*first, Fate()), (*second, Fate()))

    async def story(ear: Ear) -> None:
        unanswered = 0
        answered: list[str] = []
        for step, wait in steps:
            unanswered = act(ear, made, step, unanswered)
            await asyncio.sleep(wait)
        ear.session.caller_ended(300)
        if unanswered < len(ear.calls):  # a host answers all its calls within seconds
            for call in ear.calls[unanswered:]:
                ear.session.answer(call, {"status": f"late {call.id}"}, "now")
                answered.append(call.id)
        await asyncio.sleep(3 * GIVE_UP_S)
        for call in ear.calls:  # and those that were made since
            ear.session.answer(call, {"status": "later"}, "never")
        failed = ear.failed
        known = [str(s.answers) for one in made for s in one.sessions]
        known += [text for one in made for s in one.sessions for text in s.told]
        lost = [call for call in answered if not any(f"late {call}" in text for text in known)]
        assert failed or not lost, f"no model ever knew what these calls came to: {lost}"
        missing = set(ear.sentences) - set(ear.said) - ear.over
        assert failed or not missing, f"never said: {[ear.sentences[one] for one in missing]}"
        assert not ear.session.busy
        assert failed or ear.of(Ready)
        begun = [event.item for event in ear.of(SpeechStarted)]
        ended = [event.item for event in ear.of(TranscriptFailed)]
        ended += [event.item for event in ear.of(Transcript) if event.role == "caller"]
        still = live(made).open_turns if not failed else set()
        assert len(begun) == len(set(begun))
        assert failed or {item.partition("~")[0] for item in set(begun) - set(ended)} <= still

    told(made, story)


def act(ear: Ear, made: list[ScriptedProvider], step: str, unanswered: int) -> int:
    """One thing that happens; how many calls were answered by now."""
    sessions = [s for one in made for s in one.sessions if s.ready and not s.closed]
    match step:
        case "say":
            ear.say(f"frase {len(ear.sentences)}")
        case "about":
            ear.session.speak_about("assunto")
        case "note":
            ear.session.note("aviso")
        case "turn" | "half-turn":
            for session in sessions[-1:]:
                session.turn("oi", whole=step == "turn")
        case "call":
            for session in sessions[-1:]:
                session.call()
        case "answer":
            if unanswered < len(ear.calls):
                ear.session.answer(ear.calls[unanswered], {"status": "found"}, "now")
                return unanswered + 1
        case "barge-in":
            ear.barge_in()
        case "quiet":
            ear.session.interrupt(None)
        case "mute" | "unmute":
            ear.session.auto_reply(step == "unmute")
        case "speaks":
            ear.session.caller_began()
        case "silent":
            ear.session.caller_ended(300)
        case "audio":
            ear.session.send_audio(bytes(960))
        case "doubt":
            ear.session.doubt_turn()
        case "settle":
            ear.session.settle_turn(reply=True)
    return unanswered
