//! Bytes to operations and back: the NATS client protocol, names and patterns, headers.
//!
//! Pure: bytes come in as slices and go out as slices. Nothing here reads a socket, a clock or a file.

pub mod name;
