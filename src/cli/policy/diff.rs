//! `exocom policy diff`: who gains and who loses what.
//!
//! Only shows: the differences are found by `review`.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{REFUSED, Streams, counted, load, unusable};
use crate::cli::answer::print_json;
use crate::policy::Policy;
use crate::review::{Change, Diff, Effect, Listeners, diff};

/// Compare two policies: who gains and who loses what
#[derive(Debug, Args)]
#[command(
    long_about = "Compare two policies: who gains and who loses what.\n\n\
        Tells which services may send or receive what they could not before, or no longer may, each with a shortest \
        message name as an example; which may connect elsewhere; what operators may; and which messages travel in \
        another way. It compares what the policies mean, not how they are written, for every message name that there \
        can be: no difference is a proof, not a sample.\n\n\
        Nothing is changed, and no running broker is asked.",
    after_long_help = "Examples:\n  \
        exocom policy diff old.toml new.toml\n  \
        git show main:policies/todo.toml > /tmp/todo.toml && exocom policy diff /tmp/todo.toml policies/todo.toml\n  \
        exocom policy diff --no-new-access old/ new/         for CI: fails where somebody may do more\n  \
        exocom policy diff --json old/ new/ | jq '.changes[] | select(.effect == \"gain\")'\n\n\
        Exit codes:\n  \
        0  the policies were compared\n  \
        1  somebody gains something, and --no-new-access is given\n  \
        2  a policy is missing, unreadable or has mistakes, or the command line is wrong"
)]
pub struct DiffArgs {
    /// The policy to compare with: a file, or a folder of *.toml files
    old: PathBuf,
    /// The policy that is compared
    new: PathBuf,
    /// Fail if anybody may do more than before
    #[arg(long)]
    no_new_access: bool,
    /// Print the result as JSON, on standard output, for programs
    #[arg(long)]
    json: bool,
}

/// Does it.
pub(super) fn run(args: &DiffArgs, streams: &mut Streams<'_>) -> io::Result<ExitCode> {
    let load = |path: &PathBuf| load(std::slice::from_ref(path));
    let (old, new) = match (load(&args.old), load(&args.new)) {
        (Ok(old), Ok(new)) => (old, new),
        (Err(none), _) | (_, Err(none)) => return none.tell(args.json, streams),
    };
    let diff = match diff(&old, &new) {
        Ok(diff) => diff,
        Err(error) => return unusable(&error, args.json, streams),
    };
    let gains = diff.count(Effect::Gain);
    if args.json {
        print_json(streams.out, &Outcome::of(&diff, &old, &new))?;
    } else {
        write!(streams.out, "{}", text(&diff, streams.out_colour))?;
    }
    if args.no_new_access && gains > 0 {
        if !args.json {
            writeln!(
                streams.err,
                "refused: {} gives more access than {}",
                args.new.display(),
                args.old.display()
            )?;
        }
        return Ok(ExitCode::from(REFUSED));
    }
    Ok(ExitCode::SUCCESS)
}

/// What `--json` prints.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Outcome<'a> {
    equal: bool,
    gains: usize,
    losses: usize,
    old_version: &'a str,
    new_version: &'a str,
    #[serde(flatten)]
    diff: &'a Diff,
}

impl<'a> Outcome<'a> {
    fn of(diff: &'a Diff, old: &'a Policy, new: &'a Policy) -> Self {
        Self {
            equal: diff.changes().is_empty(),
            gains: diff.count(Effect::Gain),
            losses: diff.count(Effect::Loss),
            old_version: old.version(),
            new_version: new.version(),
            diff,
        }
    }
}

/// The differences for a person, a line each.
pub(super) fn text(diff: &Diff, colour: bool) -> String {
    if diff.changes().is_empty() {
        return "no difference: both policies allow the same, for every message name there can be\n"
            .to_owned();
    }
    let mut text = String::new();
    let mut subject = String::new();
    for change in diff.changes() {
        let (about, what) = line(change);
        if about != subject {
            writeln!(text, "{about}").expect("writing to a string cannot fail");
            subject = about;
        }
        let (sign, style) = match change.effect() {
            Effect::Gain => ('+', "\u{1b}[32m"),
            Effect::Loss => ('-', "\u{1b}[31m"),
            Effect::Change => ('~', "\u{1b}[33m"),
        };
        let (style, end) = if colour { (style, "\u{1b}[0m") } else { ("", "") };
        writeln!(text, "  {style}{sign} {what}{end}").expect("writing to a string cannot fail");
    }
    let count = |effect, what: &str| match diff.count(effect) {
        1 if what == "losses" => "1 loss".to_owned(),
        count if what == "losses" => format!("{count} losses"),
        count => counted(count, what),
    };
    writeln!(
        text,
        "{}, {}, {} of how messages travel",
        count(Effect::Gain, "gain"),
        count(Effect::Loss, "losses"),
        count(Effect::Change, "change")
    )
    .expect("writing to a string cannot fail");
    text
}

/// Whom a change is about, and what it is.
fn line(change: &Change) -> (String, String) {
    match change {
        Change::TrustDomain {
            trust_domain, rule, ..
        } => (
            "trust domain".to_owned(),
            format!("certificates of {trust_domain}  ({rule})"),
        ),
        Change::Connect {
            service,
            listeners,
            rule,
            only_listed_there,
            effect,
        } => {
            let listeners = match listeners {
                Listeners::Any => "in any zone".to_owned(),
                Listeners::Zone(zone) => format!("in zone {zone}"),
                Listeners::AnyBut(zone) => format!("in any zone but {zone}"),
            };
            let why = match (only_listed_there, effect) {
                (true, Effect::Gain) => ", a new service",
                (true, _) => ", a service that is no longer listed",
                (false, _) => "",
            };
            (
                format!("service {service}"),
                format!("connects {listeners}{why}  ({rule})"),
            )
        }
        Change::Message {
            service,
            action,
            pattern,
            whole,
            example,
            rule,
            ..
        } => (
            format!("service {service}"),
            format!(
                "{action}s {}  ({rule})",
                names(pattern.as_str(), *whole, example.as_str())
            ),
        ),
        Change::Limits {
            service, old, new, ..
        } => {
            let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
            (
                format!("service {service}"),
                format!("limits {} -> {}", value(old), value(new)),
            )
        }
        Change::Alarms {
            service, old, new, ..
        } => (format!("service {service}"), format!("alarms {old} -> {new}")),
        Change::NewFlowAfter { old, new, .. } => {
            ("alarms".to_owned(), format!("new-flow-after {old} -> {new}"))
        }
        Change::OnAlarm {
            service, old, new, ..
        } => (
            format!("service {service}"),
            format!("on-alarm {} -> {}", old.as_str(), new.as_str()),
        ),
        Change::Operator {
            operator, may, rule, ..
        } => (format!("operator {operator}"), format!("may {may}  ({rule})")),
        Change::Terms {
            pattern,
            whole,
            example,
            key,
            old,
            new,
            ..
        } => {
            let unset = match *key {
                "limits" => "none",
                "alarms" => "as the service has it",
                _ => "the broker's own",
            };
            let value = |value: &Option<String>| value.clone().unwrap_or_else(|| unset.to_owned());
            (
                "messages".to_owned(),
                format!(
                    "{}: {key} {} -> {}",
                    names(pattern.as_str(), *whole, example.as_str()),
                    value(old),
                    value(new)
                ),
            )
        }
    }
}

/// A pattern, with an example where it is not its own.
fn names(pattern: &str, whole: bool, example: &str) -> String {
    match (pattern == example, whole) {
        (true, _) => pattern.to_owned(),
        (false, true) => format!("{pattern}, such as {example}"),
        (false, false) => format!("some of {pattern}, such as {example}"),
    }
}
