//! Which spikes timers explain.

use super::*;

const WEEKDAY: Day = Day { is_weekend: false };
const DAY: u32 = 8_640;

fn seen(at: u32, count: f32) -> Seen {
    Seen {
        at,
        count,
        usual: 1.0,
        bound: 10.0,
    }
}

/// What is left to judge of spikes of so many messages, at the given ticks.
fn judged_of(spikes: &[(u32, f32)], youth: Youth) -> Vec<f32> {
    let pace = Pace::new(10);
    let mut timers = Timers::default();
    let mut left = Vec::new();
    let (last, _) = spikes.last().unwrap();
    for at in 0..=*last {
        let spike = spikes.iter().find(|(tick, _)| *tick == at);
        let count = spike.map_or(0.0, |(_, count)| *count);
        let explained = timers.explain(&pace, &seen(at, count), youth, WEEKDAY);
        if spike.is_some() {
            left.push(explained.judged);
        }
    }
    left
}

/// The same of spikes of 100.
fn judged(spikes: &[u32], youth: Youth) -> Vec<f32> {
    let spikes: Vec<_> = spikes.iter().map(|&at| (at, 100.0)).collect();
    judged_of(&spikes, youth)
}

#[test]
fn an_hourly_job_is_known_by_its_second_run_when_young() {
    assert_eq!(
        judged(&[400, 760, 1_121, 1_480], Youth::FirstDays),
        [100.0, 1.0, 1.0, 1.0]
    );
}

#[test]
fn a_nightly_job_need_not_be_punctual() {
    let nights = [12, 0, 25, 7, 20].iter().zip(1..);
    let spikes: Vec<u32> = nights.map(|(late, night)| night * DAY + late).collect();
    assert_eq!(judged(&spikes, Youth::FirstDays), [100.0, 1.0, 1.0, 1.0, 1.0]);
    assert_eq!(judged(&spikes, Youth::Over), [100.0, 100.0, 1.0, 1.0, 1.0]);
}

#[test]
fn five_repeated_attacks_are_all_judged() {
    let spikes: Vec<u32> = (1..=7).map(|hour| hour * 360).collect();
    let left = judged(&spikes, Youth::Over);
    assert_eq!(left, [100.0, 100.0, 100.0, 100.0, 100.0, 1.0, 1.0]);
}

#[test]
fn a_minute_each_day_is_no_job() {
    let minutes = (1..=4).flat_map(|day| (0..6).map(move |tick| day * DAY + tick));
    let left = judged(&minutes.collect::<Vec<_>>(), Youth::Over);
    assert!(left.iter().all(|&left| left == 100.0), "{left:?}");
}

#[test]
fn a_timer_explains_its_size_and_no_more() {
    let jobs: Vec<_> = (1..=4).map(|hour| (hour * 360, 100.0)).collect();
    let left = judged_of(&[jobs, vec![(1_800, 1_000.0)]].concat(), Youth::FirstDays);
    assert!((700.0..900.0).contains(&left[4]), "{left:?}");
}

#[test]
fn a_timer_explains_its_length_and_no_more() {
    let jobs = (1..=20).map(|hour| (hour * 360, 100.0));
    let attack = (21 * 360..21 * 360 + 5).map(|tick| (tick, 20.0));
    let left = judged_of(&jobs.chain(attack).collect::<Vec<_>>(), Youth::FirstDays);
    assert_eq!(left[20..], [1.0, 1.0, 20.0, 20.0, 20.0]);
}

#[test]
fn a_job_that_failed_is_tried_again() {
    let jobs = (1..=6).map(|hour| (hour * 360, 100.0));
    let again = [
        (6 * 360 + 30, 100.0),
        (6 * 360 + 60, 100.0),
        (6 * 360 + 150, 100.0),
    ];
    let left = judged_of(&jobs.chain(again).collect::<Vec<_>>(), Youth::FirstDays);
    assert_eq!(left[6..], [1.0, 1.0, 100.0]);
}

#[test]
fn two_jobs_at_the_same_time_are_known_each() {
    let pairs = (1..=100).map(|job| (job * 30, if job % 12 == 0 { 500.0 } else { 50.0 }));
    let left = judged_of(&pairs.collect::<Vec<_>>(), Youth::FirstDays);
    let large: Vec<f32> = left.iter().skip(11).step_by(12).copied().collect();
    assert!(
        large[0] > 300.0 && large[3..].iter().all(|&left| left < 5.0),
        "{large:?}"
    );
    assert!(left[40..].iter().all(|&left| left < 5.0), "{left:?}");
}

#[test]
fn a_timer_that_comes_at_another_time_after_an_outage_is_known_again() {
    let before = (1..=40).map(|job| job * 60);
    let after = (0..=9).map(|job| 41 * 60 + 25 + job * 60);
    let left = judged(&before.chain(after).collect::<Vec<_>>(), Youth::Over);
    assert!(
        left[44..].iter().filter(|&&left| left > 1.0).count() <= 2,
        "{left:?}"
    );
    assert!(left[47..].iter().all(|&left| left == 1.0), "{left:?}");
}

#[test]
fn jobs_rest_on_weekends_and_are_missed_on_weekdays() {
    let pace = Pace::new(10);
    let mut timers = Timers::default();
    let mut missing = [0.0_f32; 2];
    for at in 0..8 * DAY {
        let day = at / DAY;
        let is_weekend = day == 5 || day == 6;
        let count = if at % 360 == 100 && day < 5 { 100.0 } else { 0.0 };
        let youth = if day < 2 { Youth::FirstDays } else { Youth::Over };
        timers.explain(&pace, &seen(at, count), youth, Day { is_weekend });
        let kind = usize::from(!is_weekend);
        missing[kind] = missing[kind].max(timers.missing());
    }
    assert_eq!(missing[0], 0.0);
    assert!(missing[1] > 6.0, "{missing:?}");
}
