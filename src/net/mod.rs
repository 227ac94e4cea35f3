//! IO with clients: TLS, listeners, connections, the threads they live on.
//!
//! Each core has one single-threaded runtime, and each connection lives on one of them. What a message leads to
//! is decided in `exchange`; here bytes are read, decrypted, encrypted and written.

pub mod authority;
pub mod broker;
pub mod clock;
pub mod connection;
mod half_open;
pub mod handle;
pub mod https;
pub mod listener;
pub mod tls;
mod usher;
pub mod waiting;
pub mod worker;
