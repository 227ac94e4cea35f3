'use strict';

// Every bound of the relay, on one page: each with its unit in its name, and its reason.

module.exports = Object.freeze({
  /** A message name, in bytes; the broker's bound. It cuts a connection that sends a much longer one. */
  NAME_BYTES_MAX: 255,

  /** A file of certificates or a key, in bytes; the broker's bound. */
  PEM_FILE_BYTES_MAX: 1 << 20,

  /** From the first packet to the end of the broker's greeting, in milliseconds. */
  CONNECT_MS_MAX: 5_000,

  /** The shortest and the longest pause between two attempts to connect, in milliseconds. */
  RECONNECT_MS_MIN: 50,
  RECONNECT_MS_MAX: 5_000,

  /** A connection that lived this long was a good one: the pauses start from the shortest again. */
  CONNECTION_GOOD_AFTER_MS: 5_000,

  /** How often the broker is asked whether it is still there, in milliseconds, and how often in vain. */
  PING_EVERY_MS: 10_000,
  PINGS_UNANSWERED_MAX: 2,

  /** The shortest and the longest pause before a refused subscription is tried again, in milliseconds. */
  RESUBSCRIBE_MS_MIN: 1_000,
  RESUBSCRIBE_MS_MAX: 60_000,

  /** Patterns with a handler. The broker takes 10,000 subscriptions of one connection. */
  HANDLERS_MAX: 1_000,

  /** Messages of one handler that are worked on at the same time, unless its options say otherwise. */
  CONCURRENCY: 64,

  /** Messages that wait for a free place of one handler. Whoever asked has given up on a longer queue before
   * its end is reached. */
  WAITING_MAX: 1_024,

  /** Payload bytes that wait for a free place of one handler. */
  WAITING_BYTES_MAX: 16 << 20,

  /** Requests that wait for their answer. */
  REQUESTS_MAX: 10_000,

  /**
   * How long a request waits, in milliseconds, unless its options say otherwise. ExoCom ends every request
   * within the policy's `reply-within`, which is at most an hour; this only catches a broker that does not.
   */
  REQUEST_MS_MAX: 3_610_000,

  /** How often the files of the credentials are looked at, in milliseconds. */
  CREDENTIALS_EVERY_MS: 1_000,

  /** How long a connection with old credentials is kept for what is under way on it, in milliseconds. */
  RENEW_MS_MAX: 30_000,

  /** How long ahead of its expiry a certificate is told of, in milliseconds at the most, and as a part of its life. */
  EXPIRY_NOTICE_MS_MAX: 86_400_000,
  EXPIRY_NOTICE_PART: 10,

  /** Bytes sent that the broker has not confirmed yet: past it, sending is refused. */
  UNCONFIRMED_BYTES_MAX: 16 << 20,

  /** What a message is counted as beyond its payload and names, in bytes: an empty one is not free. */
  MESSAGE_OVERHEAD_BYTES: 64,

  /** Bytes sent after which the broker is asked to confirm them. */
  CONFIRM_EVERY_BYTES: 256 << 10,

  /** Calls of `publish` and `flush` that wait for the broker's word. */
  CONFIRMATIONS_MAX: 10_000,

  /** How long `close` waits for handlers and requests, in milliseconds, unless the options say otherwise.
   * Below the ten seconds after which many supervisors kill. */
  CLOSE_MS_MAX: 8_000,

  /**
   * How long ExoCom is told that a tracked message is still worked on, in milliseconds, unless the options say
   * otherwise. A handler that hangs must not keep its message from the other instances for ever.
   */
  EXTEND_MS_MAX: 3_600_000,

  /** The shortest pause between two such words, in milliseconds: a policy can let an attempt take a millisecond. */
  EXTEND_EVERY_MS_MIN: 20,

  /** The id with which a tracked message is published, in bytes; the broker's bound. */
  PUBLISH_ID_BYTES_MAX: 255,

  /**
   * How often the newest checkpoint of the audit log is asked for, besides at each connection, in milliseconds: what is
   * kept bounds how much history could be rewritten unnoticed.
   */
  CHECKPOINT_EVERY_MS: 60_000,

  /** How long ExoCom may take to answer, in milliseconds. */
  CHECKPOINT_MS_MAX: 10_000,

  /** What a failing handler says to the one who asked, in bytes: a sentence. */
  FAILURE_BYTES_MAX: 1_024,

  /** Connections to the health endpoint. */
  HEALTH_CONNECTIONS_MAX: 16,

  /** The head of a request for the health, in bytes. */
  HEALTH_HEAD_BYTES_MAX: 4_096,

  /** How long one connection to the health endpoint may last, in milliseconds. */
  HEALTH_MS_MAX: 5_000,

  /** The longest time that the options can name, in milliseconds: 24 days, what a timer of Node can hold. */
  TIMER_MS_MAX: 2_147_483_647,
});
