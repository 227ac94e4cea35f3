//! Pauses that come back: a night of maintenance each week, a backup at the same hour of many days.
//!
//! A pause is known at its time of the day on the same day a week later, and on any day once it was there on three.
//! One that is known and does not come is forgotten for that day. Never judges a count.

use serde::{Deserialize, Serialize};

use crate::traffic::pace::Moment;

const PAUSES: usize = 2;
/// What is shorter is a restart, and what is longer no maintenance; in minutes.
const MINUTES: std::ops::RangeInclusive<f32> = 5.0..=360.0;
/// A pause may begin so much sooner than before, and end so much later, in minutes.
const EARLY: u16 = 10;
const LATE: u16 = 20;
/// Days of the week after which it is expected on any day.
const DAYS: u32 = 3;
const DAY: u16 = 24 * 60;

/// One pause, and when it was there.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Pause {
    /// When in the day it begins, in minutes, and how many it lasts; 0: there is none.
    start: u16,
    minutes: u16,
    /// The days of the week on which it began, a bit each.
    days: u8,
}

impl Pause {
    /// Minutes since it began, or would have; and the day of the week on which.
    fn since(&self, moment: &Moment) -> (u16, usize) {
        let now = minute(moment) + EARLY;
        if now >= self.start {
            (now - self.start, moment.weekday)
        } else {
            (now + DAY - self.start, (moment.weekday + 6) % 7)
        }
    }

    fn expects(&self, moment: &Moment) -> bool {
        let (since, day) = self.since(moment);
        since < self.minutes + EARLY + LATE && (self.days.count_ones() >= DAYS || self.days >> day & 1 == 1)
    }
}

/// The pauses of one flow. Owned by its detector.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Pauses {
    /// The latest is last.
    pauses: [Pause; PAUSES],
}

impl Pauses {
    /// Whether a pause is expected now.
    pub(crate) fn expects(&self, moment: &Moment) -> bool {
        self.pauses
            .iter()
            .any(|pause| pause.minutes > 0 && pause.expects(moment))
    }

    /// Learns of a pause that ends now, and lasted so many minutes.
    pub(crate) fn note(&mut self, moment: &Moment, minutes: f32) {
        if !MINUTES.contains(&minutes) {
            return;
        }
        let minutes = minutes as u16;
        let now = minute(moment);
        let (start, day) = match now.checked_sub(minutes) {
            Some(start) => (start, moment.weekday),
            None => (now + DAY - minutes, (moment.weekday + 6) % 7),
        };
        let near = |pause: &Pause| {
            let apart = start.abs_diff(pause.start);
            pause.minutes > 0 && apart.min(DAY - apart) <= EARLY
        };
        let known = self.pauses.iter().position(near);
        let index = known.unwrap_or(0);
        if let Some(tail) = self.pauses.get_mut(index..) {
            tail.rotate_left(1);
        }
        if let Some(latest) = self.pauses.last_mut() {
            let days = if known.is_some() { latest.days } else { 0 };
            *latest = Pause {
                start,
                minutes,
                days: days | 1 << day,
            };
        }
    }

    /// Forgets, for this day, a pause that should be there and is not.
    pub(crate) fn forget(&mut self, moment: &Moment) {
        for pause in self.pauses.iter_mut().filter(|pause| pause.minutes > 0) {
            let (since, day) = pause.since(moment);
            if since == EARLY + pause.minutes / 2 {
                pause.days &= !(1 << day);
            }
        }
    }
}

fn minute(moment: &Moment) -> u16 {
    (moment.into_day_h * 60.0) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::pace::Pace;

    /// 02:00 on a day, a Monday being 0, and so many minutes later.
    fn at(day: u64, minutes: u64) -> Moment {
        let pace = Pace::new(60);
        pace.moment(pace.tick_at(1_767_571_200 + day * 86_400) + 120 + minutes)
    }

    #[test]
    fn a_pause_is_expected_a_week_later_and_on_any_day_after_three() {
        let mut pauses = Pauses::default();
        pauses.note(&at(1, 40), 40.0);
        assert!(pauses.expects(&at(8, 0)) && pauses.expects(&at(8, 45)));
        assert!(!pauses.expects(&at(8, 90)) && !pauses.expects(&at(9, 0)));
        pauses.note(&at(2, 42), 41.0);
        assert!(!pauses.expects(&at(4, 10)));
        pauses.note(&at(3, 38), 40.0);
        assert!(pauses.expects(&at(4, 10)));
    }

    #[test]
    fn a_pause_that_stays_away_is_forgotten() {
        let mut pauses = Pauses::default();
        // Over midnight.
        let minutes = 150.0;
        pauses.note(&at(1, 0), minutes);
        assert!(pauses.expects(&at(7, 23 * 60)));
        for minute in 0..DAY {
            pauses.forget(&at(7, u64::from(minute)));
        }
        assert!(!pauses.expects(&at(14, 23 * 60)));
    }
}
