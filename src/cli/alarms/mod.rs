//! `exocom alarms`: what is unusual in the traffic of a running broker, or was in recorded values.

mod backtest;
mod live;
mod series;

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand};

/// See what is unusual in the traffic
#[derive(Debug, Args)]
pub struct AlarmsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Live(live::LiveCommand),
    Backtest(backtest::BacktestArgs),
}

/// Does it.
pub fn run(args: &AlarmsArgs, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Live(command) => live::run(command, out, err),
        Command::Backtest(args) => backtest::run(args, out),
    }
}
