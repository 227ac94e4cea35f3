"""The official Python client against a running broker, over mutual TLS.

tests/broker/clients_python.rs starts the broker and runs this.
"""

import asyncio
import re
import signal
import time

import pytest
from broker import Broker, eventually
from nats import errors

ANSWER_S = 20


class Heard(list):
    """What a subscription gets, as it comes."""

    subscription = None

    def texts(self) -> list[str]:
        return [message.data.decode() for message in self]


async def flush(connected) -> None:
    """Returns when the broker has read everything before it.

    By itself this client writes its PING ahead of what it has not written yet."""
    await eventually("the client to write", lambda: connected.nc.pending_data_size == 0)
    await connected.nc.flush()


async def listen(connected, subject: str, **options) -> Heard:
    heard = Heard()

    async def note(message) -> None:
        heard.append(message)

    heard.subscription = await connected.nc.subscribe(subject, cb=note, **options)
    await flush(connected)
    return heard


async def serve(connected, subject: str, answer) -> None:
    """Answers every message of a name, until the connection ends."""

    async def respond(message) -> None:
        await message.respond(answer(message))

    await connected.nc.subscribe(subject, queue="worker", cb=respond)
    await flush(connected)


async def ask(connected, subject: str, payload: bytes = b""):
    """Sends a request whose answer is heard on an inbox of its own, so that a refusal can be read whole.

    Gives the answer, and after how many seconds it came."""
    inbox = connected.nc.new_inbox()
    answers = await listen(connected, inbox)
    start = time.monotonic()
    await connected.nc.publish(subject, payload, reply=inbox)
    await eventually("an answer", lambda: answers)
    await answers.subscription.unsubscribe()
    return answers[0], time.monotonic() - start


async def everything_delivered(sender, receiver) -> None:
    """Returns when what one has published has reached the other."""
    await flush(sender)
    await flush(receiver)


def reason(message) -> str:
    assert message.headers["Status"] == "503"
    assert message.data == b""
    return message.headers["Exo-Reason"]


def numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


async def test_a_message_published_reaches_who_subscribes_with_the_sender_stamped(client):
    watcher = await client("watcher")
    heard = await listen(watcher, "news.plain")
    asker = await client("asker")
    await asker.nc.publish("news.plain", b"hello")
    await asker.nc.publish("news.plain")
    await eventually("both messages", lambda: len(heard) == 2)
    assert heard.texts() == ["hello", ""]
    assert (heard[0].subject, heard[0].reply) == ("news.plain", "")
    assert heard[0].headers == {"Exo-Sender": "asker"}


async def test_wildcard_subscriptions_get_what_they_match_and_nothing_else(client):
    watcher = await client("watcher")
    one = await listen(watcher, "news.wild.*")
    rest = await listen(watcher, "news.wild.>")
    middle = await listen(watcher, "news.*.a")
    asker = await client("asker")
    for subject in ["news.wild.a", "news.wild.b.c", "news.wild", "news.other"]:
        await asker.nc.publish(subject, subject.encode())
    await everything_delivered(asker, watcher)
    assert one.texts() == ["news.wild.a"]
    assert rest.texts() == ["news.wild.a", "news.wild.b.c"]
    assert middle.texts() == ["news.wild.a"]


async def test_of_a_queue_group_each_message_reaches_one_member_and_all_members_get_some(client):
    members = []
    for _ in range(2):
        worker = await client("watcher")
        members += [await listen(worker, "news.queue", queue="group") for _ in range(2)]
    plain = await listen(await client("watcher"), "news.queue")
    other = await listen(await client("watcher"), "news.queue", queue="other")
    asker = await client("asker")
    sent = numbers(400)
    for number in sent:
        await asker.nc.publish("news.queue", number.encode())
    await eventually("all messages", lambda: sum(map(len, members)) >= 400)
    await eventually("all messages", lambda: len(plain) == 400 and len(other) == 400)
    assert sorted((text for heard in members for text in heard.texts()), key=int) == sent
    assert all(members), "a member got nothing"
    assert plain.texts() == sent
    assert other.texts() == sent


# protocol: P-072, P-074
async def test_a_request_is_answered_and_the_receiver_sees_a_token_in_place_of_the_inbox(client):
    worker = await client("worker")
    replies = []

    def double(message) -> bytes:
        replies.append(message.reply)
        return str(2 * int(message.data)).encode()

    await serve(worker, "job.double", double)
    asker = await client("asker")
    requests = (asker.nc.request("job.double", number.encode(), timeout=ANSWER_S) for number in numbers(200))
    answers = await asyncio.gather(*requests)
    assert [int(answer.data) for answer in answers] == [2 * number for number in range(200)]
    assert answers[0].headers["Exo-Sender"] == "worker"
    assert all(re.fullmatch(r"_R\.\d+\.\d+", reply) for reply in replies)
    alone = await asker.nc.request("job.double", b"21", timeout=ANSWER_S, old_style=True)
    assert alone.data == b"42"


# protocol: P-073
async def test_a_reply_token_works_once_and_for_nobody_else(client):
    worker = await client("worker")
    heard = await listen(worker, "job.token", queue="worker")
    asker = await client("asker")
    thief = await client("worker")
    answer = asyncio.create_task(asker.nc.request("job.token", timeout=ANSWER_S))
    await eventually("the request", lambda: heard)
    await thief.nc.publish(heard[0].reply, b"stolen")
    await eventually("the refusal", lambda: thief.errors)
    assert "permissions violation for publish" in str(thief.errors[0])
    await heard[0].respond(b"first")
    await heard[0].respond(b"second")
    assert (await answer).data == b"first"
    await eventually("the refusal of the second", lambda: worker.errors)


# protocol: P-083
async def test_a_request_that_nobody_receives_fails_at_once(client):
    asker = await client("asker")
    for old_style in (False, True):
        start = time.monotonic()
        with pytest.raises(errors.NoRespondersError):
            await asker.nc.request("job.nobody", timeout=ANSWER_S, old_style=old_style)
        assert time.monotonic() - start < 1
    answer, _ = await ask(asker, "job.nobody")
    assert reason(answer) == "no-receiver"


# protocol: P-052, P-053, P-056
async def test_headers_pass_but_for_those_that_are_ours(client):
    watcher = await client("watcher")
    heard = await listen(watcher, "news.headers")
    asker = await client("asker")
    passing = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "a=1",
        "X-Own": "one",
    }
    forged = dict.fromkeys(["Exo-Sender", "exo-sender", "EXO-SENDER", "eXo-Rule", "Exo-"], "admin")
    await asker.nc.publish("news.headers", b"payload", headers={**forged, **passing})
    await eventually("the message", lambda: heard)
    assert heard[0].headers == {"Exo-Sender": "asker", **passing}
    assert heard[0].data == b"payload"


async def test_an_answer_that_carries_the_requests_headers_back_is_stamped_anew(client):
    worker = await client("worker")
    # `respond` echoes the request's headers.
    await serve(worker, "job.echo", lambda message: message.data)
    asker = await client("asker")
    answer = await asker.nc.request("job.echo", b"x", timeout=ANSWER_S, headers={"X-Kept": "1"})
    assert answer.headers == {"Exo-Sender": "worker", "X-Kept": "1"}
    assert answer.data == b"x"


# protocol: P-036
async def test_a_subscription_ends_after_the_messages_it_asked_for(client):
    watcher = await client("watcher")
    limited = await listen(watcher, "news.max")
    await limited.subscription.unsubscribe(limit=3)
    gone = await listen(watcher, "news.max")
    await gone.subscription.unsubscribe()
    everything = await listen(watcher, "news.max")
    asker = await client("asker")
    for number in numbers(10):
        await asker.nc.publish("news.max", number.encode())
    await everything_delivered(asker, watcher)
    assert everything.texts() == numbers(10)
    assert limited.texts() == ["0", "1", "2"]
    assert gone == []
    # Counted by what came over the wire, not by what the client kept.
    assert watcher.nc.stats["in_msgs"] == 13


async def test_draining_a_publisher_sends_everything_first(client):
    watcher = await client("watcher")
    heard = await listen(watcher, "news.drain")
    asker = await client("asker")
    for number in numbers(5000):
        await asker.nc.publish("news.drain", number.encode())
    await asker.nc.drain()
    await eventually("all messages", lambda: len(heard) == 5000)
    assert heard.texts() == numbers(5000)


async def test_draining_a_receiver_in_a_group_loses_nothing_that_it_has(client):
    leaving = await client("watcher")
    staying = await client("watcher")
    asker = await client("asker")
    left = await listen(leaving, "news.handover", queue="group")
    stayed = await listen(staying, "news.handover", queue="group")
    for number in range(1000):
        await asker.nc.publish("news.handover", str(number).encode())
    # This client may write the PING of its drain ahead of the UNSUB, and so lose what is still under way: nothing is.
    await everything_delivered(asker, leaving)
    await leaving.nc.drain()
    for number in range(1000, 2000):
        await asker.nc.publish("news.handover", str(number).encode())
    await eventually("all messages", lambda: len(left) + len(stayed) >= 2000)
    assert sorted(left.texts() + stayed.texts(), key=int) == numbers(2000)
    assert 0 < len(left) < 1000


# protocol: P-034
async def test_flush_returns_when_everything_before_it_has_arrived_at_the_broker(client):
    asker = await client("asker")
    heard = await listen(asker, "news.flush")
    for number in numbers(1000):
        await asker.nc.publish("news.flush", number.encode())
    await flush(asker)
    # One connection: the PONG comes behind the messages that it waited for.
    assert asker.nc.stats["in_msgs"] == 1000
    await eventually("the callbacks", lambda: len(heard) == 1000)


async def test_without_echo_a_client_does_not_hear_itself(client):
    loud = await client("asker")
    quiet = await client("asker", no_echo=True)
    heard_loud = await listen(loud, "news.echo")
    heard_quiet = await listen(quiet, "news.echo")
    await quiet.nc.publish("news.echo", b"quiet")
    await loud.nc.publish("news.echo", b"loud")
    await everything_delivered(loud, quiet)
    await eventually("both", lambda: len(heard_loud) == 2)
    assert heard_quiet.texts() == ["loud"]


# protocol: P-043
async def test_a_payload_at_the_limit_passes_and_one_byte_more_closes_the_connection(client):
    watcher = await client("watcher")
    heard = await listen(watcher, "news.large")
    asker = await client("asker")
    limit = asker.nc.max_payload
    assert limit == 1024 * 1024
    await asker.nc.publish("news.large", bytes(limit))
    await eventually("the large message", lambda: heard)
    assert len(heard[0].data) == limit
    # The client refuses by itself what INFO does not allow,
    with pytest.raises(errors.MaxPayloadError):
        await asker.nc.publish("news.large", bytes(limit + 1))
    # but does not count the headers, and takes the violation for the end.
    await asker.nc.publish("news.large", bytes(limit), headers={"A": "b"})
    await eventually("the end", lambda: "closed" in asker.events)
    assert str(asker.nc.last_error) == "nats: maximum payload violation"
    again = await client("asker")
    await again.nc.publish("news.large", b"small")
    await eventually("the next message", lambda: len(heard) == 2)
    assert heard[1].data == b"small"


# protocol: P-026
async def test_verbose_and_pedantic_clients_are_served_as_well(client):
    watcher = await client("watcher", verbose=True, pedantic=True)
    heard = await listen(watcher, "news.verbose")
    asker = await client("asker", verbose=True, pedantic=True)
    await asker.nc.publish("news.verbose", b"one")
    for subject in ("job.nobody", "not.allowed"):
        with pytest.raises(errors.NoRespondersError):
            await asker.nc.request(subject, timeout=ANSWER_S)
    await asker.nc.publish("news.verbose", b"two")
    await eventually("both messages", lambda: len(heard) == 2)
    assert len(asker.errors) == 1


# protocol: P-080, P-082
async def test_a_denied_request_fails_at_once_with_the_rule(client):
    asker = await client("asker")
    for old_style in (True, False):
        start = time.monotonic()
        with pytest.raises(errors.NoRespondersError):
            await asker.nc.request("secret.read", timeout=ANSWER_S, old_style=old_style)
        took_s = time.monotonic() - start
        assert took_s < 1
    await eventually("both errors", lambda: len(asker.errors) == 2)
    assert 'permissions violation for publish to "secret.read"' in str(asker.errors[0])
    answer, answered_s = await ask(asker, "secret.read")
    assert answered_s < 1
    assert reason(answer) == "denied"
    assert answer.headers["Exo-Rule"] == "no grant"
    assert re.fullmatch(r"[0-9a-f]{8,}", answer.headers["Exo-Policy"])
    print(f"denied request: {took_s * 1000:.2f} ms")


# protocol: P-041
async def test_a_denied_publish_is_reported_and_the_connection_goes_on(client):
    asker = await client("asker")
    await asker.nc.publish("secret.write", b"x")
    await eventually("the error", lambda: asker.errors)
    assert str(asker.errors[0]) == 'nats: permissions violation for publish to "secret.write"'
    heard = await listen(asker, "news.after")
    await asker.nc.publish("news.after", b"still here")
    await eventually("a message", lambda: heard)
    assert asker.events == []


# protocol: P-062
@pytest.mark.parametrize(
    ("subject", "queue"), [("job.list", ""), ("job.list", "worker"), (">", ""), ("*.plain", ""), ("_R.>", "")]
)
async def test_a_subscription_outside_the_policy_is_refused(client, subject, queue):
    watcher = await client("watcher")
    await watcher.nc.subscribe(subject, queue=queue)
    await eventually("the refusal", lambda: watcher.errors)
    using = f' using queue "{queue}"' if queue else ""
    expected = f'nats: permissions violation for subscription to "{subject}"{using}'
    assert [str(error) for error in watcher.errors] == [expected.lower()]
    heard = await listen(watcher, "news.allowed")
    asker = await client("asker")
    await asker.nc.publish("news.allowed", b"x")
    await eventually("a message", lambda: heard)


# protocol: P-071
async def test_an_inbox_is_heard_by_its_owner_alone(client):
    worker = await client("worker")
    await serve(worker, "job.private", lambda _: b"for your ears")
    asker = await client("asker")
    spy = await client("watcher")
    overheard = await listen(spy, "_INBOX.>")
    assert (await asker.nc.request("job.private", timeout=ANSWER_S)).data == b"for your ears"
    await spy.nc.publish("_INBOX.somebody", b"x")
    await eventually("the refusal", lambda: spy.errors)
    assert overheard == []


# protocol: P-084
async def test_a_request_whose_receiver_dies_is_refused_as_lost(client):
    worker = await client("worker", allow_reconnect=False)
    heard = await listen(worker, "job.die", queue="worker")
    asker = await client("asker")
    asked = asyncio.create_task(ask(asker, "job.die"))
    await eventually("the request", lambda: heard)
    # No goodbye: the socket is reset.
    worker.nc._transport._io_writer.transport.abort()
    answer, _ = await asked
    assert reason(answer) == "receiver-lost"


# protocol: P-085
async def test_a_request_that_is_not_answered_in_time_is_refused_as_expired(client):
    worker = await client("worker")
    heard = await listen(worker, "job.slow", queue="worker")
    asker = await client("asker")
    answer, took_s = await ask(asker, "job.slow")
    assert reason(answer) == "expired"
    assert took_s >= 0.299
    # Too late.
    await heard[0].respond(b"late")
    await eventually("the refusal", lambda: worker.errors)
    with pytest.raises(errors.NoRespondersError):
        await asker.nc.request("job.slow", timeout=ANSWER_S)


async def test_after_the_brokers_restart_everything_works_again(client, brokers):
    first = await Broker.dev()
    brokers.append(first)
    options = {"place": first.place, "reconnect_time_wait": 0.05, "max_reconnect_attempts": -1}
    worker = await client("worker", **options)
    await serve(worker, "job.again", lambda _: b"done")
    watcher = await client("watcher", **options)
    heard = await listen(watcher, "news.again")
    asker = await client("asker", **options)
    assert (await asker.nc.request("job.again", timeout=ANSWER_S)).data == b"done"
    await first.stop()
    brokers.append(await first.start_again())
    clients = [worker, watcher, asker]
    await eventually("all to come back", lambda: all("reconnected" in connected.events for connected in clients))
    # A client resubscribes before it says that it is back; the broker reads in that order.
    await flush(worker)
    await flush(watcher)
    assert (await asker.nc.request("job.again", timeout=ANSWER_S)).data == b"done"
    await asker.nc.publish("news.again", b"after")
    await eventually("the event", lambda: heard)


# protocol: P-100, P-101
async def test_a_broker_that_leaves_says_so_first_and_lets_what_is_under_way_end(client, brokers):
    broker = await Broker.serve(lame_duck_ms=3000)
    brokers.append(broker)
    worker = await client("worker", broker.place, allow_reconnect=False)
    asker = await client("asker", broker.place, allow_reconnect=False)
    heard = await listen(worker, "job.last", queue="worker")
    answer = asyncio.create_task(asker.nc.request("job.last", timeout=ANSWER_S))
    await eventually("the request", lambda: heard)
    broker.signal(signal.SIGTERM)
    await eventually("the notice", lambda: all("lame duck" in connected.events for connected in (worker, asker)))
    await heard[0].respond(b"in time")
    assert (await answer).data == b"in time"
    await eventually("the end of both", lambda: all("closed" in connected.events for connected in (worker, asker)))
    assert await broker.ended() == 0
