//! What a tick is measured by. Decides nothing.

use crate::traffic::count::season::Usual;
use crate::traffic::count::span::Expected;
use crate::traffic::pace::Moment;

/// A count is excessive at so many deviations, and so many messages more.
const EXCESS: f32 = 5.0;
const EXCESS_MORE: f32 = 3.0;

/// What one tick is measured by.
pub(crate) struct Measure {
    pub(crate) usual: Usual,
    pub(crate) expected: Expected,
    /// The last hour's level in the season's, and its relative variance.
    pub(crate) local: f32,
    pub(crate) local_variance: f32,
    /// Messages that wander together count for fewer: by this factor.
    pub(crate) lump: f32,
    /// The deviation of a tick's count.
    pub(crate) deviation: f32,
    /// Whether the flow may pause now, as it did before.
    pub(crate) may_pause: bool,
}

impl Measure {
    /// The largest count that is not excessive: it is learned from as it is.
    pub(crate) fn bound(&self) -> f32 {
        self.expected.high + EXCESS * self.deviation + EXCESS_MORE
    }

    /// By what a span is judged, and how little that is known.
    pub(crate) fn views(&self, moment: &Moment, is_long: bool) -> (Expected, f32) {
        let edge = self.usual.edge;
        if is_long {
            return (
                self.expected.by_season(self.may_pause),
                self.usual.ignorance + edge,
            );
        }
        // At midnight, into a day of an unknown kind, the last hour says nothing.
        let midnight = self.usual.ignorance_of_day * (-moment.into_day_h).exp();
        (self.expected, self.local_variance + midnight + edge)
    }
}
