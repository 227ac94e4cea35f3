//! What it costs to watch 100,000 flows: a tick of their counters and of the desk, and the memory. A report, not a
//! judgement: machines differ.

use std::sync::Arc;
use std::time::Duration;

use exocom::traffic::desk::Desk;
use exocom::traffic::flow::{FlowCounters, FlowRegistry};
use exocom::traffic::pace::Pace;

/// As the broker's.
const TICK_S: u32 = 10;
const SENDERS: usize = 20;
const MESSAGES: usize = 5_000;
const FLOWS: usize = SENDERS * MESSAGES;

/// Resident memory, in bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("this is Linux");
    let pages: usize = pages
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .expect("a number");
    4_096 * pages
}

/// The processor time that this thread has had, whoever else wants the processor.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("this is Linux");
    let ns = text.split(' ').next().and_then(|ns| ns.parse().ok());
    Duration::from_nanos(ns.expect("a number"))
}

/// A broker's flows and its desk.
struct Load {
    registry: FlowRegistry,
    counters: Vec<Arc<FlowCounters>>,
    desk: Desk,
    tick: u64,
}

impl Load {
    fn new() -> Self {
        let registry = FlowRegistry::default();
        let receiver: Arc<str> = "receiver".into();
        let mut counters = Vec::with_capacity(FLOWS);
        for sender in 0..SENDERS {
            let book = registry.open_book(&format!("service-{sender}").into(), sender as u64 + 1);
            let messages = (0..MESSAGES).map(|message| format!("area.message-{message}"));
            counters.extend(messages.map(|message| book.counters(&message, Some(&receiver))));
        }
        // What is kept of response times is the counters' too.
        counters
            .iter()
            .for_each(|counters: &Arc<FlowCounters>| counters.count_response(2_000));
        let mut desk = Desk::new(Pace::new(TICK_S));
        let mut tick = 1_767_225_600 / u64::from(TICK_S);
        // Where counting starts.
        registry.read_changes(tick, |number, more, key| desk.handle_flow(number, more, key));
        desk.handle_tick(tick);
        tick += 1;
        Self {
            registry,
            counters,
            desk,
            tick,
        }
    }

    /// Lives through ticks in which each flow sends so many messages as `messages` says for its number and the tick, and
    /// the first is answered.
    fn measure(&mut self, what: &str, ticks: u32, messages: impl Fn(u64, u64) -> u64) {
        let mut spent = [Duration::ZERO; 2];
        let mut longest = Duration::ZERO;
        for _ in 0..ticks {
            for (flow, counters) in self.counters.iter().enumerate() {
                let messages = messages(flow as u64, self.tick);
                (0..messages).for_each(|_| counters.count_delivered(128));
                (0..messages.min(1)).for_each(|_| counters.count_response(2_000));
            }
            let started = processor_time();
            let desk = &mut self.desk;
            self.registry
                .read_changes(self.tick, |number, more, key| desk.handle_flow(number, more, key));
            spent[0] += processor_time() - started;
            self.desk.handle_tick(self.tick);
            drop(self.desk.poll());
            let all = processor_time() - started;
            spent[1] += all;
            longest = longest.max(all);
            self.tick += 1;
        }
        let ns_a_flow = |spent: Duration| spent.as_nanos() / u128::from(ticks) / FLOWS as u128;
        let share = spent[1].as_secs_f64() / f64::from(ticks) * 100.0;
        println!(
            "{what}, {ticks} ticks: {} ns a flow and tick, of which the counters {}; {share:.2} % of a core at ticks of 1 s, \
             {:.2} % at {TICK_S} s; the longest {} ms",
            ns_a_flow(spent[1]),
            ns_a_flow(spent[0]),
            share / f64::from(TICK_S),
            longest.as_millis(),
        );
    }
}

/// What a desk takes that has just watched these flows, and had taken so much before.
fn tell_memory(load: &Load, before: usize) {
    let (series, _) = load.desk.watched();
    let bytes = (resident() - before) / FLOWS;
    println!("{series} series of {FLOWS} flows, {bytes} bytes of memory a flow with its counters");
}

#[test]
#[ignore = "a report; run it with --release and --nocapture"]
fn a_tick_of_100_000_flows() {
    let before = resident();
    // Each speaks once, and is silent for more than an hour.
    let mut seldom = Load::new();
    let counters = (resident() - before) / FLOWS;
    println!("{counters} bytes of memory for the counters of a flow that is answered, and its number");
    seldom.measure("spoke once", 10, |flow, tick| u64::from(flow % 10 == tick % 10));
    tell_memory(&seldom, before);
    seldom.measure("silent since", 400, |_, _| 0);
    seldom.measure("idle", 100, |_, _| 0);
    let before = resident();
    let mut load = Load::new();
    load.measure("at first", 2, |_, _| 1);
    load.measure("busy", 120, |flow, tick| {
        5 + (flow ^ tick).wrapping_mul(0x9E37_79B9_7F4A_7C15) % 7
    });
    tell_memory(&load, before);
    assert_eq!(load.desk.watched().0, 3 * FLOWS, "each is watched wholly");
    load.measure("silent of late", 60, |_, _| 0);
    let started = processor_time();
    let parts = (0..).map_while(|part| load.desk.learned_part(part));
    let (bytes, longest) = parts.fold((0, 0), |(all, longest), part| {
        (all + part.len(), longest.max(part.len()))
    });
    let written = processor_time() - started;
    let learned = load.desk.learned();
    let started = processor_time();
    let again = Desk::restore(Pace::new(TICK_S), &learned, load.tick).expect("it is read again");
    let read = processor_time() - started;
    assert_eq!(again.watched(), load.desk.watched());
    println!(
        "what was learned: {bytes} bytes, at most {longest} at once, written in {} ms and read in {} ms",
        written.as_millis(),
        read.as_millis()
    );
}
