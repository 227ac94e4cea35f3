//! More kinds of flow that the detector was improved on, but not tuned to.

use rand::RngExt;
use rand_distr::{Exp, Geometric, LogNormal, Normal};
use rand_pcg::Pcg64Mcg;

use super::{DAY, HOUR, Life, MINUTE, TICKS, daily, day_shape, draw, log_uniform, poisson, weekday};

/// More from week to week, on top of a day and a night.
pub(super) fn growing(rng: &mut Pcg64Mcg) -> Life {
    let mut life = daily(rng);
    let a_week: f64 = rng.random_range(0.85..1.5);
    for (tick, rate) in life.rate.iter_mut().enumerate() {
        *rate *= a_week.powf(tick as f64 / (7 * DAY) as f64);
    }
    life
}

/// A sum of noises that last a minute, an hour and ten hours: it has no longest memory that a day would show.
pub(super) fn drifting(rng: &mut Pcg64Mcg) -> Life {
    let mut life = Life::flat(log_uniform(rng, 3.0, 200.0));
    let noise = [MINUTE, HOUR, 10 * HOUR].map(|memory| {
        let keep = (-1.0 / memory as f64).exp();
        let deviation = rng.random_range(0.03..0.15) * (1.0 - keep * keep).sqrt();
        (keep, Normal::new(0.0, deviation).expect("a deviation"))
    });
    let mut states = [0.0_f64; 3];
    for rate in &mut life.rate {
        for (state, (keep, step)) in states.iter_mut().zip(noise) {
            *state = keep * *state + draw(rng, step);
        }
        *rate *= states.iter().sum::<f64>().exp();
    }
    life
}

/// Two levels, and hours in each of them, as with a partner that is there or not.
pub(super) fn regimes(rng: &mut Pcg64Mcg) -> Life {
    let mut life = Life::flat(log_uniform(rng, 2.0, 100.0));
    let high = rng.random_range(1.5..3.0);
    let stay = Exp::new(1.0 / (rng.random_range(2.0..12.0) * HOUR as f64)).expect("a rate");
    let (mut tick, mut is_high) = (0, rng.random_bool(0.5));
    while tick < TICKS {
        let end = (tick + 1 + draw(rng, stay) as usize).min(TICKS);
        if is_high {
            life.rate[tick..end].iter_mut().for_each(|rate| *rate *= high);
        }
        (tick, is_high) = (end, !is_high);
    }
    life
}

/// A day and a night, nothing while the house is maintained one night of the week, and clocks that are put
/// forward by an hour in the second week.
pub(super) fn maintained(first: usize, rng: &mut Pcg64Mcg) -> Life {
    let mut life = daily(rng);
    let change = TICKS / 2 - TICKS / 2 % DAY + 2 * HOUR;
    life.rate[change..].rotate_left(HOUR);
    let (day, hour) = (rng.random_range(0..7), rng.random_range(0..5));
    let length = rng.random_range(HOUR / 2..3 * HOUR);
    for tick in 0..TICKS {
        let since = (tick % DAY).checked_sub(hour * HOUR);
        if weekday(tick, first) == day && since.is_some_and(|since| since < length) {
            life.rate[tick] = 0.0;
        }
    }
    life
}

/// A job on weekdays, some minutes early or late, which sometimes fails and is tried again; and little between.
pub(super) fn jittery(first: usize, rng: &mut Pcg64Mcg) -> Life {
    let mut life = Life::flat(log_uniform(rng, 0.05, 1.0));
    let per_day = [1, 2, 4, 24][rng.random_range(0..4)];
    let phase = rng.random_range(0..DAY / per_day);
    let size = log_uniform(rng, 30.0, 600.0);
    let spread = LogNormal::new(0.0, 0.2).expect("a deviation");
    let late = Exp::new(1.0 / (2 * MINUTE) as f64).expect("a rate");
    let retries = Geometric::new(0.8).expect("a chance");
    for due in (phase..TICKS).step_by(DAY / per_day) {
        if weekday(due, first) >= 5 {
            continue;
        }
        let mut start = due + draw(rng, late).min(5.0 * MINUTE as f64) as usize;
        for _ in 0..=rand_distr::Distribution::sample(&retries, rng).min(3) {
            if start < TICKS {
                let total = size * draw(rng, spread);
                life.extra[start] += poisson(rng, total);
            }
            start += 5 * MINUTE;
        }
    }
    life.measure = size / (DAY / per_day) as f64;
    life
}

/// Two to four jobs of different periods and sizes, each up to a minute late, over a little traffic by day.
pub(super) fn crowded(rng: &mut Pcg64Mcg) -> Life {
    let mut life = Life::flat(log_uniform(rng, 0.1, 10.0));
    let depth = rng.random_range(0.2..0.9);
    let shape = day_shape(rng, depth);
    for (tick, rate) in life.rate.iter_mut().enumerate() {
        *rate *= shape[tick % DAY];
    }
    let periods = [5 * MINUTE, 10 * MINUTE, 30 * MINUTE, HOUR, 6 * HOUR, DAY];
    let first = rng.random_range(0..periods.len());
    for job in 0..rng.random_range(2..5) {
        let period = periods[(first + job) % periods.len()];
        let size = 20.0 + life.measure * log_uniform(rng, 10.0, 200.0);
        let spread = LogNormal::new(0.0, rng.random_range(0.02..0.3)).expect("a deviation");
        let (late_max, width) = (rng.random_range(0..=MINUTE), rng.random_range(1..4));
        for due in (rng.random_range(0..period)..TICKS).step_by(period) {
            let total = size * draw(rng, spread);
            let start = due + rng.random_range(0..=late_max);
            for tick in start..(start + width).min(TICKS) {
                life.extra[tick] += poisson(rng, total / width as f64);
            }
        }
    }
    life.measure = life
        .measure
        .max(f64::from(life.extra.iter().sum::<u32>()) / TICKS as f64);
    life
}
