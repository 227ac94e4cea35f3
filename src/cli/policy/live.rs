//! `exocom policy apply`, `confirm`, `rollback`, `log`: the policy of a running broker.
//!
//! The broker decides whether an operator may, and whether a policy is sound; here a person sees first what it changes.

use std::io::{self, BufRead};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use super::diff::text;
use super::edit::ask;
use super::test::tell_failures;
use super::{NoPolicy, REFUSED, Streams, print_json, unusable};
use crate::cli::admin::AdminArgs;
use crate::console::client::AskError;
use crate::console::policy::{PolicyAnswer, PolicyVerb};
use crate::policy::{Policy, Source};
use crate::policy_files::{load_expectations, load_sources};
use crate::review::{diff, judge};

const PATH: &str = "/v1/policy";

/// Put a policy in force on a running broker
#[derive(Debug, Args)]
#[command(
    long_about = "Put a policy in force on a running broker.\n\n\
        Checks the policy and its expectations, tells who gains and who loses what against the policy in force, and asks. \
        The broker refuses it if another policy has come into force meanwhile. When the command ends, every decision is by \
        the new policy: of open connections and of waiting deliveries too. It is also in the broker's policy file then.\n\n\
        With --confirm-within, the old policy comes back by itself unless you confirm the new one in time; also if the \
        broker ends meanwhile.",
    after_long_help = "Examples:\n  \
        exocom policy apply policies/todo.toml --why \"web may purge\"\n  \
        exocom policy apply --confirm-within 5m policies/todo.toml\n\n\
        Exit codes:\n  \
        0  it is in force\n  \
        1  it is not: you said no, the broker refused, or it is not sound\n  \
        2  the file is missing or unreadable, or no broker answers"
)]
pub struct ApplyArgs {
    /// The policy
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Take the old policy back after this time, 1s to 1d, unless it is confirmed
    #[arg(long, value_name = "TIME", value_parser = time_ms)]
    confirm_within: Option<u64>,
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, Args)]
struct Change {
    /// Why, for the log
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Print the broker's answer as JSON; needs --yes
    #[arg(long, requires = "yes")]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Keep a policy that waits to be confirmed
#[derive(Debug, Args)]
pub struct ConfirmArgs {
    /// Its version, which `policy apply` has told
    #[arg(value_name = "VERSION")]
    version: String,
    /// Print the broker's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Put an earlier policy in force again
#[derive(Debug, Args)]
#[command(
    long_about = "Put an earlier policy in force again.\n\n\
        Without a version it is the one that was in force before. Tells who gains and who loses what, and asks; then it is \
        as with `exocom policy apply`.",
    after_long_help = "Examples:\n  \
        exocom policy rollback --why \"web fails\"\n  \
        exocom policy rollback bc23829848cf"
)]
pub struct RollbackArgs {
    /// Its version, which `policy log` tells
    #[arg(value_name = "VERSION")]
    version: Option<String>,
    #[command(flatten)]
    change: Change,
}

/// List the policies that were in force, with who, when and why
#[derive(Debug, Args)]
pub struct LogArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Lists.
pub(super) fn log(args: &LogArgs, streams: &mut Streams<'_>) -> io::Result<ExitCode> {
    told(args.admin.post(PATH, &PolicyVerb::Log), args.json, streams)
}

/// Confirms.
pub(super) fn confirm(args: &ConfirmArgs, streams: &mut Streams<'_>) -> io::Result<ExitCode> {
    let verb = PolicyVerb::Confirm {
        version: args.version.clone(),
    };
    told(args.admin.post(PATH, &verb), args.json, streams)
}

/// Applies a file.
pub(super) fn apply(args: &ApplyArgs, streams: &mut Streams<'_>) -> io::Result<ExitCode> {
    let paths = std::slice::from_ref(&args.file);
    let json = args.change.json;
    let sources = match load_sources(paths) {
        Ok(sources) => sources,
        Err(error) => return NoPolicy::Unreadable(error).tell(json, streams),
    };
    let [source] = sources.as_slice() else {
        let several = format!(
            "{}: several files; name one, and keep a policy of several in the broker's folder",
            args.file.display()
        );
        return unusable(&several, json, streams);
    };
    let policy = match Policy::compile(&sources) {
        Ok(compiled) => compiled.policy,
        Err(errors) => {
            NoPolicy::Refused(errors).tell(json, streams)?;
            return Ok(ExitCode::from(REFUSED));
        }
    };
    let expectations = match load_expectations(paths) {
        Ok(expectations) => expectations,
        Err(error) => return unusable(&error, json, streams),
    };
    let verdict = judge(&policy, &expectations);
    if verdict.failed > 0 {
        tell_failures(&verdict, streams.err)?;
        return Ok(ExitCode::from(REFUSED));
    }
    change(&policy, &source.text, args.confirm_within, &args.change, streams)
}

/// Applies an earlier policy.
pub(super) fn rollback(args: &RollbackArgs, streams: &mut Streams<'_>) -> io::Result<ExitCode> {
    let json = args.change.json;
    let (version, text) = match earlier(args) {
        Ok(earlier) => earlier,
        Err(error) => return failed(&error, json, streams),
    };
    let source = Source {
        name: format!("policy {version}"),
        text,
    };
    match Policy::compile(std::slice::from_ref(&source)) {
        Ok(compiled) => change(&compiled.policy, &source.text, None, &args.change, streams),
        Err(errors) => NoPolicy::Refused(errors).tell(json, streams),
    }
}

/// The version to go back to, and its text.
fn earlier(args: &RollbackArgs) -> anyhow::Result<(String, String)> {
    let version = match &args.version {
        Some(version) => version.clone(),
        None => match args.change.admin.post(PATH, &PolicyVerb::Log)? {
            PolicyAnswer::Log { changes, .. } => changes
                .into_iter()
                .next()
                .and_then(|latest| latest.from)
                .context("no other policy was in force before")?,
            other => bail!("{}", other.to_text().trim_end()),
        },
    };
    let show = PolicyVerb::Show {
        version: Some(version.clone()),
    };
    match args.change.admin.post(PATH, &show)? {
        PolicyAnswer::Policy { files, .. } => match <[_; 1]>::try_from(files) {
            Ok([(_, text)]) => Ok((version, text)),
            Err(_) => bail!("{version} was a policy of several files; restore them in the broker's folder"),
        },
        other => bail!("{}", other.to_text().trim_end()),
    }
}

/// Shows what a policy changes, asks, and has the broker put it in force.
fn change(
    policy: &Policy,
    new_text: &str,
    confirm_within_ms: Option<u64>,
    change: &Change,
    streams: &mut Streams<'_>,
) -> io::Result<ExitCode> {
    let live = match in_force(change) {
        Ok(live) => live,
        Err(error) => return failed(&error, change.json, streams),
    };
    if !change.yes {
        match diff(&live, policy) {
            Ok(diff) => write!(streams.out, "{}", text(&diff, streams.out_colour))?,
            Err(error) => writeln!(streams.err, "{error}")?,
        }
        let question = format!("put it in force, in place of {}? [y]es, [N]o: ", live.version());
        let mut answers: Box<dyn BufRead> = Box::new(io::stdin().lock());
        let answer = match ask(&question, &mut *answers, streams) {
            Ok(answer) => answer,
            Err(error) => return unusable(&error, false, streams),
        };
        if answer != "y" && answer != "yes" {
            writeln!(streams.err, "nothing was changed")?;
            return Ok(ExitCode::from(REFUSED));
        }
    }
    let verb = PolicyVerb::Apply {
        against: live.version().to_owned(),
        text: new_text.to_owned(),
        why: change.why.clone(),
        confirm_within_ms,
    };
    told(change.admin.post(PATH, &verb), change.json, streams)
}

/// The policy in force.
fn in_force(change: &Change) -> anyhow::Result<Policy> {
    let (version, files) = match change.admin.post(PATH, &PolicyVerb::Show { version: None })? {
        PolicyAnswer::Policy { version, files } => (version, files),
        other => bail!("{}", other.to_text().trim_end()),
    };
    let sources: Vec<_> = files
        .into_iter()
        .map(|(name, text)| Source { name, text })
        .collect();
    let compiled = Policy::compile(&sources).with_context(|| format!("the policy in force, {version}"))?;
    anyhow::ensure!(
        compiled.policy.version() == version,
        "the broker's copy of the policy in force is not that policy; restart it to keep a new one"
    );
    Ok(compiled.policy)
}

/// Tells what the broker answers.
fn told(answer: anyhow::Result<PolicyAnswer>, json: bool, streams: &mut Streams<'_>) -> io::Result<ExitCode> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return failed(&error, json, streams),
    };
    let is_refused = matches!(answer, PolicyAnswer::Refused { .. });
    if json {
        print_json(streams.out, &answer)?;
    } else if is_refused {
        write!(streams.err, "{}", answer.to_text())?;
    } else {
        write!(streams.out, "{}", answer.to_text())?;
    }
    Ok(if is_refused {
        ExitCode::from(REFUSED)
    } else {
        ExitCode::SUCCESS
    })
}

/// There is no answer, or one to somebody who may not.
fn failed(error: &anyhow::Error, json: bool, streams: &mut Streams<'_>) -> io::Result<ExitCode> {
    let code = unusable(&format!("{error:#}"), json, streams)?;
    Ok(match error.downcast_ref::<AskError>() {
        Some(AskError::NotAllowed(_)) => ExitCode::from(REFUSED),
        _ => code,
    })
}

/// `90s`, `5m`, `1d`.
fn time_ms(text: &str) -> Result<u64, String> {
    let units = [("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let time = units.iter().find_map(|(unit, ms)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(*ms)
    });
    time.ok_or_else(|| "write a whole number and s, m, h or d, such as 5m".to_owned())
}
