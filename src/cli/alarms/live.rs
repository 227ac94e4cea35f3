//! `exocom alarms list`, `show`, `ack`, `mute`: the alarms of a running broker.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::cli::admin::AdminArgs;
use crate::cli::answer::tell;
use crate::cli::time::seconds;
use crate::console::alarms::{AlarmAnswer, AlarmVerb};

/// How a running broker is asked.
#[derive(Debug, Args)]
pub(super) struct LiveArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum LiveCommand {
    /// List the alarms of a running broker
    #[command(
        after_long_help = "Examples:\n  exocom alarms list\n  exocom alarms list --all --json | jq '.alarms[].finding'"
    )]
    List {
        /// Also those that are over
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        live: LiveArgs,
    },
    /// Show one alarm: what raised it, and what became of it
    Show {
        /// Its number, which `list` tells
        id: u64,
        #[command(flatten)]
        live: LiveArgs,
    },
    /// Take note of an alarm
    Ack {
        /// Its number
        id: u64,
        /// Why, for the log
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
        #[command(flatten)]
        live: LiveArgs,
    },
    /// Tell nobody of alarms about the same thing for a time
    Mute {
        /// The number of an alarm about it
        id: u64,
        /// For how long, such as 30m, 8h or 7d; 0s ends it
        #[arg(long = "for", value_name = "TIME", default_value = "8h", value_parser = seconds)]
        for_s: u64,
        /// Why, for the log
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
        #[command(flatten)]
        live: LiveArgs,
    },
}

/// Does it.
pub(super) fn run(
    command: &LiveCommand,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let (verb, live) = match command {
        LiveCommand::List { all, live } => (AlarmVerb::List { all: *all }, live),
        LiveCommand::Show { id, live } => (AlarmVerb::Show { id: *id }, live),
        LiveCommand::Ack { id, why, live } => {
            let why = why.clone();
            (AlarmVerb::Ack { id: *id, why }, live)
        }
        LiveCommand::Mute { id, for_s, why, live } => {
            let why = why.clone();
            let (id, for_s) = (*id, *for_s);
            (AlarmVerb::Mute { id, for_s, why }, live)
        }
    };
    let answer: AlarmAnswer = live.admin.post("/v1/alarms", &verb)?;
    Ok(tell(&answer, live.json, out, err)?)
}
