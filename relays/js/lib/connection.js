'use strict';

// One connection to ExoCom, from the handshake to its end: requests and their answers, messages, subscriptions.
// It never comes back once it has ended; whoever opened it opens another.

const { once } = require('node:events');
const net = require('node:net');
const { setImmediate: soon } = require('node:timers/promises');
const { connect, createInbox } = require('@nats-io/transport-node');
const { Denials } = require('./denials');
const { ExoError, closed, connectionLost, deniedUnasked, failed, refused } = require('./error');
const limits = require('./limits');
const { decode } = require('./payload');
const { credentials } = require('./settings');

/** The subjects under which ExoCom lets a receiver answer. */
const REPLY_PREFIX = '_R.';

class Connection {
  #nc;
  #socket;
  #inbox = `${createInbox()}.`;
  #requests = new Map();
  #requestsMade = 0;
  #confirmations = new Set();
  #publishers = new Map();
  #unconfirmedBytes = 0;
  #isConfirming = false;
  #isClosing = false;
  #denials = new Denials(
    () => this.#flush(),
    (name, count) => this.#reportDenials(name, count),
  );
  #report;

  /** Resolves with the reason, if there is one, when the connection has ended. */
  ended;

  /**
   * Shakes hands. `report(error)` is told what goes wrong later without belonging to a call. `dialing.abort` can
   * be called while this waits.
   */
  static async open(settings, report, dialing = {}) {
    // Read at each connection, so that renewed certificates are used.
    const pem = credentials(settings);
    // A socket of ours, since the client library would leave one open that is too slow.
    const socket = net.connect({ host: settings.exocomHost, port: settings.exocomPort, noDelay: true });
    let why;
    socket.on('error', (error) => (why ??= error));
    dialing.abort = () => socket.destroy(new Error('this relay is closed'));
    const timer = setTimeout(
      () => socket.destroy(new Error(`no greeting within ${limits.CONNECT_MS_MAX} ms; is this the port of ExoCom?`)),
      limits.CONNECT_MS_MAX,
    );
    try {
      await once(socket, 'connect');
      const nc = await Promise.race([connect(clientOptions(settings, pem, socket)), closing(socket)]);
      return new Connection(nc, socket, report);
    } catch (cause) {
      socket.destroy();
      throw why ?? cause;
    } finally {
      clearTimeout(timer);
      dialing.abort = undefined;
    }
  }

  constructor(nc, socket, report) {
    this.#nc = nc;
    this.#socket = socket;
    this.#report = report;
    this.ended = nc.closed().then((error) => this.#end(error ?? undefined));
    this.#watch();
    nc.subscribe(`${this.#inbox}*`, { callback: (error, message) => this.#answer(error, message) });
  }

  /** Sends a message. Throws an ExoError where it cannot. */
  publish(name, payload, headers) {
    this.#send(name, name, payload, { headers });
  }

  /** Sends a message and resolves when ExoCom has taken it; rejects where it is denied. */
  async publishAndConfirm(name, payload, headers) {
    const publisher = { isDenied: false };
    this.#checkRoomToConfirm(name);
    this.publish(name, payload, headers);
    const publishers = this.#publishers.get(name) ?? new Set();
    this.#publishers.set(name, publishers.add(publisher));
    try {
      await this.#flush();
      // Errors come through a queue of the client library.
      await soon();
      await this.#denials.settled();
    } catch {
      throw connectionLost(name);
    } finally {
      publishers.delete(publisher);
      if (publishers.size === 0 && this.#publishers.get(name) === publishers) this.#publishers.delete(name);
    }
    if (publisher.isDenied) throw deniedUnasked(name);
  }

  /** Resolves when ExoCom has taken all that was sent before. */
  async confirm() {
    this.#checkRoomToConfirm('flush');
    try {
      await this.#flush();
    } catch {
      throw connectionLost('flush');
    }
  }

  /**
   * Sends a message that asks for an answer, and calls `done(error)` or `done(undefined, { payload, sender })`
   * once, later. Throws an ExoError where it cannot send. `read` makes the answer's value of its bytes.
   */
  request(name, payload, headers, timeoutMs, done, read = decode) {
    if (this.#requests.size >= limits.REQUESTS_MAX) {
      throw new ExoError('overloaded', `${name}: not sent, since ${limits.REQUESTS_MAX} requests wait already`, {
        messageName: name,
      });
    }
    this.#requestsMade += 1;
    const token = this.#requestsMade.toString(36);
    this.#send(name, name, payload, { reply: this.#inbox + token, headers });
    const timer = setTimeout(() => {
      this.#finish(
        token,
        new ExoError('timeout', `${name}: no answer within ${timeoutMs} ms; it may or may not have been done`, {
          messageName: name,
        }),
      );
    }, timeoutMs);
    this.#requests.set(token, { name, done, timer, read });
  }

  /** Answers a message. Throws an ExoError where the answer cannot be sent. */
  respond(message, name, payload, headers) {
    this.#send(name, message.reply, payload, { headers });
  }

  /** Subscribes in a group. `onDenied` is called once, if ExoCom does not allow it or stops to. */
  subscribe(pattern, queue, onMessage, onDenied) {
    return this.#nc.subscribe(pattern, {
      queue,
      callback: (error, message) => (error ? onDenied(error) : onMessage(message)),
    });
  }

  /** How many requests wait for their answer. */
  get requestsWaiting() {
    return this.#requests.size;
  }

  /** Lets what has been sent arrive, and closes. Never rejects. */
  async close(graceMs) {
    this.#isClosing = true;
    await this.leave(graceMs);
  }

  /** The same for a relay that goes on: requests that still wait are told that their connection is lost. */
  async leave(graceMs) {
    const timer = setTimeout(() => this.#socket.destroy(), graceMs);
    await this.#flush().catch(() => {});
    await this.#nc.close();
    clearTimeout(timer);
    this.#socket.destroy();
    await this.ended;
  }

  #send(name, subject, payload, { reply, headers }) {
    const bytes = payload.length + (headers ? headers.encode().length : 0);
    const max = this.#nc.info?.max_payload ?? Infinity;
    if (bytes > max) {
      throw new ExoError(
        'too-large',
        `${name}: ${bytes} bytes are more than the ${max} that ExoCom takes; send less, or a reference to it`,
        { messageName: name },
      );
    }
    const cost = bytes + subject.length + limits.MESSAGE_OVERHEAD_BYTES;
    if (this.#unconfirmedBytes + cost > limits.UNCONFIRMED_BYTES_MAX) {
      throw new ExoError('overloaded', `${name}: not sent, since ExoCom takes the bytes more slowly than they come`, {
        messageName: name,
      });
    }
    try {
      this.#nc.publish(subject, payload, { reply, headers });
    } catch {
      throw closed(name);
    }
    this.#unconfirmedBytes += cost;
    if (!this.#isConfirming && this.#unconfirmedBytes >= limits.CONFIRM_EVERY_BYTES) this.#confirmBytes();
  }

  #confirmBytes() {
    this.#isConfirming = true;
    const bytes = this.#unconfirmedBytes;
    this.#flush().then(
      () => {
        this.#unconfirmedBytes -= bytes;
        this.#isConfirming = false;
        if (this.#unconfirmedBytes >= limits.CONFIRM_EVERY_BYTES) this.#confirmBytes();
      },
      () => {},
    );
  }

  #checkRoomToConfirm(what) {
    if (this.#confirmations.size >= limits.CONFIRMATIONS_MAX) {
      throw new ExoError('overloaded', `${what}: ${limits.CONFIRMATIONS_MAX} calls wait for ExoCom's word already`);
    }
  }

  /** As the client library's own, but it rejects when the connection ends, where that would wait for ever. */
  #flush() {
    return new Promise((resolve, reject) => {
      if (this.#nc.isClosed()) return reject(closed('flush'));
      this.#confirmations.add(reject);
      const settle = (outcome) => (value) => {
        this.#confirmations.delete(reject);
        outcome(value);
      };
      this.#nc.flush().then(settle(resolve), settle(reject));
    });
  }

  #answer(error, message) {
    // The subscription to answers is ExoCom's to allow, and it always does; its end is the connection's.
    if (error) return;
    const token = message.subject.slice(this.#inbox.length);
    const request = this.#requests.get(token);
    let headers;
    try {
      headers = message.headers;
    } catch {
      // A header that the client library does not take. Nothing of ours is among such.
    }
    if (message.data.length === 0 && headers?.code === 503) {
      const reason = headers.get('Exo-Reason') || undefined;
      const [rule, policy] = [headers.get('Exo-Rule') || undefined, headers.get('Exo-Policy') || undefined];
      if (reason === 'denied' && request) this.#denials.answered(request.name);
      this.#finish(token, refused(request?.name, { reason, rule, policy }));
      return;
    }
    if (request) this.#finish(token, ...outcome(request, message, headers));
  }

  #finish(token, error, answer) {
    const request = this.#requests.get(token);
    if (request === undefined) return;
    this.#requests.delete(token);
    clearTimeout(request.timer);
    request.done(error, answer);
  }

  async #watch() {
    for await (const status of this.#nc.status()) {
      if (status.type === 'staleConnection') {
        // The client library would first wait for what it has written to arrive.
        this.#socket.destroy();
      } else if (status.type === 'error' && status.error.operation === 'publish') {
        this.#denied(status.error.subject);
      }
    }
  }

  #denied(subject) {
    if (subject.startsWith(REPLY_PREFIX)) {
      this.#report(
        new ExoError('late-reply', 'an answer was not delivered: its request had expired, or its requester had gone'),
      );
    } else {
      this.#denials.denied(subject);
    }
  }

  #reportDenials(name, count) {
    const waiting = [...(this.#publishers.get(name) ?? [])].filter((publisher) => !publisher.isDenied);
    for (const publisher of waiting.slice(0, count)) publisher.isDenied = true;
    for (let left = count - waiting.length; left > 0; left -= 1) this.#report(deniedUnasked(name));
  }

  #end(error) {
    for (const reject of this.#confirmations) reject(error ?? new Error('the connection has ended'));
    this.#confirmations.clear();
    for (const [token, { name }] of this.#requests) {
      this.#finish(token, this.#isClosing ? closedBeforeAnswer(name) : connectionLost(name));
    }
    return error;
  }
}

/**
 * Rejects when the socket has closed: the client library misses that before it listens. Its own word, which says
 * why, goes first where it has one.
 */
async function closing(socket) {
  await new Promise((resolve) => socket.once('close', resolve));
  await new Promise((resolve) => setTimeout(resolve, 100));
  throw new Error('the connection was closed during the handshake');
}

function clientOptions(settings, pem, socket) {
  return {
    name: settings.serviceName,
    servers: `${settings.exocomHost.includes(':') ? `[${settings.exocomHost}]` : settings.exocomHost}:${settings.exocomPort}`,
    // Connecting again is for the relay: the client library would hide why it fails, and drop what is sent
    // meanwhile without a word.
    reconnect: false,
    resolve: false,
    ignoreClusterUpdates: true,
    timeout: 2 * limits.CONNECT_MS_MAX,
    pingInterval: limits.PING_EVERY_MS,
    maxPingOut: limits.PINGS_UNANSWERED_MAX,
    noAsyncTraces: true,
    tls: {
      handshakeFirst: true,
      socket,
      servername: net.isIP(settings.exocomHost) ? '' : settings.exocomHost,
      minVersion: 'TLSv1.3',
      ...pem,
    },
  };
}

/** What an answer means: `[error]` or `[undefined, { payload, sender }]`. */
function outcome({ name, read }, message, headers) {
  const failure = headers?.get('Nats-Service-Error');
  const code = headers?.get('Nats-Service-Error-Code');
  if (failure || code) return [failed(name, failure, code)];
  try {
    const sender = headers?.get('Exo-Sender') || undefined;
    return [undefined, { payload: read(message.data), sender, messageName: name }];
  } catch (cause) {
    return [new ExoError('bad-payload', `${name}: the answer is not JSON`, { messageName: name, cause })];
  }
}

function closedBeforeAnswer(name) {
  return new ExoError('closed', `${name}: this relay was closed before the answer came`, { messageName: name });
}

module.exports = { Connection };
