//! What operators revoke: cut off where it is open, kept out from then on, also after a restart.

use super::*;
use crate::operators::{admin_address, request};

#[test]
fn each_way_to_name_it_cuts_it_off_and_keeps_it_out() {
    let shop = Shop::open();
    let intermediate = shop.ca.intermediate("issuing", |_| {});
    let orders = shop.issue("orders");
    let mut bystander = shop.connect(&orders);
    let check = |shown: &Shown, what: &str, other: &Shown| {
        let mut cut_off = shop.connect(shown);
        let mut spared = shop.connect(other);
        let answer = shop.json(&["certs", "revoke", what, "--reason", "a test"]);
        assert_eq!(answer["connections_ended"], 1, "{what}: {answer}");
        // The command has ended: so has the connection.
        assert_eq!(cut_off.rest(), "-ERR 'Stale Connection'\r\n", "{what}");
        shop.check_refused(shown, "revoked");
        check_alive(&mut spared);
        let said = shop.succeeds(&["certs", "revoked"]);
        assert!(said.contains(": a test"), "{said}");
        shop.succeeds(&["certs", "unrevoke", what, "--reason", "the test is over"]);
        drop(shop.connect(shown));
        assert_eq!(shop.succeeds(&["certs", "revoked"]), "nothing is revoked\n");
    };
    let web = shop.issue("web");
    let again = shop.issue("web");
    check(&web, &format!("serial:{}", hex(web.serial.as_ref())), &again);
    check(&web, &fingerprint(&web.chain[0]), &again);
    check(&web, "web", &orders);
    let deep = intermediate.leaf(|_| {});
    check(&deep, &fingerprint(&deep.chain[1]), &web);
    check_alive(&mut bystander);
    let log = shop.broker.log();
    for words in [
        "certs revoke",
        "about=\"service:web\"",
        "why=\"a test\"",
        "service:web is revoked here by ",
    ] {
        assert!(log.contains(words), "{words}: {log}");
    }
}

#[test]
fn a_restart_undoes_nothing() {
    let shop = Shop::open();
    let web = shop.issue("web");
    shop.succeeds(&["certs", "revoke", "web", "--reason", "stolen"]);
    shop.check_refused(&web, "revoked");
    let mut shop = shop.restart();
    shop.check_refused(&web, "revoked");
    assert!(shop.succeeds(&["certs", "revoked"]).contains("service:web  by "));
    // Killed right after the answer, it knows it too.
    shop.succeeds(&["certs", "revoke", "orders", "--reason", "stolen too"]);
    shop.broker.kill();
    let shop = shop.restart();
    shop.check_refused(&shop.issue("orders"), "revoked");
    // SIGHUP reads files; the list is not forgotten over it.
    shop.broker.signal("HUP");
    shop.check_refused(&web, "revoked");
}

#[test]
fn a_list_that_cannot_be_read_keeps_the_broker_from_starting() {
    let shop = Shop::open();
    shop.succeeds(&["certs", "revoke", "web", "--reason", "stolen"]);
    let file = shop.broker.path("state/revoked.json");
    let kept = std::fs::read_to_string(&file).expect("it is kept");
    std::fs::write(&file, &kept[..kept.len() / 2]).expect("the folder takes a file");
    let Shop { mut broker, .. } = shop;
    broker.stop();
    let output = Command::new(EXOCOM)
        .args(["serve", "--config"])
        .arg(broker.path("serve.toml"))
        .output()
        .expect("the binary was built for the tests");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("revoked.json") && said.contains("restore the file"),
        "{said}"
    );
}

#[test]
fn what_cannot_be_kept_is_not_done() {
    let shop = Shop::open();
    // A file lies where the folder would be.
    let state = shop.broker.path("state");
    std::fs::remove_dir_all(&state).expect("the folder is the test's");
    std::fs::write(&state, "").expect("the folder takes a file");
    let web = shop.issue("web");
    let mut open = shop.connect(&web);
    let (is_done, said) = shop.exocom(&["certs", "revoke", "web", "--reason", "stolen"]);
    assert!(!is_done);
    assert!(said.contains("nothing was changed"), "{said}");
    check_alive(&mut open);
    drop(shop.connect(&web));
    assert_eq!(shop.succeeds(&["certs", "revoked"]), "nothing is revoked\n");
}

#[test]
fn what_names_nobody_is_said() {
    let shop = Shop::open();
    let said = shop.succeeds(&["certs", "revoke", "webb", "--reason", "typo"]);
    assert!(said.contains("the policy lists no service webb"), "{said}");
    let (is_done, said) = shop.exocom(&["certs", "unrevoke", "web", "--reason", "it never was"]);
    assert!(!is_done && said.contains("service:web is not revoked"), "{said}");
    let (is_done, said) = shop.exocom(&["certs", "revoke", "beef", "--reason", "two things"]);
    assert!(!is_done && said.contains("serial:beef or service:beef"), "{said}");
}

#[test]
fn a_revoked_operator_may_nothing_and_only_who_may_revokes() {
    let shop = Shop::open();
    let admin = admin_address(&shop.broker);
    let (alice, bob) = (shop.issue("operator/alice"), shop.issue("operator/bob"));
    let mut raw = shop.shake(admin, &bob).expect("a handshake");
    assert!(request(&mut raw, "/v1/status").contains(" 200 "));
    let order = br#"{"verb":"revoke","what":"operator:alice","reason":"a coup"}"#;
    let head = format!(
        "POST /v1/revoked HTTP/1.1\r\nhost: exocom\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        order.len()
    );
    raw.send(&[head.as_bytes(), order].concat());
    assert!(raw.line().contains(" 403 "));
    assert_eq!(shop.succeeds(&["certs", "revoked"]), "nothing is revoked\n");

    let mut raw = shop.shake(admin, &alice).expect("a handshake");
    assert!(request(&mut raw, "/v1/status").contains(" 200 "));
    shop.succeeds(&["certs", "revoke", "operator:alice", "--reason", "has left"]);
    assert!(request(&mut raw, "/v1/status").contains(" 403 "));
    let heard = shop.shake(admin, &alice).and_then(|mut raw| raw.try_line());
    assert!(!matches!(heard, Ok(Some(_))), "{heard:?}");
}

#[test]
fn what_waits_for_a_revoked_service_is_held_back_and_accounted_for() {
    let shop = Shop::open();
    let (web, orders) = (shop.issue("web"), shop.issue("orders"));
    let mut receiving = shop.connect(&orders);
    receiving.send(b"SUB orders.track orders 1\r\nPING\r\n");
    assert_eq!(receiving.line(), "PONG");
    let mut sending = shop.connect(&web);
    sending.send(b"PUB orders.track 1\r\na\r\nPING\r\n");
    assert_eq!(sending.line(), "PONG");
    // It has the message, and does not say that it is done.
    assert!(receiving.message().starts_with("HMSG orders.track 1 "));
    shop.succeeds(&["certs", "revoke", "orders", "--reason", "stolen"]);
    assert_eq!(receiving.rest(), "-ERR 'Stale Connection'\r\n");
    sending.send(b"PUB orders.track 1\r\nb\r\nPING\r\n");
    assert_eq!(sending.line(), "PONG");
    wait_for("both to wait", || {
        let queue = shop.json(&["queue", "list"])["queues"][0].clone();
        (
            queue["service"].as_str(),
            queue["pending"].as_u64(),
            queue["in_flight"].as_u64(),
        ) == (Some("orders"), Some(2), Some(0))
    });
    shop.check_refused(&orders, "revoked");
    shop.succeeds(&["certs", "unrevoke", "orders", "--reason", "found again"]);
    let mut receiving = shop.connect(&orders);
    receiving.send(b"SUB orders.track orders 1\r\n");
    for payload in ["a", "b"] {
        let message = receiving.message();
        assert!(message.trim_end().ends_with(payload), "{message}");
    }
}
