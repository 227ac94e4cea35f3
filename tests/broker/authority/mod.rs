//! Authority on every path: who may do what with which message, and by which line of the policy. One table, asked of
//! the policy alone and of a running broker, by publishing, requesting and subscribing; then the ways around it that a
//! hostile client would try.

mod changes;
mod headers;
mod replies;
mod table;
mod ways;

use crate::support::{Broker, Raw};

/// The broker's words for a publication that may not be.
fn publish_denied(name: &str) -> String {
    format!("-ERR 'Permissions Violation for Publish to \"{}\"'", quoted(name))
}

/// The broker's words for a subscription that may not be.
fn subscription_denied(pattern: &str, queue: Option<&str>) -> String {
    let queue = queue.map_or(String::new(), |queue| format!(" using queue \"{queue}\""));
    format!(
        "-ERR 'Permissions Violation for Subscription to \"{}\"{queue}'",
        quoted(pattern)
    )
}

/// A client's own word as it is told to it.
fn quoted(word: &str) -> String {
    word.replace('"', "\\\"")
        .replace('\0', "\\x00")
        .replace('\u{7f}', "\\x7f")
}

/// A client that says what it does, and remembers nothing.
struct Client(Raw);

impl Client {
    fn of(broker: &Broker, service: &str) -> Self {
        Self(broker.raw_ready(service))
    }

    /// Sends operations and gives all that it hears until the broker has done them.
    fn does(&mut self, operations: &str) -> Vec<String> {
        self.0.send(format!("{operations}PING\r\n").as_bytes());
        let mut heard = Vec::new();
        loop {
            match self.0.message() {
                line if line == "PONG" => return heard,
                line => heard.push(line),
            }
        }
    }

    fn publishes(&mut self, name: &str, payload: &str) -> Vec<String> {
        self.does(&format!("PUB {name} {}\r\n{payload}\r\n", payload.len()))
    }

    fn asks(&mut self, name: &str, inbox: &str, payload: &str) -> Vec<String> {
        self.does(&format!("PUB {name} {inbox} {}\r\n{payload}\r\n", payload.len()))
    }

    fn publishes_with(&mut self, name: &str, headers: &str, payload: &str) -> Vec<String> {
        let (headers_len, len) = (headers.len(), headers.len() + payload.len());
        self.does(&format!(
            "HPUB {name} {headers_len} {len}\r\n{headers}{payload}\r\n"
        ))
    }

    fn subscribes(&mut self, pattern: &str, sid: &str) -> Vec<String> {
        self.does(&format!("SUB {pattern} {sid}\r\n"))
    }

    /// What has come meanwhile.
    fn hears(&mut self) -> Vec<String> {
        self.does("")
    }
}

/// The reply subject of a delivered message.
fn reply_of(message: &str) -> &str {
    let line = message.lines().next().unwrap_or_default();
    let words: Vec<_> = line.split(' ').collect();
    assert_eq!(
        (words.len(), words[0]),
        (6, "HMSG"),
        "a message with a reply subject: {message:?}"
    );
    words[3]
}

/// The header lines of a delivered message, and its payload.
fn parts_of(message: &str) -> (Vec<&str>, &str) {
    let (line, rest) = message.split_once("\r\n").expect("a line");
    assert!(line.starts_with("HMSG "), "{message:?}");
    let (headers, payload) = rest
        .split_once("\r\n\r\n")
        .expect("an empty line after the headers");
    (
        headers.split("\r\n").collect(),
        payload.strip_suffix("\r\n").expect("the end of a message"),
    )
}
