//! `exocom why`: what happened to a message, or why it may not pass, from the audit log.

use std::io::Write;
use std::process::ExitCode;

use anyhow::ensure;
use clap::Args;

use crate::cli::audit::{Row, Rows, Where, each_entry, first_since, print_rows};
use crate::cli::time::point_in_time;
use crate::limits::AUDIT_CHAPTER_MS;

/// Denials that are shown, the last ones.
const DENIALS_MAX: usize = 10;

/// Tell what happened to a message, or why it was denied
#[derive(Debug, Args)]
#[command(
    long_about = "Tells what happened to a message, or why one was denied, as the audit log has it: for a tracked \
        message, by its sequence, when it was stored, each attempt and its receiver, whether it was given up, and what \
        operators did with it; for a service, the last denials, each with the policy's line that decides it.\n\n\
        Single messages are recorded where the policy says audit = \"each\"; what became dead letters, always.",
    after_long_help = "Examples:\n  \
        exocom why 4711                                   the message with this Exo-Id\n  \
        exocom why --service web                          what was denied to web, the last\n  \
        exocom why --service web --message todos.purge"
)]
pub struct WhyArgs {
    /// The sequence of a tracked message, which the header Exo-Id and `exocom queue` tell
    #[arg(required_unless_present = "service", conflicts_with_all = ["service", "message"])]
    seq: Option<u64>,
    /// The service that was denied something
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// The message name that was denied
    #[arg(long, value_name = "NAME", requires = "service")]
    message: Option<String>,
    /// Not before this: a time such as 2026-01-31T12:00:00Z, or how long ago. No tracked message gets older than 30 days
    #[arg(long, value_name = "TIME", value_parser = point_in_time, default_value = "30d")]
    since: u64,
    #[command(flatten)]
    place: Where,
    /// Print JSON, an object a line
    #[arg(long)]
    json: bool,
}

/// Does it.
pub fn run(args: &WhyArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let (archive, folder) = args.place.archive()?;
    let size = archive.claimed_size()?;
    let from = first_since(&archive, args.since.saturating_sub(AUDIT_CHAPTER_MS), size)?;
    let mut rows = Rows::default();
    let mut found: Vec<Row> = Vec::new();
    each_entry(&archive, from, size, |number, entry| {
        found.extend(
            rows.read(number, entry)
                .into_iter()
                .filter(|row| args.asks_for(row)),
        );
        if args.seq.is_none() && found.len() > DENIALS_MAX {
            found.remove(0);
        }
        Ok(())
    })?;
    ensure!(
        !found.is_empty(),
        "{}",
        args.nothing(&folder.display().to_string())
    );
    print_rows(&found, args.json, out)?;
    Ok(ExitCode::SUCCESS)
}

impl WhyArgs {
    fn asks_for(&self, row: &Row) -> bool {
        if let Some(seq) = self.seq {
            return row.seq == Some(seq);
        }
        let is_of = self
            .service
            .as_ref()
            .is_some_and(|service| row.services.contains(service));
        let is_about = self
            .message
            .as_ref()
            .is_none_or(|message| row.message.as_ref() == Some(message));
        row.kind == "denial" && is_of && is_about
    }

    fn nothing(&self, folder: &str) -> String {
        match (&self.seq, &self.service) {
            (Some(seq), _) => format!(
                "{folder}: nothing about message {seq}; single messages are recorded where the policy says audit = \
                 \"each\", and `exocom queue show {seq}` asks the running broker"
            ),
            (None, service) => format!(
                "{folder}: no such denial of {}; `exocom policy explain` tells what the policy would say",
                service.as_deref().unwrap_or_default()
            ),
        }
    }
}
