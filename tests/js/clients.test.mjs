// The official JavaScript client against a running broker, over mutual TLS.
//
// tests/broker/clients_js.rs starts the broker and sets the variables that broker.mjs reads.

import { test } from "node:test";
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";

import { createInbox, errors, headers } from "@nats-io/transport-node";

import { Broker, connect, eventually, theBroker, within } from "./broker.mjs";

const { NoRespondersError, PermissionViolationError, ProtocolError, RequestError } = errors;

/** A connection that is closed when the test ends. */
async function client(t, service, options = {}, broker = theBroker) {
  const nc = await connect(broker, service, options);
  t.after(() => nc.close());
  return nc;
}

/** Everything that the client's status says, as it comes. */
function statusOf(nc) {
  const seen = [];
  (async () => {
    for await (const event of nc.status()) seen.push(event);
  })();
  return seen;
}

const errorsIn = (status) => status.filter((event) => event.type === "error").map((event) => event.error);

/** What a subscription gets, as it comes. */
async function listen(nc, subject, options = {}) {
  const got = [];
  const refused = [];
  const subscription = nc.subscribe(subject, {
    ...options,
    callback: (error, message) => (error ? refused : got).push(error ?? message),
  });
  await nc.flush();
  return { got, refused, subscription };
}

/** Answers every message of a name, until the connection ends. */
async function serve(nc, subject, answer, options = { queue: "worker" }) {
  nc.subscribe(subject, { ...options, callback: (_, message) => message.respond(answer(message)) });
  await nc.flush();
}

/** Sends a request whose answer is heard on an inbox of its own, so that a refusal can be read whole. */
async function ask(nc, subject, payload = "", options = {}) {
  const inbox = createInbox();
  const answers = await listen(nc, inbox);
  const start = performance.now();
  nc.publish(subject, payload, { ...options, reply: inbox });
  await eventually("an answer", () => answers.got.length > 0);
  answers.subscription.unsubscribe();
  return { answer: answers.got[0], ms: performance.now() - start };
}

/** The fields of a refusal. */
function refusal(message) {
  assert.equal(message.headers.code, 503);
  assert.equal(message.data.length, 0);
  const field = (name) => message.headers.get(name) || undefined;
  return { reason: field("Exo-Reason"), rule: field("Exo-Rule"), policy: field("Exo-Policy") };
}

const texts = (messages) => messages.map((message) => message.string());
const numbers = (count) => Array.from({ length: count }, (_, index) => String(index));

test("a message published reaches who subscribes, with the sender stamped", async (t) => {
  const watcher = await client(t, "watcher");
  const { got } = await listen(watcher, "news.plain");
  const asker = await client(t, "asker");
  asker.publish("news.plain", "hello");
  asker.publish("news.plain");
  await eventually("both messages", () => got.length === 2);
  assert.deepEqual(texts(got), ["hello", ""]);
  assert.equal(got[0].subject, "news.plain");
  assert.equal(got[0].reply, "");
  assert.equal(got[0].headers.get("Exo-Sender"), "asker");
});

test("wildcard subscriptions get what they match, and nothing else", async (t) => {
  const watcher = await client(t, "watcher");
  const one = await listen(watcher, "news.wild.*");
  const rest = await listen(watcher, "news.wild.>");
  const middle = await listen(watcher, "news.*.a");
  const asker = await client(t, "asker");
  for (const subject of ["news.wild.a", "news.wild.b.c", "news.wild", "news.other"]) asker.publish(subject, subject);
  await asker.flush();
  await watcher.flush();
  assert.deepEqual(texts(one.got), ["news.wild.a"]);
  assert.deepEqual(texts(rest.got), ["news.wild.a", "news.wild.b.c"]);
  assert.deepEqual(texts(middle.got), ["news.wild.a"]);
});

test("of a queue group each message reaches one member, and all members get some", async (t) => {
  const members = [];
  for (const _ of [1, 2]) {
    const worker = await client(t, "watcher");
    members.push(await listen(worker, "news.queue", { queue: "group" }));
    members.push(await listen(worker, "news.queue", { queue: "group" }));
  }
  const plain = await listen(await client(t, "watcher"), "news.queue");
  const other = await listen(await client(t, "watcher"), "news.queue", { queue: "other" });
  const asker = await client(t, "asker");
  const sent = numbers(400);
  for (const number of sent) asker.publish("news.queue", number);
  await eventually("all messages", () => members.flatMap(({ got }) => got).length >= 400 && plain.got.length === 400);
  const byNumber = (a, b) => a - b;
  assert.deepEqual(members.flatMap(({ got }) => texts(got)).sort(byNumber), sent);
  for (const { got } of members) assert.ok(got.length > 0, "a member got nothing");
  assert.deepEqual(texts(plain.got), sent);
  await eventually("the other group's", () => other.got.length === 400);
  assert.deepEqual(texts(other.got), sent);
});

// protocol: P-072, P-074
test("a request is answered, and the receiver sees a token in place of the inbox", async (t) => {
  const worker = await client(t, "worker");
  const seen = [];
  await serve(worker, "job.double", (message) => {
    seen.push(message);
    return String(2 * Number(message.string()));
  });
  const asker = await client(t, "asker");
  const answers = await Promise.all(numbers(200).map((number) => asker.request("job.double", number)));
  assert.deepEqual(
    texts(answers),
    numbers(200).map((number) => String(2 * number)),
  );
  assert.equal(answers[0].headers.get("Exo-Sender"), "worker");
  for (const message of seen) assert.match(message.reply, /^_R\.\d+\.\d+$/);
  const alone = await asker.request("job.double", "21", { timeout: 10_000, noMux: true });
  assert.equal(alone.string(), "42");
});

// protocol: P-073
test("a reply token works once, and for nobody else", async (t) => {
  const worker = await client(t, "worker");
  const { got } = await listen(worker, "job.token", { queue: "worker" });
  const asker = await client(t, "asker");
  const thief = await client(t, "worker");
  const thiefStatus = statusOf(thief);
  const workerStatus = statusOf(worker);
  const answer = asker.request("job.token", "", { timeout: 10_000 });
  await eventually("the request", () => got.length === 1);
  thief.publish(got[0].reply, "stolen");
  await eventually("the refusal", () => errorsIn(thiefStatus).length === 1);
  assert.ok(errorsIn(thiefStatus)[0] instanceof PermissionViolationError);
  got[0].respond("first");
  got[0].respond("second");
  assert.equal((await answer).string(), "first");
  await eventually("the refusal of the second", () => errorsIn(workerStatus).length === 1);
});

// protocol: P-083
test("a request that nobody receives fails at once", async (t) => {
  const asker = await client(t, "asker");
  const start = performance.now();
  await assert.rejects(asker.request("job.nobody", "", { timeout: 20_000 }), (error) => {
    assert.ok(error instanceof RequestError);
    assert.ok(error.cause instanceof NoRespondersError);
    assert.ok(error.isNoResponders());
    return true;
  });
  assert.ok(performance.now() - start < 1000);
  const { answer } = await ask(asker, "job.nobody");
  assert.equal(refusal(answer).reason, "no-receiver");
});

// protocol: P-052, P-053, P-056
test("headers pass, but for those that are ours", async (t) => {
  const watcher = await client(t, "watcher");
  const { got } = await listen(watcher, "news.headers");
  const asker = await client(t, "asker");
  const sent = headers();
  sent.append("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
  sent.append("tracestate", "a=1");
  sent.append("X-Many", "one");
  sent.append("X-Many", "two");
  for (const forged of ["Exo-Sender", "exo-sender", "EXO-SENDER", "eXo-Rule", "Exo-"]) sent.append(forged, "admin");
  asker.publish("news.headers", "payload", { headers: sent });
  await eventually("the message", () => got.length === 1);
  const fields = [...got[0].headers].map(([name, values]) => [name.toLowerCase(), values]);
  assert.deepEqual(Object.fromEntries(fields), {
    "exo-sender": ["asker"],
    traceparent: ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
    tracestate: ["a=1"],
    "x-many": ["one", "two"],
  });
  assert.equal(got[0].headers.code, 0);
  assert.equal(got[0].string(), "payload");
});

test("an answer that carries the request's headers back is stamped anew", async (t) => {
  const worker = await client(t, "worker");
  worker.subscribe("job.echo", {
    callback: (_, message) => message.respond(message.data, { headers: message.headers }),
  });
  await worker.flush();
  const asker = await client(t, "asker");
  const sent = headers();
  sent.append("X-Kept", "1");
  const answer = await asker.request("job.echo", "x", { timeout: 10_000, headers: sent });
  assert.deepEqual(answer.headers.values("Exo-Sender"), ["worker"]);
  assert.equal(answer.headers.get("X-Kept"), "1");
});

// protocol: P-036
test("a subscription ends after the messages it asked for", async (t) => {
  const watcher = await client(t, "watcher");
  const limited = await listen(watcher, "news.max", { max: 3 });
  const all = await listen(watcher, "news.max");
  const asker = await client(t, "asker");
  for (const number of numbers(10)) asker.publish("news.max", number);
  await eventually("all messages", () => all.got.length === 10);
  assert.deepEqual(texts(limited.got), ["0", "1", "2"]);
  assert.ok(limited.subscription.isClosed());
  // Counted by what came over the wire, not by what the client kept.
  assert.equal(watcher.stats().inMsgs, 13);
  all.subscription.unsubscribe();
  await watcher.flush();
  asker.publish("news.max", "late");
  await asker.flush();
  await watcher.flush();
  assert.equal(all.got.length, 10);
});

test("draining a publisher sends everything first", async (t) => {
  const watcher = await client(t, "watcher");
  const { got } = await listen(watcher, "news.drain");
  const asker = await client(t, "asker");
  for (const number of numbers(5000)) asker.publish("news.drain", number);
  await asker.drain();
  await eventually("all messages", () => got.length === 5000);
  assert.deepEqual(texts(got), numbers(5000));
});

test("draining a receiver in a group loses nothing", async (t) => {
  const leaving = await client(t, "watcher");
  const staying = await client(t, "watcher");
  const asker = await client(t, "asker");
  const left = await listen(leaving, "news.handover", { queue: "group" });
  const stayed = await listen(staying, "news.handover", { queue: "group" });
  let drained;
  for (const number of numbers(10_000)) {
    asker.publish("news.handover", number);
    if (number % 500 === 0) await asker.flush();
    if (number === "3000") drained = leaving.drain();
  }
  await asker.flush();
  await within("the end of the drain", drained);
  await eventually("all messages", () => left.got.length + stayed.got.length >= 10_000);
  const all = [...texts(left.got), ...texts(stayed.got)].sort((a, b) => a - b);
  assert.deepEqual(all, numbers(10_000));
  assert.ok(left.got.length > 0 && stayed.got.length > 5000);
});

// protocol: P-034
test("flush returns when everything before it has arrived at the broker", async (t) => {
  const asker = await client(t, "asker");
  const { got } = await listen(asker, "news.flush");
  for (const number of numbers(1000)) asker.publish("news.flush", number);
  await asker.flush();
  // One connection: the PONG comes behind the messages that it waited for.
  assert.equal(got.length, 1000);
});

test("without echo a client does not hear itself", async (t) => {
  const loud = await client(t, "asker");
  const quiet = await client(t, "asker", { noEcho: true });
  const heard = { loud: await listen(loud, "news.echo"), quiet: await listen(quiet, "news.echo") };
  quiet.publish("news.echo", "quiet");
  loud.publish("news.echo", "loud");
  await loud.flush();
  await quiet.flush();
  await eventually("both", () => heard.loud.got.length === 2 && heard.quiet.got.length === 1);
  assert.deepEqual(texts(heard.quiet.got), ["loud"]);
});

// protocol: P-043
test("a payload at the limit passes, one byte more closes the connection, and the client comes back", async (t) => {
  const watcher = await client(t, "watcher");
  const { got } = await listen(watcher, "news.large");
  const asker = await client(t, "asker", { reconnectTimeWait: 50, maxReconnectAttempts: -1 });
  const status = statusOf(asker);
  const limit = asker.info.max_payload;
  assert.equal(limit, 1024 * 1024);
  asker.publish("news.large", new Uint8Array(limit));
  await eventually("the large message", () => got.length === 1);
  assert.equal(got[0].data.length, limit);
  // The client refuses by itself what INFO does not allow.
  assert.throws(() => asker.publish("news.large", new Uint8Array(limit + 1)));
  asker.info.max_payload = limit + 1;
  asker.publish("news.large", new Uint8Array(limit + 1));
  await eventually("the client to come back", () => status.some((event) => event.type === "reconnect"));
  const violation = errorsIn(status).find((error) => error instanceof ProtocolError);
  assert.equal(violation?.message, "Maximum Payload Violation");
  asker.publish("news.large", "small");
  await eventually("the next message", () => got.length === 2);
  assert.equal(got[1].string(), "small");
});

// protocol: P-026
test("verbose and pedantic clients are served as well", async (t) => {
  const watcher = await client(t, "watcher", { verbose: true, pedantic: true });
  const { got } = await listen(watcher, "news.verbose");
  const asker = await client(t, "asker", { verbose: true, pedantic: true });
  const status = statusOf(asker);
  asker.publish("news.verbose", "one");
  await assert.rejects(asker.request("job.nobody", "", { timeout: 10_000 }));
  await assert.rejects(asker.request("not.allowed", "", { timeout: 10_000 }));
  asker.publish("news.verbose", "two");
  await eventually("both messages", () => got.length === 2);
  assert.equal(errorsIn(status).length, 1);
});

// protocol: P-080, P-082
test("a denied request fails at once, with the rule", async (t) => {
  const asker = await client(t, "asker");
  const start = performance.now();
  await assert.rejects(asker.request("secret.read", "", { timeout: 20_000 }), (error) => {
    assert.ok(error instanceof RequestError);
    assert.ok(error.cause instanceof PermissionViolationError);
    assert.equal(error.cause.operation, "publish");
    assert.equal(error.cause.subject, "secret.read");
    return true;
  });
  const ms = performance.now() - start;
  assert.ok(ms < 1000, `${ms} ms`);
  await assert.rejects(asker.request("secret.read", "", { timeout: 20_000, noMux: true }), RequestError);
  const denied = await ask(asker, "secret.read");
  assert.ok(denied.ms < 1000);
  const { reason, rule, policy } = refusal(denied.answer);
  assert.deepEqual({ reason, rule }, { reason: "denied", rule: "no grant" });
  assert.match(policy, /^[0-9a-f]{8,}$/);
  t.diagnostic(`denied request: ${ms.toFixed(2)} ms`);
});

// protocol: P-041
test("a denied publish is reported, and the connection goes on", async (t) => {
  const asker = await client(t, "asker");
  const status = statusOf(asker);
  asker.publish("secret.write", "x");
  await eventually("the error", () => errorsIn(status).length === 1);
  const [error] = errorsIn(status);
  assert.ok(error instanceof PermissionViolationError);
  assert.deepEqual([error.operation, error.subject], ["publish", "secret.write"]);
  const { got } = await listen(asker, "news.after");
  asker.publish("news.after", "still here");
  await eventually("a message", () => got.length === 1);
});

// protocol: P-062
test("a subscription outside the policy is refused", async (t) => {
  const watcher = await client(t, "watcher");
  const status = statusOf(watcher);
  const refused = [
    { subject: "job.list" },
    { subject: "job.list", queue: "worker" },
    { subject: ">" },
    { subject: "*.plain" },
    { subject: "_R.>" },
  ];
  for (const { subject, ...options } of refused) {
    const { refused } = await listen(watcher, subject, options);
    await eventually("the refusal", () => refused.length === 1);
    assert.ok(refused[0] instanceof PermissionViolationError);
    const { operation, queue } = refused[0];
    assert.deepEqual([operation, refused[0].subject, queue], ["subscription", subject, options.queue]);
  }
  assert.equal(errorsIn(status).length, refused.length);
  const { got } = await listen(watcher, "news.allowed");
  const asker = await client(t, "asker");
  asker.publish("news.allowed", "x");
  await eventually("a message", () => got.length === 1);
});

// protocol: P-071
test("an inbox is heard by its owner alone", async (t) => {
  const worker = await client(t, "worker");
  await serve(worker, "job.private", () => "for your ears");
  const asker = await client(t, "asker");
  const spy = await client(t, "watcher");
  const overheard = await listen(spy, "_INBOX.>");
  assert.equal((await asker.request("job.private", "", { timeout: 10_000 })).string(), "for your ears");
  // Not even by writing to it.
  const spyStatus = statusOf(spy);
  spy.publish("_INBOX.somebody", "x");
  await eventually("the refusal", () => errorsIn(spyStatus).length === 1);
  assert.equal(overheard.got.length, 0);
});

// protocol: P-084
test("a request whose receiver dies is refused as lost", async (t) => {
  const worker = spawn(process.execPath, [new URL("dying_worker.mjs", import.meta.url).pathname], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.after(() => worker.kill("SIGKILL"));
  await within("the worker", once(worker.stdout, "data"));
  const asker = await client(t, "asker");
  const asked = ask(asker, "job.die");
  await within("the request to reach the worker", once(worker.stdout, "data"));
  worker.kill("SIGKILL");
  assert.equal(refusal((await asked).answer).reason, "receiver-lost");
});

// protocol: P-085
test("a request that is not answered in time is refused as expired", async (t) => {
  const worker = await client(t, "worker");
  const { got } = await listen(worker, "job.slow", { queue: "worker" });
  const asker = await client(t, "asker");
  const { answer, ms } = await ask(asker, "job.slow");
  assert.equal(refusal(answer).reason, "expired");
  assert.ok(ms >= 299, `${ms} ms`);
  // Too late.
  const status = statusOf(worker);
  got[0].respond("late");
  await eventually("the refusal", () => errorsIn(status).length === 1);
  await assert.rejects(asker.request("job.slow", "", { timeout: 10_000 }), (error) => error.isNoResponders());
});

test("after the broker's restart everything works again", async (t) => {
  const first = await Broker.dev();
  t.after(() => first.end());
  const options = { reconnectTimeWait: 50, maxReconnectAttempts: -1 };
  const worker = await client(t, "worker", options, first);
  await serve(worker, "job.again", () => "done");
  const watcher = await client(t, "watcher", options, first);
  const { got } = await listen(watcher, "news.again");
  const asker = await client(t, "asker", options, first);
  assert.equal((await asker.request("job.again", "", { timeout: 10_000 })).string(), "done");
  const statuses = [worker, watcher, asker].map(statusOf);
  await first.stop();
  const second = await first.startAgain();
  t.after(() => second.end());
  await eventually("all to come back", () =>
    statuses.every((status) => status.some((event) => event.type === "reconnect")),
  );
  // A client resubscribes before it says that it is back; the broker reads in that order.
  await Promise.all([worker.flush(), watcher.flush()]);
  assert.equal((await asker.request("job.again", "", { timeout: 10_000 })).string(), "done");
  asker.publish("news.again", "after");
  await eventually("the event", () => got.length === 1);
});

// protocol: P-100, P-101
test("a broker that leaves says so first, and lets what is under way end", async (t) => {
  const broker = await Broker.serve({ lameDuckMs: 3000 });
  t.after(() => broker.end());
  const worker = await client(t, "worker", { reconnect: false }, broker);
  const asker = await client(t, "asker", { reconnect: false }, broker);
  const { got } = await listen(worker, "job.last", { queue: "worker" });
  const statuses = [worker, asker].map(statusOf);
  const answer = asker.request("job.last", "", { timeout: 10_000 });
  await eventually("the request", () => got.length === 1);
  broker.signal("SIGTERM");
  await eventually("the notice", () => statuses.every((status) => status.some((event) => event.type === "ldm")));
  got[0].respond("in time");
  assert.equal((await answer).string(), "in time");
  await within("the end of both", Promise.all([worker.closed(), asker.closed()]));
  assert.equal(await broker.ended, 0);
});
