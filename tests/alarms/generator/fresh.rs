//! Kinds of flow for which nothing in the detector was changed, nor tuned.

use rand::RngExt;
use rand_distr::{Exp, Gamma, Geometric, Normal};
use rand_pcg::Pcg64Mcg;

use super::{DAY, HOUR, Life, MINUTE, TICKS, daily, day_shape, draw, log_uniform, poisson};

/// Busy or not, each tick differs from the next by more than chance, and about once a week the level is another one
/// for good, up to a quarter more or less, within some minutes.
pub(super) fn upgraded(rng: &mut Pcg64Mcg) -> Life {
    let mut life = daily(rng);
    let scale = log_uniform(rng, 1.0, 30.0);
    let shape = log_uniform(rng, 3.0, 60.0);
    let noise = Gamma::new(shape, scale / shape).expect("a shape");
    let gap = Exp::new(1.0 / (7 * DAY) as f64).expect("a rate");
    let (mut from, mut level, mut began) = (1.0, 1.0, 0);
    let mut next = draw(rng, gap) as usize;
    for (tick, rate) in life.rate.iter_mut().enumerate() {
        if tick == next {
            (from, began) = (level, tick);
            level *= log_uniform(rng, 0.8, 1.25);
            next = tick + HOUR + draw(rng, gap) as usize;
        }
        let part = ((tick - began) as f64 / (5 * MINUTE) as f64).min(1.0);
        *rate *= (from + part * (level - from)) * draw(rng, noise);
    }
    life.measure *= scale;
    life
}

/// By day a few messages, at once, now and then.
pub(super) fn rare(rng: &mut Pcg64Mcg) -> Life {
    let mut life = Life::flat(0.0);
    let a_tick = log_uniform(rng, 0.003, 0.05);
    let depth = rng.random_range(0.3..1.0);
    let shape = day_shape(rng, depth);
    let more = Geometric::new(rng.random_range(0.4..1.0)).expect("a chance");
    for tick in 0..TICKS {
        for _ in 0..poisson(rng, a_tick * shape[tick % DAY]) {
            life.extra[tick] += 1 + rand_distr::Distribution::sample(&more, rng).min(20) as u32;
        }
    }
    life.measure = f64::from(life.extra.iter().sum::<u32>()) / TICKS as f64;
    life
}

/// A day and a night, and one or two long jobs each night, of ten to forty minutes, some minutes early or late; now and
/// then one is left out.
pub(super) fn nightly(rng: &mut Pcg64Mcg) -> Life {
    let mut life = daily(rng);
    for _ in 0..rng.random_range(1..3) {
        let at = rng.random_range(0..6 * HOUR);
        let ticks = rng.random_range(10 * MINUTE..40 * MINUTE);
        let height = life.measure * log_uniform(rng, 0.5, 5.0);
        let early = Normal::new(0.0, (3 * MINUTE) as f64).expect("a deviation");
        for night in (0..TICKS).step_by(DAY) {
            let start = (night + at).saturating_add_signed(draw(rng, early) as isize);
            if rng.random_bool(0.95) {
                let end = (start + ticks).min(TICKS);
                life.rate[start.min(end)..end]
                    .iter_mut()
                    .for_each(|rate| *rate += height);
            }
        }
    }
    life
}
