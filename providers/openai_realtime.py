"""Sessions with a server that speaks OpenAI's Realtime protocol (GA): connection, deadlines, order.

What is said over the connection is :mod:`providers.openai_conversation`'s. The openai SDK opens it (address,
authentication) as a :class:`providers.websocket.WebSocket`, whose messages come and go without a task. No
reconnecting here: a session that lost its connection is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Omit, OpenAIError
from openai.types.websocket_connection_options import WebSocketConnectionOptions

from providers import openai_messages as wire
from providers.base import AudioSent, GoingAway, SessionConfig
from providers.connected import Connect, ConnectedSession, Waits
from providers.conversing import SessionOver
from providers.formats import FORMATS, FormatName
from providers.openai_conversation import Conversation
from providers.sequencer import Patience, Waiting
from providers.tls import system_tls
from providers.websocket import Limits, Listener, connect_options, is_secure, not_opened, reaching

OPENAI_URL = "https://api.openai.com/v1"

_PATIENCE_S: Mapping[Waiting, float] = {Waiting.BARGE_IN: 1.5, Waiting.SPEECH: 10.0, Waiting.TOOLS: 2.0}
"""How long the sequencer's waits may last."""
LONGEST_TURN_S = 30.0
"""So much of a turn by our VAD is heard: the server keeps a turn in its memory until it is committed."""


@dataclass(frozen=True, slots=True)
class OpenAISettings:
    """How to reach a server that speaks this protocol, and how long to wait for it.

    Attributes:
        api_key: sent as a bearer token.
        base_url: ``http(s)://…/v1``; the realtime address is below it.
        noise_reduction: ``near_field`` for handsets, ``far_field`` for door stations, None for none.
        connect_timeout_s: from opening to the confirmed configuration.
        stall_timeout_s: how long the server may refuse to take what we send.
        deployment: whether ``model`` is a name that the customer gave, and says nothing of the model.
        format: of the audio that is asked for, both ways.
        itemised: the server says itself who is paid, for what.
        patience_s: see :attr:`providers.base.Capabilities.patience_s`.
        session_limit_s: after how long the server ends a session, without a warning of its own; GoingAway
            comes ``going_away_s`` before.
        headers, query: added to the connection's request.
        authentication: gives the headers that say who we are, anew for each connection; None: the key does.
    """

    api_key: str = field(repr=False)
    base_url: str = OPENAI_URL
    model: str = "gpt-realtime-2.1"
    voice: str = "marin"
    transcription_model: str = "gpt-transcribe"
    noise_reduction: wire.NoiseReduction | None = "far_field"
    connect_timeout_s: float = 5.0
    close_timeout_s: float = 2.0
    stall_timeout_s: float = 5.0
    format: FormatName = "pcm24"
    itemised: bool = False
    patience_s: float | None = None
    deployment: bool = False
    session_limit_s: float = 3600.0
    going_away_s: float = 120.0
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    authentication: Callable[[], Coroutine[Any, Any, Mapping[str, str]]] | None = field(
        default=None, repr=False
    )


class Deadlines(Waits, Protocol):
    """What a session must know of its provider's settings; see :class:`OpenAISettings`."""

    @property
    def session_limit_s(self) -> float: ...
    @property
    def going_away_s(self) -> float: ...


class OpenAIProvider:
    """Opens sessions; one client for all of them. ``name`` is the provider's in settings and records."""

    opens_ahead = True

    def __init__(self, settings: OpenAISettings, name: str = "openai") -> None:
        self.name = name
        self._settings = settings
        client = AsyncOpenAI(
            api_key=settings.api_key,
            base_url=settings.base_url,
            default_headers=dict(settings.headers),
            # Nothing is asked over it: the sessions are WebSockets. Its own would read all authorities anew.
            http_client=DefaultAsyncHttpxClient(verify=system_tls()),
        )
        # The SDK loads this part of itself when it is first asked for: here, and not while calls go on.
        self._realtime = client.realtime
        self._limits = Limits(
            open_s=settings.connect_timeout_s,
            close_s=settings.close_timeout_s,
            stall_s=settings.stall_timeout_s,
        )
        self._context = system_tls() if is_secure(settings.base_url) else None

    def open(self, config: SessionConfig) -> OpenAISession:
        """See :class:`providers.base.Provider`. Needs a running event loop."""
        return session_of(self.name, self._settings, self._dialect(), config, self._connect)

    def _dialect(self) -> wire.Dialect:
        settings = self._settings
        return wire.Wire(
            settings.voice,
            settings.transcription_model,
            settings.noise_reduction,
            FORMATS[settings.format],
            self.name,
            settings.model,
            settings.itemised,
            parallel_calls=not settings.deployment and wire.takes_parallel_calls(settings.model),
            patience_s=settings.patience_s,
        )

    async def _connect(self, listener: Listener) -> None:
        """Open a connection for a session, which is told of it as its listener."""
        options = connect_options(self._settings.base_url, listener, self._limits, self._context)
        headers: dict[str, str | Omit] = {}
        if self._settings.authentication is not None:
            # Without Omit the SDK would send its own key as well.
            headers = {"Authorization": Omit(), **await self._settings.authentication()}
        try:
            with reaching(self._settings.base_url):
                await self._realtime.connect(
                    model=self._settings.model,
                    extra_query=dict(self._settings.query),
                    extra_headers=headers,
                    # The SDK hands on more than its type names.
                    websocket_connection_options=cast(WebSocketConnectionOptions, options),
                ).enter()
        except OpenAIError as error:
            raise SessionOver(*not_opened(error, wire.http_refusal)) from error


class OpenAISession(ConnectedSession[Conversation]):
    """See :class:`providers.base.Session` and :class:`providers.base.AsksAgain`."""

    def __init__(
        self,
        provider: str,
        settings: Deadlines,
        dialect: wire.Dialect,
        config: SessionConfig,
        connect: Connect,
        epoch: int = 1,
    ) -> None:
        self._settings = settings
        self._waiting: Patience | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._going_away: asyncio.TimerHandle | None = None
        self._decode_delta = dialect.decode_delta
        conversation = Conversation(config, dialect, epoch, self._emit, self._queue_message)
        super().__init__(provider, settings, conversation, connect)

    def ask_again(self) -> bool:
        """See :class:`providers.base.AsksAgain`."""
        again = not self._over and self._conversation.ask_again()
        self._arm()
        return again

    def _opening(self) -> bytes:
        return wire.encode(self._conversation.open())

    def _append(self, audio: bytes) -> bytes:
        return wire.audio_append(audio)

    def _http_refusal(self, status: int, body: bytes) -> tuple[str, str]:
        return wire.http_refusal(status, body)

    def _confirmed(self) -> None:
        """The server will end the session without a warning of its own."""
        settings = self._settings
        left_s = max(0.0, settings.session_limit_s - settings.going_away_s)
        self._going_away = self._loop.call_later(left_s, self._emit, GoingAway(settings.going_away_s))

    def _receive(self, message: bytes) -> None:
        delta = self._decode_delta(message)
        if delta is not None:
            self._conversation.receive_audio(delta.response_id, delta.item_id, delta.delta)
        else:
            self._conversation.receive(wire.decode(message))

    def _queue_message(self, message: dict[str, Any]) -> None:
        if not self._over:
            self._queue(wire.encode(message))

    def _arm(self) -> None:
        """Start the clock of what the sequencer waits for, where that is new."""
        patience = None if self._over else self._conversation.patience
        if patience == self._waiting:
            return
        self._waiting = patience
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if patience is not None:
            self._timer = self._loop.call_later(_PATIENCE_S[patience.kind], self._out_of_patience, patience)

    def _out_of_patience(self, patience: Patience) -> None:
        if not self._over:
            self._conversation.give_up(patience)
            self._arm()

    def _finish(self) -> None:
        super()._finish()
        for timer in (self._timer, self._going_away):
            if timer is not None:
                timer.cancel()
        self._timer = self._going_away = None


class OpenAITurnsSession(OpenAISession):
    """See :class:`providers.base.Session`, TakesTurns and SparesSilence: our VAD detects the turns."""

    def __init__(
        self,
        provider: str,
        settings: Deadlines,
        dialect: wire.Dialect,
        config: SessionConfig,
        connect: Connect,
        epoch: int = 1,
    ) -> None:
        self._silence_ms = config.turn_detection.silence_duration_ms
        self._gathered: list[bytes] = []
        """The caller's audio of this turn of the loop."""
        self._turn_end: asyncio.TimerHandle | None = None
        self._longest: asyncio.TimerHandle | None = None
        super().__init__(provider, settings, dialect, config, connect, epoch)

    def audio_sent(self) -> AudioSent:
        """See :class:`providers.base.SparesSilence`."""
        return self._conversation.audio_sent

    def caller_began(self) -> None:
        """See :class:`providers.base.TakesTurns`."""
        if self._over:
            return
        self._hand_over()
        if self._turn_end is not None:
            self._turn_end.cancel()
            self._turn_end = None
        self._begin_turn()

    def caller_ended(self, quiet_ms: int) -> None:
        """See :class:`providers.base.TakesTurns`."""
        if self._over or self._turn_end is not None:
            return
        left_ms = self._silence_ms - quiet_ms
        if left_ms > 0:
            self._turn_end = self._loop.call_later(left_ms / 1000, self._end_turn)
        else:
            self._end_turn()

    def _begin_turn(self) -> None:
        self._conversation.caller_began()
        if self._longest is None:
            self._longest = self._loop.call_later(LONGEST_TURN_S, self._cut_turn)
        self._arm()

    def _end_turn(self) -> None:
        """All that was heard of it goes before its end."""
        self._hand_over()
        for timer in (self._turn_end, self._longest):
            if timer is not None:
                timer.cancel()
        self._turn_end = self._longest = None
        self._conversation.turn_over()
        self._arm()

    def _cut_turn(self) -> None:
        self._longest = None
        self._hand_over()
        self._conversation.cut_turn()
        self._arm()

    def _send_audio(self, pcm: bytes) -> None:
        if self._input is not self._conversation.input:
            self.audio_let_go += len(pcm)  # at a rate that nobody reads
            return
        if not self._gathered:
            # At the end of the loop's turn: a loop that is late gets many frames at once, for one message.
            self._loop.call_soon(self._hand_over)
        self._gathered.append(pcm)

    def _hand_over(self) -> None:
        gathered, self._gathered = self._gathered, []
        if gathered and not self._over:
            self._conversation.send_audio(b"".join(gathered))

    def _agree(self) -> None:
        if self._conversation.input is not self._input:
            self._gathered.clear()
        super()._agree()

    def _finish(self) -> None:
        super()._finish()
        for timer in (self._turn_end, self._longest):
            if timer is not None:
                timer.cancel()
        self._turn_end = self._longest = None


def session_of(
    provider: str, settings: Deadlines, dialect: wire.Dialect, config: SessionConfig, connect: Connect
) -> OpenAISession:
    """A session of the kind that the configuration's turn detection needs."""
    kind = OpenAITurnsSession if config.turn_detection.kind == "local" else OpenAISession
    return kind(provider, settings, dialect, config, connect)
