"""A conversation and a strict model that talk to each other without a socket, in any order that is wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st

from providers import openai_messages as wire
from providers.base import (
    Event,
    Heard,
    ItemStarted,
    ResponseDone,
    ResponseStarted,
    SessionConfig,
    ToolCall,
    ToolSpec,
)
from providers.openai_conversation import Conversation
from tests.simulators.openai_realtime import Call, Faults, Model, Reply, Say

T = TypeVar("T")
TOOL = ToolSpec("lookup_apartment", "Procura.", {"type": "object", "properties": {}})
CONFIG = SessionConfig(instructions="Você é o porteiro.", tools=[TOOL], transcription_prompt="Daner, Giane")
WIRE = wire.Wire("marin", "gpt-transcribe", "far_field")


class Pair:
    """A conversation and a model that talk to each other when they are told to."""

    def __init__(
        self,
        *replies: Reply,
        faults: Faults | None = None,
        config: SessionConfig = CONFIG,
        dialect: wire.Dialect = WIRE,
        model: Callable[[list[Reply], Faults | None], Model] = Model,
    ) -> None:
        self.model = model(list(replies), faults)
        self.events: list[Event] = []
        self.to_model: list[dict[str, Any]] = []
        self.conversation = Conversation(config, dialect, 1, self.events.append, self.to_model.append)
        self.to_model.append(self.conversation.open())

    def exchange(self) -> None:
        """Everything that is under way arrives."""
        while self.to_model or self.model.out:
            while self.to_model:
                self.model.receive(self.to_model.pop(0))
            while self.model.out:
                self.conversation.receive(self.model.out.popleft())

    def settle(self) -> None:
        """The model says all that it has to say."""
        self.exchange()
        while self.model.step():
            self.exchange()

    def until(self, condition: Callable[[], bool]) -> None:
        self.exchange()
        while not condition():
            assert self.model.step(), "it never came to that"
            self.exchange()

    def of(self, kind: type[T]) -> list[T]:
        return [e for e in self.events if isinstance(e, kind)]


says = st.builds(Say, ms=st.integers(0, 300))
calls = st.builds(Call, times=st.integers(1, 2), status=st.sampled_from(["completed", "incomplete"]))
replies = st.builds(
    Reply,
    items=st.lists(says | calls, max_size=3).map(tuple),
    status=st.sampled_from(["completed", "completed", "incomplete", "failed"]),
)
STEPS = (
    "model model model to_model to_us say about note barge silence starts ends answer patience foreign again"
)
steps = st.sampled_from([*STEPS.split(), "phantom"])


def go(pair: Pair, walk: Sequence[str], chance: Any, *, busy: bool, local: bool = False) -> None:
    """Take these steps, then let everything come to its end. The vendor never has a reason to refuse.

    Args:
        busy: the model refuses a create as busy now and then.
        local: our VAD says where a turn begins and ends; the step ``sound`` is the caller's audio then.
    """
    pair.exchange()
    conversation, model = pair.conversation, pair.model
    receipts: list[str] = []
    speaking: str | None = None
    answered: set[str] = set()
    begun_again: list[str | None] = []

    def answer() -> None:
        for call in pair.of(ToolCall):
            if call.id not in answered:
                answered.add(call.id)
                conversation.answer(call, {"ok": True}, chance.choice(["now", "idle", "never"]))
                return

    for step in walk:
        match step:
            case "model":
                model.step()
            case "to_model" if pair.to_model:
                model.receive(pair.to_model.pop(0))
            case "to_us" if model.out:
                conversation.receive(model.out.popleft())
            case "say":
                receipts.append(conversation.say_exactly("Um momento."))
            case "about":
                receipts.append(conversation.speak_about("Há novidades."))
            case "note":
                conversation.note("Nada de novo.")
            case "barge":
                items = [e.item for e in pair.of(ItemStarted)]
                heard = chance.randrange(len(items)) if items else 0
                conversation.interrupt(
                    Heard(items[heard], chance.randrange(400), tuple(items[heard + 1 :])) if items else None
                )
            case "silence":
                conversation.interrupt(None)
            case "sound":
                conversation.send_audio(b"\x01\x00" * 24 * chance.choice([1, 20, 60, 500]))
            case "starts" if local:
                conversation.caller_began()
            case "cut":
                conversation.cut_turn()
            case "ends" if local:
                conversation.turn_over()
            case "starts" if speaking is None:
                speaking = model.caller_starts()
            case "ends" if speaking is not None:
                model.caller_ends(speaking)
                speaking = None
            case "phantom" if speaking is None and not local:
                speaking = model.phantom()
            case "answer":
                answer()
            case "patience":
                if conversation.patience is not None:
                    conversation.give_up(conversation.patience)
            case "again":
                begun = pair.of(ResponseStarted)[-1:]
                if conversation.ask_again():
                    begun_again += [r for e in begun for r in (e.receipt, *e.also)]
            case "foreign" if model.active is None:
                model.start(None)
    for _ in range(200):
        pair.settle()
        answer()
        if conversation.patience is not None:
            conversation.give_up(conversation.patience)
        if not (conversation.busy or pair.to_model or model.out):
            break
    assert not conversation.busy, "something is owed, and nothing moves"
    assert conversation.patience is None
    allowed = ("response.create while", "conversation.item.truncate")
    foreign = "foreign" in walk
    assert [v for v in model.violations if not (foreign and v.startswith(allowed))] == []
    called = [e.id for e in pair.of(ToolCall)]
    assert len(called) == len(set(called)) and set(model.answers) == set(called)
    back = [r for e in pair.of(ResponseStarted) for r in ([e.receipt, *e.also] if e.receipt else [])]
    back += [e.receipt for e in pair.of(ResponseDone) if not e.response and e.receipt]
    assert set(back) == set(receipts)
    if not (foreign or busy):  # where a response nobody asked for got in first it may be taken for ours
        twice = Counter(back) - Counter(receipts)
        assert twice <= Counter(begun_again), "each receipt comes back once, or once more if asked for again"
