//! `exocom policy`: what a person does with a policy before the broker gets it.
//!
//! What changes a file, or asks a running broker, says so.

mod check;
mod diff;
mod edit;
mod explain;
mod fmt;
mod live;
mod replay;
mod schema;
mod shadow;
mod suggest;
mod test;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;

use crate::cli::answer::print_json;
use crate::policy::{Diagnostics, Policy, PolicyErrors};
use crate::policy_files::{LoadError, load_sources};

/// What to do with a policy.
#[derive(Debug, Subcommand)]
#[expect(
    missing_docs,
    reason = "what a command is for stands with its arguments; a comment here would hide the longer text there"
)]
pub enum PolicyCommand {
    Check(check::CheckArgs),
    Diff(diff::DiffArgs),
    Explain(explain::ExplainArgs),
    Test(test::TestArgs),
    Fmt(fmt::FmtArgs),
    Edit(edit::EditArgs),
    Replay(replay::ReplayArgs),
    Schema(schema::SchemaArgs),
    Apply(live::ApplyArgs),
    Confirm(live::ConfirmArgs),
    Rollback(live::RollbackArgs),
    Log(live::LogArgs),
    Shadow(shadow::ShadowArgs),
    Suggest(suggest::SuggestArgs),
}

/// The answer is no: a policy that is refused, a gain that must not be.
const REFUSED: u8 = 1;
/// There is nothing to judge; the same code that clap uses for a wrong command line.
const UNUSABLE: u8 = 2;

/// Where results and what is wrong go, in colour if asked for.
pub struct Streams<'s> {
    /// Results.
    pub out: &'s mut dyn Write,
    /// What is wrong.
    pub err: &'s mut dyn Write,
    /// Whether `err` is a terminal that shows colours.
    pub err_colour: bool,
    /// Whether `out` is one.
    pub out_colour: bool,
}

/// Does it.
pub fn run(command: &PolicyCommand, streams: &mut Streams<'_>) -> io::Result<ExitCode> {
    match command {
        PolicyCommand::Check(args) => check::run(args, streams),
        PolicyCommand::Diff(args) => diff::run(args, streams),
        PolicyCommand::Explain(args) => explain::run(args, streams),
        PolicyCommand::Test(args) => test::run(args, streams),
        PolicyCommand::Fmt(args) => fmt::run(args, streams),
        PolicyCommand::Edit(args) => edit::run(args, streams),
        PolicyCommand::Replay(args) => replay::run(args, streams),
        PolicyCommand::Schema(_) => schema::run(streams),
        PolicyCommand::Apply(args) => live::apply(args, streams),
        PolicyCommand::Confirm(args) => live::confirm(args, streams),
        PolicyCommand::Rollback(args) => live::rollback(args, streams),
        PolicyCommand::Log(args) => live::log(args, streams),
        PolicyCommand::Shadow(args) => shadow::run(args, streams),
        PolicyCommand::Suggest(args) => suggest::run(args, streams),
    }
}

/// Why there is no policy to answer from.
enum NoPolicy {
    Unreadable(LoadError),
    Refused(PolicyErrors),
}

/// Reads and compiles the policy that a command asks about.
fn load(paths: &[PathBuf]) -> Result<Policy, NoPolicy> {
    let sources = load_sources(paths).map_err(NoPolicy::Unreadable)?;
    let compiled = Policy::compile(&sources).map_err(NoPolicy::Refused)?;
    Ok(compiled.policy)
}

impl NoPolicy {
    /// Says so. Never an answer: the exit code is that of a command that could not do its work.
    fn tell(&self, json: bool, streams: &mut Streams<'_>) -> io::Result<ExitCode> {
        #[derive(Serialize)]
        struct Told<'a> {
            error: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            diagnostics: Option<&'a Diagnostics>,
        }
        let (error, diagnostics) = match self {
            Self::Unreadable(error) => (error.to_string(), None),
            Self::Refused(errors) => (errors.to_string(), Some(errors.diagnostics())),
        };
        if json {
            print_json(streams.out, &Told { error, diagnostics })?;
        } else if let Some(diagnostics) = diagnostics {
            streams
                .err
                .write_all(diagnostics.render(streams.err_colour).as_bytes())?;
        } else {
            writeln!(streams.err, "error: {error}")?;
        }
        Ok(ExitCode::from(UNUSABLE))
    }
}

/// Says why a command could not do its work.
fn unusable(error: &dyn Display, json: bool, streams: &mut Streams<'_>) -> io::Result<ExitCode> {
    let error = format!("{error:#}");
    // A configuration with a mistake is shown as a compiler would.
    let error = error.strip_prefix("error: ").unwrap_or(&error);
    if json {
        print_json(streams.out, &serde_json::json!({ "error": error }))?;
    } else {
        writeln!(streams.err, "error: {error}")?;
    }
    Ok(ExitCode::from(UNUSABLE))
}

fn shown(paths: &[PathBuf]) -> String {
    paths
        .iter()
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 {
        format!("1 {what}")
    } else {
        format!("{count} {what}s")
    }
}
