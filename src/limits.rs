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

/// One protocol line without its payload, in bytes; what nats-server allows, and clients expect.
pub const CONTROL_LINE_BYTES_MAX: usize = 4096;

/// A payload with its headers, in bytes, unless the configuration says otherwise; announced in INFO.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// The most that the configuration may allow for a payload: a turn holds one in memory, whole.
pub const PAYLOAD_BYTES_MAX_CONFIGURABLE: usize = 64 << 20;

/// The header block of one message, in bytes: every delivery reads it again.
pub const HEADER_BYTES_MAX: usize = 64 << 10;

/// A subscription's id, in bytes. Clients count from 1; nothing needs more.
pub const SID_BYTES_MAX: usize = 64;

/// A reply subject or an inbox pattern, in bytes.
pub const INBOX_BYTES_MAX: usize = 255;
