//! Counts by something that strangers can make up without end, such as an address: so many are told apart, and the
//! rest together.

use std::collections::HashMap;
use std::hash::Hash;

/// See the module's documentation. Owned by whoever counts.
#[derive(Debug)]
pub struct Crowd<K> {
    apart_max: usize,
    apart: HashMap<K, u64>,
    together: u64,
}

impl<K: Eq + Hash> Crowd<K> {
    /// Tells at most so many apart.
    pub fn new(apart_max: usize) -> Self {
        Self {
            apart_max,
            apart: HashMap::new(),
            together: 0,
        }
    }

    /// Counts one.
    pub fn count(&mut self, key: K) {
        if let Some(count) = self.apart.get_mut(&key) {
            *count += 1;
        } else if self.apart.len() < self.apart_max {
            self.apart.insert(key, 1);
        } else {
            self.together += 1;
        }
    }

    /// What was counted since this was asked the last time: apart, and together.
    pub fn take(&mut self) -> (HashMap<K, u64>, u64) {
        (
            std::mem::take(&mut self.apart),
            std::mem::take(&mut self.together),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_counted_together_and_nothing_is_lost() {
        let mut crowd = Crowd::new(2);
        for key in ["a", "b", "a", "c", "d", "b", "c"] {
            crowd.count(key);
        }
        assert_eq!(crowd.take(), ([("a", 2), ("b", 2)].into(), 3));
        crowd.count("c");
        assert_eq!(crowd.take(), ([("c", 1)].into(), 0));
    }
}
