//! The metric detector on made up series of several distributions: how often it alarms where nothing happens, and whether it
//! sees what does. No number of it was fitted to them.

use exocom::traffic::metric::{MetricDetector, Tuning};
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Normal, Pareto, StandardNormal};
use rand_pcg::Pcg64Mcg;

/// Points of a series, in steps of five minutes: five weeks.
const POINTS: usize = 10_000;
/// What is before is not judged.
const LEARNED: usize = 750;
/// Where something happens.
const AT: usize = 6_000;
/// Series of each kind.
const SEEDS: u64 = 5;

/// How values are spread. Each is 100 or so.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Spread {
    /// Between 90 and 110.
    Bounded,
    /// A deviation of 10.
    Normal,
    /// A deviation of 10 about a day that goes from 70 to 130.
    Daily,
    /// A deviation of 10; each value keeps nine tenths of the one before.
    Wandering,
    /// Lognormal, by a fifth.
    Skewed,
    /// Lognormal, by 0.7: one value of a hundred is five times the median.
    VerySkewed,
    /// The tail falls with the third power: the largest of 10,000 is 20 times the smallest.
    HeavyTailed,
}

const SPREADS: [(Spread, &str); 7] = [
    (Spread::Bounded, "bounded: ± 10 %"),
    (Spread::Normal, "normal: 10 %"),
    (Spread::Daily, "a day's shape, and 10 %"),
    (Spread::Wandering, "wandering: 10 %"),
    (Spread::Skewed, "lognormal: 0.2"),
    (Spread::VerySkewed, "lognormal: 0.7"),
    (Spread::HeavyTailed, "heavy tails: third power"),
];

/// What happens, and within how many points it is to be seen.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Change {
    None,
    /// Twice as much, and it stays.
    Step,
    /// Five times as much, once.
    Spike,
    /// Three times as far from the middle.
    Noise,
    /// A hundredth more every hour, up to twice as much.
    Slope,
}

const CHANGES: [(Change, usize, &str); 4] = [
    (Change::Step, 60, "twice as much"),
    (Change::Spike, 2, "five times, once"),
    (Change::Noise, 60, "three times as noisy"),
    (Change::Slope, 600, "1 % more an hour"),
];

/// A series; the `point`-th value comes at 300 times that.
fn series(spread: Spread, change: Change, seed: u64) -> Vec<f32> {
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let heavy = Pareto::new(1.0, 3.0).expect("a scale and a shape");
    let kept = Normal::new(0.0, 0.19_f64.sqrt()).expect("a deviation");
    let mut wandering = 0.0;
    let value = |point: usize| {
        let wide = if change == Change::Noise && point >= AT {
            3.0
        } else {
            1.0
        };
        let normal: f64 = wide * rng.sample::<f64, _>(StandardNormal);
        wandering = 0.9 * wandering + kept.sample(&mut rng);
        let day = (std::f64::consts::TAU * point as f64 / 288.0).sin();
        let value = match spread {
            Spread::Bounded => 100.0 + wide * rng.random_range(-10.0..10.0),
            Spread::Normal => 100.0 + 10.0 * normal,
            Spread::Daily => 100.0 + 30.0 * day + 10.0 * normal,
            Spread::Wandering => 100.0 + 10.0 * wide * wandering,
            Spread::Skewed => 100.0 * (0.2 * normal).exp(),
            Spread::VerySkewed => 100.0 * (0.7 * normal).exp(),
            Spread::HeavyTailed => 100.0 * (1.0 + wide * (heavy.sample(&mut rng) - 1.0)),
        };
        let times = match change {
            Change::Step if point >= AT => 2.0,
            Change::Spike if point == AT => 5.0,
            Change::Slope if point >= AT => (1.0 + (point - AT) as f64 / 1_200.0).min(2.0),
            _ => 1.0,
        };
        (times * value) as f32
    };
    (0..POINTS).map(value).collect()
}

/// The points at which alarms begin.
fn alarms(spread: Spread, change: Change, seed: u64) -> Vec<usize> {
    let mut detector = MetricDetector::default();
    let values = series(spread, change, seed);
    let mut observe = |point: usize| detector.observe(&Tuning::default(), 300 * point as u64, values[point]);
    (0..POINTS)
        .filter(|&point| observe(point).onset.is_some() && point >= LEARNED)
        .collect()
}

/// Of each spread: false alarms in 10,000 points, and of each change the part that was found.
fn measure(seeds: u64) -> Vec<(&'static str, f64, [f64; CHANGES.len()])> {
    let mean = |value: &dyn Fn(u64) -> f64| (0..seeds).map(value).sum::<f64>() / seeds as f64;
    let rows = SPREADS.iter().map(|&(spread, name)| {
        let number = mean(&|seed| alarms(spread, Change::None, seed).len() as f64);
        let found = CHANGES.map(|(change, within, _)| {
            mean(&|seed| {
                let alarms = alarms(spread, change, seed);
                let is_found = alarms.iter().any(|point| (AT..AT + within).contains(point));
                f64::from(u8::from(is_found))
            })
        });
        (name, number * POINTS as f64 / (POINTS - LEARNED) as f64, found)
    });
    rows.collect()
}

/// The table of docs/alarms.md.
pub fn report() -> String {
    let changes = CHANGES.map(|(_, _, name)| name).join(" | ");
    let mut text = format!(
        "{} series of each: false alarms in 10,000 points where nothing happens, and the part found of what does. In a broker \
         10,000 points are five weeks, and an alarm also takes half as much again as was expected. A step or more noise counts as \
         found within 60 points, a spike within 2, a slope within 600, where a third is found by chance.\n\n\
         | values | false alarms | {changes} |\n|---|---|---|---|---|---|\n",
        4 * SEEDS
    );
    for (name, number, found) in measure(4 * SEEDS) {
        let found = found.map(|part| format!("{part:.2}")).join(" | ");
        text += &format!("| {name} | {number:.1} | {found} |\n");
    }
    text
}

/// What is plain is seen, and noise is left alone, however it is spread.
#[test]
fn noise_is_left_alone_and_changes_are_seen() {
    for (name, number, found) in measure(SEEDS) {
        assert!(number <= 12.0, "{name}: {number} false alarms");
        let is_tame = !name.contains("0.7") && !name.contains("heavy");
        let least = if is_tame { 1.0 } else { 0.4 };
        let [step, spike, noise, _] = found;
        assert!(step >= least && noise >= 0.8 * least, "{name}: {found:?}");
        assert!(spike >= 1.0 || !is_tame, "{name}: {found:?}");
    }
}
