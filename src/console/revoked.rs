//! What operators ask of the list of what is revoked, and what they hear.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::console::action::Asked;
use crate::console::answer::Answer;
use crate::console::status::rfc3339;
use crate::identity::revoked::{Revocation, Target};
use crate::policy::Capability;

/// What an operator asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum RevokeVerb {
    /// The list.
    List,
    /// Put something on it.
    Revoke {
        /// What.
        what: Target,
        /// Why.
        reason: String,
    },
    /// Take something off it.
    Unrevoke {
        /// What.
        what: Target,
        /// Why.
        reason: String,
    },
}

/// What an operator hears.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum RevokeAnswer {
    /// The list.
    List {
        /// Its entries.
        revoked: Vec<Revocation>,
    },
    /// It is done, and on disk.
    Changed {
        /// What was put on the list, or taken off it.
        what: Target,
        /// Whether it is on the list now.
        is_revoked: bool,
        /// How many connections it has ended.
        connections_ended: usize,
        /// How many of them had not ended when the broker gave up waiting.
        connections_ending: usize,
        /// What the operator should know besides.
        note: Option<String>,
    },
    /// It was not done.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
}

impl RevokeVerb {
    /// What is asked, for the gate: to look, `view`; to change something, `revoke`.
    pub fn asked(&self) -> Asked {
        match self {
            Self::List => Asked::look("certs revoked"),
            Self::Revoke { what, reason } => Asked::change(
                "certs revoke",
                Capability::Revoke,
                &what.to_string(),
                Some(reason),
            ),
            Self::Unrevoke { what, reason } => Asked::change(
                "certs unrevoke",
                Capability::Revoke,
                &what.to_string(),
                Some(reason),
            ),
        }
    }
}

impl Answer for RevokeAnswer {
    fn outcome(&self) -> Result<String, String> {
        match self {
            Self::List { .. } => Ok("shown".to_owned()),
            Self::Changed {
                connections_ended, ..
            } => Ok(format!("done, {connections_ended} connections ended")),
            Self::Refused { reason } => Err(reason.clone()),
        }
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        match self {
            Self::List { revoked } if revoked.is_empty() => writeln!(out, "nothing is revoked"),
            Self::List { revoked } => revoked.iter().try_for_each(|entry| {
                writeln!(
                    out,
                    "{}  by {} at {}: {}",
                    entry.what,
                    entry.who,
                    rfc3339(entry.at_unix_s),
                    entry.reason
                )
            }),
            Self::Changed {
                what,
                is_revoked: true,
                connections_ended,
                connections_ending,
                note,
            } => {
                writeln!(out, "{what} is revoked; {connections_ended} connections ended")?;
                if *connections_ending > 0 {
                    writeln!(out, "{connections_ending} more are ending: see `exocom status`")?;
                }
                note.iter().try_for_each(|note| writeln!(out, "note: {note}"))
            }
            Self::Changed { what, .. } => writeln!(out, "{what} is no longer revoked"),
            Self::Refused { reason } => writeln!(out, "refused: {reason}"),
        }
    }
}
