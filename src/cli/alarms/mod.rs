//! `exocom alarms`: what was unusual, in recorded values.

mod backtest;
mod series;

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand};

/// See what the detectors of unusual traffic flag
#[derive(Debug, Args)]
pub struct AlarmsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Backtest(backtest::BacktestArgs),
}

/// Does it.
pub fn run(args: &AlarmsArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Backtest(args) => backtest::run(args, out),
    }
}
