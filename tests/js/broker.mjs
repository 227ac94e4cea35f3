// Brokers and connections for the tests. The Rust test that runs these scripts starts a broker and says by
// EXOCOM_PORT where it listens, by EXOCOM_CERTS where its certificates are, by EXOCOM_POLICY which policy it has,
// and by EXOCOM_BIN which binary it is, for the tests that need a broker to stop and start.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

import { connect as connectNats } from "@nats-io/transport-node";

/** How long anything may take before a test gives up: far more than it needs. */
export const PATIENCE_MS = 30_000;

function variable(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set; run these tests by cargo test --test broker clients_js`);
  return value;
}

/** The broker that the Rust test started. */
export const theBroker = { port: Number(variable("EXOCOM_PORT")), certs: variable("EXOCOM_CERTS") };

/** The official client, connected as a service. */
export function connect({ port, certs }, service, options = {}) {
  return connectNats({
    servers: `127.0.0.1:${port}`,
    tls: {
      handshakeFirst: true,
      caFile: join(certs, "ca.pem"),
      certFile: join(certs, `${service}.pem`),
      keyFile: join(certs, `${service}.key`),
    },
    timeout: PATIENCE_MS,
    ...options,
  });
}

/** Waits until something holds; fails when it does not in time. */
export async function eventually(what, holds) {
  const start = performance.now();
  while (!holds()) {
    if (performance.now() - start > PATIENCE_MS) throw new Error(`waited in vain for ${what}`);
    await sleep(1);
  }
}

/** Waits for a promise; fails when it takes too long. */
export async function within(what, promise) {
  const given = new AbortController();
  const late = sleep(PATIENCE_MS, undefined, { signal: given.signal }).then(() => {
    throw new Error(`waited in vain for ${what}`);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    given.abort();
    late.catch(() => {});
  }
}

/** A broker of a test's own, which it may stop and start again. */
export class Broker {
  /** `exocom dev` on a free port. */
  static async dev() {
    const folder = await mkdtemp(join(tmpdir(), "exocom-js-"));
    return Broker.#start(folder, 0);
  }

  /** `exocom serve`, which takes its leave slowly. */
  static async serve({ lameDuckMs }) {
    const maker = await Broker.dev();
    await maker.stop();
    const text = `version = 1
name = "lame-duck"
policy = ${JSON.stringify(variable("EXOCOM_POLICY"))}
admin-socket = "admin.sock"
[tls]
certificate = "certs/server.pem"
key = "certs/server.key"
[listener.main]
address = "127.0.0.1:${maker.port}"
roots = ["certs/ca.pem"]
[limits]
lame-duck-ms = ${lameDuckMs}
`;
    const config = join(maker.folder, "serve.toml");
    await writeFile(config, text);
    const child = spawn(variable("EXOCOM_BIN"), ["serve", "--config", config], { stdio: ["ignore", "ignore", "pipe"] });
    const broker = new Broker(child, maker.folder, maker.port);
    const log = createInterface({ input: child.stderr });
    await within("the broker to be ready", new Promise((resolve) => {
      log.on("line", (line) => line.includes(" ready ") && resolve());
    }));
    return broker;
  }

  static async #start(folder, port) {
    const args = ["dev", "--policy", variable("EXOCOM_POLICY"), "--dir", folder, "--listen", `127.0.0.1:${port}`];
    const child = spawn(variable("EXOCOM_BIN"), args, { stdio: ["ignore", "pipe", "ignore"] });
    const lines = createInterface({ input: child.stdout });
    const [line] = await within("the broker to be ready", once(lines, "line"));
    const ready = /^ready 127\.0\.0\.1:(\d+)$/.exec(line);
    if (!ready) throw new Error(`not a ready line: ${line}`);
    return new Broker(child, folder, Number(ready[1]));
  }

  constructor(child, folder, port) {
    this.child = child;
    this.folder = folder;
    this.port = port;
    this.certs = join(folder, "certs");
    /** Its exit code, once it has ended. */
    this.ended = once(child, "exit").then(([code]) => code);
  }

  signal(name) {
    this.child.kill(name);
  }

  /** Stops it, and waits for its end. */
  async stop() {
    this.signal("SIGTERM");
    await within("the broker's end", this.ended);
  }

  /** Another one in the same folder, on the same port. */
  startAgain() {
    return Broker.#start(this.folder, this.port);
  }

  /** Whatever the test has done: no process and no folder is left. */
  async end() {
    this.signal("SIGKILL");
    await this.ended;
    await rm(this.folder, { recursive: true, force: true });
  }
}
