//! The commands, one file a verb. They talk to people: all printing is here and in `main`.

pub mod admin;
pub mod alarms;
pub mod answer;
pub mod audit;
pub mod authority;
pub mod bench;
pub mod certs;
#[cfg(feature = "demo")]
pub mod demo;
pub mod dev;
pub mod inventory;
pub mod p12;
pub mod policy;
pub mod quarantine;
pub mod queue;
pub mod revoke;
pub mod serve;
pub mod show;
pub mod status;
pub mod time;
pub mod top;
pub mod why;

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
    after_help = start_here()
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

fn start_here() -> String {
    let demo = if cfg!(feature = "demo") {
        "exocom demo                               the todo application, on http://127.0.0.1:3000\n  "
    } else {
        ""
    };
    format!(
        "Start here:\n  {demo}\
        exocom dev --policy policies/todo.toml    a broker for your laptop, with all certificates\n  \
        exocom help serve                         a broker for production\n\n\
        Exit codes: 0 done, 1 refused or failed, 2 wrong usage"
    )
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line, for programs
    Json,
}

/// The commands. What each is for stands with its arguments: a comment here would hide the longer text there.
#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Status(status::StatusArgs),
    Top(top::TopArgs),
    /// Look after tracked messages: what waits, and the dead letters
    Queue(queue::QueueArgs),
    Alarms(alarms::AlarmsArgs),
    Quarantine(quarantine::QuarantineArgs),
    Audit(audit::AuditArgs),
    Why(why::WhyArgs),
    /// Check, compare and explain policies
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    Certs(certs::CertsArgs),
    Dev(dev::DevArgs),
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    #[cfg(feature = "demo")]
    #[command(hide = true)]
    DemoService(demo::service::ServiceArgs),
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
            Command::Top(args) => top::run(args, &mut out, &mut err),
            Command::Queue(args) => queue::run(&args, &mut out, &mut err),
            Command::Alarms(args) => alarms::run(&args, &mut out, &mut err),
            Command::Quarantine(args) => quarantine::run(&args, &mut out, &mut err),
            Command::Why(args) => why::run(&args, &mut out),
            Command::Audit(args) => audit::run(&args, &mut out, &mut err),
            Command::Policy(command) => {
                let colours = std::env::var_os("NO_COLOR").is_none();
                let mut streams = policy::Streams {
                    out_colour: colours && out.is_terminal(),
                    err_colour: colours && err.is_terminal(),
                    out: &mut out,
                    err: &mut err,
                };
                Ok(policy::run(&command, &mut streams)?)
            }
            Command::Certs(args) => certs::run(&args, Clock::unix_s(), &mut out, &mut err),
            Command::Dev(args) => dev::run(&args),
            #[cfg(feature = "demo")]
            Command::Demo(ref args) => demo::run(args, &self.log_options()),
            #[cfg(feature = "demo")]
            Command::DemoService(args) => demo::service::run(&args),
            Command::Bench(args) => bench::run(&args, &mut out),
        }
    }

    /// The log goes to standard error: standard output belongs to what a command answers.
    fn start_log(&self) {
        let level = match self.verbose.saturating_add(self.usual_verbosity()) {
            0 => "warn",
            1 => "info",
            2 => "debug",
            _ => "trace",
        };
        let filter = tracing_subscriber::EnvFilter::try_from_env("EXOCOM_LOG").unwrap_or_else(|_| {
            let ours = ["exocom", "exocom_todo", "exorelay"].map(|part| format!("{part}={level}"));
            // What TLS has to say we say ourselves: its own lines anybody could cause, as many as they like.
            tracing_subscriber::EnvFilter::new(format!("warn,rustls=off,{}", ours.join(",")))
        });
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

    /// A broker tells who comes and goes; what the demo shows should not scroll away.
    fn usual_verbosity(&self) -> u8 {
        match self.command {
            #[cfg(feature = "demo")]
            Command::Demo(_) | Command::DemoService(_) => 0,
            _ => 1,
        }
    }

    /// For the processes that the demo starts.
    #[cfg(feature = "demo")]
    fn log_options(&self) -> demo::LogOptions {
        let is_text = matches!(self.log_format, LogFormat::Text);
        let mut arguments = vec!["-v".to_owned(); self.verbose.into()];
        if !is_text {
            arguments.extend(["--log-format".to_owned(), "json".to_owned()]);
        }
        demo::LogOptions { arguments, is_text }
    }
}

/// Prints one line at once, also into a pipe.
pub(crate) fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}
