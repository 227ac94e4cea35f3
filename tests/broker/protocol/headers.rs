//! What is carried beside a payload, and what ExoCom says there.

use super::*;

fn hpub(name: &str, block: &str, payload: &str) -> String {
    let (header_bytes, bytes) = (block.len(), block.len() + payload.len());
    format!("HPUB {name} {header_bytes} {bytes}\r\n{block}{payload}\r\n")
}

// protocol: P-050
#[test]
fn headers_are_sent_only_by_who_takes_them() {
    let broker = Broker::dev(POLICY);
    let mut web = broker.raw("web");
    web.line();
    does(&mut web, "CONNECT {\"verbose\":false,\"headers\":false}\r\n");
    web.send(hpub("news.x", "NATS/1.0\r\n\r\n", "x").as_bytes());
    assert_eq!(web.rest(), UNKNOWN_OPERATION);
}

// protocol: P-051, P-052
#[test]
fn messages_carry_their_sender_to_who_takes_headers() {
    let broker = Broker::dev(POLICY);
    let mut with = broker.raw_ready("audit");
    let mut without = broker.raw("audit");
    without.line();
    does(&mut without, "CONNECT {\"verbose\":false}\r\n");
    for raw in [&mut with, &mut without] {
        does(raw, "SUB news.x 7\r\n");
    }
    let mut web = broker.raw_ready("web");
    let sent = [
        "PUB news.x 1\r\na\r\n".to_owned(),
        hpub("news.x", "NATS/1.0\r\nA: 1\r\n\r\n", "b"),
    ];
    does(&mut web, sent.concat());
    assert_eq!(
        heard(&mut with),
        [
            "HMSG news.x 7 29 30\r\nNATS/1.0\r\nExo-Sender: web\r\n\r\na\r\n",
            "HMSG news.x 7 35 36\r\nNATS/1.0\r\nExo-Sender: web\r\nA: 1\r\n\r\nb\r\n",
        ]
    );
    assert_eq!(
        heard(&mut without),
        ["MSG news.x 7 1\r\na\r\n", "MSG news.x 7 1\r\nb\r\n"]
    );
}

// protocol: P-053, P-054, P-055, P-056
#[test]
fn headers_pass_but_for_ours_and_for_what_is_none() {
    let broker = Broker::dev(POLICY);
    let mut audit = broker.raw_ready("audit");
    does(&mut audit, "SUB news.x 1\r\n");
    let mut web = broker.raw_ready("web");
    let mut check = |block: &str, passed: &str| {
        does(&mut web, hpub("news.x", block, "payload"));
        let messages = heard(&mut audit);
        let (_, message) = messages[0].split_once("\r\n").expect("a line and a body");
        let expected = format!("NATS/1.0\r\nExo-Sender: web\r\n{passed}\r\npayload\r\n");
        assert_eq!(message, expected, "{block:?}");
    };
    check("NATS/1.0\r\n\r\n", "");
    let all = "traceparent: 00-ab-cd-01\r\ntracestate: a=1\r\nB: 2\r\nb: 2\r\nB: 3\r\n";
    check(&format!("NATS/1.0\r\n{all}\r\n"), all);
    check(
        "NATS/1.0\r\nExo-Sender: orders\r\nA: 1\r\nexo-id: 7\r\nEXO-SENDER: orders\r\n\r\n",
        "A: 1\r\n",
    );
    check(
        "NATS/1.0\r\nExo-Sender:\r\n orders\r\n\tand more\r\nA: 1\r\n\r\n",
        "A: 1\r\n",
    );
    check("NATS/1.0\r\nA: 1\nExo-Sender: orders\r\n\r\n", "A: 1\r\n");
    check("NATS/1.0 503\r\nA: 1\r\n\r\n", "A: 1\r\n");
    check("NATS/1.0 200 All is well\r\n\r\n", "");
    check(
        "NATS/1.0\r\nno colon\r\n: no name\r\nin name: x\r\nA: \u{7}\r\nB: ü\r\n\r\n",
        "B: ü\r\n",
    );
    check("nonsense", "");
}
