"""Any order of intents, events and races: the sequencer's promises hold, and it always gets to the end."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from providers.sequencer import Action, Cancel, Create, Dropped, Output, Sequencer


class World(RuleBasedStateMachine):
    """A server that answers in its own time, a caller who speaks when they like, tools that take a while."""

    def __init__(self) -> None:
        super().__init__()
        self.sequencer = Sequencer()
        self.count = 0
        self.outstanding: Create | None = None
        """Handed out and not answered by created or an error."""
        self.running: str | None = None
        self.running_create: Create | None = None
        self.foreign: str | None = None
        self.foreign_announced = False
        self.tags: set[str] = set()
        self.wanted: set[str] = set()
        """Receipts that were given out and are not accounted for."""
        self.unanswered: dict[str, str] = {}
        self.given: set[str] = set()
        self.cancelled_calls: set[str] = set()
        self.outputs: set[str] = set()
        self.done: set[str] = set()
        self.cancels: dict[str, int] = {}
        self.turn_owed = False

    def name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"

    def act(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Create():
                    assert self.outstanding is None and self.running is None, "two creates outstanding"
                    assert action.tag not in self.tags, "a tag used twice"
                    self.tags.add(action.tag)
                    assert action.exact is not None or action.reasons, "asked for nothing"
                    assert set(action.receipts) <= self.wanted, "created twice, or never wanted"
                    self.outstanding = action
                    if action.exact is None:
                        self.turn_owed = False
                case Cancel(response):
                    key = response or (self.outstanding.tag if self.outstanding else "?")
                    self.cancels[key] = self.cancels.get(key, 0) + 1
                    assert self.cancels[key] == 1, "cancelled twice"
                case Output(call):
                    assert call in self.given and call not in self.outputs, "answered twice"
                    assert call not in self.cancelled_calls, "a cancelled call was answered"
                    self.outputs.add(call)
                case Dropped(create):
                    self.wanted -= set(create.receipts)

    # -- intents

    @rule()
    def say_exactly(self) -> None:
        receipt = self.name("exact")
        self.wanted.add(receipt)
        self.act(self.sequencer.say_exactly(receipt, receipt))

    @rule()
    def speak_about(self) -> None:
        receipt = self.name("about")
        self.wanted.add(receipt)
        self.act(self.sequencer.speak_about(receipt))

    @rule()
    def interrupt(self) -> None:
        self.act(self.sequencer.interrupt())

    @rule(on=st.booleans())
    def auto_reply(self, on: bool) -> None:
        if not on:
            self.turn_owed = self.withheld = False
        self.auto = on
        self.act(self.sequencer.auto_reply(on))

    auto = True

    @precondition(lambda self: self.unanswered)
    @rule(data=st.data(), speak=st.sampled_from(["now", "idle", "never"]))
    def answer(self, data: st.DataObject, speak: str) -> None:
        call = data.draw(st.sampled_from(sorted(self.unanswered)))
        del self.unanswered[call]
        self.given.add(call)
        self.act(self.sequencer.answer(call, speak))  # type: ignore[arg-type]
        self.act(self.sequencer.answer(call, speak))  # type: ignore[arg-type]

    # -- the caller

    @rule()
    def caller_speaks(self) -> None:
        self.act(self.sequencer.caller_speaks())

    @rule()
    def turn_ended(self) -> None:
        if self.doubt:
            self.withheld |= self.auto
        else:
            self.turn_owed = self.auto
        self.act(self.sequencer.turn_ended())

    doubt = False
    withheld = False

    @rule()
    def doubt_turn(self) -> None:
        self.doubt = True
        self.act(self.sequencer.doubt_turn())

    @rule(reply=st.booleans())
    def settle_turn(self, reply: bool) -> None:
        self.turn_owed |= self.withheld and reply
        self.doubt = self.withheld = False
        self.act(self.sequencer.settle_turn(reply))

    @rule()
    def patience_ends(self) -> None:
        if (patience := self.sequencer.patience) is not None:
            self.act(self.sequencer.give_up(patience))

    # -- the server

    @precondition(lambda self: self.outstanding and not self.foreign)
    @rule(echo=st.booleans())
    def created(self, echo: bool) -> None:
        create, self.outstanding = self.outstanding, None
        assert create is not None
        self.running, self.running_create = self.name("r"), create
        self.cancels[self.running] = 0
        self.act(self.sequencer.response_created(self.running, create.tag if echo else None))

    @precondition(lambda self: self.outstanding and self.foreign)
    @rule()
    def refused_as_busy(self) -> None:
        create, self.outstanding = self.outstanding, None
        assert create is not None
        self.act(self.sequencer.create_refused(create.tag, busy=True))

    @precondition(lambda self: self.outstanding)
    @rule()
    def refused(self) -> None:
        create, self.outstanding = self.outstanding, None
        assert create is not None
        self.act(self.sequencer.create_refused(create.tag, busy=False))

    @precondition(lambda self: self.outstanding and not self.foreign and not self.running)
    @rule(announced=st.booleans())
    def theirs_begins(self, announced: bool) -> None:
        """A response that nobody asked for gets in before ours; it may or may not be announced in time."""
        self.foreign, self.foreign_announced = self.name("theirs"), announced
        if announced:
            self.act(self.sequencer.response_created(self.foreign, None))

    @precondition(lambda self: self.foreign)
    @rule()
    def theirs_ends(self) -> None:
        theirs, self.foreign = self.foreign, None
        assert theirs is not None
        overtaken, self.outstanding = self.outstanding, None
        if overtaken is not None:
            # Its create was refused while theirs ran; the refusal may come after the done.
            self.act(self.sequencer.create_refused(overtaken.tag, busy=True))
        self.act(self.sequencer.response_done(theirs))

    @precondition(lambda self: self.foreign and not self.foreign_announced and self.outstanding)
    @rule()
    def theirs_ends_before_the_refusal(self) -> None:
        theirs, self.foreign = self.foreign, None
        create, self.outstanding = self.outstanding, None
        assert theirs is not None and create is not None
        self.act(self.sequencer.response_done(theirs))
        self.act(self.sequencer.create_refused(create.tag, busy=True))

    @precondition(lambda self: self.running)
    @rule(times=st.integers(1, 2))
    def call(self, times: int) -> None:
        assert self.running is not None
        name = self.name("call")
        self.unanswered[name] = self.running
        assert self.sequencer.call_made(self.running, name)
        assert times == 1 or not self.sequencer.call_made(self.running, name)

    @precondition(lambda self: self.unanswered)
    @rule(data=st.data())
    def call_cancelled(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(sorted(self.unanswered)))
        del self.unanswered[call]
        self.cancelled_calls.add(call)
        self.act(self.sequencer.call_cancelled(call))

    @precondition(lambda self: self.running)
    @rule(cancel_refused=st.booleans())
    def response_done(self, cancel_refused: bool) -> None:
        response, create = self.running, self.running_create
        assert response is not None and create is not None
        self.running = self.running_create = None
        self.done.add(response)
        self.wanted -= set(create.receipts)
        if cancel_refused and self.cancels.get(response):
            # The cancel crossed the done.
            self.act(self.sequencer.response_done(response))
            self.act(self.sequencer.cancel_refused())
        else:
            self.act(self.sequencer.response_done(response))

    @invariant()
    def busy_tells_the_truth(self) -> None:
        if (
            self.outstanding
            or self.running
            or self.wanted
            or self.unanswered
            or self.turn_owed
            or self.withheld
        ):
            assert self.sequencer.busy

    def teardown(self) -> None:
        """Once the world answers, all that is owed gets asked for, and then there is peace."""
        self.settle_turn(reply=True)
        for _ in range(10 * (self.count + 5)):
            if self.foreign:
                self.theirs_ends()
            elif self.outstanding:
                self.created(echo=True)
            elif self.running:
                self.response_done(cancel_refused=False)
            elif self.unanswered:
                call = min(self.unanswered)
                del self.unanswered[call]
                self.given.add(call)
                self.act(self.sequencer.answer(call, "now"))
            elif self.sequencer.patience is not None:
                self.patience_ends()
            else:
                break
        assert not self.sequencer.busy, "something is owed, and nothing moves"
        assert not self.wanted, f"never asked for: {self.wanted}"
        assert not self.turn_owed, "a caller's turn was never replied to"
        assert self.outputs == self.given, "an answer never went out"


World.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestSequencer = World.TestCase
