//! Traffic as it might be, with attacks that are known: what a detector is judged on.
//!
//! Everything follows from a kind and a seed. Nothing here knows any detector, and none may look in here.

mod attacks;
mod fresh;
mod strange;

use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Exp, Gamma, Geometric, LogNormal, Normal, Pareto, Poisson};
use rand_pcg::Pcg64Mcg;

/// Seconds of a tick.
pub const TICK_S: u64 = 10;
/// Ticks of a minute, an hour and a day.
pub const MINUTE: usize = 6;
/// See [`MINUTE`].
pub const HOUR: usize = 60 * MINUTE;
/// See [`MINUTE`].
pub const DAY: usize = 24 * HOUR;
/// How long a flow is watched: three weeks.
pub const TICKS: usize = 21 * DAY;
/// Days from 1970 to a Monday, the 5th of January 2026.
const MONDAY: usize = 20_458;
/// No attack begins before: two days.
pub const QUIET: usize = 2 * DAY;

/// What kind of life a flow leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A constant rate.
    Steady,
    /// A day and a night.
    Daily,
    /// A day and a night, and weekends apart; the change comes at midnight, or gradually.
    Weekly,
    /// A rate that wanders: noise that lasts from seconds to an hour, on top of what chance does.
    Noisy,
    /// A message now and then.
    Sparse,
    /// Little or nothing, and a timer: every five minutes, every hour, every night.
    Cron,
    /// A day and a night, and a few times a week a restart: a gap, a backlog, perhaps another level.
    Deploys,
    /// Quiet, with bursts of its own.
    Bursty,
    /// Denials: hardly ever, and then a few at a time.
    Denials,

    /// Stranger: each message may cause further ones (a Hawkes process).
    Contagious,
    /// Stranger: sessions of heavy-tailed length, each talking at its own rate.
    Sessions,
    /// Stranger: a day of 48 random steps, no two alike, and a third of it on two days of the week.
    Stepwise,
    /// Stranger: messages that come in lots of heavy-tailed size.
    Lots,
    /// Stranger: one message every so many ticks, to the tick: a poller.
    Poller,
    /// Stranger: a timer of an odd period, whose lots grow from week to week.
    Timer,
    /// Stranger: office hours; nothing at night, nothing on weekends.
    Office,

    /// Stranger: more from week to week.
    Growing,
    /// Stranger: noise of all lengths, up to half a day.
    Drifting,
    /// Stranger: two levels, for hours each.
    Regimes,
    /// Stranger: a night of maintenance each week, and clocks put forward.
    Maintained,
    /// Stranger: a job on weekdays, early or late, with retries.
    Jittery,
    /// Stranger: several jobs of several periods, none punctual, over a day and a night.
    Crowded,

    /// Fresh: more than chance from tick to tick, and another level each week.
    Upgraded,
    /// Fresh: by day, a few messages now and then.
    Rare,
    /// Fresh: a day and a night, and long jobs each night, not to the minute.
    Nightly,
}

impl Kind {
    /// The kinds that the detector was tuned on.
    pub const TUNED: [Self; 9] = [
        Self::Steady,
        Self::Daily,
        Self::Weekly,
        Self::Noisy,
        Self::Sparse,
        Self::Cron,
        Self::Deploys,
        Self::Bursty,
        Self::Denials,
    ];
    /// The kinds that it was not.
    pub const STRANGERS: [Self; 13] = [
        Self::Contagious,
        Self::Sessions,
        Self::Stepwise,
        Self::Lots,
        Self::Poller,
        Self::Timer,
        Self::Office,
        Self::Growing,
        Self::Drifting,
        Self::Regimes,
        Self::Maintained,
        Self::Jittery,
        Self::Crowded,
    ];
    /// The kinds for which nothing was changed.
    pub const FRESH: [Self; 3] = [Self::Upgraded, Self::Rare, Self::Nightly];
}

/// What an attacker, or an accident, does to a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AttackKind {
    /// Many times the usual, for minutes.
    Burst,
    /// Somewhat more than usual, for hours.
    LowAndSlow,
    /// 1 % more each minute, for two hours.
    Ramp,
    /// Much less than usual, for hours.
    Drop,
    /// Nothing at all.
    Silence,
    /// Many times the usual for half a minute, every three minutes. Only of fresh kinds.
    Pulses,
}

/// One attack, and when.
#[derive(Debug, Clone, Copy)]
pub struct Attack {
    /// What is done.
    pub kind: AttackKind,
    /// The first tick that it touches.
    pub start: usize,
    /// The first tick after it.
    pub end: usize,
    /// The part of the usual traffic that is there, for the whole of it.
    pub factor: f64,
}

/// Three weeks of a flow.
#[derive(Debug)]
pub struct Flow {
    /// Its kind.
    pub kind: Kind,
    /// The tick, counted from 1970, of the first count: midnight of some day of the week.
    pub first_tick: u64,
    /// Messages of each tick.
    pub counts: Vec<u32>,
    /// The mean of each tick, had nobody attacked: what an oracle would know.
    pub truth: Vec<f32>,
    /// What was done to it, in order.
    pub attacks: Vec<Attack>,
}

/// A number drawn evenly on the logarithmic scale.
fn log_uniform(rng: &mut Pcg64Mcg, low: f64, high: f64) -> f64 {
    rng.random_range(low.ln()..high.ln()).exp()
}

fn draw(rng: &mut Pcg64Mcg, distribution: impl Distribution<f64>) -> f64 {
    distribution.sample(rng)
}

fn poisson(rng: &mut Pcg64Mcg, mean: f64) -> u32 {
    if mean < 1e-9 {
        return 0;
    }
    draw(rng, Poisson::new(mean).expect("a positive mean")) as u32
}

/// What a flow would do if nobody attacked it.
struct Life {
    /// The mean of each tick.
    rate: Vec<f64>,
    /// Messages that come at their own times, whatever the rate.
    extra: Vec<u32>,
    /// What an attack is measured by: the mean in ordinary times, or the height of its own bursts.
    measure: f64,
}

impl Life {
    fn flat(rate: f64) -> Self {
        Self {
            rate: vec![rate; TICKS],
            extra: vec![0; TICKS],
            measure: rate,
        }
    }
}

impl Flow {
    /// Three weeks of an attacked flow.
    pub fn attacked(kind: Kind, seed: u64) -> Self {
        Self::under(kind, seed, |life, rng| attacks::plan(kind, life, false, rng))
    }

    /// The same under attacks that show only in the long run.
    pub fn attacked_faintly(kind: Kind, seed: u64) -> Self {
        Self::under(kind, seed, |life, rng| attacks::plan(kind, life, true, rng))
    }

    /// Three weeks of a flow under the given attacks.
    pub fn with(kind: Kind, seed: u64, attacks: Vec<Attack>) -> Self {
        Self::under(kind, seed, |_, _| attacks)
    }

    fn under(kind: Kind, seed: u64, plan: impl FnOnce(&Life, &mut Pcg64Mcg) -> Vec<Attack>) -> Self {
        let mut rng = Pcg64Mcg::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(kind as u64));
        let first = rng.random_range(0..7);
        let mut life = live(kind, first, &mut rng);
        let attacks = plan(&life, &mut rng);
        let truth = life
            .rate
            .iter()
            .zip(&life.extra)
            .map(|(&rate, &extra)| rate as f32 + extra as f32)
            .collect();
        for attack in &attacks {
            attacks::inflict(&mut life, attack, &mut rng);
        }
        Self {
            kind,
            first_tick: ((MONDAY + first) * DAY) as u64,
            counts: count(&life, &mut rng),
            truth,
            attacks,
        }
    }
}

fn count(life: &Life, rng: &mut Pcg64Mcg) -> Vec<u32> {
    life.rate
        .iter()
        .zip(&life.extra)
        .map(|(&rate, &extra)| poisson(rng, rate) + extra)
        .collect()
}

/// A smooth day: a sine that may be sharpened, with its own hour of most traffic.
fn day_shape(rng: &mut Pcg64Mcg, depth: f64) -> Vec<f64> {
    let phase = rng.random_range(0.0..1.0);
    let sharpness = rng.random_range(1.0..2.5);
    (0..DAY)
        .map(|tick| {
            let wave = 0.5 + 0.5 * (std::f64::consts::TAU * (tick as f64 / DAY as f64 - phase)).cos();
            1.0 - depth + depth * wave.powf(sharpness)
        })
        .collect()
}

/// The day of the week of a tick; 0 is Monday. The records begin on a day of the seed's choice.
fn weekday(tick: usize, first: usize) -> usize {
    (tick / DAY + first) % 7
}

fn live(kind: Kind, first: usize, rng: &mut Pcg64Mcg) -> Life {
    match kind {
        Kind::Steady => Life::flat(log_uniform(rng, 0.5, 500.0)),
        Kind::Daily => daily(rng),
        Kind::Weekly => weekly(first, rng),
        Kind::Noisy => noisy(rng),
        Kind::Sparse => Life::flat(log_uniform(rng, 0.03, 0.4)),
        Kind::Cron => cron(rng),
        Kind::Deploys => deploys(rng),
        Kind::Bursty => bursty(rng),
        Kind::Denials => denials(rng),
        Kind::Contagious => contagious(rng),
        Kind::Sessions => sessions(rng),
        Kind::Stepwise => stepwise(first, rng),
        Kind::Lots => lots(rng),
        Kind::Poller => poller(rng),
        Kind::Timer => timer(rng),
        Kind::Office => office(first, rng),
        Kind::Growing => strange::growing(rng),
        Kind::Drifting => strange::drifting(rng),
        Kind::Regimes => strange::regimes(rng),
        Kind::Maintained => strange::maintained(first, rng),
        Kind::Jittery => strange::jittery(first, rng),
        Kind::Crowded => strange::crowded(rng),
        Kind::Upgraded => fresh::upgraded(rng),
        Kind::Rare => fresh::rare(rng),
        Kind::Nightly => fresh::nightly(rng),
    }
}

fn daily(rng: &mut Pcg64Mcg) -> Life {
    let mut life = Life::flat(log_uniform(rng, 2.0, 300.0));
    let depth = rng.random_range(0.3..0.9);
    let shape = day_shape(rng, depth);
    let wobble = Normal::new(1.0, 0.05).expect("a deviation");
    for day in life.rate.chunks_mut(DAY) {
        let level = draw(rng, wobble).max(0.7);
        for (rate, shape) in day.iter_mut().zip(&shape) {
            *rate *= shape * level;
        }
    }
    life
}

fn weekly(first: usize, rng: &mut Pcg64Mcg) -> Life {
    let mut life = daily(rng);
    let weekend = rng.random_range(0.25..0.8);
    let gradual = rng.random_bool(0.5);
    for (tick, rate) in life.rate.iter_mut().enumerate() {
        // Gradual: the weekend comes and goes over six hours.
        let at = if gradual {
            let ahead = (0..6).filter(|&h| weekday(tick + h * HOUR, first) >= 5);
            ahead.count() as f64 / 6.0
        } else {
            f64::from(u8::from(weekday(tick, first) >= 5))
        };
        *rate *= 1.0 - at * (1.0 - weekend);
    }
    life
}

fn noisy(rng: &mut Pcg64Mcg) -> Life {
    let mut life = Life::flat(log_uniform(rng, 5.0, 300.0));
    let depth = rng.random_range(0.0..0.5);
    let shape = day_shape(rng, depth);
    let slow_sd = rng.random_range(0.05..0.3);
    let memory = log_uniform(rng, 6.0, 360.0);
    let keep = (-1.0 / memory).exp();
    let step = Normal::new(0.0, slow_sd * (1.0 - keep * keep).sqrt()).expect("a deviation");
    let fast_shape = log_uniform(rng, 4.0, 60.0);
    let fast = Gamma::new(fast_shape, 1.0 / fast_shape).expect("a shape");
    let mut slow = 0.0;
    for (tick, rate) in life.rate.iter_mut().enumerate() {
        slow = keep * slow + draw(rng, step);
        *rate *= shape[tick % DAY] * f64::exp(slow) * draw(rng, fast);
    }
    life
}

fn cron(rng: &mut Pcg64Mcg) -> Life {
    let background = if rng.random_bool(0.5) {
        0.0
    } else {
        log_uniform(rng, 0.02, 2.0)
    };
    let mut life = Life::flat(background);
    let period = [5 * MINUTE, 15 * MINUTE, HOUR, HOUR, 6 * HOUR, DAY][rng.random_range(0..6)];
    let phase = rng.random_range(0..period);
    let size = log_uniform(rng, 20.0, 2_000.0);
    let spread = LogNormal::new(0.0, rng.random_range(0.02..0.25)).expect("a deviation");
    let width = rng.random_range(1..4);
    let jitter = rng.random_range(0..3);
    for due in (phase..TICKS).step_by(period) {
        let total = size * draw(rng, spread);
        let start = due + rng.random_range(0..=jitter);
        for tick in start..(start + width).min(TICKS) {
            life.extra[tick] += poisson(rng, total / width as f64);
        }
    }
    life.measure = background.max(size / period as f64);
    life
}

fn deploys(rng: &mut Pcg64Mcg) -> Life {
    let mut life = daily(rng);
    let per_week = rng.random_range(2.0..6.0);
    let backlog = rng.random_bool(0.5);
    let moves = rng.random_bool(0.5);
    let gap = Exp::new(per_week / (7 * DAY) as f64).expect("a rate");
    let mut level = 1.0;
    let mut next = draw(rng, gap) as usize;
    let mut tick = 0;
    while tick < TICKS {
        if tick == next {
            let down = rng.random_range(2..10).min(TICKS - tick);
            let missed: f64 = life.rate[tick..tick + down].iter().sum::<f64>() * level;
            life.rate[tick..tick + down].fill(0.0);
            tick += down;
            if moves {
                level *= rng.random_range(0.85..1.18);
            }
            if backlog {
                let catch_up = rng.random_range(1..6).min(TICKS - tick);
                for rate in &mut life.rate[tick..tick + catch_up] {
                    *rate = *rate * level + missed / catch_up as f64;
                }
                tick += catch_up;
            }
            next = tick + 1 + draw(rng, gap) as usize;
        } else {
            life.rate[tick] *= level;
            tick += 1;
        }
    }
    life
}

fn bursty(rng: &mut Pcg64Mcg) -> Life {
    let base = log_uniform(rng, 0.5, 20.0);
    let mut life = Life::flat(base);
    let per_day = log_uniform(rng, 6.0, 60.0);
    let height = rng.random_range(3.0..10.0);
    let length_mean = log_uniform(rng, 3.0, 30.0);
    let gap = Exp::new(per_day / DAY as f64).expect("a rate");
    let length = Exp::new(1.0 / length_mean).expect("a rate");
    let mut tick = draw(rng, gap) as usize;
    while tick < TICKS {
        let end = (tick + 1 + draw(rng, length) as usize).min(TICKS);
        let height = base * height * rng.random_range(0.5..1.0);
        for rate in &mut life.rate[tick..end] {
            *rate += height;
        }
        tick = end + 1 + draw(rng, gap) as usize;
    }
    life.measure = base * height;
    life
}

fn denials(rng: &mut Pcg64Mcg) -> Life {
    let mut life = Life::flat(0.0);
    let per_day = log_uniform(rng, 0.2, 20.0);
    let gap = Exp::new(per_day / DAY as f64).expect("a rate");
    let size = Geometric::new(rng.random_range(0.3..0.9)).expect("a chance");
    let mut tick = draw(rng, gap) as usize;
    while tick < TICKS {
        life.extra[tick] += 1 + size.sample(rng) as u32;
        tick += 1 + draw(rng, gap) as usize;
    }
    life.measure = 1.0;
    life
}

fn contagious(rng: &mut Pcg64Mcg) -> Life {
    let base = log_uniform(rng, 0.3, 30.0);
    let mut life = Life::flat(0.0);
    let children = rng.random_range(0.3..0.8);
    let memory: f64 = log_uniform(rng, 2.0, 60.0);
    let keep = (-1.0 / memory).exp();
    let mut excitement = 0.0;
    for tick in 0..TICKS {
        let events = poisson(rng, base * (1.0 - children) + excitement);
        excitement = keep * excitement + children * (1.0 - keep) * f64::from(events);
        life.extra[tick] = events;
    }
    life.measure = base;
    life
}

fn sessions(rng: &mut Pcg64Mcg) -> Life {
    let mut life = Life::flat(0.0);
    let at_once = log_uniform(rng, 5.0, 60.0);
    let length = Pareto::new(12.0, rng.random_range(1.4..2.2)).expect("a shape");
    let pace = LogNormal::new(log_uniform(rng, 0.1, 2.0).ln(), 0.7).expect("a deviation");
    let depth = rng.random_range(0.0..0.7);
    let shape = day_shape(rng, depth);
    for tick in 0..TICKS {
        for _ in 0..poisson(rng, at_once / 30.0 * shape[tick % DAY]) {
            let (length, pace) = (
                draw(rng, length).min(3.0 * HOUR as f64),
                draw(rng, pace).min(20.0),
            );
            for rate in &mut life.rate[tick..(tick + length as usize).min(TICKS)] {
                *rate += pace;
            }
        }
    }
    life.measure = life.rate.iter().sum::<f64>() / TICKS as f64;
    life
}

fn stepwise(first: usize, rng: &mut Pcg64Mcg) -> Life {
    let mut life = Life::flat(log_uniform(rng, 2.0, 200.0));
    let steps: Vec<f64> = (0..48).map(|_| log_uniform(rng, 0.3, 1.7)).collect();
    for (tick, rate) in life.rate.iter_mut().enumerate() {
        *rate *= steps[tick % DAY / (HOUR / 2)];
        if weekday(tick, first) >= 5 {
            *rate *= 0.33;
        }
    }
    life
}

fn lots(rng: &mut Pcg64Mcg) -> Life {
    let mut life = Life::flat(0.0);
    let lots_per_tick = log_uniform(rng, 0.02, 3.0);
    let size = Pareto::new(1.0, rng.random_range(1.6..2.6)).expect("a shape");
    for tick in 0..TICKS {
        for _ in 0..poisson(rng, lots_per_tick) {
            life.extra[tick] += draw(rng, size).min(1_000.0) as u32;
        }
    }
    life.measure = f64::from(life.extra.iter().sum::<u32>()) / TICKS as f64;
    life
}

fn poller(rng: &mut Pcg64Mcg) -> Life {
    let mut life = Life::flat(0.0);
    let period = [1, 2, 3, 6, 12, 30][rng.random_range(0..6)];
    let size = [1, 1, 1, 5, 20][rng.random_range(0..5)];
    for tick in (0..TICKS).step_by(period) {
        life.extra[tick] = size;
    }
    life.measure = f64::from(size) / period as f64;
    life
}

fn timer(rng: &mut Pcg64Mcg) -> Life {
    let mut life = Life::flat(log_uniform(rng, 0.05, 5.0));
    let period = rng.random_range(20..1_000);
    let size = log_uniform(rng, 30.0, 500.0);
    for (number, due) in (rng.random_range(0..period)..TICKS).step_by(period).enumerate() {
        let grown = 1.0 + 0.3 * (number * period) as f64 / (7 * DAY) as f64;
        life.extra[due] += poisson(rng, size * grown);
    }
    life.measure = size / period as f64;
    life
}

fn office(first: usize, rng: &mut Pcg64Mcg) -> Life {
    let mut life = Life::flat(log_uniform(rng, 1.0, 100.0));
    let (open, close) = (rng.random_range(7..10), rng.random_range(16..20));
    for (tick, rate) in life.rate.iter_mut().enumerate() {
        let hour = (tick % DAY) as f64 / HOUR as f64;
        let opening = ((hour - f64::from(open)) * 2.0).clamp(0.0, 1.0);
        let closing = ((f64::from(close) - hour) * 2.0).clamp(0.0, 1.0);
        *rate *= opening.min(closing);
        if weekday(tick, first) >= 5 {
            *rate = 0.0;
        }
    }
    life
}
