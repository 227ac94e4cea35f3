//! docs/protocol.md, sentence by sentence, in raw bytes: each test names the numbers that it shows.

mod handshake;
mod headers;
mod operations;
mod refusals;
mod requests;
mod subscriptions;
mod tracked;

use crate::support::{Broker, Raw};

/// Three services: one asks and tells, one answers, one only listens.
const POLICY: &str = r#"
version = 1
trust-domain = "protocol.example"

[service.web]
sends = ["orders.*", "news.>"]
receives = ["news.>"]

[service.orders]
receives = ["orders.*"]

[service.audit]
receives = ["orders.*", "news.>"]

[message."orders.slow"]
reply-within = "300ms"

[message."orders.patient"]
reply-within = "1h"

[message."orders.small"]
payload-max = "8B"
"#;

/// A configuration for `exocom serve`, with further limits.
fn configuration(listener: &str, limits: &str) -> String {
    format!(
        "version = 1\npolicy = \"policy.toml\"\nadmin-socket = \"admin.sock\"\n\
         [tls]\ncertificate = \"certs/server.pem\"\nkey = \"certs/server.key\"\n\
         [listener.main]\naddress = \"127.0.0.1:0\"\nroots = [\"certs/ca.pem\"]\n{listener}\n\
         [limits]\nlame-duck-ms = 0\n{limits}\n"
    )
}

/// Sends bytes and then PING. Gives all that comes before the PONG.
fn said(raw: &mut Raw, bytes: impl AsRef<[u8]>) -> Vec<String> {
    raw.send(&[bytes.as_ref(), b"PING\r\n"].concat());
    let mut heard = Vec::new();
    loop {
        match raw.message() {
            line if line == "PONG" => return heard,
            line => heard.push(line),
        }
    }
}

/// Does bytes that are answered with nothing, such as a good SUB.
fn does(raw: &mut Raw, bytes: impl AsRef<[u8]>) {
    let bytes = bytes.as_ref();
    let heard = said(raw, bytes);
    assert!(
        heard.is_empty(),
        "{heard:?} after {:?}",
        String::from_utf8_lossy(bytes)
    );
}

/// What has come to a connection by now.
fn heard(raw: &mut Raw) -> Vec<String> {
    said(raw, b"")
}

/// The first line and the payload of each message, without the headers that ExoCom adds.
fn plainly(messages: &[String]) -> Vec<(String, String)> {
    messages
        .iter()
        .map(|message| (subject(message), payload(message)))
        .collect()
}

fn subject(message: &str) -> String {
    message.split(' ').nth(1).unwrap_or_default().to_owned()
}

fn payload(message: &str) -> String {
    let end = if message.starts_with("MSG ") {
        "\r\n"
    } else {
        "\r\n\r\n"
    };
    let body = message.split_once(end).map_or("", |(_, payload)| payload);
    body.strip_suffix("\r\n").unwrap_or(body).to_owned()
}

fn payloads(messages: &[String]) -> Vec<String> {
    messages.iter().map(|message| payload(message)).collect()
}

/// The reply subject in `HMSG subject sid reply …`.
fn reply_of(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let words: Vec<_> = line.split(' ').collect();
    assert_eq!(words.len(), 6, "a reply subject in {line}");
    words[3].to_owned()
}

/// The value of a header, if it is there.
fn header(message: &str, name: &str) -> Option<String> {
    let start = format!("{name}: ");
    message
        .lines()
        .find_map(|line| line.strip_prefix(&start))
        .map(str::to_owned)
}

/// The reason in a message that must be a refusal.
fn reason(message: &str) -> String {
    assert!(message.contains("\r\nNATS/1.0 503\r\n"), "{message}");
    assert_eq!(payload(message), "", "{message}");
    header(message, "Exo-Reason").expect("a refusal says why")
}

/// Sends bytes on a connection of its own that is closed for them; gives what it says before.
fn last_words(broker: &Broker, service: &str, bytes: impl AsRef<[u8]>) -> String {
    let mut raw = broker.raw_ready(service);
    raw.send(bytes.as_ref());
    raw.rest()
}

fn publish_denied(name: &str) -> String {
    format!("-ERR 'Permissions Violation for Publish to \"{name}\"'")
}

fn subscription_denied(pattern: &str) -> String {
    format!("-ERR 'Permissions Violation for Subscription to \"{pattern}\"'")
}

const UNKNOWN_OPERATION: &str = "-ERR 'Unknown Protocol Operation'\r\n";
const AUTHORIZATION_VIOLATION: &str = "-ERR 'Authorization Violation'\r\n";
const PAYLOAD_VIOLATION: &str = "-ERR 'Maximum Payload Violation'\r\n";
const STALE: &str = "-ERR 'Stale Connection'\r\n";
