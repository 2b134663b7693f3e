"""The connection to a real RabbitMQ: what is said of a message is true, and none is ever sent twice."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiormq
import pytest
import uvloop

from bridge.amqp import Broker, BrokerAway, Brokers, Letter, Posted, close, connect
from bridge.amqp_address import read_address
from tests.amqp.rabbit import Middle, Rabbit, Wire
from tests.ports import free_port
from tests.service.household import until

pytestmark = pytest.mark.rabbitmq

QUEUE = "fila_autorizacao"
DOOR = Path(__file__).resolve().parents[1] / "gates" / "door.pem"
"""A certificate for 127.0.0.1 that nobody signed, and its key."""


def letter(name: str = "a", queue: str = QUEUE, exchange: str = "", expires_s: float = 0.0) -> Letter:
    return Letter(name, b'{"letter":"%s"}' % name.encode(), queue, exchange, expires_s)


async def names(rabbit: Rabbit, queue: str = QUEUE) -> list[str]:
    """The letters in a queue; they are taken out."""
    return [message["letter"] for message in await rabbit.take(queue)]


async def up(broker: Broker) -> None:
    await until(lambda: broker.connected, what="the connection")


async def test_what_is_confirmed_is_in_the_queue_and_lasts(rabbit: Rabbit, broker: Broker) -> None:
    posted = await broker.post(letter("ação", expires_s=60), 5)
    assert posted == Posted(True, f"RabbitMQ at 127.0.0.1:{rabbit.port} has it, queue {QUEUE}")
    (message,) = await rabbit.take(QUEUE)
    assert message["letter"] == "ação"
    properties: aiormq.spec.Basic.Properties = message["_"]
    assert properties.delivery_mode == 2
    assert properties.message_id == "ação"
    assert properties.expiration == "60000"
    assert properties.content_type == "application/json"


async def test_what_is_confirmed_outlives_a_power_cut(rabbit: Rabbit, broker: Broker) -> None:
    """And the connection comes back by itself, for a message that was given while the broker was away."""
    assert (await broker.post(letter("before"), 5)).confirmed
    await asyncio.to_thread(rabbit.kill)
    await until(lambda: not broker.connected, what="the connection's loss")
    refused = await broker.post(letter("meanwhile"), 0.5)
    assert (refused.confirmed, refused.unknown) == (False, False)
    assert refused.detail.startswith(f"RabbitMQ at 127.0.0.1:{rabbit.port} is away: ")
    waiting = asyncio.create_task(broker.post(letter("waited"), 60))
    await asyncio.to_thread(rabbit.start)
    assert (await waiting).confirmed
    assert await names(rabbit) == ["before", "waited"]


async def test_a_queue_that_is_not_there_is_said_to_be_missing(rabbit: Rabbit, broker: Broker) -> None:
    posted = await broker.post(letter(queue="nowhere"), 5)
    assert posted == Posted(
        False, f"RabbitMQ at 127.0.0.1:{rabbit.port} has no queue nowhere (virtual host /)"
    )
    assert (await broker.post(letter("next"), 5)).confirmed


async def test_a_fault_of_one_message_takes_no_other_along(rabbit: Rabbit, broker: Broker) -> None:
    """An exchange that is not there closes the channel: each message has its own."""
    good = [broker.post(letter(f"g{number}"), 5) for number in range(20)]
    bad = [broker.post(letter(f"b{number}", exchange="nowhere"), 5) for number in range(20)]
    posted = await asyncio.gather(*(one for pair in zip(good, bad, strict=True) for one in pair))
    assert [one.confirmed for one in posted] == [True, False] * 20
    assert not any(one.unknown for one in posted)
    assert "no exchange 'nowhere'" in posted[1].detail
    assert sorted(await names(rabbit)) == sorted(f"g{number}" for number in range(20))


async def test_a_full_queue_refuses_and_says_so(rabbit: Rabbit, broker: Broker) -> None:
    await rabbit.declare("full", **{"x-max-length": 1, "x-overflow": "reject-publish"})
    assert (await broker.post(letter("first", "full"), 5)).confirmed
    posted = await broker.post(letter("second", "full"), 5)
    assert posted == Posted(
        False, f"RabbitMQ at 127.0.0.1:{rabbit.port} refused the message: queue full is full, or takes none"
    )
    assert await names(rabbit, "full") == ["first"]


async def test_a_message_that_nobody_takes_in_time_is_thrown_away(rabbit: Rabbit, broker: Broker) -> None:
    assert (await broker.post(letter(expires_s=0.3), 5)).confirmed
    await asyncio.sleep(0.6)
    assert await names(rabbit) == []


async def test_a_broker_short_of_memory_takes_nothing_and_nothing_arrives_later(
    rabbit: Rabbit, broker: Broker
) -> None:
    """A door's order that was answered as not confirmed must not open the door when memory is back."""
    assert (await broker.post(letter("before"), 5)).confirmed
    await asyncio.to_thread(rabbit.ctl, "set_vm_memory_high_watermark", "0.00001")
    try:
        posted = await broker.post(letter("unread"), 1)
        assert (posted.confirmed, posted.unknown) == (False, True)
        assert "not known; not sent again" in posted.detail
        await asyncio.sleep(0.5)
    finally:
        await asyncio.to_thread(rabbit.ctl, "set_vm_memory_high_watermark", "0.4")
    assert (await broker.post(letter("after"), 10)).confirmed
    await asyncio.sleep(0.5)
    assert await names(rabbit) == ["before", "after"]


async def test_on_a_connection_that_the_broker_has_blocked_nothing_is_sent(
    rabbit: Rabbit, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.amqp.Line.reset", lambda _: None)  # it stays on the blocked connection
    await up(broker)
    await asyncio.to_thread(rabbit.ctl, "set_vm_memory_high_watermark", "0.00001")
    try:
        assert (await broker.post(letter("first"), 1)).unknown
        posted = await broker.post(letter("second"), 0.5)
        assert posted == Posted(
            False,
            f"RabbitMQ at 127.0.0.1:{rabbit.port} takes no messages now: it lacks memory or disk space",
        )
    finally:
        await asyncio.to_thread(rabbit.ctl, "set_vm_memory_high_watermark", "0.4")
    assert (await broker.post(letter("third"), 10)).confirmed
    assert "second" not in await names(rabbit)


async def test_a_connection_cut_before_the_confirmation_is_not_known_and_not_repeated(
    rabbit: Rabbit, wire: Wire, wired: Broker
) -> None:
    await up(wired)
    wire.cut_after = 1
    posted = await wired.post(letter("cut"), 5)
    assert posted == Posted(
        False,
        f"RabbitMQ at 127.0.0.1:{wire.port}: the connection was lost before it confirmed; "
        "whether the queue has the message is not known; not sent again",
        True,
    )
    assert (await wired.post(letter("next"), 10)).confirmed
    await asyncio.sleep(0.3)
    assert await names(rabbit) == ["cut", "next"]  # it was there, once


async def test_a_broker_that_falls_silent_is_given_up_and_connected_to_anew(
    rabbit: Rabbit, wire: Wire, wired: Broker
) -> None:
    assert (await wired.post(letter("first"), 5)).confirmed
    await asyncio.sleep(0.1)  # the first one's channel has closed
    wire.lets_back.clear()
    posted = await wired.post(letter("silence"), 0.5)
    # Not even a channel was opened: nothing has left.
    assert posted == Posted(False, f"RabbitMQ at 127.0.0.1:{wire.port} gave no answer in 0.5 s")
    wire.lets_back.set()
    assert (await wired.post(letter("next"), 10)).confirmed
    assert await names(rabbit) == ["first", "next"]


async def test_a_broker_that_is_away_at_the_start_is_used_once_it_is_there(
    rabbit: Rabbit, wire: Wire
) -> None:
    await wire.close()
    broker = Broker(read_address(rabbit.url(port=wire.port)))
    broker.start()
    try:
        posted = await broker.post(letter("early"), 0.3)
        assert (posted.confirmed, posted.unknown) == (False, False)
        assert broker.trouble.startswith(f"RabbitMQ at 127.0.0.1:{wire.port} is away: ")
        waiting = asyncio.create_task(broker.post(letter("patient"), 20))
        await asyncio.sleep(0.3)
        await wire.open()
        assert (await waiting).confirmed
        assert broker.trouble == ""
    finally:
        await broker.stop()
    assert await names(rabbit) == ["patient"]


@pytest.mark.parametrize("where", ["password", "vhost", "port", "name", "tls", "no broker"])
async def test_why_there_is_no_connection_is_said_in_words(rabbit: Rabbit, where: str) -> None:
    port = free_port()

    def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    mute = await asyncio.start_server(refuse, "127.0.0.1", 0)
    at = f"RabbitMQ at 127.0.0.1:{rabbit.port}"
    other = mute.sockets[0].getsockname()[1]
    url, said = {
        "password": (
            rabbit.url("wrong-secret"),
            f"{at} refuses the login of guest: the user or the password is wrong",
        ),
        "vhost": (rabbit.url(vhost="none"), f"{at} has no virtual host none, or guest may not use it"),
        "port": (rabbit.url(port=port), f"RabbitMQ at 127.0.0.1:{port} is away: "),
        "name": ("amqp://a:wrong-secret@nowhere.invalid", "RabbitMQ at nowhere.invalid:5672 is away: "),
        "tls": (f"amqps://guest:guest@127.0.0.1:{rabbit.port}", f"{at} is away: "),
        "no broker": (
            f"amqp://a:b@127.0.0.1:{other}",
            f"RabbitMQ at 127.0.0.1:{other}: what answers there is no AMQP broker",
        ),
    }[where]
    try:
        with pytest.raises(BrokerAway) as told:
            await connect(read_address(url))
    finally:
        mute.close()
    assert str(told.value).startswith(said)
    assert "wrong-secret" not in str(told.value)
    if where == "password":
        broker = Broker(read_address(url))
        broker.start()
        posted = await broker.post(letter(), 1)
        await broker.stop()
        assert posted == Posted(False, said)


async def test_those_who_name_the_same_broker_share_one_connection(rabbit: Rabbit) -> None:
    brokers = Brokers()
    first, second = brokers.lease(), brokers.lease()
    one = first.at(read_address(rabbit.url()))
    assert first.at(read_address(rabbit.url())) is one
    assert second.at(read_address(rabbit.url())) is one
    assert second.at(read_address(rabbit.url("other"))) is not one
    first.start()
    await up(one)
    listed = await asyncio.to_thread(rabbit.ctl, "--silent", "list_connections", "client_properties")
    assert listed.count("porteiro") == 1
    await first.end()
    await first.end()
    assert one.connected, "somebody else uses it"
    await second.end()
    assert one.trouble
    assert brokers.lease().at(read_address(rabbit.url())) is not one
    await brokers.stop()
    await brokers.stop()
    posted = await one.post(letter(), 0.1)
    assert (posted.confirmed, posted.detail) == (False, "the service stops")


async def test_a_hundred_at_once_with_the_wire_cut_in_their_middle(
    rabbit: Rabbit, wire: Wire, wired: Broker
) -> None:
    """What is said of each is true: confirmed is there once, refused is not there, no one is there twice.

    When the wire is cut, 40 or more have been sent, and the service knows of 10 that they were confirmed.
    """
    await up(wired)
    wire.cut_in = Middle(messages=40, confirmed=10)
    posted = await asyncio.gather(*(wired.post(letter(f"l{number}"), 20) for number in range(100)))
    found = await names(rabbit)
    assert len(found) == len(set(found))
    confirmed = {f"l{number}" for number, one in enumerate(posted) if one.confirmed}
    unknown = {f"l{number}" for number, one in enumerate(posted) if one.unknown}
    assert confirmed <= set(found) <= confirmed | unknown
    assert len(unknown) >= 30
    assert len(confirmed) >= 10


@asynccontextmanager
async def behind_tls(rabbit: Rabbit) -> AsyncIterator[int]:
    """The broker behind TLS, with a certificate that nobody signed; its port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(DOOR)
    links: set[asyncio.Task[None]] = set()

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)
        sink.close()

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", rabbit.port)
        links.update((asyncio.create_task(pump(reader, back)), asyncio.create_task(pump(there, writer))))

    server = await asyncio.start_server(join, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for link in links:
        link.cancel()


async def test_tls_with_a_certificate_of_the_brokers_own(rabbit: Rabbit) -> None:
    async with behind_tls(rabbit) as port:
        url = f"amqps://guest:guest@127.0.0.1:{port}/"
        with pytest.raises(BrokerAway, match="certificate verify failed"):
            await connect(read_address(url))
        broker = Broker(read_address(url, DOOR))
        broker.start()
        assert (await broker.post(letter("tls"), 5)).confirmed
        await broker.stop()
    assert await names(rabbit) == ["tls"]


def test_on_the_loop_that_the_service_runs_on(the_rabbit: Rabbit) -> None:
    """uvloop's sockets are not asyncio's, and a reset is done to the socket."""

    async def story() -> None:
        await the_rabbit.declare(QUEUE)
        wire = Wire(the_rabbit.port)
        await wire.open()
        broker = Broker(read_address(the_rabbit.url(port=wire.port)))
        broker.start()
        assert (await broker.post(letter("one"), 5)).confirmed
        link = await connect(broker.address)
        link.line.reset()
        await asyncio.wait({link.connection.closing}, timeout=5)
        assert not link.connection.is_opened
        await close(link.connection)
        wire.cut()
        assert (await broker.post(letter("two"), 10)).confirmed
        await broker.stop()
        await wire.close()
        assert await names(the_rabbit) == ["one", "two"]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())
