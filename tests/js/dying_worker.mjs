// Takes a request and never answers; its parent kills it. Says on stdout when it is ready and when it has one.

import { connect, theBroker } from "./broker.mjs";

const nc = await connect(theBroker, "worker");
nc.subscribe("job.die", { queue: "worker", callback: () => console.log("asked") });
await nc.flush();
console.log("ready");
