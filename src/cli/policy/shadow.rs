//! `exocom policy shadow`: a candidate beside the policy of a running broker, without effect.
//!
//! The broker does it, and decides by the policy in force alone; here a person begins it, looks, and ends it.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::live::{PATH, failed, in_force, named, told};
use super::{NoPolicy, REFUSED, Streams, unusable};
use crate::cli::admin::AdminArgs;
use crate::console::policy::{PolicyAnswer, PolicyVerb};
use crate::policy::Policy;
use crate::policy_files::load_sources;

/// Try a policy on a running broker's traffic, without effect
#[derive(Debug, Args)]
#[command(
    long_about = "Try a policy on a running broker's traffic, without effect.\n\n\
        The broker goes on to decide by the policy in force, and asks the candidate beside it. The report tells what the \
        candidate would have denied or allowed: for each service what it tried, how often, when first and last, and the \
        line of either policy.\n\n\
        A trial ends when somebody stops it, when the candidate itself comes into force, and with the broker. It goes on \
        when another policy comes into force: the report then tells for each row which one it was.",
    after_long_help = "Examples:\n  \
        exocom policy shadow start next.toml --why \"may web do with less?\"\n  \
        exocom policy shadow report\n  \
        exocom policy shadow stop"
)]
pub struct ShadowArgs {
    #[command(subcommand)]
    command: ShadowCommand,
}

#[derive(Debug, Subcommand)]
enum ShadowCommand {
    Start(StartArgs),
    Report(ReportArgs),
    Stop(StopArgs),
}

/// Begin to try a candidate
#[derive(Debug, Args)]
#[command(
    long_about = "Begin to try a candidate.\n\n\
        One at a time; nothing is decided by it. Operators need apply-policy.",
    after_long_help = "Exit codes:\n  \
        0  it is tried\n  \
        1  it is not: the broker refused, or it is not sound\n  \
        2  the policy is missing or unreadable, or no broker answers"
)]
struct StartArgs {
    /// The candidate: a file, or a folder of *.toml files if the broker's is one
    #[arg(value_name = "PATH")]
    path: PathBuf,
    #[command(flatten)]
    why: Why,
    /// Print the broker's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Show what it would have denied or allowed so far
#[derive(Debug, Args)]
#[command(
    long_about = "Show what the candidate would have denied or allowed so far; of the last one, if none is tried now.\n\n\
        Counted are messages sent, each delivery or attempt to a service that receives one, subscriptions and \
        connections; all exactly. Of services with very many flows some are counted together. Operators need view.",
    after_long_help = "Exit codes:\n  \
        0  shown\n  \
        1  nothing is tried, the broker refused, or something would have been denied and --no-new-denials is given\n  \
        2  no broker answers"
)]
struct ReportArgs {
    /// Fail if anything would have been denied that was allowed
    #[arg(long)]
    no_new_denials: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// End the trial, and show all that was found
#[derive(Debug, Args)]
#[command(
    long_about = "End the trial, and show all that was found. Operators need apply-policy.",
    after_long_help = "Exit codes:\n  \
        0  it has ended\n  \
        1  nothing was tried, or the broker refused\n  \
        2  no broker answers"
)]
struct StopArgs {
    #[command(flatten)]
    why: Why,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
struct Why {
    /// Why, for the log
    #[arg(long, visible_alias = "reason", value_name = "TEXT")]
    why: Option<String>,
}

/// Does it.
pub(super) fn run(args: &ShadowArgs, streams: &mut Streams<'_>) -> io::Result<ExitCode> {
    match &args.command {
        ShadowCommand::Start(args) => start(args, streams),
        ShadowCommand::Report(args) => report(args, streams),
        ShadowCommand::Stop(args) => {
            let verb = PolicyVerb::ShadowStop {
                why: args.why.why.clone(),
            };
            told(args.admin.post(PATH, &verb), args.json, streams)
        }
    }
}

fn start(args: &StartArgs, streams: &mut Streams<'_>) -> io::Result<ExitCode> {
    let sources = match load_sources(std::slice::from_ref(&args.path)) {
        Ok(sources) => sources,
        Err(error) => return NoPolicy::Unreadable(error).tell(args.json, streams),
    };
    if let Err(errors) = Policy::compile(&sources) {
        NoPolicy::Refused(errors).tell(args.json, streams)?;
        return Ok(ExitCode::from(REFUSED));
    }
    let live = match in_force(&args.admin) {
        Ok(live) => live,
        Err(error) => return failed(&error, args.json, streams),
    };
    if let Err(part) = live.take_whole(&args.path) {
        return unusable(&part, args.json, streams);
    }
    let verb = PolicyVerb::ShadowStart {
        files: named(sources),
        why: args.why.why.clone(),
    };
    let answer: anyhow::Result<PolicyAnswer> = args.admin.post(PATH, &verb);
    match answer {
        Ok(PolicyAnswer::Shadow(report)) if !args.json => {
            writeln!(
                streams.out,
                "{} is tried beside {}, without effect; see what it would do: exocom policy shadow report",
                report.candidate, report.in_force
            )?;
            Ok(ExitCode::SUCCESS)
        }
        answer => told(answer, args.json, streams),
    }
}

fn report(args: &ReportArgs, streams: &mut Streams<'_>) -> io::Result<ExitCode> {
    let answer: anyhow::Result<PolicyAnswer> = args.admin.post(PATH, &PolicyVerb::ShadowReport);
    let would_deny = match &answer {
        Ok(PolicyAnswer::Shadow(report)) => report.count("deny") > 0,
        _ => false,
    };
    let code = told(answer, args.json, streams)?;
    Ok(if args.no_new_denials && would_deny {
        ExitCode::from(REFUSED)
    } else {
        code
    })
}
