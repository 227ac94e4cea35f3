"""The JetStream publishing call of the official Python client against a broker with a store, whose queues hold three
messages each and whose services are away.

tests/broker/tracked_clients.rs starts the broker and runs this.
"""

import time

import pytest
from broker import PATIENCE_S
from nats.js import errors

# How long the broker may take to refuse: less than the client waits for an answer that does not come.
AT_ONCE_S = PATIENCE_S / 2


async def refusal(js, name: str) -> None:
    """Publishes what is refused, and not answered by silence."""
    start = time.monotonic()
    with pytest.raises(errors.NoStreamResponseError):
        await js.publish(name, b"x")
    assert time.monotonic() - start < AT_ONCE_S


async def test_a_message_is_stored_told_twice_as_a_duplicate_and_refused_when_its_queue_is_full(client):
    js = (await client("web")).nc.jetstream(timeout=PATIENCE_S)
    first = await js.publish("todos.created", b"one", headers={"Nats-Msg-Id": "python-1"})
    assert first.stream == "store-1"
    assert not first.duplicate
    again = await js.publish("todos.created", b"one", headers={"Nats-Msg-Id": "python-1"})
    assert (again.seq, again.duplicate) == (first.seq, True)
    second = await js.publish("todos.created", b"two")
    third = await js.publish("todos.created", b"three")
    assert [second.seq, third.seq] == [first.seq + 1, first.seq + 2]
    await refusal(js, "todos.created")
    # Another queue has room.
    other = await js.publish("mails.sent", b"one")
    assert other.seq == first.seq + 3


async def test_a_message_that_the_policy_does_not_allow_is_refused(client):
    js = (await client("web")).nc.jetstream(timeout=PATIENCE_S)
    await refusal(js, "secrets.told")
