//! The targets on stable Rust: their seeds, and then seeds changed at random, for a number of seconds each.
//!
//!     rounds SECONDS [TARGET…]     EXOCOM_FUZZ_SEED=N sets where chance begins
//!
//! Input that fails is kept in `artifacts/TARGET/`, and the exit code is 1.

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use exocom_fuzz::mutate::{Chance, mutated};
use exocom_fuzz::{TARGETS, Target};

/// How many changed seeds are tried between two looks at the clock.
const ROUND: u32 = 64;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        [seconds, names @ ..] if seconds.parse::<u64>().is_ok() => {
            let time = Duration::from_secs(seconds.parse().expect("it was a number"));
            let wanted = |target: &&Target| names.is_empty() || names.contains(&target.name);
            let targets: Vec<_> = TARGETS.iter().filter(wanted).collect();
            if targets.len() < names.len() {
                let known: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
                eprintln!("rounds: there are the targets {}", known.join(", "));
                return ExitCode::from(2);
            }
            let failed = targets.iter().filter(|target| !holds(target, time)).count();
            if failed == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        _ => {
            eprintln!("usage: rounds SECONDS [TARGET…]");
            ExitCode::from(2)
        }
    }
}

fn holds(target: &Target, time: Duration) -> bool {
    let first = std::env::var("EXOCOM_FUZZ_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let mut chance = Chance(first.unwrap_or(1));
    let seeds = (target.seeds)();
    let start = Instant::now();
    let mut count = 0_u64;
    for seed in &seeds {
        if !holds_for(target, seed) {
            return false;
        }
    }
    while start.elapsed() < time {
        for _ in 0..ROUND {
            let bytes = mutated(&mut chance, &seeds, target.words);
            if !holds_for(target, &bytes) {
                return false;
            }
            count += 1;
        }
    }
    println!(
        "{}: {count} changed seeds in {} s",
        target.name,
        start.elapsed().as_secs()
    );
    true
}

fn holds_for(target: &Target, bytes: &[u8]) -> bool {
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| (target.check)(bytes)));
    if outcome.is_err() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("artifacts")
            .join(target.name);
        fs::create_dir_all(&folder).expect("the folder can be made");
        let file = folder.join("rounds");
        fs::write(&file, bytes).expect("the folder takes a file");
        eprintln!(
            "{}: what must hold does not, for the bytes in {}",
            target.name,
            file.display()
        );
    }
    outcome.is_ok()
}
