//! The operators' interface: HTTP over a Unix socket, which only the broker's own user may open.
//!
//! It reads snapshots and (in time) sends commands; it never touches a connection's state itself.

pub mod admin;
pub mod queue;
pub mod status;
