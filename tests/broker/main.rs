//! The broker's behaviour, over real sockets and files: each module starts the real binary and talks to it.

#![allow(
    unreachable_pub,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test binary has no outside, and its helpers may fail a test and tell why"
)]

mod alarms;
mod audit;
mod authority;
mod checkpoints;
mod cli;
mod clients_js;
mod clients_python;
mod clients_rust;
mod config;
#[cfg(feature = "demo")]
mod demo;
mod documents;
mod forged_headers;
mod hostile;
mod identity;
mod late_replies;
mod learned;
mod limits;
mod live;
mod nats_server;
mod operators;
mod oracle;
mod outside;
mod pages;
#[cfg(target_os = "linux")]
mod partitions;
mod pki;
mod protocol;
mod quarantine;
mod relay_js;
mod relay_rust;
mod relays_together;
mod shadow;
mod smoke;
mod support;
#[cfg(feature = "demo")]
mod tour;
mod tracked;
mod tracked_clients;
mod views;
mod zones;
