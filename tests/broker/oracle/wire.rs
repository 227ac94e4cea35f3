//! A connection that loses nothing: bytes that came before the other side closed are read even where our own
//! writing has failed since.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::trace::{Item, parse};
use crate::support::PATIENCE;

/// See the module's documentation.
pub struct Wire {
    tls: ClientConnection,
    socket: TcpStream,
    unparsed: Vec<u8>,
    items: Vec<Item>,
    is_closed: bool,
}

impl Wire {
    /// Shakes hands and reads INFO.
    pub fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        let socket = TcpStream::connect_timeout(&address, PATIENCE).expect("the port is open");
        socket.set_nodelay(true).expect("an option of TCP");
        socket
            .set_write_timeout(Some(PATIENCE))
            .expect("a time above zero");
        let name = ServerName::try_from("localhost").expect("a DNS name");
        let tls = ClientConnection::new(Arc::clone(config), name).expect("a client");
        let mut wire = Self {
            tls,
            socket,
            unparsed: Vec::new(),
            items: Vec::new(),
            is_closed: false,
        };
        while wire.tls.is_handshaking() {
            wire.write();
            wire.read(PATIENCE);
            assert!(!wire.is_closed, "closed in the handshake");
        }
        // Our certificate is on its way only now.
        wire.write();
        let has_come = wire.wait(PATIENCE, |items| matches!(items, [Item::Info, ..]));
        assert!(has_come, "no INFO: {:?}", wire.items);
        wire.items.clear();
        wire
    }

    /// Sends each piece in a TLS record and a segment of its own, as far as the other side still takes them.
    pub fn send<'a>(&mut self, pieces: impl IntoIterator<Item = &'a [u8]>) {
        for piece in pieces {
            self.tls.writer().write_all(piece).expect("rustls takes all");
            self.write();
        }
    }

    /// Reads until something holds for what has come since the last [`Wire::take`], or the other side has closed.
    /// `false` where neither happened in time.
    pub fn wait(&mut self, patience: Duration, holds: impl Fn(&[Item]) -> bool) -> bool {
        while !self.is_closed && !holds(&self.items) {
            if !self.read(patience) {
                return false;
            }
        }
        true
    }

    /// Takes what has come.
    pub fn take(&mut self) -> Vec<Item> {
        std::mem::take(&mut self.items)
    }

    /// Whether the other side has closed.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    fn write(&mut self) {
        while self.tls.wants_write() {
            if self.tls.write_tls(&mut self.socket).is_err() {
                return;
            }
        }
    }

    /// Reads once; `false` where nothing came in time.
    fn read(&mut self, patience: Duration) -> bool {
        self.socket
            .set_read_timeout(Some(patience))
            .expect("a time above zero");
        match self.tls.read_tls(&mut self.socket) {
            Ok(0) => self.is_closed = true,
            Ok(_) => {
                let state = self.tls.process_new_packets().expect("the server speaks TLS");
                let mut bytes = vec![0; state.plaintext_bytes_to_read()];
                self.tls.reader().read_exact(&mut bytes).expect("they are there");
                self.unparsed.extend_from_slice(&bytes);
                self.is_closed |= state.peer_has_closed();
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return false;
            }
            Err(_) => self.is_closed = true,
        }
        self.items.extend(parse(&mut self.unparsed));
        if self.is_closed {
            assert!(
                self.unparsed.is_empty(),
                "the last words are cut: {}",
                self.unparsed.escape_ascii()
            );
            self.items.push(Item::Closed);
        }
        true
    }
}
