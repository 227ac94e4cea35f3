//! What operators look at, for the log: once a minute for each operator and verb, with how often, since a screen that
//! is open looks every second.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::limits::OPERATOR_LOOKS_KEPT_MAX;

/// How often one operator's looks of one kind are told, in microseconds.
const TOLD_EVERY_US: u64 = 60_000_000;

/// Who has looked at what lately.
#[derive(Debug, Default)]
pub(super) struct Looks(Mutex<HashMap<(String, &'static str), Look>>);

#[derive(Debug)]
struct Look {
    told_us: u64,
    untold: u64,
}

impl Looks {
    /// Counts a look; says how many there were since the last that was told, if it is time to tell.
    pub(super) fn count(&self, who: &str, verb: &'static str, now_us: u64) -> Option<u64> {
        let mut looks = self.0.lock();
        let is_due = |look: &Look| now_us.saturating_sub(look.told_us) >= TOLD_EVERY_US;
        if let Some(look) = looks.get_mut(&(who.to_owned(), verb)) {
            look.untold += 1;
            if !is_due(look) {
                return None;
            }
            look.told_us = now_us;
            return Some(std::mem::take(&mut look.untold));
        }
        if looks.len() >= OPERATOR_LOOKS_KEPT_MAX {
            looks.retain(|_, look| !is_due(look));
        }
        // So many at once are told each by each: it is the operators that the policy lists.
        if looks.len() < OPERATOR_LOOKS_KEPT_MAX {
            let look = Look {
                told_us: now_us,
                untold: 0,
            };
            looks.insert((who.to_owned(), verb), look);
        }
        Some(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_that_is_open_is_told_once_a_minute() {
        let looks = Looks::default();
        let told: Vec<_> = (0..121)
            .filter_map(|second| Some((second, looks.count("alice", "status", second * 1_000_000)?)))
            .collect();
        assert_eq!(told, [(0, 1), (60, 60), (120, 60)]);
        assert_eq!(looks.count("bob", "status", 121_000_000), Some(1));
        assert_eq!(looks.count("alice", "queue list", 121_000_000), Some(1));
        assert_eq!(looks.count("alice", "status", 121_000_000), None);
    }

    #[test]
    fn only_so_many_are_kept() {
        let looks = Looks::default();
        for operator in 0..2 * OPERATOR_LOOKS_KEPT_MAX {
            assert_eq!(looks.count(&operator.to_string(), "status", 0), Some(1));
        }
        assert_eq!(looks.0.lock().len(), OPERATOR_LOOKS_KEPT_MAX);
        // A minute later there is room again.
        assert_eq!(looks.count("alice", "status", TOLD_EVERY_US), Some(1));
        assert_eq!(looks.0.lock().len(), 1);
        assert_eq!(looks.count("alice", "status", TOLD_EVERY_US), None);
    }
}
