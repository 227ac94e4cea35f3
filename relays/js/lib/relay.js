'use strict';

// The ExoRelay: keeps a connection to ExoCom, sends, and gives what comes in to handlers. Holds nothing back:
// what cannot be sent now is an error now.

const { EventEmitter } = require('node:events');
const { debuglog } = require('node:util');
const { headers: newHeaders } = require('@nats-io/transport-node');
const { pauseMs } = require('./backoff');
const { Checkpoints } = require('./checkpoint');
const { Connection } = require('./connection');
const { ExoError, closed, deniedSubscription, notTracked, offline, seconds } = require('./error');
const { serveHealth, stopHealth } = require('./health');
const limits = require('./limits');
const { Message } = require('./message');
const { checkName, checkPattern } = require('./name');
const { encode } = require('./payload');
const { Renewal } = require('./renewal');
const { healthPort, settings } = require('./settings');
const { Work } = require('./work');

const debug = debuglog('exorelay');

class ExoRelay extends EventEmitter {
  #settings;
  #handlers = new Map();
  #connection;
  #dialing = {};
  #state = 'idle';
  #running;
  #health;
  #renewal;
  #resume;
  #firstOnline = {};
  #warnings = { last: -Infinity, withheld: 0 };
  #forMessages = {
    report: (error) => this.#report(error),
    send: (trace, ...rest) => this.#sendIn(trace, ...rest),
    request: (trace, ...rest) => this.#requestIn(trace, ...rest),
    publish: (trace, ...rest) => this.#publishIn(trace, ...rest),
    extendMsMax: undefined,
  };

  /** Throws a TypeError that says what is missing or wrong. */
  constructor(options) {
    super();
    this.#settings = settings(options);
    this.#forMessages.extendMsMax = this.#settings.extendMsMax;
    this.#firstOnline.promise = new Promise((resolve, reject) => Object.assign(this.#firstOnline, { resolve, reject }));
    // Whoever does not wait for it learns the same from the events.
    this.#firstOnline.promise.catch(() => {});
  }

  /** The service, as the certificate names it. */
  get serviceName() {
    return this.#settings.serviceName;
  }

  /** Whether messages can be sent now. */
  get isOnline() {
    return this.#connection !== undefined && this.#state === 'listening';
  }

  /** When the certificate expires, once the relay listens. A renewed one is used by itself. */
  get certificateExpires() {
    return this.#renewal?.expires;
  }

  /** The port of the health endpoint, once it serves. */
  get healthPort() {
    return this.#health?.address()?.port;
  }

  /**
   * Connects, and comes back whenever the connection is lost. With a port, serves the health at
   * http://127.0.0.1:PORT/. The promise resolves when the relay is online for the first time; it need not be
   * waited for.
   */
  listen(port) {
    if (this.#state !== 'idle') throw new Error(`listen: this relay is ${this.#state}`);
    const wanted = healthPort(port);
    this.#state = 'listening';
    this.#renewal = new Renewal(this.#settings, {
      renewed: () => this.#renew(),
      unusable: (cause) =>
        this.#report(
          new ExoError('credentials', `the changed credentials cannot be used, the connection stays: ${cause.message}`, {
            cause,
          }),
        ),
      expires: (inMs) =>
        this.#report(
          new ExoError(
            'certificate-expires',
            `the certificate ${this.#settings.exocomCert} expires ${inMs < 0 ? 'now' : `in ${seconds(inMs)}`}; put a renewed one in its place`,
          ),
        ),
    });
    this.#running = Promise.all([this.#keepConnected(), wanted === undefined ? undefined : this.#serveHealth(wanted)]);
    return this.#firstOnline.promise;
  }

  /**
   * Sends a message. With a callback it is a command, and the callback gets the payload of the answer; without,
   * an event. What goes wrong comes as the event `error`.
   */
  send(name, payload, callback) {
    this.#sendIn(undefined, name, payload, callback);
  }

  /** Sends a command; resolves with the payload of the answer, rejects with an ExoError. */
  async request(name, payload, options) {
    return this.#requestIn(undefined, name, payload, options);
  }

  /**
   * Publishes a tracked event; resolves with `{ stream, seq, duplicate }` when ExoCom has it on disk, rejects with an
   * ExoError where it has not, or may not have. `id` makes it safe to publish again.
   */
  async publish(name, payload, options) {
    return this.#publishIn(undefined, name, payload, options);
  }

  /** Sends an event; resolves when ExoCom has taken it, rejects with an ExoError where it is denied or lost. */
  async sendAndConfirm(name, payload) {
    const bytes = encode(payload);
    await this.#online(checkName(name)).publishAndConfirm(name, bytes, undefined);
  }

  /** Resolves when ExoCom has taken all that was sent before; rejects where the connection ended first. */
  async flush() {
    await this.#online('flush').confirm();
  }

  /** Calls `handler(payload, tools)` for the messages of a name; index.d.ts tells of the tools. */
  registerHandler(pattern, handler, { concurrency = this.#settings.concurrency } = {}) {
    checkPattern(pattern);
    if (typeof handler !== 'function') throw new TypeError(`${pattern}: the handler must be a function`);
    if (!Number.isInteger(concurrency) || concurrency < 1) {
      throw new TypeError(`${pattern}: concurrency must be a whole number, at least 1`);
    }
    if (this.#handlers.has(pattern)) throw new Error(`${pattern}: has a handler already`);
    if (this.#handlers.size >= limits.HANDLERS_MAX) {
      throw new Error(`${pattern}: there are ${limits.HANDLERS_MAX} handlers already; use patterns`);
    }
    if (this.#state === 'closing' || this.#state === 'closed') throw closed(pattern);
    const work = new Work(concurrency, (message) => message.handle(handler));
    const registered = { pattern, work, refusals: 0, timer: undefined, subscription: undefined };
    this.#handlers.set(pattern, registered);
    if (this.isOnline) this.#subscribe(this.#connection, registered);
    return this;
  }

  /** Registers a handler for each name of an object. */
  registerHandlers(handlers, options) {
    for (const [pattern, handler] of Object.entries(handlers)) this.registerHandler(pattern, handler, options);
    return this;
  }

  /**
   * Takes no more messages, lets handlers and requests finish for a bounded time, and disconnects. A closed
   * relay stays closed.
   */
  async close() {
    if (this.#state === 'closing' || this.#state === 'closed') return this.#running;
    const running = this.#running;
    this.#state = 'closing';
    this.#running = this.#close(running);
    return this.#running;
  }

  /** Moves to a connection with the credentials that the files have now, when nothing is under way any more. */
  async #renew() {
    const connection = this.#connection;
    // Where there is none, the next attempt reads the files.
    if (!this.isOnline) return;
    debug('the credentials have changed; connecting anew with them');
    await within(limits.RENEW_MS_MAX, this.#finishWork(connection));
    if (this.#connection !== connection || this.#state !== 'listening') return;
    this.#connection = undefined;
    await connection.leave(1_000);
  }

  async #close(running) {
    this.#renewal?.stop();
    this.#firstOnline.reject(new ExoError('closed', 'this relay was closed before it was online'));
    this.#dialing.abort?.();
    this.#resume?.();
    const connection = this.#connection;
    if (connection) {
      const end = performance.now() + this.#settings.closeMsMax;
      await within(this.#settings.closeMsMax, this.#finishWork(connection));
      await connection.close(Math.max(end - performance.now(), 0) + 1_000);
    }
    await running;
    if (this.#health) await stopHealth(this.#health);
    this.#state = 'closed';
  }

  async #finishWork(connection) {
    const handlers = [...this.#handlers.values()];
    await Promise.allSettled(handlers.map(({ subscription }) => subscription?.drain()));
    await Promise.all(handlers.map(({ work }) => work.idle()));
    while (connection.requestsWaiting > 0 && this.#connection === connection) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  async #serveHealth(port) {
    try {
      this.#health = await serveHealth(port, () => ({ service: this.serviceName, online: this.isOnline }));
    } catch (cause) {
      this.#report(
        new ExoError('health', `the health endpoint cannot use 127.0.0.1:${port} (${cause.code}); free it, or give listen another port`, {
          cause,
        }),
      );
    }
  }

  async #keepConnected() {
    for (let attempt = 1; this.#state === 'listening'; attempt += 1) {
      const opened = performance.now();
      const wasOnline = await this.#connectOnce(attempt);
      if (wasOnline && performance.now() - opened > limits.CONNECTION_GOOD_AFTER_MS) attempt = 0;
      if (this.#state !== 'listening') return;
      await this.#pause(this.#pauseMs(attempt + 1));
    }
  }

  /** One connection, from its opening to its end; says whether there was one. */
  async #connectOnce(attempt) {
    let connection;
    try {
      connection = await Connection.open(this.#settings, (error) => this.#report(error), this.#dialing);
    } catch (cause) {
      if (this.#state === 'listening') this.#report(this.#unreachable(cause));
      return false;
    }
    if (this.#state !== 'listening') {
      await connection.close(0);
      return false;
    }
    this.#connection = connection;
    for (const handler of this.#handlers.values()) this.#subscribe(connection, handler);
    let wasOnline = false;
    try {
      await connection.confirm();
      wasOnline = this.#state === 'listening';
    } catch {
      // It has ended already.
    }
    if (wasOnline) {
      debug('online as %s after %d attempts', this.serviceName, attempt);
      this.#firstOnline.resolve();
      this.#emit('online');
      if (this.#settings.exocomCheckpoint !== undefined) {
        new Checkpoints(this.#settings, (error) => this.#report(error)).watch(connection);
      }
    }
    const why = await connection.ended;
    this.#connection = undefined;
    for (const handler of this.#handlers.values()) {
      clearTimeout(handler.timer);
      handler.subscription = undefined;
    }
    if (wasOnline && this.#state === 'listening') this.#emit('offline', why);
    return wasOnline;
  }

  #subscribe(connection, handler) {
    const { pattern, work } = handler;
    handler.subscription = connection.subscribe(
      pattern,
      this.serviceName,
      (delivered) => {
        handler.refusals = 0;
        const message = new Message(delivered, connection, this.#forMessages);
        if (work.take(message)) return;
        message.refuse();
        if (work.refusedInARow === 1) this.#report(overloaded(pattern));
      },
      () => this.#retryLater(connection, handler),
    );
  }

  /** The policy may come to allow it: a changed one is in force at once. */
  #retryLater(connection, handler) {
    if (this.#connection !== connection || this.#state !== 'listening') return;
    handler.refusals += 1;
    const ms = pauseMs(handler.refusals, limits.RESUBSCRIBE_MS_MIN, limits.RESUBSCRIBE_MS_MAX);
    handler.subscription = undefined;
    handler.timer = setTimeout(() => {
      if (this.#connection === connection && this.#state === 'listening') this.#subscribe(connection, handler);
    }, ms);
    this.#report(deniedSubscription(handler.pattern, ms));
  }

  #sendIn(trace, name, payload, callback) {
    checkName(name);
    if (callback === undefined && typeof payload === 'function') [payload, callback] = [undefined, payload];
    if (callback !== undefined && typeof callback !== 'function') {
      throw new TypeError(`${name}: the callback must be a function`);
    }
    const bytes = encode(payload);
    try {
      const connection = this.#online(name);
      if (callback === undefined) return connection.publish(name, bytes, trace);
      connection.request(name, bytes, trace, limits.REQUEST_MS_MAX, (error, answer) => {
        if (error) return this.#report(error);
        const { payload: answered, ...about } = answer;
        call(() => callback(answered, about));
      });
    } catch (error) {
      this.#report(error);
    }
  }

  async #requestIn(trace, name, payload, options) {
    const { payload: answered } = await this.#ask(trace, name, payload, options);
    return answered;
  }

  async #publishIn(trace, name, payload, { id, ...options } = {}) {
    checkName(name);
    let headers = trace;
    if (id !== undefined) {
      if (typeof id !== 'string' || !/^[\x21-\x7e]+$/.test(id) || id.length > limits.PUBLISH_ID_BYTES_MAX) {
        throw new TypeError(`${name}: id must be 1 to ${limits.PUBLISH_ID_BYTES_MAX} visible ASCII characters`);
      }
      headers = newHeaders();
      for (const header of trace?.keys() ?? []) headers.set(header, trace.get(header));
      headers.set('Nats-Msg-Id', id);
    }
    const { payload: stored, sender } = await this.#ask(headers, name, payload, options);
    // What has a sender is the answer of a service. ExoCom itself says that it is stored.
    if (sender !== undefined || !Number.isSafeInteger(stored?.seq)) throw notTracked(name);
    return { stream: stored.stream, seq: stored.seq, duplicate: stored.duplicate === true };
  }

  async #ask(trace, name, payload, { timeoutMs = limits.REQUEST_MS_MAX } = {}) {
    checkName(name);
    if (!(timeoutMs > 0 && timeoutMs <= limits.TIMER_MS_MAX)) {
      throw new TypeError(`${name}: timeoutMs must be from 1 to ${limits.TIMER_MS_MAX}`);
    }
    const bytes = encode(payload);
    const connection = this.#online(name);
    return new Promise((resolve, reject) => {
      connection.request(name, bytes, trace, timeoutMs, (error, answer) => {
        if (error) reject(error);
        else resolve(answer);
      });
    });
  }

  /** The connection, or an ExoError that says why there is none. Handlers may send until they have ended. */
  #online(name) {
    if (this.#connection) return this.#connection;
    throw this.#state === 'closing' || this.#state === 'closed' ? closed(name) : offline(name);
  }

  #unreachable(cause) {
    const { exocomHost, exocomPort, exocomCert } = this.#settings;
    return new ExoError(
      'unreachable',
      `cannot connect to ExoCom at ${exocomHost}:${exocomPort}: ${explain(cause, exocomCert)}; trying again`,
      { cause },
    );
  }

  #pauseMs(attempt) {
    return pauseMs(attempt, this.#settings.reconnectMsMin, this.#settings.reconnectMsMax);
  }

  #pause(ms) {
    debug('connecting again in %s', seconds(ms));
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#resume = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** Tells of an error, later: never from within the call that caused it. */
  #report(error) {
    debug('%s', error.message);
    process.nextTick(() => {
      if (this.listenerCount('error') > 0) this.emit('error', error);
      else this.#warn(error);
    });
  }

  /** Nobody listens. A denied message should not end the process, nor pass in silence. */
  #warn(error) {
    if (performance.now() - this.#warnings.last < 1_000) {
      this.#warnings.withheld += 1;
      return;
    }
    const more = this.#warnings.withheld > 0 ? ` (and ${this.#warnings.withheld} more before it)` : '';
    process.emitWarning(error.message + more, { type: 'ExoError', code: error.reason });
    this.#warnings = { last: performance.now(), withheld: 0 };
  }

  #emit(event, ...values) {
    call(() => this.emit(event, ...values));
  }
}

/** Calls what the program gave us. What it throws is an uncaught exception of the program, not our failure. */
function call(given) {
  try {
    given();
  } catch (error) {
    process.nextTick(() => {
      throw error;
    });
  }
}

function overloaded(pattern) {
  return new ExoError(
    'overloaded',
    `${pattern}: messages come faster than the handler works; they are refused until its queue is empty again`,
    { messageName: pattern },
  );
}

/** What a failed handshake means. */
function explain(cause, certificate) {
  const code = cause?.code ?? '';
  if (code === 'ECONNREFUSED') return 'nobody listens there';
  if (/ALERT_|^ECONNRESET$/.test(code)) {
    return `it closed the connection during the handshake (${code}); its log says which rule the certificate ${certificate} breaks`;
  }
  if (/^(UNABLE_TO|SELF_SIGNED|DEPTH_ZERO|CERT_|ERR_TLS_CERT)/.test(code)) {
    return `its certificate is not one that EXOCOM_CA vouches for (${code})`;
  }
  return code && !String(cause.message).includes(code) ? `${cause.message} (${code})` : String(cause?.message ?? cause);
}

/** Waits for a promise, but not longer than that. */
async function within(ms, promise) {
  let timer;
  await Promise.race([promise, new Promise((resolve) => (timer = setTimeout(resolve, ms)))]);
  clearTimeout(timer);
}

module.exports = { ExoRelay };
