//! `exocom policy suggest`: from what a broker has denied, the grants that would have allowed it.
//!
//! Asks a running broker, or reads its audit log or its log of lines. Shows, and changes nothing: a denial may be an attack.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::explain::told;
use super::{Streams, load, unusable};
use crate::cli::admin::AdminArgs;
use crate::cli::answer::print_json;
use crate::cli::audit::{configured_folder, denials_since};
use crate::cli::serve::read_config;
use crate::cli::time::point_in_time;
use crate::console::figures::{SortBy, Wanted};
use crate::console::status::Status;
use crate::disk::audit::Archive;
use crate::limits::{LOG_LINE_BYTES_MAX, STATUS_ROWS_MAX, SUGGEST_DENIALS_MAX};
use crate::policy::{Action, Policy};
use crate::review::{Denied, EditVerb, Suggestion, Suggestions, suggest};
use crate::wire::name::Pattern;

/// Suggest grants from what was denied
#[derive(Debug, Args)]
#[command(
    long_about = "Suggest grants from what was denied.\n\n\
        Asks a running broker for the messages that it has denied since its start; or reads its audit log, which tells of \
        denied subscriptions too, of any time, also exactly; or its log of JSON lines. Suggests the fewest grants that would have allowed them, \
        names alone, each with its evidence; a wildcard is offered only for three names alike or more.\n\n\
        Nothing is changed. Judge each: what was denied may be a mistake in the policy, a mistake in the service, or an \
        attack.",
    after_long_help = "Examples:\n  \
        exocom policy suggest --admin /tmp/todo --on policies/todo.toml\n  \
        exocom policy suggest --audit /var/lib/exocom/audit --since 7d --on policies/\n  \
        exocom policy suggest --log broker.log --on policies/      written by `exocom serve --log-format json`\n  \
        journalctl -u exocom -o cat | exocom policy suggest --log - --on policies/\n\n\
        Exit codes:\n  \
        0  done, whether there is anything to suggest or not\n  \
        2  no broker answers, or a file is missing, unreadable or has mistakes"
)]
pub struct SuggestArgs {
    /// The policy: a file, or a folder of *.toml files; may be given several times [default: the running broker's, or
    /// that of the configuration]
    #[arg(long, value_name = "PATH")]
    on: Vec<PathBuf>,
    /// Read the audit log in place of asking a broker: of this folder, or that of the configuration
    #[arg(long, value_name = "DIR", conflicts_with = "log")]
    audit: Option<Option<PathBuf>>,
    /// Of the audit log, what was recorded since then: a time such as 2026-01-31T12:00:00Z, or how long ago: 30s, 15m, 2h, 7d
    #[arg(long, value_name = "TIME", value_parser = point_in_time, conflicts_with = "log")]
    since: Option<u64>,
    /// Read a log of JSON lines, `-` for standard input, in place of asking a broker
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Print the result as JSON, on standard output, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Does it.
pub(super) fn run(args: &SuggestArgs, streams: &mut Streams<'_>) -> io::Result<ExitCode> {
    let (denials, paths) = match collect(args) {
        Ok(collected) => collected,
        Err(error) => return unusable(&format!("{error:#}"), args.json, streams),
    };
    let policy = match load(&paths) {
        Ok(policy) => policy,
        Err(none) => return none.tell(args.json, streams),
    };
    let suggestions = match suggest(&policy, &denials.denied) {
        Ok(suggestions) => suggestions,
        Err(error) => return unusable(&error, args.json, streams),
    };
    if args.json {
        print_json(
            streams.out,
            &Outcome {
                suggestions: &suggestions,
                not_told_apart: denials.not_told_apart,
            },
        )?;
    } else {
        write!(streams.out, "{}", text(&suggestions, &denials, &policy))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What `--json` prints.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Outcome<'a> {
    #[serde(flatten)]
    suggestions: &'a Suggestions,
    not_told_apart: u64,
}

/// What was denied.
#[derive(Default)]
struct Denials {
    denied: Vec<Denied>,
    /// Denials whose names are not known one by one.
    not_told_apart: u64,
}

/// Asks or reads, and finds the policy.
fn collect(args: &SuggestArgs) -> anyhow::Result<(Denials, Vec<PathBuf>)> {
    let configured = || anyhow::Ok(vec![read_config(args.admin.config())?.policy]);
    if args.audit.is_some() || args.since.is_some() {
        let folder = match args.audit.iter().flatten().next() {
            Some(folder) => folder.clone(),
            None => configured_folder(args.admin.config(), "--audit")?,
        };
        let denials = of_audit(&folder, args.since).with_context(|| format!("{}", folder.display()))?;
        let paths = match args.on.as_slice() {
            [] => configured().context("which policy? Name it with --on")?,
            on => on.to_vec(),
        };
        return Ok((denials, paths));
    }
    let Some(log) = &args.log else {
        let wanted = Wanted {
            sort: SortBy::Denied,
            limit: STATUS_ROWS_MAX,
            ..Wanted::default()
        };
        let status: Status = args.admin.get(&crate::cli::status::path(&wanted)?)?;
        let own = PathBuf::from(&status.policy.path);
        let paths = match args.on.as_slice() {
            [] if own.exists() => vec![own],
            [] => configured().context("which policy? Name it with --on")?,
            on => on.to_vec(),
        };
        return Ok((of_status(&status), paths));
    };
    let denials = if log == Path::new("-") {
        of_log(&mut io::stdin().lock())
    } else {
        File::open(log).and_then(|file| of_log(&mut BufReader::new(file)))
    };
    let denials = denials.with_context(|| format!("{}", log.display()))?;
    let paths = match args.on.as_slice() {
        [] => configured().context("which policy? Name it with --on")?,
        on => on.to_vec(),
    };
    Ok((denials, paths))
}

fn of_status(status: &Status) -> Denials {
    let mut denials = Denials::default();
    for flow in status.flows.iter().filter(|flow| flow.figures.denied > 0) {
        match Pattern::new(&flow.message) {
            Ok(name) if name.is_literal() => denials.denied.push(Denied {
                service: flow.sender.as_str().into(),
                action: Action::Send,
                name,
                count: flow.figures.denied,
            }),
            // Names too many to be counted apart, or no names at all.
            _ => denials.not_told_apart += flow.figures.denied,
        }
    }
    denials
}

fn of_audit(folder: &Path, since_unix_ms: Option<u64>) -> anyhow::Result<Denials> {
    let mut denials = Denials::default();
    let tried = denials_since(&Archive::new(folder), since_unix_ms, SUGGEST_DENIALS_MAX)?;
    for ((service, action, name), count) in tried {
        let action = match action.as_str() {
            "publish" => Action::Send,
            "subscribe" => Action::Receive,
            // No grant would allow it.
            _ => continue,
        };
        match Pattern::new(&name) {
            // `>` stands for names too many to be recorded apart.
            Ok(name) if name.as_str() != ">" => denials.denied.push(Denied {
                service: service.into(),
                action,
                name,
                count,
            }),
            _ => denials.not_told_apart += count,
        }
    }
    Ok(denials)
}

/// A line of the broker's log.
#[derive(Deserialize)]
struct LogLine {
    fields: LogFields,
}

#[derive(Deserialize)]
struct LogFields {
    message: String,
    sender: String,
    action: String,
    subject: String,
    withheld: Option<u64>,
}

fn of_log(log: &mut dyn BufRead) -> io::Result<Denials> {
    let mut denials = Denials::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        // A longer line is read in pieces, none of which is JSON.
        if log.take(LOG_LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(denials);
        }
        let Ok(LogLine { fields }) = serde_json::from_slice(&line) else {
            continue;
        };
        let action = match (fields.message.as_str(), fields.action.as_str()) {
            ("denied", "publish") => Action::Send,
            ("denied", "subscribe") => Action::Receive,
            _ => continue,
        };
        denials.not_told_apart += fields.withheld.unwrap_or_default();
        match Pattern::new(&fields.subject) {
            Ok(name) if denials.denied.len() < SUGGEST_DENIALS_MAX => denials.denied.push(Denied {
                service: fields.sender.into(),
                action,
                name,
                count: 1,
            }),
            _ => denials.not_told_apart += 1,
        }
    }
}

fn text(suggestions: &Suggestions, denials: &Denials, policy: &Policy) -> String {
    let mut lines = lines_of(suggestions, policy, "was denied");
    if suggestions.suggestions.is_empty() {
        lines.push("nothing to suggest: all that was denied, if anything, the policy would allow".to_owned());
    }
    for now in &suggestions.allowed_now {
        lines.push(format!(
            "{} may {} {}, which was denied {}: by an older policy, or for another reason than its grants",
            now.service,
            now.action,
            now.name,
            times(now.count)
        ));
    }
    if denials.not_told_apart > 0 {
        lines.push(format!(
            "{} denials more, whose names are no message names or too many to be told apart",
            denials.not_told_apart
        ));
    }
    if !suggestions.suggestions.is_empty() {
        lines.push(
            "nothing was changed: judge each, then see what it gives with `exocom policy diff`".to_owned(),
        );
    }
    lines.push(String::new());
    lines.join("\n")
}

/// The suggestions for a person; `denied` says what became of the evidence.
pub(super) fn lines_of(suggestions: &Suggestions, policy: &Policy, denied: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for suggestion in &suggestions.suggestions {
        of_list(suggestion, policy, denied, &mut lines);
    }
    lines
}

fn of_list(suggestion: &Suggestion, policy: &Policy, denied: &str, lines: &mut Vec<String>) {
    lines.push(format!("service {}", suggestion.service));
    for edit in &suggestion.edits {
        let verb = match edit.verb {
            EditVerb::Add => '+',
            EditVerb::Remove => '-',
        };
        lines.push(format!("  {verb} {}", told(edit, &suggestion.service, policy)));
    }
    for found in &suggestion.evidence {
        lines.push(format!(
            "      {} {} {denied} {}",
            found.action,
            found.name,
            times(found.count)
        ));
    }
    for beside in &suggestion.beside {
        lines.push(format!(
            "    which would also allow {}, such as {}",
            beside.pattern, beside.example
        ));
    }
    for wildcard in &suggestion.wildcards {
        lines.push(format!(
            "    or \"{}\" in place of {} of them, which allows more",
            wildcard.pattern,
            wildcard.names.len()
        ));
    }
}

fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    }
}
