'use strict';

// Finds the denials that belong to no request. ExoCom tells of every denied message with `-ERR`, and of a denied
// request also with a 503 that follows in the same breath; the client library hides which is which. So both are
// counted by name, and compared when everything that was under way has surely come.

const { setImmediate: soon } = require('node:timers/promises');

class Denials {
  #byName = new Map();
  #settling = Promise.resolve();
  #isSettling = false;
  #confirm;
  #report;

  /**
   * `confirm()` resolves when the broker has answered everything sent before it, and rejects when the connection
   * has ended. `report(name, count)` is told of denials without a request.
   */
  constructor(confirm, report) {
    this.#confirm = confirm;
    this.#report = report;
  }

  /** An `-ERR` has come for a message. */
  denied(name) {
    this.#counts(name).denied += 1;
  }

  /** A 503 that says denied has come for a request. */
  answered(name) {
    this.#counts(name).answered += 1;
  }

  /** Resolves when every denial seen so far has found its request or been reported. */
  settled() {
    return this.#settling;
  }

  #counts(name) {
    let counts = this.#byName.get(name);
    if (counts === undefined) {
      counts = { denied: 0, answered: 0 };
      this.#byName.set(name, counts);
    }
    if (!this.#isSettling) {
      this.#isSettling = true;
      this.#settling = this.#settle();
    }
    return counts;
  }

  async #settle() {
    while (this.#byName.size > 0) {
      // The count that this call was made for is only taken after it returns.
      await soon();
      const seen = new Map(Array.from(this.#byName, ([name, { denied }]) => [name, denied]));
      try {
        await this.#confirm();
      } catch {
        // The connection has ended, and no further answer will come.
      }
      // Errors come through a queue of the client library, answers do not.
      await soon();
      for (const [name, denied] of seen) this.#compare(name, denied);
    }
    this.#isSettling = false;
  }

  #compare(name, denied) {
    const counts = this.#byName.get(name);
    const unasked = denied - counts.answered;
    if (unasked > 0) {
      counts.denied -= unasked;
      this.#report(name, unasked);
    }
    if (counts.denied <= counts.answered) this.#byName.delete(name);
  }
}

module.exports = { Denials };
