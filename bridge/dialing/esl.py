"""Calls residents through FreeSWITCH's event socket.

The phone's channel gets the attempt's id (``origination_uuid``) and waits in ``park()`` once it is
answered; then it is ordered to stream to our port, under that same id. Until the attempt is known to have
failed, or its stream to have come, the channel is ours to hang up: when the visit gives up, when the
connection is lost, when nobody streams. Afterwards it is hung up with its stream, for closing a stream ends
no call. Were this process to die, ``park_timeout`` ends what is left.

Nothing here tells a machine that answers from a person: as on every call, only consent after a whole
briefing counts.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from uuid import UUID

import orjson

from bridge import esl_commands as commands
from bridge.dialing.base import DialOrder, DialResult
from bridge.dialing.esl_attempt import result_of, stream_result
from bridge.dialing.esl_numbers import phone_of
from bridge.endpoints.audio_stream_server import PREFIX
from bridge.endpoints.stream_ticket import ticket
from bridge.esl import EslConnection, EslError
from bridge.esl_frames import Event
from bridge.settings import Freeswitch, FreeswitchDialer
from visits.events import DialOutcome

READY_S = 3.0
"""So long an attempt waits for the event socket where it is not there yet, or not again."""
LATE_S = 2.0
"""How much later than the ring time FreeSWITCH may say how it ended."""
CONNECT_S = 2.5
"""After the answer: in that time the stream was ordered and has come. With LATE_S less than the host's own
patience (ring time and 5 s)."""
PARK_S = 120.0
"""How much longer than a visit a channel may be parked."""


STREAM_VARIABLES = {
    "STREAM_PLAYBACK": "true",
    "STREAM_NO_RECONNECT": "true",
    "STREAM_MESSAGE_DEFLATE": "true",
    "STREAM_SUPPRESS_LOG": "true",
}
"""Of the modules; docs/freeswitch.md says what each is for."""


class _Resident:
    """The channel of one attempt; follows it to its end."""

    def __init__(self, connection: EslConnection, channel: UUID) -> None:
        self._connection = connection
        self.channel = channel
        self.streamed: asyncio.Future[DialResult] = asyncio.get_running_loop().create_future()
        self.gone = False
        connection.follow(channel, self)

    def esl_event(self, event: Event) -> None:
        """See :class:`bridge.esl.Follower`."""
        result = stream_result(event)
        if event.name == "CHANNEL_HANGUP":
            self._over()
        elif result is not None and result.outcome is not None:  # its stream is over, or never came
            self._connection.hang_up(self.channel)
        if result is not None and not self.streamed.done():
            self.streamed.set_result(result)

    def esl_back(self, there: bool) -> None:
        """See :class:`bridge.esl.Follower`."""
        if not there:
            self._over()

    def _over(self) -> None:
        self.gone = True
        self._connection.leave(self.channel, self)


class EslDialer:
    """Calls residents of one tenant."""

    def __init__(
        self,
        settings: FreeswitchDialer,
        stream: Freeswitch,
        token: str | None,
        visit_s: float,
        connection: EslConnection,
    ) -> None:
        """
        Args:
            token: what the tenant's streams must show; None: nothing.
            visit_s: how long a visit may last.
            connection: shared with the other tenants of the same event socket.
        """
        self._settings = settings
        self._stream = stream
        self._token = token
        self._park_s = math.ceil(visit_s + PARK_S)
        self._esl = connection

    async def start(self) -> None:
        """See :class:`bridge.dialing.base.Dialer`."""
        await self._esl.start()

    async def stop(self) -> None:
        """See :class:`bridge.dialing.base.Dialer`."""
        await self._esl.stop()

    async def dial(self, order: DialOrder) -> DialResult:
        """See :class:`bridge.dialing.base.Dialer`. Returns once the resident's stream has come."""
        began = asyncio.get_running_loop().time()
        try:
            phone = phone_of(self._settings.dial_string, self._settings.domain, order.number)
        except ValueError as error:
            return DialResult(DialOutcome.INVALID, str(error))
        if not await self._esl.ready(READY_S):
            return DialResult(DialOutcome.FAILED, self._esl.trouble)
        left_s = order.ring_s - (asyncio.get_running_loop().time() - began)
        ring_s = max(1, math.ceil(left_s))
        resident = _Resident(self._esl, order.attempt)
        command = commands.originate(order.attempt, phone, self._variables(ring_s))
        # A task of its own: whoever gives the attempt up must still know when FreeSWITCH has done with it.
        originate = asyncio.get_running_loop().create_task(
            self._esl.job(command, ring_s + LATE_S), name=f"originate {order.attempt}"
        )
        originate.add_done_callback(_looked_at)
        connected = False
        try:
            result = await self._ring(resident, originate)
            connected = result.outcome is None
            return result
        finally:
            if not connected:
                self._end(resident, originate)

    async def _ring(self, resident: _Resident, originate: asyncio.Task[str]) -> DialResult:
        try:
            await asyncio.shield(originate)
        except EslError as error:
            return result_of(error.said) if error.said else DialResult(DialOutcome.FAILED, str(error))
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._esl.job(self._start(resident.channel), CONNECT_S)
                return await resident.streamed
        except EslError as error:
            return DialResult(DialOutcome.FAILED, f"the phone was answered, but {error}")
        except TimeoutError:
            return DialResult(DialOutcome.FAILED, "the phone was answered, and its stream did not come")

    def _end(self, resident: _Resident, originate: asyncio.Task[str]) -> None:
        """Leave no channel of an attempt behind that was given up, or failed."""
        self._esl.leave(resident.channel, resident)
        said = originate.exception() if originate.done() and not originate.cancelled() else None
        if not resident.gone and not (isinstance(said, EslError) and said.said):
            self._esl.hang_up(resident.channel, originate)

    def _variables(self, ring_s: int) -> Mapping[str, str]:
        """Of the new channel. A domain's name is what FusionPBX's dialplan knows its calls by."""
        settings = self._settings
        named = {
            "domain_name": settings.domain,
            "origination_caller_id_name": settings.caller_id_name,
            "origination_caller_id_number": settings.caller_id_number,
        }
        return {
            "ignore_early_media": "true",
            "originate_timeout": str(ring_s),
            "park_timeout": str(self._park_s),
            "domain_uuid": self._stream.domain_uuid,
            **STREAM_VARIABLES,
            # mod_audio_fork plays into what the channel sends; voxcom's fork sends by itself.
            **({"send_silence_when_idle": "-1"} if self._stream.playback == "fork" else {}),
            # Without it the key * ends a file that is played.
            **({"playback_terminators": "none"} if self._stream.playback == "file" else {}),
            "STREAM_SAMPLE_RATE": str(self._stream.sample_rate),
            "STREAM_BUFFER_SIZE": "20" if self._stream.sample_rate == 8000 else "40",
            **{name: value for name, value in named.items() if value},
        }

    def _start(self, channel: UUID) -> str:
        """The order to stream an answered channel to us."""
        stream = self._stream
        # FreeSWITCH logs the URL: what it shows holds for this call alone.
        query = ""
        if self._token is not None:
            query = f"?token={ticket(self._token, UUID(stream.domain_uuid), channel, now=time.time())}"
        return commands.start_stream(
            "uuid_audio_fork" if stream.playback == "fork" else "uuid_audio_stream",
            channel,
            f"{self._settings.stream_url}{PREFIX}{stream.domain_uuid}/{channel}{query}",
            "mono" if stream.channels == 1 else "stereo",
            f"{stream.sample_rate // 1000}k",
            orjson.dumps({"direction": "outbound", "attempt": str(channel)}).decode(),
        )


def _looked_at(originate: asyncio.Task[str]) -> None:
    """Its error is told by the dial, where that still runs."""
    if not originate.cancelled():
        originate.exception()


__all__ = ["EslDialer"]
