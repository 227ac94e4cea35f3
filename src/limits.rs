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
