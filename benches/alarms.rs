//! What a tick of a flow costs its detector: below a microsecond, or 100,000 flows would cost a core more than a tenth
//! of its time.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use exocom::traffic::count::{CountDetector, Sensitivity};
use exocom::traffic::desk::Desk;
use exocom::traffic::flow::FlowRegistry;
use exocom::traffic::metric::{MetricDetector, Tuning};
use exocom::traffic::pace::Pace;

/// Ticks of a day, at 10 seconds.
const DAY: u64 = 8_640;

/// A number that looks like chance, 0 to 1.
fn chance(tick: u64) -> f32 {
    (tick.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f32 / (1 << 24) as f32
}

fn count(tick: u64, rate: f32) -> u32 {
    let wave = (std::f32::consts::TAU * (tick % DAY) as f32 / DAY as f32).sin();
    (rate * (1.0 + 0.5 * wave) * (0.5 + chance(tick))) as u32
}

fn counts(criterion: &mut Criterion) {
    let (pace, sensitivity) = (Pace::new(10), Sensitivity::default());
    for (name, rate) in [("busy", 100.0), ("sparse", 1.0)] {
        let mut known = CountDetector::default();
        for tick in 0..10 * DAY {
            known.observe(&pace, &sensitivity, tick, count(tick, rate));
        }
        let mut tick = 10 * DAY;
        let mut detector = known.clone();
        criterion.bench_function(&format!("alarms/count tick/{name}"), |bencher| {
            bencher.iter(|| {
                let reading = detector.observe(&pace, &sensitivity, tick, black_box(count(tick, rate)));
                tick += 1;
                reading
            });
        });
        let ticks = 10 * DAY..10 * DAY + 60;
        criterion.bench_function(&format!("alarms/count 60 ticks of a burst/{name}"), |bencher| {
            bencher.iter_batched_ref(
                || known.clone(),
                |detector| {
                    for tick in ticks.clone() {
                        black_box(detector.observe(&pace, &sensitivity, tick, 20 * count(tick, rate)));
                    }
                },
                BatchSize::SmallInput,
            );
        });
    }
}

fn metrics(criterion: &mut Criterion) {
    let tuning = Tuning::default();
    let mut detector = MetricDetector::default();
    let mut point = 0;
    criterion.bench_function("alarms/metric point", |bencher| {
        bencher.iter(|| {
            point += 1;
            detector.observe(&tuning, 300 * point, black_box(50.0 + 5.0 * chance(point)))
        });
    });
}

/// A tick of a thousand flows, from their counters to the alarms.
fn desk(criterion: &mut Criterion) {
    const FLOWS: u64 = 1_000;
    let registry = FlowRegistry::default();
    let receiver: Arc<str> = "receiver".into();
    let book = registry.open_book(&"sender".into(), 1);
    let names = (0..FLOWS).map(|flow| format!("area.message-{flow}"));
    let counters: Vec<_> = names.map(|name| book.counters(&name, Some(&receiver))).collect();
    let mut desk = Desk::new(Pace::new(10));
    let mut tick = 10 * DAY;
    let mut live = |messages: u64| {
        for counters in counters.iter().filter(|_| messages > 0) {
            (0..messages).for_each(|_| counters.count_delivered(128));
            counters.count_response(2_000);
        }
        registry.read_changes(tick, |number, more, key| desk.handle_flow(number, more, key));
        desk.handle_tick(tick);
        tick += 1;
        desk.poll()
    };
    (0..400).for_each(|tick| drop(live(5 + tick % 7)));
    criterion.bench_function("alarms/desk tick of 1,000 flows/busy", |bencher| {
        bencher.iter(|| live(black_box(8)));
    });
    criterion.bench_function("alarms/desk tick of 1,000 flows/silent", |bencher| {
        bencher.iter(|| live(black_box(0)));
    });
}

criterion_group!(benches, counts, metrics, desk);
criterion_main!(benches);
