//! A crowd that begins handshakes and does not finish them: those with a session notice nothing, whoever comes in earnest
//! comes in, and the places are free again soon. How many is for `EXOCOM_FLOOD_CONNECTIONS` to say.

#![expect(clippy::disallowed_methods, reason = "what is told is how long it takes")]

use std::io::Write;
use std::time::Instant;

use super::port::{client_hello, connect_from, connect_to};
use super::*;

/// Half-open connections of one address, far fewer than one may hold.
const PER_ADDRESS: usize = 250;

/// Asks so long, and tells the 50th and 99th percentile and the longest of the answers.
fn probed(raw: &mut crate::support::Raw, rounds: usize) -> [Duration; 3] {
    let mut times: Vec<_> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            raw.send(b"PING\r\n");
            assert_eq!(raw.line(), "PONG");
            std::thread::sleep(Duration::from_micros(500));
            start.elapsed() - Duration::from_micros(500)
        })
        .collect();
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    [at(0.5), at(0.99), at(1.0)]
}

#[test]
fn a_crowd_at_the_door_keeps_nobody_out() {
    let count: usize =
        std::env::var("EXOCOM_FLOOD_CONNECTIONS").map_or(600, |count| count.parse().expect("a number"));
    // Room for half of them.
    let limits = format!(
        "half-open = {}\nhalf-open-per-address = {}",
        count / 2,
        PER_ADDRESS
    );
    let broker = Broker::serve(POLICY, &limited(&limits).replace("threads = 1\n", ""));
    let hello = client_hello(&broker);
    let mut known = broker.raw_ready("web");
    let calm = probed(&mut known, 1_000);
    let start = Instant::now();
    // Some say nothing, some say hello and then nothing.
    let crowd: Vec<_> = (0..count)
        .map(|place| {
            let mut socket = connect_from(&broker, 10 + (place / PER_ADDRESS) as u8);
            if place % 2 == 0 {
                drop(socket.write_all(&hello));
            }
            socket
        })
        .collect();
    let crowded = probed(&mut known, 1_000);
    let newcomer = Instant::now();
    // A client tries again where it was refused.
    wait_for("a newcomer to come in", || {
        let tls = broker.tls("mallory");
        let raw = crate::support::Raw::connect(broker.address(), &tls);
        raw.is_ok_and(|mut raw| matches!(raw.try_line(), Ok(Some(_))))
    });
    let newcomer = newcomer.elapsed();
    wait_for("all places to be free", || {
        broker.status()["counts"]["half_open"] == 0
    });
    let free = start.elapsed();
    eprintln!(
        "{count} half-open: answers took {calm:?} before and {crowded:?} meanwhile (p50, p99, longest); a newcomer came \
         in after {newcomer:?}; all places were free {free:?} after the first had come"
    );
    drop(crowd);
}

#[test]
fn handshakes_that_fail_delay_nobody_at_another_address() {
    let broker = Broker::serve(POLICY, ONE_THREAD);
    let stop = Arc::new(AtomicBool::new(false));
    let failing: Vec<_> = (0..4_u8)
        .map(|thread| {
            let (stop, address) = (Arc::clone(&stop), broker.address());
            let mut stranger = ClientConfig::clone(&broker.tls("web"));
            // Without a certificate.
            stranger.client_auth_cert_resolver = Arc::new(NoCertificate);
            let stranger = Arc::new(stranger);
            std::thread::spawn(move || {
                let mut failed = 0_u64;
                while !stop.load(Relaxed) {
                    let mut socket = connect_to(address, 20 + thread);
                    let name = ServerName::try_from("localhost").expect("a DNS name");
                    let mut tls = ClientConnection::new(Arc::clone(&stranger), name).expect("a client");
                    while tls.is_handshaking() && tls.complete_io(&mut socket).is_ok() {}
                    let mut rest = [0; 64];
                    let mut stream = rustls::Stream::new(&mut tls, &mut socket);
                    assert!(
                        !matches!(stream.read(&mut rest), Ok(1..)),
                        "nobody without a certificate gets an INFO"
                    );
                    failed += 1;
                }
                failed
            })
        })
        .collect();
    wait_for("failures", || refused(&broker, "no-certificate") > 20);
    for _ in 0..20 {
        broker.raw_ready("mallory");
    }
    stop.store(true, Relaxed);
    let failed: u64 = failing
        .into_iter()
        .map(|thread| thread.join().expect("no panic"))
        .sum();
    assert!(failed > 20, "{failed}");
    assert_eq!(refused(&broker, "half-open-per-address"), 0);
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}
