//! What a flow usually does at this hour of this day: a level, and a shape of the day and of the week.
//!
//! The mean of a tick is a product, and its logarithm a sum: level + hour of the day + day of the week
//! (+ hour of the weekend). Each summand carries its own variance, so that "not known yet" is a number, and what
//! an hour adds is shared among them by how little each is known: a Kalman filter with one observation an hour
//! (Kalman 1960; with seasonal summands: Harvey, "Forecasting, Structural Time Series Models and the Kalman
//! Filter", 1989, ch. 4). Residuals are cut at three deviations; what was cut widens the variance instead, so that
//! one odd hour moves little and the same again moves much. The level alone is the posterior of a rate
//! (gamma-Poisson; Gelman et al., "Bayesian Data Analysis", sec. 2.6), as it has to work from the first tick on.
//!
//! Never decides what is unusual.

use serde::{Deserialize, Serialize};

use crate::traffic::pace::{Moment, Pace};

/// How long the level remembers, in days: a week has every day in it.
const LEVEL_DAYS: f32 = 7.0;
/// The variance of the logarithm of an hour's factor before it was seen once: neighbouring hours differ by a
/// third or so.
const HOUR_VARIANCE: f32 = 0.1;
/// The same of a day of a kind that was not seen yet: the first weekend. Half or double is no news.
const DAY_VARIANCE_NEW_KIND: f32 = 0.3;
/// The same of a day whose kind was seen: the first Tuesday, after a Monday.
const DAY_VARIANCE: f32 = 0.01;
/// The same of a weekend's hour against that hour on other days.
const WEEKEND_HOUR_VARIANCE: f32 = 0.05;
/// A day is of an unknown kind while its variance is above.
const NEW_KIND: f32 = 0.05;
/// Neighbouring hours that differ by more than this, as a logarithm, have an edge between them.
const SMOOTH: f32 = 0.4;
/// What each hour seen adds to a variance: habits change.
const DRIFT: f32 = 0.000_3;
/// The variance added to an hour that an incident was in: it is believed a little.
const ODD_VARIANCE: f32 = 0.5;
/// It moves the logarithms by no more than this, in all.
const ODD_MAX: f32 = 0.7;
/// No variance grows beyond.
const VARIANCE_MAX: f32 = 0.5;
/// Part of a residual's excess over three deviations, squared, that widens the variances.
const SURPRISE: f32 = 0.15;
/// No factor leaves e^-8 to e^8.
const LOG_MAX: f32 = 8.0;

/// One summand: its value, in logarithms, and its variance, both in small numbers, since there are many.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Factor {
    /// In 4,096ths.
    log: i16,
    /// In 65,536ths.
    variance: u16,
}

impl Factor {
    fn new(log: f32, variance: f32) -> Self {
        Self {
            log: (log.clamp(-LOG_MAX, LOG_MAX * 0.999) * 4_096.0).round() as i16,
            variance: (variance.clamp(0.0, VARIANCE_MAX) * 65_536.0).round() as u16,
        }
    }

    fn log(self) -> f32 {
        f32::from(self.log) / 4_096.0
    }

    fn variance(self) -> f32 {
        f32::from(self.variance) / 65_536.0
    }
}

/// An hour under way, or over and not learned yet.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Hour {
    seen: f32,
    expected: f32,
    ticks: f32,
    hour: u8,
    weekday: u8,
    odd: bool,
}

/// Level and shape of one flow. Owned by its detector.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Season {
    /// Messages, and the exposure in which they came: ticks, each weighted by its shape.
    messages: f32,
    exposure: f32,
    hours: [Factor; 24],
    weekend_hours: [Factor; 24],
    days: [Factor; 7],
    /// Hours and days that were seen, a bit each.
    hours_seen: u32,
    days_seen: u8,
    now: Hour,
    /// Learned an hour later: an incident may show by then that it was none to learn from.
    before: Hour,
    ticks: u32,
    /// The shape of the busiest hour of the busiest day.
    peak: f32,
}

/// What is usual at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usual {
    /// Messages in this tick.
    pub(crate) mean: f32,
    /// The part of the mean that is shape.
    pub(crate) shape: f32,
    /// The variance of the mean's logarithm: how little it is known.
    pub(crate) ignorance: f32,
    /// The same where an edge is near, such as the opening of an office: hours say not when in the hour it comes.
    pub(crate) edge: f32,
    /// Whether no day of this kind was ever seen: neither a weekday, or neither day of a weekend.
    pub(crate) is_first_of_kind: bool,
    /// Whether this hour of the day was never seen.
    pub(crate) is_new_hour: bool,
    /// The mean, in that of the busiest hour.
    pub(crate) of_peak: f32,
    /// The part of the ignorance that is the day's: what may jump at midnight.
    pub(crate) ignorance_of_day: f32,
    /// The relative variance of the flow's own wandering over half an hour.
    pub(crate) wandering: f32,
}

impl Usual {
    /// Whether a day like this was never seen.
    pub(crate) fn is_new_kind(&self) -> bool {
        self.ignorance_of_day > NEW_KIND
    }
}

impl Default for Season {
    fn default() -> Self {
        Self {
            messages: 0.0,
            exposure: 0.0,
            hours: [Factor::new(0.0, HOUR_VARIANCE); 24],
            weekend_hours: [Factor::new(0.0, WEEKEND_HOUR_VARIANCE); 24],
            days: [Factor::new(0.0, DAY_VARIANCE); 7],
            hours_seen: 0,
            days_seen: 0,
            now: Hour::default(),
            before: Hour::default(),
            ticks: 0,
            peak: 1.0,
        }
    }
}

impl Season {
    /// Ticks since the flow was first seen.
    pub(crate) fn ticks(&self) -> u32 {
        self.ticks
    }

    /// The messages that the level rests on.
    pub(crate) fn messages(&self) -> f32 {
        self.messages
    }

    /// What is usual now.
    pub(crate) fn usual(&self, pace: &Pace, moment: &Moment, wandering: f32) -> Usual {
        // Between the middles of two hours.
        let (from, to, at) = if moment.into_hour < 0.5 {
            ((moment.hour + 23) % 24, moment.hour, moment.into_hour + 0.5)
        } else {
            (moment.hour, (moment.hour + 1) % 24, moment.into_hour - 0.5)
        };
        let between = |factors: &[Factor; 24]| {
            let (from, to) = (at_hour(factors, from), at_hour(factors, to));
            (
                from.log() + at * (to.log() - from.log()),
                from.variance() + at * (to.variance() - from.variance()),
                to.log() - from.log(),
            )
        };
        let (mut log, mut variance, mut change) = between(&self.hours);
        let day = self.day(moment.weekday);
        log += day.log();
        variance += day.variance();
        if moment.is_weekend() {
            let weekend_hour = between(&self.weekend_hours);
            log += weekend_hour.0;
            variance += weekend_hour.1;
            change += weekend_hour.2;
        }
        let shape = log.exp();
        // A jump that may be anywhere between the middles of two hours has come with chance `at`.
        let jump = (change.abs() - SMOOTH - 2.0 * variance.sqrt()).max(0.0);
        Usual {
            mean: (self.messages + 0.5) / self.exposure.max(1.0) * shape,
            shape,
            ignorance: variance + self.level_variance(pace, wandering),
            edge: at * (1.0 - at) * jump * jump,
            is_first_of_kind: !moment.same_kind().any(|day| self.has_seen_day(day)),
            is_new_hour: !self.has_seen_hour(moment.hour),
            of_peak: shape / self.peak,
            ignorance_of_day: day.variance(),
            wandering,
        }
    }

    /// The relative variance of the level, by the messages behind it. Messages of one hour wander together.
    pub(crate) fn level_variance(&self, pace: &Pace, wandering: f32) -> f32 {
        let in_an_hour = self.messages / self.exposure.max(1.0) * pace.hour_ticks();
        1.0 / (self.messages / (1.0 + wandering * in_an_hour) + 0.5)
    }

    /// The first tick of an hour, or of the flow: what was never seen is taken from what is nearest.
    pub(crate) fn enter_hour(&mut self, moment: &Moment) {
        if !self.has_seen_hour(moment.hour) {
            let before = at_hour(&self.hours, (moment.hour + 23) % 24);
            self.set_unseen(moment.hour, before);
        }
        self.spread(moment.hour);
        let is_new_day =
            !self.has_seen_day(moment.weekday) && usize::from(self.now.weekday) != moment.weekday;
        if is_new_day {
            let like = moment.same_kind().rev().find(|&day| self.has_seen_day(day));
            let day = match like {
                // The first Sunday is known no better than the Saturday.
                Some(day) => Factor::new(self.day(day).log(), self.day(day).variance().max(DAY_VARIANCE)),
                None if self.days_seen == 0 => Factor::new(0.0, DAY_VARIANCE),
                None => Factor::new(0.0, DAY_VARIANCE_NEW_KIND),
            };
            if let Some(factor) = self.days.get_mut(moment.weekday) {
                *factor = day;
            }
        }
        let highest = |factors: &[Factor]| factors.iter().map(|factor| factor.log()).fold(0.0, f32::max);
        self.peak = (highest(&self.hours) + highest(&self.days)).exp();
    }

    /// Expects the next hour to be like this one, if it was never seen.
    fn spread(&mut self, hour: usize) {
        let next = (hour + 1) % 24;
        if !self.has_seen_hour(next) {
            self.set_unseen(next, at_hour(&self.hours, hour));
        }
    }

    fn set_unseen(&mut self, hour: usize, like: Factor) {
        if let Some(factor) = self.hours.get_mut(hour) {
            factor.log = like.log;
        }
    }

    /// Learns one tick. `count` is what is left after cutting what was excessive.
    pub(crate) fn learn(&mut self, pace: &Pace, moment: &Moment, usual: &Usual, count: f32, odd: bool) {
        self.learn_ticks(pace, moment, usual, count, 1.0, odd);
        if moment.ends_hour {
            self.end_hour(pace, odd, usual.wandering);
        }
        if moment.ends_day && self.ticks as f32 > 0.5 * pace.day_ticks() {
            self.days_seen |= 1 << moment.weekday;
        }
    }

    /// Learns so many ticks within one hour, of `count` messages each.
    pub(crate) fn learn_ticks(
        &mut self,
        pace: &Pace,
        moment: &Moment,
        usual: &Usual,
        count: f32,
        ticks: f32,
        odd: bool,
    ) {
        if !odd {
            // A day of an unknown kind says little about the level.
            let weight = if usual.is_new_kind() { 0.1 } else { 1.0 };
            let keep = 1.0 - weight * ticks / (LEVEL_DAYS * pace.day_ticks());
            self.messages = self.messages * keep + weight * ticks * count;
            self.exposure = self.exposure * keep + weight * ticks * usual.shape;
        }
        self.now.seen += ticks * count;
        self.now.expected += ticks * usual.mean;
        self.now.ticks += ticks;
        self.now.odd |= odd;
        self.now.hour = moment.hour as u8;
        self.now.weekday = moment.weekday as u8;
        self.ticks = self.ticks.saturating_add(ticks as u32);
    }

    /// Marks the hour under way and the one before as odd: an incident has begun.
    pub(crate) fn doubt(&mut self) {
        self.now.odd = true;
        self.before.odd = true;
    }

    fn end_hour(&mut self, pace: &Pace, odd: bool, wandering: f32) {
        let mut over = self.now;
        over.odd |= odd;
        self.now = Hour {
            weekday: over.weekday,
            ..Hour::default()
        };
        if (self.ticks as f32) < pace.day_ticks() {
            // On the first day the next hour needs this one.
            self.learn_hour(pace, &over, wandering);
        } else {
            let before = std::mem::replace(&mut self.before, over);
            self.learn_hour(pace, &before, wandering);
        }
    }

    /// Shares the residual of an hour among the summands.
    fn learn_hour(&mut self, pace: &Pace, over: &Hour, wandering: f32) {
        if over.ticks < 0.5 * pace.hour_ticks() {
            return;
        }
        let hour = usize::from(over.hour);
        let residual = ((over.seen + 1.0) / (over.expected + 1.0)).ln();
        let noise = 1.0 / (over.expected + 1.0) + wandering + if over.odd { ODD_VARIANCE } else { 0.0 };
        if !self.has_seen_hour(hour) {
            // An hour that was never seen explains all that is odd about it.
            self.hours_seen |= 1 << hour;
            let gain = 1.0 / (1.0 + noise);
            if let Some(factor) = self.hours.get_mut(hour) {
                *factor = Factor::new(factor.log() + gain * residual, gain * noise + DRIFT);
            }
            self.spread(hour);
            return;
        }
        let is_weekend = over.weekday >= 5;
        let mut summands: Summands<'_> = [
            self.hours.get_mut(hour),
            self.days.get_mut(usize::from(over.weekday)),
            self.weekend_hours.get_mut(hour).filter(|_| is_weekend),
        ];
        let known: f32 = summands.iter().flatten().map(|factor| factor.variance()).sum();
        let variance = known + noise;
        let bound = if over.odd { ODD_MAX } else { 3.0 * variance.sqrt() };
        let cut = residual.clamp(-bound, bound);
        let surprise = (SURPRISE * (residual - cut) * (residual - cut)).min(VARIANCE_MAX);
        for factor in summands.iter_mut().flatten() {
            let gain = factor.variance() / variance;
            let left = factor.variance() * (1.0 - gain) + DRIFT + gain * surprise;
            **factor = Factor::new(factor.log() + gain * cut, left);
        }
    }

    /// The flow has a new level: so many times the old one.
    pub(crate) fn rebase(&mut self, times: f32) {
        self.messages *= times;
    }

    fn has_seen_hour(&self, hour: usize) -> bool {
        self.hours_seen >> hour & 1 == 1
    }

    fn has_seen_day(&self, day: usize) -> bool {
        self.days_seen >> day & 1 == 1
    }

    fn day(&self, day: usize) -> Factor {
        self.days
            .get(day)
            .copied()
            .unwrap_or(Factor::new(0.0, DAY_VARIANCE))
    }
}

type Summands<'a> = [Option<&'a mut Factor>; 3];

fn at_hour(factors: &[Factor; 24], hour: usize) -> Factor {
    factors
        .get(hour)
        .copied()
        .unwrap_or(Factor::new(0.0, HOUR_VARIANCE))
}
