//! `exocom status`: what a running broker does.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::ensure;
use clap::Args;

use crate::cli::serve::{read_config, runtime};
use crate::console::admin;

/// Show what a running broker does: connections, flows, counts
#[derive(Debug, Args)]
#[command(
    long_about = "Shows what a running broker does: its policy, its connections, and its flows with their \
        counts since the start.\n\n\
        It asks the broker through its admin socket, which only the user that runs the broker may open.",
    after_long_help = "Examples:\n  \
        exocom status                                  the broker of ./exocom.toml\n  \
        exocom status --admin DIR/admin.sock           the broker of a `dev` folder\n  \
        exocom status --json | jq '.flows[] | select(.denied > 0)'"
)]
pub struct StatusArgs {
    /// The admin socket; otherwise that of the configuration
    #[arg(long, value_name = "SOCKET")]
    admin: Option<PathBuf>,
    /// The configuration file that names the socket
    #[arg(long, value_name = "FILE", default_value = "exocom.toml")]
    config: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Does it.
pub fn run(args: &StatusArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let socket = match &args.admin {
        Some(socket) => socket.clone(),
        None => {
            ensure!(
                args.config.exists(),
                "there is no {}; name the broker's socket with --admin, or its configuration with --config",
                args.config.display()
            );
            read_config(&args.config)?.admin_socket
        }
    };
    let status = runtime()?.block_on(admin::status(&socket))?;
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &status)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", status.to_text())?;
    }
    Ok(ExitCode::SUCCESS)
}
