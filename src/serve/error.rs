//! Why a broker does not start, and what to do about it. Only says; starting is for others.

use std::net::SocketAddr;

use crate::console::admin::AdminError;
use crate::net::tls::TlsConfigError;
use crate::serve::policy::PolicyLoadError;

/// Why the broker does not start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The policy cannot be used.
    #[error(transparent)]
    Policy(#[from] PolicyLoadError),
    /// A certificate, key or root cannot be used.
    #[error("[{section}] {error}")]
    Tls {
        /// The listener's section of the configuration.
        section: String,
        /// What is wrong.
        error: TlsConfigError,
    },
    /// A port cannot be opened.
    #[error("[{section}] cannot listen on {address}: {error}{}", remedy(.error))]
    Bind {
        /// The listener's section of the configuration.
        section: String,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// The admin socket cannot be opened.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The store cannot be used.
    #[error("[store] {folder}: {error}")]
    Store {
        /// Its folder.
        folder: String,
        /// What is wrong.
        error: String,
    },
    /// What is revoked, or what is held, cannot be read.
    #[error("{0}")]
    State(String),
    /// A server cannot be called.
    #[error("[{section}] {error}")]
    Outside {
        /// The section of the configuration.
        section: &'static str,
        /// What is wrong.
        error: String,
    },
    /// The broker had ended while it replaced the files of its policy, and they cannot be put right.
    #[error("{0}")]
    HalfReplaced(String),
    /// The audit log cannot be used.
    #[error("[audit] {folder}: {error}")]
    Audit {
        /// Its folder.
        folder: String,
        /// What is wrong.
        error: String,
    },
    /// The system gives no thread, timer or randomness.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// The system gives no randomness.
    #[error("the system gives no random bytes")]
    Random,
}

fn remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => "; another program listens there: stop it, or set another address",
        std::io::ErrorKind::PermissionDenied => "; ports below 1024 need the capability CAP_NET_BIND_SERVICE",
        std::io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        _ => "",
    }
}
