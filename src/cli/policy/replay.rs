//! `exocom policy replay`: a policy against the flows that the audit log has recorded.
//!
//! Reads the log's folder and the policy; changes nothing, and asks no broker.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::suggest::lines_of;
use super::{REFUSED, Streams, load, unusable};
use crate::cli::answer::print_json;
use crate::cli::audit::{Where, sums_since};
use crate::cli::time::point_in_time;
use crate::policy::Policy;
use crate::review::{Otherwise, Replayed, Sent, Suggestions, TooIntricate, replay, suggest};

/// Try a policy on what was sent: what it would deny, and allow
#[derive(Debug, Args)]
#[command(
    long_about = "Try a policy on what was sent: what it would deny, and allow.\n\n\
        Reads the flows that the audit log has recorded, and asks the candidate about each: which messages were allowed \
        and would be denied, which were denied and would be allowed, and how many of each. What was never sent it \
        cannot tell of; `exocom policy diff` can.\n\n\
        Nothing is changed, and no running broker is asked.",
    after_long_help = "Examples:\n  \
        exocom policy replay new.toml --since 7d\n  \
        exocom policy replay new.toml --since 7d --suggest     what to add to it so that all goes on\n  \
        exocom policy replay new/ --dir /var/lib/exocom/audit --since 7d --no-new-denials     for CI\n\n\
        Exit codes:\n  \
        0  the policy was tried\n  \
        1  something that was sent would be denied, and --no-new-denials is given\n  \
        2  the policy or the log is missing, unreadable or has mistakes"
)]
pub struct ReplayArgs {
    /// The candidate: a file, or a folder of *.toml files
    candidate: PathBuf,
    /// What was recorded since then: a time such as 2026-01-31T12:00:00Z, or how long ago: 30s, 15m, 2h, 7d
    #[arg(long, value_name = "TIME", value_parser = point_in_time)]
    since: Option<u64>,
    /// Fail if anything that was sent would be denied
    #[arg(long)]
    no_new_denials: bool,
    /// Suggest the grants that would keep allowed what the candidate would deny
    #[arg(long)]
    suggest: bool,
    #[command(flatten)]
    place: Where,
    /// Print the result as JSON, on standard output, for programs
    #[arg(long)]
    json: bool,
}

/// Does it.
pub(super) fn run(args: &ReplayArgs, streams: &mut Streams<'_>) -> io::Result<ExitCode> {
    let policy = match load(std::slice::from_ref(&args.candidate)) {
        Ok(policy) => policy,
        Err(none) => return none.tell(args.json, streams),
    };
    let sums = match args
        .place
        .archive()
        .and_then(|(archive, _)| sums_since(&archive, args.since))
    {
        Ok(sums) => sums,
        Err(error) => return unusable(&format!("{error:#}"), args.json, streams),
    };
    let sent: Vec<_> = sums
        .into_iter()
        .map(|((sender, message, receiver), count)| Sent {
            sender: sender.into(),
            message,
            receiver: receiver.map(Into::into),
            allowed: count.messages + count.dropped + count.unreceived,
            denied: count.denied,
        })
        .collect();
    let replayed = replay(&policy, &sent);
    let suggestions = match suggest_from(args, &policy, &replayed) {
        Ok(suggestions) => suggestions,
        Err(error) => return unusable(&error, args.json, streams),
    };
    if args.json {
        let outcome = Outcome {
            replayed: &replayed,
            suggestions: suggestions.as_ref(),
        };
        print_json(streams.out, &outcome)?;
    } else {
        write!(streams.out, "{}", text(&replayed))?;
        for line in suggestions
            .iter()
            .flat_map(|found| lines_of(found, &policy, "would be denied"))
        {
            writeln!(streams.out, "{line}")?;
        }
    }
    let is_refused = args.no_new_denials && !replayed.newly_denied.is_empty();
    Ok(if is_refused {
        ExitCode::from(REFUSED)
    } else {
        ExitCode::SUCCESS
    })
}

/// What `--json` prints.
#[derive(Serialize)]
struct Outcome<'a> {
    #[serde(flatten)]
    replayed: &'a Replayed,
    #[serde(flatten)]
    suggestions: Option<&'a Suggestions>,
}

fn suggest_from(
    args: &ReplayArgs,
    policy: &Policy,
    replayed: &Replayed,
) -> Result<Option<Suggestions>, TooIntricate> {
    if !args.suggest {
        return Ok(None);
    }
    suggest(policy, &replayed.as_denied()).map(Some)
}

fn text(replayed: &Replayed) -> String {
    let mut text = String::new();
    let mut list = |title: &str, flows: &[Otherwise]| -> std::fmt::Result {
        if flows.is_empty() {
            return Ok(());
        }
        let messages: u64 = flows.iter().map(|flow| flow.messages).sum();
        writeln!(text, "{title}: {messages} messages")?;
        for flow in flows {
            let receiver = flow
                .receiver
                .as_deref()
                .map_or(String::new(), |to| format!(" to {to}"));
            writeln!(
                text,
                "  {:>8}  {} {}{receiver}: {}",
                flow.messages, flow.sender, flow.message, flow.because
            )?;
        }
        Ok(())
    };
    list("would be denied", &replayed.newly_denied)
        .and_then(|()| list("would be allowed", &replayed.newly_allowed))
        .and_then(|()| writeln!(text, "as before: {} messages", replayed.unchanged))
        .expect("a String takes all text");
    if replayed.not_told_apart > 0 {
        writeln!(
            text,
            "of names that were too many to be told apart: {} messages",
            replayed.not_told_apart
        )
        .expect("a String takes all text");
    }
    text
}
