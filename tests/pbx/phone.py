"""A SIP telephone: registers, calls and is called, says recordings, presses keys, keeps what it hears.

Written for this because packaged ones fall short here: baresip 1.0 and 1.1, which Debian has, have no
earpiece without a sound card but a filter that writes decoded packets one behind the other, so that a dropout
leaves no trace in what was "heard"; they can only refuse a call as busy; and their microphone file ends the
call where it ends. This one times each packet by the kernel.
"""

from __future__ import annotations

import asyncio
import time
import wave
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from bridge.softphone import load_wav
from tests.pbx.rtp import Heard, Sound
from tests.pbx.sip import (
    Media,
    Message,
    SipError,
    address_of,
    authorization,
    description,
    media_of,
    parameter,
    token,
)

HOST = "127.0.0.1"
INTERCOM = ("intercom", "change-me-intercom")
ATTENDANT = ("attendant", "change-me-attendant")
"""Name and password of telephones in the example configuration."""
ANSWER_S = 5.0
"""How long a request may wait for its answer."""
AGAIN_S = 0.5
"""A request is sent again after so long (RFC 3261's T1)."""
EXPIRES_S = 600

Picks = Literal["answer", "busy", "reject", "ring"]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a call ended.

    Attributes:
        by: who ended it.
        status: the SIP status that a call which was never answered ended with; 200 for one that was.
    """

    by: Literal["us", "them"]
    status: int = 200


class CallFailed(ConnectionError):
    """The call was not answered; `how` says why."""

    def __init__(self, how: Ended) -> None:
        super().__init__(f"the call ended unanswered: {how}")
        self.how = how


class Call:
    """One call of a telephone's.

    Attributes:
        sound: its sound, both ways.
        ringing, answered: set when it rang, and when it was answered.
        answered_at: monotonic second of the answer.
        closed: done when it is over.
    """

    def __init__(self, phone: Phone, call_id: str, *, outgoing: bool) -> None:
        self.phone, self.call_id, self.outgoing = phone, call_id, outgoing
        self.sound = Sound(HOST)
        self.ringing, self.answered = asyncio.Event(), asyncio.Event()
        self.answered_at = 0.0
        self.closed: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self.local = self.remote = self.target = ""
        self.cseq = 1
        self.invite: Message | None = None
        self.description_version = 0
        self.hanging_up = False

    # ---- What a person does ----------------------------------------------------------------------------

    async def say(self, what: Path | bytes) -> None:
        """Say a recording (or 8 kHz PCM) behind all that is being said; returns when it has been said."""
        pcm = await asyncio.to_thread(load_wav, what) if isinstance(what, Path) else what
        await self.sound.say(pcm)

    def press(self, keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            self.sound.press(key)

    async def hang_up(self) -> Ended:
        """End it, answered or not."""
        return await self.phone.hang_up(self)

    async def wait_answered(self, timeout_s: float = 10.0) -> None:
        """Wait until it is answered.

        Raises:
            CallFailed: it ended unanswered.
            TimeoutError: neither, in time.
        """
        await self.unless_over(self.answered.wait(), timeout_s)
        if self.answered.is_set():
            return
        if self.closed.done():
            raise CallFailed(self.closed.result())
        raise TimeoutError(f"{self.phone.user}: nobody answered in {timeout_s:g} s")

    async def unless_over(self, awaited: Coroutine[Any, Any, object], timeout_s: float) -> None:
        """Wait for something, for the end of the call, or so long, whichever comes first."""
        waiting: asyncio.Future[object] = asyncio.ensure_future(awaited)
        over: asyncio.Future[object] = asyncio.ensure_future(asyncio.wait({self.closed}))
        try:
            await asyncio.wait((waiting, over), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            over.cancel()

    async def wait_closed(self, timeout_s: float = 10.0) -> Ended:
        """Wait until it is over.

        Raises:
            TimeoutError: it goes on.
        """
        async with asyncio.timeout(timeout_s):
            return await asyncio.shield(self.closed)

    async def wait_for_speech(self, *, since: float, timeout_s: float = 15.0) -> float:
        """Wait until speech (60 ms at a stretch) is heard that ends after the monotonic second `since`.

        Raises:
            TimeoutError: none came.
        """
        async with asyncio.timeout(timeout_s):
            while self.sound.last_loud < since:
                await asyncio.sleep(0.02)
        return self.sound.last_loud

    async def wait_for_quiet(self, quiet_s: float = 0.9, *, timeout_s: float = 30.0) -> None:
        """Wait until nothing loud has come for so long.

        Raises:
            TimeoutError: it went on and on.
        """
        begun = time.monotonic()
        async with asyncio.timeout(timeout_s):
            while time.monotonic() - max(begun, self.sound.last_loud) < quiet_s:
                await asyncio.sleep(0.02)

    # ---- What was heard --------------------------------------------------------------------------------

    def heard(self) -> Heard:
        """All that came out of the earpiece so far."""
        return self.sound.heard()

    @property
    def keys(self) -> Sequence[str]:
        """The keys that the other side pressed."""
        return self.sound.keys

    def save(self, path: Path) -> None:
        """What was heard, as a WAV file."""
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(self.heard().samples.tobytes())

    # ---- What the phone does ---------------------------------------------------------------------------

    def describe(self) -> str:
        """Our session description, anew."""
        self.description_version += 1
        return description(HOST, self.sound.port, self.phone.codecs, self.description_version)

    def connect(self, body: str) -> None:
        """Send the sound where their session description says."""
        media: Media = media_of(body, self.phone.codecs)
        self.sound.talk_to(media.address, media.codec, media.keys_payload)

    def answer_now(self, at: float) -> None:
        """It is answered."""
        self.answered_at = at
        self.answered.set()

    def close(self, how: Ended) -> None:
        """It is over; the first to say so is right."""
        if not self.closed.done():
            self.closed.set_result(how)
        self.sound.close()


class Phone:
    """A telephone. An asynchronous context: registered inside, its calls ended behind.

    Args:
        server: where Asterisk takes SIP.
        codec: `PCMA` or `PCMU`; the only one that it speaks.
        picks: what it does when it is called: `answer`, `busy` (486), `reject` (603), or `ring` for ever.
        after_s: for how long it rings before it does so.
    """

    def __init__(
        self,
        server: tuple[str, int],
        user: str,
        password: str,
        *,
        codec: str = "PCMA",
        picks: Picks = "answer",
        after_s: float = 0.0,
    ) -> None:
        self.server, self.user, self.password = server, user, password
        self.codecs = (codec,)
        self.picks, self.after_s = picks, after_s
        self.calls: dict[str, Call] = {}
        self.incoming: asyncio.Queue[Call] = asyncio.Queue()
        self._registration = f"{token()}@{HOST}"
        self._register_cseq = 0
        self._pending: dict[tuple[str, str], asyncio.Queue[Message]] = {}
        self._answers: dict[tuple[str, str], Message] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.DatagramTransport | None = None
        self._port = 0

    # ---- Life ------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Register.

        Raises:
            SipError: Asterisk does not want it.
            TimeoutError: Asterisk does not answer.
        """
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Wire(self), local_addr=(HOST, 0)
        )
        self._transport = transport
        self._port = transport.get_extra_info("sockname")[1]
        await self._register(EXPIRES_S)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Hang up, and take the registration back."""
        try:
            for call in tuple(self.calls.values()):
                if not call.closed.done():
                    await self.hang_up(call)
            await self._register(0)
        finally:
            for task in tuple(self._tasks):
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
            for call in self.calls.values():
                call.sound.close()
            if self._transport is not None:
                self._transport.close()

    async def _register(self, expires_s: int) -> None:
        tag = token()

        def request(credentials: str) -> Message:
            self._register_cseq += 1
            who = f"<sip:{self.user}@{self._domain}>"
            extra = [("Expires", str(expires_s)), ("Contact", self.contact)]
            return self._request(
                "REGISTER",
                f"sip:{self._domain}",
                f"{who};tag={tag}",
                who,
                self._registration,
                self._register_cseq,
                [*extra, *([("Authorization", credentials)] if credentials else [])],
            )

        answer = await self._ask(request(""))
        if answer.status == 401:
            uri = f"sip:{self._domain}"
            answer = await self._ask(
                request(authorization(answer["www-authenticate"], "REGISTER", uri, self.user, self.password))
            )
        if answer.status != 200:
            raise SipError(f"{self.user} can't register: {answer.first}")

    @property
    def contact(self) -> str:
        """Where this telephone is reached."""
        return f"<sip:{self.user}@{HOST}:{self._port}>"

    @property
    def _domain(self) -> str:
        return f"{self.server[0]}:{self.server[1]}"

    # ---- Calling ---------------------------------------------------------------------------------------

    async def call(self, extension: str) -> Call:
        """Call; returns once the request is on its way. See `Call.wait_answered`."""
        call = Call(self, f"{token()}@{HOST}", outgoing=True)
        call.target = f"sip:{extension}@{self._domain}"
        call.local = f"<sip:{self.user}@{self._domain}>;tag={token()}"
        call.remote = f"<{call.target}>"
        self.calls[call.call_id] = call
        self._do(self._invite(call), f"call to {extension}")
        return call

    async def _invite(self, call: Call) -> None:
        body, credentials = call.describe(), ""
        for _ in range(2):
            invite = self._in_call(call, "INVITE", credentials=credentials, body=body)
            call.invite = invite
            final = await self._ask(invite, provisional=call)
            if final.status >= 300:
                self._acknowledge_failure(invite, final)
            if final.status != 401 or credentials:
                break
            credentials = authorization(
                final["www-authenticate"], "INVITE", call.target, self.user, self.password
            )
            call.cseq += 1
        if final.status >= 300:
            call.close(Ended("us" if call.hanging_up else "them", final.status))
            return
        now = time.monotonic()
        call.remote = final["to"]
        call.target = address_of(final["contact"]) or call.target
        self._send(self._in_call(call, "ACK", cseq=invite.cseq))
        if call.hanging_up:  # it was answered while we gave up
            await self._bye(call)
            return
        call.connect(final.body)
        call.answer_now(now)

    def _acknowledge_failure(self, invite: Message, final: Message) -> None:
        """The ACK to a failure belongs to the request's own transaction."""
        uri = invite.first.split()[1]
        headers = [
            ("Via", invite["via"]),
            ("Max-Forwards", "70"),
            ("From", invite["from"]),
            ("To", final["to"]),
        ]
        headers += [("Call-ID", invite.call_id), ("CSeq", f"{invite.cseq} ACK")]
        self._send(Message(f"ACK {uri} SIP/2.0", headers))

    async def hang_up(self, call: Call) -> Ended:
        """End a call in whatever way its state asks for."""
        if call.closed.done():
            return call.closed.result()
        call.hanging_up = True
        if call.answered.is_set():
            await self._bye(call)
        elif call.outgoing:
            assert call.invite is not None
            invite = call.invite
            headers = [("Via", invite["via"]), ("Max-Forwards", "70"), ("From", invite["from"])]
            headers += [("To", invite["to"]), ("Call-ID", invite.call_id), ("CSeq", f"{invite.cseq} CANCEL")]
            await self._ask(Message(f"CANCEL {invite.first.split()[1]} SIP/2.0", headers))
            await call.wait_closed()
        else:
            self._refuse(call, 486)
        return call.closed.result()

    async def _bye(self, call: Call) -> None:
        call.cseq += 1
        call.close(Ended("us"))
        await self._ask(self._in_call(call, "BYE"))

    # ---- Being called ----------------------------------------------------------------------------------

    async def next_call(self, timeout_s: float = 10.0) -> Call:
        """The next call that comes in, as soon as it rings.

        Raises:
            TimeoutError: none came.
        """
        async with asyncio.timeout(timeout_s):
            return await self.incoming.get()

    def _called(self, invite: Message) -> None:
        call = Call(self, invite.call_id, outgoing=False)
        call.invite = invite
        call.local = f"{invite['to']};tag={token()}"
        call.remote = invite["from"]
        call.target = address_of(invite["contact"])
        self.calls[call.call_id] = call
        self._answer(invite, invite.answer(100))
        self._answer(invite, invite.answer(180, tag=parameter(call.local, "tag"), contact=self.contact))
        call.ringing.set()
        self.incoming.put_nowait(call)
        self._do(self._pick(call), f"{self.user} is called")

    async def _pick(self, call: Call) -> None:
        """Do with a call what this telephone does."""
        if self.picks == "ring":
            return
        await asyncio.sleep(self.after_s)
        if call.closed.done():
            return
        if self.picks == "busy":
            self._refuse(call, 486)
        elif self.picks == "reject":
            self._refuse(call, 603)
        else:
            assert call.invite is not None
            body = call.describe()
            call.connect(call.invite.body)
            call.answer_now(time.monotonic())
            self._answer(
                call.invite,
                call.invite.answer(200, tag=parameter(call.local, "tag"), contact=self.contact, body=body),
            )

    def _refuse(self, call: Call, status: int) -> None:
        assert call.invite is not None
        self._answer(call.invite, call.invite.answer(status, tag=parameter(call.local, "tag")))
        call.close(Ended("us", status))

    # ---- Messages --------------------------------------------------------------------------------------

    def _in_call(
        self, call: Call, method: str, *, cseq: int = 0, credentials: str = "", body: str = ""
    ) -> Message:
        extra = [("Contact", self.contact)]
        if credentials:
            extra.append(("Authorization", credentials))
        if body:
            extra.append(("Content-Type", "application/sdp"))
        return self._request(
            method, call.target, call.local, call.remote, call.call_id, cseq or call.cseq, extra, body
        )

    def _request(
        self,
        method: str,
        uri: str,
        sender: str,
        to: str,
        call_id: str,
        cseq: int,
        extra: Sequence[tuple[str, str]] = (),
        body: str = "",
    ) -> Message:
        headers = [
            ("Via", f"SIP/2.0/UDP {HOST}:{self._port};rport;branch=z9hG4bK{token()}"),
            ("Max-Forwards", "70"),
            ("From", sender),
            ("To", to),
            ("Call-ID", call_id),
            ("CSeq", f"{cseq} {method}"),
            ("User-Agent", "test telephone"),
            *extra,
        ]
        return Message(f"{method} {uri} SIP/2.0", headers, body)

    async def _ask(self, request: Message, provisional: Call | None = None) -> Message:
        """Send a request, again and again until something comes, and wait for its final answer.

        Raises:
            TimeoutError: none came. An INVITE that rings may take as long as it likes.
        """
        key = (request.branch, request.method)
        answers = self._pending[key] = asyncio.Queue()
        try:
            async with asyncio.timeout(ANSWER_S) as deadline:
                again: float | None = AGAIN_S
                while True:
                    if again:
                        self._send(request)
                    try:
                        answer = await asyncio.wait_for(answers.get(), again)
                    except TimeoutError:
                        continue
                    if answer.status >= 200:
                        return answer
                    again = None
                    deadline.reschedule(None)
                    if provisional is not None and answer.status == 180:
                        provisional.ringing.set()
        finally:
            del self._pending[key]

    def _send(self, message: Message) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(message.encode(), self.server)

    def _answer(self, request: Message, answer: Message) -> None:
        self._answers[request.branch, request.method] = answer
        self._send(answer)

    def received(self, message: Message) -> None:
        """A message came."""
        if message.status:
            waiting = self._pending.get((message.branch, message.method))
            if waiting is not None:
                waiting.put_nowait(message)
            elif message.method == "INVITE" and message.status == 200 and message.call_id in self.calls:
                # Our ACK was lost: it is said again.
                self._send(self._in_call(self.calls[message.call_id], "ACK", cseq=message.cseq))
            return
        earlier = self._answers.get((message.branch, message.method))
        if earlier is not None:
            self._send(earlier)
            return
        self._requested(message)

    def _requested(self, request: Message) -> None:
        call = self.calls.get(request.call_id)
        match request.method:
            case "INVITE" if call is None:
                self._called(request)
            case "INVITE" | "UPDATE" if call is not None:
                self._changed(call, request)
            case "CANCEL" if call is not None:
                self._answer(request, request.answer(200, tag=parameter(call.local, "tag")))
                if not call.answered.is_set() and call.invite is not None and not call.closed.done():
                    self._answer(call.invite, call.invite.answer(487, tag=parameter(call.local, "tag")))
                    call.close(Ended("them", 487))
            case "BYE" if call is not None:
                self._answer(request, request.answer(200))
                call.close(Ended("them"))
            case "ACK":
                pass
            case "OPTIONS" | "NOTIFY" | "INFO" | "MESSAGE":
                self._answer(request, request.answer(200, tag=token()))
            case "BYE" | "CANCEL":
                self._answer(request, request.answer(481, tag=token()))
            case _:
                self._answer(request, request.answer(501, tag=token()))

    def _changed(self, call: Call, request: Message) -> None:
        """The other side changes the session: where the sound goes, who is on the line."""
        body = ""
        if "m=audio" in request.body:
            call.connect(request.body)
        if request.body or request.method == "INVITE":
            body = call.describe()
        self._answer(request, request.answer(200, contact=self.contact, body=body))

    def _do(self, work: object, name: str) -> None:
        assert asyncio.iscoroutine(work)
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Wire(asyncio.DatagramProtocol):
    """The telephone's SIP socket."""

    def __init__(self, phone: Phone) -> None:
        self._phone = phone

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """A datagram came; empty ones keep NATs open."""
        if data.strip():
            self._phone.received(Message.parse(data))
