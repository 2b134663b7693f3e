"""The seam between a leg and whichever realtime model it talks to: capabilities, intents, events.

A provider's adapter implements :class:`Session`. Everything above this file (``bridge/``) asks the
capability, never the provider's name, and knows the model only by the intents it sends and the events it
gets. Audio on both sides of the seam is little-endian signed 16-bit mono PCM, at the rates that
:class:`Capabilities` states; the bridge does the resampling.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

# --------------------------------------------------------------------------------------------------------
# What a provider can do
# --------------------------------------------------------------------------------------------------------


Encoding = Literal["pcm", "pcmu", "pcma"]
"""How audio goes over the wire: 16-bit PCM, or G.711's µ-law or A-law. At the seam it is PCM in any case."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What differs between providers, declared once."""

    input_rate: int
    """Samples per second of the audio that :meth:`Session.send_audio` takes."""

    output_rate: int
    """Samples per second of the audio in :class:`AudioDelta`."""

    truncation: bool
    """The model's memory of a reply can be cut at the sample that was heard."""

    exact_speech: bool
    """:meth:`Session.say_exactly` is word-perfect by construction. Where it is False the words are asked for
    and the transcript of what came must be compared before anything rests on them."""

    owns_turns: bool
    """The model decides by itself when to speak; without it the sequencer asks for each reply."""

    input_encoding: Encoding = "pcm"
    """How the session sends what :meth:`Session.send_audio` took."""

    output_encoding: Encoding = "pcm"
    """How the audio of :class:`AudioDelta` came."""

    queue_limit_ms: int = 0
    """Speech comes as fast as it is spoken, and what waits longer than this to be played is late: its pauses
    are skipped until it isn't. 0: it comes faster than that, and may wait."""

    resumption: bool = False
    """The session outlives its connections: it opens the next one by itself, and :class:`GoingAway` asks for
    nothing. Calls that were open are then reported as cancelled."""

    history: bool = False
    """:attr:`SessionConfig.history` is told to the model when the session opens. Where it is False, whoever
    opens the session tells it by a note."""

    patience_s: float | None = None
    """For so long a reply that is owed may give neither sound nor sign without being taken for lost. None: as
    long as anybody's."""


# --------------------------------------------------------------------------------------------------------
# What a session is opened with
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """One tool as the model sees it. ``parameters`` is a JSON schema of type ``object``."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TurnDetection:
    """When a caller's turn counts as ended (the fields of OpenAI's ``server_vad`` and ``semantic_vad``).

    Attributes:
        kind: by silence alone, or by what is said as well; ``local``: by our VAD, whose session
            :class:`TakesTurns`. Empty: what the provider does best.
        eagerness: how soon a turn is taken to be over, where the words decide.
    """

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 600
    kind: Literal["", "server_vad", "semantic_vad", "local"] = ""
    eagerness: Literal["auto", "low", "medium", "high"] = "auto"


@dataclass(frozen=True, slots=True)
class Line:
    """Something that was said before, or that the model was told (``system``)."""

    speaker: Literal["caller", "agent", "system"]
    text: str


@dataclass(frozen=True, slots=True)
class PastCall:
    """A tool call that was made and answered before; no session waits for its answer any more."""

    id: str
    name: str
    arguments: str
    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """All that a model is told when a session opens."""

    instructions: str
    tools: Sequence[ToolSpec]
    language: str = "pt"
    """ISO 639-1; always pinned: 8 kHz Portuguese is otherwise transcribed as English or French."""
    voice: str = ""
    """Empty: the provider's default."""
    transcription_prompt: str = ""
    """Words that the speech recogniser should expect (the tenant's vocabulary)."""
    turn_detection: TurnDetection = field(default_factory=TurnDetection)
    max_output_tokens: int = 1024
    temperature: float | None = None
    history: Sequence[Line | PastCall] = ()
    """The conversation that this session goes on with, the oldest line first. It asks for no reply. See
    :attr:`Capabilities.history`."""


# --------------------------------------------------------------------------------------------------------
# Events: model → us. Times are never in them; the leg stamps what it receives.
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready:
    """The provider accepted the configuration; ``capabilities`` holds the *confirmed* formats."""

    capabilities: Capabilities
    type: Literal["ready"] = "ready"


@dataclass(frozen=True, slots=True)
class AudioDelta:
    """A piece of speech of one item, PCM at ``Capabilities.output_rate``. The hot path."""

    item: str
    pcm: bytes
    type: Literal["audio_delta"] = "audio_delta"


@dataclass(frozen=True, slots=True)
class AudioDone:
    """No more audio comes for this item."""

    item: str
    type: Literal["audio_done"] = "audio_done"


@dataclass(frozen=True, slots=True)
class ResponseStarted:
    """The model began to reply. ``receipt``: of the intent that asked for it; None: the caller's turn did."""

    response: str
    receipt: str | None
    type: Literal["response_started"] = "response_started"
    also: tuple[str, ...] = ()
    """Receipts of later ``speak_about`` intents that this one reply answers as well."""


@dataclass(frozen=True, slots=True)
class ItemStarted:
    """An assistant message began within a response."""

    response: str
    item: str
    receipt: str | None
    type: Literal["item_started"] = "item_started"


@dataclass(frozen=True, slots=True)
class ResponseDone:
    """The reply ended (generated, not played). ``usage`` is the provider's own token count, verbatim."""

    response: str
    receipt: str | None
    status: Literal["completed", "cancelled", "incomplete", "failed"]
    usage: Mapping[str, Any]
    detail: str = ""
    """Why, where status is neither completed nor cancelled."""
    type: Literal["response_done"] = "response_done"


Purpose = Literal["reply", "transcription", "speech", "session"]
"""What is paid for: a reply, the caller's words as text, text as speech, or the time of a session."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens that are billed, each counted once: a cached token is in ``…_cached`` and not in ``…_in``."""

    text_in: int = 0
    text_cached: int = 0
    text_out: int = 0
    audio_in: int = 0
    audio_cached: int = 0
    audio_out: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Something that the provider bills came about since the last of these events; they add up.

    What comes to light only when a session ends is told by :class:`BilledByTime`.

    Attributes:
        provider: who is paid, as ``data/prices.toml`` names them: a session may use several.
        model: whose price counts, as it was asked for.
        seconds: where time is billed.
        characters: where text to speech is billed by the letter.
        complete: False where the provider billed more than it told us, or told it in a way that is not known:
            the sum is then a lower bound.
    """

    provider: str
    model: str
    purpose: Purpose
    tokens: Tokens = Tokens()
    seconds: float = 0.0
    characters: int = 0
    complete: bool = True
    type: Literal["usage"] = "usage"


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The provider's own VAD heard the caller begin."""

    item: str
    type: Literal["speech_started"] = "speech_started"


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The provider's own VAD heard the caller's turn end; a transcript of ``item`` will follow."""

    item: str
    type: Literal["speech_stopped"] = "speech_stopped"


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said. ``role`` is who said it; a caller's ``final`` transcript may be empty (nothing said)."""

    role: Literal["caller", "agent"]
    item: str
    text: str
    final: bool
    type: Literal["transcript"] = "transcript"


@dataclass(frozen=True, slots=True)
class TranscriptFailed:
    """The recogniser gave up on ``item``: there will be no words for that turn."""

    item: str
    reason: str
    type: Literal["transcript_failed"] = "transcript_failed"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A completed function call. ``arguments`` is the model's text, not yet parsed or validated.

    ``epoch`` counts the connections of this session: an answer must go to the one that asked.
    """

    id: str
    name: str
    arguments: str
    epoch: int
    type: Literal["tool_call"] = "tool_call"


@dataclass(frozen=True, slots=True)
class ToolCallCancelled:
    """The model no longer wants this call's answer."""

    id: str
    type: Literal["tool_call_cancelled"] = "tool_call_cancelled"


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The provider stopped its own reply; what is queued of it must not be played."""

    type: Literal["interrupted"] = "interrupted"


@dataclass(frozen=True, slots=True)
class GoingAway:
    """The provider will close this connection soon."""

    in_s: float
    type: Literal["going_away"] = "going_away"


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection to the model is gone, and another is being opened in its place.

    Nothing more comes of items that have not ended. The sentences of :meth:`Session.say_exactly` among them
    are said once more from their beginning, as new items under the same receipts: ``again``.
    """

    provider: str
    code: str
    message: str
    again: tuple[str, ...] = ()
    type: Literal["lost"] = "lost"


@dataclass(frozen=True, slots=True)
class Replaced:
    """The conversation goes on over another connection; :class:`Ready` came right before.

    Also at its beginning, where it is not the tenant's first provider that takes it.
    """

    provider: str
    reason: str
    type: Literal["replaced"] = "replaced"


@dataclass(frozen=True, slots=True)
class Failed:
    """Something went wrong.

    ``benign``: noted, nothing to do. ``request``: one intent failed, the session goes on. ``session``: this
    session is over; it is the last event.
    """

    kind: Literal["benign", "request", "session"]
    code: str
    message: str
    type: Literal["failed"] = "failed"


Event = (
    Ready
    | AudioDelta
    | AudioDone
    | ResponseStarted
    | ItemStarted
    | ResponseDone
    | Usage
    | SpeechStarted
    | SpeechStopped
    | Transcript
    | TranscriptFailed
    | ToolCall
    | ToolCallCancelled
    | Interrupted
    | GoingAway
    | Lost
    | Replaced
    | Failed
)


# --------------------------------------------------------------------------------------------------------
# Intents: us → model
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Heard:
    """How much of an item the caller really heard, from the playout's ledger.

    Attributes:
        item: the item that was playing.
        ms: milliseconds of it that went out; never more than was received.
        dropped: later items of which nothing was heard.
    """

    item: str
    ms: int
    dropped: tuple[str, ...] = ()


Speak = Literal["now", "idle", "never"]
"""After a tool's answer: reply at once, when nothing else is being said, or not at all."""


class Session(Protocol):
    """One open conversation with a model, on one leg.

    Every intent is synchronous and returns at once: what it has to say is written to the socket, or kept
    until the socket can take it. Nothing on the audio path can therefore wait for a network. An intent given
    after the session ended does nothing; the :class:`Failed` event has said so.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What this provider can do; exact once :class:`Ready` came."""

    async def run(self, take: Callable[[Event], None]) -> None:
        """Give the events to ``take``, in their order, until the session ends. Once, for one consumer.

        ``take`` is called from the event loop, as soon as something comes and with nothing in between: it
        must not block, and may give intents. It is never called out of an intent, nor after :meth:`close`.
        What it raises ends the session and is raised here.
        """

    def send_audio(self, pcm: bytes) -> None:
        """The caller's audio, at ``capabilities.input_rate``; any length. The hot path."""

    def interrupt(self, heard: Heard | None) -> None:
        """The caller spoke over us: stop the running reply and remember only what was heard."""

    def auto_reply(self, on: bool) -> None:
        """Whether the end of a caller's turn asks for a reply (True at first).

        Off: the host has taken the turn (a question was put to the visitor for the resident).
        """

    def doubt_turn(self) -> None:
        """What the caller says now may be no turn, but a word along the way while we speak ("ahã").

        The model hears it in any case. Turns that end from here on ask for no reply until
        :meth:`settle_turn`, which follows in bounded time; what else is owed is not held up.
        """

    def settle_turn(self, reply: bool) -> None:
        """The doubt is over. ``reply``: it was a turn; where that has ended it is answered now."""

    def note(self, text: str) -> None:
        """Tell the model something, without a reply."""

    def speak_about(self, text: str) -> str:
        """Tell the model something and have it say it in its own words. Returns the receipt."""

    def say_exactly(self, text: str) -> str:
        """Have these words said, before any other reply that is waiting. Returns the receipt.

        See :attr:`Capabilities.exact_speech` for how far the words can be relied on.
        """

    def answer(self, call: ToolCall, result: Mapping[str, Any], speak: Speak = "now") -> None:
        """The outcome of a tool call. Given twice, or to an older epoch, it is dropped and logged."""

    @property
    def busy(self) -> bool:
        """True while a reply is running or owed: it is the model's turn."""

    @property
    def over(self) -> bool:
        """Whether it ended: no intent does anything any more. Its last event says why."""

    async def close(self) -> None:
        """End the session; bounded in time."""


@runtime_checkable
class TakesTurns(Protocol):
    """A session that is told by our VAD where a caller's turn begins and ends.

    It has none of its own, or its provider keeps to itself when the caller began. Both intents may be given
    at any time; one that says what is known already changes nothing.
    """

    def caller_began(self) -> None:
        """The caller speaks. What :meth:`Session.send_audio` took in the last half second belongs to it."""

    def caller_ended(self, quiet_ms: int) -> None:
        """The caller has been quiet for so long. Once that is the turn's end, the model hears of it."""


@dataclass(frozen=True, slots=True)
class AudioSent:
    """Seconds of the caller's audio that went to the provider, and that didn't: nobody spoke."""

    sent_s: float
    spared_s: float


@runtime_checkable
class SparesSilence(Protocol):
    """A session that sends the caller's audio from half a second before a turn to its end, and no other."""

    def audio_sent(self) -> AudioSent:
        """How much, since the session was opened."""


@runtime_checkable
class AsksAgain(Protocol):
    """A session that can ask its server once more for a reply of which nothing has come."""

    def ask_again(self) -> bool:
        """Do so; the receipt stays. False: there is nothing that could be asked for again."""


@runtime_checkable
class BilledByTime(Protocol):
    """A session that costs by the time that it is open, said or unsaid."""

    def time_billed(self) -> tuple[Usage, ...]:
        """What has come about since this was asked last. Also asked once after :meth:`Session.close`."""


class Provider(Protocol):
    """Opens sessions. One per tenant and provider; stateless beside its settings."""

    name: str

    @property
    def opens_ahead(self) -> bool:
        """A session may be opened before anybody hears it: until something is asked of it, it is silent and
        costs nothing."""

    def open(self, config: SessionConfig) -> Session:
        """A session that connects in the background.

        Its first event is :class:`Ready`, or :class:`Failed` with kind ``session`` where the provider could
        not be reached within its deadline or refused us. Intents may be given before :class:`Ready`: they
        are sent in order once the session is up (audio older than a second is let go).
        """


__all__ = [
    "AsksAgain",
    "AudioDelta",
    "AudioDone",
    "AudioSent",
    "BilledByTime",
    "Capabilities",
    "Encoding",
    "Event",
    "Failed",
    "GoingAway",
    "Heard",
    "Interrupted",
    "ItemStarted",
    "Line",
    "Lost",
    "PastCall",
    "Provider",
    "Purpose",
    "Ready",
    "Replaced",
    "ResponseDone",
    "ResponseStarted",
    "Session",
    "SessionConfig",
    "SparesSilence",
    "Speak",
    "SpeechStarted",
    "SpeechStopped",
    "TakesTurns",
    "Tokens",
    "ToolCall",
    "ToolCallCancelled",
    "ToolSpec",
    "Transcript",
    "TranscriptFailed",
    "TurnDetection",
    "Usage",
]
