//! Every bound of the broker, on one page: each with its unit in its name, and its reason.

/// A message name, in bytes. A name is a routing key that people read and type, not a payload.
pub const NAME_BYTES_MAX: usize = 255;

/// A SPIFFE ID, in bytes (SPIFFE-ID, section 2.3).
pub const SPIFFE_ID_BYTES_MAX: usize = 2048;

/// The life of a client's certificate, in days, unless the configuration says otherwise. The CA/Browser
/// Forum's limit of the years in which such certificates were still made by hand.
pub const CERT_LIFE_DAYS_MAX: u32 = 398;

/// The life of a certificate issued by `exocom certs`, in days.
pub const CERT_LIFE_DAYS_ISSUED: u32 = 7;

/// A policy, all its files together, in bytes: some 10,000 services with 100 names each.
pub const POLICY_BYTES_MAX: usize = 64 << 20;

/// The name of a service, zone or operator, in bytes: a DNS label, since it becomes a host name, a queue group
/// and a file name sooner or later.
pub const LABEL_BYTES_MAX: usize = 63;

/// A trust domain, in bytes (SPIFFE-ID, section 2.1).
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// Diagnostics of one policy that are kept; further ones are counted. Nobody reads more, and a generated file
/// can repeat one mistake a million times.
pub const POLICY_DIAGNOSTICS_MAX: usize = 200;

/// The shortest time that a policy can name, in milliseconds: zero would mean "never" to one reader and "at once"
/// to the next.
pub const POLICY_TIME_MS_MIN: u64 = 1;

/// `reply-within`, in milliseconds: one hour. A pending reply holds memory of its connection; longer work is an
/// event with an answer of its own.
pub const REPLY_WITHIN_MS_MAX: u64 = 3_600_000;

/// `ack-within`, in milliseconds: one day. Until then a message of a stuck receiver is not given to another.
pub const ACK_WITHIN_MS_MAX: u64 = 86_400_000;

/// `attempts`, how often one message is tried. Past it a message is poison, and retrying only spreads it.
pub const ATTEMPTS_MAX: u32 = 1_000;

/// `backoff`, either end, in milliseconds: one day.
pub const BACKOFF_MS_MAX: u64 = 86_400_000;

/// `expires`, in milliseconds: 30 days. The message log is a buffer, not an archive.
pub const EXPIRES_MS_MAX: u64 = 2_592_000_000;

/// `payload-max`, in bytes: 64 MiB, the most that the NATS protocol's clients expect of a server.
pub const POLICY_PAYLOAD_BYTES_MAX: u64 = 64 << 20;
