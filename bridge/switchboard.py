"""What a tenant's FreeSWITCH does with the calls that it streams to us, over its event socket.

The stream carries sound, and of most builds nothing else. So for each call the channel is followed here: keys
that the caller presses come as events, and once the stream is over the channel is hung up, or sent on to the
attendant: closing a stream ends no call. A visitor's channel is hung up only where we ended the call in
order; where anything else did, the dialplan goes on with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import UUID

import structlog

from bridge import esl_commands as commands
from bridge.endpoints.audio_stream import AudioStreamEndpoint
from bridge.endpoints.audio_stream_files import FilePlayer
from bridge.esl import EslAddress, EslConnection, EslError
from bridge.esl_frames import Event
from bridge.pbx import PbxError, is_freeswitch
from bridge.settings import Attendant, Tenant
from bridge.settings_problems import SettingsError
from bridge.sound_files import CallSounds, SoundDirectory

ASKING_S = 2.0
"""For one command of a gate or a transfer; together less than a visit waits."""

log = structlog.get_logger(__name__)


class StreamedCall:
    """The channel of one call, from its leg to its end; see
    :class:`bridge.endpoints.audio_stream.CallControl`."""

    def __init__(self, board: Switchboard, endpoint: AudioStreamEndpoint, *, ours: bool) -> None:
        """`ours`: we had it called: it is hung up whatever ended its stream."""
        self._board = board
        self._endpoint = endpoint
        self.channel = channel = endpoint.call_id
        self._ours = ours
        self._there = True
        self.attendant = ""
        """Where it goes once its stream is over."""
        self.sounds: CallSounds | None = None
        board.connection.follow(channel, self)

    def esl_event(self, event: Event) -> None:
        """See :class:`bridge.esl.Follower`."""
        if event.name in ("PLAYBACK_START", "PLAYBACK_STOP"):
            if self.sounds is not None:
                self.sounds.esl_event(event)
        elif event.name == "DTMF":
            self._endpoint.channel_key(event.headers.get("DTMF-Digit", ""))
        elif event.name == "CHANNEL_HANGUP":
            self._hung_up()

    def esl_back(self, there: bool) -> None:
        """See :class:`bridge.esl.Follower`."""
        if not there:
            self._hung_up()

    def _hung_up(self) -> None:
        self._there = False
        self._endpoint.channel_gone()

    def player(self) -> FilePlayer | None:
        """See :class:`bridge.endpoints.audio_stream.CallControl`."""
        if self._board.files is None:
            return None
        self.sounds = CallSounds(self._board.files, self._board.connection, self.channel)
        return self.sounds.player

    def stream_over(self, in_order: bool) -> None:
        """The stream is gone. Once.

        Args:
            in_order: we ended the call.
        """
        self._board.forget(self)
        if self.sounds is not None:
            self._board.spawn(f"last sounds of {self.channel}", self.sounds.close())
        if not self._there:
            return
        if self.attendant:
            self._board.send_on(self.channel, self.attendant)
        elif in_order or self._ours:
            self._board.connection.hang_up(self.channel)


class Switchboard:
    """One tenant's FreeSWITCH. Plays digits and transfers too; see `pbx.py`."""

    def __init__(
        self,
        connection: EslConnection,
        attendant: Attendant | None,
        files: SoundDirectory | None = None,
    ) -> None:
        """
        Args:
            connection: shared with the other tenants of the same event socket.
            files: where sounds lie that its channels play.
        """
        self.connection = connection
        self.files = files
        self._extension = attendant.extension if attendant is not None else ""
        self._calls: dict[UUID, StreamedCall] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connect in the background. Once."""
        await self.connection.start()
        if self.files is not None:
            await asyncio.to_thread(self.files.sweep)

    async def stop(self) -> None:
        """Finish what is under way, and let the connection go. Once."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=ASKING_S)
        await self.connection.stop()

    def take(self, endpoint: AudioStreamEndpoint, *, ours: bool) -> StreamedCall:
        """Follow the channel of a stream that a leg was made for."""
        call = StreamedCall(self, endpoint, ours=ours)
        self._calls[call.channel] = call
        return call

    def forget(self, call: StreamedCall) -> None:
        """Follow its channel no more."""
        self.connection.leave(call.channel, call)
        if self._calls.get(call.channel) is call:
            del self._calls[call.channel]

    # ---- Digits ----------------------------------------------------------------------------------------

    async def play_digit(self, channel: str, digit: str, duration_ms: int) -> None:
        """See :class:`bridge.pbx.PlaysDigits`.

        FreeSWITCH says that it has taken the digit, and nothing of its end: that is by the clock, and by the
        channel's still being there.
        """
        if not is_freeswitch(channel):
            raise PbxError(f"{channel} is no channel of FreeSWITCH's")
        uuid = UUID(channel)
        await self.connection.api(commands.send_digit(uuid, digit, duration_ms), ASKING_S)
        await asyncio.sleep(duration_ms / 1000)
        if await self.connection.api(commands.exists(uuid), ASKING_S) != "true":
            raise PbxError(f"{channel} was hung up while the digit was played", unknown=True)

    # ---- The attendant ---------------------------------------------------------------------------------

    async def prepare(self, channel: str, to: str = "") -> str:
        """See :class:`bridge.pbx.Transfers`."""
        call = self._call(channel)
        if call is None:
            return f"{channel} is no call that is streamed here"
        extension = to or self._extension
        try:
            commands.transfer(call.channel, extension)
            if await self.connection.api(commands.exists(call.channel), ASKING_S) != "true":
                return f"{channel} is hung up"
        except (PbxError, ValueError) as error:
            return str(error)
        call.attendant = extension
        return ""

    async def undo(self, channel: str) -> str:
        """See :class:`bridge.pbx.Transfers`."""
        call = self._call(channel)
        if call is None:
            return f"{channel} is no call that is streamed here any more"
        call.attendant = ""
        return ""

    def _call(self, channel: str) -> StreamedCall | None:
        return self._calls.get(UUID(channel)) if is_freeswitch(channel) else None

    def send_on(self, channel: UUID, extension: str) -> None:
        """Send a channel to an extension. One that can't be sent is hung up: nobody waits in silence."""
        self.spawn(f"transfer of {channel}", self._send_on(channel, extension))

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Do something that nobody waits for, until :meth:`stop`."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send_on(self, channel: UUID, extension: str) -> None:
        try:
            await self.connection.api(commands.transfer(channel, extension), ASKING_S)
            log.info("esl.transferred", channel=str(channel))
        except EslError as error:
            log.error("esl.not_transferred", channel=str(channel), reason=str(error))
            if not error.unknown:
                self.connection.hang_up(channel)


def esl_address(tenant: Tenant, secret: Callable[[str | None], str | None]) -> EslAddress | None:
    """Where a tenant's event socket is; None where its settings name none.

    Args:
        secret: looks an environment variable up (:meth:`Settings.secret`).

    Raises:
        SettingsError: its password is not set, or can be none.
    """
    settings = tenant.esl
    if settings is None:
        return None
    password = secret(settings.password_env)
    where = f"tenants.{tenant.id}.esl.password_env: the environment variable {settings.password_env}"
    if password is None:
        raise SettingsError([f"{where} is not set; put the secret there"])
    try:
        commands.checked(password)
    except ValueError:
        raise SettingsError([f"{where} has no proper password; allowed: one line"]) from None
    return EslAddress(settings.host, settings.port, password)


__all__ = ["StreamedCall", "Switchboard", "esl_address"]
