//! A receiver that answers slower than it did, and then not at all: `exocom alarms list` says both, with the right
//! numbers.
//!
//! Response times are judged as means of five minutes, so the broker's clock is set to some seconds before the end of
//! such a span; all else is real.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use exocom::traffic::flow::{FlowKey, FlowTotals};
use futures_util::StreamExt;
use serde_json::Value;

use crate::learned::{TICK_S, learned};
use crate::shim::Shim;
use crate::support::{Broker, EXOCOM, PATIENCE};

const POLICY: &str = r#"
version = 1
trust-domain = "todo.example"

[service.web]
sends = ["todos.list"]

[service.todos]
receives = ["todos.list"]

[message."todos.list"]
reply-within = "1s"
"#;

/// Response times are means over so long.
const POINT_S: u64 = 300;
/// How long before the end of one the broker starts: a tick to begin with, and two in which it is slow.
const LEAD_S: u64 = 36;
/// How long an answer usually takes, and how long it takes at the least when the receiver is slow.
const USUAL_US: u64 = 20_000;
const SLOW: Duration = Duration::from_millis(70);

fn unix_s() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the broker's clock is set by it")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// What a broker has learned in three days of 10 requests a second, up to the last mean before a time.
fn usual(now_unix_s: u64) -> Vec<u8> {
    let key = FlowKey {
        sender: "web".into(),
        message: "todos.list".into(),
        receiver: Some("todos".into()),
    };
    learned(&key, now_unix_s / POINT_S * POINT_S / TICK_S, |chance| {
        let messages = 90 + chance;
        FlowTotals {
            messages,
            responses: messages,
            response_us_sum: messages * (USUAL_US + 100 * chance),
            ..FlowTotals::default()
        }
    })
}

/// What `exocom alarms list …` says.
fn listed(broker: &Broker, arguments: &[&str]) -> String {
    let output = std::process::Command::new(EXOCOM)
        .args(["alarms", "list"])
        .args(arguments)
        .arg("--admin")
        .arg(broker.path("admin.sock"))
        .output()
        .expect("the binary was built for the tests");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The finding of the alarm about one measure, once there is one.
#[expect(
    clippy::disallowed_methods,
    reason = "a test's patience is measured by the clock"
)]
async fn alarm(broker: &Broker, measure: &str, patience: Duration) -> Value {
    let start = Instant::now();
    loop {
        let list: Value = serde_json::from_str(&listed(broker, &["--json"])).expect("list prints JSON");
        let alarms = list["alarms"].as_array().expect("a list").clone();
        if let Some(alarm) = alarms.iter().find(|alarm| alarm["stream"]["measure"] == measure) {
            assert_eq!(alarm["stream"]["receiver"], "todos");
            return alarm["finding"].clone();
        }
        assert!(
            start.elapsed() < patience,
            "no alarm about {measure}: {list}\n{}",
            broker.log()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_grows_slow_and_then_silent_is_an_alarm_each() {
    let Some(shim) = Shim::compile() else { return };
    // At the most five minutes behind: its certificates are valid for us by then.
    let behind_s = || (unix_s() + LEAD_S) % POINT_S;
    let clock = || shim.with("SHIM_CLOCK_S", format!("-{}", behind_s()));
    let mut broker = Broker::dev_at(POLICY, "127.0.0.1:0", clock());
    assert!(broker.stop());
    let history = usual(unix_s() - behind_s());
    fs::write(broker.path("state/alarms"), history).expect("the broker made the folder");
    let broker = broker.restart_with(clock());

    let (web, todos) = (broker.client("web").await, broker.client("todos").await);
    let mut requests = todos.subscribe("todos.list").await.unwrap();
    todos.flush().await.unwrap();
    let answers = Arc::new(AtomicBool::new(true));
    let is_answering = Arc::clone(&answers);
    let answering = tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let Some(reply) = request.reply.filter(|_| is_answering.load(Relaxed)) else {
                continue;
            };
            let todos = todos.clone();
            tokio::spawn(async move {
                tokio::time::sleep(SLOW).await;
                todos.publish(reply, "none".into()).await.unwrap();
            });
        }
    });
    let asking = tokio::spawn(async move {
        let mut interval = tokio::time::interval(Duration::from_millis(100));
        loop {
            interval.tick().await;
            let web = web.clone();
            // Whether it is answered is for the broker to say.
            tokio::spawn(async move { drop(web.request("todos.list", "".into()).await) });
        }
    });

    let patience = Duration::from_secs(LEAD_S) + PATIENCE;
    let slow = alarm(&broker, "response-time", patience).await;
    let number = |value: &Value| value.as_f64().expect("a number");
    let (low, high) = (number(&slow["expected"][0]), number(&slow["expected"][1]));
    let usual_ms = USUAL_US as f64 / 1e3;
    assert!(
        low > 0.9 * usual_ms && high < 1.3 * usual_ms && low < high,
        "{slow}"
    );
    let slow_ms = SLOW.as_secs_f64() * 1e3;
    assert!(
        number(&slow["seen"]) >= slow_ms && number(&slow["seen"]) < 10.0 * slow_ms,
        "{slow}"
    );

    answers.store(false, Relaxed);
    let silent = alarm(&broker, "unanswered", PATIENCE).await;
    assert_eq!(silent["kind"], "burst", "{silent}");
    let text = listed(&broker, &[]);
    for what in [
        "web → todos.list, response time: ",
        "web → todos.list, unanswered: ",
    ] {
        assert!(text.contains(what), "{text}");
    }
    asking.abort();
    answering.abort();
}
