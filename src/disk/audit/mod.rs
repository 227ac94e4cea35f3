//! The audit log on disk: written by one task through the seam of [`crate::disk::files`], read by anybody.
//!
//! A checkpoint replaces the one before it only after all that it signs is on disk, so that whatever stops the
//! machine leaves a log that verifies. What was written after it is no part of the log: the next start cuts it off.

mod archive;
mod log;
mod tree;

pub use archive::{Archive, ArchiveError, Pages};
pub use log::{AuditLog, Cut, LogError, OpenError, Opened};
pub use tree::Tree;
