"""Sessions behind the seam without any vendor's protocol, that fail as a script says. For failover's tests.

A session replies to one thing after the other, an event each 100 ms; what it was told is kept. What a leg may
not do to a session is an assertion here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from providers.base import (
    AudioDelta,
    AudioDone,
    AudioSent,
    Capabilities,
    Event,
    Failed,
    GoingAway,
    Heard,
    ItemStarted,
    Ready,
    ResponseDone,
    ResponseStarted,
    SessionConfig,
    Speak,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
    Transcript,
    Usage,
)
from providers.delivery import Delivery

STEP_S = 0.1


@dataclass(frozen=True)
class Fate:
    """What becomes of one session.

    Attributes:
        opens: with which code it is refused; "" opens it, "never" leaves it waiting.
        opens_in_s: how long that takes.
        after: so many events of replies until its end; None: it has none.
        end: it breaks, says nothing more, or answers that it is asked too often.
        leaves_in_s: so long after it opened it says that it will end in ten seconds, and does.
    """

    opens: str = ""
    opens_in_s: float = 0.2
    after: int | None = None
    end: Literal["breaks", "stalls", "rate_limit"] = "breaks"
    leaves_in_s: float | None = None
    history: bool = True
    rate: int = 24000
    asks_again: bool = False
    patience_s: float | None = None


@dataclass
class _Asked:
    receipt: str | None
    text: str
    exact: bool
    calls: str = ""


class ScriptedSession:
    """See the module and :class:`providers.base.Session`."""

    def __init__(self, name: str, fate: Fate, config: SessionConfig) -> None:
        self.name = name
        self.fate = fate
        self.config = config
        self.told: list[str] = [str(line) for line in config.history if fate.history]
        """Texts that the model has, in order."""
        self.said: list[str] = []
        """Sentences said to their end."""
        self.answers: dict[str, Mapping[str, Any]] = {}
        self.audio = b""
        self.automatic = True
        self.closed = False
        self.ready = False
        self.ask_agains = 0
        self._loop = asyncio.get_running_loop()
        self._delivery = Delivery(self._loop, self._passes, lambda on: None, self._end)
        self._ended = asyncio.Event()
        self._asked: deque[_Asked] = deque()
        self._reply: Iterator[Event] | None = None
        self._replies = self._receipts = self._turns = self._calls = 0
        self._events = 0
        self._stalled = False
        self._cut: set[str] = set()
        self.open_turns: set[str] = set()
        self._open_calls: dict[str, ToolCall] = {}
        self._timers = [self._loop.call_later(fate.opens_in_s, self._open)] if fate.opens != "never" else []

    # -- the seam

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            input_rate=self.fate.rate,
            output_rate=self.fate.rate,
            truncation=True,
            exact_speech=False,
            owns_turns=False,
            history=self.fate.history,
            patience_s=self.fate.patience_s,
        )

    @property
    def busy(self) -> bool:
        return not self._over and bool(self._asked or self._reply or self._open_calls)

    @property
    def over(self) -> bool:
        return self._over

    async def run(self, take: Callable[[Event], None]) -> None:
        self._delivery.begin(take)
        await self._ended.wait()
        self._delivery.end()

    def send_audio(self, pcm: bytes) -> None:
        self.audio += pcm

    def interrupt(self, heard: Heard | None) -> None:
        if heard is not None:
            assert all("~" not in name for name in (heard.item, *heard.dropped)), "another session's item"
        self._cut.add(self._item)
        if self._reply is not None and not self._over:
            self._reply = None
            self._emit(ResponseDone(self._response, self._running.receipt, "cancelled", {}))

    def auto_reply(self, on: bool) -> None:
        self.automatic = on

    def doubt_turn(self) -> None:
        pass

    def settle_turn(self, reply: bool) -> None:
        pass

    def note(self, text: str) -> None:
        self.told.append(text)

    def speak_about(self, text: str) -> str:
        self.told.append(text)
        return self._ask(text, exact=False)

    def say_exactly(self, text: str) -> str:
        return self._ask(text, exact=True)

    def answer(self, call: ToolCall, result: Mapping[str, Any], speak: Speak = "now") -> None:
        if self._over:
            return
        assert self._open_calls.pop(call.id) == call, "an answer to a call that is none, or another's"
        self.answers[call.id] = result
        if speak != "never":
            self._asked.append(_Asked(None, "the tool's answer", exact=False))

    def ask_again(self) -> bool:
        self.ask_agains += 1
        if self.fate.asks_again:
            self._emit(Failed("benign", "nothing_to_cancel", "as the vendors say"))
        return self.fate.asks_again

    def audio_sent(self) -> AudioSent:
        return AudioSent(1.0, 2.0)

    def time_billed(self) -> tuple[Usage, ...]:
        return (Usage(self.name, "", "session", seconds=1.0),)

    async def close(self) -> None:
        self._delivery.clear()
        self._end()
        self.closed = True

    # -- what a caller and the model do

    def turn(self, text: str, *, whole: bool = True) -> None:
        """The caller says something; not `whole`: and is still at it."""
        if self._over or not self.ready:
            return
        self._turns += 1
        item = f"turn_{self._turns}"
        self._emit(SpeechStarted(item))
        if not whole:
            self.open_turns.add(item)
        else:
            self._emit(SpeechStopped(item))
            self._emit(Transcript("caller", item, text, final=True))
            if self.automatic:
                self._asked.append(_Asked(None, text, exact=False))

    def call(self) -> None:
        """The model calls a tool."""
        if not self._over and self.ready:
            self._calls += 1
            call = ToolCall(f"call_{self._calls}", "look", "{}", epoch=1)
            self._open_calls[call.id] = call
            self._emit(call)

    # -- inside

    @property
    def _over(self) -> bool:
        return self._ended.is_set()

    def _end(self) -> None:
        self._ended.set()
        for timer in self._timers:
            timer.cancel()

    def _emit(self, event: Event) -> None:
        if not self._over:
            self._delivery.add(event)

    def _ask(self, text: str, *, exact: bool) -> str:
        self._receipts += 1
        receipt = f"r{self._receipts}"
        if not self._over:
            self._asked.append(_Asked(receipt, text, exact))
        return receipt

    def _open(self) -> None:
        if self.fate.opens:
            self._fail(self.fate.opens)
            return
        self.ready = True
        self._emit(Ready(self.capabilities))
        self._timers.append(self._loop.call_later(STEP_S, self._step))
        if self.fate.leaves_in_s is not None:
            self._timers.append(self._loop.call_later(self.fate.leaves_in_s, self._leave))

    def _leave(self) -> None:
        self._emit(GoingAway(10.0))
        self._timers.append(self._loop.call_later(10.0, self._fail, "session_expired"))

    def _fail(self, code: str) -> None:
        self._emit(Failed("session", code, f"{self.name} is lost"))
        self._end()

    def _step(self) -> None:
        if self._over or self._stalled:
            return
        self._timers.append(self._loop.call_later(STEP_S, self._step))
        if self._reply is None and self._asked:
            self._running = self._asked.popleft()
            self._reply = self._say(self._running)
        if self._reply is None:
            return
        if self.fate.after is not None and self._events >= self.fate.after:
            self._meet_its_fate()
            return
        self._events += 1
        event = next(self._reply, None)
        if event is None:
            self._reply = None
            self._emit(ResponseDone(self._response, self._running.receipt, "completed", {}))
        else:
            self._emit(event)

    def _meet_its_fate(self) -> None:
        if self.fate.end == "stalls":
            self._stalled = True
        elif self.fate.end == "breaks":
            self._fail("went_away")
        else:
            self._reply = None
            self._emit(ResponseDone(self._response, self._running.receipt, "failed", {}, "rate_limit: x"))

    def _say(self, asked: _Asked) -> Iterator[Event]:
        self._replies += 1
        response, item = self._response, self._item
        yield ResponseStarted(response, asked.receipt)
        yield ItemStarted(response, item, asked.receipt)
        for _ in range(2):
            yield AudioDelta(item, bytes(self.fate.rate * 2 // 20))
        yield Transcript("agent", item, asked.text, final=True)
        yield AudioDone(item)
        if asked.exact:
            self.said.append(asked.text)

    def _passes(self, event: Event) -> bool:
        """What was interrupted while it waited is for nobody."""
        return not (isinstance(event, AudioDelta | AudioDone) and event.item in self._cut)

    @property
    def _item(self) -> str:
        return f"item_{self._replies}"

    @property
    def _response(self) -> str:
        return f"response_{self._replies}"


class ScriptedProvider:
    """Opens sessions with one fate after the other; the last one's again and again."""

    def __init__(self, name: str, *fates: Fate) -> None:
        self.name = name
        self.opens_ahead = True
        self._fates = deque(fates or (Fate(),))
        self.sessions: list[ScriptedSession] = []

    def open(self, config: SessionConfig) -> ScriptedSession:
        fate = self._fates.popleft() if len(self._fates) > 1 else self._fates[0]
        self.sessions.append(ScriptedSession(f"{self.name}-{len(self.sessions) + 1}", fate, config))
        return self.sessions[-1]
