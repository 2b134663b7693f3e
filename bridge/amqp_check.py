"""Whether the brokers that tenants name would take their messages now, and whether anybody takes them there.

Changes nothing and publishes nothing: queues and exchanges are only looked at.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import aiormq
from aiormq.exceptions import AMQPChannelError, AMQPError, ChannelInvalidStateError, ChannelNotFoundEntity

from bridge.amqp import CONNECT_S, BrokerAway, close, connect, plain
from bridge.amqp_address import BrokerAddress, read_address
from bridge.settings import AmqpDialer, AmqpGate, Settings


@dataclass(slots=True)
class Looked:
    """What was found, in words: a line for each thing that is well, and for each that is not."""

    answers: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)


async def look_at_brokers(settings: Settings) -> Looked:
    """Ask every broker that a tenant's dialer or gate needs; each once."""
    looked = Looked()
    needed: dict[BrokerAddress, list[tuple[str, AmqpDialer | AmqpGate]]] = {}
    for tenant in settings.tenants.values():
        for table, part in tenant.amqp_parts:
            where = f"tenants.{tenant.id}.{table}"
            try:
                address = read_address(settings.secret(part.url_env) or "", part.ca_file)
            except ValueError as error:
                looked.troubles.append(f"{where}.url_env: the environment variable {part.url_env} {error}")
                continue
            needed.setdefault(address, []).append((where, part))
    for address, parts in needed.items():
        try:
            await _look_at(address, parts, looked)
        except BrokerAway as error:
            names = ", ".join(where for where, _ in parts)
            variable = parts[0][1].url_env
            looked.troubles.append(f"{names}: {error}; start it, or correct the URL in {variable}")
    return looked


async def _look_at(
    address: BrokerAddress, parts: list[tuple[str, AmqpDialer | AmqpGate]], looked: Looked
) -> None:
    connection = (await connect(address)).connection
    try:
        async with asyncio.timeout(CONNECT_S):
            for where, part in parts:
                await _look_for(connection, address, where, part, looked)
    except (TimeoutError, AMQPError, ChannelInvalidStateError, OSError) as error:
        raise BrokerAway(f"{address.name} is away: {plain(error)}") from error
    finally:
        await close(connection)


async def _look_for(
    connection: aiormq.Connection,
    address: BrokerAddress,
    where: str,
    part: AmqpDialer | AmqpGate,
    looked: Looked,
) -> None:
    what, setting = (
        (f"exchange {part.exchange}", "exchange") if part.exchange else (f"queue {part.queue}", "queue")
    )
    channel = await connection.channel()
    consumers: int | None = None
    try:
        if part.exchange:
            await channel.exchange_declare(part.exchange, passive=True)
        else:
            consumers = (await channel.queue_declare(part.queue, passive=True)).consumer_count or 0
    except ChannelNotFoundEntity:
        looked.troubles.append(
            f"{where}: {address.name} has no {what} (virtual host {address.vhost}); have the site's system "
            f"declare it, or name another in {setting}"
        )
        return
    except AMQPChannelError as error:
        looked.troubles.append(f"{where}: {address.name} does not let us look at the {what}: {plain(error)}")
        return
    finally:
        await close(channel)
    if consumers == 0:
        looked.troubles.append(
            f"{where}: {address.name}: nobody takes messages from the {what} now; start the site's system"
        )
        return
    taken = "" if consumers is None else f", {consumers} take from it"
    looked.answers.append(f"{where}: {address.name} answers, and has the {what}{taken}")
