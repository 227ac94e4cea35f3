//! The metrics of a real broker: through the admin listener and at the port of their own; each is in the document, and
//! the other way round.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use futures_util::StreamExt;

use crate::config::config;
use crate::operators::admin_address;
use crate::support::{Broker, Raw, client_tls, wait_for};

const POLICY: &str = r#"
version = 1
trust-domain = "todo.example"

[service.web]
sends = ["ping", "pay", "ask"]

[service.todos]
receives = ["ping", "pay", "ask"]

[message.ping]
kind = "event"

[message.pay]
kind = "event"
delivery = "at-least-once"

[operator.alice]
may = ["view"]

[operator.bob]
may = ["revoke"]
"#;

const CONFIG: &str = config!(
    r#"
[admin]
listen = "127.0.0.1:0"

[metrics]
listen = "127.0.0.1:0"

[store]
folder = "store"

[audit]
folder = "audit"
witnesses = ["witness"]
"#
);

/// Series by name and labels, and the type of each metric by its name as in the series.
#[derive(Debug, Default)]
struct Metrics {
    series: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
}

/// Reads the text, strictly: each line is known, each value a number, each series comes once, below its type.
fn parse(text: &str) -> Metrics {
    let mut metrics = Metrics::default();
    let mut current = String::new();
    let lines = text.strip_suffix("# EOF\n").expect("the text is whole").lines();
    for line in lines {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["#", "HELP", name, ..] => assert!(!name.is_empty(), "{line}"),
            ["#", "TYPE", name, kind] => {
                current = if kind == "counter" {
                    format!("{name}_total")
                } else {
                    name.to_owned()
                };
                let before = metrics.types.insert(current.clone(), kind.to_owned());
                assert!(before.is_none(), "twice: {line}");
            }
            _ => {
                let (series, value) = line.rsplit_once(' ').expect("a series and its value");
                let name = series.split('{').next().expect("it has a name");
                let name = match metrics.types.get(&current).map(String::as_str) {
                    Some("histogram") => ["_bucket", "_sum", "_count"]
                        .iter()
                        .find_map(|end| name.strip_suffix(end))
                        .expect("a part of a histogram"),
                    _ => name,
                };
                assert_eq!(name, current, "{line}");
                let value = value.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
                assert!(
                    metrics.series.insert(series.to_owned(), value).is_none(),
                    "twice: {line}"
                );
            }
        }
    }
    metrics
}

/// Asks the port of metrics.
fn get(port: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(port).expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: exocom\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("it answers text");
    answer
}

fn scrape(port: SocketAddr) -> Metrics {
    let answer = get(port, "/metrics");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(
        head.contains("application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    parse(body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_metric_is_documented_and_tells_what_happened() {
    let broker = Broker::serve(POLICY, CONFIG);
    let log = broker.log();
    let line = log
        .lines()
        .find(|line| line.contains("metrics may be read"))
        .expect("it says where");
    let port = line
        .split("address=")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next())
        .unwrap();
    let port: SocketAddr = port.parse().expect("an address");

    let (web, todos) = (broker.client("web").await, broker.client("todos").await);
    let _pings = todos.subscribe("ping").await.unwrap();
    todos.flush().await.unwrap();
    let mut asked = todos.subscribe("ask").await.unwrap();
    todos.flush().await.unwrap();
    super::wait_for_subscriptions(&broker, 2);
    let answering = async {
        let request = asked.next().await.expect("it is asked");
        let reply = request.reply.expect("somebody waits");
        todos.publish(reply, "yes".into()).await.unwrap();
    };
    let (answer, ()) = tokio::join!(web.request("ask", "".into()), answering);
    answer.expect("it is answered");
    for _ in 0..5 {
        web.publish("ping", "four".into()).await.unwrap();
    }
    let stored = async_nats::jetstream::new(web.clone())
        .publish("pay", "now".into())
        .await
        .unwrap();
    stored.await.expect("it is on disk");
    assert!(web.request("purge", "".into()).await.is_err());
    // Somebody without a certificate.
    let mut stranger = TcpStream::connect(broker.address()).unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    drop(stranger.read_to_end(&mut Vec::new()));

    let mut metrics = Metrics::default();
    wait_for("all that has happened", || {
        metrics = scrape(port);
        let is = |series: &str, value: f64| metrics.series.get(series) == Some(&value);
        is("exocom_messages_sent_total{service=\"web\"}", 6.0)
            && is("exocom_handshakes_refused_total{rule=\"not-tls\"}", 1.0)
            && is("exocom_tracked_waiting{service=\"todos\"}", 1.0)
            && metrics.series.get("exocom_audit_entries_total") > Some(&0.0)
    });
    let check = |series: &str, expected: f64| {
        assert_eq!(
            metrics.series.get(series),
            Some(&expected),
            "{series} in {metrics:#?}"
        );
    };
    check("exocom_sent_bytes_total{service=\"web\"}", 20.0);
    check("exocom_messages_received_total{service=\"todos\"}", 6.0);
    let of_answers = |part: &str| format!("exocom_response_time_seconds_{part}");
    check(&of_answers("count{service=\"todos\"}"), 1.0);
    check(&of_answers("bucket{le=\"+Inf\",service=\"todos\"}"), 1.0);
    check(&of_answers("bucket{le=\"67.108864\",service=\"todos\"}"), 1.0);
    let sum = metrics.series[&of_answers("sum{service=\"todos\"}")];
    let of_all = metrics.series["exocom_response_seconds_total{service=\"todos\"}"];
    assert!(sum > 0.0 && sum == of_all, "{sum} {of_all}");
    check("exocom_messages_denied_total{service=\"web\"}", 1.0);
    check("exocom_connections{service=\"todos\"}", 1.0);
    check(
        "exocom_flow_messages_total{sender=\"web\",message=\"ping\",receiver=\"todos\"}",
        5.0,
    );
    check("exocom_dead_letters{service=\"todos\"}", 0.0);
    check("exocom_audit_failing", 0.0);
    check("exocom_change_refused{of=\"policy\"}", 0.0);
    for of in ["connections", "certificates", "roots"] {
        let expiry = metrics.series[&format!("exocom_expiry_timestamp_seconds{{of=\"{of}\"}}")];
        assert!(expiry > 1.7e9, "{of}: {expiry}");
    }
    let version = broker.status()["policy"]["version"].as_str().unwrap().to_owned();
    check(&format!("exocom_policy_info{{version=\"{version}\"}}"), 1.0);

    // The document has each of them, with its type, and no other.
    let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).unwrap();
    let rows = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `exocom_"));
    let documented: BTreeMap<_, _> = rows
        .map(|row| {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            (
                format!("exocom_{}", cells[0].trim_matches('`')),
                cells[1].to_owned(),
            )
        })
        .collect();
    assert_eq!(metrics.types, documented);
    assert!(
        get(port, "/v1/status").starts_with("HTTP/1.1 404 "),
        "nothing else is shown"
    );

    // Through the admin listener the policy decides.
    let admin = admin_address(&broker);
    let ask = |name: &str| {
        let [certificate, key] = ["pem", "key"].map(|end| broker.cert(&format!("{name}.{end}")));
        let tls = client_tls(&broker.cert("ca.pem"), &certificate, &key);
        let mut raw = Raw::connect(admin, &tls).expect("a handshake with a good certificate");
        raw.send(b"GET /metrics HTTP/1.1\r\nhost: exocom\r\nconnection: close\r\n\r\n");
        raw.rest()
    };
    let answer = ask("alice");
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("exocom_build_info{"),
        "{answer}"
    );
    let refused = ask("bob");
    assert!(
        refused.starts_with("HTTP/1.1 403 ") && !refused.contains("exocom_"),
        "{refused}"
    );
}

#[test]
fn the_port_opens_beyond_this_machine_only_where_somebody_says_so() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("exocom.toml");
    let check = |metrics: &str, is_good: bool| {
        let config = CONFIG.replace(
            "[metrics]\nlisten = \"127.0.0.1:0\"",
            &format!("[metrics]\n{metrics}"),
        );
        let parsed = exocom::config::Config::parse(&file, &config);
        assert_eq!(parsed.is_ok(), is_good, "{metrics}");
        if let Err(error) = parsed {
            assert!(error.to_string().contains("beyond-loopback"), "{error}");
        }
    };
    check("listen = \"[::1]:9464\"", true);
    check("listen = \"0.0.0.0:9464\"", false);
    check("listen = \"192.0.2.1:9464\"\nbeyond-loopback = false", false);
    check("listen = \"0.0.0.0:9464\"\nbeyond-loopback = true", true);
}
