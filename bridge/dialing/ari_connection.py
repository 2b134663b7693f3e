"""One Asterisk, reached through ARI: its events over one reconnecting WebSocket, and the calls of ours in it.

Shared by the tenants whose settings name the same ARI. Whatever happens here reaches a dial as a *thing* in
its call's queue (`ari_attempt.Thing`); nothing here ever raises into a visit. No channel of ours outlives its
use: a call that is given up is hung up, however far it was, and whenever the events come (back) everything of
ours that nobody waits for is hung up too.
"""

from __future__ import annotations

import asyncio
import base64
import re
import urllib.parse
from collections.abc import Coroutine, Mapping
from typing import Any

import orjson
import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

from bridge.dialing.ari_attempt import (
    Accepted,
    Answered,
    Looked,
    Lost,
    Refused,
    Thing,
    Unclear,
    read_event,
)
from bridge.dialing.ari_rest import AriAddress, AriError, AriLate, AriRest, certificates, plain, refusal

OPEN_S = 4.0
"""For the WebSocket's handshake."""
PING_S = 5.0
"""So often the WebSocket is asked whether it lives, and so long it may take to say so."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0
"""Between two attempts to connect; doubled each time."""
REPLACED_PAUSE_S = 30.0
"""After another program took our application's name: the two must not snatch it back and forth."""
LOST_S = 5.0
"""So long a call waits for the events to come back."""
HANG_UP_PAUSES_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Before each attempt to hang a channel up. What is still there then is found when the events come back."""
STOP_S = 5.0
"""How long the last hang-ups may take."""
ROLE = "resident"
"""The first argument of our channels in the Stasis application: what else enters it is not ours to end."""
APP_VARIABLE, ATTEMPT_VARIABLE = "PORTEIRO_APP", "ATTEMPT"

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

log = structlog.get_logger(__name__)


class Call:
    """One channel of ours, from the order to its end, as a dial sees it."""

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.things: asyncio.Queue[Thing] = asyncio.Queue()
        self.order: asyncio.Task[None] | None = None
        """Runs until Asterisk has taken the order or not; nobody cancels it, so that its end is known."""


class AriConnection:
    """The events and the requests."""

    def __init__(self, address: AriAddress) -> None:
        self.address = address
        self.trouble = f"ARI at {address.url} is not connected yet"
        """Why there are no events, for people."""
        self._verify = certificates(address)
        self._rest: AriRest | None = None
        self._calls: dict[str, Call] = {}
        self._up = asyncio.Event()
        self._users = 0
        self._listener: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._giving_up: asyncio.TimerHandle | None = None

    # ----------------------------------------------------------------------------------------------------
    # Start and stop
    # ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect in the background; an ARI that is down is no error. Each user starts, and stops, once."""
        self._users += 1
        if self._listener is None:
            self._rest = AriRest(self.address, self._verify)
            self._listener = asyncio.get_running_loop().create_task(
                self._listen(self._verify), name=f"events of {self._rest.name}"
            )

    async def stop(self) -> None:
        """Finish the hang-ups that are under way, and disconnect, once the last user stops."""
        self._users = max(0, self._users - 1)
        if self._users or self._listener is None:
            return
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=STOP_S)
        ending = {self._listener, *self._tasks}
        self._listener = None
        for task in ending:
            task.cancel()
        await asyncio.wait(ending, timeout=STOP_S)
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None
        self._up.clear()
        if self._rest is not None:
            await self._rest.close()
            self._rest = None

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _ask(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None
    ) -> Any:
        if self._rest is None:
            raise AriError(f"ARI at {self.address.url} is not connected")
        return await self._rest.ask(method, path, query, body)

    # ----------------------------------------------------------------------------------------------------
    # Calls
    # ----------------------------------------------------------------------------------------------------

    async def ready(self, timeout_s: float) -> bool:
        """Wait until events come; False where they don't in time (`trouble` says why)."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError:
            return False
        return True

    def follow(self, channel: str) -> Call:
        """Take an interest in a channel, before it is ordered."""
        self._calls[channel] = call = Call(channel)
        return call

    def release(self, call: Call, *, over: bool) -> None:
        """Take no further interest. Unless it is ``over`` (gone, or left to the dialplan) it is hung up."""
        self._calls.pop(call.channel, None)
        if call.order is not None and not over:
            self._spawn(f"hang up {call.channel}", self._hang_up(call.channel, call.order))

    def originate(
        self, call: Call, endpoint: str, *, ring_s: int, caller_id: str, variables: Mapping[str, str]
    ) -> None:
        """Have Asterisk call; how that goes comes as things."""
        query = {
            "endpoint": endpoint,
            "app": self.address.app,
            "appArgs": f"{ROLE},{call.channel}",
            "channelId": call.channel,
            "timeout": str(ring_s),
        }
        if caller_id:
            query["callerId"] = caller_id
        own = {APP_VARIABLE: self.address.app, ATTEMPT_VARIABLE: call.channel}
        body = {"variables": {**variables, **own}}
        call.order = self._spawn(f"order {call.channel}", self._order(call, query, body))

    async def _order(self, call: Call, query: Mapping[str, str], body: Any) -> None:
        try:
            try:
                await self._ask("POST", "/channels", query, body)
            except AriLate:
                raise
            except AriError as error:
                if error.status:
                    raise
                # The connection broke. Once more is harmless: the channel's id is given, and a second channel
                # with it is refused with 409.
                await self._ask("POST", "/channels", query, body)
        except AriError as error:
            if error.status == 409:
                call.things.put_nowait(Accepted())  # there is one already: that first order went through
            elif error.status >= 300:
                call.things.put_nowait(Refused(error.status, str(error)))
            else:
                call.things.put_nowait(Unclear(str(error)))
        else:
            call.things.put_nowait(Accepted())

    async def leave_to_dialplan(self, call: Call, context: str) -> None:
        """Send an answered channel on into the dialplan, and go on hearing of it.

        Raises:
            AriError: it can't be.
        """
        app = urllib.parse.quote(self.address.app)
        await self._ask(
            "POST", f"/applications/{app}/subscription", {"eventSource": f"channel:{call.channel}"}
        )
        query = {"context": context, "extension": "s", "priority": "1"}
        await self._ask("POST", f"/channels/{call.channel}/continue", query)

    async def _hang_up(self, channel: str, order: asyncio.Task[None] | None = None) -> None:
        """Hang a channel up that nobody wants; first it must be known whether there is one."""
        if order is not None and not order.done():
            await asyncio.wait({order})
        for pause in HANG_UP_PAUSES_S:
            await asyncio.sleep(pause)
            try:
                await self._ask("DELETE", f"/channels/{channel}")
                return
            except AriError as error:
                if error.status == 404 and pause:
                    return  # not there at the second look either: nothing late has come of the order
                trouble = error
                if error.status in (401, 403):
                    break
        if trouble.status != 404:
            log.error("ari.not_hung_up", channel=channel, reason=str(trouble))

    # ----------------------------------------------------------------------------------------------------
    # Events
    # ----------------------------------------------------------------------------------------------------

    async def _listen(self, verify: Any) -> None:
        """Connect, listen, and again."""
        base = "ws" + self.address.url.removeprefix("http")
        url = f"{base}/events?app={urllib.parse.quote(self.address.app)}"
        identity = f"{self.address.username}:{self.address.password}".encode()
        headers = {"Authorization": f"Basic {base64.b64encode(identity).decode()}"}
        pause = FIRST_PAUSE_S
        name = f"ARI at {self.address.url}"
        while True:
            try:
                async with connect(
                    url,
                    additional_headers=headers,
                    ssl=verify or None,
                    proxy=None,
                    open_timeout=OPEN_S,
                    close_timeout=1.0,
                    ping_interval=PING_S,
                    ping_timeout=PING_S,
                ) as socket:
                    self._connected()
                    pause = FIRST_PAUSE_S
                    if await self._read(socket):
                        pause = REPLACED_PAUSE_S
                trouble = f"{name} closed the connection"
                if pause == REPLACED_PAUSE_S:
                    trouble = f"another program took the application {self.address.app} of {name}"
            except InvalidStatus as error:
                trouble = refusal(name, self.address.username, error.response.status_code)
            except TimeoutError:
                trouble = f"{name} gave no answer in {OPEN_S:g} s"
            except (OSError, WebSocketException, EOFError) as error:
                trouble = f"{name} does not answer: {plain(error)}"
            self._disconnected(trouble)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _read(self, socket: ClientConnection) -> bool:
        """Hand on what comes; True where another program took our place."""
        async for message in socket:
            try:
                event = orjson.loads(message)
            except orjson.JSONDecodeError:
                log.warning("ari.no_json", url=self.address.url)
                continue
            if isinstance(event, dict) and event.get("type") == "ApplicationReplaced":
                log.error("ari.replaced", app=self.address.app, advice="give each service an app of its own")
                return True
            self._heard(event)
        return False

    def _connected(self) -> None:
        log.info("ari.connected", url=self.address.url, app=self.address.app)
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None
        # Not those ordered from now on: their events come, and a look could be quicker than they are.
        unwatched = [(call, call.order) for call in self._calls.values() if call.order is not None]
        self._up.set()
        self._spawn(f"look around in ARI at {self.address.url}", self._look_around(unwatched))

    def _disconnected(self, trouble: str) -> None:
        if self._up.is_set() or trouble != self.trouble:
            log.warning("ari.disconnected", url=self.address.url, reason=trouble)
        self.trouble = trouble
        if self._up.is_set():
            self._up.clear()
            self._giving_up = asyncio.get_running_loop().call_later(LOST_S, self._give_up)

    def _give_up(self) -> None:
        for call in self._calls.values():
            call.things.put_nowait(Lost(self.trouble))

    def _heard(self, event: Any) -> None:
        found = read_event(event)
        if found is None:
            return
        channel, thing = found
        call = self._calls.get(channel)
        if call is not None:
            call.things.put_nowait(thing)
        elif isinstance(thing, Answered) and event.get("args") == [ROLE, channel]:
            self._end_orphan(channel)

    # ----------------------------------------------------------------------------------------------------
    # Orphans
    # ----------------------------------------------------------------------------------------------------

    def _end_orphan(self, channel: str) -> None:
        log.warning("ari.orphan", channel=channel)
        self._spawn(f"hang up {channel}", self._hang_up(channel))

    async def _look_around(self, unwatched: list[tuple[Call, asyncio.Task[None]]]) -> None:
        """The events begin, maybe anew: see how calls stand that went on without, end all others of ours."""
        for call, order in unwatched:
            self._spawn(f"look at {call.channel}", self._look_at(call, order))
        try:
            for channel in await self._ask("GET", "/channels"):
                if await self._is_orphan(channel):
                    self._end_orphan(channel["id"])
        except (AriError, KeyError, TypeError) as error:
            log.warning("ari.orphans_unknown", url=self.address.url, reason=str(error))

    async def _look_at(self, call: Call, order: asyncio.Task[None]) -> None:
        await asyncio.wait({order})
        try:
            channel = await self._ask("GET", f"/channels/{call.channel}")
        except AriError as error:
            if error.status == 404:
                call.things.put_nowait(Looked(there=False, waiting=False))
            return  # else the next connection looks again, or the dial's own time runs out
        call.things.put_nowait(Looked(there=True, waiting=self._waits(channel)))

    def _waits(self, channel: Any) -> bool:
        """Whether a channel was answered and stands in our application, with nobody to send it on."""
        plan = channel.get("dialplan") or {}
        ours = f"{self.address.app},{ROLE},{channel['id']}"
        return bool(plan.get("app_name") == "Stasis" and plan.get("app_data") == ours)

    async def _is_orphan(self, channel: Any) -> bool:
        """Whether a channel is ours and nobody waits for it; a conversation never is, for it left Stasis."""
        name = channel["id"]
        if name in self._calls or not _UUID.fullmatch(name):
            return False
        if self._waits(channel):
            return True
        if channel.get("state") == "Up":
            return False
        try:
            found = await self._ask("GET", f"/channels/{name}/variable", {"variable": APP_VARIABLE})
        except AriError as error:
            if error.status in (404, 409):  # gone, or a channel without the variable
                return False
            raise
        return bool(found.get("value") == self.address.app) and name not in self._calls
