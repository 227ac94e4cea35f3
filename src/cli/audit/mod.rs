//! `exocom audit`: reads and checks an audit log, without the broker that writes it.

mod query;
mod rows;
mod series;
mod sums;
mod verify;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};

use crate::audit::key::PublicKey;
use crate::cli::answer::is_broken_pipe;
use crate::cli::serve::read_config;
use crate::disk::audit::Archive;

pub(super) use query::{each_entry, first_since, print_rows};
pub(super) use rows::{Row, Rows};
pub(super) use sums::{denials_since, sums_since};

/// The exit code where nothing could be checked.
const UNCHECKED: u8 = 2;

/// Read and check the audit log
#[derive(Debug, Args)]
#[command(
    long_about = "Reads and checks the audit log: who connected, what was sent by whom to whom and how much, what was \
        denied and why, and what operators did. The broker need not run; these commands read its folder.\n\n\
        The log is a Merkle tree whose root is signed every second in which something happened, so that nobody can \
        change, remove or insert an entry unnoticed. Who has the log's secret key could sign another history; a \
        checkpoint that was kept elsewhere (a witness) shows that too. docs/audit.md tells how.",
    after_long_help = "Examples:\n  \
        exocom audit tail\n  \
        exocom audit query --service web --message 'todos.*' --since 2h\n  \
        exocom audit query --kind denial --json | jq .rule\n  \
        exocom audit verify audit --key log.pub --witness kept-elsewhere\n  \
        exocom audit prove 4711 > 4711.tlog-proof\n  \
        exocom audit verify 4711.tlog-proof --key log.pub\n  \
        exocom audit compare kept-checkpoint"
)]
pub struct AuditArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a whole log, or a proof, with nothing but the public key
    Verify(verify::VerifyArgs),
    /// Write the proof that an entry is in the log, which can be checked alone
    Prove(verify::ProveArgs),
    /// Check that the log continues what it was at a checkpoint that was kept
    Compare(verify::CompareArgs),
    /// Show the last entries
    Tail(query::TailArgs),
    /// Show the entries that are asked for
    Query(query::QueryArgs),
    Series(series::SeriesArgs),
}

/// Which log is meant.
#[derive(Debug, Args)]
pub(super) struct Where {
    /// The log's folder; otherwise that of the configuration
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The configuration file that names the folder
    #[arg(long, value_name = "FILE", default_value = "exocom.toml")]
    config: PathBuf,
}

/// Does it.
pub fn run(args: &AuditArgs, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Verify(args) => verdict(verify::verify(args, out, err), err),
        Command::Prove(args) => verify::prove(args, out),
        Command::Compare(args) => verdict(verify::compare(args, out, err), err),
        Command::Tail(args) => query::tail(args, out),
        Command::Query(args) => query::query(args, out),
        Command::Series(args) => series::run(args, out),
    }
}

/// Where nothing could be checked the exit code is not that of a log that was changed.
fn verdict(checked: anyhow::Result<ExitCode>, err: &mut dyn Write) -> anyhow::Result<ExitCode> {
    match checked {
        Err(error) if !is_broken_pipe(&error) => {
            writeln!(err, "exocom: {error:#}")?;
            Ok(ExitCode::from(UNCHECKED))
        }
        checked => checked,
    }
}

impl Where {
    fn folder(&self) -> anyhow::Result<PathBuf> {
        match &self.dir {
            Some(dir) => Ok(dir.clone()),
            None => configured_folder(&self.config, "--dir"),
        }
    }

    pub(super) fn archive(&self) -> anyhow::Result<(Archive, PathBuf)> {
        let folder = self.folder()?;
        Ok((Archive::new(&folder), folder))
    }
}

/// The folder of the log of a broker with this configuration. `option` is how a command is told of another.
pub(super) fn configured_folder(config: &Path, option: &str) -> anyhow::Result<PathBuf> {
    anyhow::ensure!(
        config.exists(),
        "there is no {}; name the log's folder with {option}, or the broker's configuration with --config",
        config.display()
    );
    let audit = read_config(config)?.audit;
    let audit = audit.with_context(|| {
        format!(
            "{}: the broker keeps no audit log; add [audit] with folder = \"audit\"",
            config.display()
        )
    })?;
    Ok(audit.folder)
}

/// Reads the public key of a log.
fn read_key(path: &Path) -> anyhow::Result<PublicKey> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{}: cannot read the log's public key", path.display()))?;
    PublicKey::parse(&text).with_context(|| path.display().to_string())
}
