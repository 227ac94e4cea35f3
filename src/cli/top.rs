//! `exocom top`: what a running broker does, live in a terminal.
//!
//! What is drawn, and how keys are heard, is in `screen`; here is what it asks the broker, and what is printed where there
//! is no terminal.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use crate::cli::admin::AdminArgs;
use crate::cli::status::{RowArgs, path};
use crate::console::figures::Wanted;
use crate::console::status::Status;
use crate::limits::TOP_INTERVAL_MS_MIN;
use crate::screen;

/// Watch a running broker: services, flows, rates, alarms
#[derive(Debug, Args)]
#[command(
    long_about = "Watches a running broker in a terminal: its services, connections and flows with their rates and response \
        times, and the alarms that are open.\n\n\
        Keys: Tab or 1 to 4 for another table; s, or the letter that the help line shows, for another order; / to filter \
        by name; p to pause; arrows to scroll; q to quit. While the broker cannot be reached, the last figures stay, \
        and it is asked again.",
    after_long_help = "Examples:\n  \
        exocom top                                     the broker of ./exocom.toml\n  \
        exocom top --admin broker.example:4223 --cert alice.pem --key alice.key --roots ca.pem\n  \
        exocom top --sort rate --filter todos          who sends the most of what todos has to do with\n  \
        exocom top --once                              one look, as text\n  \
        exocom top --json --interval 10s >> figures    a line of JSON every ten seconds"
)]
pub struct TopArgs {
    /// How often to look, such as 500ms, 2s or 1m
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = interval)]
    interval: Duration,
    /// Look once, as text, and end
    #[arg(long)]
    once: bool,
    /// Print JSON, a line each time
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    rows: RowArgs,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Does it.
pub fn run(args: TopArgs, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let wanted = args.rows.wanted();
    if args.json {
        return print_json(&args, &wanted, out, err);
    }
    if args.once {
        let status: Status = args.admin.get(&path(&wanted)?)?;
        write!(out, "{}", status.to_text())?;
        return Ok(ExitCode::SUCCESS);
    }
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        bail!(
            "this is no terminal; use --once for one look as text, or --json for a line of JSON each --interval"
        );
    }
    let has_colours = std::env::var_os("NO_COLOR").is_none();
    let admin = args.admin;
    let ask = move |wanted: &Wanted| {
        let status = path(wanted).and_then(|path| admin.get(&path));
        status.map_err(|error| format!("{error:#}"))
    };
    screen::show(ask, args.interval, wanted, has_colours)
        .context("the terminal cannot be used; try --once or --json")?;
    Ok(ExitCode::SUCCESS)
}

/// A line of JSON each time, until nobody reads them.
fn print_json(
    args: &TopArgs,
    wanted: &Wanted,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let path = path(wanted)?;
    loop {
        match args.admin.get::<Status>(&path) {
            Ok(status) => {
                serde_json::to_writer(&mut *out, &status)?;
                writeln!(out)?;
                out.flush()?;
            }
            Err(error) if args.once => return Err(error),
            Err(error) => writeln!(err, "exocom: {error:#}; trying again")?,
        }
        if args.once {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(args.interval);
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000)];
    let parsed = units.into_iter().find_map(|(unit, times)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(times)
    });
    match parsed {
        Some(ms) if ms >= TOP_INTERVAL_MS_MIN => Ok(Duration::from_millis(ms)),
        Some(_) => Err(format!("look every {TOP_INTERVAL_MS_MIN}ms at the most")),
        None => Err("write a number and a unit, such as 500ms, 2s or 1m".to_owned()),
    }
}
