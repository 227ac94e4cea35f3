//! Requests and their answers.

use super::*;

/// A broker, the service that asks, and the service that answers.
fn asked() -> (Broker, Raw, Raw) {
    let broker = Broker::dev(POLICY);
    let (mut web, mut orders) = (broker.raw_ready("web"), broker.raw_ready("orders"));
    does(&mut web, "SUB _INBOX.> 1\r\n");
    does(&mut orders, "SUB orders.* 1\r\n");
    (broker, web, orders)
}

// protocol: P-070
#[test]
fn a_reply_subject_is_an_inbox() {
    let (_broker, mut web, mut orders) = asked();
    let longest = format!("_{}", "x".repeat(254));
    for good in ["_INBOX.x", "_x", "_INBOX.a.b-c!", &longest] {
        does(&mut web, format!("PUB orders.place {good} 0\r\n\r\n"));
    }
    assert_eq!(heard(&mut orders).len(), 4);
    for bad in [
        "news.x",
        "INBOX.x",
        "_INBOX.*",
        "_INBOX.>",
        "_INBOX..x",
        "_INBOX.",
        "_R.1.1",
        "_INBOX.ü",
    ] {
        assert_eq!(
            said(&mut web, format!("PUB orders.place {bad} 0\r\n\r\n")),
            [publish_denied(bad)]
        );
    }
    assert!(heard(&mut orders).is_empty());
    web.send(format!("PUB orders.place {longest}x 0\r\n\r\n").as_bytes());
    assert_eq!(web.rest(), UNKNOWN_OPERATION);
}

// protocol: P-071
#[test]
fn an_inbox_is_its_owners() {
    let (broker, mut web, mut orders) = asked();
    let mut spy = broker.raw_ready("audit");
    does(&mut spy, "SUB _INBOX.> 1\r\nSUB _INBOX.x 2\r\n");
    does(&mut web, "PUB orders.place _INBOX.x 0\r\n\r\n");
    let token = reply_of(&heard(&mut orders)[0]);
    does(&mut orders, format!("PUB {token} 6\r\nsecret\r\n"));
    assert_eq!(payloads(&heard(&mut web)), ["secret"]);
    assert!(heard(&mut spy).is_empty());
    assert_eq!(
        said(&mut spy, "PUB _INBOX.x 0\r\n\r\n"),
        [publish_denied("_INBOX.x")]
    );
    assert_eq!(
        said(&mut web, "PUB _INBOX.x 0\r\n\r\n"),
        [publish_denied("_INBOX.x")]
    );
}

// protocol: P-072, P-073, P-074
#[test]
fn a_token_answers_once_from_where_the_request_was_delivered() {
    let (broker, mut web, mut orders) = asked();
    does(&mut web, "PUB orders.place _INBOX.mine 3\r\nask\r\n");
    let request = &heard(&mut orders)[0];
    assert_eq!(
        (subject(request), payload(request)),
        ("orders.place".to_owned(), "ask".to_owned())
    );
    let token = reply_of(request);
    assert!(token.starts_with("_R.") && !request.contains("mine"), "{request}");
    let answer = format!("PUB {token} 6\r\nanswer\r\n");
    for mut other in [broker.raw_ready("orders"), broker.raw_ready("audit")] {
        assert_eq!(said(&mut other, &answer), [publish_denied(&token)]);
    }
    assert_eq!(said(&mut web, &answer), [publish_denied(&token)]);
    does(&mut orders, &answer);
    let answers = heard(&mut web);
    assert_eq!(
        plainly(&answers),
        [("_INBOX.mine".to_owned(), "answer".to_owned())]
    );
    assert_eq!(header(&answers[0], "Exo-Sender").as_deref(), Some("orders"));
    assert_eq!(said(&mut orders, &answer), [publish_denied(&token)]);
    assert!(heard(&mut web).is_empty());
}

// protocol: P-073, P-085
#[test]
fn a_token_expires() {
    let (_broker, mut web, mut orders) = asked();
    does(&mut web, "PUB orders.slow _INBOX.x 0\r\n\r\n");
    let token = reply_of(&heard(&mut orders)[0]);
    assert_eq!(reason(&web.message()), "expired");
    assert_eq!(
        said(&mut orders, format!("PUB {token} 0\r\n\r\n")),
        [publish_denied(&token)]
    );
}

// protocol: P-075
#[test]
fn of_several_receivers_each_may_answer() {
    let (broker, mut web, mut orders) = asked();
    let mut audit = broker.raw_ready("audit");
    does(&mut audit, "SUB orders.place 1\r\n");
    does(&mut web, "PUB orders.place _INBOX.x 0\r\n\r\n");
    for (receiver, answer) in [(&mut orders, "a"), (&mut audit, "b")] {
        let token = reply_of(&heard(receiver)[0]);
        does(receiver, format!("PUB {token} 1\r\n{answer}\r\n"));
    }
    let answers = heard(&mut web);
    assert_eq!(payloads(&answers), ["a", "b"]);
    let senders: Vec<_> = answers
        .iter()
        .filter_map(|answer| header(answer, "Exo-Sender"))
        .collect();
    assert_eq!(senders, ["orders", "audit"]);
}

// protocol: P-076
#[test]
fn an_answer_has_no_reply_subject() {
    let (_broker, mut web, mut orders) = asked();
    does(&mut web, "PUB orders.place _INBOX.x 0\r\n\r\n");
    let token = reply_of(&heard(&mut orders)[0]);
    does(&mut orders, format!("PUB {token} _INBOX.y 2\r\nok\r\n"));
    assert_eq!(
        heard(&mut web),
        ["HMSG _INBOX.x 1 32 34\r\nNATS/1.0\r\nExo-Sender: orders\r\n\r\nok\r\n"]
    );
}

// protocol: P-077
#[test]
fn a_queue_group_on_an_inbox_means_nothing() {
    let (_broker, mut web, mut orders) = asked();
    does(
        &mut web,
        "UNSUB 1\r\nSUB _INBOX.x g 2\r\nSUB _INBOX.x g 3\r\nSUB _INBOX.* g 4\r\n",
    );
    does(&mut web, "PUB orders.place _INBOX.x 0\r\n\r\n");
    let token = reply_of(&heard(&mut orders)[0]);
    does(&mut orders, format!("PUB {token} 2\r\nok\r\n"));
    assert_eq!(payloads(&heard(&mut web)), ["ok", "ok", "ok"]);
}
