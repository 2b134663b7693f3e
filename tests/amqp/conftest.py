"""One RabbitMQ for all tests of this folder that ask for it; empty queues for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from bridge.amqp import Broker
from bridge.amqp_address import read_address
from tests.amqp.rabbit import NoRabbit, Rabbit, Wire, install


@pytest.fixture(scope="session")
def the_rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rabbit]:
    """The broker, running."""
    try:
        install()
    except NoRabbit as error:
        pytest.skip(str(error))
    rabbit = Rabbit(tmp_path_factory.mktemp("rabbit"))
    try:
        rabbit.start()
        yield rabbit
    finally:
        rabbit.stop()


@pytest.fixture
async def rabbit(the_rabbit: Rabbit) -> Rabbit:
    """The broker, with the queues that sites have, empty."""
    await the_rabbit.declare("api-to-voip1")
    await the_rabbit.declare("fila_autorizacao")
    return the_rabbit


@pytest.fixture
async def broker(rabbit: Rabbit) -> AsyncIterator[Broker]:
    """Our connection to it."""
    made = Broker(read_address(rabbit.url()))
    made.start()
    yield made
    await made.stop()


@pytest.fixture
async def wire(rabbit: Rabbit) -> AsyncIterator[Wire]:
    """A wire to the broker that can be cut."""
    made = Wire(rabbit.port)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def wired(rabbit: Rabbit, wire: Wire) -> AsyncIterator[Broker]:
    """Our connection to the broker over that wire."""
    made = Broker(read_address(rabbit.url(port=wire.port)))
    made.start()
    yield made
    await made.stop()
