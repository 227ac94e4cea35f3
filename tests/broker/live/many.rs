//! A change of authority with many connections open: it reaches each that it concerns, spares the others, and stalls
//! nobody. How many is for `EXOCOM_AUTHORITY_CONNECTIONS` to say; the times are told, not judged.

#![expect(clippy::disallowed_methods, reason = "what is told is how long it takes")]

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};

use super::*;

/// Threads that ask all the time how quickly they are answered.
const PROBES: usize = 4;

/// Opens connections, each with a certificate of its own.
fn open(shop: &Shop, ca: &Ca, service: &str, count: usize) -> Vec<Raw> {
    let one = || {
        let shown = ca.leaf(|params| params.subject_alt_names = vec![uri(&id(service))]);
        shop.connect(&shown)
    };
    (0..count).map(|_| one()).collect()
}

/// Runs `work` while probes ask. Says how long it took, and the 50th and 99th percentile and the longest of the answers.
fn while_probed(probes: &mut [Raw], work: impl FnOnce()) -> (Duration, [Duration; 3]) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking: Vec<_> = probes
            .iter_mut()
            .map(|raw| {
                let is_over = &is_over;
                scope.spawn(move || {
                    let mut times = Vec::new();
                    while !is_over.load(Relaxed) {
                        let start = Instant::now();
                        check_alive(raw);
                        times.push(start.elapsed());
                        std::thread::sleep(Duration::from_micros(500));
                    }
                    times
                })
            })
            .collect();
        let start = Instant::now();
        work();
        let took = start.elapsed();
        is_over.store(true, Relaxed);
        let mut times: Vec<_> = asking
            .into_iter()
            .flat_map(|probe| probe.join().expect("probes do not panic"))
            .collect();
        times.sort();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
        (took, [at(0.5), at(0.99), at(1.0)])
    })
}

#[test]
fn a_change_reaches_all_that_it_concerns_and_stalls_nobody() {
    let count: usize =
        std::env::var("EXOCOM_AUTHORITY_CONNECTIONS").map_or(120, |count| count.parse().expect("a number"));
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("up to its maximum");
    let shop = Shop::open();
    let other = Ca::root("other");
    shop.put_roots(&[&shop.ca, &other]);
    wait_for("the second root", || shop.is_let_in(&other.leaf(|_| {})));
    let mut probes = open(&shop, &shop.ca, "web", PROBES);
    let tenth = count / 10;
    let mut rest = open(&shop, &shop.ca, "web", count - 3 * tenth);
    let mut tell = |what: &str, probes: &mut [Raw], cut_off: Vec<Raw>, work: &dyn Fn()| {
        let (_, calm) = while_probed(probes, || std::thread::sleep(Duration::from_secs(1)));
        let (took, busy) = while_probed(probes, || {
            work();
            for mut raw in cut_off {
                assert_eq!(raw.rest(), "-ERR 'Stale Connection'\r\n");
            }
        });
        eprintln!(
            "{what}: {took:?} until the last of {tenth} had ended; answers took {calm:?} before, {busy:?} meanwhile \
             (p50, p99, longest), with {count} connections"
        );
        for raw in &mut rest {
            check_alive(raw);
        }
    };
    let cut_off = open(&shop, &shop.ca, "orders", tenth);
    tell("revoked service", &mut probes, cut_off, &|| {
        shop.succeeds(&["certs", "revoke", "orders", "--reason", "a test"]);
    });
    shop.succeeds(&["certs", "unrevoke", "orders", "--reason", "a test"]);
    let cut_off = open(&shop, &shop.ca, "orders", tenth);
    let without = POLICY.replace("[service.orders]", "[service.other]");
    tell("changed policy, noticed", &mut probes, cut_off, &|| {
        std::fs::write(shop.broker.path("policy.new"), &without).expect("a file");
        std::fs::rename(shop.broker.path("policy.new"), shop.broker.path("policy.toml")).expect("a file");
    });
    let cut_off = open(&shop, &other, "web", tenth);
    tell("removed root, noticed", &mut probes, cut_off, &|| {
        shop.put_roots(&[&shop.ca])
    });
}
