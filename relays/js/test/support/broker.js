'use strict';

// A real broker as a child process, and relays for it. Nothing here judges; waits are generous, since the
// machines are busy.

const { spawn, execFile: execFileWithCallback } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const readline = require('node:readline');
const { connect } = require('@nats-io/transport-node');
const { promisify } = require('node:util');
const ExoRelay = require('exorelay');

const execFile = promisify(execFileWithCallback);

/** How long anything may take before the test gives up: far more than it needs. */
const PATIENCE_MS = 30_000;

const EXOCOM = process.env.EXOCOM_BIN ?? path.join(__dirname, '../../../../target/debug/exocom');

/** What the relay's tests play in: `asker` asks and tells, `worker` answers, `watcher` listens. */
const POLICY = `
version = 1
trust-domain = "relay.example"

[service.asker]
sends    = ["job.*", "news.>"]
receives = ["news.>"]

[service.worker]
sends    = ["news.done", "job.next"]
receives = ["job.*"]

[service.watcher]
receives = ["news.>"]

[message."job.slow"]
reply-within = "300ms"

[message."job.small"]
payload-max = "16B"

[message."news.>"]
kind = "event"
`;

class Broker {
  #child;
  /** Everything to close at the end. */
  #clients = [];
  #log;

  /** `exocom dev` under a policy, with certificates for everybody in it. */
  static async start(t, policy = POLICY) {
    if (!fs.existsSync(EXOCOM)) throw new Error(`${EXOCOM} is not there; run cargo build, or set EXOCOM_BIN`);
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'exorelay-'));
    const broker = new Broker(dir);
    t.after(() => broker.#end());
    fs.writeFileSync(broker.file('policy.toml'), policy);
    await broker.#run('127.0.0.1:0');
    return broker;
  }

  constructor(dir) {
    this.dir = dir;
  }

  file(name) {
    return path.join(this.dir, name);
  }

  cert(name) {
    return path.join(this.dir, 'certs', name);
  }

  /** The options of a relay for a service; what `more` says comes last. */
  options(service, more = {}) {
    return {
      serviceName: service,
      exocomHost: '127.0.0.1',
      exocomPort: this.port,
      exocomCa: this.cert('ca.pem'),
      exocomCert: this.cert(`${service}.pem`),
      exocomKey: this.cert(`${service}.key`),
      ...more,
    };
  }

  /** The same as environment variables. */
  environment(service) {
    return {
      SERVICE_NAME: service,
      EXOCOM_HOST: '127.0.0.1',
      EXOCOM_PORT: String(this.port),
      EXOCOM_CA: this.cert('ca.pem'),
      EXOCOM_CERT: this.cert(`${service}.pem`),
      EXOCOM_KEY: this.cert(`${service}.key`),
    };
  }

  /** A relay with handlers, online. Its errors are collected in `relay.errors`. */
  async relay(service, handlers = {}, more = {}) {
    const relay = this.offlineRelay(service, more);
    relay.registerHandlers(handlers);
    await patiently('the relay to be online', relay.listen());
    return relay;
  }

  /** A relay that does not listen yet. */
  offlineRelay(service, more = {}) {
    const relay = new ExoRelay(this.options(service, more));
    relay.errors = [];
    relay.on('error', (error) => relay.errors.push(error));
    this.#clients.push(relay);
    return relay;
  }

  /** The official client, connected as a service. */
  async natsClient(service) {
    const client = await connect({
      servers: `127.0.0.1:${this.port}`,
      reconnect: false,
      tls: {
        handshakeFirst: true,
        caFile: this.cert('ca.pem'),
        certFile: this.cert(`${service}.pem`),
        keyFile: this.cert(`${service}.key`),
      },
    });
    this.#clients.push(client);
    return client;
  }

  /** Ends the process by SIGTERM. */
  async stop() {
    const ended = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.kill('SIGTERM');
    await patiently("the broker's end", ended);
  }

  /** Sends the process a signal, such as SIGSTOP. */
  signal(signal) {
    this.#child.kill(signal);
  }

  /** Stops the process where it is, by SIGSTOP. */
  async freeze() {
    this.signal('SIGSTOP');
    // Where there is no /proc to tell, the signal's own speed must do.
    const stat = `/proc/${this.#child.pid}/stat`;
    await until('the broker to be stopped', () => !fs.existsSync(stat) || / T /.test(fs.readFileSync(stat, 'utf8')));
  }

  /** Starts it again, in the same folder and on the same port. */
  async startAgain() {
    await this.#run(`127.0.0.1:${this.port}`);
  }

  /** Replaces the policy and waits until it is in force. */
  async changePolicy(policy) {
    const before = await this.#policyVersion();
    fs.writeFileSync(this.file('policy.new'), policy);
    fs.renameSync(this.file('policy.new'), this.file('policy.toml'));
    await until('the new policy', async () => (await this.#policyVersion()) !== before);
  }

  async #policyVersion() {
    const { stdout } = await execFile(EXOCOM, ['status', '--json', '--admin', this.file('admin.sock')]);
    return JSON.parse(stdout).policy.version;
  }

  async #run(listen) {
    this.#log = '';
    const policy = this.file('policy.toml');
    this.#child = spawn(EXOCOM, ['dev', '--policy', policy, '--dir', this.dir, '--listen', listen], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, NO_COLOR: '1' },
    });
    this.#child.stderr.on('data', (data) => (this.#log += data));
    const lines = readline.createInterface({ input: this.#child.stdout });
    const ready = new Promise((resolve, reject) => {
      lines.once('line', resolve);
      this.#child.once('error', reject);
      this.#child.once('exit', (code) => reject(new Error(`the broker ended with ${code}:\n${this.#log}`)));
    });
    ready.catch(() => {});
    const line = await patiently('the ready line', ready);
    this.port = Number(/^ready .*:([0-9]+)$/.exec(line)[1]);
  }

  async #end() {
    await Promise.all(this.#clients.map((client) => client.close()));
    this.#child?.kill('SIGKILL');
    fs.rmSync(this.dir, { recursive: true, force: true });
  }
}

/** Runs a program in a process of its own, to its end. */
async function run(program, environment) {
  const child = spawn(process.execPath, ['-e', program], {
    cwd: __dirname,
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  child.stdout.on('data', (data) => (output += data));
  child.stderr.on('data', (data) => (output += data));
  const ended = new Promise((resolve) => child.once('close', resolve));
  try {
    return { code: await patiently('the program', ended), output };
  } finally {
    child.kill('SIGKILL');
  }
}

/** Waits for a promise, and fails when it takes too long. */
async function patiently(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited in vain for ${what}`)), PATIENCE_MS);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Waits until something holds, and fails when it does not in time. Gives back what held. */
async function until(what, holds) {
  const end = performance.now() + PATIENCE_MS;
  for (;;) {
    const held = await holds();
    if (held) return held;
    if (performance.now() > end) throw new Error(`waited in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

module.exports = { Broker, EXOCOM, POLICY, patiently, run, until };
