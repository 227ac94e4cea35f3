//! What operators ask of the alarms, and what they hear.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::console::action::Asked;
use crate::console::answer::Answer;
use crate::console::status::rfc3339;
use crate::policy::Capability;
use crate::traffic::desk::{Alarm, Stream};

/// What an operator asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum AlarmVerb {
    /// The alarms that are open, or all that are kept.
    List {
        /// Also those that are over.
        all: bool,
    },
    /// One alarm.
    Show {
        /// Its number.
        id: u64,
    },
    /// Take note of one.
    Ack {
        /// Its number.
        id: u64,
        /// Why.
        why: Option<String>,
    },
    /// Tell nobody of alarms about the same thing for a time.
    Mute {
        /// The number of an alarm about it.
        id: u64,
        /// For how long, in seconds; 0 ends it.
        for_s: u64,
        /// Why.
        why: Option<String>,
    },
}

/// What an operator hears.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum AlarmAnswer {
    /// The alarms.
    Alarms {
        /// The oldest first.
        alarms: Vec<Alarm>,
        /// What is muted, and until when, in seconds since 1970.
        muted: Vec<(Stream, u64)>,
        /// How many things are watched.
        watched: usize,
        /// Since when, in seconds since 1970.
        since_unix_s: u64,
    },
    /// One alarm.
    Alarm(Box<Alarm>),
    /// It is done.
    Done {
        /// What.
        what: String,
    },
    /// It was not done.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
}

impl AlarmVerb {
    /// What is asked, for the gate: to look, `view`; to change something, `quarantine`.
    pub fn asked(&self) -> Asked {
        let change = |verb, about: String, why: &Option<String>| {
            Asked::change(verb, Capability::Quarantine, &about, why.as_deref())
        };
        match self {
            Self::List { .. } => Asked::look("alarms list"),
            Self::Show { .. } => Asked::look("alarms show"),
            Self::Ack { id, why } => change("alarms ack", format!("alarm {id}"), why),
            Self::Mute { id, for_s, why } => {
                change("alarms mute", format!("what alarm {id} is about, {for_s} s"), why)
            }
        }
    }
}

impl AlarmAnswer {
    /// There is no such alarm.
    pub fn unknown(id: u64) -> Self {
        Self::Refused {
            reason: format!("there is no alarm {id}; `exocom alarms list --all` shows those that are kept"),
        }
    }
}

impl Answer for AlarmAnswer {
    fn outcome(&self) -> Result<String, String> {
        match self {
            Self::Alarms { .. } | Self::Alarm(_) => Ok("shown".to_owned()),
            Self::Done { what } => Ok(what.clone()),
            Self::Refused { reason } => Err(reason.clone()),
        }
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        match self {
            Self::Alarms {
                alarms,
                muted,
                watched,
                since_unix_s,
            } => {
                for alarm in alarms {
                    writeln!(out, "{}", line(alarm))?;
                }
                for (stream, until) in muted {
                    writeln!(out, "muted until {}: {stream}", rfc3339(*until as i64))?;
                }
                let open = alarms
                    .iter()
                    .filter(|alarm| alarm.closed_unix_s.is_none())
                    .count();
                let since = if *watched > 0 {
                    format!(", learned since {}", rfc3339(*since_unix_s as i64))
                } else {
                    String::new()
                };
                writeln!(
                    out,
                    "{open} open; {watched} flows and measures are watched{since}"
                )
            }
            Self::Alarm(alarm) => {
                writeln!(out, "{}", line(alarm))?;
                if let Some(receiver) = &alarm.stream.receiver {
                    writeln!(out, "  receiver      {receiver}")?;
                }
                writeln!(out, "  raised        {}", rfc3339(alarm.opened_unix_s as i64))?;
                writeln!(out, "  by            {}", alarm.finding.detector)?;
                writeln!(
                    out,
                    "  severity      {:.1} times the threshold",
                    alarm.finding.severity
                )?;
                if let Some(closed) = alarm.closed_unix_s {
                    let outcome = alarm.outcome.as_deref().unwrap_or("it is told once");
                    writeln!(out, "  closed        {} ({outcome})", rfc3339(closed as i64))?;
                }
                if let Some(who) = &alarm.acknowledged_by {
                    writeln!(out, "  acknowledged  by {who}")?;
                }
                Ok(())
            }
            Self::Done { what } => writeln!(out, "{what}"),
            Self::Refused { reason } => writeln!(out, "refused: {reason}"),
        }
    }
}

/// An alarm in a line.
pub(crate) fn line(alarm: &Alarm) -> String {
    let state = match (alarm.closed_unix_s, alarm.is_muted) {
        (Some(_), _) => "closed",
        (None, true) => "muted",
        (None, false) if alarm.acknowledged_by.is_some() => "acknowledged",
        (None, false) => "open",
    };
    let since = rfc3339(alarm.finding.since_unix_s as i64);
    format!(
        "{}  {state}  {}  {}: {}",
        alarm.id,
        alarm.finding.kind.name(),
        alarm.stream,
        alarm.finding.words(&since)
    )
}
