//! nats-server as an oracle: random clients talk to it and to our broker, and must get equivalent answers, but for
//! the deliberate differences, which `differences` lists, tests and gives reasons for.
//!
//! Cases come from seeds. `EXOCOM_ORACLE_SEED=N` replays one; `EXOCOM_ORACLE_CASES=N` sets how many are tried, and
//! `EXOCOM_ORACLE_FIRST=N` with which to begin.

mod case;
mod differences;
mod explain;
mod run;
mod trace;
mod wire;
mod writer;

use std::sync::Arc;

use rustls::ClientConfig;

use crate::nats_server::{self, NatsServer};
use crate::support::{Broker, has};
use case::{PAYLOAD_BYTES_MAX, SERVICES};
use differences::{DIFFERENCES, Difference};
use writer::case;

/// How many cases are tried where nobody says otherwise: some tens of seconds.
const CASES: u64 = 1500;

/// Both servers, with the same services and the same certificates.
struct Pair {
    ours: Broker,
    theirs: NatsServer,
    certificates: Vec<Arc<ClientConfig>>,
}

impl Pair {
    /// `None` where there is no nats-server.
    fn start() -> Option<Self> {
        let binary = nats_server::binary();
        if !has("nats-server", binary.is_some()) {
            return None;
        }
        let ours = Broker::serve(
            &nats_server::policy(&SERVICES),
            &format!(
                "version = 1\npolicy = \"policy.toml\"\nadmin-socket = \"admin.sock\"\n\
                 [tls]\ncertificate = \"certs/server.pem\"\nkey = \"certs/server.key\"\n\
                 [listener.main]\naddress = \"127.0.0.1:0\"\nroots = [\"certs/ca.pem\"]\n\
                 [limits]\nlame-duck-ms = 0\npayload-bytes = {PAYLOAD_BYTES_MAX}\n"
            ),
        );
        let config = nats_server::config(&SERVICES, &ours.path("certs"), PAYLOAD_BYTES_MAX);
        let theirs = NatsServer::start(&binary?, ours.dir(), &config);
        let certificates = SERVICES.iter().map(|service| ours.tls(service.name)).collect();
        Some(Self {
            ours,
            theirs,
            certificates,
        })
    }
}

// protocol: P-110
#[test]
fn random_clients_get_equivalent_answers() {
    let Some(pair) = Pair::start() else { return };
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(
            text.parse::<u64>()
                .unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")),
        )
    };
    let seeds = match number("EXOCOM_ORACLE_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = number("EXOCOM_ORACLE_FIRST").unwrap_or(0);
            first..first + number("EXOCOM_ORACLE_CASES").unwrap_or(CASES)
        }
    };
    for seed in seeds {
        let case = case(seed);
        if let Err(first) = run::run(&pair, &case) {
            let (smaller, difference) = run::smaller(&pair, case, first);
            panic!("an answer differs; replay it with EXOCOM_ORACLE_SEED={seed}\n{difference}\nin {smaller}");
        }
    }
}

// protocol: P-110
#[test]
fn each_deliberate_difference_is_one() {
    let Some(pair) = Pair::start() else { return };
    let mut wrong = String::new();
    for difference in DIFFERENCES {
        for script in difference.scripts {
            let [ours, theirs] = run::play(&pair, script);
            if ours != script.ours || !script.theirs.iter().any(|expected| theirs == *expected) {
                let (about, says) = (difference.about, script.says);
                wrong += &format!("{about}: {says:?}\n  ours {ours:#?}\n  theirs {theirs:#?}\n");
            }
        }
    }
    assert!(wrong.is_empty(), "other answers than expected:\n{wrong}");
}

// protocol: P-110
#[test]
fn the_document_of_the_protocol_lists_the_deliberate_differences() {
    let document = include_str!("../../../docs/protocol.md");
    let lists = |row: &str| document.lines().any(|line| line == row);
    for Difference {
        about,
        theirs,
        ours,
        reason,
        ..
    } in DIFFERENCES
    {
        let row = format!("| {about} | {theirs} | {ours} | {reason} |");
        assert!(lists(&row), "docs/protocol.md should have the row\n{row}");
    }
    let heading = "| about | nats-server | ExoCom | why |";
    let rows = document.lines().skip_while(|line| *line != heading).skip(2);
    assert_eq!(
        rows.take_while(|line| line.starts_with('|')).count(),
        DIFFERENCES.len()
    );
}
