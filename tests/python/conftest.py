from __future__ import annotations

import pytest_asyncio
from broker import Broker, Connected, Place, the_broker


@pytest_asyncio.fixture
async def client():
    """Connects as a service; all connections are closed when the test ends."""
    open_clients: list[Connected] = []

    async def connect(service: str, place: Place | None = None, **options) -> Connected:
        connected = await (place or the_broker()).connect(service, **options)
        open_clients.append(connected)
        return connected

    yield connect
    for connected in open_clients:
        await connected.nc.close()


@pytest_asyncio.fixture
async def brokers():
    """Brokers put into this list are ended when the test ends."""
    started: list[Broker] = []
    yield started
    for broker in started:
        await broker.end()
