//! What it costs to watch 100,000 flows: a tick of their counters and of the desk, and the memory. A report, not a
//! judgement: machines differ.

use std::sync::Arc;
use std::time::{Duration, Instant};

use exocom::traffic::desk::Desk;
use exocom::traffic::flow::{FlowCounters, FlowRegistry};
use exocom::traffic::pace::Pace;

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

#[test]
#[ignore = "a report; run it with --release and --nocapture"]
#[expect(clippy::disallowed_methods, reason = "it measures")]
fn a_tick_of_100_000_flows() {
    let registry = FlowRegistry::default();
    let receiver: Arc<str> = "receiver".into();
    let mut counters: Vec<Arc<FlowCounters>> = Vec::with_capacity(FLOWS);
    let mut books = Vec::new();
    for sender in 0..SENDERS {
        let book = registry.open_book(&format!("service-{sender}").into(), sender as u64 + 1);
        let messages = (0..MESSAGES).map(|message| format!("area.message-{message}"));
        counters.extend(messages.map(|message| book.counters(&message, Some(&receiver))));
        books.push(book);
    }
    let mut desk = Desk::new(Pace::new(1));
    let mut tick = 1_767_225_600;
    let mut measure = |ticks: u32, is_busy: bool| {
        let mut spent = [Duration::ZERO; 2];
        for _ in 0..ticks {
            for (flow, counters) in counters.iter().enumerate().filter(|_| is_busy) {
                let messages = 5 + (flow as u64 ^ tick).wrapping_mul(0x9E37_79B9_7F4A_7C15) % 7;
                (0..messages).for_each(|_| counters.count_delivered(128));
                counters.count_response(2_000);
            }
            let started = Instant::now();
            let totals = registry.totals();
            spent[0] += started.elapsed();
            desk.handle_tick(tick, totals);
            spent[1] += started.elapsed();
            drop(desk.poll());
            tick += 1;
        }
        let ns_a_flow = |spent: Duration| spent.as_nanos() / u128::from(ticks) / FLOWS as u128;
        let share = spent[1].as_secs_f64() / f64::from(ticks) * 100.0;
        println!(
            "{ticks} ticks, {}: {} ns a flow and tick, of which the counters {}; {share:.1} % of a core at ticks of 1 s, \
             {:.2} % at 10 s",
            if is_busy { "all busy" } else { "all idle" },
            ns_a_flow(spent[1]),
            ns_a_flow(spent[0]),
            share / 10.0,
        );
    };
    let before = resident();
    measure(2, true);
    measure(120, true);
    measure(5, false);
    let used = resident() - before;
    println!(
        "{} streams of {FLOWS} flows, {} bytes of memory a flow",
        desk.watched().0,
        used / FLOWS
    );
    assert!(desk.watched().0 >= FLOWS, "each is watched");
}
