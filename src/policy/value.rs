//! The small languages inside a policy's strings: durations, sizes, ranges, labels, trust domains.
//!
//! Each says what was expected and what to write instead; where it stands is the caller's to add.

use std::fmt;
use std::time::Duration;

use super::diagnostic::quote;
use super::terms::Backoff;
use crate::limits::{
    BACKOFF_MS_MAX, LABEL_BYTES_MAX, POLICY_PAYLOAD_BYTES_MAX, POLICY_TIME_MS_MIN, TRUST_DOMAIN_BYTES_MAX,
};

/// What is wrong with a value, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadValue {
    pub(super) message: String,
    pub(super) help: String,
}

impl BadValue {
    pub(super) fn new(message: impl fmt::Display, help: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            help: help.to_string(),
        }
    }
}

const TIME_UNITS_MS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

const SIZE_UNITS_BYTES: [(&str, u64); 3] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20)];

/// `500ms`, `5s`, `1m`, `24h`, `7d`: a whole number and one unit, up to a bound.
pub(super) fn duration(text: &str, ms_max: u64) -> Result<Duration, BadValue> {
    let help = "write a whole number and a unit, such as \"500ms\", \"5s\", \"1m\", \"24h\" or \"7d\"";
    let ms = number_with_unit(text, &TIME_UNITS_MS)
        .ok_or_else(|| BadValue::new(format_args!("{} is not a duration", quote(text)), help))?;
    if (POLICY_TIME_MS_MIN..=ms_max).contains(&ms) {
        return Ok(Duration::from_millis(ms));
    }
    let range = format!("{} to {}", show_ms(POLICY_TIME_MS_MIN), show_ms(ms_max));
    Err(BadValue::new(
        format_args!("{} is out of range", quote(text)),
        format_args!("it may be {range}"),
    ))
}

/// `1s..1m`: the first wait and the longest.
pub(super) fn backoff(text: &str) -> Result<Backoff, BadValue> {
    let Some((first, longest)) = text.split_once("..") else {
        return Err(BadValue::new(
            format_args!("{} is not a range of durations", quote(text)),
            "write the first wait and the longest, such as \"1s..1m\"",
        ));
    };
    let (first, longest) = (
        duration(first, BACKOFF_MS_MAX)?,
        duration(longest, BACKOFF_MS_MAX)?,
    );
    if first > longest {
        return Err(BadValue::new(
            format_args!("the range {} runs backwards", quote(text)),
            "write the first wait, then the longest, such as \"1s..1m\"",
        ));
    }
    Ok(Backoff { first, longest })
}

/// `512B`, `64KiB`, `1MiB`.
pub(super) fn size(text: &str) -> Result<usize, BadValue> {
    let help = "write a whole number and a unit, such as \"512B\", \"64KiB\" or \"1MiB\"";
    let bytes = number_with_unit(text, &SIZE_UNITS_BYTES)
        .ok_or_else(|| BadValue::new(format_args!("{} is not a size", quote(text)), help))?;
    match usize::try_from(bytes) {
        Ok(size) if (1..=POLICY_PAYLOAD_BYTES_MAX).contains(&bytes) => Ok(size),
        _ => Err(BadValue::new(
            format_args!("{} is out of range", quote(text)),
            format_args!("it may be 1B to {}MiB", POLICY_PAYLOAD_BYTES_MAX >> 20),
        )),
    }
}

/// The name of a service, zone or operator.
pub(super) fn label(text: &str, what: &str) -> Result<(), BadValue> {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !text.is_empty() && text.len() <= LABEL_BYTES_MAX && text.as_bytes().iter().all(allowed) {
        return Ok(());
    }
    Err(BadValue::new(
        format_args!("{} cannot be the name of {what}", quote(text)),
        format_args!("use A-Z, a-z, 0-9, '_' and '-', at least one and at most {LABEL_BYTES_MAX} of them"),
    ))
}

/// A trust domain as SPIFFE-ID, section 2.1, has it.
pub(super) fn trust_domain(text: &str) -> Result<(), BadValue> {
    let allowed = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    if !text.is_empty() && text.len() <= TRUST_DOMAIN_BYTES_MAX && text.as_bytes().iter().all(allowed) {
        return Ok(());
    }
    Err(BadValue::new(
        format_args!("{} is not a trust domain", quote(text)),
        format_args!(
            "write it without scheme, port or path, such as \"todo.example\": a-z, 0-9, '.', '_' and '-', at \
             most {TRUST_DOMAIN_BYTES_MAX} bytes"
        ),
    ))
}

/// The product; `None` where there is no number, an unknown unit, or an overflow (shown as too large a number
/// by the saturated product).
fn number_with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    if number.is_empty() {
        return None;
    }
    let &(_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    Some(number.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(factor))
}

/// In the largest unit that divides it.
pub(super) fn show_size(bytes: usize) -> String {
    let unit = SIZE_UNITS_BYTES
        .iter()
        .rev()
        .find(|(_, factor)| (bytes as u64).is_multiple_of(*factor));
    unit.map_or_else(
        || format!("{bytes}B"),
        |(name, factor)| format!("{}{name}", bytes as u64 / factor),
    )
}

/// In the largest unit that divides it.
pub(super) fn show_ms(ms: u64) -> String {
    let unit = TIME_UNITS_MS
        .iter()
        .rev()
        .find(|(_, factor)| ms.is_multiple_of(*factor));
    unit.map_or_else(
        || format!("{ms}ms"),
        |(name, factor)| format!("{}{name}", ms / factor),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::EXPIRES_MS_MAX;

    #[test]
    fn durations() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(
                duration(text, EXPIRES_MS_MAX).ok(),
                expected.map(Duration::from_millis),
                "{text:?}"
            );
        };
        check("500ms", Some(500));
        check("5s", Some(5_000));
        check("1m", Some(60_000));
        check("24h", Some(86_400_000));
        check("7d", Some(604_800_000));
        check("30d", Some(2_592_000_000));
        check("31d", None);
        check("0s", None);
        check("", None);
        check("5", None);
        check("s", None);
        check("5 s", None);
        check("-5s", None);
        check("1.5s", None);
        check("1m30s", None);
        check("5S", None);
        check("99999999999999999999999d", None);
        check("٣s", None);
    }

    #[test]
    fn sizes() {
        let check = |text: &str, expected: Option<usize>| {
            assert_eq!(size(text).ok(), expected, "{text:?}");
        };
        check("512B", Some(512));
        check("64KiB", Some(65_536));
        check("1MiB", Some(1_048_576));
        check("64MiB", Some(64 << 20));
        check("65MiB", None);
        check("0B", None);
        check("64KB", None);
        check("64", None);
        check("99999999999999999999999B", None);
    }

    #[test]
    fn ranges_of_durations() {
        let check = |text: &str, expected: Option<(u64, u64)>| {
            let expected = expected.map(|(first, longest)| Backoff {
                first: Duration::from_secs(first),
                longest: Duration::from_secs(longest),
            });
            assert_eq!(backoff(text).ok(), expected, "{text:?}");
        };
        check("1s..1m", Some((1, 60)));
        check("1s..1s", Some((1, 1)));
        check("1m..1s", None);
        check("1s", None);
        check("1s..", None);
        check("1s...1m", None);
        check("1s..2d", None);
    }

    #[test]
    fn labels() {
        let check = |text: &str, expected: bool| {
            assert_eq!(label(text, "a service").is_ok(), expected, "{text:?}");
        };
        check("web", true);
        check("a_B-9", true);
        check("", false);
        check("a.b", false);
        check("a b", false);
        check("*", false);
        check("é", false);
        check(&"a".repeat(63), true);
        check(&"a".repeat(64), false);
    }

    #[test]
    fn what_is_shown_has_the_largest_unit_that_divides_it() {
        let times = [
            1, 1_500, 5_000, 60_000, 5_400_000, 7_200_000, 86_400_000, 90_000_000,
        ];
        let shown = ["1ms", "1500ms", "5s", "1m", "90m", "2h", "1d", "25h"];
        assert_eq!(times.map(show_ms), shown);
        let sizes = [1, 1_000, 1_024, 1_536, 64 << 10, 3 << 20];
        assert_eq!(
            sizes.map(show_size),
            ["1B", "1000B", "1KiB", "1536B", "64KiB", "3MiB"]
        );
    }

    #[test]
    fn trust_domains() {
        let check = |text: &str, expected: bool| assert_eq!(trust_domain(text).is_ok(), expected, "{text:?}");
        check("todo.example", true);
        check("a_b-c.1", true);
        check("", false);
        check("Todo.example", false);
        check("spiffe://todo.example", false);
        check("todo.example:4222", false);
        check(&"a".repeat(255), true);
        check(&"a".repeat(256), false);
    }
}
