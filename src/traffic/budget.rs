//! A budget of lines in the log: so many at once, so many a second, and the number of those that were withheld.
//!
//! Whoever can cause a line can cause a million; a full disk would end more than the log. Nothing is lost but text:
//! what a line would have told is counted elsewhere too.

use parking_lot::Mutex;

/// See the module's documentation.
#[derive(Debug)]
pub struct LineBudget {
    per_s: u64,
    at_once: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Lines that may be written now, in millionths.
    millionths: u64,
    seen_us: u64,
    withheld: u64,
}

impl LineBudget {
    /// A full one.
    pub const fn new(at_once: u32, per_s: u32) -> Self {
        let at_once = at_once as u64;
        Self {
            per_s: per_s as u64,
            at_once,
            state: Mutex::new(State {
                millionths: at_once * 1_000_000,
                seen_us: 0,
                withheld: 0,
            }),
        }
    }

    /// Asks for a line. Where there is one, says how many were withheld since the last.
    pub fn take(&self, now_us: u64) -> Option<u64> {
        let mut state = self.state.lock();
        let earned = now_us.saturating_sub(state.seen_us).saturating_mul(self.per_s);
        state.millionths = state
            .millionths
            .saturating_add(earned)
            .min(self.at_once * 1_000_000);
        state.seen_us = state.seen_us.max(now_us);
        if state.millionths < 1_000_000 {
            state.withheld += 1;
            return None;
        }
        state.millionths -= 1_000_000;
        Some(std::mem::take(&mut state.withheld))
    }

    /// Counts lines that nobody will ask for.
    pub fn withhold(&self, lines: u64) {
        if lines > 0 {
            self.state.lock().withheld += lines;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_once_and_so_many_a_second() {
        let budget = LineBudget::new(3, 2);
        let taken = |now_us: u64, asked: usize| -> Vec<u64> {
            (0..asked).filter_map(|_| budget.take(now_us)).collect()
        };
        assert_eq!(taken(0, 10), [0, 0, 0]);
        assert!(taken(400_000, 10).is_empty());
        assert_eq!(taken(500_000, 1), [17], "what was withheld is told once");
        budget.withhold(5);
        assert_eq!(taken(1_000_000, 2), [5]);
        assert_eq!(
            taken(3_600_000_000, 10),
            [1, 0, 0],
            "an hour of silence saves up no more than is taken at once"
        );
        assert!(taken(0, 1).is_empty(), "a clock that goes back gives nothing");
    }
}
