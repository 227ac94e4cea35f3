//! Since when there is more than expected, or less. Raises nothing: what does, asks here when it began.

use serde::{Deserialize, Serialize};

/// Since when there is more, or less, than expected: since the last zero of a cumulative sum (Page 1954).
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) evidence: f32,
    pub(crate) since: u32,
    pub(crate) seen: f32,
}

impl Run {
    /// Takes a tick: `ratio` times the expected, or the expected.
    pub(crate) fn add(&mut self, at: u32, seen: f32, expected: f32, ratio: f32) {
        self.evidence += seen * ratio.ln() - expected * (ratio - 1.0);
        if self.evidence <= 0.0 {
            *self = Self {
                evidence: 0.0,
                since: at + 1,
                seen: 0.0,
            };
        } else {
            self.seen += seen;
        }
    }
}
