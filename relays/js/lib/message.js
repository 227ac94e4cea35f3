'use strict';

// One message on its way through a handler: it is answered once at the most, by the handler or for it.

const { Match, headers: newHeaders } = require('@nats-io/transport-node');
const { ExoError } = require('./error');
const limits = require('./limits');
const { decode, encode } = require('./payload');

const TRACEPARENT = /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/;
const TRACESTATE_BYTES_MAX = 512;
const EMPTY = new Uint8Array(0);

/** What a receiver says of an attempt to deliver a tracked message: the acknowledgements of NATS JetStream. */
const WORDS = Object.fromEntries(
  Object.entries({ done: '+ACK', notNow: '-NAK', atWork: '+WPI', never: '+TERM' }).map(([name, word]) => [
    name,
    new TextEncoder().encode(word),
  ]),
);

class Message {
  #delivered;
  #connection;
  #relay;
  #isAnswered = false;
  #tracking;
  #extension;

  /** `relay` has `report(error)`, and `send`, `request` and `publish` that take the trace first. */
  constructor(delivered, connection, relay) {
    this.#delivered = delivered;
    this.#connection = connection;
    this.#relay = relay;
    this.#tracking = this.#track();
    if (this.#tracking) this.#extend(performance.now() + relay.extendMsMax);
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
   * `(payload, { reply }) => query(rows => reply(rows))` returns whatever `query` does. A tracked event, which has no
   * answer, is acknowledged when the handler has returned, or its promise has resolved.
   */
  handle(handler) {
    let result;
    try {
      result = handler(this.#payload(), this.#tools());
    } catch (error) {
      this.#failed(error);
      return undefined;
    }
    if (typeof result?.then !== 'function') {
      if (this.#isTrackedEvent) this.#say(WORDS.done);
      return undefined;
    }
    return Promise.resolve(result)
      .then((value) => (this.#isTrackedEvent ? this.#say(WORDS.done) : this.#reply(value)))
      .catch((error) => this.#failed(error));
  }

  /** There is no room for it. */
  refuse() {
    if (this.#tracking) this.#say(WORDS.notNow);
    else this.#answerFailure('overloaded', 503);
  }

  get #isTrackedEvent() {
    return this.#tracking?.isCommand === false;
  }

  #payload() {
    try {
      return decode(this.data);
    } catch (cause) {
      // Trying it again would not make it JSON.
      if (this.#isTrackedEvent) this.#say(WORDS.never);
      else this.#answerFailure('the payload is not JSON', 400);
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
      never: (why) => this.#never(why),
      send: (...rest) => this.#relay.send(trace, ...rest),
      publish: (...rest) => this.#relay.publish(trace, ...rest),
      request: (...rest) => this.#relay.request(trace, ...rest),
      sender: this.#header('Exo-Sender'),
      messageName: this.name,
      id: this.#tracking?.id,
      attempt: this.#tracking?.attempt ?? 1,
    };
  }

  /** Says whether the answer was sent: only the first is, and only where one is wanted. */
  #reply(payload) {
    return !this.#isTrackedEvent && this.#respond(encode(payload), undefined);
  }

  /**
   * The handler cannot do it. Where the fault is the sender's, a code below 500, that is the answer, and trying again
   * would change nothing; otherwise a tracked message is put off.
   */
  #fail(text, given = 400) {
    const code = Number.isInteger(given) && given > 0 ? given : 400;
    if (!this.#tracking || (this.#tracking.isCommand && code < 500)) return this.#answerFailure(text, code);
    return code < 500 ? this.#never(text) : this.#say(WORDS.notNow);
  }

  /** The message can never be handled: a tracked one becomes a dead letter at once. */
  #never(why) {
    if (!this.#tracking) return this.#answerFailure(why, 500);
    if (!this.#say(WORDS.never)) return false;
    this.#relay.report(
      new ExoError('handler-failed', `${this.name}: given up, and kept as dead letter ${this.#tracking.id}: ${why}`, {
        messageName: this.name,
      }),
    );
    return true;
  }

  #say(word) {
    return this.#respond(word, undefined);
  }

  /** Answers with a failure, in the way of NATS services. */
  #answerFailure(text, code) {
    const headers = newHeaders();
    headers.set('Nats-Service-Error', plain(text));
    headers.set('Nats-Service-Error-Code', String(code));
    return this.#respond(EMPTY, headers);
  }

  #respond(payload, headers) {
    if (this.#isAnswered || !this.#delivered.reply) return false;
    try {
      this.#connection.respond(this.#delivered, this.name, payload, headers);
      this.#settled();
      return true;
    } catch (error) {
      if (error.reason === 'closed') {
        // With the connection, the request has gone; ExoCom has told its requester.
        this.#settled();
        return false;
      }
      this.#relay.report(error);
      clearTimeout(this.#extension);
      if (headers === undefined) this.#notAnswered(error.reason === 'too-large');
      return false;
    }
  }

  #notAnswered(isTooLarge) {
    if (!this.#tracking) this.#answerFailure('the answer could not be sent', 500);
    // Tried again, it would be too large again.
    else if (isTooLarge) this.#never('the answer is too large');
    // ExoCom hears no more of it, and makes another attempt when the time of this one is up.
  }

  #settled() {
    this.#isAnswered = true;
    clearTimeout(this.#extension);
  }

  /** What ExoCom says of an attempt to deliver a tracked message. */
  #track() {
    const number = (name) => Number(this.#header(name) ?? NaN);
    const [id, attempt] = [number('Exo-Id'), number('Exo-Attempt')];
    const [replyMs, ackMs] = [number('Exo-Reply-Within'), number('Exo-Ack-Within')];
    const isCommand = !Number.isNaN(replyMs);
    const withinMs = isCommand ? replyMs : ackMs;
    return [id, attempt, withinMs].some(Number.isNaN) ? undefined : { id, attempt, isCommand, withinMs };
  }

  /** Says again and again that it is still being worked on, or waits for its turn. */
  #extend(end) {
    const ms = Math.max(this.#tracking.withinMs / 3, limits.EXTEND_EVERY_MS_MIN);
    this.#extension = setTimeout(() => {
      if (performance.now() >= end) return;
      try {
        this.#connection.respond(this.#delivered, this.name, WORDS.atWork, undefined);
      } catch (error) {
        // With the connection, the attempt has ended.
        if (error.reason === 'closed') return;
      }
      this.#extend(end);
    }, ms);
    this.#extension.unref();
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
    if (!isOurs) this.#fail("the receiver's handler failed", 500);
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
