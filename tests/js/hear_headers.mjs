// Hears messages until one is `last`; prints for each its payload and the headers that the client found, as JSON.

import { connect, theBroker } from "./broker.mjs";

const nc = await connect(theBroker, "listener");
const messages = nc.subscribe("spoken");
await nc.flush();
console.log("listening");
for await (const message of messages) {
  const headers = [];
  for (const name of message.headers?.keys() ?? []) {
    for (const value of message.headers.values(name)) headers.push([name, value]);
  }
  if (message.headers?.code) headers.push(["Status", String(message.headers.code)]);
  console.log(JSON.stringify({ payload: message.string(), headers }));
  if (message.string() === "last") break;
}
await nc.close();
