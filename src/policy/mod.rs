//! The policy: a file that operators edit, compiled to an immutable snapshot that permits or denies.
//!
//! Pure: text comes in with its file's name; nothing here reads a file, a clock or a socket. Allow-only: what
//! no line grants is denied.
