//! Quarantine: what a held service sends waits or is refused, what it would get waits, and all of it goes on, or is
//! dropped, when somebody says so.

use async_nats::{Client, Message, Subscriber, jetstream};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::support::{Broker, EXOCOM, PATIENCE, round_trip, wait_until};

const POLICY: &str = r#"
version = 1
trust-domain = "todo.example"

[service.web]
sends = ["todos.list", "todos.count", "todos.created", "todos.create"]

[service.other]
sends = ["todos.list", "todos.created"]

[service.todos]
receives = ["todos.list", "todos.count", "todos.created", "todos.create"]

[service.mail]
receives = ["todos.created"]

[message."todos.created"]
kind = "event"
delivery = "at-least-once"

[message."todos.create"]
delivery = "at-least-once"
"#;

/// Asks; the reason and the rule of a refusal, if it is one.
async fn ask(client: &Client, name: &str) -> Option<(String, Option<String>)> {
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.unwrap();
    client
        .publish_with_reply(name.to_owned(), inbox, "x".into())
        .await
        .unwrap();
    refusal(&next(&mut answers).await)
}

fn refusal(answer: &Message) -> Option<(String, Option<String>)> {
    let header = |name: &str| Some(answer.headers.as_ref()?.get(name)?.as_str().to_owned());
    Some((header("Exo-Reason")?, header("Exo-Rule")))
}

fn quarantined() -> Option<(String, Option<String>)> {
    Some(("quarantined".to_owned(), None))
}

async fn next(subscriber: &mut Subscriber) -> Message {
    tokio::time::timeout(PATIENCE, subscriber.next())
        .await
        .expect("a message comes in time")
        .expect("the subscription lives")
}

/// Answers everything on these names, until it is dropped.
async fn answer(client: &Client, names: &[&str]) -> JoinSet<()> {
    let mut answering = JoinSet::new();
    for name in names {
        let mut requests = client.subscribe((*name).to_owned()).await.unwrap();
        let client = client.clone();
        answering.spawn(async move {
            while let Some(request) = requests.next().await {
                client
                    .publish(request.reply.unwrap(), "done".into())
                    .await
                    .unwrap();
            }
        });
    }
    round_trip(client).await;
    answering
}

async fn acknowledge(client: &Client, message: &Message) {
    client
        .publish(message.reply.clone().unwrap(), "+ACK".into())
        .await
        .unwrap();
}

/// Publishes a tracked event; the number under which it is stored.
async fn store(client: &Client, payload: &str) -> u64 {
    let stored = jetstream::new(client.clone())
        .publish("todos.created", payload.to_owned().into())
        .await
        .unwrap();
    stored.await.expect("it is stored").sequence
}

/// `exocom …` for a broker: whether it succeeded, and what it said.
fn exocom(broker: &Broker, arguments: &[&str]) -> (bool, String) {
    let output = std::process::Command::new(EXOCOM)
        .args(arguments)
        .arg("--admin")
        .arg(broker.path("admin.sock"))
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

fn done(broker: &Broker, arguments: &[&str]) -> String {
    let (is_done, said) = exocom(broker, arguments);
    assert!(is_done, "{arguments:?}: {said}");
    said
}

fn shown(broker: &Broker, arguments: &[&str]) -> Value {
    serde_json::from_str(&done(broker, arguments)).expect("it prints JSON")
}

/// Sequences and receivers of what waits because a service is held.
fn waiting(broker: &Broker, service: &str) -> Vec<(u64, String)> {
    let shown = shown(broker, &["quarantine", "show", service, "--json"]);
    let messages = shown["messages"].as_array().expect("a list");
    let message = |message: &Value| {
        let receiver = message["receiver"].as_str().expect("text").to_owned();
        (message["seq"].as_u64().expect("a number"), receiver)
    };
    messages.iter().map(message).collect()
}

// protocol: P-089
#[tokio::test]
async fn what_a_held_service_sends_waits_over_a_restart_until_it_is_released_or_dropped() {
    let broker = Broker::dev(POLICY);
    let (web, other) = (broker.client("web").await, broker.client("other").await);
    let todos = broker.client("todos").await;
    let answering = answer(&todos, &["todos.list", "todos.create"]).await;
    let mut events = todos.subscribe("todos.created").await.unwrap();
    round_trip(&todos).await;
    assert_eq!(ask(&web, "todos.list").await, None);

    done(&broker, &["quarantine", "add", "web", "--reason", "odd amounts"]);
    // On the connection that was open, at once: what is not tracked is refused, and the policy is not to blame.
    assert_eq!(ask(&web, "todos.list").await, quarantined());
    assert_eq!(ask(&other, "todos.list").await, None);
    // What is tracked is on disk, and so acknowledged; it goes nowhere. What another sends later passes it.
    let (first, second) = (store(&web, "first").await, store(&web, "second").await);
    let passing = store(&other, "passing").await;
    let event = next(&mut events).await;
    assert_eq!((&*event.payload, passing), (&b"passing"[..], second + 1));
    acknowledge(&todos, &event).await;
    let passing = passing.to_string();
    wait_until("the acknowledgement to be kept", || {
        let shown = shown(&broker, &["queue", "show", &passing, "--json"]);
        shown["receivers"].to_string().contains(r#"["todos","done",1]"#)
    })
    .await;
    let expected = |seqs: &[u64]| -> Vec<_> {
        let both = |seq: &u64| [(*seq, "mail".to_owned()), (*seq, "todos".to_owned())];
        seqs.iter().flat_map(both).collect()
    };
    assert_eq!(waiting(&broker, "web"), expected(&[first, second]));
    let flows = broker.status()["flows"].clone();
    let of_web = |flow: &&Value| flow["sender"] == "web" && flow["message"] == "todos.list";
    let held = flows.as_array().expect("a list").iter().filter(of_web);
    assert_eq!(
        held.map(|flow| flow["quarantined"].as_u64().unwrap())
            .sum::<u64>(),
        1
    );

    drop((web, other, todos, events, answering));
    let mut broker = broker;
    broker.kill();
    let broker = broker.restart();
    let list = shown(&broker, &["quarantine", "list", "--json"]);
    let hold = &list["held"][0];
    assert_eq!(
        (&hold["service"], &hold["reason"]),
        (&"web".into(), &"odd amounts".into())
    );
    assert_eq!((&hold["sent"], &hold["alarm"]), (&4.into(), &Value::Null));
    let (web, todos) = (broker.client("web").await, broker.client("todos").await);
    let _answering = answer(&todos, &["todos.list"]).await;
    let mut events = todos.subscribe("todos.created").await.unwrap();
    round_trip(&todos).await;
    assert_eq!(ask(&web, "todos.list").await, quarantined());
    let third = store(&web, "third").await;
    assert_eq!(waiting(&broker, "web"), expected(&[first, second, third]));

    let first_seq = first.to_string();
    let discard = [
        "quarantine",
        "discard",
        "web",
        "--seq",
        &first_seq,
        "--reason",
        "forged",
    ];
    assert!(done(&broker, &discard).contains("2 messages"));
    assert!(!exocom(&broker, &discard).0, "it is gone");
    done(
        &broker,
        &["quarantine", "release", "web", "--reason", "a load test"],
    );
    for payload in [&b"second"[..], b"third"] {
        let event = next(&mut events).await;
        assert_eq!(&*event.payload, payload);
        acknowledge(&todos, &event).await;
    }
    assert_eq!(ask(&web, "todos.list").await, None);
    let (is_done, said) = exocom(&broker, &["quarantine", "release", "web", "--reason", "again"]);
    assert!(!is_done && said.contains("web is not held"), "{said}");

    let folder = broker.path("audit");
    let query = |kind: &str| {
        let output = std::process::Command::new(EXOCOM)
            .args(["audit", "query", "--kind", kind, "--json", "--dir"])
            .arg(&folder)
            .output()
            .unwrap();
        let rows = String::from_utf8(output.stdout).unwrap();
        rows.lines()
            .map(|row| serde_json::from_str(row).unwrap())
            .collect::<Vec<Value>>()
    };
    let told: Vec<_> = query("quarantine")
        .iter()
        .map(|row| (row["sender"].clone(), row["is_held"].clone(), row["why"].clone()))
        .collect();
    let expected = [(true, "odd amounts"), (false, "a load test")];
    let expected = expected.map(|(is_held, why)| ("web".into(), is_held.into(), why.into()));
    assert_eq!(told, expected);
    let verbs: Vec<_> = query("admin").iter().map(|row| row["verb"].clone()).collect();
    assert!(verbs.contains(&"quarantine discard".into()), "{verbs:?}");
    wait_until("the refused requests in the audit log", || {
        let denials = query("denial");
        let held = denials.iter().filter(|row| row["action"] == "quarantined");
        // The kill may have taken the one before it: the log says so.
        held.map(|row| row["count"].as_u64().unwrap()).sum::<u64>() >= 1
    })
    .await;
}

#[tokio::test]
async fn a_held_service_gets_nothing_new_and_what_it_owes_is_refused() {
    let broker = Broker::dev(POLICY);
    let (web, todos) = (broker.client("web").await, broker.client("todos").await);
    let mail = broker.client("mail").await;
    let mut requests = todos.subscribe("todos.list").await.unwrap();
    let mut commands = todos.subscribe("todos.create").await.unwrap();
    let mut events = todos.subscribe("todos.created").await.unwrap();
    let mut mails = mail.subscribe("todos.created").await.unwrap();
    round_trip(&todos).await;
    round_trip(&mail).await;
    let inbox = web.new_inbox();
    let mut answers = web.subscribe(inbox.clone()).await.unwrap();
    let ask_both = async |name: &'static str| {
        web.publish_with_reply(name, inbox.clone(), "x".into())
            .await
            .unwrap();
    };
    ask_both("todos.list").await;
    let owed = next(&mut requests).await;
    ask_both("todos.create").await;
    let in_hand = next(&mut commands).await;

    done(&broker, &["quarantine", "add", "todos", "--reason", "stolen key"]);
    // Who waited for its answer is told, and does not hear what it says now.
    assert_eq!(refusal(&next(&mut answers).await), quarantined());
    for message in [&owed, &in_hand] {
        todos
            .publish(message.reply.clone().unwrap(), "too late".into())
            .await
            .unwrap();
    }
    assert_eq!(ask(&web, "todos.list").await, quarantined());
    let seq = store(&web, "for both").await;
    assert_eq!(&*next(&mut mails).await.payload, b"for both");
    // The command that it had in hand waits again, with the event.
    let both = [(seq - 1, "todos".to_owned()), (seq, "todos".to_owned())];
    wait_until("both to wait", || waiting(&broker, "todos") == both).await;
    let (is_done, said) = exocom(&broker, &["quarantine", "discard", "todos", "--reason", "x"]);
    assert!(
        !is_done && said.contains("no such message"),
        "what others sent stays: {said}"
    );

    done(
        &broker,
        &["quarantine", "release", "todos", "--reason", "new key"],
    );
    let again = next(&mut commands).await;
    assert_eq!(again.headers.unwrap().get("Exo-Attempt").unwrap().as_str(), "2");
    todos
        .publish(again.reply.unwrap(), "created".into())
        .await
        .unwrap();
    assert_eq!(&*next(&mut answers).await.payload, b"created");
    assert_eq!(&*next(&mut events).await.payload, b"for both");
}

#[tokio::test]
async fn an_alarm_holds_whom_the_policy_says_and_not_more_than_may_be() {
    let limited = "limits = {rate = \"1/h\", burst = 5}\n";
    let section =
        |service: &str, more: &str| format!("[service.{service}]\nsends = [\"todos.list\"]\n{limited}{more}");
    let on_alarm = "on-alarm = \"quarantine\"\n";
    let policy = format!(
        "version = 1\ntrust-domain = \"todo.example\"\n{}{}{}[service.todos]\nreceives = [\"todos.list\"]\n",
        section("first", ""),
        section("second", on_alarm),
        section("third", on_alarm)
    );
    let broker = Broker::dev(&policy);
    let mut clients = Vec::new();
    for service in ["first", "second", "third"] {
        let client = broker.client(service).await;
        for _ in 0..20 {
            client.publish("todos.list", "x".into()).await.unwrap();
        }
        round_trip(&client).await;
        clients.push(client);
    }
    let open = || {
        let list = shown(&broker, &["alarms", "list", "--json"]);
        list["alarms"].as_array().expect("a list").len()
    };
    wait_until("all alarms", || open() == 3).await;
    wait_until("one to be held", || broker.status()["held"] == 1).await;
    wait_until("the line about the cap", || {
        broker.log().contains("quarantine-max")
    })
    .await;
    let held = shown(&broker, &["quarantine", "list", "--json"])["held"].clone();
    assert_eq!(held.as_array().expect("a list").len(), 1, "{held}");
    let alarm = held[0]["alarm"].as_u64().expect("which alarm did it").to_string();
    let alarm = shown(&broker, &["alarms", "show", &alarm, "--json"]);
    let service = held[0]["service"].as_str().expect("text").to_owned();
    assert!(["second", "third"].contains(&&*service), "{held}");
    assert!(alarm.to_string().contains(&service), "{alarm}");
    let client = &clients[if service == "second" { 1 } else { 2 }];
    assert_eq!(ask(client, "todos.list").await, quarantined());
    done(
        &broker,
        &["quarantine", "release", &service, "--reason", "a load test"],
    );
    assert_eq!(broker.status()["held"], 0);
}

#[tokio::test]
async fn a_part_of_a_services_messages_can_be_held() {
    let broker = Broker::dev(POLICY);
    let (web, todos) = (broker.client("web").await, broker.client("todos").await);
    let _answering = answer(&todos, &["todos.list", "todos.count"]).await;
    let part = ["web", "--message", "todos.list", "--reason", "look"];
    done(&broker, &[&["quarantine", "add"], &part[..]].concat());
    assert_eq!(ask(&web, "todos.list").await, quarantined());
    assert_eq!(ask(&web, "todos.count").await, None);
    // The whole and a part are held, and released, by themselves.
    done(&broker, &["quarantine", "add", "web", "--reason", "all of it"]);
    done(&broker, &[&["quarantine", "release"], &part[..]].concat());
    assert_eq!(ask(&web, "todos.list").await, quarantined());
    assert_eq!(ask(&web, "todos.count").await, quarantined());
    assert_eq!(broker.status()["held"], 1);
    done(
        &broker,
        &["quarantine", "release", "web", "--reason", "all of it"],
    );
    assert_eq!(ask(&web, "todos.list").await, None);
    let said = done(&broker, &["quarantine", "add", "wbe", "--reason", "a slip"]);
    assert!(said.contains("the policy lists no service wbe"), "{said}");
}
