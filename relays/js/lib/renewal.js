'use strict';

// Watches over the credentials: notices that their files have changed, and that the certificate expires soon. Looks
// at the files, since not every file system tells. Opens no connection; whoever asked for it is told.

const { X509Certificate } = require('node:crypto');
const { statSync } = require('node:fs');
const { createSecureContext } = require('node:tls');
const limits = require('./limits');
const { credentials, identity } = require('./settings');

class Renewal {
  #settings;
  #tell;
  #timer;
  #inUse;
  #seen;
  #expires;
  #isTold = false;

  /**
   * `tell` has `renewed()`, called when there are new credentials that can be used; `unusable(why)`, called when the
   * files have changed and cannot be used; and `expires(inMs)`, called once ahead of an expiry.
   */
  constructor(settings, tell) {
    this.#settings = settings;
    this.#tell = tell;
    this.#inUse = this.#seen = signature(settings);
    this.#expires = validity(credentials(settings).cert);
    this.#timer = setInterval(() => this.#look(), limits.CREDENTIALS_EVERY_MS).unref();
  }

  /** When the certificate expires. */
  get expires() {
    return new Date(this.#expires.until);
  }

  stop() {
    clearInterval(this.#timer);
  }

  #look() {
    const left = this.#expires.until - Date.now();
    const notice = Math.min(this.#expires.life / limits.EXPIRY_NOTICE_PART, limits.EXPIRY_NOTICE_MS_MAX);
    if (!this.#isTold && left < notice) {
      this.#isTold = true;
      this.#tell.expires(left);
    }
    const now = signature(this.#settings);
    // Whoever writes them may need several steps: they are read when they have not changed since the last look.
    const hasSettled = now === this.#seen;
    this.#seen = now;
    if (now === this.#inUse || !hasSettled) return;
    this.#inUse = now;
    try {
      const pem = credentials(this.#settings);
      createSecureContext(pem);
      identity(pem.cert, this.#settings);
      this.#expires = validity(pem.cert);
      this.#isTold = false;
    } catch (cause) {
      this.#tell.unusable(cause);
      return;
    }
    this.#tell.renewed();
  }
}

/** The files as they are now. Links are followed: what lies behind them is what counts. */
function signature({ exocomCa, exocomCert, exocomKey }) {
  const looked = [exocomCa, exocomCert, exocomKey].map((file) => {
    try {
      const { ino, size, mtimeNs } = statSync(file, { bigint: true });
      return `${ino} ${size} ${mtimeNs}`;
    } catch {
      return 'none';
    }
  });
  return looked.join(', ');
}

/** When a certificate expires, and how long it was valid in all, in milliseconds. */
function validity(pem) {
  const { validFrom, validTo } = new X509Certificate(pem);
  const until = Date.parse(validTo);
  return { until, life: until - Date.parse(validFrom) };
}

module.exports = { Renewal };
