//! ExoCom: a secure, authenticated message broker that speaks the NATS client protocol over mutual TLS.
//!
//! The rooms, from the floor that talks to people down to the floor that knows only bytes. A room imports
//! only from rooms below it; `tests/tidy.rs` enforces that, and that the pure rooms do no IO.

pub mod audit;
pub mod bench;
pub mod cli;
pub mod config;
pub mod console;
pub mod delivery;
pub mod disk;
pub mod exchange;
pub mod identity;
pub mod limits;
pub mod net;
pub mod policy;
pub mod policy_files;
pub mod review;
pub mod screen;
pub mod serve;
pub mod traffic;
pub mod wire;
