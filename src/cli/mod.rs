//! The commands, one file a verb. They talk to people: all printing is here and in `main`.

pub mod authority;
pub mod bench;
pub mod certs;
pub mod dev;
pub mod inventory;
pub mod policy;
pub mod serve;
pub mod status;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};

use crate::net::clock::Clock;

/// A secure, authenticated message broker.
#[derive(Debug, Parser)]
#[command(
    name = "exocom",
    version,
    about = "A secure, authenticated message broker",
    long_about = "ExoCom is a message broker for services that prove who they are by their certificates.\n\n\
        It decides each message against one policy file, delivers it to the services that may receive it, and \
        speaks the NATS client protocol over mutual TLS, so that every NATS client can be a relay.",
    after_help = "Start here:\n  \
        exocom demo                               the todo application, on http://127.0.0.1:3000\n  \
        exocom dev --policy policies/todo.toml    a broker for your laptop, with all certificates\n  \
        exocom help serve                         a broker for production\n\n\
        Exit codes: 0 done, 1 refused or failed, 2 wrong usage"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Say more in the log; twice: everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// How lines of the log look
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line, for programs
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker
    Serve(serve::ServeArgs),
    /// Show what a running broker does: connections, flows, counts
    Status(status::StatusArgs),
    /// Check a policy
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Make certificates for development
    Certs(certs::CertsArgs),
    /// Run a broker for a laptop or a test, with certificates for everybody in the policy
    Dev(dev::DevArgs),
    /// Measure a broker under load, and check what it delivers
    Bench(bench::BenchArgs),
}

impl Cli {
    /// Does what the command line asks.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        self.start_log();
        let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
        match self.command {
            Command::Serve(args) => serve::run(&args),
            Command::Status(args) => status::run(&args, &mut out),
            Command::Policy(command) => {
                let colour = err.is_terminal() && std::env::var_os("NO_COLOR").is_none();
                Ok(policy::run(&command, &mut out, &mut err, colour)?)
            }
            Command::Certs(args) => certs::run(&args, Clock::unix_s(), &mut out, &mut err),
            Command::Dev(args) => dev::run(&args),
            Command::Bench(args) => bench::run(&args, &mut out),
        }
    }

    /// The log goes to standard error: standard output belongs to what a command answers.
    fn start_log(&self) {
        let level = match self.verbose {
            0 => "info",
            1 => "debug",
            _ => "trace",
        };
        let filter = tracing_subscriber::EnvFilter::try_from_env("EXOCOM_LOG")
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(format!("warn,exocom={level}")));
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
            .with_target(false);
        match self.log_format {
            LogFormat::Text => log.init(),
            LogFormat::Json => log.json().init(),
        }
    }
}

/// Prints one line at once, also into a pipe.
pub(crate) fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}
