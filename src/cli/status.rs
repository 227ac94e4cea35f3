//! `exocom status`: what a running broker does.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;

use crate::cli::admin::AdminArgs;
use crate::cli::answer::print_json;
use crate::console::figures::{SortBy, Wanted};
use crate::console::status::Status;
use crate::limits::STATUS_ROWS;

/// Show what a running broker does: services, connections, flows, alarms
#[derive(Debug, Args)]
#[command(
    long_about = "Shows what a running broker does: its policy, the alarms that are open, its services, connections and \
        flows, with their counts since the start and their rates now.\n\n\
        It asks the broker through its admin socket, which only the user that runs the broker may open, or from \
        elsewhere through its admin listener, as an operator who may view. `exocom top` shows the same, again and \
        again.",
    after_long_help = "Examples:\n  \
        exocom status                                  the broker of ./exocom.toml\n  \
        exocom status --admin DIR/admin.sock           the broker of a `dev` folder\n  \
        exocom status --admin broker.example:4223 --cert alice.pem --key alice.key --roots ca.pem\n  \
        exocom status --sort rate --limit 20           who sends the most\n  \
        exocom status --json | jq '.flows[] | select(.denied > 0)'"
)]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    rows: RowArgs,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Which rows of the lists.
#[derive(Debug, Args)]
pub struct RowArgs {
    /// What comes first: name, rate, messages, bytes, denied, lost or response
    #[arg(long, value_name = "WHAT", default_value = "name", hide_default_value = true)]
    pub sort: SortBy,
    /// Rows of each list at the most
    #[arg(long, value_name = "N", default_value_t = STATUS_ROWS)]
    pub limit: usize,
    /// Only services, connections and flows with a name that contains this
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub filter: String,
}

impl RowArgs {
    /// As the broker is asked.
    pub fn wanted(&self) -> Wanted {
        Wanted {
            sort: self.sort,
            limit: self.limit,
            filter: self.filter.clone(),
        }
    }
}

/// Does it.
pub fn run(args: &StatusArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let status: Status = args.admin.get(&path(&args.rows.wanted())?)?;
    if args.json {
        print_json(out, &status)?;
    } else {
        write!(out, "{}", status.to_text())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the broker shows these rows.
pub fn path(wanted: &Wanted) -> anyhow::Result<String> {
    Ok(format!("/v1/status?{}", serde_urlencoded::to_string(wanted)?))
}
