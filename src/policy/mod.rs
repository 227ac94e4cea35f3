//! The policy: a file that operators edit, compiled to an immutable snapshot that permits or denies.
//!
//! Pure: text comes in with its file's name; nothing here reads a file, a clock or a socket. Allow-only: what
//! no line grants is denied. `docs/policy.md` is the format's reference.
//!
//! Text becomes a decision in this order: `source` (text and places), `syntax` (TOML), `parse` (what is said, from its `leaf`s),
//! `compile` (the snapshot, on `trie`, `grants` and `terms`), `lint` (what was probably not meant), `decide`. What is held
//! although the policy permits it, and for how long, is no matter of text: `quarantine`.

mod alarms;
mod compile;
mod decide;
mod diagnostic;
mod grants;
mod leaf;
mod lint;
mod parse;
pub mod quarantine;
mod rate;
mod source;
mod suggest;
mod syntax;
mod terms;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod trie;
mod value;

pub use alarms::{Alarms, NewFlows, Sensitivity};
pub use compile::{Compiled, Grant, Message, Operator, Policy, Service};
pub use decide::{
    Action, Admission, Capability, Denial, DenialReason, OperatorPermit, Permit, SubscriptionPermit,
};
pub use diagnostic::{Diagnostic, Diagnostics, Place, PolicyErrors, Severity, shown};
pub use rate::{Limit, Limits, Rate, Scope};
pub use source::{Rule, Source, SourceError};
pub use suggest::did_you_mean;
pub use terms::{Audit, Backoff, Delivery, Kind, OnAlarm, Terms};
