//! Authority is live: a changed policy holds for connections, subscriptions and cached decisions that are already
//! there.

use super::*;
use crate::support::wait_for;

const POLICY: &str = r#"
version = 1
trust-domain = "shop.example"

[service.web]
sends = ["orders.place", "orders.cancel"]
receives = ["orders.placed"]

[service.orders]
sends = ["orders.placed"]
receives = ["orders.*"]

[service.mallory]
receives = ["orders.*"]
"#;

#[test]
fn a_changed_policy_holds_for_what_is_already_there() {
    let broker = Broker::dev(POLICY);
    let [mut web, mut orders, mut mallory] =
        ["web", "orders", "mallory"].map(|service| Client::of(&broker, service));
    for client in [&mut orders, &mut mallory] {
        assert!(client.subscribes("orders.*", "1").is_empty());
        assert!(client.subscribes("orders.place", "2").is_empty());
    }
    // Decisions and routes are in the connections' memory before the change.
    assert!(web.publishes("orders.place", "1").is_empty());
    assert!(web.publishes("orders.cancel", "1").is_empty());
    assert_eq!((orders.hears().len(), mallory.hears().len()), (3, 3));

    // A grant goes: the next publication is denied, and others are not.
    broker.change_policy(&POLICY.replace(
        r#"sends = ["orders.place", "orders.cancel"]"#,
        r#"sends = ["orders.cancel"]"#,
    ));
    assert_eq!(
        web.publishes("orders.place", "2"),
        [publish_denied("orders.place")]
    );
    assert!(web.publishes("orders.cancel", "2").is_empty());
    assert_eq!((orders.hears().len(), mallory.hears().len()), (1, 1));

    // And comes back, on the same connection.
    broker.change_policy(POLICY);
    assert!(web.publishes("orders.place", "3").is_empty());
    assert_eq!((orders.hears().len(), mallory.hears().len()), (2, 2));

    // What one may receive shrinks: the subscriptions that ask for more end, each with a word; others stay.
    let less = POLICY.replacen(r#"receives = ["orders.*"]"#, r#"receives = ["orders.place"]"#, 1);
    broker.change_policy(&less);
    assert_eq!(orders.hears(), [subscription_denied("orders.*", None)]);
    assert!(web.publishes("orders.cancel", "4").is_empty());
    assert!(web.publishes("orders.place", "4").is_empty());
    let heard = orders.hears();
    assert_eq!(heard.len(), 1, "{heard:#?}");
    assert!(heard[0].starts_with("HMSG orders.place 2 "), "{heard:#?}");
    assert_eq!(mallory.hears().len(), 3, "another service's stay");
    assert_eq!(orders.hears(), Vec::<String>::new());

    // A service goes: it is cut within a second or so, told so that it tries again, and gets nothing more.
    let without = less.replace("[service.mallory]", "[service.other]");
    broker.change_policy(&without);
    assert_eq!(mallory.0.rest(), "-ERR 'Stale Connection'\r\n");
    assert_eq!(
        broker.raw("mallory").rest().lines().last(),
        Some("-ERR 'Authorization Violation'")
    );
    assert!(web.publishes("orders.place", "5").is_empty());
    assert_eq!(orders.hears().len(), 1);
    let count = |kind: &str, of: &str| broker.status()["counts"][kind][of].as_u64().unwrap_or(0);
    wait_for("the count", || {
        count("ended", "no longer admitted by the policy") == 1
    });
    assert_eq!(count("refused", "unknown-service"), 1);

    // A policy that cannot be read keeps the one before it.
    std::fs::write(broker.path("policy.toml"), "version = 1\n[service").expect("the folder takes a file");
    wait_for("the refusal", || {
        !broker.status()["policy"]["refused_change"].is_null()
    });
    assert!(web.publishes("orders.place", "6").is_empty());
    assert_eq!(
        web.publishes("orders.other", "6"),
        [publish_denied("orders.other")]
    );
    assert_eq!(orders.hears().len(), 1);
}

#[test]
fn a_request_under_way_when_its_receiver_is_removed_is_not_left_waiting() {
    let broker = Broker::dev(POLICY);
    let [mut web, mut mallory] = ["web", "mallory"].map(|service| Client::of(&broker, service));
    assert!(web.subscribes("_INBOX.web", "9").is_empty());
    assert!(mallory.subscribes("orders.place", "1").is_empty());
    assert!(web.asks("orders.place", "_INBOX.web", "x").is_empty());
    let heard = mallory.hears();
    let token = reply_of(&heard[0]).to_owned();
    broker.change_policy(&POLICY.replace("[service.mallory]", "[service.other]"));
    // It may still say something; nobody hears it.
    drop(mallory.0.try_send(format!("PUB {token} 1\r\ny\r\n").as_bytes()));
    let mut heard = Vec::new();
    wait_for("the refusal", || {
        heard.extend(web.hears());
        !heard.is_empty()
    });
    let (headers, _) = parts_of(&heard[0]);
    assert_eq!(headers[..2], ["NATS/1.0 503", "Exo-Reason: receiver-lost"]);
    assert_eq!(heard.len(), 1);
}
