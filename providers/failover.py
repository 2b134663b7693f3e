"""A conversation that outlives its sessions: a new one, or the tenant's next provider, in a lost one's place.

:class:`FailoverProvider` is the only provider that ``bridge/`` opens; its sessions are as any other's to the
leg. Each has one inner session that is live, and for a while another that is being opened.

What is done, and when
----------------------
* **Lost** (the connection broke, the provider ended it): a new session of the same provider, which is told
  the conversation; where that fails, the tenant's next provider. What a person must put right first (key,
  quota, model), or a rate limit, leads to the next provider at once, and new calls begin with that one for a
  while (:mod:`providers.breaker`).
* **Stalled** (a reply is owed; no sound and no sign for :data:`SILENT_S`, or what the session asks for):
  asked for once more, where the session can do that and nothing of it was heard; then as if lost.
* **Out of bounds** (:mod:`providers.bounds`: floods, what is not of its form): as if lost.
* **Time limit** (``GoingAway`` of a session without ``resumption``): the next session is opened at once, told
  the conversation, and takes over in a moment in which nothing is under way.
* **Nobody is left**, or :data:`GIVE_UP_S` is over: ``Failed("session")``.

What crosses to the new session
-------------------------------
* The conversation as text (:mod:`providers.record`); of our own words those that were heard.
* What is owed: sentences asked for word for word and not said to their end, each from its beginning, under
  the same receipt; what was to be spoken about; a reply to the caller's turn.
* Answers of calls that the lost session made: as a note, never as an answer. No call is made again.
* Not what the caller said while nobody heard them. Such a turn is reported as one without words; one that is
  going on when the new session takes over is kept from it whole: the end of "não libera" is a consent.

Names of items, responses, turns and calls get the session's number, receipts are our own, and a call's epoch
counts the connections of all sessions: nothing of one session is taken for another's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import orjson
import structlog

from audio.resample import Resampler
from providers.announcer import Says
from providers.base import (
    AsksAgain,
    AudioDelta,
    AudioDone,
    AudioSent,
    BilledByTime,
    Capabilities,
    Event,
    Failed,
    GoingAway,
    Heard,
    ItemStarted,
    Line,
    Lost,
    PastCall,
    Provider,
    Ready,
    Replaced,
    ResponseDone,
    ResponseStarted,
    Session,
    SessionConfig,
    SparesSilence,
    Speak,
    SpeechStarted,
    SpeechStopped,
    TakesTurns,
    ToolCall,
    ToolCallCancelled,
    Transcript,
    TranscriptFailed,
    Usage,
)
from providers.bounds import (
    CALLS_S,
    MAX_AHEAD_S,
    MAX_CALLS,
    MAX_EVENTS,
    MAX_WORDS,
    WINDOW_S,
    Rate,
    bounded,
)
from providers.breaker import LASTING, RATE_LIMITED, Breaker, Standing
from providers.conversing import MalformedMessage
from providers.delivery import Delivery
from providers.local.speech import RATE, SpeechError
from providers.record import Record

log = structlog.stdlib.get_logger(__name__)

SILENT_S = 6.0
"""A model that owes a reply and gives neither sound nor sign for so long is asked once more, or replaced."""
ASKED_AGAIN_S = 4.0
"""So long after it was asked once more it is replaced."""
OPEN_S = 8.0
"""A provider's own deadline for opening a session is shorter."""
PAUSE_S = 1.0
"""After which all providers are tried once more, where a conversation is at stake."""
GIVE_UP_S = 30.0
"""So long after the last sign of a model the conversation is given up."""
APOLOGY_S = 1.5
"""A caller who waited longer than this for what we owe them is first told that we are sorry."""
QUICK_S = 0.7
"""A session that is there so soon says that itself, before another voice has to."""
HARD_S = 5.0
"""So long before a session's end another takes over, whatever is under way."""
LOOK_S = 1.0
"""How often it is looked whether a session has stalled, or can be left."""
CLOSE_S = 5.0
MAX_LOSSES = 10
"""So many sessions of one conversation may be lost."""
_SAME_TRIES = 2
"""So many sessions of one provider are tried before the next provider's."""
_ITEMS = 256
"""Items that are remembered."""
_APOLOGY = ""
"""Stands among the receipts for a sentence of our own: no receipt that anybody else knows."""
_PRE_ROLL_S = 0.5
"""Our VAD says that somebody speaks up to 170 ms after they began."""


@dataclass(frozen=True, slots=True)
class Words:
    """What the model is told, by the session's language."""

    so_far: str
    caller: str
    agent: str
    called: str
    outcome: str
    go_on: str
    unheard: str
    heard: str


_WORDS: Final[Mapping[str, Words]] = {
    "pt": Words(
        so_far="Você está no meio desta conversa. Até aqui foi dito:\n{lines}",
        caller="A pessoa: {text}",
        agent="Você: {text}",
        called="Você já chamou {name}({arguments}). Não chame de novo por isso.",
        outcome="{name} respondeu: {result}",
        go_on="A ligação com você caiu por um momento e voltou. Continue a conversa de onde ela parou.",
        unheard="A ligação com você caiu por um momento, e o que a pessoa disse por último não foi ouvido. "
        "Peça que ela repita.",
        heard="A pessoa interrompeu você. Da sua última fala ela só ouviu: «{text}»",
    ),
    "es": Words(
        so_far="Estás en medio de esta conversación. Hasta aquí se dijo:\n{lines}",
        caller="La persona: {text}",
        agent="Tú: {text}",
        called="Ya llamaste a {name}({arguments}). No vuelvas a llamarla por eso.",
        outcome="{name} respondió: {result}",
        go_on="La conexión contigo se cortó un momento y volvió. Sigue la conversación donde quedó.",
        unheard="La conexión contigo se cortó un momento, y lo último que dijo la persona no se oyó. "
        "Pídele que lo repita.",
        heard="La persona te interrumpió. De lo último que dijiste solo oyó: «{text}»",
    ),
    "en": Words(
        so_far="You are in the middle of this conversation. What was said so far:\n{lines}",
        caller="The person: {text}",
        agent="You: {text}",
        called="You have called {name}({arguments}). Do not call it again for that.",
        outcome="{name} answered: {result}",
        go_on="The connection to you broke for a moment and is back. Go on with the conversation.",
        unheard="The connection to you broke for a moment, and what the person said last was not heard. "
        "Ask them to say it again.",
        heard="The person interrupted you. Of what you said last they heard only: «{text}»",
    ),
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of a tenant's providers. ``voice``: in place of the session's; None: the session's."""

    provider: Provider
    voice: str | None = None


@dataclass(frozen=True, slots=True)
class OneMoment:
    """What a caller hears in a voice of our own while no session is there."""

    voice: Says
    text: str


class FailoverProvider:
    """Opens sessions with the first of its providers that takes them. ``name`` is the first one's."""

    def __init__(
        self, candidates: Sequence[Candidate], apology: str = "", one_moment: OneMoment | None = None
    ) -> None:
        """
        Args:
            apology: said first where a caller had to wait for a new session; empty: nothing is.
            one_moment: said while they wait, and then in its place; None: they hear silence.
        """
        self.name = candidates[0].provider.name
        self.opens_ahead = all(each.provider.opens_ahead for each in candidates)
        """Who stands in is opened ahead as well, where the first one fails."""
        self.candidates = tuple(candidates)
        self._apology = apology
        self._one_moment = one_moment
        self._breaker = Breaker(len(self.candidates), lambda standing: self._told(standing))
        self._told: Callable[[Standing], None] = lambda standing: None

    def watch(self, told: Callable[[Standing], None]) -> None:
        """Have somebody told whenever one of the providers stands otherwise than before."""
        self._told = told

    def open(self, config: SessionConfig) -> FailoverSession:
        """See :class:`providers.base.Provider`. Needs a running event loop."""
        return FailoverSession(self.candidates, config, self._breaker, self._apology, self._one_moment)


@dataclass(slots=True)
class _Asked:
    """A sentence or a subject that was asked for, and is not over."""

    receipt: str
    text: str
    exact: bool
    item: str = ""
    """What says the sentence now; empty: nothing has begun to."""


@dataclass(slots=True)
class _Item:
    """One of our items, by the name that the leg knows."""

    session: int
    inner: str
    received: int = 0
    """Bytes."""
    bytes_per_ms: int = 1
    letters: int = 0
    """Of its words, as they came."""
    done: bool = False

    @property
    def received_ms(self) -> int:
        return self.received // self.bytes_per_ms


@dataclass(slots=True)
class _Reply:
    """A response that is running."""

    exact: bool
    apology: bool
    items: list[_Item] = field(default_factory=list)
    cut: bool = False
    """The caller spoke over it."""

    @property
    def said(self) -> bool:
        """All that it consists of has come, as far as it is sound."""
        return bool(self.items) and all(item.done for item in self.items)


@dataclass(slots=True, eq=False)
class _Link:
    """One inner session."""

    number: int
    at: int
    """Which of the providers."""
    session: Session
    told: int
    """So many lines of the record it was opened with."""
    history: Sequence[Line | PastCall]
    ready: bool = False
    over: bool = False
    receipts: dict[str, str] = field(default_factory=dict)
    """Its receipts → ours."""
    replies: dict[str, _Reply] = field(default_factory=dict)
    sign: float = 0.0
    """When something of it came, or it owed nothing."""
    nudged: bool = False
    """It was asked once more, and nothing came of it yet."""
    sound_until: float = 0.0
    """Until when what came of it lasts, played without a pause."""
    events: Rate = field(default_factory=lambda: Rate(MAX_EVENTS, WINDOW_S))
    calls: Rate = field(default_factory=lambda: Rate(MAX_CALLS, CALLS_S))

    def out(self, name: str) -> str:
        """A name of its, as the leg knows it."""
        return name if self.number == 1 else f"{name}~{self.number}"


@dataclass(frozen=True, slots=True)
class _Call:
    """A call that is open."""

    link: _Link
    call: ToolCall
    """As the session made it."""


class FailoverSession:
    """See the module; of :mod:`providers.base` a Session, TakesTurns, SparesSilence and BilledByTime."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        config: SessionConfig,
        breaker: Breaker,
        apology: str,
        one_moment: OneMoment | None,
    ) -> None:
        self._candidates = candidates
        self._config = config
        self._breaker = breaker
        self._apology = apology
        self._one_moment = one_moment
        self._moments = 0
        self._speaking_up: asyncio.Task[None] | None = None
        self._excused = False
        """The caller was asked for a moment since the session was lost."""
        self._words = _WORDS.get(config.language, _WORDS["en"])
        self._loop = asyncio.get_running_loop()
        self._delivery = Delivery(self._loop, lambda event: True, lambda on: None, self._finish)
        self._ended = asyncio.Event()
        self._over = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._link: _Link | None = None
        """The session that is live."""
        self._opening: _Link | None = None
        """The one that will be; it may be ready already, and wait for its moment."""
        self._links: list[_Link] = []
        """All that there were."""
        self._was_live = False
        self._tries: dict[int, int] = {}
        """How often each provider was tried since all was well."""
        self._refused: set[int] = set()
        """The providers among them that will go on refusing."""
        self._second_round = False
        self._losses = 0
        self._since = self._loop.time()
        """When the last sign of a model came, where none is live."""
        self._troubled: float | None = None
        """The same, of the first session that was lost since all was well."""
        self._why = ""
        """Why a session was lost, in words."""
        self._leave_by: float | None = None
        """When the live session must be left; None: it may stay."""
        self._timers: dict[str, asyncio.TimerHandle] = {}
        # What must not be lost with a session.
        self._record = Record()
        self._receipts = 0
        self._asked: dict[str, _Asked] = {}
        self._owed: set[str] = set()
        """Why a reply is owed that has not begun (``turn``, ``tool``), or that broke off (``reply``)."""
        self._auto_reply = True
        self._doubt = self._ended_in_doubt = False
        self._calls: dict[str, _Call] = {}
        self._epochs: dict[tuple[int, int], int] = {}
        self._items: dict[str, _Item] = {}
        self._turns: set[str] = set()
        """Turns that the leg knows of, and whose words are still to come."""
        self._unheard = False
        """The caller said something that no session heard to its end."""
        self._speaking = False
        """By our VAD."""
        self._deaf = False
        """The session was not there when the caller began: it hears silence until they are quiet."""
        self._gap_turn = ""
        self._gap_turns = 0
        self._spoken_until = 0.0
        """Until when what came lasts, spoken without a pause."""
        self._rate = 0
        """Of the audio that the leg gives."""
        self._pre_roll: deque[bytes] = deque()
        self._pre_rolled = 0
        self._open(self._first())
        self._agree(self._opening)
        self._look_later()

    # -- the seam: events ------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        """See :class:`providers.base.Session`."""
        return self._capabilities

    @property
    def busy(self) -> bool:
        """See :class:`providers.base.Session`."""
        if self._over:
            return False
        if self._link is not None:
            return self._link.session.busy
        return bool(self._asked or self._owed or (self._unheard and self._auto_reply))

    @property
    def over(self) -> bool:
        """See :class:`providers.base.Session`."""
        return self._over

    async def run(self, take: Callable[[Event], None]) -> None:
        """See :class:`providers.base.Session`."""
        self._delivery.begin(take)
        await self._ended.wait()
        self._delivery.end()

    async def close(self) -> None:
        """See :class:`providers.base.Session`."""
        self._delivery.clear()
        self._finish()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=CLOSE_S)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=1)

    def time_billed(self) -> tuple[Usage, ...]:
        """See :class:`providers.base.BilledByTime`: of all sessions that there were."""
        billed = [link.session for link in self._links if isinstance(link.session, BilledByTime)]
        return tuple(usage for session in billed for usage in session.time_billed())

    def audio_sent(self) -> AudioSent:
        """See :class:`providers.base.SparesSilence`: by the sessions that do."""
        spare = [link.session.audio_sent() for link in self._links if isinstance(link.session, SparesSilence)]
        return AudioSent(sum(one.sent_s for one in spare), sum(one.spared_s for one in spare))

    # -- the seam: intents -----------------------------------------------------------------------------------

    def send_audio(self, pcm: bytes) -> None:
        """See :class:`providers.base.Session`. What nobody is there to hear is kept for half a second."""
        if self._over:
            return
        if self._deaf:
            pcm = bytes(len(pcm))
        self._pre_roll.append(pcm)
        self._pre_rolled += len(pcm)
        while self._pre_rolled - len(self._pre_roll[0]) >= _PRE_ROLL_S * 2 * self._rate:
            self._pre_rolled -= len(self._pre_roll.popleft())
        link = self._hearing
        if link is not None and (link.ready or link.session.capabilities.input_rate == self._rate):
            link.session.send_audio(pcm)

    def interrupt(self, heard: Heard | None) -> None:
        """See :class:`providers.base.Session`."""
        link = self._link
        if heard is not None:
            self._cut(heard)
            self._spoken_until = self._loop.time()
        if link is None:
            self._owed.discard("turn")  # who goes on speaking has not ended their turn
            return
        for reply in link.replies.values():
            reply.cut = True
        if heard is not None:
            link.sound_until = self._loop.time()
        link.session.interrupt(self._of(link, heard) if heard is not None else None)

    def auto_reply(self, on: bool) -> None:
        """See :class:`providers.base.Session`."""
        self._auto_reply = on
        if not on:
            self._owed.discard("turn")
        if self._link is not None:
            self._link.session.auto_reply(on)

    def doubt_turn(self) -> None:
        """See :class:`providers.base.Session`."""
        self._doubt = True
        if self._link is not None:
            self._link.session.doubt_turn()

    def settle_turn(self, reply: bool) -> None:
        """See :class:`providers.base.Session`."""
        if reply and self._ended_in_doubt and self._auto_reply:
            self._owed.add("turn")
        self._doubt = self._ended_in_doubt = False
        if self._link is not None:
            self._link.session.settle_turn(reply)

    def note(self, text: str) -> None:
        """See :class:`providers.base.Session`."""
        self._record.system(text)
        if self._link is not None:
            self._link.session.note(text)

    def speak_about(self, text: str) -> str:
        """See :class:`providers.base.Session`."""
        return self._ask(text, exact=False)

    def say_exactly(self, text: str) -> str:
        """See :class:`providers.base.Session`."""
        return self._ask(text, exact=True)

    def answer(self, call: ToolCall, result: Mapping[str, Any], speak: Speak = "now") -> None:
        """See :class:`providers.base.Session`. To a session that is gone it can't be given: it is noted."""
        made = self._calls.get(call.id)
        if self._over or made is None or self._epoch(made.link, made.call.epoch) != call.epoch:
            log.warning("tool_answer_dropped", call=call.id, tool=call.name, epoch=call.epoch)
            return
        del self._calls[call.id]
        past = PastCall(call.id, call.name, call.arguments, result)
        outcome = self._outcome(past)
        if made.link is self._link:
            line = self._record.answered(past)
            if self._opening is not None and line <= self._opening.told:
                self._record.system(outcome)  # it was told that the call was made
            if speak != "never":
                self._owed.add("tool")
            made.link.session.answer(made.call, result, speak)
        elif speak == "never":
            self.note(outcome)
        else:
            self.speak_about(outcome)

    def caller_began(self) -> None:
        """See :class:`providers.base.TakesTurns`. Told of every caller, whoever detects the turns."""
        if self._over or self._speaking:
            return
        self._speaking = True
        link = self._hearing
        if link is None:
            self._gap_turn_began()
        elif isinstance(link.session, TakesTurns):
            link.session.caller_began()

    def caller_ended(self, quiet_ms: int) -> None:
        """See :class:`providers.base.TakesTurns`."""
        if self._over or not self._speaking:
            return
        self._speaking = False
        link = self._hearing
        if self._gap_turn:
            self._gap_turn_ended()
        elif link is not None and isinstance(link.session, TakesTurns):
            link.session.caller_ended(quiet_ms)

    @property
    def _hearing(self) -> _Link | None:
        """Who is to hear the caller. Before any session was live, the first one keeps what comes."""
        return self._link if self._was_live else self._opening

    # -- what the caller says while nobody hears it ----------------------------------------------------------

    def _gap_turn_began(self) -> None:
        """The leg is told of a turn, so that nothing that was said before it counts as the last word."""
        self._gap_turns += 1
        self._gap_turn = f"unheard~{self._gap_turns}"
        self._delivery.add(SpeechStarted(self._gap_turn))

    def _gap_turn_ended(self) -> None:
        turn, self._gap_turn = self._gap_turn, ""
        self._deaf = False
        self._forget_sound()
        self._delivery.add(SpeechStopped(turn))
        self._delivery.add(TranscriptFailed(turn, "no session heard it"))
        self._unheard = True
        if self._link is not None:
            self._make_up()

    def _make_up(self) -> None:
        """Have the live session give the reply that another one owed, once the caller is quiet."""
        if self._gap_turn:
            return
        if self._unheard and self._auto_reply:
            self._ask(self._words.unheard, exact=False)
        elif self._owed:
            self._ask(self._words.go_on, exact=False)
        self._unheard = False
        self._owed.clear()

    # -- what is asked for -----------------------------------------------------------------------------------

    def _ask(self, text: str, *, exact: bool) -> str:
        self._receipts += 1
        asked = _Asked(f"receipt_{self._receipts}", text, exact)
        if not self._over:
            self._asked[asked.receipt] = asked
            if self._link is not None:
                self._ask_of(self._link, asked)
            elif self._opening is not None:
                self._tell_first_words(self._opening)
        return asked.receipt

    def _tell_first_words(self, link: _Link) -> None:
        """Some sessions say word for word what they know as they open, and nothing else."""
        first = next(iter(self._asked.values()), None)
        if not self._was_live and first is not None and first.exact and not link.receipts:
            self._ask_of(link, first)

    def _ask_of(self, link: _Link, asked: _Asked) -> None:
        speak = link.session.say_exactly if asked.exact else link.session.speak_about
        link.receipts[speak(asked.text)] = asked.receipt

    def _cut(self, heard: Heard) -> None:
        """What the caller did not hear was not said; a sentence that they spoke over is over."""
        for name, ms in ((heard.item, heard.ms), *((dropped, 0) for dropped in heard.dropped)):
            item = self._items.get(name)
            if item is None:
                continue
            words = self._record.heard(name, ms, item.received_ms, whole=item.done)
            for receipt in [one.receipt for one in self._asked.values() if one.item == name]:
                del self._asked[receipt]
            if words and self._link is not None and item.session != self._link.number:
                self.note(self._words.heard.format(text=words))  # it was told that all of it was heard

    def _epoch(self, link: _Link, epoch: int) -> int:
        """Counts the connections of all sessions."""
        return self._epochs.setdefault((link.number, epoch), len(self._epochs) + 1)

    # -- what the inner sessions say -------------------------------------------------------------------------

    def _take(self, link: _Link, event: Event) -> None:
        if self._over or (link.over and not isinstance(event, Usage)):
            return
        if link is self._link and isinstance(event, AudioDelta):
            self._sound(link, event)
            return
        with self._delivery.together():
            if isinstance(event, Usage):
                self._delivery.add(event)
                return
            try:
                event = self._within_bounds(link, event)
            except MalformedMessage as malformed:
                self._break_with(link, f"the provider sent something that makes no sense: {malformed}")
                return
            if link is self._link:
                if not isinstance(event, Failed):  # that nothing could be cancelled is no sign of a reply
                    link.sign = self._loop.time()
                self._happened(link, event)
            elif isinstance(event, Ready):
                self._opened(link)
            elif isinstance(event, Failed) and event.kind == "session":
                self._not_opened(link, event.code, event.message)
            elif isinstance(event, Failed):
                self._delivery.add(event)

    def _within_bounds(self, link: _Link, event: Event) -> Event:
        """The event as it may go on; see :mod:`providers.bounds`, and for what it raises."""
        now = self._loop.time()
        if link.events.exceeded(now):
            raise MalformedMessage(f"more than {MAX_EVENTS} events within {WINDOW_S:g} s")
        if isinstance(event, ToolCall) and link.calls.exceeded(now):
            raise MalformedMessage(f"more than {MAX_CALLS} tool calls within {CALLS_S:g} s")
        return bounded(event)

    def _break_with(self, link: _Link, why: str) -> None:
        """The session does what none may do."""
        (self._lose if link is self._link else self._not_opened)(link, "protocol_error", why)

    def _sound(self, link: _Link, event: AudioDelta) -> None:
        """The hot path."""
        now = self._loop.time()
        link.sign, link.nudged = now, False
        name = link.out(event.item)
        item = self._items.get(name)
        if item is None:
            return  # it began while the session was not the live one
        item.received += len(event.pcm)
        seconds = len(event.pcm) / item.bytes_per_ms / 1000
        self._spoken_until = max(now, self._spoken_until) + seconds
        link.sound_until = max(now, link.sound_until) + seconds
        if link.sound_until - now > MAX_AHEAD_S:
            with self._delivery.together():
                self._break_with(link, f"the provider sent {MAX_AHEAD_S:g} s of sound ahead of its time")
            return
        self._delivery.give(event if link.number == 1 else AudioDelta(name, event.pcm))

    def _item(self, link: _Link, inner: str) -> _Item:
        name = link.out(inner)
        bytes_per_ms = link.session.capabilities.output_rate * 2 // 1000
        item = self._items[name] = _Item(link.number, inner, bytes_per_ms=bytes_per_ms)
        if len(self._items) > _ITEMS:
            del self._items[next(iter(self._items))]
        return item

    def _happened(self, link: _Link, event: Event) -> None:
        """Something happened to the live session; what the leg is told of it is in our names."""
        match event:
            case ResponseStarted():
                self._response_started(link, event)
            case ItemStarted():
                self._item_started(link, event)
            case AudioDone() | Transcript(role="agent") if link.out(event.item) not in self._items:
                pass  # it began while the session was not the live one
            case AudioDone():
                name = link.out(event.item)
                self._items[name].done = True
                if self._items[name].received:  # of one without a sound nothing was said
                    for receipt in [one.receipt for one in self._asked.values() if one.item == name]:
                        del self._asked[receipt]  # all of it is with the leg now
                self._delivery.add(AudioDone(name))
            case ResponseDone():
                self._response_done(link, event)
            case SpeechStarted():
                self._turns.add(link.out(event.item))
                self._delivery.add(SpeechStarted(link.out(event.item)))
            case SpeechStopped():
                self._ended_in_doubt |= self._doubt
                if self._auto_reply and not self._doubt:
                    self._owed.add("turn")
                self._delivery.add(SpeechStopped(link.out(event.item)))
            case Transcript():
                self._words_came(event, link.out(event.item))
            case TranscriptFailed():
                self._turns.discard(link.out(event.item))
                self._delivery.add(TranscriptFailed(link.out(event.item), event.reason))
            case ToolCall():
                self._call_made(link, event)
            case ToolCallCancelled():
                self._calls.pop(link.out(event.id), None)
                self._delivery.add(ToolCallCancelled(link.out(event.id)))
            case GoingAway():
                self._going_away(link, event.in_s)
            case Failed(kind="session"):
                self._lose(link, event.code, event.message)
            case Ready():
                self._agree(link)
                self._delivery.add(event)
            case _:
                self._delivery.add(event)

    def _response_started(self, link: _Link, event: ResponseStarted) -> None:
        ours = [link.receipts.get(one) for one in (event.receipt, *event.also) if one is not None]
        asked = [self._asked[one] for one in ours if one in self._asked]
        exact = any(one.exact for one in asked)
        link.replies[event.response] = _Reply(exact, apology=_APOLOGY in ours)
        for one in asked:
            if not one.exact:
                self._record.system(one.text)
                del self._asked[one.receipt]
        if not exact and _APOLOGY not in ours:
            self._owed.clear()
        known = tuple(one for one in ours if one)
        receipt = known[0] if known else None
        self._delivery.add(ResponseStarted(link.out(event.response), receipt, also=known[1:]))

    def _item_started(self, link: _Link, event: ItemStarted) -> None:
        name, receipt = link.out(event.item), link.receipts.get(event.receipt or "") or None
        # Where the response began before the session was live, nobody asked for it.
        reply = link.replies.setdefault(event.response, _Reply(exact=False, apology=False))
        reply.items.append(self._item(link, event.item))
        if receipt is not None and receipt in self._asked:
            self._asked[receipt].item = name
        self._delivery.add(ItemStarted(link.out(event.response), name, receipt))

    def _response_done(self, link: _Link, event: ResponseDone) -> None:
        reply = link.replies.pop(event.response, None)
        receipt = link.receipts.get(event.receipt or "") or None
        code = event.detail.partition(":")[0]
        mute = reply is None or not any(item.received for item in reply.items)
        if event.status == "failed" and code in LASTING | RATE_LIMITED and mute:
            if reply is not None and not reply.exact:
                self._owed.add("reply")
            self._lose(link, code, event.detail)
            return
        if receipt is not None:
            self._asked.pop(receipt, None)
        if event.status == "completed" and reply is not None and not reply.apology:
            self._all_well(link)
        response = link.out(event.response) if event.response else ""
        self._delivery.add(replace(event, response=response, receipt=receipt))

    def _words_came(self, event: Transcript, name: str) -> None:
        if event.role == "agent":
            item = self._items[name]
            item.letters = len(event.text) + (0 if event.final else item.letters)
            if item.letters > MAX_WORDS:
                return  # nobody says so much at once
            self._record.agent(name, event.text, final=event.final)
        elif event.final:
            self._turns.discard(name)
            self._record.caller(event.text)
        self._delivery.add(replace(event, item=name))

    def _call_made(self, link: _Link, event: ToolCall) -> None:
        name, epoch = link.out(event.id), self._epoch(link, event.epoch)
        self._calls[name] = _Call(link, event)
        called = self._words.called.format(name=event.name, arguments=event.arguments)
        self._record.called(name, called)
        self._delivery.add(ToolCall(name, event.name, event.arguments, epoch))

    def _of(self, link: _Link, heard: Heard) -> Heard | None:
        """The same in the live session's names; None where it is about other sessions' items alone."""
        names = [heard.item, *heard.dropped]
        own = [name for name in names if name in self._items and self._items[name].session == link.number]
        if not own:
            return None
        first, *dropped = (self._items[name].inner for name in own)
        return Heard(first, heard.ms if own[0] == heard.item else 0, tuple(dropped))

    # -- one session after the other -------------------------------------------------------------------------

    def _open(self, at: int) -> None:
        """Open a session; it is live once it is ready, and there is no other."""
        candidate = self._candidates[at]
        self._tries[at] = self._tries.get(at, 0) + 1
        history = tuple(self._record.since(0))
        config = replace(self._config, history=history)
        if candidate.voice is not None:
            turns = replace(config.turn_detection, kind="")  # the kinds are another provider's
            config = replace(config, voice=candidate.voice, turn_detection=turns)
        session = candidate.provider.open(config)
        link = self._opening = _Link(len(self._links) + 1, at, session, self._record.count, history)
        self._links.append(link)
        self._spawn(self._serve(link), f"{candidate.provider.name}-session-events")
        self._later("open", OPEN_S, partial(self._open_too_late, link))
        self._tell_first_words(link)
        if self._speaking and not self._was_live and isinstance(session, TakesTurns):
            session.caller_began()

    async def _serve(self, link: _Link) -> None:
        why = ("ended", "the session ended")
        try:
            await link.session.run(partial(self._take, link))
        except Exception as error:
            log.error("session_fault", exc_info=error)
            why = ("internal", "the session broke down by a fault of ours")
        finally:
            await link.session.close()
        if not link.over and not self._over:
            with self._delivery.together():
                (self._lose if link is self._link else self._not_opened)(link, *why)

    def _open_too_late(self, link: _Link) -> None:
        if link is self._opening and not link.ready:
            self._not_opened(link, "timeout", f"no confirmed configuration after {OPEN_S:g} s")

    def _opened(self, link: _Link) -> None:
        link.ready = True
        link.sign = self._loop.time()
        self._forget("open")
        if self._link is None:
            self._switch()
        else:
            self._leave_in_time()

    def _not_opened(self, link: _Link, code: str, message: str) -> None:
        """The session that was to be the next one is none."""
        self._opening = None
        self._forget("open")
        self._retire(link)
        self._note_failure(link, code, message)
        if self._link is not None:
            self._later("prepare", HARD_S, self._prepare)
            return
        self._delivery.add(Lost(self._name(link), code, message))
        self._next(code, message)

    def _switch(self) -> None:
        """The session that was opened is the live one from here on."""
        link, self._opening = self._opening, None
        assert link is not None
        self._link = link
        self._forget("one_moment")
        late = self._was_live and self._loop.time() - self._since > APOLOGY_S
        rate, pre_roll = self._rate, b"".join(self._pre_roll) if self._was_live else b""
        self._was_live = True
        self._agree(link)
        self._delivery.add(Ready(link.session.capabilities))
        if link.number > 1 or link.at:
            first = self._candidates[0].provider.name
            why = self._why or f"passed_over: {first} has refused or failed a moment ago"
            self._delivery.add(Replaced(self._name(link), why))
        self._hand_over(link, late)
        if pre_roll and not self._deaf:
            up = Resampler(rate, self._rate)
            link.session.send_audio(up.process(pre_roll) + up.flush())

    def _hand_over(self, link: _Link, late: bool) -> None:
        """Have the session go on where another one stopped."""
        session = link.session
        if link.history and not session.capabilities.history:
            lines = "\n".join(self._in_words(line) for line in link.history)
            session.note(self._words.so_far.format(lines=lines))
        for line in self._record.since(link.told):
            session.note(self._in_words(line))
        if not self._auto_reply:
            session.auto_reply(False)
        if self._doubt:
            session.doubt_turn()
        if late and self._apology and not self._excused and self._waited_for:
            link.receipts[session.say_exactly(self._apology)] = _APOLOGY
        given = set(link.receipts.values())
        for asked in tuple(self._asked.values()):
            if asked.receipt not in given:
                self._ask_of(link, asked)
        self._deaf = bool(self._gap_turn)
        self._excused = False
        self._make_up()

    @property
    def _waited_for(self) -> bool:
        """The caller waits for something that we are to say."""
        return bool(self._asked or self._owed or self._unheard)

    def _outcome(self, call: PastCall) -> str:
        return self._words.outcome.format(name=call.name, result=orjson.dumps(dict(call.result)).decode())

    def _in_words(self, line: Line | PastCall) -> str:
        if isinstance(line, PastCall):
            called = self._words.called.format(name=line.name, arguments=line.arguments)
            return f"{called} {self._outcome(line)}"
        if line.speaker == "system":
            return line.text
        return (self._words.caller if line.speaker == "caller" else self._words.agent).format(text=line.text)

    def _agree(self, link: _Link | None) -> None:
        """The leg takes its rates from here, as it is told that a session is ready."""
        assert link is not None
        self._capabilities = link.session.capabilities
        if self._rate != self._capabilities.input_rate:
            self._rate = self._capabilities.input_rate
            self._forget_sound()

    def _forget_sound(self) -> None:
        """A session that comes must not hear the end of what another heard, or nobody."""
        self._pre_roll.clear()
        self._pre_rolled = 0

    def _all_well(self, link: _Link) -> None:
        """The session has proved itself."""
        link.nudged = False
        self._tries = {link.at: 1}
        self._refused.clear()
        self._second_round = False
        self._troubled = None
        self._breaker.well(link.at)

    # -- when one is lost ------------------------------------------------------------------------------------

    def _lose(self, link: _Link, code: str, message: str) -> None:
        """The live session is gone, or is given up."""
        self._link = None
        self._since = link.sign if code == "stalled" else self._loop.time()
        if self._troubled is None:
            self._troubled = self._since
        self._losses += 1
        again = self._abandon(link)
        self._forget_sound()
        self._retire(link)
        self._note_failure(link, code, message)
        self._delivery.add(Lost(self._name(link), code, message, again))
        self._leave_by = None
        self._forget("prepare")
        waited = self._loop.time() - self._since
        self._later("one_moment", max(QUICK_S, APOLOGY_S - waited), self._ask_for_a_moment)
        if self._opening is None:
            self._next(code, message, link)
        elif self._opening.ready:
            self._switch()

    def _ask_for_a_moment(self) -> None:
        """No session is there yet, and the caller hears nothing."""
        if self._one_moment is not None and self._waited_for and not self._speaking:
            self._speaking_up = self._spawn(self._say_one_moment(self._one_moment), "one-moment")

    async def _say_one_moment(self, one: OneMoment) -> None:
        try:
            pcm = await one.voice.say(one.text)
        except SpeechError as error:
            log.warning("own_voice.failed", reason=str(error))
            return
        if self._over or self._link is not None or self._speaking:
            return
        self._excused = True
        self._moments += 1
        name = f"moment~{self._moments}"
        down = Resampler(RATE, self._capabilities.output_rate)
        self._spoken_until = max(self._loop.time(), self._spoken_until) + len(pcm) / 2 / RATE
        self._record.agent(name, one.text, final=True)
        with self._delivery.together():
            self._delivery.add(ItemStarted(name, name, None))
            self._delivery.add(AudioDelta(name, down.process(pcm) + down.flush()))
            self._delivery.add(Transcript("agent", name, one.text, final=True))
            self._delivery.add(AudioDone(name))
            self._delivery.add(ResponseDone(name, None, "completed", {}))
            self._delivery.add(Usage("local", "voice", "speech", characters=len(one.text)))

    def _abandon(self, link: _Link) -> tuple[str, ...]:
        """What of a session that is gone has still to be done. Returns the sentences that it was saying."""
        again = [asked for asked in self._asked.values() if asked.item]
        for asked in again:
            asked.item = ""
        if any(
            not (reply.exact or reply.apology or reply.cut or reply.said) for reply in link.replies.values()
        ):
            self._owed.add("reply")
        for turn in self._turns:
            self._unheard = True
            self._delivery.add(TranscriptFailed(turn, "the session was lost"))
        self._turns.clear()
        if self._speaking and not self._gap_turn:
            self._gap_turn_began()
        return tuple(asked.receipt for asked in again)

    def _note_failure(self, link: _Link, code: str, message: str) -> None:
        self._why = f"{code}: {message}"
        if code in LASTING:
            self._refused.add(link.at)
        if self._breaker.failed(link.at, code, self._loop.time()):
            log.error("provider.refused", provider=self._name(link), code=code, reason=message)

    def _next(self, code: str, message: str, lost: _Link | None = None) -> None:
        """Open the session that comes after one that failed; `lost`: it was live."""
        now = self._loop.time()
        started = self._troubled if self._troubled is not None else now
        if self._losses > MAX_LOSSES or now - started > GIVE_UP_S:
            self._fail(code, message)
        elif (
            lost is not None
            and code not in LASTING | RATE_LIMITED
            and self._tries.get(lost.at, 0) < _SAME_TRIES
        ):
            self._open(lost.at)
        elif (at := self._untried()) is not None:
            self._open(at)
        elif self._may_try_once_more and code != "stalled":
            self._second_round = True
            self._tries.clear()
            self._later("again", PAUSE_S, lambda: self._next(code, message))
        else:
            self._fail(code, message)

    @property
    def _may_try_once_more(self) -> bool:
        """A conversation is at stake, and somebody might take it who would not a moment ago."""
        others = len(self._refused) < len(self._candidates)
        return self._was_live and not self._second_round and others

    @property
    def _left(self) -> list[int]:
        """The providers that were not tried, and would not refuse in any case."""
        return [
            at for at in range(len(self._candidates)) if at not in self._tries and at not in self._refused
        ]

    def _untried(self) -> int | None:
        """The next provider; one that is passed over only where there is no other."""
        now = self._loop.time()
        good = [at for at in self._left if not self._breaker.passed_over(at, now)]
        return next(iter(good or self._left), None)

    def _first(self) -> int:
        at = self._untried()
        assert at is not None  # nothing was tried yet
        return at

    def _fail(self, code: str, message: str) -> None:
        """Nobody is left."""
        self._delivery.add(Failed("session", code, message))
        self._finish()

    # -- what stalls, and what ends by itself ----------------------------------------------------------------

    def _look_later(self) -> None:
        """At a whole second of the loop's clock, as all others: one wake-up for every session there is."""
        self._later("look", LOOK_S - self._loop.time() % LOOK_S, self._look)

    def _look(self) -> None:
        """Look whether the live session has stalled, or can be left."""
        self._look_later()
        self._leave_in_time()
        if self._link is not None:
            self._watch(self._link)

    def _watch(self, link: _Link) -> None:
        now = self._loop.time()
        calls = any(made.link is link for made in self._calls.values())
        if not link.session.busy or self._speaking or calls:
            link.sign = now
            return
        silent = now - max(link.sign, self._spoken_until)
        if silent < (ASKED_AGAIN_S if link.nudged else link.session.capabilities.patience_s or SILENT_S):
            return
        first = self._troubled is None and not link.nudged
        if first and isinstance(link.session, AsksAgain) and link.session.ask_again():
            link.sign, link.nudged = now, True
            log.warning("session.asked_again", provider=self._name(link), seconds=round(silent, 1))
        else:
            self._lose(link, "stalled", f"a reply was owed and nothing came for {silent:.0f} s")

    def _going_away(self, link: _Link, in_s: float) -> None:
        if not link.session.capabilities.resumption:
            self._leave_by = self._loop.time() + in_s - HARD_S
            self._prepare()

    def _prepare(self) -> None:
        """Open the session that the live one is to be left for."""
        if self._link is not None and self._leave_by is not None and self._opening is None:
            self._tries.clear()
            here = self._link.at
            other = self._untried() if self._breaker.passed_over(here, self._loop.time()) else None
            self._open(here if other is None else other)

    def _leave_in_time(self) -> None:
        """Let the next session take over between two turns or, where there is no such moment, in any case."""
        link, following = self._link, self._opening
        if link is None or self._leave_by is None or following is None or not following.ready:
            return
        quiet = self._quiet(link)
        if not quiet and self._loop.time() < self._leave_by:
            return
        self._leave_by, self._link = None, None
        self._since = self._loop.time()
        self._why = "the session's time was over"
        again = self._abandon(link)
        self._retire(link)
        if not quiet:
            self._forget_sound()
            self._delivery.add(Lost(self._name(link), "time_over", self._why, again))
        self._switch()

    def _quiet(self, link: _Link) -> bool:
        """Whether nothing is under way."""
        return not (
            link.session.busy
            or self._speaking
            or self._turns
            or self._asked
            or self._doubt
            or any(made.link is link for made in self._calls.values())
            or self._loop.time() < self._spoken_until
        )

    # -- the end ---------------------------------------------------------------------------------------------

    def _name(self, link: _Link) -> str:
        return self._candidates[link.at].provider.name

    def _later(self, timer: str, seconds: float, act: Callable[[], None]) -> None:
        self._forget(timer)
        if not self._over:
            self._timers[timer] = self._loop.call_later(seconds, self._rang, timer, act)

    def _rang(self, timer: str, act: Callable[[], None]) -> None:
        del self._timers[timer]
        with self._delivery.together():
            act()

    def _forget(self, timer: str) -> None:
        if (handle := self._timers.pop(timer, None)) is not None:
            handle.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = self._loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _retire(self, link: _Link) -> None:
        link.over = True
        self._spawn(link.session.close(), f"{self._name(link)}-session-close")

    def _finish(self) -> None:
        """Nothing goes in or out any more."""
        if self._over:
            return
        self._over = True
        for timer in tuple(self._timers):
            self._forget(timer)
        if self._speaking_up is not None:
            self._speaking_up.cancel()
        for link in (self._link, self._opening):
            if link is not None:
                self._retire(link)
        self._link = self._opening = None
        self._ended.set()


__all__ = ["Candidate", "FailoverProvider", "FailoverSession", "OneMoment"]
