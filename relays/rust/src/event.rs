//! What happens to a relay while nobody calls it, and whether it is connected.

use std::fmt;

/// Whether a relay is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// There is a connection to the broker.
    Online,
    /// There is none, and the relay tries again and again.
    Offline {
        /// Why the last attempt failed, if one did.
        reason: Option<String>,
    },
    /// The relay has been shut down.
    Closed,
}

/// What happens to a relay. Each is logged too.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// There is a connection.
    Online,
    /// The connection ended; the relay connects again.
    Offline,
    /// An attempt to connect failed.
    Unreachable {
        /// Why, and what to do.
        reason: String,
    },
    /// The broker is about to end; it will close the connection.
    BrokerLeaving,
    /// ExoCom denied a message of this service. For a request, its sender is told too, with the rule.
    SendDenied {
        /// The message name.
        name: String,
    },
    /// ExoCom does not let this service receive what it has a handler for. The relay tries again, ever more
    /// seldom, so that a corrected policy is enough.
    ReceiveDenied {
        /// The pattern of the handler.
        pattern: String,
    },
    /// An answer was not delivered: its request had expired, or its requester had gone.
    LateReply,
    /// A message came faster than the handlers work, and was not handled. If it was a request, its sender is
    /// told.
    Dropped {
        /// The message name, where it is known.
        name: Option<String>,
    },
    /// A handler failed or panicked.
    HandlerFailed {
        /// The message name.
        name: String,
        /// What is known about it; the sender is told less.
        error: String,
    },
    /// The files of the credentials have changed, and the relay connects anew with them.
    CredentialsRenewed,
    /// The files of the credentials have changed, and cannot be used; the connection stays as it is.
    CredentialsUnusable {
        /// What is wrong with them.
        problem: String,
    },
    /// The certificate expires soon. Then ExoCom ends the connection, and lets no other be made with it.
    CertificateExpires {
        /// In how many seconds; below 0 when it has expired.
        in_s: i64,
    },
    /// The broker's audit log does not continue the checkpoint that was kept: somebody has rewritten it, or cut off its
    /// end. See [`Options::keep_checkpoint`](crate::Options::keep_checkpoint).
    HistoryRewritten {
        /// How many entries the log had at the kept checkpoint.
        kept: u64,
        /// How many it says that it has now.
        now: u64,
    },
    /// Whether the audit log continues the kept checkpoint could not be found out; it is tried again.
    HistoryUnchecked {
        /// Why.
        problem: String,
    },
    /// The relay has been shut down.
    Closed,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Online => f.write_str("connected to ExoCom"),
            Self::Offline => f.write_str("the connection to ExoCom ended; connecting again"),
            Self::Unreachable { reason } => write!(f, "cannot connect to ExoCom: {reason}"),
            Self::BrokerLeaving => f.write_str("ExoCom is shutting down"),
            Self::SendDenied { name } => write!(
                f,
                "ExoCom denied {name}: the policy does not let this service send it; the broker's log names the rule"
            ),
            Self::ReceiveDenied { pattern } => write!(
                f,
                "ExoCom does not let this service receive {pattern}: every name that it matches must be in what the \
                 policy lets it receive"
            ),
            Self::LateReply => {
                f.write_str("an answer was not delivered: its request had expired, or its requester had gone")
            }
            Self::Dropped { name: Some(name) } => {
                write!(f, "{name} was dropped: it came faster than the handlers work")
            }
            Self::Dropped { name: None } => {
                f.write_str("a message was dropped: it came faster than it was taken")
            }
            Self::HandlerFailed { name, error } => write!(f, "the handler of {name} failed: {error}"),
            Self::CredentialsRenewed => {
                f.write_str("the credentials have changed; connecting anew with them")
            }
            Self::CredentialsUnusable { problem } => {
                write!(
                    f,
                    "the changed credentials cannot be used, the connection stays: {problem}"
                )
            }
            Self::CertificateExpires { in_s } if *in_s < 0 => {
                write!(
                    f,
                    "the certificate expired {} s ago; put a renewed one in its place",
                    -in_s
                )
            }
            Self::CertificateExpires { in_s } => {
                write!(
                    f,
                    "the certificate expires in {in_s} s; put a renewed one in its place"
                )
            }
            Self::HistoryRewritten { kept, now } => write!(
                f,
                "ExoCom's audit log was REWRITTEN: what it says of its {now} entries contradicts the checkpoint of \
                 {kept} entries that this service keeps. Save both checkpoints and the log, and find out who did it; \
                 `exocom audit verify --witness` tells where"
            ),
            Self::HistoryUnchecked { problem } => {
                write!(
                    f,
                    "whether ExoCom's audit log was rewritten is not known: {problem}"
                )
            }
            Self::Closed => f.write_str("the relay has been shut down"),
        }
    }
}
