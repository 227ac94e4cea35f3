//! `exocom audit tail` and `query`: entries as lines for people, or as JSON for programs.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::Where;
use super::rows::{Row, Rows};
use crate::audit::Entry;
use crate::audit::tile::WIDTH;
use crate::cli::serve::runtime;
use crate::cli::time::{point_in_time, time_text};
use crate::disk::audit::Archive;
use crate::limits::AUDIT_CHAPTER_MS;
use crate::wire::name::{MessageName, Pattern};

/// How often `tail --follow` looks for new entries, in milliseconds.
const FOLLOW_MS: u64 = 500;

/// What a row can be: a record of flows is a row `flow` for each of them.
const KINDS: [&str; 18] = [
    "start",
    "stop",
    "gap",
    "connected",
    "disconnected",
    "refused",
    "denial",
    "flow",
    "message",
    "policy",
    "admin",
    "admin-done",
    "admin-refused",
    "withdrawn",
    "dead-letter",
    "alarm",
    "quarantine",
    "prune",
];

#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  exocom audit tail --lines 50\n  exocom audit tail --follow --json")]
pub(super) struct TailArgs {
    /// How many entries
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    lines: u64,
    /// Go on with those that come
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    place: Where,
    /// Print JSON, an object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(
    long_about = "Shows the entries that fit all that is asked for. A flow record is shown as one line for each flow \
        in it: who sent what to whom, how many and how much.\n\n\
        What is shown is what the log says; `exocom audit verify` shows that it says what was recorded.",
    after_long_help = "Examples:\n  \
        exocom audit query --service web --since 2h\n  \
        exocom audit query --message 'todos.>' --kind flow\n  \
        exocom audit query --operator alice --since 2026-01-31T00:00:00Z --until 2026-02-01T00:00:00Z\n  \
        exocom audit query --kind denial --json | jq -r .rule | sort | uniq -c"
)]
pub(super) struct QueryArgs {
    /// Of this service, as sender or receiver
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// About messages that this pattern matches, such as todos.list or 'todos.*'
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    message: Option<Pattern>,
    /// About the tracked message with this sequence, which the header Exo-Id and `exocom queue` tell
    #[arg(long, value_name = "SEQ")]
    seq: Option<u64>,
    /// By this operator
    #[arg(long, value_name = "NAME")]
    operator: Option<String>,
    /// Of this kind
    #[arg(long, value_name = "KIND", value_parser = PossibleValuesParser::new(KINDS))]
    kind: Option<String>,
    /// Not before this: a time such as 2026-01-31T12:00:00Z, or how long ago: 30s, 15m, 2h, 7d
    #[arg(long, value_name = "TIME", value_parser = point_in_time)]
    since: Option<u64>,
    /// Before this
    #[arg(long, value_name = "TIME", value_parser = point_in_time)]
    until: Option<u64>,
    #[command(flatten)]
    place: Where,
    /// Print JSON, an object a line
    #[arg(long)]
    json: bool,
}

/// Shows the last entries.
pub(super) fn tail(args: &TailArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let (archive, _) = args.place.archive()?;
    let mut size = archive.claimed_size()?;
    let mut rows = Rows::default();
    let first = size.saturating_sub(args.lines);
    let from = chapter_before(&archive, first, size)?;
    let mut print = |rows: Vec<Row>| print_rows(&rows, args.json, out);
    each_entry(&archive, from, size, |number, entry| {
        let read = rows.read(number, entry);
        if number >= first { print(read) } else { Ok(()) }
    })?;
    if !args.follow {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        runtime()?.block_on(tokio::time::sleep(Duration::from_millis(FOLLOW_MS)));
        let now = archive.claimed_size()?;
        each_entry(&archive, size, now, |number, entry| {
            let read = rows.read(number, entry);
            if number >= size { print(read) } else { Ok(()) }
        })?;
        size = now;
    }
}

/// Shows what is asked for.
pub(super) fn query(args: &QueryArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let (archive, _) = args.place.archive()?;
    let size = archive.claimed_size()?;
    let from = match args.since {
        Some(since) => first_since(&archive, since.saturating_sub(AUDIT_CHAPTER_MS), size)?,
        None => 0,
    };
    let mut rows = Rows::default();
    each_entry(&archive, from, size, |number, entry| {
        let at_unix_ms = entry.as_ref().map_or(0, |entry| entry.at_unix_ms);
        // Also those before: they may name the flows of those that are shown.
        let mut read = rows.read(number, entry);
        let is_in_time = args.since.is_none_or(|since| at_unix_ms >= since)
            && args.until.is_none_or(|until| at_unix_ms < until);
        read.retain(|row| is_in_time && args.asks_for(row));
        print_rows(&read, args.json, out)
    })?;
    Ok(ExitCode::SUCCESS)
}

impl QueryArgs {
    fn asks_for(&self, row: &Row) -> bool {
        let is_of = |service: &String| row.services.contains(service);
        let matches = |pattern: &Pattern| {
            let name = row
                .message
                .as_deref()
                .and_then(|name| MessageName::new(name).ok());
            name.is_some_and(|name| pattern.matches(&name))
        };
        self.service.as_ref().is_none_or(is_of)
            && self.message.as_ref().is_none_or(matches)
            && self
                .operator
                .as_ref()
                .is_none_or(|operator| row.operator.as_ref() == Some(operator))
            && self.seq.is_none_or(|seq| row.seq == Some(seq))
            && self.kind.as_ref().is_none_or(|kind| *kind == row.kind)
    }
}

pub(in crate::cli) fn print_rows(rows: &[Row], is_json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    for row in rows {
        if is_json {
            writeln!(out, "{}", row.json)?;
        } else {
            writeln!(
                out,
                "{}  {:>8}  {:<12}  {}",
                time_text(row.at_unix_ms),
                row.entry,
                row.kind,
                row.text
            )?;
        }
    }
    if std::io::stdout().is_terminal() && !rows.is_empty() {
        out.flush()?;
    }
    Ok(())
}

/// Reads entries in order; those that are no record of this version come as `Err`.
pub(in crate::cli) fn each_entry(
    archive: &Archive,
    from: u64,
    size: u64,
    mut each: impl FnMut(u64, Result<Entry, Vec<u8>>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for page in archive.pages(from, size) {
        let (first, entries) = page?;
        for (number, line) in (first..).zip(entries) {
            each(number, Entry::parse(&line).map_err(|_| line))?;
        }
    }
    Ok(())
}

/// The entry from which to read so that the flows of entry `first` have their names.
fn chapter_before(archive: &Archive, first: u64, size: u64) -> anyhow::Result<u64> {
    if first >= size {
        return Ok(size);
    }
    let Some(entry) = archive
        .entry(first, size)
        .ok()
        .and_then(|line| Entry::parse(&line).ok())
    else {
        return Ok(0);
    };
    first_since(archive, entry.at_unix_ms.saturating_sub(AUDIT_CHAPTER_MS), size)
}

/// The first entry of a bundle before all entries since a time: the times of a log only grow, but for a clock that
/// was set back.
pub(in crate::cli) fn first_since(archive: &Archive, since_unix_ms: u64, size: u64) -> anyhow::Result<u64> {
    let is_before = |bundle: u64| -> anyhow::Result<bool> {
        match archive.pages(bundle * WIDTH as u64, size).next() {
            None => Ok(false),
            Some(page) => {
                let (first, entries) = page?;
                let line = entries.first().map(Vec::as_slice).unwrap_or_default();
                let was_pruned = first > bundle * WIDTH as u64;
                Ok(was_pruned || Entry::parse(line).is_ok_and(|entry| entry.at_unix_ms < since_unix_ms))
            }
        }
    };
    let (mut low, mut high) = (0, size.div_ceil(WIDTH as u64));
    while low < high {
        let middle = low.midpoint(high);
        if is_before(middle)? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low.saturating_sub(1) * WIDTH as u64)
}

fn pattern(text: &str) -> Result<Pattern, String> {
    Pattern::new(text).map_err(|error| error.to_string())
}
