"""Sends the tenants' events out of the outbox, beside the calls and never in their way.

One task looks for what is due; each event that is on its way has a task of its own. What becomes of it is
kept in the outbox alone: no visit waits for a receiver, and no other tenant.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from bridge.settings import Webhooks
from bridge.signing import key_of, signature_headers
from bridge.tenants import TenantInForce
from bridge.webhooks import posting
from bridge.webhooks.delivery import Again, Answer, Lane, Taken, verdict
from bridge.webhooks.lease import Lease
from bridge.webhooks.message import EVENTS, NotTellableError, body_of
from storage.base import Storage, StorageError
from storage.outbox import Due, Outgoing
from visits.audit import stamp

LOOK_S: Final = 1.0
"""So often it is looked what is due."""
TIDY_S: Final = 60.0
"""So often the subscriptions are looked through, and what was given up long ago is forgotten."""
DEPTH_S: Final = 5.0
"""So often it is counted what waits."""
PUT_OFF_S: Final = 5.0
"""After the database could not be asked."""
LEFT_S: Final = 3600.0
"""What another service subscribed to, and nobody has wanted here for so long, was left behind."""
GRACE_S: Final = 3.0
"""What is due when the service stops may take so long; what is not told by then is sent at the next start."""
KEPT: Final = timedelta(days=30)
"""How long what was given up can be sent again."""
LATE_S: Final = 900.0
"""Whoever asks whether all is well is told of what waits for longer."""

log = structlog.stdlib.get_logger(__name__)

Post = Callable[[Webhooks, ssl.SSLContext, Mapping[str, str], bytes], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Backlog:
    """What was still to be told when it was last counted: at most a thousand each.

    ``oldest_s``: since when the first of it waits.
    """

    waiting: int
    oldest_s: float
    given_up: int


class WebhookSender:
    """One a service. :meth:`run` it in a task."""

    def __init__(
        self,
        storage: Storage,
        tenants: Callable[[], Mapping[str, TenantInForce]],
        *,
        post: Post = posting.post,
        look_s: float = LOOK_S,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """
        Args:
            storage: the audit log, with its outbox.
            tenants: those in force, as they are now.
            post: makes one attempt.
        """
        self._storage = storage
        self._outbox = storage.outbox
        self._tenants = tenants
        self._post = post
        self._look_s = look_s
        self._clock = clock
        self._me = storage.service or ""
        self._lanes: dict[str, Lane] = {}
        self._leases: dict[str, Lease] = {}
        self._since: dict[str, tuple[frozenset[str], str]] = {}
        """The kinds that a tenant's events tell of, and since when it wants them."""
        self._trust: dict[Path | None, ssl.SSLContext] = {}
        self._flights: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._changed = True
        self._away = self._closing = False
        self._tidied = self._counted = float("-inf")
        self._backlog: Backlog | None = None
        self._note_wishes()

    @property
    def backlog(self) -> Backlog | None:
        """How much waits in the database; None: nobody is told anything, or it is not known yet."""
        return self._backlog

    @property
    def warnings(self) -> list[str]:
        """What somebody should look after, in fixed words."""
        found = self._backlog
        late = found is not None and found.oldest_s >= LATE_S
        given_up = found is not None and found.given_up > 0
        return ["webhooks_late"] * late + ["webhooks_given_up"] * given_up

    def changed(self, _: frozenset[str]) -> None:
        """Tenants have changed; see :data:`bridge.tenants.Subscriber`."""
        self._note_wishes()
        self._changed = True
        self._wake.set()

    def close(self) -> None:
        """Have :meth:`run` come to its end: it tells what is due, for a few seconds at most."""
        self._closing = True
        self._wake.set()

    async def run(self) -> None:
        """Until it is closed or cancelled. What fails is in the log, and is tried again."""
        try:
            while not self._closing:
                pause_s = self._look_s
                self._wake.clear()
                try:
                    await self._look()
                    self._say_back()
                except StorageError as error:
                    self._say_away(error)
                    pause_s = PUT_OFF_S
                except Exception as error:
                    log.error("webhooks.failed", error=type(error).__name__, exc_info=error)
                    pause_s = PUT_OFF_S
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._wake.wait()
            with suppress(TimeoutError, StorageError):
                async with asyncio.timeout(GRACE_S):
                    await self._finish()
        finally:
            for flight in self._flights:
                flight.cancel()
            await asyncio.gather(*self._flights, return_exceptions=True)

    async def _finish(self) -> None:
        """Until nothing is due that can be sent now."""
        while True:
            self._wake.clear()
            await self._look()
            if not self._flights:
                return
            await self._wake.wait()

    # ----------------------------------------------------------------------------------------------------
    # Who is told what
    # ----------------------------------------------------------------------------------------------------

    def _note_wishes(self) -> None:
        """Remember since when each tenant wants what it wants."""
        now = stamp(self._clock())
        wanted = {name: _kinds(one) for name, one in self._tenants().items()}
        for name in self._since.keys() - wanted.keys():
            del self._since[name]
        for name, kinds in wanted.items():
            if name not in self._since or self._since[name][0] != kinds:
                self._since[name] = (kinds, now)

    async def _subscribe(self) -> None:
        """Have the database note what is wanted, and nothing else of those that are ours."""
        there = await self._outbox.subscriptions()
        for name, (kinds, since) in tuple(self._since.items()):
            old = there.get(name)
            if kinds and (old is None or old.kinds != kinds):
                await self._outbox.subscribe(name, kinds, since=since)
                log.info("webhook.subscribed", tenant=name, kinds=sorted(kinds))
        for name, old in there.items():
            if not self._wanted(name) and (old.service == self._me or self._left(name)):
                await self._outbox.unsubscribe(name)
                log.info("webhook.unsubscribed", tenant=name)

    def _wanted(self, tenant: str) -> frozenset[str]:
        return self._since.get(tenant, (frozenset(), ""))[0]

    def _left(self, tenant: str) -> bool:
        """Whether nobody wants what another service subscribed to, and it did not just hear of it earlier."""
        if tenant not in self._since:
            return False
        return self._clock() - datetime.fromisoformat(self._since[tenant][1]) >= timedelta(seconds=LEFT_S)

    # ----------------------------------------------------------------------------------------------------
    # What is due
    # ----------------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._changed or now - self._tidied >= TIDY_S:
            await self._tidy()
            self._tidied = now
        if not any(kinds for kinds, _ in self._since.values()):
            self._backlog = None
            return
        turns = await self._outbox.turns()
        if self._me:
            await self._see_leases(turns)
        at = stamp(self._clock())
        for name, next_at in turns.items():
            lane = self._lanes.setdefault(name, Lane())
            if self._wanted(name) and next_at <= at and lane.room and await self._may_send(name):
                before = lane.visits
                due = await self._outbox.due(name, at, lane.room + lane.flying)
                for one in lane.start(due, before):
                    self._send(one, lane)
        if now - self._counted >= DEPTH_S:
            await self._count()
            self._counted = now

    async def _tidy(self) -> None:
        self._changed = False
        self._trust.clear()  # a certificate that was renewed is read anew
        try:
            await self._subscribe()
            for name in tuple(self._since):
                if self._wanted(name):
                    await self._outbox.forget_given_up(name, stamp(self._clock() - KEPT))
        except StorageError:
            self._changed = True
            raise

    async def _count(self) -> None:
        depth = await self._outbox.depth()
        age = self._clock() - datetime.fromisoformat(depth.oldest) if depth.oldest else timedelta()
        self._backlog = Backlog(depth.waiting, max(0.0, round(age.total_seconds(), 1)), depth.given_up)

    # ----------------------------------------------------------------------------------------------------
    # Who sends, where several services could
    # ----------------------------------------------------------------------------------------------------

    async def _see_leases(self, turns: Mapping[str, str]) -> None:
        """What the database says; and let go of those for whom nothing waits any more."""
        now = asyncio.get_running_loop().time()
        senders = await self._outbox.senders()
        for name in senders.keys() | turns.keys():
            if self._wanted(name):
                lease = self._leases.setdefault(name, Lease())
                lease.see(*senders.get(name, ("", 0)), now, me=self._me)
        for name, lease in self._leases.items():
            if lease.held and name not in turns and not self._lanes[name].flying:
                lease.let_go()
                await self._outbox.take(name, "", lease.beat)

    async def _may_send(self, tenant: str) -> bool:
        """Whether this service sends a tenant's events now; it counts on where it is time to."""
        if not self._me:
            return True
        loop, lease = asyncio.get_running_loop(), self._leases[tenant]
        if lease.stale(loop.time()) and lease.free(loop.time(), me=self._me):
            began = loop.time()
            lease.counted(await self._outbox.take(tenant, self._me, lease.beat), began, me=self._me)
        return lease.held

    # ----------------------------------------------------------------------------------------------------
    # One event
    # ----------------------------------------------------------------------------------------------------

    def _send(self, due: Due, lane: Lane) -> None:
        flight = asyncio.create_task(self._fly(due, lane), name=f"webhook {due.event.id}")
        self._flights.add(flight)
        flight.add_done_callback(self._flights.discard)

    async def _fly(self, due: Due, lane: Lane) -> None:
        answer = Answer(False, "not sent")
        try:
            answer = await self._attempt(due)
            if lane.trouble == answer.taken:  # it is no longer as it was
                _say_trouble(due.event, answer)
            await self._keep(due.event, answer)
        except StorageError as error:
            # What became of it is not kept: it will be sent once more. Not at once.
            log.warning("webhook.answer_not_kept", event_id=due.event.id, reason=str(error))
            await asyncio.sleep(PUT_OFF_S)
        finally:
            lane.land(due.event.visit, taken=answer.taken)
            self._wake.set()

    async def _attempt(self, due: Due) -> Answer:
        one = self._tenants().get(due.event.tenant)
        webhooks = one.tenant.webhooks if one is not None else None
        if one is None or webhooks is None:
            return Answer(False, "nobody is to be told any more")
        try:
            key = key_of(one.secret(webhooks.secret_env) or "")
            body = body_of(due.event, due.records, personal=webhooks.personal)
            signed = signature_headers(key, due.event.id, int(self._clock().timestamp()), body)
            return await self._post(webhooks, await self._tls(webhooks), signed, body)
        except NotTellableError as error:
            log.error("webhook.not_tellable", event_id=due.event.id, reason=str(error))
            return Answer(False, "its records are not what was sealed", gone=True)
        except ValueError as error:
            return Answer(False, f"the secret holds no key; allowed: {error}")
        except OSError:
            return Answer(False, "webhooks.ca_file can't be used")
        except Exception as error:
            log.error("webhook.failed", event_id=due.event.id, error=type(error).__name__, exc_info=error)
            return Answer(False, f"a fault of this program ({type(error).__name__})")

    async def _tls(self, webhooks: Webhooks) -> ssl.SSLContext:
        """Not read for each event: it takes tens of milliseconds."""
        if webhooks.ca_file not in self._trust:
            self._trust[webhooks.ca_file] = await asyncio.to_thread(posting.tls_of, webhooks)
        return self._trust[webhooks.ca_file]

    async def _keep(self, event: Outgoing, answer: Answer) -> None:
        """Have it in the outbox what became of an attempt."""
        one = self._tenants().get(event.tenant)
        if one is None or one.tenant.webhooks is None:
            return  # its rows go with the subscription
        now = self._clock()
        give_up = timedelta(hours=one.tenant.webhooks.give_up_hours)
        match verdict(event, answer, now=now, give_up=give_up, chance=random.random()):
            case Taken():
                await self._outbox.told(event)
            case Again(next_at):
                await self._outbox.put_off(event, stamp(next_at), answer.words)
            case _:
                about = {"tenant": event.tenant, "event_id": event.id, "attempts": event.attempts + 1}
                log.error("webhook.given_up", **about, answer=answer.words)
                await self._outbox.give_up(event, stamp(now), answer.words)

    # ----------------------------------------------------------------------------------------------------
    # The database
    # ----------------------------------------------------------------------------------------------------

    def _say_away(self, error: StorageError) -> None:
        if not self._away:
            self._away = True
            log.warning("webhooks.put_off", reason=str(error))

    def _say_back(self) -> None:
        if self._away:
            self._away = False
            log.info("webhooks.go_on")


def _say_trouble(event: Outgoing, answer: Answer) -> None:
    """That a tenant's system takes nothing any more, or takes events again: once, however many wait."""
    about = {"tenant": event.tenant, "event_id": event.id, "answer": answer.words}
    if answer.taken:
        log.info("webhook.taken_again", **about)
    else:
        log.warning("webhook.in_trouble", **about)


def _kinds(one: TenantInForce) -> frozenset[str]:
    """The kinds of records that a tenant wants to be told of."""
    webhooks = one.tenant.webhooks
    return frozenset(EVENTS[name] for name in webhooks.events) if webhooks is not None else frozenset()


__all__ = ["Backlog", "WebhookSender"]
