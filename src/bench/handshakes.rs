//! How many clients a second get in: TCP, a full mutual handshake, CONNECT, PING, and the server's PONG, which
//! proves that it took the certificate.

use std::sync::Arc;

use crate::bench::board::{Board, Phase, Player};
use crate::bench::client::{Badge, Link, Target};
use crate::bench::report::Report;
use crate::bench::{BenchError, Options, Progress, Scenario, cast};

/// Clients that try at the same time, on each thread.
const AT_ONCE: usize = 8;

/// Plays it.
pub(super) fn run(target: &Target, options: &Options, progress: &Progress) -> Result<Report, BenchError> {
    let threads = options.threads.max(1);
    let board = Board::new(threads * AT_ONCE);
    let badge = Badge::read(target, cast::REQUESTER)?;
    let players = (0..threads)
        .map(|thread| {
            let client = |index: usize| -> Player {
                let (target, badge, board) = (target.clone(), badge.clone(), Arc::clone(&board));
                Box::new(move || Box::pin(knock(target, badge, board, thread * AT_ONCE + index)))
            };
            (0..AT_ONCE).map(client).collect()
        })
        .collect();
    let measured = board.play(players, 0..threads * AT_ONCE, options, progress)?;
    Ok(Report::new(Scenario::Handshakes, options, measured))
}

async fn knock(target: Target, badge: Badge, board: Arc<Board>, counter: usize) -> Result<(), BenchError> {
    board.ready().await;
    let mut done = 0;
    while board.phase() == Phase::Play {
        drop(Link::open(&target, &badge).await?);
        done += 1;
        board.counter(counter).set(done);
    }
    board.drained().await;
    Ok(())
}
