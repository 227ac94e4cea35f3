//! What operators ask of the policy in force, and what they hear.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::console::action::Asked;
use crate::console::answer::Answer;
use crate::console::shadow::ShadowReport;
use crate::console::status::rfc3339;
use crate::policy::Capability;

/// What an operator asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum PolicyVerb {
    /// The text of a policy that is or was in force.
    Show {
        /// Its version; none for the one in force.
        version: Option<String>,
    },
    /// What was in force, since when, by whom and why.
    Log,
    /// Put a policy in force.
    Apply {
        /// The version that must be in force: the one that the operator has compared it with.
        against: String,
        /// Names and texts of its files. In a folder they take the place of all that are there; a single file keeps the
        /// name that it has on the broker's machine.
        files: Vec<(String, String)>,
        /// Why.
        why: Option<String>,
        /// Put the old one back after this time, in milliseconds, unless somebody confirms.
        confirm_within_ms: Option<u64>,
    },
    /// Keep a policy that waits for it.
    Confirm {
        /// Its version.
        version: String,
    },
    /// Try a candidate beside the policy in force, without effect.
    ShadowStart {
        /// Names and texts of its files.
        files: Vec<(String, String)>,
        /// Why.
        why: Option<String>,
    },
    /// What the candidate would have done otherwise so far.
    ShadowReport,
    /// Try it no longer.
    ShadowStop {
        /// Why.
        why: Option<String>,
    },
}

/// What an operator hears.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum PolicyAnswer {
    /// A policy.
    Policy {
        /// Its version.
        version: String,
        /// Names and texts of its files.
        files: Vec<(String, String)>,
    },
    /// What was in force, the latest first.
    Log {
        /// Each change.
        changes: Vec<PolicyChange>,
        /// The version that waits to be confirmed.
        unconfirmed: Option<String>,
    },
    /// It is in force: whatever is decided from now on is decided by it.
    Applied {
        /// The version before.
        from: String,
        /// The version now.
        to: String,
        /// How long it waits to be confirmed, in milliseconds.
        confirm_within_ms: Option<u64>,
    },
    /// It stays.
    Confirmed {
        /// Its version.
        version: String,
    },
    /// What a candidate that is tried would have done otherwise.
    Shadow(Box<ShadowReport>),
    /// It was not done.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
}

/// A policy that came into force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyChange {
    /// Its version.
    pub version: String,
    /// The version before; none at the first start.
    pub from: Option<String>,
    /// Who put it in force.
    pub who: String,
    /// Why, where somebody said so.
    pub why: Option<String>,
    /// When, in seconds since 1970.
    pub at_unix_s: i64,
}

impl PolicyVerb {
    /// Whether it changes anything.
    pub fn is_change(&self) -> bool {
        self.asked().is_grave
    }

    /// What is asked, for the gate: to look, `view`; to change something, `apply-policy`.
    pub fn asked(&self) -> Asked {
        match self {
            Self::Show { .. } => Asked::look("policy show"),
            Self::Log => Asked::look("policy log"),
            Self::Apply { against, why, .. } => Asked::change(
                "policy apply",
                Capability::ApplyPolicy,
                &format!("against {against}"),
                why.as_deref(),
            ),
            Self::Confirm { version } => {
                Asked::change("policy confirm", Capability::ApplyPolicy, version, None)
            }
            Self::ShadowStart { files, why } => {
                let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
                Asked::change(
                    "policy shadow start",
                    Capability::ApplyPolicy,
                    &names.join(", "),
                    why.as_deref(),
                )
            }
            Self::ShadowReport => Asked::look("policy shadow report"),
            Self::ShadowStop { why } => {
                Asked::change("policy shadow stop", Capability::ApplyPolicy, "", why.as_deref())
            }
        }
    }
}

impl Answer for PolicyAnswer {
    fn outcome(&self) -> Result<String, String> {
        match self {
            Self::Policy { .. } | Self::Log { .. } => Ok("shown".to_owned()),
            Self::Applied { to, .. } => Ok(format!("{to} is in force")),
            Self::Confirmed { version } => Ok(format!("{version} stays")),
            Self::Shadow(report) => Ok(report.outcome()),
            Self::Refused { reason } => Err(reason.lines().next().unwrap_or_default().to_owned()),
        }
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        match self {
            Self::Policy { files, .. } => files.iter().try_for_each(|(_, text)| write!(out, "{text}")),
            Self::Log { changes, unconfirmed } => changes.iter().try_for_each(|change| {
                let why = change
                    .why
                    .as_ref()
                    .map_or(String::new(), |why| format!(": {why}"));
                let waits = if unconfirmed.as_ref() == Some(&change.version) {
                    ", waits to be confirmed"
                } else {
                    ""
                };
                writeln!(
                    out,
                    "{}  {}  by {}{why}{waits}",
                    change.version,
                    rfc3339(change.at_unix_s),
                    change.who
                )
            }),
            Self::Applied {
                from,
                to,
                confirm_within_ms: None,
            } => writeln!(out, "{to} is in force, in place of {from}"),
            Self::Applied {
                from,
                to,
                confirm_within_ms: Some(ms),
            } => writeln!(
                out,
                "{to} is in force, and {from} will be again in {} s unless you confirm it:\n  exocom policy confirm {to}",
                ms / 1000
            ),
            Self::Confirmed { version } => writeln!(out, "{version} stays in force"),
            Self::Shadow(report) => out.write_str(&report.to_text()),
            Self::Refused { reason } => writeln!(out, "refused: {reason}"),
        }
    }
}
