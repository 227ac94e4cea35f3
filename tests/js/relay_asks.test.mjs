// The ExoRelay for JavaScript asks, the one for Rust answers: relays_together.rs runs this and is the other side.

import assert from "node:assert/strict";
import { join } from "node:path";
import test from "node:test";

import ExoRelay from "../../relays/js/index.mjs";

test("what the relay for Rust says is understood", async (t) => {
  const certs = process.env.EXOCOM_CERTS;
  const web = new ExoRelay({
    exocomHost: "127.0.0.1",
    exocomCa: join(certs, "ca.pem"),
    exocomCert: join(certs, "web.pem"),
    exocomKey: join(certs, "web.key"),
  });
  t.after(() => web.close());
  web.on("error", (error) => t.diagnostic(error.message));
  const created = new Promise((resolve) => {
    web.registerHandler("todos.created", (todo, { sender }) => resolve([todo, sender]));
  });
  await web.listen();

  // An empty payload is Rust's `()`, and `()` is `null` here.
  const listed = await new Promise((resolve) => web.send("todos.list", (...answer) => resolve(answer)));
  assert.deepEqual(listed, [[{ id: 1, title: "größer" }], { sender: "todos", messageName: "todos.list" }]);
  assert.equal(await web.request("todos.create", { title: "new" }), null);
  assert.deepEqual(await created, [{ id: 2, title: "new" }, "todos"]);

  const failure = async (payload) => {
    const { reason, code, failure } = await web.request("todos.create", payload).catch((error) => error);
    return [reason, code, failure];
  };
  assert.deepEqual(await failure({ title: "" }), ["failed", 422, "a todo needs a title"]);
  assert.deepEqual(await failure({ title: "break" }), ["failed", 500, "the receiver's handler failed"]);
  assert.deepEqual((await failure({}))[0], "failed");
});
