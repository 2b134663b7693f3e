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
from bridge.announcement import Announcement
from bridge.endpoints.audio_stream import AudioStreamEndpoint
from bridge.endpoints.audio_stream_files import FilePlayer
from bridge.esl import EslAddress, EslConnection
from bridge.esl_frames import Event
from bridge.pbx import PbxError, Speaks, is_freeswitch
from bridge.settings import Attendant, Tenant
from bridge.settings_problems import SettingsError
from bridge.sound_files import CallSounds, SoundDirectory

ASKING_S = 2.0
"""For one command of a gate or a transfer; together less than a visit waits."""
ANNOUNCE_S = 1.5
"""So long a visitor waits for an announcement, once our goodbye was heard; then they are sent on without."""
ANNOUNCED_S = 120.0
"""So long its file is kept for a telephone that rings."""

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
        self._known = ours
        """Whose it is has been looked at."""
        self.attendant = ""
        """Where it goes once its stream is over."""
        self.announcement: Announcement | None = None
        """What the attendant hears first."""
        self.sounds: CallSounds | None = None
        board.connection.follow(channel, self)

    async def claim(self) -> None:
        """See to it that this is a channel of the tenant's domain: its UUID is only what the stream said.

        Raises:
            PbxError: it is another's, or nobody knows.
        """
        if self._known:
            return
        connection = self._board.connection
        said = await connection.api(commands.get_variable(self.channel, "domain_uuid"), ASKING_S)
        if said not in ("", "_undef_") and said.lower() != self._board.domain:
            self._there = False
            self._endpoint.hang_up()
            raise PbxError(f"{self.channel} is a channel of another domain")
        self._known = True

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
        self.sounds = CallSounds(
            self._board.files, self._board.connection, self.channel, self._endpoint.sound_lost
        )
        return self.sounds.player

    def stream_over(self, in_order: bool) -> None:
        """The stream is gone. Once.

        Args:
            in_order: we ended the call.
        """
        self._board.forget(self)
        if self.sounds is not None:
            self._board.spawn(f"last sounds of {self.channel}", self.sounds.close())
        if not self._there or not self.attendant:
            self._board.discard(self)
        if not self._there:
            return
        if self.attendant:
            self._board.spawn(f"transfer of {self.channel}", self._board.send_on(self))
        elif in_order or self._ours:
            self._board.spawn(f"end of {self.channel}", self._board.hang_up(self))


class Switchboard:
    """One tenant's FreeSWITCH. Plays digits and transfers too; see `pbx.py`."""

    def __init__(
        self,
        connection: EslConnection,
        domain: str,
        attendant: Attendant | None,
        files: SoundDirectory | None = None,
    ) -> None:
        """
        Args:
            connection: shared with the other tenants of the same event socket.
            domain: the UUID of the tenant's domain. Channels of another are left alone.
            files: where sounds lie that its channels play.
        """
        self.connection = connection
        self.domain = domain
        self.files = files
        self._extension = attendant.extension if attendant is not None else ""
        self._calls: dict[UUID, StreamedCall] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._announced: dict[Announcement, asyncio.TimerHandle] = {}
        """Those that somebody may still hear, and when they go."""

    async def start(self) -> None:
        """Connect in the background. Once."""
        await self.connection.start()
        if self.files is not None:
            await asyncio.to_thread(self.files.sweep)

    async def stop(self) -> None:
        """Finish what is under way, and let the connection go. Once."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=ASKING_S)
        for announcement in tuple(self._announced):
            self._announced_long_ago(announcement)
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=ASKING_S)
        await self.connection.stop()

    def take(self, endpoint: AudioStreamEndpoint, *, ours: bool) -> StreamedCall:
        """Follow the channel of a stream that a leg was made for."""
        call = StreamedCall(self, endpoint, ours=ours)
        self._calls[call.channel] = call
        self.spawn(f"domain of {call.channel}", self._look_at(call))
        return call

    async def _look_at(self, call: StreamedCall) -> None:
        try:
            await call.claim()
        except PbxError as error:  # it is asked again before anything is done to the channel
            log.warning("esl.not_claimed", channel=str(call.channel), reason=str(error))

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
        call = self._call(channel)
        if call is None:
            raise PbxError(f"{channel} is no call that is streamed here")
        await call.claim()
        uuid = call.channel
        await self.connection.api(commands.send_digit(uuid, digit, duration_ms), ASKING_S)
        await asyncio.sleep(duration_ms / 1000)
        if await self.connection.api(commands.exists(uuid), ASKING_S) != "true":
            raise PbxError(f"{channel} was hung up while the digit was played", unknown=True)

    # ---- The attendant ---------------------------------------------------------------------------------

    async def prepare(self, channel: str, to: str = "", speaks: Speaks | None = None) -> str:
        """See :class:`bridge.pbx.Transfers`."""
        call = self._call(channel)
        if call is None:
            return f"{channel} is no call that is streamed here"
        extension = to or self._extension
        try:
            commands.transfer(call.channel, extension)
            await call.claim()
            if await self.connection.api(commands.exists(call.channel), ASKING_S) != "true":
                return f"{channel} is hung up"
        except (PbxError, ValueError) as error:
            return str(error)
        call.attendant = extension
        self.discard(call)
        if speaks is not None and self.files is not None and self._call(channel) is call:
            call.announcement = Announcement(self.files, call.channel, speaks)
        return ""

    async def undo(self, channel: str) -> str:
        """See :class:`bridge.pbx.Transfers`."""
        call = self._call(channel)
        if call is None:
            return f"{channel} is no call that is streamed here any more"
        call.attendant = ""
        self.discard(call)
        return ""

    def _call(self, channel: str) -> StreamedCall | None:
        return self._calls.get(UUID(channel)) if is_freeswitch(channel) else None

    def discard(self, call: StreamedCall) -> None:
        """Nobody is to hear a call's announcement."""
        announcement, call.announcement = call.announcement, None
        if announcement is not None:
            self.spawn(f"announcement of {call.channel}", announcement.discard())

    async def _announce(self, call: StreamedCall) -> None:
        """Have the attendant hear a call's announcement first, where it is there in time."""
        if call.announcement is None:
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + ANNOUNCE_S
        path = await call.announcement.path(ANNOUNCE_S)
        try:
            if not path:
                raise PbxError("there is no file")
            # A job: an answer of `api` that is late ends the connection, and the transfer needs that.
            await self.connection.job(commands.announce(call.channel, path), max(0.1, until - loop.time()))
        except (PbxError, ValueError) as error:
            log.warning("esl.not_announced", channel=str(call.channel), reason=str(error))
            self.discard(call)

    def _announced_long_ago(self, announcement: Announcement) -> None:
        self._announced.pop(announcement).cancel()
        self.spawn("announcement", announcement.discard())

    def _keep(self, call: StreamedCall) -> None:
        """Let the announcement of a call that was sent on lie until the attendant has heard it."""
        announcement, call.announcement = call.announcement, None
        if announcement is not None:
            loop = asyncio.get_running_loop()
            later = loop.call_later(ANNOUNCED_S, self._announced_long_ago, announcement)
            self._announced[announcement] = later

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Do something that nobody waits for, until :meth:`stop`."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def hang_up(self, call: StreamedCall) -> None:
        """Hang a call's channel up."""
        try:
            await call.claim()
        except PbxError as error:
            log.error("esl.not_hung_up", address=self.connection.name, reason=str(error))
        else:
            self.connection.hang_up(call.channel)

    async def send_on(self, call: StreamedCall) -> None:
        """Send a call to its attendant. One that can't be sent is hung up: nobody waits in silence."""
        try:
            await call.claim()
            await self._announce(call)
            await self.connection.api(commands.transfer(call.channel, call.attendant), ASKING_S)
            log.info("esl.transferred", channel=str(call.channel), announced=call.announcement is not None)
            self._keep(call)
        except PbxError as error:
            self.discard(call)
            log.error("esl.not_transferred", channel=str(call.channel), reason=str(error))
            if not error.unknown:
                await self.hang_up(call)


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
