'use strict';

// What can go wrong, with a word that a program can test and a sentence that tells a person what to do next.
// Never carries a payload, a key or a certificate.

const { FAILURE_BYTES_MAX } = require('./limits');

/**
 * `reason` is a word of ExoCom's (`Exo-Reason`: denied, no-receiver, receiver-lost, expired, overloaded,
 * dead-letter, quarantined) or of the relay's own; index.d.ts lists them all.
 */
class ExoError extends Error {
  constructor(reason, message, { messageName, rule, policy, code, failure, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'ExoError';
    this.reason = reason;
    this.messageName = messageName;
    this.rule = rule;
    this.policy = policy;
    this.code = code;
    this.failure = failure;
  }
}

/** The error for a status 503 of ExoCom. */
function refused(messageName, { reason, rule, policy }) {
  const known = reason ?? 'no-receiver';
  return new ExoError(known, `${messageName}: ${explain(known, rule, policy)}`, { messageName, rule, policy });
}

function explain(reason, rule, policy) {
  switch (reason) {
    case 'denied':
      return (
        `denied by ExoCom (${rule ?? 'no rule given'}${policy ? `, policy ${policy}` : ''}); ` +
        "to allow it, list the name under this service's `sends` in the policy"
      );
    case 'no-receiver':
      return 'no service that receives it is connected; start one, or check that it registered a handler';
    case 'receiver-lost':
      return 'the receiver disconnected before it answered; it may or may not have done the work';
    case 'expired':
      return "no answer within the policy's reply-within; it may or may not have been done";
    case 'overloaded':
      return 'the receiver has too much to do; try again later';
    case 'dead-letter':
      return 'given up after the allowed attempts; an operator can see and replay it';
    case 'quarantined':
      return 'this service, or its receiver, is held until an operator has looked at it; it may be sent again later';
    default:
      return `refused by ExoCom: ${reason}`;
  }
}

/** The error for an answer in which the receiver says that it failed, in the way of NATS services (ADR-32). */
function failed(messageName, text, code) {
  const number = /^[0-9]{1,9}$/.test(code) ? Number(code) : 500;
  if (number === 503) return refused(messageName, { reason: 'overloaded' });
  const failure = (text || 'the receiver failed').slice(0, FAILURE_BYTES_MAX);
  return new ExoError('failed', `${messageName}: ${failure}`, { messageName, code: number, failure });
}

/** The error for a message that ExoCom denied without a request to answer: it gives no rule then. */
function deniedUnasked(messageName) {
  return new ExoError(
    'denied',
    `${messageName}: denied by ExoCom, and lost; to allow it, list the name under this service's \`sends\` in ` +
      'the policy (the broker\'s log names the rule)',
    { messageName },
  );
}

/** The error for a subscription that ExoCom denied. */
function deniedSubscription(pattern, retryMs) {
  return new ExoError(
    'denied',
    `${pattern}: ExoCom does not let this service receive it; every name that it matches must be in the ` +
      `service's \`receives\` in the policy. Next attempt in ${seconds(retryMs)}`,
    { messageName: pattern },
  );
}

/** The error for a published message that ExoCom does not store. */
function notTracked(messageName) {
  return new ExoError(
    'not-tracked',
    `${messageName}: not stored, since the policy does not say kind = "event" and delivery = "at-least-once" of it; ` +
      'use send or request',
    { messageName },
  );
}

function offline(messageName) {
  return new ExoError('offline', `${messageName}: not sent, since there is no connection to ExoCom now`, {
    messageName,
  });
}

function closed(messageName) {
  return new ExoError('closed', `${messageName}: not sent, since this relay is closed`, { messageName });
}

function connectionLost(messageName) {
  return new ExoError(
    'connection-lost',
    `${messageName}: the connection to ExoCom ended before the answer came; it may or may not have been done`,
    { messageName },
  );
}

/** Milliseconds as a person reads them. */
function seconds(ms) {
  return ms < 1_000 ? `${Math.round(ms)} ms` : `${(ms / 1_000).toFixed(1)} s`;
}

module.exports = {
  ExoError,
  closed,
  connectionLost,
  deniedSubscription,
  deniedUnasked,
  failed,
  notTracked,
  offline,
  refused,
  seconds,
};
