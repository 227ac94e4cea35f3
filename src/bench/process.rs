//! What the system says of a process: its processor time and its memory.

use std::fs;
use std::io;

use crate::bench::BenchError;

/// Seconds of processor time that a process has used, in user and system mode, all threads together.
pub(super) fn cpu_s(pid: u32) -> Result<f64, BenchError> {
    let text = read(pid, "stat")?;
    // The second field is the program's name in parentheses, and may hold anything.
    let after_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut ticks = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<u64>);
    match (ticks.next(), ticks.next()) {
        #[expect(clippy::cast_precision_loss, reason = "a process lives far fewer ticks")]
        (Some(Ok(user)), Some(Ok(system))) => {
            Ok((user + system) as f64 / rustix::param::clock_ticks_per_second() as f64)
        }
        _ => Err(unreadable("stat")),
    }
}

/// Bytes of a process that are in memory.
pub(super) fn rss_bytes(pid: u32) -> Result<u64, BenchError> {
    let text = read(pid, "status")?;
    text.lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .ok_or_else(|| unreadable("status"))
}

/// Raises the number of files that this process may open as far as it goes. Says how far that is.
pub(super) fn raise_file_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let reached = if setrlimit(Resource::Nofile, raised).is_ok() {
        limit.maximum
    } else {
        limit.current
    };
    reached.unwrap_or(u64::MAX)
}

fn read(pid: u32, file: &str) -> Result<String, BenchError> {
    fs::read_to_string(format!("/proc/{pid}/{file}")).map_err(|error| BenchError::System {
        what: "cannot read what the system says of the process",
        error,
    })
}

fn unreadable(file: &str) -> BenchError {
    BenchError::System {
        what: "cannot understand what the system says of the process",
        error: io::Error::other(format!("unexpected text in {file}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_uses_time_and_memory() {
        let me = std::process::id();
        let before = cpu_s(me).unwrap();
        let mut sum = 0_u64;
        while cpu_s(me).unwrap() < before + 0.02 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(rss_bytes(me).unwrap() > 100_000);
    }
}
