// The JetStream publishing call of the official JavaScript client against a broker with a store, whose queues hold
// three messages each and whose services are away.
//
// tests/broker/tracked_clients.rs starts the broker and sets the variables that broker.mjs reads.

import { test } from "node:test";
import assert from "node:assert/strict";

import { jetstream } from "@nats-io/jetstream";

import { PATIENCE_MS, connect, theBroker, within } from "./broker.mjs";

/** How long the broker may take to refuse: less than the client waits for an answer that does not come. */
const AT_ONCE_MS = PATIENCE_MS / 2;

async function publisher(t) {
  const nc = await connect(theBroker, "web");
  t.after(() => nc.close());
  return jetstream(nc, { timeout: PATIENCE_MS });
}

/** The error of a publish that is refused, and not answered by silence. */
async function refusal(js, name) {
  const start = performance.now();
  const error = await within("a refusal", js.publish(name, "x").then(() => assert.fail("it was stored"), (error) => error));
  assert.ok(performance.now() - start < AT_ONCE_MS, `${error.name} only after a long time`);
  return error;
}

test("a message is stored, told twice as a duplicate, and refused when its queue is full", async (t) => {
  const js = await publisher(t);
  const first = await js.publish("todos.created", "one", { msgID: "js-1" });
  assert.equal(first.stream, "store-1");
  assert.equal(first.duplicate, false);
  const again = await js.publish("todos.created", "one", { msgID: "js-1" });
  assert.deepEqual([again.seq, again.duplicate], [first.seq, true]);
  const second = await js.publish("todos.created", "two");
  const third = await js.publish("todos.created", "three");
  assert.deepEqual([second.seq, third.seq], [first.seq + 1, first.seq + 2]);
  const error = await refusal(js, "todos.created");
  assert.match(String(error), /jetstream is not enabled/);
  // Another queue has room.
  const other = await js.publish("mails.sent", "one");
  assert.equal(other.seq, first.seq + 3);
});

test("a message that the policy does not allow is refused", async (t) => {
  const js = await publisher(t);
  const error = await refusal(js, "secrets.told");
  assert.match(String(error), /Permissions Violation for Publish to "secrets.told"/);
});
