//! Tracked messages under a simulated clock, on a simulated disk that fails: a seed is a life of a broker, with
//! crashes at any step. The same seed is the same life, to the byte.
//!
//! `EXOCOM_SIM_SEEDS=1000000` runs more seeds, `EXOCOM_SIM_SEED=42` one, with its trace on standard error.

#![allow(
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a simulation may fail, and tells why"
)]

mod audit;
mod damage;
mod deeds;
mod disk;
mod life;
mod model;
mod random;

use life::Life;

/// Seeds of an ordinary run.
const SEEDS: u64 = 2_000;

#[test]
fn nothing_acknowledged_is_lost() {
    if let Some(seed) = number("EXOCOM_SIM_SEED") {
        let life = Life::live(seed);
        eprintln!("{}", life.trace());
        life.verdict()
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        return;
    }
    let seeds = number("EXOCOM_SIM_SEEDS").unwrap_or(SEEDS);
    let first = number("EXOCOM_SIM_FIRST").unwrap_or(0);
    let mut totals = model::Totals::default();
    for seed in first..first + seeds {
        let life = std::panic::catch_unwind(|| Life::live(seed))
            .unwrap_or_else(|_| panic!("seed {seed} panicked; EXOCOM_SIM_SEED={seed} replays it"));
        life.verdict()
            .unwrap_or_else(|error| panic!("seed {seed}: {error}; EXOCOM_SIM_SEED={seed} replays it"));
        totals.add(&life.totals());
    }
    eprintln!("{seeds} seeds: {totals:?}");
    // A life in which nothing happens proves nothing.
    totals.check(seeds);
}

#[test]
fn the_same_seed_is_the_same_life() {
    for seed in 0..20 {
        assert_eq!(Life::live(seed).trace(), Life::live(seed).trace(), "seed {seed}");
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}
