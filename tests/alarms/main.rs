//! What proves the detectors: generated traffic with known attacks, and recorded series with known anomalies.

#![allow(
    unreachable_pub,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test binary has no outside, may fail by panicking, and prints its report"
)]

mod counts;
mod generator;
mod judge;
mod load;
mod metrics;
mod nab;
mod report;
mod yardsticks;
