//! `exocom bench`: load on a broker, and what it costs.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::bench::{self, Audited, Fixture, Options, PAYLOAD_BYTES_MIN, Scenario, Target, Tls};
use crate::limits::PAYLOAD_BYTES_MAX;

/// Measure a broker under load, and check what it delivers
#[derive(Debug, Args)]
#[command(
    long_about = "Measures a broker under load, and checks what it delivers: that every message arrives once, in \
        order, unchanged, and stamped with its true sender. A message that does not is an error.\n\n\
        Without --server it starts a broker of its own, as a process of this program. With --server it plays \
        against ExoCom or, with --nats, any other NATS server; --certs is then a folder with ca.pem and, for each \
        service that --print-policy lists, NAME.pem and NAME.key. `exocom dev` makes such a folder.",
    after_long_help = "Examples:\n  \
        exocom bench all\n  \
        exocom bench a --size 1024 --seconds 10\n  \
        exocom bench d256 --server 127.0.0.1:4222 --certs DIR/certs --pid 4711 --json\n  \
        exocom bench a --print-policy > bench.toml"
)]
pub struct BenchArgs {
    /// What is played
    scenario: Which,
    /// The server; a broker of its own if left out
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<String>,
    /// The folder with ca.pem, NAME.pem and NAME.key; not needed with --tls none
    #[arg(long, value_name = "DIR", requires = "server")]
    certs: Option<PathBuf>,
    /// The server's process, for its processor time and memory
    #[arg(long, value_name = "PID", requires = "server")]
    pid: Option<u32>,
    /// When TLS begins
    #[arg(long, value_enum, default_value_t = Tls::First, requires = "server")]
    tls: Tls,
    /// The server is not ExoCom: nothing says who sent a message
    #[arg(long, requires = "server")]
    nats: bool,
    /// Bytes of a payload
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = payload_bytes)]
    size: usize,
    /// How long each scenario is measured
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    seconds: f64,
    /// Bytes of payload that a sender may be ahead of its slowest receiver
    #[arg(long, value_name = "BYTES", default_value_t = 512 << 10)]
    ahead: usize,
    /// Message names that each sender goes round
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    names: u32,
    /// Receivers of each message, in scenario c
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    receivers: u32,
    /// Connections that do nothing meanwhile
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    bystanders: usize,
    /// Services in the policy that play no part
    #[arg(long, value_name = "COUNT", default_value_t = 0, conflicts_with = "server")]
    others: usize,
    /// What the audit log of the broker of its own tells
    #[arg(long, value_enum, default_value_t = Audited::Flow, conflicts_with = "server")]
    audit: Audited,
    /// The most connections in scenario idle
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    idle_max: usize,
    /// Threads of the load generator; otherwise one for each two cores
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: Option<u32>,
    /// Print JSON, one line a scenario
    #[arg(long)]
    json: bool,
    /// Print the policy that the services need, and play nothing
    #[arg(long, conflicts_with = "print_nats_users")]
    print_policy: bool,
    /// Print the same for nats-server: the users of its configuration
    #[arg(long)]
    print_nats_users: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Which {
    /// One sender, one receiver
    A,
    /// Four senders, four receivers, four message names
    B,
    /// One sender, eight receivers that each get every message
    C,
    /// Requests and replies, one in flight
    D1,
    /// Requests and replies, 256 in flight
    D256,
    /// Full TLS handshakes, each to the first PONG
    Handshakes,
    /// Memory of connections that do nothing
    Idle,
    /// All of these, one after the other
    All,
    /// Tracked messages to the store, one in flight
    P1,
    /// Tracked messages to the store, 64 in flight
    P64,
    /// Tracked messages to the store, 1,024 in flight
    P1024,
    /// Tracked messages stored, received and acknowledged, 1,024 in flight
    E1024,
    /// All of tracked messages, one after the other
    Tracked,
    /// Requests through a bare TCP relay, without TLS: the least that d1 could take here
    Floor,
}

impl Which {
    fn scenarios(self) -> Vec<Scenario> {
        match self {
            Self::A => vec![Scenario::A],
            Self::B => vec![Scenario::B],
            Self::C => vec![Scenario::C],
            Self::D1 => vec![Scenario::D1],
            Self::D256 => vec![Scenario::D256],
            Self::Handshakes => vec![Scenario::Handshakes],
            Self::Idle => vec![Scenario::Idle],
            Self::All => Scenario::ALL.to_vec(),
            Self::P1 => vec![Scenario::P1],
            Self::P64 => vec![Scenario::P64],
            Self::P1024 => vec![Scenario::P1024],
            Self::E1024 => vec![Scenario::E1024],
            Self::Tracked => Scenario::TRACKED.to_vec(),
            Self::Floor => vec![Scenario::Floor],
        }
    }
}

fn payload_bytes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if (PAYLOAD_BYTES_MIN..=PAYLOAD_BYTES_MAX).contains(&bytes) => Ok(bytes),
        _ => Err(format!(
            "a number from {PAYLOAD_BYTES_MIN} (what tells messages apart) to {PAYLOAD_BYTES_MAX}"
        )),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number from 0.1 to 600".to_owned()),
    }
}

/// Does it.
pub fn run(args: &BenchArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let names = args.names as usize;
    anyhow::ensure!(
        args.server.is_none() || args.certs.is_some() || args.tls == Tls::None,
        "which certificates? Name their folder with --certs; `exocom dev --dir DIR` makes DIR/certs"
    );
    if args.print_policy || args.print_nats_users {
        let text = if args.print_policy {
            bench::exocom_policy(names, args.others, args.audit)
        } else {
            bench::nats_users(names, args.others)
        };
        write!(out, "{text}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut options = Options {
        payload_bytes: args.size,
        seconds: args.seconds,
        ahead_bytes: args.ahead,
        names,
        receivers: args.receivers as usize,
        bystanders: args.bystanders,
        threads: args.threads.map_or(cores.div_ceil(2), |threads| threads as usize),
        idle_max: args.idle_max,
        pid: args.pid,
    };
    for scenario in args.scenario.scenarios() {
        // Each scenario with a broker of its own begins with a fresh one.
        let fixture;
        let target = if let Some(address) = &args.server {
            Target {
                address: address.clone(),
                tls: args.tls,
                certs: args.certs.clone().unwrap_or_default(),
                is_exocom: !args.nats,
            }
        } else {
            fixture = Fixture::start(names, args.others, args.audit)?;
            options.pid = Some(fixture.pid());
            fixture.target()
        };
        let report = bench::run(scenario, &target, &options)?;
        if args.json {
            serde_json::to_writer(&mut *out, &report)?;
            writeln!(out)?;
        } else {
            writeln!(out, "{report}")?;
        }
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}
