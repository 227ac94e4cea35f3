//! The load generator: it finds nothing wrong with the broker, and it does find what is wrong with another.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, its helpers too"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;

fn bench(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(cargo_bin!("exocom"))
        .arg("bench")
        .args(arguments)
        .output()
        .expect("the program runs");
    (
        output.status.code().expect("it ends by itself"),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

fn reports(arguments: &[&str]) -> Vec<Value> {
    let (code, out, err) = bench(&[arguments, &["--json"]].concat());
    assert_eq!(code, 0, "{err}");
    out.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn all_scenarios_hold_on_a_broker_of_its_own() {
    let reports = reports(&["all", "--seconds", "0.3", "--idle-max", "1000", "--names", "3"]);
    let scenarios: Vec<&str> = reports
        .iter()
        .map(|report| report["scenario"].as_str().unwrap())
        .collect();
    assert_eq!(scenarios, ["a", "b", "c", "d1", "d256", "handshakes", "idle"]);
    for report in &reports {
        match report["scenario"].as_str().unwrap() {
            "idle" => assert!(report["idle"][0]["bytes_per_connection"].as_u64().unwrap() > 1000),
            "handshakes" => assert!(report["per_second"].as_f64().unwrap() > 1.0),
            scenario => {
                let checked = &report["checked"];
                let sent = checked["sent"].as_u64().unwrap();
                let receivers = if scenario == "c" { 8 } else { 1 };
                assert!(sent > 10, "{report}");
                assert_eq!(checked["received"], sent * receivers, "{report}");
                assert!(report["server_cpu"].as_f64().unwrap() > 0.0);
            }
        }
        if report["scenario"] == "d256" {
            let latency = |name: &str| report["latency"][name].as_f64().unwrap();
            assert!(latency("p50_us") > 0.0 && latency("p50_us") <= latency("p99_us"));
        }
    }
}

#[test]
fn tracked_messages_are_stored_received_and_acknowledged() {
    let reports = reports(&["tracked", "--seconds", "0.3"]);
    let scenarios: Vec<&str> = reports
        .iter()
        .map(|report| report["scenario"].as_str().unwrap())
        .collect();
    assert_eq!(scenarios, ["p1", "p64", "p1024", "e1024"]);
    for report in &reports {
        assert!(report["per_second"].as_f64().unwrap() > 1.0, "{report}");
        assert_eq!(
            report["checked"]["received"], report["checked"]["sent"],
            "{report}"
        );
    }
    // Of the others, a busy machine may end no message that began within so short a time.
    assert!(
        reports[0]["latency"]["p50_us"].as_f64().unwrap() > 0.0,
        "{}",
        reports[0]
    );
}

#[test]
fn the_floor_is_measured_without_a_broker() {
    let reports = reports(&["floor", "--seconds", "0.1"]);
    assert!(
        reports[0]["latency"]["p50_us"].as_f64().unwrap() > 0.0,
        "{}",
        reports[0]
    );
}

/// What a server that knows only one sender and one receiver does with each message.
type Forward = fn(number: u64, message: &[u8], receiver: &mut TcpStream);

/// A server without TLS that speaks just enough for scenario `a`. Ends with the test.
fn one_way_server(forward: Forward) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let receiver: Arc<Mutex<Option<TcpStream>>> = Arc::default();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let (socket, receiver) = (socket.unwrap(), Arc::clone(&receiver));
            thread::spawn(move || serve(socket, &receiver, forward));
        }
    });
    address
}

/// Returns at the first sign that the client is gone.
fn serve(socket: TcpStream, receiver: &Mutex<Option<TcpStream>>, forward: Forward) -> Option<()> {
    let mut own = socket.try_clone().ok()?;
    own.write_all(b"INFO {\"server_id\":\"x\",\"headers\":true,\"max_payload\":1048576}\r\n")
        .ok()?;
    let mut reader = BufReader::new(socket);
    let mut number = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["PING"] => {
                // After all that was forwarded to it.
                let _order = receiver.lock().unwrap();
                own.write_all(b"PONG\r\n").ok()?;
            }
            ["SUB", ..] => *receiver.lock().unwrap() = Some(own.try_clone().ok()?),
            ["PUB", name, size] => {
                let size: usize = size.parse().unwrap();
                let mut payload = vec![0; size + 2];
                reader.read_exact(&mut payload).ok()?;
                let mut message = format!("MSG {name} 1 {size}\r\n").into_bytes();
                message.extend_from_slice(&payload);
                if let Some(receiver) = receiver.lock().unwrap().as_mut() {
                    forward(number, &message, receiver);
                }
                number += 1;
            }
            _ => {}
        }
    }
}

/// Errors show on the next read.
fn write(receiver: &mut TcpStream, message: &[u8]) {
    drop(receiver.write_all(message));
}

fn verdict(forward: Forward) -> (i32, String) {
    let server = one_way_server(forward);
    let (code, _, err) = bench(&[
        "a",
        "--seconds",
        "0.2",
        "--server",
        &server,
        "--tls",
        "none",
        "--nats",
        "--size",
        "64",
    ]);
    (code, err)
}

#[test]
fn a_server_that_does_it_right_passes() {
    let (code, err) = verdict(|_, message, receiver| write(receiver, message));
    assert_eq!(code, 0, "{err}");
}

#[test]
fn what_a_server_does_wrong_is_found() {
    let found = |forward: Forward, expected: &str| {
        let (code, err) = verdict(forward);
        assert!(code == 1 && err.contains(expected), "{code}: {err}");
    };
    let twice: Forward = |number, message, receiver| {
        write(receiver, message);
        if number == 100 {
            write(receiver, message);
        }
    };
    found(twice, "message 100 came again");
    let not_at_all: Forward = |number, message, receiver| {
        if number != 100 {
            write(receiver, message);
        }
    };
    found(not_at_all, "message 101 came too early");
    let changed: Forward = |number, message, receiver| {
        let mut message = message.to_vec();
        if number == 100 {
            let place = message.len() - 3;
            message[place] ^= 1;
        }
        write(receiver, &message);
    };
    found(changed, "message 100 has a changed payload");
    let elsewhere: Forward = |number, message, receiver| {
        let mut message = message.to_vec();
        if number == 100 {
            message[4] = b'B';
        }
        write(receiver, &message);
    };
    found(elsewhere, "Bench.p0.n0");
}

#[test]
fn a_last_message_that_is_lost_is_found() {
    // All but the first hundred: the sender waits for them in vain, and then the run is over.
    let (code, err) = verdict(|number, message, receiver| {
        if number < 100 {
            write(receiver, message);
        }
    });
    assert!(
        code == 1 && err.contains("100 messages arrived of"),
        "{code}: {err}"
    );
}

#[test]
fn a_server_that_stamps_nothing_is_not_exocom() {
    let server = one_way_server(|_, message, receiver| write(receiver, message));
    let (code, _, err) = bench(&["a", "--seconds", "0.2", "--server", &server, "--tls", "none"]);
    assert!(code == 1 && err.contains("headers"), "{code}: {err}");
}
