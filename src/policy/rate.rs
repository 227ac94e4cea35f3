//! Limits on how many messages may come: what a policy says of them, and whether one more may pass.
//!
//! The rule is the generic cell rate algorithm (ITU-T I.371, annex A): one number, the time at which the next message
//! would be on time, says all. Reads no clock.

use std::fmt;

use serde::Serialize;

use super::diagnostic::quote;
use super::source::Rule;
use super::value::BadValue;
use crate::limits::LIMIT_RATE_MAX;
use crate::wire::name::Pattern;

const UNITS_NS: [(&str, u64); 4] = [
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// So many messages in a unit of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(into = "String")]
pub struct Rate {
    count: u32,
    /// One of the units.
    per_ns: u64,
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS_NS.iter().find(|(_, ns)| *ns == self.per_ns);
        write!(f, "{}/{}", self.count, unit.map_or("", |(name, _)| name))
    }
}

/// How many messages may come: so many at once, and then so many in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Limits {
    rate: Rate,
    burst: u32,
}

impl Limits {
    /// Without a burst, as many at once as may come in a second.
    pub(super) fn new(rate: Rate, burst: Option<u32>) -> Self {
        let in_a_second = u64::from(rate.count) * 1_000_000_000 / rate.per_ns;
        let burst = burst.unwrap_or_else(|| u32::try_from(in_a_second).unwrap_or(u32::MAX).max(1));
        Self { rate, burst }
    }

    /// The time from one message to the next, in nanoseconds.
    fn interval_ns(&self) -> u64 {
        (self.rate.per_ns / u64::from(self.rate.count)).max(1)
    }

    /// When the message after this one is on time, if one that comes now may pass; `next_ns` said that of this one.
    pub fn admit(&self, next_ns: u64, now_ns: u64) -> Option<u64> {
        let interval_ns = self.interval_ns();
        let ahead_ns = interval_ns.saturating_mul(u64::from(self.burst - 1));
        let is_early = next_ns > now_ns.saturating_add(ahead_ns);
        (!is_early).then(|| next_ns.max(now_ns).saturating_add(interval_ns))
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{rate = \"{}\", burst = {}}}", self.rate, self.burst)
    }
}

/// Of what one sending service's messages are limited together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All that it sends.
    Service,
    /// What it sends under the names of a `[message]` table.
    Message(Pattern),
}

/// Limits of the policy, and the line that sets them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Of what.
    pub scope: Scope,
    /// How many.
    pub limits: Limits,
    /// The line.
    pub rule: Rule,
}

/// `500/s`, `30/m`, `100/h`, `1000/d`.
pub(super) fn rate(text: &str) -> Result<Rate, BadValue> {
    let help = "write a whole number of messages and a unit of time, such as \"500/s\", \"30/m\", \"100/h\" or \"1000/d\"";
    let bad = || BadValue::new(format_args!("{} is not a rate", quote(text)), help);
    let (count, unit) = text.split_once('/').ok_or_else(bad)?;
    let &(_, per_ns) = UNITS_NS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
    if count.is_empty() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    match count.parse() {
        Ok(count) if (1..=LIMIT_RATE_MAX).contains(&count) => Ok(Rate { count, per_ns }),
        _ => Err(BadValue::new(
            format_args!("{} is out of range", quote(text)),
            format_args!("it may be 1 to {LIMIT_RATE_MAX}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let check = |text: &str, expected: Option<(u32, u64)>| {
            let expected = expected.map(|(count, per_s)| Rate {
                count,
                per_ns: per_s * 1_000_000_000,
            });
            assert_eq!(rate(text).ok(), expected, "{text:?}");
        };
        check("500/s", Some((500, 1)));
        check("30/m", Some((30, 60)));
        check("1/h", Some((1, 3_600)));
        check("1000/d", Some((1_000, 86_400)));
        check("10000000/s", Some((10_000_000, 1)));
        check("10000001/s", None);
        check("0/s", None);
        check("/s", None);
        check("500", None);
        check("500/", None);
        check("500/ms", None);
        check("500 /s", None);
        check("+5/s", None);
        check("-5/s", None);
        check("5.5/s", None);
        check("99999999999999999999/s", None);
    }

    #[test]
    fn what_is_no_number_is_told_apart_from_what_is_too_much() {
        let check = |text: &str, words: &str| {
            let said = rate(text).unwrap_err();
            assert!(said.message.ends_with(words), "{said:?}");
        };
        check("/s", "is not a rate");
        check("1e3/s", "is not a rate");
        check("0/s", "is out of range");
        check("10000001/s", "is out of range");
        check("99999999999999999999/s", "is out of range");
    }

    #[test]
    fn what_is_shown_is_read_again() {
        for text in ["500/s", "30/m", "100/h", "7/d"] {
            assert_eq!(rate(text).unwrap().to_string(), text);
        }
        let limits = Limits::new(rate("500/s").unwrap(), Some(1_000));
        assert_eq!(limits.to_string(), r#"{rate = "500/s", burst = 1000}"#);
        let json = serde_json::to_value(limits).unwrap();
        assert_eq!(json, serde_json::json!({"rate": "500/s", "burst": 1000}));
        let burst = |text| Limits::new(rate(text).unwrap(), None).burst;
        assert_eq!([burst("500/s"), burst("90/m"), burst("1/h")], [500, 1, 1]);
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let limits = Limits::new(rate("10/s").unwrap(), Some(5));
        let mut next_ns = 0;
        let mut passed = |now_ns: u64| match limits.admit(next_ns, now_ns) {
            Some(next) => {
                next_ns = next;
                true
            }
            None => false,
        };
        let second = 1_000_000_000;
        let mut start = 77 * second;
        assert_eq!((0..100).filter(|_| passed(start)).count(), 5);
        // Ten a second, evenly.
        for step in 1..=1_000_u64 {
            let now_ns = start + step * second / 100;
            assert_eq!(passed(now_ns), step.is_multiple_of(10), "{step}");
        }
        // What was not used is saved up to a burst, and no further.
        start += 1_000 * second;
        assert_eq!((0..100).filter(|_| passed(start)).count(), 5);
        // A clock that stands still, or at its end, lets nothing more through.
        assert_eq!(limits.admit(u64::MAX, 0), None);
        assert!(limits.admit(0, u64::MAX).is_some());
    }
}
