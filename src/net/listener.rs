//! One zone's port: accepts sockets, within the bounds on half-open handshakes, and hands them to the threads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;

use crate::net::broker::Broker;
use crate::net::connection::told;
use crate::net::half_open::HalfOpenPlace;
use crate::net::tls::TlsServer;
use crate::net::worker::Worker;

/// A listener's name, zone and TLS; the TLS is swapped whole when its files change.
#[derive(Debug)]
pub struct Listener {
    /// Its name in the configuration.
    pub name: String,
    /// The zone whose services may use it; `None` serves them all.
    pub zone: Option<Arc<str>>,
    /// Where it listens.
    pub address: SocketAddr,
    /// The server's side of TLS.
    pub tls: ArcSwap<TlsServer>,
}

/// A socket that waits for its handshake.
#[derive(Debug)]
pub struct Accepted {
    /// The socket.
    pub socket: std::net::TcpStream,
    /// The client's address.
    pub address: SocketAddr,
    /// Where it came in.
    pub listener: Arc<Listener>,
    /// Its place among the handshakes under way.
    pub place: HalfOpenPlace,
}

/// Accepts until the task is dropped.
pub async fn accept(
    listener: Arc<Listener>,
    socket: TcpListener,
    broker: Arc<Broker>,
    workers: Arc<[Worker]>,
) {
    let mut next = 0;
    loop {
        let (stream, address) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Most often no file descriptor is left: those that end give some back.
                if let Some(withheld) = broker.stranger_lines.take(broker.clock.now_us()) {
                    let withheld = told(withheld);
                    tracing::error!(
                        listener = listener.name, %error, withheld, "cannot accept; trying again in 100 ms"
                    );
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let place = match broker.take_half_open(address.ip()) {
            Ok(place) => place,
            Err(rule) => {
                broker.refuse(&listener.name, address, rule, None);
                tracing::debug!(listener = listener.name, %address, rule, "refused before the handshake");
                continue;
            }
        };
        let prepared = stream.set_nodelay(true).and_then(|()| stream.into_std());
        let Ok(socket) = prepared else { continue };
        let accepted = Accepted {
            socket,
            address,
            listener: Arc::clone(&listener),
            place,
        };
        // The thread with the fewest connections; of equals, the next in turn.
        next += 1;
        let count = workers.len();
        let chosen = (0..count)
            .map(|step| (next + step) % count)
            .min_by_key(|&index| workers.get(index).map_or(usize::MAX, Worker::load));
        if let Some(worker) = chosen.and_then(|index| workers.get(index)) {
            worker.take(accepted);
        }
    }
}
