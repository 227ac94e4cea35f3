//! The desk on made-up totals: which measure raises what, and what is kept.

use super::*;

const DAY: u64 = 8_640;
/// Some midnight.
const FIRST: u64 = 2_000 * DAY;

fn key(message: &str) -> FlowKey {
    FlowKey {
        sender: "web".into(),
        message: message.into(),
        receiver: Some("todos".into()),
    }
}

/// What all flows have counted so far, as a broker would tell it.
#[derive(Clone, Default)]
struct Totals {
    now: BTreeMap<FlowKey, FlowTotals>,
    told: BTreeMap<FlowKey, (Option<FlowNumber>, FlowTotals)>,
}

impl Totals {
    /// Ends a tick: what has come since the last.
    fn tell(&mut self, desk: &mut Desk, tick: u64) {
        for (key, now) in &self.now {
            let (number, told) = self.told.entry(key.clone()).or_default();
            if now != told {
                desk.handle_flow(number, &now.since(told), || key.clone());
                *told = *now;
            }
        }
        desk.handle_tick(tick);
    }

    fn entry(&mut self, key: FlowKey) -> &mut FlowTotals {
        self.now.entry(key).or_default()
    }
}

/// A desk that has watched a flow of some 100 messages a tick, answered in 5 ms, for three days; and its totals.
fn known() -> (Desk, Totals) {
    let mut desk = Desk::new(Pace::new(10));
    let mut totals = Totals::default();
    for tick in FIRST..FIRST + 3 * DAY {
        usual(&mut totals, tick, 5_000);
        totals.tell(&mut desk, tick);
    }
    assert_eq!(desk.poll(), []);
    (desk, totals)
}

fn usual(totals: &mut Totals, tick: u64, response_us: u64) {
    let messages = 90 + (tick.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) % 21;
    let list = totals.entry(key("list"));
    list.messages += messages;
    list.bytes += 100 * messages;
    list.responses += messages;
    list.response_us_sum += messages * (response_us + tick % 7 * 100);
}

/// What is raised in ten minutes of which each tick does something.
fn raised(change: impl Fn(&mut Totals, u64)) -> Vec<String> {
    let (mut desk, mut totals) = known();
    let mut raised = Vec::new();
    for tick in FIRST + 3 * DAY..FIRST + 3 * DAY + 60 {
        change(&mut totals, tick);
        totals.tell(&mut desk, tick);
        let opened = desk.poll().into_iter().filter(|(step, _)| *step == Step::Opened);
        raised.extend(opened.map(|(_, alarm)| format!("{} {}", alarm.finding.kind.name(), alarm.stream)));
    }
    raised
}

#[test]
fn each_measure_raises_its_own_alarm() {
    assert_eq!(raised(|totals, tick| usual(totals, tick, 5_000)), [""; 0]);
    let burst = raised(|totals, tick| (0..5).for_each(|_| usual(totals, tick, 5_000)));
    assert_eq!(burst, ["burst web → list"]);
    let new = raised(|totals, tick| {
        usual(totals, tick, 5_000);
        totals.entry(key("purge")).messages += 1;
    });
    assert_eq!(new, ["new-flow web → purge"]);
    let denied = raised(|totals, tick| {
        usual(totals, tick, 5_000);
        totals.entry(key("purge")).denied += 40;
    });
    assert_eq!(denied, ["burst denials of web"]);
    let failed = raised(|totals, tick| {
        usual(totals, tick, 5_000);
        totals.entry(key("list")).unanswered += 40;
    });
    assert_eq!(failed, ["burst web → list, unanswered"]);
    let nobody = raised(|totals, tick| {
        usual(totals, tick, 5_000);
        totals.entry(key("list")).no_receiver += 40;
    });
    assert_eq!(nobody, ["burst web → list, unanswered"]);
    let slow = raised(|totals, tick| usual(totals, tick, 60_000));
    let [slow] = &slow[..] else { panic!("{slow:?}") };
    assert!(slow.ends_with(" web → list, response time"), "{slow}");
    let silent = raised(|_, _| ());
    assert_eq!(silent, ["silence web → list"]);
}

#[test]
fn a_new_flow_is_no_news_on_the_first_day() {
    let mut desk = Desk::new(Pace::new(10));
    let mut totals = Totals::default();
    for tick in FIRST..FIRST + 100 {
        usual(&mut totals, tick, 5_000);
        totals.tell(&mut desk, tick);
    }
    assert_eq!(desk.poll(), []);
    assert!(desk.watched().0 > 0);
}

/// Alone or many at once, with a known sender or not, and whatever it says later: each is news once.
#[test]
fn every_new_flow_is_flagged_once() {
    const NEW: u64 = 300;
    let (mut desk, mut totals) = known();
    let new = |number: u64| FlowKey {
        sender: format!("service-{}", number % 7).into(),
        message: format!("new.{number}").into(),
        receiver: (!number.is_multiple_of(3)).then(|| "todos".into()),
    };
    let mut flagged = Vec::new();
    for tick in 0..2 * NEW {
        usual(&mut totals, tick, 5_000);
        // The last hundred come in one tick.
        let begun = if tick < NEW - 100 { tick + 1 } else { NEW };
        for number in (0..begun).filter(|number| number == &tick || tick.is_multiple_of(number + 2)) {
            totals.entry(new(number)).messages += 1;
        }
        for number in (NEW - 100..NEW).filter(|_| tick == NEW - 100) {
            totals.entry(new(number)).messages += 1;
        }
        totals.tell(&mut desk, FIRST + 3 * DAY + tick);
        for (step, alarm) in desk.poll() {
            if step == Step::Opened && alarm.finding.kind.name() == "new-flow" {
                assert_eq!(alarm.opened_unix_s, desk.pace.unix_s(FIRST + 3 * DAY + tick));
                flagged.push(alarm.stream.message.unwrap().to_string());
            }
        }
    }
    let mut wanted: Vec<_> = (0..NEW).map(|number| format!("new.{number}")).collect();
    flagged.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(flagged, wanted);
}

#[test]
fn what_is_muted_is_kept_and_not_told_and_a_restart_changes_nothing() {
    let (mut desk, mut totals) = known();
    let mut tick = FIRST + 3 * DAY;
    let mut burst = |desk: &mut Desk, times: usize| {
        for _ in 0..360 {
            (0..times).for_each(|_| usual(&mut totals, tick, 5_000));
            totals.tell(desk, tick);
            tick += 1;
        }
        let events = desk.poll().into_iter();
        let opened = events.filter(|(step, _)| *step == Step::Opened);
        (opened.map(|(_, alarm)| alarm).collect::<Vec<_>>(), tick)
    };
    let (first, _) = burst(&mut desk, 5);
    let [first] = &first[..] else { panic!("{first:?}") };
    assert!(!first.is_muted && desk.acknowledge(first.id, "alice"));
    let (none, now) = burst(&mut desk, 1);
    assert_eq!(none, []);
    assert!(
        desk.alarm(first.id)
            .is_some_and(|alarm| alarm.closed_unix_s.is_some())
    );
    assert!(desk.mute(first.id, 10 * now + 86_400).is_some());
    // Nobody watches for an hour.
    let mut desk = Desk::restore(Pace::new(10), &desk.learned(), now + 360).unwrap();
    assert_eq!(desk.alarms().count(), 1);
    (0..3_000).for_each(|_| usual(&mut totals, 0, 5_000));
    tick += 360;
    totals.tell(&mut desk, tick - 1);
    let mut burst = |desk: &mut Desk, times: usize| {
        for _ in 0..60 {
            (0..times).for_each(|_| usual(&mut totals, tick, 5_000));
            totals.tell(desk, tick);
            tick += 1;
        }
        desk.poll()
    };
    assert_eq!(burst(&mut desk, 1), [], "what nobody saw is no silence");
    let again = burst(&mut desk, 5);
    assert!(
        matches!(&again[..], [(Step::Opened, alarm), ..] if alarm.is_muted),
        "{again:?}"
    );
}

/// Wishes that have everything watched in one way.
fn all(attention: Attention) -> Wishes {
    Wishes {
        attention: Box::new(move |_| attention),
        ..Wishes::default()
    }
}

/// What begins, and how what is over ended.
fn told(desk: &mut Desk) -> Vec<String> {
    let told = desk.poll().into_iter().filter_map(|(step, alarm)| match step {
        Step::Opened => Some(format!("{} {}", alarm.finding.kind.name(), alarm.stream)),
        Step::Closed => Some(format!("{}: {}", alarm.stream, alarm.outcome?)),
        Step::Updated => None,
    });
    told.collect()
}

#[test]
fn what_the_policy_turns_off_is_learned_and_raises_nothing() {
    let (mut desk, mut totals) = known();
    let mut tick = FIRST + 3 * DAY;
    let mut odd = |desk: &mut Desk, ticks: u64, times: usize| {
        for _ in 0..ticks {
            (0..times).for_each(|_| usual(&mut totals, tick, 5_000));
            if times > 1 {
                totals.entry(key("purge")).denied += 40;
                totals.entry(key("list")).over_limit += 1;
            }
            totals.tell(desk, tick);
            tick += 1;
        }
        let mut told = told(desk);
        told.sort();
        (told, desk.pace.unix_s(tick))
    };
    let (before, now) = odd(&mut desk, 12, 5);
    assert_eq!(
        before,
        [
            "burst denials of web",
            "burst web → list",
            "over-limit web → list, over its limit"
        ]
    );
    // Of one message, nobody wants to hear any more: of the service's denials they do.
    let list_alone = Wishes {
        attention: Box::new(|stream| match stream.message.as_deref() {
            Some("list") => Attention::Off,
            _ => Attention::Normal,
        }),
        ..Wishes::default()
    };
    desk.handle_wishes(list_alone, now);
    let off = "the policy has turned its alarms off";
    let mut closed = told(&mut desk);
    closed.sort();
    assert_eq!(
        closed,
        [
            format!("web → list, over its limit: {off}"),
            format!("web → list: {off}")
        ]
    );
    let (nothing, now) = odd(&mut desk, 12, 5);
    assert_eq!(
        nothing, [""; 0],
        "neither a burst nor limits, nor a second alarm of denials"
    );
    desk.handle_wishes(all(Attention::Off), now);
    assert_eq!(told(&mut desk), [format!("denials of web: {off}")]);
    assert_eq!(odd(&mut desk, 12, 5).0, [""; 0]);
    // A restart forgets what the policy wished, until it is told again.
    let mut desk = Desk::restore(Pace::new(10), &desk.learned(), FIRST + 3 * DAY + 36).unwrap();
    desk.handle_wishes(all(Attention::Off), now);
    assert_eq!(odd(&mut desk, 12, 5).0, [""; 0]);
    // What is usual was not forgotten meanwhile.
    assert_eq!(odd(&mut desk, 360, 1).0, [""; 0]);
    desk.handle_wishes(Wishes::default(), now);
    assert_eq!(odd(&mut desk, 60, 1).0, [""; 0]);
    let (again, _) = odd(&mut desk, 12, 5);
    assert!(again.contains(&"burst web → list".to_owned()), "{again:?}");
}

/// The smallest of some bursts, in tenths of the usual more, that raises an alarm.
#[test]
fn the_more_closely_it_is_watched_the_less_it_takes() {
    let (desk, totals) = known();
    let learned = desk.learned();
    let smallest = |attention: Attention| {
        (1..100_u64).find(|tenths| {
            let mut desk = Desk::restore(Pace::new(10), &learned, FIRST + 3 * DAY).unwrap();
            desk.handle_wishes(all(attention), 0);
            let mut totals = totals.clone();
            for tick in FIRST + 3 * DAY..FIRST + 3 * DAY + 4 {
                usual(&mut totals, tick, 5_000);
                if tick > FIRST + 3 * DAY {
                    totals.entry(key("list")).messages += 10 * tenths;
                }
                totals.tell(&mut desk, tick);
            }
            !told(&mut desk).is_empty()
        })
    };
    let (low, normal, high) = (
        smallest(Attention::Low),
        smallest(Attention::Normal),
        smallest(Attention::High),
    );
    assert!(
        low > normal && normal > high && high.is_some(),
        "{low:?} {normal:?} {high:?}"
    );
    assert_eq!(smallest(Attention::Off), None);
}

#[test]
fn the_policy_says_when_a_flow_is_news() {
    let check = |watched_ticks: u64, new_flow_after_s: Option<u64>, expected: &[&str]| {
        let mut desk = Desk::new(Pace::new(10));
        let wishes = Wishes {
            new_flow_after_s,
            ..Wishes::default()
        };
        desk.handle_wishes(wishes, 0);
        let mut totals = Totals::default();
        for tick in FIRST..FIRST + watched_ticks {
            usual(&mut totals, tick, 5_000);
            totals.tell(&mut desk, tick);
        }
        // From the beginning on: then the first flow is news too.
        let first: &[&str] = match new_flow_after_s {
            Some(..10) => &["new-flow web → list"],
            _ => &[],
        };
        assert_eq!(told(&mut desk), first);
        totals.entry(key("purge")).messages += 1;
        totals.tell(&mut desk, FIRST + watched_ticks);
        assert_eq!(told(&mut desk), expected, "{watched_ticks} {new_flow_after_s:?}");
    };
    check(2, Some(1), &["new-flow web → purge"]);
    check(360, Some(3_600), &["new-flow web → purge"]);
    check(359, Some(3_600), &[]);
    check(DAY, Some(86_400), &["new-flow web → purge"]);
    check(DAY, Some(86_411), &[]);
    check(2 * DAY, None, &[]);
}

/// What begins where a flow's answers and the broker's load are so many times the usual, by the number of the mean.
fn of_means(points: u64, times: impl Fn(u64) -> f64) -> Vec<(String, Finding)> {
    let (mut desk, mut totals) = known_with_load();
    let first = FIRST + 3 * DAY;
    let mut raised = Vec::new();
    for tick in first..first + 30 * points {
        let times = times((tick - first) / 30);
        usual(&mut totals, tick, (times * 5_000.0) as u64);
        desk.handle_load(&load(tick, times));
        totals.tell(&mut desk, tick);
        let opened = desk.poll().into_iter().filter(|(step, _)| *step == Step::Opened);
        raised.extend(opened.map(|(_, alarm)| (alarm.stream.to_string(), alarm.finding)));
    }
    raised
}

/// Some 100 connections, a tenth of a processor, and nothing that waits.
fn load(tick: u64, times: f64) -> [(Measure, f64); 4] {
    let chance = (tick.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f64 / f64::from(1 << 24);
    [
        (Measure::Connections, times * (98.0 + 4.0 * chance)),
        (Measure::Processors, times * (0.1 + 0.02 * chance)),
        (Measure::TrackedWaiting, (times - 1.0) * 500.0),
        (Measure::OutboxBytes, (times - 1.0) * 4e6),
    ]
}

/// As [`known`], of a broker whose load was watched too.
fn known_with_load() -> (Desk, Totals) {
    let mut desk = Desk::new(Pace::new(10));
    let mut totals = Totals::default();
    for tick in FIRST..FIRST + 3 * DAY {
        usual(&mut totals, tick, 5_000);
        desk.handle_load(&load(tick, 1.0));
        totals.tell(&mut desk, tick);
    }
    assert_eq!(desk.poll(), []);
    (desk, totals)
}

#[test]
fn slow_answers_and_a_loaded_broker_are_alarms_with_the_right_numbers() {
    let told = of_means(12, |point| if point < 2 { 1.0 } else { 3.5 });
    assert_eq!(told.len(), 5, "{told:?}");
    let check = |what: &str, seen: f64, expected: std::ops::RangeInclusive<f64>| {
        let found: Vec<_> = told.iter().filter(|(stream, _)| stream == what).collect();
        let [(_, finding)] = &found[..] else {
            panic!("{what}: {told:?}")
        };
        let (low, high) = finding.expected;
        assert!((finding.seen - seen).abs() < 0.02 * seen, "{finding:?}");
        assert!(expected.contains(&low) && expected.contains(&high), "{finding:?}");
        assert_eq!(
            finding.since_unix_s,
            Pace::new(10).unix_s(FIRST + 3 * DAY + 60),
            "{finding:?}"
        );
    };
    // 3.5 times 5 ms, and what `usual` adds.
    check("web → list, response time", 17.8, 5.0..=5.7);
    check("the broker, open connections", 350.0, 98.0..=102.0);
    check("the broker, processor time", 0.385, 0.1..=0.12);
    check("the broker, tracked messages waiting", 1_250.0, 0.0..=0.1);
    check("the broker, bytes waiting for receivers", 1e7, 0.0..=1.0);
    // The same factor was taken for nothing where it came little by little.
    let slowly = of_means(30, |point| 1.0 + 0.1 * point.min(25) as f64);
    assert!(
        slowly
            .iter()
            .any(|(stream, _)| stream == "web → list, response time"),
        "{slowly:?}"
    );
    let little = of_means(30, |point| if point.is_multiple_of(5) { 1.2 } else { 1.0 });
    assert_eq!(little, []);
}

#[test]
fn an_alarm_of_a_mean_lasts_as_long_as_the_mean_is_beyond() {
    let (mut desk, mut totals) = known();
    let mut tick = FIRST + 3 * DAY;
    let mut hours = |desk: &mut Desk, hours: u64, response_us: u64| {
        for _ in 0..360 * hours {
            usual(&mut totals, tick, response_us);
            totals.tell(desk, tick);
            tick += 1;
        }
        told(desk)
    };
    let begun = hours(&mut desk, 3, 16_000);
    assert!(
        begun.len() == 1 && begun[0].ends_with(" web → list, response time"),
        "{begun:?}"
    );
    let alarm = desk.alarms().next().expect("it is kept");
    assert!(
        alarm.closed_unix_s.is_none() && alarm.finding.over_s > 2 * 3_600,
        "{alarm:?}"
    );
    assert_eq!(hours(&mut desk, 1, 5_000), ["web → list, response time: over"]);
}

#[test]
fn what_came_on_top_of_an_incident_ends_with_it() {
    let (mut desk, mut totals) = known();
    let mut tick = FIRST + 3 * DAY;
    for times in [4, 60, 1] {
        for _ in 0..180 {
            (0..times).for_each(|_| usual(&mut totals, tick, 5_000));
            totals.tell(&mut desk, tick);
            tick += 1;
        }
        let open = desk.alarms().filter(|alarm| alarm.closed_unix_s.is_none());
        let open = open.count();
        assert_eq!(
            open,
            [2, 1, 0][[60, 4, 1].iter().position(|&t| t == times).unwrap()]
        );
    }
    assert_eq!(desk.alarms().count(), 2);
}

/// Jobs that run every four hours: their flows sleep in between, and are woken to speak, or to be missed.
#[test]
fn who_sleeps_is_woken() {
    let mut desk = Desk::new(Pace::new(10));
    let mut totals = Totals::default();
    let mut tick = FIRST;
    let mut days = |desk: &mut Desk, days: u64, away: Option<u64>| {
        for _ in 0..days * DAY {
            // The first at one o'clock, and one every ten minutes.
            let job = (tick % 1_440).checked_sub(360).map(|since| since / 60);
            if let Some(job) = job.filter(|&job| job < 6 && tick.is_multiple_of(60) && away != Some(job)) {
                totals.entry(key(&format!("job.{job}"))).messages += 50;
            }
            totals.tell(desk, tick);
            tick += 1;
        }
        told(desk)
    };
    days(&mut desk, 15, None);
    // Counts and sizes of each.
    assert_eq!((desk.learned.flows.awake(), desk.watched().0), (0, 12));
    let told = days(&mut desk, 1, Some(3));
    assert_eq!(told.first().map(String::as_str), Some("missed web → job.3"));
    assert!(told.iter().all(|told| told.contains("web → job.3")), "{told:?}");
}

#[test]
fn what_is_written_in_parts_is_read_as_a_whole() {
    let (mut desk, mut totals) = known();
    for number in 0..2_500 {
        totals.entry(key(&format!("rare.{number}"))).messages += 1;
    }
    totals.entry(key("purge")).denied += 40;
    usual(&mut totals, 0, 5_000);
    totals.tell(&mut desk, FIRST + 3 * DAY);
    let parts: Vec<_> = (0..).map_while(|part| desk.learned_part(part)).collect();
    assert_eq!(
        parts.len(),
        4,
        "what is of no flow, and three times a thousand flows"
    );
    let whole = postcard::to_stdvec(&desk.learned).unwrap();
    assert_eq!(parts.concat(), whole);
    let again = Desk::restore(Pace::new(10), &whole, FIRST + 3 * DAY + 1).unwrap();
    assert_eq!(again.watched(), desk.watched());
    assert_eq!(again.learned(), whole);
}
