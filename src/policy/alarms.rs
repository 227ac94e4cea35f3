//! What a policy says of alarms: about which messages they are raised, how readily, and when a flow is news.
//!
//! Only words: what they mean to a detector is for others.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::diagnostic::quote;
use super::value::{self, BadValue};
use crate::limits::{NEW_FLOW_AFTER_MS, NEW_FLOW_AFTER_MS_MAX, NEW_FLOW_AFTER_MS_MIN};

/// Whether alarms are raised about messages, and how readily.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alarms {
    /// None, whatever happens.
    Off,
    /// As readily as this.
    On(Sensitivity),
}

impl Default for Alarms {
    fn default() -> Self {
        Self::On(Sensitivity::default())
    }
}

impl fmt::Display for Alarms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((word, _)) = ALARMS.iter().find(|(_, known)| known == self) {
            return f.write_str(word);
        }
        let known = SENSITIVITIES.iter();
        let of_it = known.filter(|(_, sensitivity)| Self::On(*sensitivity) == *self);
        let word = of_it.map(|(word, _)| *word).next().unwrap_or_default();
        write!(f, "{{sensitivity = \"{word}\"}}")
    }
}

impl Serialize for Alarms {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How readily.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Sensitivity {
    /// Only what is glaring: for messages that matter little.
    Low,
    /// As it is measured and tuned.
    #[default]
    Normal,
    /// Also what is faint, with more false alarms.
    High,
}

/// When a flow that was never seen is an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NewFlows {
    /// Once the broker has watched for so long.
    After(Duration),
    /// Never.
    Never,
}

impl Default for NewFlows {
    fn default() -> Self {
        Self::After(Duration::from_millis(NEW_FLOW_AFTER_MS))
    }
}

impl fmt::Display for NewFlows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After(time) => f.write_str(&value::show_ms(time.as_millis() as u64)),
            Self::Never => f.write_str(NEVER),
        }
    }
}

impl Serialize for NewFlows {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The words of a policy for alarms.
pub(super) const ALARMS: [(&str, Alarms); 2] =
    [("default", Alarms::On(Sensitivity::Normal)), ("off", Alarms::Off)];

/// The words of a policy for a sensitivity.
pub(super) const SENSITIVITIES: [(&str, Sensitivity); 3] = [
    ("low", Sensitivity::Low),
    ("normal", Sensitivity::Normal),
    ("high", Sensitivity::High),
];

const NEVER: &str = "never";

/// `1d`, or `never`.
pub(super) fn new_flows(text: &str) -> Result<NewFlows, BadValue> {
    if text == NEVER {
        return Ok(NewFlows::Never);
    }
    let time = value::duration(text, NEW_FLOW_AFTER_MS_MAX)
        .ok()
        .filter(|time| time.as_millis() as u64 >= NEW_FLOW_AFTER_MS_MIN);
    time.map(NewFlows::After).ok_or_else(|| {
        BadValue::new(
            format_args!("{} is no time after which a flow is news", quote(text)),
            format_args!(
                "write \"1d\", or anything from {}, which is at once, to {}; \"never\" for no alarm about new flows",
                value::show_ms(NEW_FLOW_AFTER_MS_MIN),
                value::show_ms(NEW_FLOW_AFTER_MS_MAX)
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_flows_are_news_after_a_time_or_never() {
        let check = |text: &str, expected: Option<&str>| {
            let found = new_flows(text).ok().map(|found| found.to_string());
            assert_eq!(found.as_deref(), expected, "{text:?}");
        };
        check("1d", Some("1d"));
        check("36h", Some("36h"));
        check("1s", Some("1s"));
        check("never", Some("never"));
        check("60d", Some("60d"));
        check("61d", None);
        check("0s", None);
        check("999ms", None);
        check("Never", None);
        check("", None);
        assert_eq!(NewFlows::default().to_string(), "1d");
        assert_eq!(serde_json::to_value(NewFlows::Never).unwrap(), "never");
    }

    #[test]
    fn alarms_are_written_as_they_are_read() {
        let text = |alarms: Alarms| alarms.to_string();
        assert_eq!(text(Alarms::default()), "default");
        assert_eq!(text(Alarms::Off), "off");
        assert_eq!(text(Alarms::On(Sensitivity::Low)), "{sensitivity = \"low\"}");
        assert_eq!(text(Alarms::On(Sensitivity::High)), "{sensitivity = \"high\"}");
        assert_eq!(serde_json::to_value(Alarms::Off).unwrap(), "off");
    }
}
