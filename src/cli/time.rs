//! How times are written on the command line, and shown.

use anyhow::Context;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::net::clock::Clock;

/// How long, in seconds: `30s`, `15m`, `8h`, `7d`.
pub fn seconds(text: &str) -> Result<u64, String> {
    let units = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];
    let time = units.into_iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(seconds)
    });
    time.ok_or_else(|| "write a whole number and s, m, h or d, such as 30s, 15m, 8h or 7d".to_owned())
}

/// A time, or how long ago, in milliseconds since 1970.
pub fn point_in_time(text: &str) -> Result<u64, String> {
    if let Ok(ago_s) = seconds(text) {
        let now_s = u64::try_from(Clock::unix_s()).unwrap_or_default();
        return Ok(now_s.saturating_sub(ago_s).saturating_mul(1000));
    }
    let time = OffsetDateTime::parse(text, &Rfc3339)
        .context("time")
        .and_then(|time| Ok(u64::try_from(time.unix_timestamp_nanos() / 1_000_000)?));
    time.map_err(|_| {
        "write a time such as 2026-01-31T12:00:00Z, or how long ago: 30s, 15m, 2h, 7d".to_owned()
    })
}

/// A time for people, in UTC.
pub fn time_text(unix_ms: u64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000);
    let text = time.ok().map(|time| {
        let (date, clock) = (time.date(), time.time());
        format!(
            "{date}T{:02}:{:02}:{:02}.{:03}Z",
            clock.hour(),
            clock.minute(),
            clock.second(),
            clock.millisecond()
        )
    });
    text.unwrap_or_else(|| format!("{unix_ms} ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_shown() {
        assert_eq!(point_in_time("2026-01-31T12:00:00Z"), Ok(1_769_860_800_000));
        assert_eq!(
            point_in_time("2026-01-31T13:00:00.5+01:00"),
            Ok(1_769_860_800_500)
        );
        assert_eq!(time_text(1_769_860_800_007), "2026-01-31T12:00:00.007Z");
        let now_ms = u64::try_from(Clock::unix_s()).unwrap() * 1000;
        let ago = now_ms - point_in_time("2h").unwrap();
        assert!((7_190_000..=7_200_000).contains(&ago), "{ago}");
        for wrong in [
            "",
            "yesterday",
            "5",
            "d",
            "-1d",
            "1969-01-31T12:00:00Z",
            "99999999999999999999d",
        ] {
            assert!(point_in_time(wrong).is_err(), "{wrong}");
        }
    }
}
