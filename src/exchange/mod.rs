//! What happens to one operation of one connection: sessions, routes, mailboxes, replies.
//!
//! Pure: no socket, clock or file. A connection is a [`Peer`](mailbox::Peer), whose mailbox any publisher may
//! lock for one batch; the time comes in as an argument. Nothing here moves a message without a
//! [`Permit`](crate::policy::Permit), or an answer without the token that the request left.

pub mod checkpoints;
pub mod directory;
mod handover;
mod inbox;
mod limiter;
pub mod mailbox;
pub mod options;
pub mod replies;
pub mod route;
pub mod session;
pub mod shadow;
pub mod share;
mod subscriptions;
#[cfg(test)]
mod tests;
pub mod tracked;
pub mod turn;
pub mod ways;
pub mod world;
