//! The count detector on generated traffic: recall, false alarms, delays, and what an attacker might try.
//!
//! Tuned on the seeds from 1,000 to 5,023; what is asserted and reported is of seeds below 1,000.

use std::sync::Mutex;
use std::thread;

use exocom::traffic::count::{Change, CountDetector, Reading, Sensitivity};
use exocom::traffic::pace::Pace;

use super::generator::{Attack, AttackKind, DAY, Flow, HOUR, Kind, MINUTE, TICK_S};
use super::judge::{Report, Tally, found};
use super::yardsticks;

/// The tick of a day on which nothing else happens, for attacks of one's own.
const START: usize = 10 * DAY + 5 * HOUR;

/// Feeds a flow to a new detector, and gives each reading to `each`.
fn feed(flow: &Flow, each: impl FnMut(usize, &CountDetector, Reading)) {
    feed_at(flow, Sensitivity::default(), each);
}

fn feed_at(flow: &Flow, sensitivity: Sensitivity, mut each: impl FnMut(usize, &CountDetector, Reading)) {
    let pace = Pace::new(TICK_S as u32);
    let mut detector = CountDetector::default();
    for (tick, &count) in flow.counts.iter().enumerate() {
        let reading = detector.observe(&pace, &sensitivity, flow.first_tick + tick as u64, count);
        each(tick, &detector, reading);
    }
}

/// The ticks at which an alarm begins.
fn alarms(flow: &Flow) -> Vec<usize> {
    alarms_at(flow, Sensitivity::default())
}

fn alarms_at(flow: &Flow, sensitivity: Sensitivity) -> Vec<usize> {
    let mut alarms = Vec::new();
    feed_at(flow, sensitivity, |tick, _, reading| {
        assert_eq!(
            reading.onset.is_some(),
            reading.score >= 1.0,
            "tick {tick}: {reading:?}"
        );
        if reading.onset.is_some() {
            alarms.push(tick);
        }
    });
    alarms
}

/// Judges a detector on flows of each kind, on all cores.
fn report(
    kinds: &[Kind],
    seeds: std::ops::Range<u64>,
    make: fn(Kind, u64) -> Flow,
    detect: fn(&Flow) -> Vec<usize>,
) -> Report {
    let todo = Mutex::new(
        kinds
            .iter()
            .flat_map(|&kind| seeds.clone().map(move |seed| (kind, seed))),
    );
    let report = Mutex::new(Report::default());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let Some((kind, seed)) = todo.lock().unwrap().next() else {
                        return;
                    };
                    let flow = make(kind, seed);
                    let alarms = detect(&flow);
                    report.lock().unwrap().add(&flow, &alarms);
                }
            });
        }
    });
    report.into_inner().unwrap()
}

/// The targets of the whole, on so few flows that it takes seconds.
#[test]
fn attacks_are_found_and_false_alarms_are_few() {
    let report = report(&Kind::TUNED, 1..5, Flow::attacked, alarms);
    println!("{report}");
    let total = report.total();
    assert!(total.attacks > 100);
    assert!(total.recall() >= 0.95, "recall {:.3}", total.recall());
    assert!(
        total.false_alarms_per_week() <= 0.1,
        "{:.2}",
        total.false_alarms_per_week()
    );
    assert!(report.worst_false_alarms_per_week() <= 0.5);
    assert!(total.delay_s(0.9) <= 120, "{} s", total.delay_s(0.9));
}

/// The same on many flows, on faint attacks, and on kinds that the detector was not tuned to: the tables of
/// docs/alarms.md.
pub fn full_report() -> String {
    let seeds = 1..41;
    let tuned = report(&Kind::TUNED, seeds.clone(), Flow::attacked, alarms);
    let total = tuned.total();
    println!("{tuned}");
    assert!(total.recall() >= 0.95 && total.false_alarms_per_week() <= 0.1);
    assert!(tuned.worst_false_alarms_per_week() <= 0.5 && total.delay_s(0.9) <= 120);
    let faint = report(&Kind::TUNED, seeds.clone(), Flow::attacked_faintly, alarms);
    let strangers = report(&Kind::STRANGERS, seeds.clone(), Flow::attacked, alarms);
    let fresh = report(&Kind::FRESH, seeds.clone(), Flow::attacked, alarms);
    let line = |name: &str, report: &Report| {
        let total = report.total();
        format!(
            "| {name} | {:.3} | {:.2} | {} s | {} s |\n",
            total.recall(),
            total.false_alarms_per_week(),
            total.delay_s(0.5),
            total.delay_s(0.9)
        )
    };
    let few = 1..11;
    format!(
        "### Counts: kinds it was tuned on\n\nSeeds {} to {}.\n\n{tuned}\n\
        ### Counts: faint attacks\n\nThe same flows; what an oracle would be sure of only after half an hour.\n\n{faint}\n\
        ### Counts: kinds it was improved on, but not tuned to\n\n{strangers}\n\
        ### Counts: kinds it was never tried on before\n\n{fresh}\n\
        ### Counts: to compare\n\n\
        | detector | recall | false alarms per flow-week | delay p50 | p90 |\n|---|---|---|---|---|\n{}{}{}\n\
        ### Counts: other sensitivities\n\n{}\n\
        ### Counts: evasions\n\nRecall, and alarms an attack.\n\n{}\n",
        seeds.start,
        seeds.end - 1,
        line("ours", &tuned),
        line(
            "an oracle that knows the true rate",
            &report_of(&few, yardsticks::oracle)
        ),
        line("z-score of a fading mean", &report_of(&few, yardsticks::z_score)),
        sensitivities(&few),
        evasion_table(&few)
    )
}

/// What gives the ticks of a flow at which an alarm begins.
type Detect = fn(&Flow) -> Vec<usize>;

/// What `alarms = {sensitivity = …}` of a policy is worth.
fn sensitivities(seeds: &std::ops::Range<u64>) -> String {
    let settings: [(&str, Detect); 3] = [
        ("low", |flow| alarms_at(flow, Sensitivity::LOW)),
        ("normal", alarms),
        ("high", |flow| alarms_at(flow, Sensitivity::HIGH)),
    ];
    let mut text = format!(
        "What `alarms = {{sensitivity = …}}` of the policy is worth. Seeds {} to {}, the kinds it was tuned on; the same flows with faint attacks.\n\n\
        | sensitivity | recall | false alarms per flow-week | delay p50 | p90 | recall of faint attacks |\n|---|---|---|---|---|---|\n",
        seeds.start,
        seeds.end - 1
    );
    for (name, detect) in settings {
        let total = report_of(seeds, detect).total();
        let faint = report(&Kind::TUNED, seeds.clone(), Flow::attacked_faintly, detect).total();
        text += &format!(
            "| {name} | {:.3} | {:.2} | {} s | {} s | {:.3} |\n",
            total.recall(),
            total.false_alarms_per_week(),
            total.delay_s(0.5),
            total.delay_s(0.9),
            faint.recall()
        );
    }
    text
}

/// The table of sensitivities alone.
#[test]
#[ignore = "a minute: `cargo test --profile sim --test alarms -- --ignored sensitivities --nocapture`"]
fn sensitivities_alone() {
    println!("{}", sensitivities(&(1..11)));
}

#[test]
fn a_higher_sensitivity_finds_more() {
    let found = |detect: fn(&Flow) -> Vec<usize>| {
        let report = report(&Kind::TUNED, 1..3, Flow::attacked_faintly, detect);
        report.total().recall()
    };
    let low = found(|flow| alarms_at(flow, Sensitivity::LOW));
    let (normal, high) = (found(alarms), found(|flow| alarms_at(flow, Sensitivity::HIGH)));
    assert!(low < normal && normal < high, "{low:.3} {normal:.3} {high:.3}");
}

fn report_of(seeds: &std::ops::Range<u64>, detect: fn(&Flow) -> Vec<usize>) -> Report {
    report(&Kind::TUNED, seeds.clone(), Flow::attacked, detect)
}

fn attack(kind: AttackKind, start: usize, ticks: usize, factor: f64) -> Attack {
    Attack {
        kind,
        start,
        end: start + ticks,
        factor,
    }
}

/// What an attacker might try, so as not to be seen.
fn evasions() -> Vec<(&'static str, Vec<Attack>)> {
    use AttackKind::{Burst, LowAndSlow, Ramp};
    let five = |hours: [usize; 5]| {
        let burst = |hour: usize| attack(Burst, START + hour * HOUR + hour * MINUTE / 3, 5 * MINUTE, 8.0);
        hours.map(burst).to_vec()
    };
    let spikes = [0, 5, 9].map(|hour| attack(Burst, START + hour * HOUR, 1, 30.0));
    let plateau = |hour: usize| attack(LowAndSlow, START + hour * HOUR, 2 * HOUR, 3.0);
    vec![
        ("five similar bursts, an hour apart", five([0, 1, 2, 3, 4])),
        ("five similar bursts, six hours apart", five([0, 6, 12, 18, 24])),
        ("five similar bursts, a day apart", five([0, 24, 48, 72, 96])),
        ("five similar bursts, at odd times", five([0, 3, 11, 19, 40])),
        (
            "three isolated spikes, then a burst",
            [
                spikes.as_slice(),
                &[attack(Burst, START + 15 * HOUR, 5 * MINUTE, 8.0)],
            ]
            .concat(),
        ),
        (
            "a two-hour plateau, three times",
            [0, 6, 30].map(plateau).to_vec(),
        ),
        ("a ramp of 1 % a minute", vec![attack(Ramp, START, 2 * HOUR, 3.3)]),
    ]
}

/// Kinds that speak enough for the evasions to mean something.
const EVADED: [Kind; 5] = [
    Kind::Steady,
    Kind::Daily,
    Kind::Weekly,
    Kind::Noisy,
    Kind::Deploys,
];

fn evasion_table(seeds: &std::ops::Range<u64>) -> String {
    let mut text = format!(
        "| evasion | {} |\n|---|",
        EVADED.map(|kind| format!("{kind:?}")).join(" | ")
    );
    text += &"---|".repeat(EVADED.len());
    for (name, attacks) in evasions() {
        text += &format!("\n| {name} |");
        for kind in EVADED {
            let mut tally = Tally::default();
            for seed in seeds.clone() {
                let flow = Flow::with(kind, seed, attacks.clone());
                tally.add(&flow, &alarms(&flow));
            }
            let each = tally.within as f64 / tally.attacks as f64;
            text += &format!(" {:.2} ({each:.1}) |", tally.recall());
        }
    }
    text
}

#[test]
fn neither_repetition_nor_patience_hides_an_attack() {
    for (name, attacks) in evasions() {
        for kind in [Kind::Steady, Kind::Daily] {
            let flow = Flow::with(kind, 1, attacks.clone());
            let missed = found(&flow, &alarms(&flow))
                .iter()
                .filter(|(_, delay)| delay.is_none())
                .count();
            assert_eq!(missed, 0, "{name}, {kind:?}");
        }
    }
}

#[test]
fn an_incident_raises_one_alarm_with_the_right_numbers_and_ends() {
    let burst = attack(AttackKind::Burst, START, 10 * MINUTE, 6.0);
    let flow = Flow::with(Kind::Steady, 4, vec![burst]);
    let rate = f64::from(flow.truth[START]);
    let (mut onsets, mut changes) = (Vec::new(), Vec::new());
    feed(&flow, |tick, _, reading| {
        onsets.extend(reading.onset.map(|onset| (tick, onset)));
        changes.extend(reading.change.map(|change| (tick, change)));
    });
    let [(tick, onset)] = onsets[..] else {
        panic!("{onsets:?}")
    };
    assert!(tick - START < 3, "{tick}");
    assert_eq!(onset.since, flow.first_tick + START as u64);
    let (seen, (low, high)) = (f64::from(onset.seen), onset.expected);
    assert!((5.0 * rate..7.0 * rate).contains(&seen), "{seen} of {rate}");
    assert!(
        (f64::from(low)..f64::from(high)).contains(&rate),
        "{rate} of {low} to {high}"
    );
    let [(tick, Change::Over)] = changes[..] else {
        panic!("{changes:?}")
    };
    assert!(
        (burst.end..burst.end + 10 * MINUTE).contains(&tick),
        "{}",
        tick - burst.end
    );
}

#[test]
fn a_lasting_level_is_the_usual_after_a_day_and_says_so() {
    let shift = attack(AttackKind::LowAndSlow, START, 8 * DAY, 2.5);
    let flow = Flow::with(Kind::Daily, 4, vec![shift]);
    let (mut onsets, mut rebased) = (Vec::new(), Vec::new());
    feed(&flow, |tick, _, reading| {
        onsets.extend(reading.onset.map(|_| tick));
        let is_rebased = reading.change == Some(Change::Rebased) && tick < shift.end;
        rebased.extend(is_rebased.then_some(tick));
    });
    assert!(
        onsets
            .iter()
            .filter(|tick| (START..shift.end).contains(tick))
            .count()
            <= 2,
        "{onsets:?}"
    );
    let [tick] = rebased[..] else {
        panic!("{rebased:?}")
    };
    assert!(
        (DAY..DAY + 2 * HOUR).contains(&(tick - START)),
        "{}",
        tick - START
    );
}

#[test]
fn silent_flows_need_no_feeding() {
    for kind in [Kind::Sparse, Kind::Denials, Kind::Cron] {
        let flow = Flow::attacked(kind, 3);
        let (pace, sensitivity) = (Pace::new(TICK_S as u32), Sensitivity::default());
        let mut lazy = CountDetector::default();
        let (mut alarms_lazy, mut fed) = (Vec::new(), 0);
        for (tick, &count) in flow.counts.iter().enumerate() {
            let at = flow.first_tick + tick as u64;
            if tick > 0 && count == 0 && lazy.due(&pace) > at {
                continue;
            }
            fed += 1;
            let reading = lazy.observe(&pace, &sensitivity, at, count);
            alarms_lazy.extend(reading.onset.map(|_| tick));
        }
        let eager = alarms(&flow);
        let near = |tick: &usize| alarms_lazy.iter().any(|lazy| lazy.abs_diff(*tick) <= MINUTE);
        let same = eager.iter().filter(|tick| near(tick)).count();
        let all = eager.len().max(alarms_lazy.len());
        assert!(same * 10 >= all * 9, "{kind:?}: {eager:?} {alarms_lazy:?}");
        if kind == Kind::Denials {
            assert!(fed < flow.counts.len() / 4, "{kind:?}: {fed} ticks");
        }
    }
}

#[test]
fn the_length_of_a_tick_is_free() {
    let burst = attack(AttackKind::Burst, START, 10 * MINUTE, 6.0);
    let silence = attack(AttackKind::Silence, START + 20 * HOUR, HOUR, 0.0);
    let flow = Flow::with(Kind::Daily, 5, vec![burst, silence]);
    let (pace, sensitivity) = (Pace::new(60), Sensitivity::default());
    let mut detector = CountDetector::default();
    let mut onsets = Vec::new();
    for (minute, counts) in flow.counts.chunks(MINUTE).enumerate() {
        let at = flow.first_tick / MINUTE as u64 + minute as u64;
        let reading = detector.observe(&pace, &sensitivity, at, counts.iter().sum());
        onsets.extend(reading.onset.map(|_| minute * MINUTE));
    }
    let [first, second] = onsets[..] else {
        panic!("{onsets:?}")
    };
    assert!((burst.start..burst.start + 3 * MINUTE).contains(&first));
    assert!((silence.start..silence.start + 5 * MINUTE).contains(&second));
}

/// A reading depends on nothing that comes later, nor on anything but the counts.
#[test]
fn what_comes_later_changes_nothing() {
    let flow = Flow::attacked(Kind::Bursty, 6);
    let half = flow.counts.len() / 2;
    let mut other = Flow::attacked(Kind::Bursty, 6);
    other.counts[half..].fill(1_000);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    feed(&flow, |_, _, reading| first.push(reading));
    feed(&other, |_, _, reading| second.push(reading));
    assert_eq!(first[..half], second[..half]);
    assert_ne!(first[half..], second[half..]);
}
