"""Hears messages until one is `last`; prints for each its payload and the headers that nats-py found, as JSON."""

import asyncio
import json

from broker import PATIENCE_S, the_broker


async def main() -> None:
    connected = await the_broker().connect("listener")
    over = asyncio.get_running_loop().create_future()

    async def hear(message) -> None:
        headers = list((message.headers or {}).items())
        print(json.dumps({"payload": message.data.decode(), "headers": headers}), flush=True)
        if message.data == b"last":
            over.set_result(None)

    await connected.nc.subscribe("spoken", cb=hear)
    await connected.nc.flush()
    print("listening", flush=True)
    await asyncio.wait_for(over, 10 * PATIENCE_S)
    for error in connected.errors:
        print(json.dumps({"error": repr(error)}), flush=True)
    await connected.nc.close()


asyncio.run(main())
