from __future__ import annotations

import asyncio

import pytest_asyncio
from broker import PATIENCE_S, Broker, Connected, Place, the_broker


@pytest_asyncio.fixture
async def brokers():
    """Brokers put into this list are ended when the test ends."""
    started: list[Broker] = []
    yield started
    for broker in started:
        await broker.end()


@pytest_asyncio.fixture
async def client(brokers):
    """Connects as a service; all connections are closed when the test ends, before the brokers are ended."""
    open_clients: list[Connected] = []

    async def connect(service: str, place: Place | None = None, **options) -> Connected:
        connected = await (place or the_broker()).connect(service, **options)
        open_clients.append(connected)
        return connected

    yield connect
    for connected in open_clients:
        await asyncio.wait_for(connected.nc.close(), PATIENCE_S)
