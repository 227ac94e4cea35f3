//! The broker's behaviour, over real sockets and files: each module starts the real binary and talks to it.

#![allow(
    unreachable_pub,
    reason = "a test binary has no outside; pub says: for the other modules"
)]

mod smoke;
mod support;
