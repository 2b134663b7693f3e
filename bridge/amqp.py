"""One connection to a RabbitMQ, which comes back by itself; of each message it is known whether it left.

Only for publishing, and nothing is ever published twice: a message whose confirmation did not come may be in
its queue, and whoever gave it is told so. That is why this is built on aiormq and not on aio-pika's robust
connection above it. Each message has a channel of its own, so that a fault of one (an exchange that is not
there closes the channel) takes no other's confirmation along.

A connection on which a confirmation is overdue is reset, not closed. RabbitMQ reads on from a closed one:
measured with 3.10, what is sent while it lacks memory is in the queue when it has some again, maybe an hour
later, and would open a door to whoever stands there then. After a reset it finds nothing to read.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import time
import urllib.parse
from collections import Counter
from dataclasses import dataclass
from threading import Lock
from typing import Any

import aiormq
import structlog
from aiormq.abc import AbstractChannel
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from aiormq.exceptions import (
    AMQPError,
    ChannelAccessRefused,
    ChannelInvalidStateError,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionClosed,
    DeliveryError,
    ProbableAuthenticationError,
    ProtocolSyntaxError,
    PublishError,
)

from bridge.amqp_address import BrokerAddress

CONNECT_S = 5.0
"""For one attempt, from the name's resolution to the broker's welcome."""
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
"""Between attempts: doubled each time, from the first to the longest."""
HEARTBEAT_S = 10
"""A broker that says nothing for three of them is taken for lost."""
CLOSE_S = 1.0
PERSISTENT = 2

REFUSED_BY_BROKER = (
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelLockedResource,
    ChannelPreconditionFailed,
)
"""The broker closed the channel over the message: it took none."""

log = structlog.get_logger(__name__)
# It writes of each attempt, with tracebacks, what is said below once and in words.
logging.getLogger("aiormq").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Letter:
    """One message.

    Attributes:
        id: its message id; of no other message.
        body: JSON.
        queue: the routing key, which at the default exchange is the queue's name.
        exchange: empty: the default one.
        expires_s: the broker throws it away where nobody took it by then; 0: it waits for ever.
    """

    id: str
    body: bytes
    queue: str
    exchange: str = ""
    expires_s: float = 0.0

    @property
    def where(self) -> str:
        """How people hear of where it goes."""
        return f"queue {self.queue}" if not self.exchange else f"exchange {self.exchange}, key {self.queue}"


@dataclass(frozen=True, slots=True)
class Posted:
    """What became of a letter.

    Attributes:
        confirmed: the broker has it, in a queue.
        detail: in words for people.
        unknown: not confirmed, and it may be in the queue all the same.
    """

    confirmed: bool
    detail: str
    unknown: bool = False


class Broker:
    """The connection to one broker."""

    def __init__(self, address: BrokerAddress) -> None:
        self.address = address
        self._link: Link | None = None
        self._up = asyncio.Event()
        self._trouble = "no connection was tried yet"
        self._task: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._up.is_set()

    @property
    def trouble(self) -> str:
        """Why there is none, in words; empty where there is one."""
        return "" if self.connected else self._trouble

    def start(self) -> None:
        """Connect, and again whenever the connection is lost. Returns at once; more than once is harmless."""
        if self._task is None:
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._run(), name=f"connection to {self.address.name}")

    async def stop(self) -> None:
        """Let the connection go. More than once is harmless."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task}, timeout=CLOSE_S)
        link, self._link = self._link, None
        self._up.clear()
        self._trouble = "the service stops"
        if link is not None:
            await close(link.connection)

    # ----------------------------------------------------------------------------------------------------
    # The connection
    # ----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        pause, told = FIRST_PAUSE_S, ""
        while True:
            try:
                link = await connect(self.address)
            except BrokerAway as error:
                self._trouble = str(error)
                if self._trouble != told:  # once, not at each attempt
                    told = self._trouble
                    log.warning("amqp.away", broker=self.address.name, reason=self._trouble)
            else:
                pause, told = FIRST_PAUSE_S, ""
                await self._hold(link)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _hold(self, link: Link) -> None:
        """Have it used until it is lost."""
        log.info("amqp.connected", broker=self.address.name, user=self.address.user, vhost=self.address.vhost)
        self._link = link
        self._up.set()
        await asyncio.wait({link.connection.closing})
        self._up.clear()
        self._link = None
        self._trouble = f"{self.address.name} is away: the connection was lost"
        log.warning("amqp.lost", broker=self.address.name)

    async def _usable(self) -> Link:
        """A connection on which the broker takes messages: it blocks them when short of memory or disk."""
        while True:
            await self._up.wait()
            link = self._link
            if link is None:
                continue
            unblocked = asyncio.ensure_future(link.connection.ready())
            closing = link.connection.closing
            try:
                await asyncio.wait({unblocked, closing}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                unblocked.cancel()
                closing.cancel()
            if link.connection.is_opened and unblocked.done():
                return link
            await asyncio.sleep(0.02)  # lost, and _hold has not heard of it yet

    # ----------------------------------------------------------------------------------------------------
    # Messages
    # ----------------------------------------------------------------------------------------------------

    async def post(self, letter: Letter, timeout_s: float) -> Posted:
        """Hand a letter to the broker, once: persistent, to a queue that there is, confirmed.

        Waits for a broker that is away until `timeout_s` is over. Never raises for what a broker does; when
        cancelled, the letter may have left.
        """
        sending = _Sending()
        try:
            async with asyncio.timeout(timeout_s):
                return await self._post(letter, sending)
        except TimeoutError:
            if sending.link is not None:
                sending.link.line.reset()
            return self._too_late(sending, timeout_s)
        except (AMQPError, ChannelInvalidStateError, OSError, RuntimeError) as error:
            if not sending.sent:
                return Posted(False, f"{self.address.name} is away: {plain(error)}")
            return Posted(False, self._not_known("the connection was lost before it confirmed"), True)
        finally:
            if sending.channel is not None:
                await close(sending.channel)

    async def _post(self, letter: Letter, sending: _Sending) -> Posted:
        name = self.address.name
        link = sending.link = await self._usable()
        channel = sending.channel = await link.connection.channel(on_return_raises=True)
        sending.sent = True
        try:
            await channel.basic_publish(
                letter.body,
                exchange=letter.exchange,
                routing_key=letter.queue,
                properties=_properties(letter),
                mandatory=True,
            )
        except PublishError:
            return Posted(False, f"{name} has no {letter.where} (virtual host {self.address.vhost})")
        except DeliveryError:
            return Posted(False, f"{name} refused the message: {letter.where} is full, or takes none")
        except REFUSED_BY_BROKER as error:
            return Posted(False, f"{name} refused the message for {letter.where}: {plain(error)}")
        return Posted(True, f"{name} has it, {letter.where}")

    def _too_late(self, sending: _Sending, timeout_s: float) -> Posted:
        if sending.sent:
            return Posted(False, self._not_known(f"it did not confirm in {timeout_s:g} s"), True)
        if sending.link is not None:
            return Posted(False, f"{self.address.name} gave no answer in {timeout_s:g} s")
        if self.connected:
            return Posted(False, f"{self.address.name} takes no messages now: it lacks memory or disk space")
        return Posted(False, self._trouble)

    def _not_known(self, why: str) -> str:
        return f"{self.address.name}: {why}; whether the queue has the message is not known; not sent again"


@dataclass(slots=True)
class _Sending:
    """How far a letter has come."""

    sent: bool = False
    """Something of it may have left."""
    link: Link | None = None
    channel: AbstractChannel | None = None


class Brokers:
    """The connections of a service: one for each broker and login, as long as anybody uses it."""

    def __init__(self) -> None:
        self._brokers: dict[BrokerAddress, Broker] = {}
        self._users: Counter[BrokerAddress] = Counter()
        self._lock = Lock()
        """Leases are made in threads, and end on the event loop."""

    def lease(self) -> Lease:
        """For one user."""
        return Lease(self)

    def taken(self, address: BrokerAddress) -> Broker:
        """The one at an address, which has one user more."""
        with self._lock:
            self._users[address] += 1
            broker = self._brokers.get(address)
            if broker is None:
                broker = self._brokers[address] = Broker(address)
            return broker

    async def given_back(self, address: BrokerAddress) -> None:
        """It has one user less."""
        with self._lock:
            self._users[address] -= 1
            unused = None if self._users[address] > 0 else self._brokers.pop(address, None)
        if unused is not None:
            await unused.stop()

    async def stop(self) -> None:
        """Let all of them go. More than once is harmless."""
        with self._lock:
            brokers = tuple(self._brokers.values())
            self._brokers.clear()
        await asyncio.gather(*(broker.stop() for broker in brokers))


class Lease:
    """What one user needs of them."""

    def __init__(self, brokers: Brokers) -> None:
        self._all = brokers
        self._taken: dict[BrokerAddress, Broker] = {}

    def at(self, address: BrokerAddress) -> Broker:
        """The broker at an address, which connects once this lease is started."""
        if address not in self._taken:
            self._taken[address] = self._all.taken(address)
        return self._taken[address]

    def start(self) -> None:
        """Have them connect."""
        for broker in self._taken.values():
            broker.start()

    async def end(self) -> None:
        """They are not needed any more. More than once is harmless."""
        taken, self._taken = self._taken, {}
        for address in taken:
            await self._all.given_back(address)


class Line(TransportFactory):
    """Opens the connection's socket, and can reset it."""

    def __init__(self, *, tls: bool) -> None:
        self._factory = TLSTransportFactory() if tls else TCPTransportFactory()
        self._writer: asyncio.StreamWriter | None = None

    async def create(self, url: Any, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """See :class:`aiormq.connection.TransportFactory`."""
        reader, self._writer = await self._factory.create(url, **kwargs)
        return reader, self._writer

    def reset(self) -> None:
        """Take back what the broker has not read yet, as far as TCP can."""
        if self._writer is None or self._writer.transport.is_closing():
            return
        found = self._writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


@dataclass(frozen=True, slots=True)
class Link:
    """An open connection and its socket."""

    connection: aiormq.Connection
    line: Line


class BrokerAway(Exception):
    """There is no connection; the text is for people."""


async def connect(address: BrokerAddress) -> Link:
    """One attempt to connect.

    Raises:
        BrokerAway: it failed; why.
    """
    line = Line(tls=address.tls)
    try:
        async with asyncio.timeout(CONNECT_S):
            connection = await aiormq.connect(_with_options(address), transport_factory=line)
    except TimeoutError:
        raise BrokerAway(f"{address.name} is away: it gave no answer in {CONNECT_S:g} s") from None
    except (AMQPError, OSError, RuntimeError, EOFError) as error:
        raise BrokerAway(_why_away(address, error)) from error
    return Link(connection, line)


def _with_options(address: BrokerAddress) -> str:
    """The URL with what aiormq reads from its query; what stands there already wins."""
    parts = urllib.parse.urlsplit(address.url)
    query = {"name": "porteiro", "heartbeat": str(HEARTBEAT_S)}
    if address.ca_file is not None:
        query["cafile"] = str(address.ca_file)
    query |= urllib.parse.parse_qsl(parts.query)
    return parts._replace(query=urllib.parse.urlencode(query)).geturl()


def _why_away(address: BrokerAddress, error: Exception) -> str:
    if isinstance(error, ProbableAuthenticationError):
        return f"{address.name} refuses the login of {address.user}: the user or the password is wrong"
    # aiormq takes the broker's Connection.Close for an answer out of place, and has it in the text alone.
    if isinstance(error, ConnectionClosed) or "Connection.Close" in str(error):
        return f"{address.name} has no virtual host {address.vhost}, or {address.user} may not use it"
    if isinstance(error, ProtocolSyntaxError) or isinstance(error.__cause__, asyncio.IncompleteReadError):
        return f"{address.name}: what answers there is no AMQP broker, or wants TLS (amqps://)"
    return f"{address.name} is away: {plain(error)}"


async def close(what: aiormq.Connection | AbstractChannel) -> None:
    """Close it in good manners where the broker lets us in time; it is gone with the connection otherwise."""
    if what.is_closed:
        return
    try:
        async with asyncio.timeout(CLOSE_S):
            await what.close()
    except (TimeoutError, AMQPError, ChannelInvalidStateError, OSError, RuntimeError) as error:
        log.debug("amqp.not_closed", reason=plain(error))


def _properties(letter: Letter) -> aiormq.spec.Basic.Properties:
    return aiormq.spec.Basic.Properties(
        content_type="application/json",
        content_encoding="utf-8",
        delivery_mode=PERSISTENT,
        message_id=letter.id,
        expiration=str(round(letter.expires_s * 1000)) if letter.expires_s else None,
        app_id="porteiro",
    )


def plain(error: BaseException) -> str:
    """What went wrong, in words; the innermost cause says most."""
    inner = error
    while isinstance(inner.__cause__, Exception):
        inner = inner.__cause__
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    texts = [str(part) for part in inner.args if isinstance(part, str) and part]
    return texts[-1] if texts else type(inner).__name__


def seconds() -> int:
    """Now, as messages have it: whole seconds since 1970."""
    return int(time.time())
