//! Who gets a message: names, patterns, queue groups, order.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use exocom::limits::{
    INBOX_PATTERNS_PER_CONNECTION_MAX, NAME_BYTES_MAX, SUBSCRIPTIONS_PER_CONNECTION_MAX,
    SUBSCRIPTIONS_PER_PATTERN_MAX,
};

use super::*;

// protocol: P-060
#[test]
fn only_names_are_names() {
    let broker = Broker::dev(POLICY);
    let mut web = broker.raw_ready("web");
    let longest = format!("news.{}", "x".repeat(NAME_BYTES_MAX - 5));
    does(&mut web, "SUB news.> 1\r\n");
    for good in ["news.A-b_c.0", longest.as_str()] {
        assert_eq!(said(&mut web, format!("PUB {good} 0\r\n\r\n")).len(), 1, "{good}");
    }
    let too_long = format!("{longest}x");
    for bad in [
        "news.",
        ".news",
        "news..x",
        "news.*",
        "news.>",
        "news.ü",
        "news.x/y",
        "_news.x",
        "$SYS.x",
        "$JS.API.INFO",
        too_long.as_str(),
    ] {
        assert_eq!(
            said(&mut web, format!("PUB {bad} 0\r\n\r\n")),
            [publish_denied(bad)],
            "{bad}"
        );
    }
}

// protocol: P-061, P-062
#[test]
fn a_pattern_is_granted_whole_or_not_at_all() {
    let broker = Broker::dev(POLICY);
    let mut web = broker.raw_ready("web");
    does(&mut web, "SUB news.* 1\r\nSUB news.> 2\r\nSUB news.*.b 3\r\n");
    let mut reached_by = |name: &str| -> String {
        let heard = said(&mut web, format!("PUB {name} 0\r\n\r\n"));
        let mut ids: Vec<_> = heard
            .iter()
            .filter_map(|message| message.split(' ').nth(2))
            .collect();
        ids.sort_unstable();
        ids.concat()
    };
    assert_eq!(reached_by("news.a"), "12");
    assert_eq!(reached_by("news.a.b"), "23");
    assert_eq!(reached_by("news.a.b.c"), "2");
    for refused in [
        ">",
        "*",
        "*.>",
        "*.x",
        "news",
        "orders.place",
        "orders.*",
        "news.>.x",
        "news.x*",
        "$SYS.>",
        "_R.>",
    ] {
        assert_eq!(
            said(&mut web, format!("SUB {refused} 9\r\n")),
            [subscription_denied(refused)]
        );
        let with_queue =
            format!("-ERR 'Permissions Violation for Subscription to \"{refused}\" using queue \"q\"'");
        assert_eq!(said(&mut web, format!("SUB {refused} q 9\r\n")), [with_queue]);
    }
}

// protocol: P-063, P-064
#[test]
fn each_subscription_gets_a_message_and_one_of_each_group() {
    let broker = Broker::dev(POLICY);
    let mut audit = broker.raw_ready("audit");
    does(
        &mut audit,
        "SUB news.x 1\r\nSUB news.* 2\r\nSUB news.x g 3\r\nSUB news.> g 4\r\nSUB news.x h 5\r\n",
    );
    let mut web = broker.raw_ready("web");
    does(&mut web, "PUB news.x 0\r\n\r\n".repeat(4));
    let mut ids: Vec<_> = heard(&mut audit)
        .iter()
        .map(|message| message.split(' ').nth(2).expect("an id").to_owned())
        .collect();
    ids.sort();
    assert_eq!(ids.concat(), "1111222233445555");
}

// protocol: P-064
#[test]
fn a_member_that_is_behind_is_passed_over() {
    let broker = Broker::dev(POLICY);
    let mut behind = broker.raw_ready("audit");
    does(&mut behind, "SUB news.x g 1\r\n");
    let mut reader = broker.raw_ready("audit");
    does(&mut reader, "SUB news.x g 1\r\n");
    let mut web = broker.raw_ready("web");
    let message = format!("PUB news.x 65536\r\n{}\r\n", "x".repeat(65_536));
    // More than sockets hold, in turns that each leave the reader time to read.
    for _ in 0..300 {
        does(&mut web, &message);
        heard(&mut reader);
    }
    for number in 0..50 {
        does(&mut web, format!("PUB news.x 2\r\n{number:02}\r\n"));
    }
    let late: Vec<_> = (0..50).map(|number| format!("{number:02}")).collect();
    assert_eq!(payloads(&heard(&mut reader)), late);
}

// protocol: P-065
#[test]
fn a_group_belongs_to_one_service() {
    let broker = Broker::dev(POLICY);
    let (mut orders, mut audit) = (broker.raw_ready("orders"), broker.raw_ready("audit"));
    does(&mut orders, "SUB orders.place workers 1\r\n");
    does(&mut audit, "SUB orders.place workers 1\r\n");
    let mut web = broker.raw_ready("web");
    does(&mut web, "PUB orders.place 0\r\n\r\n".repeat(3));
    assert_eq!((heard(&mut orders).len(), heard(&mut audit).len()), (3, 3));
}

// protocol: P-066
#[test]
fn members_that_come_and_go_lose_nothing() {
    let broker = Broker::dev(POLICY);
    let visits_done = AtomicUsize::new(0);
    let mut staying = broker.raw_ready("audit");
    does(&mut staying, "SUB news.churn g 1\r\nSUB news.end 2\r\n");
    // One on each thread of the broker, or both beside or apart from the sender.
    let visitors = [broker.raw_ready("audit"), broker.raw_ready("audit")];
    let mut web = broker.raw_ready("web");
    let (sent, mut got) = std::thread::scope(|scope| {
        let visits: Vec<_> = visitors
            .into_iter()
            .map(|mut visitor| {
                let visits_done = &visits_done;
                scope.spawn(move || {
                    let mut got = Vec::new();
                    for _ in 0..300 {
                        visitor.send(b"SUB news.churn g 1\r\n");
                        got.push(visitor.message());
                        got.extend(said(&mut visitor, "UNSUB 1\r\n"));
                    }
                    visits_done.fetch_add(1, Relaxed);
                    got
                })
            })
            .collect();
        let stays = scope.spawn(move || {
            let mut got = Vec::new();
            loop {
                let message = staying.message();
                if subject(&message) == "news.end" {
                    return got;
                }
                got.push(message);
            }
        });
        let mut sent = 0;
        while visits_done.load(Relaxed) < 2 {
            let batch: String = (sent..sent + 50)
                .map(|number| format!("PUB news.churn 8\r\n{number:08}\r\n"))
                .collect();
            does(&mut web, batch);
            sent += 50;
        }
        does(&mut web, "PUB news.end 0\r\n\r\n");
        let mut got = stays.join().expect("the reader ends well");
        assert!(got.len() > 300, "{}", got.len());
        for visit in visits {
            got.extend(visit.join().expect("the visitor ends well"));
        }
        (sent, got)
    });
    got.sort_by_key(|message| payload(message));
    let expected: Vec<_> = (0..sent).map(|number| format!("{number:08}")).collect();
    assert!(payloads(&got) == expected, "{} of {sent}", got.len());
}

// protocol: P-067
#[test]
fn messages_keep_their_order() {
    let broker = Broker::dev(POLICY);
    let mut audit = broker.raw_ready("audit");
    does(&mut audit, "SUB news.> 1\r\nSUB orders.* 2\r\n");
    let mut web = broker.raw_ready("web");
    let names = ["news.a", "orders.b", "news.c.d"];
    let sent: Vec<_> = (0..600)
        .map(|number| (names[number % 3].to_owned(), number.to_string()))
        .collect();
    let bytes: String = sent
        .iter()
        .map(|(name, number)| format!("PUB {name} {}\r\n{number}\r\n", number.len()))
        .collect();
    does(&mut web, bytes);
    assert_eq!(plainly(&heard(&mut audit)), sent);
}

// protocol: P-068
#[test]
fn without_echo_a_client_does_not_get_what_it_sends() {
    let broker = Broker::dev(POLICY);
    let mut quiet = broker.raw_ready("web");
    does(
        &mut quiet,
        "CONNECT {\"echo\":false}\r\nSUB news.x 1\r\nSUB news.x g 2\r\n",
    );
    does(&mut quiet, "PUB news.x 0\r\n\r\n");
    let mut other = broker.raw_ready("web");
    does(&mut other, "PUB news.x 0\r\n\r\n");
    assert_eq!(heard(&mut quiet).len(), 2);
}

// protocol: P-069
#[test]
fn a_subscription_ends_when_the_policy_no_longer_grants_it() {
    let broker = Broker::dev(POLICY);
    let mut audit = broker.raw_ready("audit");
    does(&mut audit, "SUB orders.* 1\r\nSUB news.x 2\r\n");
    broker.change_policy(&POLICY.replace("receives = [\"orders.*\", \"news.>\"]", "receives = [\"news.>\"]"));
    assert_eq!(audit.line(), subscription_denied("orders.*"));
    let mut web = broker.raw_ready("web");
    does(&mut web, "PUB orders.place 0\r\n\r\nPUB news.x 0\r\n\r\n");
    assert_eq!(
        heard(&mut audit)
            .iter()
            .map(|message| subject(message))
            .collect::<Vec<_>>(),
        ["news.x"]
    );
}

// protocol: P-093
#[test]
fn subscriptions_have_a_limit() {
    let broker = Broker::dev(POLICY);
    let mut web = broker.raw_ready("web");
    let sub = |from: usize, to: usize, name: &str| -> String {
        (from..to).map(|id| format!("SUB {name} {id}\r\n")).collect()
    };
    let inboxes = INBOX_PATTERNS_PER_CONNECTION_MAX;
    does(&mut web, sub(0, inboxes, "_INBOX.*"));
    assert_eq!(
        said(&mut web, "SUB _INBOX.> x\r\n"),
        [subscription_denied("_INBOX.>")]
    );
    does(&mut web, sub(inboxes, 2 * inboxes, "_INBOX.x"));
    assert_eq!(
        said(&mut web, "SUB _INBOX.x x\r\n"),
        [subscription_denied("_INBOX.x")]
    );
    let same = 2 * inboxes + SUBSCRIPTIONS_PER_PATTERN_MAX;
    does(&mut web, sub(2 * inboxes, same, "news.x"));
    assert_eq!(
        said(&mut web, "SUB news.x x\r\n"),
        [subscription_denied("news.x")]
    );
    let others = (same..SUBSCRIPTIONS_PER_CONNECTION_MAX).map(|id| format!("SUB _INBOX.n{id} {id}\r\n"));
    does(&mut web, others.collect::<String>());
    assert_eq!(
        said(&mut web, "SUB news.y x\r\n"),
        [subscription_denied("news.y")]
    );
    assert_eq!(
        said(&mut web, "SUB _INBOX.y x\r\n"),
        [subscription_denied("_INBOX.y")]
    );
    does(&mut web, "UNSUB 9999\r\nSUB news.y x\r\n");
}

// protocol: P-095
#[test]
fn what_a_client_does_not_read_is_dropped_for_it_alone() {
    let broker = Broker::dev(POLICY);
    let mut behind = broker.raw_ready("audit");
    does(&mut behind, "SUB news.x 1\r\nSUB orders.* 2\r\n");
    behind
        .socket()
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a timeout can be set");
    let mut web = broker.raw_ready("web");
    does(&mut web, "SUB news.x 1\r\nSUB _INBOX.x 2\r\n");
    let payload = "x".repeat(512 * 1024);
    let message = format!("PUB news.x {}\r\n{payload}\r\n", payload.len());
    let flow = |what: &str| {
        let status = broker.status();
        let flows = status["flows"].as_array().expect("a list").clone();
        let flow = flows
            .iter()
            .find(|flow| flow["message"] == "news.x" && flow["receiver"] == "audit");
        flow.map_or(0, |flow| flow[what].as_u64().expect("a number"))
    };
    // 64 MiB: more than 16 MiB and all buffers of the system's.
    let sent = 128;
    for _ in 0..sent {
        assert_eq!(said(&mut web, &message).len(), 1, "who reads loses nothing");
    }
    let dropped = flow("dropped");
    assert!(dropped > 0 && flow("messages") + dropped == sent, "{dropped}");
    let refused = said(&mut web, "PUB orders.place _INBOX.x 0\r\n\r\n");
    assert_eq!(reason(&refused[0]), "overloaded");
    // It gets the rest as soon as it reads, and new messages after that.
    assert_eq!(heard(&mut behind).len() as u64, sent - dropped);
    does(&mut web, "UNSUB 1\r\nPUB news.x 3\r\nnew\r\n");
    assert_eq!(payloads(&heard(&mut behind)), ["new"]);
}
