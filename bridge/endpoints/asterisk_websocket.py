"""One connection of Asterisk's WebSocket channel: an endpoint around the control, the media and the framing.

Either side may have connected. Asterisk to us: see ``asterisk_websocket_server.py``. We to Asterisk, for a
channel that was made as ``WebSocket/INCOMING``: :func:`connect_media`.

The framing, and what a peer may do: ``websocket_connection.py``.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from uuid import UUID

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidURI
from websockets.headers import build_authorization_basic
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from bridge.endpoints.asterisk_websocket_control import (
    BufferingCompleted,
    ChannelError,
    Command,
    DtmfEnd,
    Event,
    Form,
    MarkProcessed,
    MediaStart,
    MediaXoff,
    MediaXon,
    QueueDrained,
    Status,
    Unknown,
    command,
    parse,
)
from bridge.endpoints.asterisk_websocket_media import (
    MAX_MEDIA_BYTES,
    Downstream,
    pcm_of,
)
from bridge.endpoints.base import LegSink, Refusal
from bridge.endpoints.flow import KEY_S, LEAST_FRAME_S, ControlError
from bridge.endpoints.intake import Intake
from bridge.endpoints.websocket_connection import WebsocketConnection, WebsocketLimits

MAX_MESSAGE_BYTES = MAX_MEDIA_BYTES
"""Of a message, in however many fragments it comes. Protects memory."""

CALL_VARIABLE = "PORTEIRO_CALL"
"""The channel variable that says which call it is."""

LAST_MARK = "goodbye"
"""Behind everything played: when it comes back, the caller has heard it all."""

AsteriskWebsocketLimits = WebsocketLimits
"""What Asterisk may do; audio before its MEDIA_START is early."""


class AsteriskWebsocketEndpoint(WebsocketConnection):
    """One connection; an :class:`~bridge.endpoints.base.Endpoint` once its MEDIA_START came."""

    kind = "asterisk_websocket"

    def __init__(
        self,
        wire: ServerProtocol | ClientProtocol,
        accept: Accept | None,
        limits: AsteriskWebsocketLimits,
        intake: Intake | None = None,
    ) -> None:
        super().__init__(wire, limits, intake)
        self._accept = accept
        self._down: Downstream | None = None
        self._form: Form | None = None
        self._channel_errors = 0
        self._channel_error = ""
        self.start: MediaStart | None = None
        """What Asterisk said of the channel: its name and id, by which it can be asked for more."""

    @property
    def call_id(self) -> UUID:
        """What the channel said; only a call that was accepted or refused has one."""
        if self._call_id is None:
            raise RuntimeError("no call has been named yet")
        return self._call_id

    # ---- Down ------------------------------------------------------------------------------------------

    def hang_up(self) -> None:
        """End the call behind everything played; see :meth:`bridge.endpoints.base.Endpoint.hang_up`."""
        if self._ended is not None:
            return
        self._mark("local", "hung up by us")
        if self._sink is None or self._form is None or self._down is None:
            self._say_goodbye()
            return
        for message in self._down.rest():
            self._say(message)
        self._say(command(self._form, Command.MARK_MEDIA, LAST_MARK))
        self._arm(self._limits.goodbye_s, self._say_goodbye)

    def _farewell(self) -> bytes:
        return command(self._form, Command.HANGUP).encode() if self._form is not None else b""

    # ---- Messages --------------------------------------------------------------------------------------

    def _binary(self, message: bytes) -> None:
        if self._down is None or self._sink is None:
            self._keep(message, "MEDIA_START")
            return
        form = self._down.format
        if self._counted(max(LEAST_FRAME_S, len(message) / (form.rate * form.sample_bytes))) and message:
            self._guarded(self._sink.audio_in, pcm_of(form, message), form.rate)

    def _text(self, message: bytes) -> None:
        form, event = parse(message)
        if self.ended:
            if event == MarkProcessed(LAST_MARK):
                self._say_goodbye()
            return
        if not self._counted(KEY_S if isinstance(event, DtmfEnd) else LEAST_FRAME_S):
            return
        if isinstance(event, MediaStart):
            self._media_start(form, event)
        elif self._down is None:
            raise ControlError("an event before MEDIA_START", "MEDIA_START, the first")
        else:
            self._take(event, self._down)

    def _take(self, event: Event, down: Downstream) -> None:
        match event:
            case DtmfEnd(digit):
                if self._sink is not None:
                    self._guarded(self._sink.key_pressed, digit)
            case MarkProcessed(mark):
                down.played(mark, self._last_byte)
            case MediaXoff():
                down.hold_back(True)
            case MediaXon():
                down.hold_back(False)
            case Status():
                down.paused = event.media_paused
            case ChannelError(text):
                self._channel_errors += 1
                self._channel_error = text
            case BufferingCompleted() | QueueDrained() | Unknown() | MediaStart():
                pass

    def _media_start(self, form: Form, start: MediaStart) -> None:
        """The call is there: ask whether it is taken, and by whom."""
        if self.start is not None:
            raise ControlError("a second MEDIA_START", "one, the first")
        self.start = start
        self._form = form
        self._down = Downstream(start, form)
        if self._call_id is None:
            self._call_id = _call_of(start)
        if self._offer(self._accept):
            assert self._sink is not None
            self._say(command(form, Command.ANSWER))
            early, self._early = self._early, []
            for message in early:
                if not self.ended:
                    self._guarded(self._sink.audio_in, pcm_of(self._down.format, message), self._rate)
            self._read_with_the_tick()

    @property
    def _rate(self) -> int:
        assert self._down is not None
        return self._down.format.rate

    # ---- Guards ----------------------------------------------------------------------------------------

    def _handshake_late(self) -> None:
        self._end(
            "timeout",
            f"found {self.bytes_received} bytes and no MEDIA_START; "
            f"allowed are {self._limits.handshake_s:g} s",
        )

    # ---- The end ---------------------------------------------------------------------------------------

    def _particulars(self) -> Mapping[str, object]:
        return {
            "channel": self.start.channel if self.start else None,
            "format": self.start.format if self.start else None,
            "control": self._form.value if self._form else None,
            **({"channel_errors": self._channel_errors} if self._channel_errors else {}),
            **({"channel_error": self._channel_error} if self._channel_error else {}),
        }


Accept = Callable[[AsteriskWebsocketEndpoint], LegSink | Refusal | None]
"""Called synchronously when MEDIA_START came: the leg that takes the call, or why none does.
None: somebody else has taken the connection over, and this endpoint is over."""


def _call_of(start: MediaStart) -> UUID:
    """The call that a channel names: its variable (inherited ones keep their underscores), or its own id.

    Never the URL: Asterisk 22.10.1 keeps what ``v(…)`` in a dial string adds to it in the connection's shared
    configuration, unlocked. A later call without ``v(…)`` comes with the earlier one's parameters.
    """
    named = {value for key, value in start.variables.items() if key.lstrip("_") == CALL_VARIABLE}
    if len(named) > 1:
        raise ControlError(f"{len(named)} values of {CALL_VARIABLE}", "one")
    try:
        return UUID(named.pop() if named else start.channel_id)
    except ValueError:
        raise ControlError(
            "a channel that names no call",
            f"a UUID in {CALL_VARIABLE}, with control messages in JSON, or as the channel's id",
        ) from None


# --------------------------------------------------------------------------------------------------------
# We connect
# --------------------------------------------------------------------------------------------------------


class ConnectError(ConnectionError):
    """Asterisk could not be reached, or did not give us the channel's media."""


class _OutgoingEndpoint(AsteriskWebsocketEndpoint):
    """Our connection to a channel that waits for it."""

    def __init__(
        self,
        wire: ClientProtocol,
        call_id: UUID,
        accept: Accept,
        limits: AsteriskWebsocketLimits,
        authorization: str,
    ) -> None:
        super().__init__(wire, accept, limits)
        self._call_id = call_id
        self._client = wire
        self._authorization = authorization
        self.taken: asyncio.Future[None] = self._loop.create_future()
        """Done when the leg took the call, or it is over before."""

    def _connected(self) -> bool:
        request = self._client.connect()
        if self._authorization:
            request.headers["Authorization"] = self._authorization
        self._client.send_request(request)
        self._write()
        return True

    def _opening(self, event: Request | Response) -> None:
        if self._client.handshake_exc is not None:
            self._mark("refused", f"Asterisk answered: {self._client.handshake_exc}")

    def _seated(self) -> None:
        if not self.taken.done():
            self.taken.set_result(None)

    def _left(self) -> None:
        if not self.taken.done():
            self.taken.set_result(None)


async def connect_media(
    url: str,
    *,
    call_id: UUID,
    accept: Accept,
    username: str = "",
    password: str = "",
    limits: AsteriskWebsocketLimits | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsteriskWebsocketEndpoint:
    """Fetch the media of a channel that waits for us: one made as ``WebSocket/INCOMING``.

    Args:
        url: ``ws://HOST:8088/media/CONNECTION_ID``; the id is the channel's MEDIA_WEBSOCKET_CONNECTION_ID.
        call_id: what the endpoint is to be known by.
        accept: asked once MEDIA_START came.
        username: and ``password``: for HTTP's basic authentication, where a proxy before Asterisk wants it.
        tls: for ``wss``; None: the system's certificates.

    Returns:
        The endpoint, once its leg has taken the call (which may be over again).

    Raises:
        ConnectError: no connection, no channel of that id, or no MEDIA_START in time.
        ValueError: the URL is none.
    """
    limits = limits or AsteriskWebsocketLimits()
    try:
        place = parse_uri(url)
    except InvalidURI as error:
        raise ValueError(f"not a WebSocket URL: {error}") from None
    endpoint = _OutgoingEndpoint(
        ClientProtocol(place, max_size=MAX_MESSAGE_BYTES),
        call_id,
        accept,
        limits,
        build_authorization_basic(username, password) if username else "",
    )
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(limits.handshake_s):
            await loop.create_connection(
                lambda: endpoint,
                place.host,
                place.port,
                ssl=(tls or ssl.create_default_context()) if place.secure else None,
            )
    except TimeoutError:
        raise ConnectError(f"{place.host}:{place.port} did not answer in {limits.handshake_s:g} s") from None
    except OSError as error:
        raise ConnectError(f"{place.host}:{place.port}: {error}") from error
    await endpoint.taken  # bounded by the endpoint's own handshake deadline and linger
    if endpoint._sink is None:
        assert endpoint._ended is not None
        raise ConnectError(endpoint._ended.detail)
    return endpoint


__all__ = [
    "CALL_VARIABLE",
    "Accept",
    "AsteriskWebsocketEndpoint",
    "AsteriskWebsocketLimits",
    "ConnectError",
    "connect_media",
]
