//! What a client may send, and what ends its connection.

use exocom::limits::{CONTROL_LINE_BYTES_MAX, HEADER_BYTES_MAX, SID_BYTES_MAX};

use super::*;

// protocol: P-030
#[test]
fn operations_come_in_any_case_and_some_mean_nothing() {
    let broker = Broker::dev(POLICY);
    let mut web = broker.raw_ready("web");
    let heard = said(
        &mut web,
        "sub news.x 1\r\npub news.x 1\r\na\r\nHpub news.x 12 13\r\nNATS/1.0\r\n\r\nb\r\n",
    );
    assert_eq!(payloads(&heard), ["a", "b"]);
    does(&mut web, "unSub 1\r\nPub news.x 0\r\n\r\npong\r\n");
    does(&mut web, "+OK\r\n+ok\r\nINFO {}\r\ninfo {\"ldm\":true}\r\n");
    web.send(b"ping\r\n");
    assert_eq!(web.line(), "PONG");
}

// protocol: P-031
#[test]
fn lines_end_in_lf_too_and_words_stand_apart_by_tabs_too() {
    let broker = Broker::dev(POLICY);
    let mut web = broker.raw_ready("web");
    let heard = said(&mut web, "SUB\tnews.x  \t 1 \nPUB news.x\t1\nx\r\n");
    assert_eq!(payloads(&heard), ["x"]);
}

// protocol: P-032
#[test]
fn a_payload_is_as_long_as_it_says() {
    let broker = Broker::dev(POLICY);
    for bytes in [
        "PUB news.x 1\r\nxyz\r\n",
        "PUB news.x 3\r\nx\r\nPING\r\n",
        "PUB news.x 1\r\nx\nPING\r\n",
    ] {
        assert_eq!(last_words(&broker, "web", bytes), UNKNOWN_OPERATION, "{bytes:?}");
    }
    let mut web = broker.raw_ready("web");
    does(&mut web, "SUB news.x 1\r\n");
    let heard = said(&mut web, "PUB news.x 6\r\nPING\r\n\r\n");
    assert_eq!(payloads(&heard), ["PING\r\n"]);
}

// protocol: P-033
#[test]
fn operations_may_be_cut_into_any_pieces() {
    let broker = Broker::dev(POLICY);
    let said = "SUB news.> 1\r\nPUB news.a 1\r\na\r\nSUB orders.x 2\r\nHPUB news.b 18 19\r\nNATS/1.0\r\nA: 1\r\n\r\nb\r\n\
                UNSUB 1\r\nPUB news.c 0\r\n\r\nPING\r\n";
    let answers = |raw: &mut Raw| -> Vec<String> {
        let all = std::iter::from_fn(|| Some(raw.message()));
        let mut answers: Vec<_> = all.take_while(|line| line != "PONG").collect();
        // The error may come ahead of messages that were sent before it, within one read.
        answers.sort();
        answers
    };
    let mut whole = broker.raw_ready("web");
    whole.send(said.as_bytes());
    let expected = answers(&mut whole);
    assert_eq!(expected.len(), 3, "{expected:?}");
    let mut piecewise = broker.raw_ready("web");
    for byte in said.as_bytes() {
        piecewise.send(&[*byte]);
    }
    assert_eq!(answers(&mut piecewise), expected);
}

// protocol: P-034
#[test]
fn a_pong_comes_after_everything_that_was_sent_before_its_ping() {
    let broker = Broker::dev(POLICY);
    let mut audit = broker.raw_ready("audit");
    does(&mut audit, "SUB news.> 1\r\n");
    let mut web = broker.raw_ready("web");
    does(&mut web, "SUB news.> 1\r\nSUB _INBOX.x 2\r\n");
    let numbers: Vec<_> = (0..2000).map(|number| number.to_string()).collect();
    let all: String = numbers
        .iter()
        .map(|number| format!("PUB news.x {}\r\n{number}\r\n", number.len()))
        .collect();
    let heard_by_web = said(&mut web, all + "PUB orders.none _INBOX.x 0\r\n\r\n");
    let (refusal, messages) = heard_by_web.split_last().expect("messages");
    assert_eq!(payloads(messages), numbers);
    assert_eq!(reason(refusal), "no-receiver");
    assert_eq!(payloads(&heard(&mut audit)), numbers);
}

// protocol: P-035
#[test]
fn an_id_in_use_keeps_its_first_subscription() {
    let broker = Broker::dev(POLICY);
    let mut web = broker.raw_ready("web");
    does(&mut web, "SUB news.x 1\r\nSUB news.y 1\r\n");
    let heard = said(&mut web, "PUB news.x 1\r\nx\r\nPUB news.y 1\r\ny\r\n");
    assert_eq!(payloads(&heard), ["x"]);
    does(&mut web, "UNSUB 1\r\nSUB news.y 1\r\n");
    assert_eq!(
        payloads(&said(&mut web, "PUB news.x 1\r\nx\r\nPUB news.y 1\r\ny\r\n")),
        ["y"]
    );
}

// protocol: P-036
#[test]
fn unsub_ends_a_subscription_at_once_or_later() {
    let broker = Broker::dev(POLICY);
    let mut web = broker.raw_ready("web");
    let publish = |from: u32, to: u32| -> String {
        (from..to)
            .map(|number| format!("PUB news.x 1\r\n{number}\r\n"))
            .collect()
    };
    does(&mut web, "SUB news.x 1\r\n");
    assert_eq!(payloads(&said(&mut web, publish(0, 2))), ["0", "1"]);
    // The two before count, so two more come.
    does(&mut web, "UNSUB 1 4\r\n");
    assert_eq!(payloads(&said(&mut web, publish(2, 6))), ["2", "3"]);
    does(&mut web, "SUB news.x 2\r\n");
    assert_eq!(
        payloads(&said(&mut web, publish(6, 7) + "UNSUB 2\r\n" + &publish(7, 8))),
        ["6"]
    );
    // It has had them already.
    does(&mut web, "SUB news.x 3\r\n");
    assert_eq!(said(&mut web, publish(0, 3)).len(), 3);
    does(&mut web, "UNSUB 3 2\r\n");
    does(&mut web, publish(8, 9));
    // An inbox is counted in the same way.
    does(&mut web, "SUB _INBOX.x 4\r\nUNSUB 4 1\r\n");
    let refused = said(
        &mut web,
        "PUB orders.none _INBOX.x 0\r\n\r\nPUB orders.none _INBOX.x 0\r\n\r\n",
    );
    assert_eq!(refused.len(), 1);
}

// protocol: P-037
#[test]
fn unsub_with_an_unknown_id_is_no_error() {
    let broker = Broker::dev(POLICY);
    does(&mut broker.raw_ready("web"), "UNSUB 9\r\nUNSUB 9 3\r\n");
}

// protocol: P-041, P-042
#[test]
fn what_is_not_the_protocol_ends_the_connection_and_no_other() {
    let broker = Broker::dev(POLICY);
    let mut bystander = broker.raw_ready("web");
    let malformed = [
        "NONSENSE\r\n",
        "\r\n",
        "PUBX news.x 0\r\n\r\n",
        "PUB\r\n",
        "PUB news.x\r\n",
        "PUB news.x -1\r\n",
        "PUB news.x 1x\r\n",
        "PUB a b c 0\r\n",
        "HPUB news.x 5 4\r\n",
        "HPUB news.x 4\r\n",
        "SUB\r\n",
        "SUB news.x\r\n",
        "SUB a b c d\r\n",
        "UNSUB\r\n",
        "UNSUB 1 2 3\r\n",
        "-ERR 'x'\r\n",
        "\u{0}\r\n",
        "ünknown\r\n",
    ];
    for bytes in malformed {
        assert_eq!(last_words(&broker, "web", bytes), UNKNOWN_OPERATION, "{bytes:?}");
    }
    let denied = said(&mut bystander, "PUB secret 0\r\n\r\nSUB secret 1\r\n");
    assert_eq!(denied, [publish_denied("secret"), subscription_denied("secret")]);
    does(&mut bystander, "PUB news.x 0\r\n\r\n");
}

// protocol: P-044
#[test]
fn a_client_that_is_no_longer_admitted_is_cut() {
    let broker = Broker::dev(POLICY);
    let mut audit = broker.raw_ready("audit");
    let mut web = broker.raw_ready("web");
    broker.change_policy(&POLICY.replace("[service.audit]", "[service.other]"));
    assert_eq!(audit.rest(), STALE);
    does(&mut web, "PUB news.x 0\r\n\r\n");
}

// protocol: P-090, P-092
#[test]
fn lines_and_ids_have_a_limit() {
    let broker = Broker::dev(POLICY);
    let mut web = broker.raw_ready("web");
    let spaces = " ".repeat(CONTROL_LINE_BYTES_MAX - "SUB news.x 1".len());
    does(&mut web, format!("SUB {spaces}news.x 1\r\n"));
    assert_eq!(
        last_words(&broker, "web", format!("SUB {spaces} news.x 1\r\n")),
        UNKNOWN_OPERATION
    );
    // Without an end it is known to be too long as well.
    assert_eq!(
        last_words(&broker, "web", format!("SUB {spaces}          news.x")),
        UNKNOWN_OPERATION
    );
    let id = "1".repeat(SID_BYTES_MAX);
    does(&mut web, format!("SUB news.y {id}\r\n"));
    assert_eq!(
        last_words(&broker, "web", format!("SUB news.y {id}1\r\n")),
        UNKNOWN_OPERATION
    );
}

// protocol: P-091
#[test]
fn a_header_block_has_a_limit() {
    let broker = Broker::dev(POLICY);
    let mut web = broker.raw_ready("web");
    does(&mut web, "SUB news.x 1\r\n");
    let value = "x".repeat(HEADER_BYTES_MAX - "NATS/1.0\r\nA: \r\n\r\n".len());
    let block = format!("NATS/1.0\r\nA: {value}\r\n\r\n");
    let heard = said(
        &mut web,
        format!("HPUB news.x {HEADER_BYTES_MAX} {HEADER_BYTES_MAX}\r\n{block}\r\n"),
    );
    assert_eq!(header(&heard[0], "A"), Some(value));
    let over = HEADER_BYTES_MAX + 1;
    assert_eq!(
        last_words(&broker, "web", format!("HPUB news.x {over} {over}\r\n")),
        PAYLOAD_VIOLATION
    );
}
