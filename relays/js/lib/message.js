'use strict';

// One message on its way through a handler: it is answered once at the most, by the handler or for it.

const { Match, headers: newHeaders } = require('@nats-io/transport-node');
const { ExoError } = require('./error');
const limits = require('./limits');
const { decode, encode } = require('./payload');

const TRACEPARENT = /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/;
const TRACESTATE_BYTES_MAX = 512;
const EMPTY = new Uint8Array(0);

class Message {
  #delivered;
  #connection;
  #relay;
  #isAnswered = false;

  /** `relay` has `report(error)`, and `send` and `request` that take the trace first. */
  constructor(delivered, connection, relay) {
    this.#delivered = delivered;
    this.#connection = connection;
    this.#relay = relay;
  }

  get data() {
    return this.#delivered.data;
  }

  get name() {
    return this.#delivered.subject;
  }

  /**
   * Runs a handler. Where it gives a promise, the message is answered with the promise's value unless the handler
   * has answered it, and a promise comes back that never rejects. Anything else that it returns means nothing:
   * `(payload, { reply }) => query(rows => reply(rows))` returns whatever `query` does.
   */
  handle(handler) {
    let result;
    try {
      result = handler(this.#payload(), this.#tools());
    } catch (error) {
      this.#failed(error);
      return undefined;
    }
    if (typeof result?.then !== 'function') return undefined;
    return Promise.resolve(result)
      .then((value) => this.#reply(value))
      .catch((error) => this.#failed(error));
  }

  /** There is no room for it. */
  refuse() {
    this.#fail('overloaded', 503);
  }

  #payload() {
    try {
      return decode(this.data);
    } catch (cause) {
      this.#fail('the payload is not JSON', 400);
      throw new ExoError('bad-payload', `${this.name} from ${this.#header('Exo-Sender')}: the payload is not JSON`, {
        messageName: this.name,
        cause,
      });
    }
  }

  #tools() {
    const trace = this.#trace();
    return {
      reply: (payload) => this.#reply(payload),
      fail: (text, code) => this.#fail(text, code),
      send: (...rest) => this.#relay.send(trace, ...rest),
      request: (...rest) => this.#relay.request(trace, ...rest),
      sender: this.#header('Exo-Sender'),
      messageName: this.name,
    };
  }

  /** Says whether the answer was sent: only the first is, and only where one is wanted. */
  #reply(payload) {
    return this.#respond(encode(payload), undefined);
  }

  /** Answers with a failure, in the way of NATS services. */
  #fail(text, code = 400) {
    const headers = newHeaders();
    headers.set('Nats-Service-Error', plain(text));
    headers.set('Nats-Service-Error-Code', String(Number.isInteger(code) && code > 0 ? code : 400));
    return this.#respond(EMPTY, headers);
  }

  #respond(payload, headers) {
    if (this.#isAnswered || !this.#delivered.reply) return false;
    try {
      this.#connection.respond(this.#delivered, this.name, payload, headers);
      this.#isAnswered = true;
      return true;
    } catch (error) {
      if (error.reason === 'closed') {
        // With the connection, the request has gone; ExoCom has told its requester.
        this.#isAnswered = true;
        return false;
      }
      this.#relay.report(error);
      if (headers === undefined) this.#fail('the answer could not be sent', 500);
      return false;
    }
  }

  /** The handler failed. Why is for this service's own eyes. */
  #failed(error) {
    const isOurs = error instanceof ExoError && error.messageName === this.name && error.reason === 'bad-payload';
    this.#relay.report(
      isOurs
        ? error
        : new ExoError('handler-failed', `${this.name}: the handler failed: ${error?.message ?? error}`, {
            messageName: this.name,
            cause: error,
          }),
    );
    this.#fail("the receiver's handler failed", 500);
  }

  #header(name) {
    try {
      return this.#delivered.headers?.get(name, Match.IgnoreCase) || undefined;
    } catch {
      // A header that the client library does not take.
      return undefined;
    }
  }

  /** What ties the messages of one activity together, for those that the handler sends. */
  #trace() {
    const parent = this.#header('traceparent');
    if (!TRACEPARENT.test(parent)) return undefined;
    const headers = newHeaders();
    headers.set('traceparent', parent);
    const state = this.#header('tracestate');
    if (state && state.length <= TRACESTATE_BYTES_MAX) headers.set('tracestate', state);
    return headers;
  }
}

/** A text that can stand in a header. */
function plain(text) {
  const line = String(text).replace(/[\u0000-\u001f\u007f]+/g, ' ').trim();
  return Buffer.from(line).subarray(0, limits.FAILURE_BYTES_MAX).toString().replace(/\ufffd+$/, '') || 'failed';
}

module.exports = { Message };
