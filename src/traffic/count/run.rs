//! Runs of ticks: since when there is more than expected, or less; and whether what is excessive lasts. Raises nothing:
//! what does, asks here.

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

/// An excess of so many ticks is no spike any more.
const LASTING_TICKS: u8 = 3;

/// For how many ticks there has been far too much.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Spike {
    ticks: u8,
}

impl Spike {
    /// What is lasting of a tick's count: of a tick or two far above the usual, such as a job or a large lot, only what
    /// is within the bound. Whoever has spikes of his own would otherwise have noise of their size over all spans, and
    /// nothing smaller would ever be found in it.
    pub(crate) fn lasting(&mut self, count: f32, bound: f32) -> f32 {
        self.ticks = if count > bound {
            self.ticks.saturating_add(1)
        } else {
            0
        };
        if self.ticks < LASTING_TICKS {
            count.min(bound)
        } else {
            count
        }
    }
}
