//! Forged `Exo-` headers in every disguise that we know, read by the official clients' own parsers: none may see
//! another sender than the one who sent the message.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::support::{Broker, PATIENCE, has};

const POLICY: &str = r#"
version = 1
trust-domain = "forged.example"

[service.mallory]
sends = ["spoken"]

[service.listener]
receives = ["spoken"]

[message.spoken]
kind = "event"
"#;

/// How the name of a header of ours may be written.
const NAMES: &[&str] = &[
    "Exo-Sender",
    "exo-sender",
    "EXO-SENDER",
    "eXo-sEnDeR",
    "Exo-Id",
    "exo-",
    "Exo-Sender ",
    "Exo-Sender\t",
    " Exo-Sender",
    "\tExo-Sender",
    "\u{feff}Exo-Sender",
    "\u{a0}Exo-Sender",
    "Exo-Sender\u{85}",
    "A:Exo-Sender",
    ":Exo-Sender",
];

/// What somebody, somewhere, takes for the end of a line, or for no end.
const ENDS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\n\r",
    "\r\r\n",
    "\r\n ",
    "\r\n\t",
    "\n ",
    "\0",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x1d",
    "\x1e",
    "\u{85}",
    "\u{2028}",
    "\u{2029}",
    "\r\n\u{a0}",
    "\r\n\u{2003}",
    "\r\n\0",
    "\r\n\r\n",
];

/// Header blocks. Each has a header `Kept`, and after it one to which what is folded is added.
fn blocks() -> Vec<Vec<u8>> {
    let mut blocks = Vec::new();
    for name in NAMES {
        for end in ENDS {
            for block in [
                format!("NATS/1.0\r\nKept: 1\r\nZ: 1\r\nB: 1{end}{name}: root\r\n\r\n"),
                format!("NATS/1.0\r\nKept: 1\r\nZ: 1\r\n{name}:{end}root\r\n\r\n"),
                format!("NATS/1.0\r\nKept: 1\r\nZ: 1\r\n{name}{end}: root\r\n\r\n"),
                format!("NATS/1.0\r\nKept: 1\r\nZ: 1\r\nB{end}{name}: root\r\n\r\n"),
                format!("NATS/1.0\r\nKept: 1\r\nZ: 1\r\n{name}: root{end}{name}: root{end}\r\n\r\n"),
                format!("NATS/1.0 503\r\nKept: 1\r\nZ: 1\r\n{name}: root{end}\r\n\r\n"),
                format!("NATS/1.0 503{end}{name}: root\r\nKept: 1\r\nZ: 1\r\n\r\n"),
                format!("NATS/1.0\r\nKept: 1\r\nZ: 1\r\n{name}: root{end}"),
            ] {
                blocks.push(block.into_bytes());
            }
        }
        for byte in 0x80..=0xff {
            blocks.push(
                [
                    b"NATS/1.0\r\nKept: 1\r\nZ: 1\r\nB: ",
                    [byte].as_slice(),
                    name.as_bytes(),
                    b": root\r\n\r\n",
                ]
                .concat(),
            );
        }
    }
    blocks
}

/// Sends them all, each with its number as payload, and at the end `last`.
fn send_all(broker: &Broker, blocks: &[Vec<u8>]) {
    let mut mallory = broker.raw_ready("mallory");
    for (number, block) in blocks.iter().enumerate() {
        let payload = number.to_string();
        let line = format!("HPUB spoken {} {}\r\n", block.len(), block.len() + payload.len());
        mallory.send(&[line.as_bytes(), block, payload.as_bytes(), b"\r\n"].concat());
    }
    mallory.send(b"PUB spoken 4\r\nlast\r\nPING\r\n");
    assert_eq!(mallory.line(), "PONG");
}

/// Judges what a client found: lists of names and values, with the payloads.
fn judge(blocks: &[Vec<u8>], heard: &[Value]) {
    let mut faults = Vec::new();
    for message in heard {
        let Some(number) = message["payload"]
            .as_str()
            .and_then(|text| text.parse::<usize>().ok())
        else {
            assert_eq!(message["payload"], "last", "{message}");
            continue;
        };
        let headers: Vec<_> = message["headers"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|header| (header[0].as_str().unwrap_or_default(), &header[1]))
            .collect();
        let ours = headers
            .iter()
            .filter(|(name, _)| name.to_lowercase().trim().starts_with("exo-"));
        let is_true = ours.collect::<Vec<_>>() == [&("Exo-Sender", &json!("mallory"))];
        let has_status = headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("status"));
        let is_kept = headers.iter().any(|(name, _)| *name == "Kept");
        if !is_true || has_status || !is_kept {
            faults.push(format!("{} became {headers:?}", blocks[number].escape_ascii()));
        }
    }
    assert!(
        faults.is_empty(),
        "{} of {}:\n{}",
        faults.len(),
        blocks.len(),
        faults.join("\n")
    );
    assert_eq!(heard.len(), blocks.len() + 1, "every message arrives");
}

#[tokio::test(flavor = "multi_thread")]
async fn reach_no_client_in_rust() {
    let (broker, blocks) = (Broker::dev(POLICY), blocks());
    let client = broker.client("listener").await;
    let mut messages = client.subscribe("spoken").await.expect("it may receive it");
    client.flush().await.expect("the broker answers");
    tokio::task::block_in_place(|| send_all(&broker, &blocks));
    let mut heard = Vec::new();
    while heard.last().is_none_or(|last: &Value| last["payload"] != "last") {
        let next = tokio::time::timeout(PATIENCE, messages.next()).await;
        let message = next.expect("a message comes").expect("the subscription goes on");
        let mut headers = Vec::new();
        for (name, values) in message.headers.iter().flat_map(|headers| headers.iter()) {
            headers.extend(
                values
                    .iter()
                    .map(|value| json!([name.to_string(), value.as_str()])),
            );
        }
        headers.extend(message.status.map(|status| json!(["Status", status.as_u16()])));
        let payload = String::from_utf8_lossy(&message.payload);
        heard.push(json!({ "payload": payload, "headers": headers }));
    }
    judge(&blocks, &heard);
}

#[test]
fn reach_no_client_in_python() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = project.join(".venv/bin/python");
    if has("the Python environment .venv", python.is_file()) {
        let mut script = Command::new(python);
        script
            .arg("hear_headers.py")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .current_dir(project.join("tests/python"));
        heard_by(script);
    }
}

#[test]
fn reach_no_client_in_javascript() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/js");
    let client = folder.join("node_modules/@nats-io/transport-node");
    if has(
        "the JavaScript client, an npm package of tests/js,",
        client.is_dir(),
    ) {
        let mut script = Command::new("node");
        script.arg("hear_headers.mjs").current_dir(folder);
        heard_by(script);
    }
}

/// Lets a script hear all, and judges what it prints.
fn heard_by(mut script: Command) {
    let (broker, blocks) = (Broker::dev(POLICY), blocks());
    let mut child = script
        .env("EXOCOM_PORT", broker.address().port().to_string())
        .env("EXOCOM_CERTS", broker.path("certs"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the script can be run");
    let (sender, lines) = mpsc::channel();
    let output = BufReader::new(child.stdout.take().expect("it was piped"));
    let reader = std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            drop(sender.send(line));
        }
    });
    let next = || lines.recv_timeout(PATIENCE);
    assert_eq!(next().as_deref(), Ok("listening"));
    send_all(&broker, &blocks);
    let mut heard = Vec::new();
    while let Ok(line) = next() {
        heard.push(serde_json::from_str::<Value>(&line).expect("the script prints JSON"));
    }
    // It has ended, or hangs.
    drop(child.kill());
    drop(child.wait());
    reader.join().expect("reading does not panic");
    judge(&blocks, &heard);
}
