//! Every bound of the relay, on one page: each with its unit in its name, and its reason.

use std::time::Duration;

/// A message name, in bytes; the broker's bound. It cuts a connection that sends a much longer one.
pub const NAME_BYTES_MAX: usize = 255;

/// A file of certificates or a key, in bytes; the broker's bound.
pub const PEM_FILE_BYTES_MAX: u64 = 1 << 20;

/// How long a request waits for its answer, unless its options say otherwise. ExoCom ends every request within
/// the policy's `reply-within`, which is at most an hour; this only catches a broker that does not.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(3_610);

/// Requests that wait for their answer.
pub const REQUESTS_MAX: usize = 10_000;

/// How long connecting may take, handshake included.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// How long a message waits for a connection where there is none. Enough for a broker that restarts; whoever
/// needs the answer should not wait longer to hear that there is none.
pub const ONLINE_WITHIN: Duration = Duration::from_secs(3);

/// How often the broker is asked whether it is still there; twice in vain, and the relay connects again.
pub const PING_EVERY: Duration = Duration::from_secs(10);

/// Messages of one handler that are worked on at the same time, unless the options say otherwise.
pub const CONCURRENCY: usize = 64;

/// Messages that wait for a free place of one handler, unless the options say otherwise. Some seconds of work:
/// whoever asked has given up on a longer queue before its end is reached.
pub const WAITING_MAX: usize = 1_024;

/// Payload bytes that wait for a free place of one handler.
pub const WAITING_BYTES_MAX: usize = 16 << 20;

/// Messages between the connection and a handler's queue. Those that come faster than the runtime moves them
/// are dropped, and reported.
pub const INTAKE_MESSAGES_MAX: usize = 8_192;

/// Messages between a sender and the connection; past it, sending waits.
pub const OUTGOING_MESSAGES_MAX: usize = 512;

/// How long a shutdown waits for the handlers, unless the options say otherwise. Below the ten seconds after
/// which many supervisors kill.
pub const SHUTDOWN_WITHIN: Duration = Duration::from_secs(8);

/// How long ExoCom is told that a tracked message is still worked on, unless the options say otherwise. A handler
/// that hangs must not keep its message from the other instances for ever.
pub const EXTEND_FOR: Duration = Duration::from_secs(3_600);

/// The shortest pause between two such words: a policy can let an attempt take a millisecond.
pub const EXTEND_EVERY_MIN: Duration = Duration::from_millis(20);

/// The id with which a tracked message is published, in bytes; the broker's bound.
pub const PUBLISH_ID_BYTES_MAX: usize = 255;

/// The shortest and the longest pause between two attempts to connect.
pub const RECONNECT_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// The shortest and the longest pause before a refused subscription is tried again.
pub const RESUBSCRIBE_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How often the files of the credentials are looked at.
pub const CREDENTIALS_EVERY: Duration = Duration::from_secs(1);

/// How long a connection with old credentials is kept for what is under way on it.
pub const RENEW_WITHIN: Duration = Duration::from_secs(30);

/// How often it is looked whether anything is.
pub const QUIET_EVERY: Duration = Duration::from_millis(10);

/// How long ahead of its expiry a certificate is told of, in seconds, at the most.
pub const EXPIRY_NOTICE_S_MAX: i64 = 86_400;

/// The same as a part of the certificate's life: one tenth.
pub const EXPIRY_NOTICE_PART: i64 = 10;

/// How often the newest checkpoint of the audit log is asked for, besides at each connection: what is kept bounds how
/// much history could be rewritten unnoticed.
pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);

/// How long the broker may take to answer.
pub const CHECKPOINT_WITHIN: Duration = Duration::from_secs(10);

/// A checkpoint, and the file of a log's key, in bytes: some hundred, and more with the signatures of many witnesses.
pub const CHECKPOINT_BYTES_MAX: u64 = 64 << 10;

/// The `tracestate` header, in bytes (W3C Trace Context, section 3.3.1.5).
pub const TRACESTATE_BYTES_MAX: usize = 512;

/// What a failing handler says to the one who asked, in bytes: a sentence.
pub const FAILURE_TEXT_BYTES_MAX: usize = 1_024;
