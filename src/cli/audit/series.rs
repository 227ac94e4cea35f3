//! `exocom audit series`: what was sent in each flow over time, as CSV files that `exocom alarms backtest` reads.
//!
//! Reads the log's folder alone. A flow's name is checked by the broker, so that it can be a file's.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::Where;
use super::sums::{Names, each_flow};
use crate::audit::record::FlowCount;
use crate::cli::time::point_in_time;
use crate::limits::AUDIT_ROUND_MS;

/// Of one series, what is kept before it is appended to its file, in bytes.
const BUFFER_BYTES: usize = 16 << 10;

/// Write what was sent over time, a CSV file for each flow
#[derive(Debug, Args)]
#[command(
    long_about = "Writes a CSV file for each flow (sender, message name, receiver) that was recorded, with the columns \
        `timestamp` and `value`: how much in each interval. Intervals in which there was nothing are left out. \
        `exocom alarms backtest` reads them, with the same --interval.",
    after_long_help = "Examples:\n  \
        exocom audit series out --since 7d && exocom alarms backtest --kind count --interval 10s out/*.csv\n  \
        exocom audit series out --of denied --dir /var/lib/exocom/audit"
)]
pub(super) struct SeriesArgs {
    /// The folder for the files; it is made where it is missing
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// What is counted
    #[arg(long, value_enum, default_value_t = Of::Messages)]
    of: Of,
    /// The seconds between two flow records: the broker's `interval-s`
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval_s: u64,
    /// What was recorded since then: a time such as 2026-01-31T12:00:00Z, or how long ago: 30s, 15m, 2h, 7d
    #[arg(long, value_name = "TIME", value_parser = point_in_time)]
    since: Option<u64>,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Of {
    /// Messages that were delivered
    Messages,
    /// Their payload bytes
    Bytes,
    /// Messages that were denied
    Denied,
    /// Messages that were dropped, or were more than the policy's limits allow
    Dropped,
}

impl Of {
    fn value(self, count: &FlowCount) -> u64 {
        match self {
            Self::Messages => count.messages,
            Self::Bytes => count.bytes,
            Self::Denied => count.denied,
            Self::Dropped => count.dropped,
        }
    }
}

/// The file of one flow, as it is written.
struct Series {
    path: PathBuf,
    /// The interval that is being added up, and what there was in it so far.
    current: (u64, u64),
    unwritten: String,
}

/// Does it.
pub(super) fn run(args: &SeriesArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let (archive, _) = args.place.archive()?;
    let folder = &args.folder;
    fs::create_dir_all(folder).with_context(|| format!("{}: cannot make the folder", folder.display()))?;
    let mut all: BTreeMap<Names, Series> = BTreeMap::new();
    let mut last_unix_s = 0;
    each_flow(&archive, args.since, |at_unix_ms, names, count| {
        let at_unix_s = interval_of(at_unix_ms, args.interval_s);
        last_unix_s = at_unix_s;
        let value = args.of.value(count);
        if value == 0 {
            return Ok(());
        }
        let series = match all.get_mut(&names) {
            Some(series) => series,
            None => {
                let series = Series::create(folder, &names, at_unix_s)?;
                all.entry(names).or_insert(series)
            }
        };
        series.add(at_unix_s, value)
    })?;
    let count = all.len();
    for series in all.into_values() {
        series.finish(last_unix_s)?;
    }
    writeln!(out, "{}: {count} series", folder.display())?;
    Ok(ExitCode::SUCCESS)
}

/// The beginning of the interval that a record is about. Records are written right after its end; one that comes in the
/// middle, since the policy changes, is about what there was of it.
fn interval_of(at_unix_ms: u64, interval_s: u64) -> u64 {
    let interval_ms = interval_s * 1_000;
    let into_ms = at_unix_ms % interval_ms;
    let begin_ms = at_unix_ms - into_ms;
    let is_after_the_end = into_ms <= 2 * AUDIT_ROUND_MS && into_ms < interval_ms / 2;
    (begin_ms - if is_after_the_end { interval_ms } else { 0 }) / 1_000
}

impl Series {
    fn create(folder: &Path, (sender, message, receiver): &Names, at_unix_s: u64) -> anyhow::Result<Self> {
        let message = if message == ">" { "+more" } else { message };
        let receiver = receiver.as_deref().unwrap_or("nobody");
        let path = folder.join(format!("{sender}~{message}~{receiver}.csv"));
        let mut file =
            File::create(&path).with_context(|| format!("{}: cannot be written", path.display()))?;
        file.write_all(b"timestamp,value\n")
            .with_context(|| format!("{}: cannot be written", path.display()))?;
        Ok(Self {
            path,
            current: (at_unix_s, 0),
            unwritten: String::new(),
        })
    }

    fn add(&mut self, at_unix_s: u64, value: u64) -> anyhow::Result<()> {
        if self.current.0 != at_unix_s {
            self.end_interval();
            self.current = (at_unix_s, 0);
            if self.unwritten.len() >= BUFFER_BYTES {
                self.write()?;
            }
        }
        self.current.1 += value;
        Ok(())
    }

    fn end_interval(&mut self) {
        let (at_unix_s, value) = self.current;
        self.unwritten.push_str(&format!("{at_unix_s},{value}\n"));
    }

    /// A flow that has fallen silent was silent to the end.
    fn finish(mut self, last_unix_s: u64) -> anyhow::Result<()> {
        self.add(last_unix_s, 0)?;
        self.end_interval();
        self.write()
    }

    fn write(&mut self) -> anyhow::Result<()> {
        let write = || {
            File::options()
                .append(true)
                .open(&self.path)?
                .write_all(self.unwritten.as_bytes())
        };
        write().with_context(|| format!("{}: cannot be written", self.path.display()))?;
        self.unwritten.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_about_the_interval_before_it() {
        let check = |at_unix_ms, interval_s, expected| {
            assert_eq!(interval_of(at_unix_ms, interval_s), expected, "{at_unix_ms}");
        };
        check(1_700_000_010_000, 10, 1_700_000_000);
        check(1_700_000_010_499, 10, 1_700_000_000);
        // In its middle.
        check(1_700_000_014_000, 10, 1_700_000_010);
        check(1_700_000_001_200, 1, 1_700_000_000);
        check(1_700_000_001_700, 1, 1_700_000_001);
    }
}
