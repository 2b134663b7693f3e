"""The single owner of "who asks the model for a response, and when". No I/O, no clock: h11's way.

The rules
---------
R1  One response at a time. From the moment a create is handed out, nothing else is asked for until the server
    has said that response is done, or refused the create.
R2  Waiting requests are served in this order:

        exact    ``say_exactly``, one response each, in the order given
        reply    everything that "a reply to the conversation as it stands" satisfies, together in ONE
                 response: a tool's answer, ``speak_about``, the end of a caller's turn

R3  A tool's answer goes to the server once its response is done, and asks for a reply once *all* calls of
    that response are answered. ``never`` asks for none; ``idle`` waits until no call whatever is open.
R4  While calls are open, replies wait for their answers (otherwise the model speaks twice, or calls again),
    but not beyond the caller's patience (R8). Exact words don't wait for tools.
R5  While the caller speaks, replies wait for the end of the turn. Exact words don't: a stuck VAD must not
    swallow a greeting.
R6  A barge-in cancels the running response, once. It does not touch what has not begun: exact words whose
    response the server has not announced yet, answers of tools, replies that are owed. All of them wait for
    the end of the caller's turn, and a reply that was owed then is the reply to the new turn (R2).
R7  Races are not failures. "Already has an active response": wait for a done, ask again. "Nothing to
    cancel": the response is over, whether its done came or not.
R8  Nothing waits for the caller or a tool for ever. ``patience`` names what is waited for; whoever has a
    clock calls ``give_up`` with it when the time for it is over.
R9  A turn in doubt (it may be a word along the way, said while we speak) asks for no reply until the doubt is
    settled. Settled as a turn, it gets its reply; a barge-in that was reported meanwhile was that turn's, and
    if the turn has ended nothing more is waited for.
R10 A response that was asked for and of which nothing came is given up where whoever has a clock says so
    (``ask_again``): it is cancelled and asked for anew. What still comes of it is not ours.

What a response may be in, and what moves it (``None``: no response)::

    None       --create handed out-->  asked      --response.created-->  running   --response.done-->  None
    None       --response.created (not ours)-->   running
    asked      --refused: busy-->      blocked    --response.done of any-->  None   (the request waits again)
    asked      --refused: else-->      None                                         (the request is dropped)
    running    --nothing to cancel-->  None
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Literal

from providers.base import Speak

Reason = Literal["turn", "about", "tool", "idle"]
"""Why a reply is owed. All of them are satisfied by one reply (R2)."""


@dataclass(frozen=True, slots=True)
class Create:
    """Ask for a response now.

    Attributes:
        tag: names this asking (a request that is asked again gets another tag).
        receipts: the intents that this response is for, the oldest first; none for a caller's turn or a tool.
        exact: the words to say, or None for a reply to the conversation.
        reasons: why a reply is owed; empty for exact words.
    """

    tag: str
    receipts: tuple[str, ...]
    exact: str | None
    reasons: frozenset[Reason]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel the running response; ``response`` is None while its name is not known yet."""

    response: str | None


@dataclass(frozen=True, slots=True)
class Output:
    """This call's answer may go to the server now."""

    call: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """This create was refused and will not be asked again."""

    create: Create
    cancelled: bool


Action = Create | Cancel | Output | Dropped


class Waiting(Enum):
    """What a wait is for (R8)."""

    BARGE_IN = auto()
    """A barge-in was reported; the server's own VAD has not confirmed it."""
    SPEECH = auto()
    """The caller speaks; the turn has not ended."""
    TOOLS = auto()
    """A reply is owed, and calls are unanswered."""


@dataclass(frozen=True, slots=True)
class Patience:
    """One wait. ``serial`` tells two waits of one kind apart, so that a clock can start anew."""

    kind: Waiting
    serial: int


class _Phase(Enum):
    ASKED = auto()
    RUNNING = auto()
    BLOCKED = auto()


@dataclass(slots=True)
class _Running:
    phase: _Phase
    create: Create | None
    response: str | None = None
    cancelled: bool = False
    cancel_refused: bool = False
    other_done: bool = False
    """A done of another response came since we asked: a refusal as "busy" is then out of date."""


@dataclass(slots=True)
class _Batch:
    """The calls of one response, and how each was answered."""

    calls: dict[str, Speak | None] = field(default_factory=dict)
    done: bool = False
    patient: bool = True

    @property
    def open(self) -> bool:
        return not self.done or None in self.calls.values()


class Sequencer:
    """Decides when a response is asked for, cancelled, and when a call's answer may go.

    Each method reports one thing that happened and returns what is to be done about it, in order.
    """

    def __init__(self, prefix: str = "create") -> None:
        self._prefix = prefix
        self._tags = 0
        self._serial = 0
        self._auto_reply = True
        self._exact: deque[tuple[str, str]] = deque()
        self._owed: set[Reason] = set()
        self._receipts: list[str] = []
        self._batches: dict[str, _Batch] = {}
        self._batch_of: dict[str, str] = {}
        self._running: _Running | None = None
        self._barged = False
        self._speaking = False
        self._doubt = False
        self._ended_in_doubt = False
        self._withheld = False
        """A turn that ended in doubt would be owed a reply (R9)."""

    # -- what is the case ------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """True while a reply is running or owed, a tool's included."""
        return bool(self._running or self._exact or self._owed or self._batches or self._withheld)

    @property
    def running(self) -> str | None:
        """The response that the server works on, where its name is known."""
        return self._running.response if self._running else None

    @property
    def patience(self) -> Patience | None:
        """What is being waited for that might never come, or None (R8)."""
        if self._barged and not self._speaking:
            return Patience(Waiting.BARGE_IN, self._serial)
        if self._speaking:
            return Patience(Waiting.SPEECH, self._serial)
        if self._owed - {"idle"} and not self._running and self._blocking():
            return Patience(Waiting.TOOLS, self._serial)
        return None

    def awaits(self, call: str) -> bool:
        """Whether this call is known here and has not been answered or cancelled."""
        batch = self._batches.get(self._batch_of.get(call, ""))
        return batch is not None and call in batch.calls and batch.calls[call] is None

    # -- what we want ----------------------------------------------------------------------------------------

    def say_exactly(self, receipt: str, text: str) -> list[Action]:
        """These words are to be said, before any reply that waits."""
        self._exact.append((receipt, text))
        return self._next()

    def speak_about(self, receipt: str) -> list[Action]:
        """A reply is wanted; what it is about is in the conversation already."""
        self._owed.add("about")
        self._receipts.append(receipt)
        return self._next()

    def auto_reply(self, on: bool) -> list[Action]:
        """Whether the end of a caller's turn asks for a reply. Off: one that is owed for it is forgotten."""
        self._auto_reply = on
        if not on:
            self._owed.discard("turn")
            self._withheld = False
        return []

    def interrupt(self) -> list[Action]:
        """The caller spoke over us (R6)."""
        self._barged = True
        self._serial += 1
        running = self._running
        if running is None or running.cancelled:
            return []
        if running.phase is _Phase.ASKED and running.create is not None and running.create.exact is not None:
            return []
        running.cancelled = True
        return [Cancel(running.response)]

    def ask_again(self) -> list[Action]:
        """Nothing came of what was asked for (R10). Does nothing where nothing was, or it made a call."""
        running = self._running
        if (
            running is None
            or running.create is None
            or running.cancelled
            or running.response in self._batches
        ):
            return []
        self._running = None
        self._put_back(running.create)
        return [Cancel(running.response), *self._next()]

    def answer(self, call: str, speak: Speak) -> list[Action]:
        """A call's outcome is known. One that nobody awaits is ignored: see :meth:`awaits`."""
        if not self.awaits(call):
            return []
        response = self._batch_of[call]
        batch = self._batches[response]
        batch.calls[call] = speak
        actions: list[Action] = [Output(call)] if batch.done else []
        return actions + self._settle(response)

    # -- what the server says --------------------------------------------------------------------------------

    def caller_speaks(self) -> list[Action]:
        """The server's VAD heard the caller begin."""
        self._speaking = True
        self._serial += 1
        return []

    def turn_ended(self) -> list[Action]:
        """The caller's turn is in the conversation."""
        self._speaking = self._barged = False
        if self._doubt:
            self._ended_in_doubt = True
            self._withheld |= self._auto_reply
        elif self._auto_reply:
            self._owed.add("turn")
        return self._next()

    def turn_lost(self) -> list[Action]:
        """The caller's turn is over, and nothing of it is in the conversation: nobody replies to it."""
        self._speaking = self._barged = False
        self._ended_in_doubt |= self._doubt
        return self._next()

    def doubt_turn(self) -> list[Action]:
        """What the caller says may be no turn (R9)."""
        self._doubt = True
        return []

    def settle_turn(self, reply: bool) -> list[Action]:
        """The doubt is over; ``reply``: it was a turn (R9)."""
        ended, withheld = self._ended_in_doubt, self._withheld
        self._doubt = self._ended_in_doubt = self._withheld = False
        if reply and ended and not self._speaking:
            self._barged = False
        if reply and withheld:
            self._owed.add("turn")
        return self._next()

    def call_made(self, response: str, call: str) -> bool:
        """The model completed a function call. False: it was reported before and must not run again."""
        if call in self._batch_of:
            return False
        self._batch_of[call] = response
        batch = self._batches.setdefault(response, _Batch())
        batch.calls[call] = None
        # A call reported after its response's done can be answered at once.
        batch.done = batch.done or self._running is None or self._running.response != response
        self._serial += 1
        return True

    def call_cancelled(self, call: str) -> list[Action]:
        """The model no longer wants this answer: none will be sent, and none asks for a reply."""
        if not self.awaits(call):
            return []
        response = self._batch_of[call]
        del self._batches[response].calls[call]
        return self._settle(response)

    def response_created(self, response: str, tag: str | None) -> list[Action]:
        """The server began a response. ``tag`` is what our create was labelled with, where it came back."""
        running = self._running
        ours = running is not None and running.phase is _Phase.ASKED and running.create is not None
        if running is None or (ours and tag is not None and running.create and tag != running.create.tag):
            # Not asked for by us (another create in the place of ours will be refused, and asked again: R7).
            if running is None:
                self._running = _Running(_Phase.RUNNING, None, response)
            return []
        running.phase, running.response = _Phase.RUNNING, response
        running.other_done = False  # where this is not ours after all, it is what keeps the server busy
        if running.cancelled and running.cancel_refused:
            running.cancel_refused = False
            return [Cancel(response)]
        return []

    def response_done(self, response: str) -> list[Action]:
        """A response ended, however it did."""
        running = self._running
        if running is not None:
            if running.response == response or running.phase is _Phase.BLOCKED:
                self._running = None
            else:
                running.other_done = True
        return self._release(response)

    def create_refused(self, tag: str, busy: bool) -> list[Action]:
        """The server refused a create; ``busy``: because another response is running (R7)."""
        running = self._running
        if running is None or running.create is None or running.create.tag != tag:
            return []
        create, cancelled = running.create, running.cancelled
        self._running = None
        actions: list[Action] = []
        if busy and not running.other_done:
            # A response whose announcement was taken for ours, or one that was never announced.
            phase = _Phase.RUNNING if running.response else _Phase.BLOCKED
            self._running = _Running(phase, None, running.response, cancelled)
        if busy and not cancelled:
            self._put_back(create)
        else:
            actions.append(Dropped(create, cancelled))
        return actions + self._next()

    def cancel_refused(self) -> list[Action]:
        """There was nothing to cancel (R7)."""
        running = self._running
        if running is None or not running.cancelled:
            return []
        if running.phase is _Phase.ASKED:
            # The cancel overtook its create, which is still to be answered: cancel again once it has a name.
            running.cancel_refused = True
            return []
        self._running = None
        return self._release(running.response) if running.response else self._next()

    def give_up(self, patience: Patience) -> list[Action]:
        """The time for this wait is over (R8). A wait that has ended meanwhile is ignored."""
        if patience != self.patience:
            return []
        match patience.kind:
            case Waiting.BARGE_IN | Waiting.SPEECH:
                self._barged = self._speaking = False
            case Waiting.TOOLS:
                for batch in self._batches.values():
                    batch.patient = False
        return self._next()

    # -- inside ----------------------------------------------------------------------------------------------

    def _blocking(self) -> bool:
        """Whether calls hold back the replies that are owed (R3, R4)."""
        patient = self._owed == {"idle"}
        return any(batch.patient or patient for batch in self._batches.values())

    def _release(self, response: str) -> list[Action]:
        """A response is done: answers that wait for it may go."""
        batch = self._batches.get(response)
        if batch is None or batch.done:
            return self._next()
        batch.done = True
        actions: list[Action] = [Output(call) for call, speak in batch.calls.items() if speak is not None]
        return actions + self._settle(response)

    def _settle(self, response: str) -> list[Action]:
        """Where all calls of a response are answered, ask for the reply to them (R3)."""
        batch = self._batches[response]
        if not batch.open:
            del self._batches[response]
            self._owe(batch.calls.values())
        return self._next()

    def _owe(self, speaks: Iterable[Speak | None]) -> None:
        wanted = set(speaks)
        if "now" in wanted:
            self._owed.add("tool")
        elif "idle" in wanted:
            self._owed.add("idle")

    def _put_back(self, create: Create) -> None:
        """A create that was refused as busy waits again, ahead of what came after it."""
        if create.exact is not None:
            self._exact.appendleft((create.receipts[0], create.exact))
            return
        reasons = set(create.reasons)
        if not self._auto_reply:
            reasons.discard("turn")
        self._owed |= reasons
        self._receipts[:0] = create.receipts

    def _next(self) -> list[Action]:
        """Ask for the next response, if it is time for one."""
        if self._running or self._barged:
            return []
        if self._exact:
            receipt, text = self._exact.popleft()
            return [self._create((receipt,), text, frozenset())]
        if self._owed and not self._speaking and not self._blocking():
            receipts, reasons = tuple(self._receipts), frozenset(self._owed)
            self._receipts.clear()
            self._owed.clear()
            return [self._create(receipts, None, reasons)]
        return []

    def _create(self, receipts: tuple[str, ...], exact: str | None, reasons: frozenset[Reason]) -> Create:
        self._tags += 1
        create = Create(f"{self._prefix}_{self._tags}", receipts, exact, reasons)
        self._running = _Running(_Phase.ASKED, create)
        return create
