//! The operators' interface: HTTP over a Unix socket, or over mutual TLS.
//!
//! It reads snapshots and sends commands; it never touches a connection's state itself, and nothing is done before
//! [`action`] has let it pass.

pub mod action;
pub mod admin;
pub mod alarms;
pub mod answer;
pub mod client;
pub mod figures;
mod looks;
pub mod metrics;
pub mod policy;
pub mod quarantine;
pub mod queue;
pub mod revoked;
pub mod shadow;
pub mod status;

/// What a local user calls themselves.
const USER_HEADER: &str = "exocom-user";
