//! The least that a request can take on this machine: bytes that go through a relay over bare TCP and come back. No
//! TLS, no protocol, no decision, no runtime: what no broker between two sockets can be faster than.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use hdrhistogram::Histogram;

use crate::bench::report::{Latency, Report};
use crate::bench::time::{now_ns, seconds_since};
use crate::bench::{BenchError, Options, Progress, Scenario};

/// Plays it: a requester, a relay and a responder, each a thread that waits for its socket and nothing else.
pub(super) fn run(options: &Options, progress: &Progress) -> Result<Report, BenchError> {
    let failed = |error| BenchError::System {
        what: "bare TCP on loopback",
        error,
    };
    let (mut requester, mut relay_near) = pair().map_err(failed)?;
    let (mut relay_far, mut responder) = pair().map_err(failed)?;
    let bytes = options.payload_bytes;
    // Each ends when the one before it closes.
    let relay = thread::spawn(move || {
        let mut buffer = vec![0; bytes];
        while pass(&mut relay_near, &mut relay_far, &mut buffer)
            && pass(&mut relay_far, &mut relay_near, &mut buffer)
        {}
    });
    let answers = thread::spawn(move || {
        let mut buffer = vec![0; bytes];
        while responder.read_exact(&mut buffer).is_ok() && responder.write_all(&buffer).is_ok() {}
    });
    let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).expect("a fixed range");
    let mut buffer = vec![b'x'; bytes];
    let start_ns = now_ns();
    while seconds_since(start_ns) < options.seconds {
        progress.show(seconds_since(start_ns) / options.seconds, String::new());
        for _ in 0..100 {
            let asked_ns = now_ns();
            requester.write_all(&buffer).map_err(failed)?;
            requester.read_exact(&mut buffer).map_err(failed)?;
            histogram.saturating_record(now_ns().saturating_sub(asked_ns));
        }
    }
    let seconds = seconds_since(start_ns);
    drop(requester);
    for thread in [relay, answers] {
        thread
            .join()
            .map_err(|_| BenchError::Stuck("a thread of the floor ended early; nothing".to_owned()))?;
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of a few seconds")]
    let per_second = histogram.len() as f64 / seconds;
    Ok(Report {
        seconds,
        per_second,
        ..Report::unmeasured(Scenario::Floor, options)
    }
    .with_latency(Some(Latency::of(&histogram))))
}

fn pass(from: &mut TcpStream, to: &mut TcpStream, buffer: &mut [u8]) -> bool {
    from.read_exact(buffer).is_ok() && to.write_all(buffer).is_ok()
}

fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    for end in [&near, &far] {
        end.set_nodelay(true)?;
    }
    Ok((near, far))
}
