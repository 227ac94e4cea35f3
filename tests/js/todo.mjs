// The todo application in JavaScript, as processes on a broker of their own.

import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import support from "../../relays/js/test/support/broker.js";

const { patiently, until } = support;

export { until };

const root = new URL("../../", import.meta.url);

/** A path of the project. */
export const path = (name) => fileURLToPath(new URL(name, root));

/** A broker under the todo application's policy. */
export async function startBroker(t) {
  return support.Broker.start(t, await readFile(path("policies/todo.toml"), "utf8"));
}

/** The service that keeps the todos. */
export function startTodos(t, broker) {
  const program = new Program(t, "examples/todo/todos-js", ["server.js"], broker.environment("todos"));
  return program.says(/^Todo service online$/).then(() => program);
}

/** The web server that lists and creates; `program.url` is its page. */
export async function startWeb(t, broker) {
  const program = new Program(t, "examples/todo/web-js", ["server.js"], { ...broker.environment("web"), PORT: "0" });
  const [, port] = await program.says(/^Todo web server listening on port ([0-9]+)$/);
  program.url = `http://127.0.0.1:${port}`;
  return program;
}

/** The tutorial's program, as printed; `program.url` is its page. */
export async function startTutorial(t, broker) {
  const args = ["--require", path("tests/js/move_port.cjs"), "tutorial.js"];
  const program = new Program(t, "examples/todo/web-js", args, broker.environment("web"));
  const [, port] = await program.says(/^moved to ([0-9]+)$/);
  program.url = `http://127.0.0.1:${port}`;
  return program;
}

/** `exocom demo`: the broker and both services in Rust; `program.url` is its page. */
export async function startDemo(t) {
  const folder = await mkdtemp(join(tmpdir(), "exocom-demo-"));
  const args = ["demo", "--listen", "127.0.0.1:0", "--dir", folder];
  const program = new Program(t, ".", args, {}, support.EXOCOM);
  t.after(() => rm(folder, { recursive: true, force: true }));
  const [url] = await program.says(/http:\/\/127\.0\.0\.1:[0-9]+/);
  program.url = url;
  return program;
}

/** A process that ends with the test. */
export class Program {
  lines = [];

  constructor(t, folder, args, environment, command = process.execPath) {
    this.child = spawn(command, args, {
      cwd: path(folder),
      env: { ...process.env, ...environment },
      stdio: ["ignore", "pipe", "pipe"],
    });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      createInterface({ input: stream }).on("line", (line) => this.lines.push(line));
    }
    this.ended = new Promise((resolve) => {
      this.child.once("exit", (code, signal) => resolve(code ?? signal));
      this.child.once("error", resolve);
    });
    this.ended.then((how) => (this.how = how));
    t.after(() => this.kill());
  }

  /** Waits until it has printed a line like that; gives back the match. */
  says(pattern) {
    return until(`${pattern} from ${this.child.spawnargs.join(" ")}`, () => {
      const match = this.lines.map((line) => pattern.exec(line)).find(Boolean);
      if (!match && this.how !== undefined) throw new Error(`it ended with ${this.how}:\n${this.lines.join("\n")}`);
      return match;
    });
  }

  /** Asks it to end; gives back how it did. */
  stop() {
    this.child.kill("SIGTERM");
    return patiently("its end", this.ended);
  }

  async kill() {
    this.child.kill("SIGKILL");
    await this.ended;
  }
}
