//! The message log, the audit log and their files: what is said to be on disk is on disk.
//!
//! Every file operation goes through [`files::Files`], which a test replaces by a disk that fails. A failed sync
//! is never retried: the kernel may have thrown away what it could not write, so the broker stops and says so.
//! `docs/delivery.md` and `docs/audit.md` describe the formats and what is promised.

pub mod audit;
mod batch;
pub mod files;
mod log;
mod record;
mod recover;
mod segment;
pub mod state;
pub mod store;

pub use log::{LogError, LogSize};
pub use record::Stored;
pub use recover::{Cut, OpenError};
