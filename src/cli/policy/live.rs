//! `exocom policy apply`, `confirm`, `rollback`, `log`: the policy of a running broker.
//!
//! The broker decides whether an operator may, and whether a policy is sound; here a person sees first what it changes.

use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use super::diff::text;
use super::edit::ask;
use super::test::tell_failures;
use super::{NoPolicy, REFUSED, Streams, unusable};
use crate::cli::admin::AdminArgs;
use crate::cli::answer::{print_json, tell};
use crate::cli::time::seconds;
use crate::console::answer::Answer;
use crate::console::client::AskError;
use crate::console::policy::{PolicyAnswer, PolicyVerb};
use crate::policy::{Policy, Source};
use crate::policy_files::{load_expectations, load_sources};
use crate::review::{diff, judge};

/// Names and texts of a policy's files.
type Files = Vec<(String, String)>;

/// Where the broker hears of its policy.
pub(super) const PATH: &str = "/v1/policy";

/// Put a policy in force on a running broker
#[derive(Debug, Args)]
#[command(
    long_about = "Put a policy in force on a running broker.\n\n\
        Checks the policy and its expectations, tells who gains and who loses what against the policy in force, and asks. \
        The broker refuses it if another policy has come into force meanwhile. When the command ends, every decision is by \
        the new policy: of open connections and of waiting deliveries too. It is also in the broker's policy file then. \
        Where the broker's policy is a folder, name a folder: its *.toml files take the place of all that are there.\n\n\
        With --confirm-within, the old policy comes back by itself unless you confirm the new one in time; also if the \
        broker ends meanwhile.",
    after_long_help = "Examples:\n  \
        exocom policy apply policies/todo.toml --why \"web may purge\"\n  \
        exocom policy apply --confirm-within 5m policies/todo.toml\n  \
        exocom policy apply policies/          where the broker's policy is a folder\n\n\
        Exit codes:\n  \
        0  it is in force\n  \
        1  it is not: you said no, the broker refused, or it is not sound\n  \
        2  the file is missing or unreadable, or no broker answers"
)]
pub struct ApplyArgs {
    /// The policy: a file, or a folder of *.toml files if the broker's is one
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Take the old policy back after this time, 1s to 1d, unless it is confirmed
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    confirm_within: Option<u64>,
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, Args)]
struct Change {
    /// Why, for the log
    #[arg(long, visible_alias = "reason", value_name = "TEXT")]
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

/// Applies a file, or a folder of them.
pub(super) fn apply(args: &ApplyArgs, streams: &mut Streams<'_>) -> io::Result<ExitCode> {
    let paths = std::slice::from_ref(&args.path);
    let json = args.change.json;
    let sources = match load_sources(paths) {
        Ok(sources) => sources,
        Err(error) => return NoPolicy::Unreadable(error).tell(json, streams),
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
        match json {
            true => print_json(streams.out, &verdict)?,
            false => tell_failures(&verdict, streams.err)?,
        }
        return Ok(ExitCode::from(REFUSED));
    }
    let live = match in_force(&args.change.admin) {
        Ok(live) => live,
        Err(error) => return failed(&error, json, streams),
    };
    if let Err(part) = live.take_whole(&args.path) {
        return unusable(&part, json, streams);
    }
    let files = named(sources);
    change(
        (&policy, files),
        &live,
        args.confirm_within.map(|s| s.saturating_mul(1000)),
        &args.change,
        streams,
    )
}

/// Applies an earlier policy.
pub(super) fn rollback(args: &RollbackArgs, streams: &mut Streams<'_>) -> io::Result<ExitCode> {
    let json = args.change.json;
    let (version, files) = match earlier(args) {
        Ok(Ok(earlier)) => earlier,
        Ok(Err(refused)) => return told(Ok(refused), json, streams),
        Err(error) => return failed(&error, json, streams),
    };
    let live = match in_force(&args.change.admin) {
        Ok(live) => live,
        Err(error) => return failed(&error, json, streams),
    };
    let source = |(name, text): &(String, String)| Source {
        name: format!("{version}/{name}"),
        text: text.clone(),
    };
    let sources: Vec<_> = files.iter().map(source).collect();
    match Policy::compile(&sources) {
        Ok(compiled) => change((&compiled.policy, files), &live, None, &args.change, streams),
        Err(errors) => NoPolicy::Refused(errors).tell(json, streams),
    }
}

/// The version to go back to, and its files; or what the broker says in their place.
fn earlier(args: &RollbackArgs) -> anyhow::Result<Result<(String, Files), PolicyAnswer>> {
    let version = match &args.version {
        Some(version) => version.clone(),
        None => {
            let latest = match args.change.admin.post(PATH, &PolicyVerb::Log)? {
                PolicyAnswer::Log { changes, .. } => changes.into_iter().next(),
                other => return Ok(Err(other)),
            };
            let Some(before) = latest.and_then(|latest| latest.from) else {
                let reason = "no other policy was in force before".to_owned();
                return Ok(Err(PolicyAnswer::Refused { reason }));
            };
            before
        }
    };
    let show = PolicyVerb::Show {
        version: Some(version.clone()),
    };
    match args.change.admin.post(PATH, &show)? {
        PolicyAnswer::Policy { files, .. } => Ok(Ok((version, files))),
        other => Ok(Err(other)),
    }
}

/// Shows what a policy changes, asks, and has the broker put it in force.
fn change(
    (policy, files): (&Policy, Files),
    live: &Live,
    confirm_within_ms: Option<u64>,
    change: &Change,
    streams: &mut Streams<'_>,
) -> io::Result<ExitCode> {
    if !change.yes {
        match diff(&live.policy, policy) {
            Ok(diff) => write!(streams.out, "{}", text(&diff, streams.out_colour))?,
            Err(error) => writeln!(streams.err, "{error}")?,
        }
        let question = format!(
            "put it in force, in place of {}? [y]es, [N]o: ",
            live.policy.version()
        );
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
        against: live.policy.version().to_owned(),
        files,
        why: change.why.clone(),
        confirm_within_ms,
    };
    told(change.admin.post(PATH, &verb), change.json, streams)
}

/// The policy in force.
pub(super) struct Live {
    policy: Policy,
    files: Files,
}

impl Live {
    /// Its version.
    pub(super) fn version(&self) -> &str {
        self.policy.version()
    }

    /// Its files.
    pub(super) fn sources(&self) -> Vec<Source> {
        sources_of(&self.files)
    }

    /// Has the broker put another in its place.
    pub(super) fn replace(
        &self,
        files: Files,
        why: Option<String>,
        admin: &AdminArgs,
    ) -> anyhow::Result<PolicyAnswer> {
        let verb = PolicyVerb::Apply {
            against: self.version().to_owned(),
            files,
            why,
            confirm_within_ms: None,
        };
        admin.post(PATH, &verb)
    }

    /// Refuses one file where the policy in force has several: the others would be gone.
    pub(super) fn take_whole(&self, path: &Path) -> Result<(), String> {
        if self.files.len() > 1 && path.is_file() {
            let names: Vec<_> = self.files.iter().map(|(name, _)| name.as_str()).collect();
            return Err(format!(
                "{}: one file, and the policy in force has {}: {}; name a folder with all of them",
                path.display(),
                names.len(),
                names.join(", ")
            ));
        }
        Ok(())
    }
}

/// Files as the broker hears of them.
pub(super) fn named(sources: Vec<Source>) -> Files {
    sources
        .into_iter()
        .map(|source| (source.name, source.text))
        .collect()
}

fn sources_of(files: &[(String, String)]) -> Vec<Source> {
    let source = |(name, text): &(String, String)| Source {
        name: name.clone(),
        text: text.clone(),
    };
    files.iter().map(source).collect()
}

/// Asks for it.
pub(super) fn in_force(admin: &AdminArgs) -> anyhow::Result<Live> {
    let (version, files) = match admin.post(PATH, &PolicyVerb::Show { version: None })? {
        PolicyAnswer::Policy { version, files } => (version, files),
        other => bail!("{}", other.to_text().trim_end()),
    };
    let compiled =
        Policy::compile(&sources_of(&files)).with_context(|| format!("the policy in force, {version}"))?;
    anyhow::ensure!(
        compiled.policy.version() == version,
        "the broker's copy of the policy in force is not that policy; restart it to keep a new one"
    );
    Ok(Live {
        policy: compiled.policy,
        files,
    })
}

/// Tells what the broker answers.
pub(super) fn told(
    answer: anyhow::Result<PolicyAnswer>,
    json: bool,
    streams: &mut Streams<'_>,
) -> io::Result<ExitCode> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return failed(&error, json, streams),
    };
    tell(&answer, json, streams.out, streams.err)
}

/// There is no answer, or one to somebody who may not.
pub(super) fn failed(error: &anyhow::Error, json: bool, streams: &mut Streams<'_>) -> io::Result<ExitCode> {
    let code = unusable(&format!("{error:#}"), json, streams)?;
    Ok(match error.downcast_ref::<AskError>() {
        Some(AskError::NotAllowed(_)) => ExitCode::from(REFUSED),
        _ => code,
    })
}
