//! The audit log's rules: what is recorded, the Merkle tree over it, the notes that sign the tree, and how all of
//! that is checked.
//!
//! Pure: bytes in, bytes and verdicts out. Nothing here reads a file, a clock or a random source, and no secret,
//! payload or header value is ever part of a record. The tree is that of RFC 6962, its files those of C2SP
//! tlog-tiles, the checkpoints C2SP signed notes: `docs/audit.md` describes them.

pub mod checkpoint;
pub mod each;
pub mod edge;
pub mod flows;
pub mod intake;
pub mod key;
pub mod note;
pub mod proof;
pub mod record;
pub mod tile;
pub mod tree;
pub mod verify;

pub use checkpoint::Checkpoint;
pub use record::{Entry, Record};
pub use tree::Hash;
