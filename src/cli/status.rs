//! `exocom status`: what a running broker does.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;

use crate::cli::admin::AdminArgs;
use crate::console::status::Status;

/// Show what a running broker does: connections, flows, counts
#[derive(Debug, Args)]
#[command(
    long_about = "Shows what a running broker does: its policy, its connections, and its flows with their \
        counts since the start.\n\n\
        It asks the broker through its admin socket, which only the user that runs the broker may open, or from \
        elsewhere through its admin listener, as an operator who may view.",
    after_long_help = "Examples:\n  \
        exocom status                                  the broker of ./exocom.toml\n  \
        exocom status --admin DIR/admin.sock           the broker of a `dev` folder\n  \
        exocom status --admin broker.example:4223 --cert alice.pem --key alice.key --roots ca.pem\n  \
        exocom status --json | jq '.flows[] | select(.denied > 0)'"
)]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Does it.
pub fn run(args: &StatusArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let status: Status = args.admin.get("/v1/status")?;
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &status)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", status.to_text())?;
    }
    Ok(ExitCode::SUCCESS)
}
