//! The channels of a count detector: what can raise an alarm, and at which score each does.

use serde::{Deserialize, Serialize};

use crate::traffic::count::tail::Tail;
use crate::traffic::pace::{LOCAL_SPANS, Pace, SPANS};

/// One channel for each span and direction, and one for silence.
pub(crate) const CHANNELS: usize = SILENCE + 1;
const SILENCE: usize = 2 * SPANS;

/// Clusters of peaks are apart by at least so much, in seconds.
const APART_S: u32 = 360;

/// What an alarm came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Channel {
    /// Too many over a span, by its index.
    More(u8),
    /// Too few over a span.
    Fewer(u8),
    /// None at all, for too long.
    Silence,
    /// A spike that used to come by the clock stays away.
    Missed,
}

impl Channel {
    /// The channels, each at its index; a missed timer shares that of silence.
    pub(crate) fn at(index: usize) -> Self {
        match index {
            0..SPANS => Self::More(index as u8),
            SPANS..SILENCE => Self::Fewer((index - SPANS) as u8),
            _ => Self::Silence,
        }
    }

    /// The span that it looks at; the shortest for silence.
    pub(crate) fn span(self) -> usize {
        match self {
            Self::More(span) | Self::Fewer(span) => usize::from(span),
            Self::Silence | Self::Missed => 0,
        }
    }

    /// Whether it compares with the season alone.
    pub(crate) fn is_long(self) -> bool {
        self.span() >= LOCAL_SPANS
    }
}

/// How sensitive a detector is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sensitivity {
    /// How many false alarms a week are acceptable of one channel of one flow.
    pub per_week: f32,
    /// No alarm begins at a lower score, in powers of ten.
    pub score_min: f32,
}

impl Sensitivity {
    /// Fewer alarms: for flows that matter little.
    pub const LOW: Self = Self {
        per_week: 0.002,
        score_min: 8.0,
    };
    /// More alarms, and more of them false.
    pub const HIGH: Self = Self {
        per_week: 0.1,
        score_min: 4.5,
    };
}

impl Default for Sensitivity {
    fn default() -> Self {
        Self {
            per_week: 0.02,
            score_min: 5.5,
        }
    }
}

/// What one tick says on one channel.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Score {
    /// How unlikely, in powers of ten.
    pub(crate) score: f32,
    /// Seen to expected.
    pub(crate) ratio: f32,
    /// Too little more or less to be worth an alarm.
    pub(crate) is_small: bool,
}

/// The score that is nearest to an alarm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Worst {
    pub(crate) channel: Channel,
    pub(crate) score: f32,
    pub(crate) threshold: f32,
    pub(crate) ratio: f32,
    /// The score in thresholds.
    pub(crate) part: f32,
}

/// How scores are weighed at one time of a flow's life.
pub(crate) struct Weighing<'a> {
    pub(crate) pace: &'a Pace,
    pub(crate) sensitivity: &'a Sensitivity,
    pub(crate) weeks: f32,
    /// Thresholds are so many times higher.
    pub(crate) caution: f32,
    /// What raises alarms is learned as a habit too.
    pub(crate) young: bool,
    pub(crate) in_incident: bool,
}

impl Weighing<'_> {
    /// Weighs the scores of a tick, or of several without a message, and learns from them: the worst of all
    /// channels, and the worst part of those that `is_fresh` admits.
    pub(crate) fn weigh(
        &self,
        tails: &mut [Tail; CHANNELS],
        scores: &[Score; CHANNELS],
        ticks: u16,
        is_fresh: impl Fn(Channel) -> bool,
    ) -> (Worst, f32) {
        let mut worst = Worst {
            channel: Channel::Silence,
            score: 0.0,
            threshold: self.sensitivity.score_min,
            ratio: 1.0,
            part: 0.0,
        };
        let mut fresh = 0.0_f32;
        for (index, (tail, score)) in tails.iter_mut().zip(scores).enumerate() {
            if score.score == 0.0 && tail.is_calm() {
                continue;
            }
            let channel = Channel::at(index);
            let Sensitivity { per_week, score_min } = *self.sensitivity;
            let threshold = self.caution * tail.threshold(self.weeks, per_week, score_min);
            let part = score.score / threshold;
            let part = if score.is_small { part.min(0.9) } else { part };
            if part > worst.part {
                worst = Worst {
                    channel,
                    score: score.score,
                    threshold,
                    ratio: score.ratio,
                    part,
                };
            }
            if is_fresh(channel) {
                fresh = fresh.max(part);
            }
            let span = self
                .pace
                .lengths()
                .get(channel.span())
                .map_or(1.0, |length| length.ticks);
            let apart = (span as u64).max(self.pace.ticks(APART_S)) as u16;
            tail.learn(
                score.score,
                ticks,
                part >= 1.0 || self.in_incident,
                apart,
                self.young,
            );
        }
        (worst, fresh)
    }
}
