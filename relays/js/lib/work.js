'use strict';

// The work of one handler: at most so many messages at a time, and a bounded queue behind them. What does not
// fit is refused at once, never kept. Knows nothing of connections.

const limits = require('./limits');

class Work {
  #concurrency;
  #run;
  #waiting = [];
  #waitingBytes = 0;
  #running = 0;
  #refused = 0;
  #onIdle = [];

  /** `run(message)` works on one message and returns a promise that never rejects, or nothing. */
  constructor(concurrency, run) {
    this.#concurrency = concurrency;
    this.#run = run;
  }

  /** How many messages have been refused since the queue was last empty. */
  get refusedInARow() {
    return this.#refused;
  }

  /** Takes a message; says whether there was room for it. */
  take(message) {
    if (this.#running < this.#concurrency) {
      this.#start(message);
      return true;
    }
    const bytes = message.data.length;
    const isFull =
      this.#waiting.length >= limits.WAITING_MAX || this.#waitingBytes + bytes > limits.WAITING_BYTES_MAX;
    if (isFull) {
      this.#refused += 1;
      return false;
    }
    this.#waiting.push(message);
    this.#waitingBytes += bytes;
    return true;
  }

  /** Resolves when nothing is being worked on and nothing waits. */
  idle() {
    if (this.#running === 0) return Promise.resolve();
    return new Promise((resolve) => this.#onIdle.push(resolve));
  }

  #start(message) {
    this.#running += 1;
    const running = this.#run(message);
    if (running === undefined) {
      this.#running -= 1;
    } else {
      running.then(() => this.#ended());
    }
  }

  #ended() {
    this.#running -= 1;
    while (this.#waiting.length > 0 && this.#running < this.#concurrency) {
      const message = this.#waiting.shift();
      this.#waitingBytes -= message.data.length;
      this.#start(message);
    }
    if (this.#waiting.length === 0) this.#refused = 0;
    if (this.#running === 0) this.#onIdle.splice(0).forEach((resolve) => resolve());
  }
}

module.exports = { Work };
