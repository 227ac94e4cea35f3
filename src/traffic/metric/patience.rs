//! When what the views say is an alarm: beyond their margins, and each alarm makes the next one a little harder. Knows
//! nothing of the series.

use serde::{Deserialize, Serialize};

use crate::traffic::metric::views::{Looks, VIEWS, View};

/// Points before anything is judged.
const WARM_UP_POINTS: u32 = 120;
/// Alarms are forgotten over so many points.
const PATIENCE_POINTS: f32 = 3_000.0;

/// How much it takes to raise an alarm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tuning {
    /// How far outside its range each view must be, in widths of the range, in the order of [`View`].
    pub margins: [f32; VIEWS.len()],
    /// An alarm takes so much more for each one before.
    pub patience: f32,
    /// No alarm begins within so many points after another.
    pub rest_points: u32,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            margins: [0.02, 0.04, 0.04, 0.08, 0.01],
            patience: 0.35,
            rest_points: 16,
        }
    }
}

impl Tuning {
    /// Fewer alarms: for what matters little.
    pub fn low() -> Self {
        Self::default().with_margins(3.0)
    }

    /// More alarms, and more of them false.
    pub fn high() -> Self {
        Self::default().with_margins(0.5)
    }

    /// With margins that are so many times as wide.
    fn with_margins(self, times: f32) -> Self {
        Self {
            margins: self.margins.map(|margin| times * margin),
            ..self
        }
    }
}

/// What one point said.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Reading {
    /// How far towards an alarm. It is 1 or more only where an alarm begins.
    pub score: f32,
    /// An alarm that begins.
    pub onset: Option<Onset>,
}

/// How an alarm began.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Onset {
    /// The view that raised it.
    pub view: View,
    /// How far beyond, in what an alarm takes.
    pub score: f32,
    /// What was seen: the value; of [`View::Jumps`] the mean change of rank, 0 to 1.
    pub seen: f32,
    /// Between what it was expected.
    pub expected: (f32, f32),
    /// Between what the value itself was expected, by the view that finds it the furthest out.
    pub usual: (f32, f32),
}

/// How patient a series has made its judge.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Patience {
    /// Alarms up to the last one, the older the less.
    alarms: f32,
    /// The point of the last one; 0 if there was none.
    alarmed_point: u32,
}

impl Patience {
    /// Whether a point is an alarm. Points where all views are inside may be left out.
    pub fn judge(&mut self, tuning: &Tuning, looks: &Looks) -> Reading {
        if looks.point <= WARM_UP_POINTS {
            return Reading::default();
        }
        let scored = looks.iter().zip(tuning.margins);
        let scored = scored.map(|(look, margin)| (look, look.outside / margin));
        // Of several that are as far outside, the first.
        let furthest = scored.reduce(|best, other| if other.1 > best.1 { other } else { best });
        let Some((look, beyond)) = furthest.filter(|(_, beyond)| *beyond > 0.0) else {
            return Reading::default();
        };
        let since_alarm = looks.point.saturating_sub(self.alarmed_point);
        let alarms = self.alarms * (-(since_alarm as f32) / PATIENCE_POINTS).exp();
        let score = beyond / (1.0 + tuning.patience * alarms);
        let is_resting = self.alarmed_point > 0 && since_alarm <= tuning.rest_points;
        if score < 1.0 || is_resting {
            return Reading {
                score: score.min(0.99),
                onset: None,
            };
        }
        (self.alarms, self.alarmed_point) = (alarms + 1.0, looks.point);
        let (seen, expected) = looks.in_numbers(look);
        Reading {
            score,
            onset: Some(Onset {
                view: look.view,
                score,
                seen,
                expected,
                usual: usual(tuning, looks),
            }),
        }
    }
}

/// Between what a value was expected. How much values jump says nothing of that.
fn usual(tuning: &Tuning, looks: &Looks) -> (f32, f32) {
    let outside = |(low, high): &(f32, f32)| (looks.value - high).max(low - looks.value);
    let odd = looks
        .iter()
        .zip(tuning.margins)
        .filter(|(look, margin)| look.view != View::Jumps && look.outside >= *margin);
    let found = odd.map(|(look, _)| looks.in_numbers(look).1);
    let furthest = found.max_by(|a, b| outside(a).total_cmp(&outside(b)));
    let magnitude = looks.iter().find(|look| look.view == View::Magnitude);
    let magnitude = || magnitude.map(|look| looks.in_numbers(look).1);
    furthest.or_else(magnitude).unwrap_or_default()
}
