//! Alarms on live traffic: a burst through a real broker is one alarm with the right numbers, which operators see,
//! acknowledge and mute; what was learned is kept over a restart.

use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use exocom::traffic::flow::{FlowKey, FlowTotals};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::learned::{TICK_S, learned};
use crate::support::{Broker, EXOCOM, PATIENCE, wait_until};

const POLICY: &str = r#"
version = 1
trust-domain = "todo.example"

[service.web]
sends = ["ping"]

[service.todos]
receives = ["ping"]

[message.ping]
kind = "event"
"#;

/// Messages a second, usually and in the burst.
const USUAL: u32 = 10;
const BURST: u32 = 300;

fn unix_ms() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "what was learned ends now")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// What a broker has learned in three days of this flow.
fn usual() -> Vec<u8> {
    let key = FlowKey {
        sender: "web".into(),
        message: "ping".into(),
        receiver: Some("todos".into()),
    };
    learned(&key, unix_ms() / 1_000 / TICK_S, |chance| {
        let messages = u64::from(USUAL) * TICK_S - 10 + chance;
        FlowTotals {
            messages,
            bytes: 4 * messages,
            ..FlowTotals::default()
        }
    })
}

/// `exocom alarms …` of a broker: its output.
fn alarms(broker: &Broker, arguments: &[&str]) -> String {
    let output = std::process::Command::new(EXOCOM)
        .arg("alarms")
        .args(arguments)
        .arg("--admin")
        .arg(broker.path("admin.sock"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn all(broker: &Broker) -> Vec<Value> {
    let json: Value =
        serde_json::from_str(&alarms(broker, &["list", "--all", "--json"])).expect("it is JSON");
    json["alarms"].as_array().expect("a list").clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "the alarm has a time limit")]
async fn a_burst_is_one_alarm_with_the_right_numbers() {
    let mut broker = Broker::dev(POLICY);
    assert!(broker.stop());
    fs::write(broker.path("state/alarms"), usual()).expect("the broker made the folder");
    let broker = broker.restart();
    let (web, todos) = (broker.client("web").await, broker.client("todos").await);
    let _events = todos.subscribe("ping").await.unwrap();
    todos.flush().await.unwrap();

    // Usual traffic for two whole ticks, then the burst from the beginning of a tick on.
    let burst_ms = (unix_ms() / 1_000 / TICK_S + 3) * TICK_S * 1_000;
    let sending = tokio::spawn(async move {
        let mut interval = tokio::time::interval(Duration::from_millis(100));
        loop {
            interval.tick().await;
            let a_second = if unix_ms() < burst_ms { USUAL } else { BURST };
            for _ in 0..a_second / 10 {
                web.publish("ping", "four".into()).await.unwrap();
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(burst_ms - unix_ms())).await;
    assert_eq!(all(&broker), [] as [Value; 0], "nothing was unusual before");
    let started = Instant::now();
    let alarm = loop {
        if let Some(alarm) = all(&broker).pop() {
            break alarm;
        }
        assert!(
            started.elapsed() < PATIENCE,
            "no alarm within 30 s; log:\n{}",
            broker.log()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let finding = &alarm["finding"];
    assert_eq!(
        (&alarm["stream"]["sender"], &finding["kind"]),
        (&"web".into(), &"burst".into())
    );
    let number = |value: &Value| value.as_f64().expect("a number");
    assert!((150.0..450.0).contains(&number(&finding["seen"])), "{finding}");
    let (low, high) = (number(&finding["expected"][0]), number(&finding["expected"][1]));
    let usual = f64::from(USUAL);
    assert!(
        low < usual && usual < high && low > 0.5 * usual && high < 2.0 * usual,
        "{finding}"
    );
    let since_ms = finding["since_unix_s"].as_u64().unwrap() * 1_000;
    assert!(since_ms.abs_diff(burst_ms) <= TICK_S * 1_000, "{finding}");
    assert!(broker.log().contains("alarm: web → ping: "), "{}", broker.log());

    // Further ticks of the burst are the same incident.
    tokio::time::sleep(Duration::from_millis(1_500 * TICK_S)).await;
    assert_eq!(all(&broker).len(), 1, "{}", alarms(&broker, &["list", "--all"]));
    let id = alarm["id"].to_string();
    assert!(alarms(&broker, &["ack", &id, "--why", "a test"]).contains("acknowledged"));
    assert!(alarms(&broker, &["list"]).contains("  acknowledged  burst  web → ping: "));
    assert!(alarms(&broker, &["mute", &id, "--for", "1h"]).contains("web → ping: muted for 3600 s"));
    assert!(alarms(&broker, &["show", &id]).contains("counts over "));
    sending.abort();

    // It is still there after a restart; and what cannot be read is given up with a word.
    let mut broker = broker.restart();
    assert_eq!(
        all(&broker)[0]["acknowledged_by"]
            .as_str()
            .map(|who| who.starts_with("uid ")),
        Some(true)
    );
    assert!(broker.stop());
    let mut bytes = fs::read(broker.path("state/alarms")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(broker.path("state/alarms"), bytes).unwrap();
    let broker = broker.restart();
    assert!(broker.log().contains("its checksum is wrong"), "{}", broker.log());
    assert_eq!(all(&broker), [] as [Value; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_refused_handshakes_is_an_alarm_of_its_address() {
    let mut broker = Broker::dev(POLICY);
    assert!(broker.stop());
    fs::write(broker.path("state/alarms"), usual()).expect("the broker made the folder");
    let broker = broker.restart();
    // The first tick after a start only says where counting begins.
    let first_ms = (unix_ms() / 1_000 / TICK_S + 1) * TICK_S * 1_000 + 500;
    tokio::time::sleep(Duration::from_millis(first_ms - unix_ms())).await;
    for _ in 0..300 {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket
            .bind("127.0.0.2:0".parse().unwrap())
            .expect("all of 127.0.0.0/8 is this machine");
        let mut stranger = socket.connect(broker.address()).await.expect("it listens");
        stranger
            .write_all(b"GET / HTTP/1.1\r\n\r\n")
            .await
            .expect("it reads");
        // Until it has been refused.
        drop(stranger.read_to_end(&mut Vec::new()).await);
    }
    let is_its_own = |alarm: &Value| alarm["stream"]["measure"] == "refused";
    let mut found = Vec::new();
    crate::support::wait_for("the alarm", || {
        found = all(&broker).into_iter().filter(is_its_own).collect();
        !found.is_empty()
    });
    let [alarm] = &found[..] else { panic!("{found:?}") };
    assert_eq!(
        (&alarm["stream"]["sender"], &alarm["finding"]["kind"]),
        (&"127.0.0.2".into(), &"burst".into())
    );
    let number = |value: &Value| value.as_f64().expect("a number");
    assert!(number(&alarm["finding"]["seen"]) > 1.0, "{alarm}");
    assert!(number(&alarm["finding"]["expected"][1]) < 1.0, "{alarm}");
    let log = broker.log();
    assert!(
        log.contains("alarm: refused handshakes from 127.0.0.2: "),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_policy_turns_alarms_off_while_they_are_open() {
    let policy = |of_service: &str, of_message: &str| {
        format!(
            "version = 1\ntrust-domain = \"todo.example\"\n[service.web]\nsends = [\"ping\"]\n{of_service}\n\
             [service.todos]\nreceives = [\"ping\"]\n\
             [message.ping]\nkind = \"event\"\nlimits = {{rate = \"1/h\", burst = 5}}\n{of_message}\n"
        )
    };
    let mut broker = Broker::dev(&policy("", ""));
    assert!(broker.stop());
    fs::write(broker.path("state/alarms"), usual()).expect("the broker made the folder");
    let broker = broker.restart();
    let web = broker.client("web").await;
    let misbehave = async || {
        for _ in 0..300 {
            web.publish("ping", "four".into()).await.unwrap();
            web.publish("purge", "four".into()).await.unwrap();
        }
        web.flush().await.unwrap();
    };
    // What there is of the two, the oldest first, and how it ended.
    let known = || {
        let alarms = all(&broker).into_iter();
        let of_both = alarms.filter_map(|alarm| {
            let measure = alarm["stream"]["measure"].as_str()?.to_owned();
            let outcome = alarm["outcome"].as_str().unwrap_or("open").to_owned();
            ["denials", "over-limit"]
                .contains(&&*measure)
                .then_some((measure, outcome))
        });
        let mut of_both: Vec<_> = of_both.collect();
        of_both.sort();
        of_both
    };
    let are = |denials: &str, over_limit: &[&str]| {
        let of = |measure: &str, outcome: &str| (measure.to_owned(), outcome.to_owned());
        let mut all = vec![of("denials", denials)];
        all.extend(over_limit.iter().map(|outcome| of("over-limit", outcome)));
        all
    };
    let off = "the policy has turned its alarms off";

    // The first tick after a start only says where counting begins.
    let first_ms = (unix_ms() / 1_000 / TICK_S + 1) * TICK_S * 1_000 + 500;
    tokio::time::sleep(Duration::from_millis(first_ms - unix_ms())).await;
    misbehave().await;
    wait_until("both alarms", || known() == are("open", &["open"])).await;

    // A message's word is about the message, and hides no denials of its sender.
    broker.change_policy(&policy("", "alarms = \"off\""));
    misbehave().await;
    wait_until("the end of one alarm", || known() == are("open", &[off])).await;

    // The service's is about both.
    broker.change_policy(&policy("alarms = \"off\"", ""));
    misbehave().await;
    wait_until("the end of the other", || known() == are(off, &[off])).await;
    assert!(broker.log().contains(off), "{}", broker.log());

    // And none of the service's where the message says otherwise.
    broker.change_policy(&policy("alarms = \"off\"", "alarms = \"default\""));
    misbehave().await;
    wait_until("a third alarm", || known() == are(off, &["open", off])).await;
}
