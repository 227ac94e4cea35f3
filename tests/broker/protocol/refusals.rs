//! Requests that cannot succeed, and how the requester is told.

use exocom::limits::PENDING_REPLIES_PER_CONNECTION_MAX;

use super::*;

fn asking(broker: &Broker) -> Raw {
    let mut web = broker.raw_ready("web");
    does(&mut web, "SUB _INBOX.> 1\r\n");
    web
}

fn receiving(broker: &Broker, service: &str) -> Raw {
    let mut raw = broker.raw_ready(service);
    does(&mut raw, "SUB orders.* 1\r\n");
    raw
}

// protocol: P-080, P-082
#[test]
fn a_denial_names_its_rule() {
    let broker = Broker::dev(POLICY);
    let mut web = asking(&broker);
    let policy = broker.status()["policy"]["version"]
        .as_str()
        .expect("a text")
        .to_owned();
    let headers =
        format!("NATS/1.0 503\r\nExo-Reason: denied\r\nExo-Rule: no grant\r\nExo-Policy: {policy}\r\n\r\n");
    let bytes = headers.len();
    let expected = [
        publish_denied("secret"),
        format!("HMSG _INBOX.x 1 {bytes} {bytes}\r\n{headers}\r\n"),
    ];
    assert_eq!(said(&mut web, "PUB secret _INBOX.x 0\r\n\r\n"), expected);
    // What is denied for a line of the policy names that line.
    let mut orders = receiving(&broker, "orders");
    let [error, refusal] =
        <[String; 2]>::try_from(said(&mut web, "PUB orders.small _INBOX.x 9\r\n123456789\r\n"))
            .expect("two answers");
    assert_eq!(error, publish_denied("orders.small"));
    assert_eq!(reason(&refusal), "denied");
    let rule = header(&refusal, "Exo-Rule").expect("a denial has a rule");
    let (file, line) = rule.rsplit_once(':').expect("FILE:LINE");
    assert!(
        file.ends_with("policy.toml") && line.parse::<u32>().is_ok(),
        "{rule}"
    );
    assert!(heard(&mut orders).is_empty());
    does(&mut web, "PUB orders.small _INBOX.x 8\r\n12345678\r\n");
    assert_eq!(payloads(&heard(&mut orders)), ["12345678"]);
}

// protocol: P-081
#[test]
fn only_who_takes_refusals_is_told() {
    let broker = Broker::dev(POLICY);
    for options in [
        r#"{"verbose":false,"headers":true}"#,
        r#"{"verbose":false,"no_responders":true}"#,
    ] {
        let mut web = broker.raw("web");
        web.line();
        let heard = said(
            &mut web,
            format!(
                "CONNECT {options}\r\nSUB _INBOX.x 1\r\nPUB secret _INBOX.x 0\r\n\r\nPUB orders.x _INBOX.x 0\r\n\r\n"
            ),
        );
        assert_eq!(heard, [publish_denied("secret")], "{options}");
    }
}

// protocol: P-083
#[test]
fn a_request_that_nobody_receives_is_refused() {
    let broker = Broker::dev(POLICY);
    let mut web = asking(&broker);
    let check = |web: &mut Raw| {
        let refused = said(web, "PUB orders.place _INBOX.x 0\r\n\r\n");
        assert_eq!(reason(&refused[0]), "no-receiver");
        assert_eq!(header(&refused[0], "Exo-Rule"), None);
        assert!(header(&refused[0], "Exo-Policy").is_some());
    };
    check(&mut web);
    // Without a reply subject there is nobody to tell.
    does(&mut web, "PUB orders.place 0\r\n\r\n");
    let mut orders = receiving(&broker, "orders");
    does(&mut web, "PUB orders.place _INBOX.x 0\r\n\r\n");
    assert_eq!(heard(&mut orders).len(), 1);
}

// protocol: P-084
#[test]
fn a_request_whose_receiver_ends_is_refused() {
    let broker = Broker::dev(POLICY);
    let mut web = asking(&broker);
    let orders = receiving(&broker, "orders");
    does(
        &mut web,
        "PUB orders.place _INBOX.a 0\r\n\r\nPUB orders.place _INBOX.b 0\r\n\r\n",
    );
    drop(orders);
    let refused = [web.message(), web.message()];
    assert_eq!(
        refused
            .each_ref()
            .map(|message| (subject(message), reason(message))),
        [
            ("_INBOX.a".to_owned(), "receiver-lost".to_owned()),
            ("_INBOX.b".to_owned(), "receiver-lost".to_owned()),
        ]
    );
}

// protocol: P-086, P-094
#[test]
fn a_receiver_has_so_many_unanswered_requests_at_the_most() {
    let broker = Broker::dev(POLICY);
    let mut web = asking(&broker);
    let mut orders = receiving(&broker, "orders");
    let request = "PUB orders.patient _INBOX.x 0\r\n\r\n";
    let mut delivered = 0;
    // In parts, so that the outbox of the receiver is not what is full.
    while delivered < PENDING_REPLIES_PER_CONNECTION_MAX / 2 {
        does(&mut web, request.repeat(1024));
        let requests = heard(&mut orders);
        delivered += requests.len();
        assert_eq!(requests.len(), 1024);
    }
    let refused = said(&mut web, request);
    assert_eq!(reason(&refused[0]), "overloaded");
    // A message that needs no answer still passes.
    does(&mut web, "PUB orders.patient 2\r\nhi\r\n");
    assert_eq!(payloads(&heard(&mut orders)), ["hi"]);
}

// protocol: P-087
#[test]
fn of_several_receivers_the_last_hope_counts() {
    let broker = Broker::dev(POLICY);
    let mut web = asking(&broker);
    let (mut orders, audit) = (receiving(&broker, "orders"), receiving(&broker, "audit"));
    does(&mut web, "PUB orders.place _INBOX.x 0\r\n\r\n");
    drop(audit);
    let token = reply_of(&heard(&mut orders)[0]);
    does(&mut orders, format!("PUB {token} 2\r\nok\r\n"));
    assert_eq!(payloads(&[web.message()]), ["ok"]);
    let audit = receiving(&broker, "audit");
    does(&mut web, "PUB orders.place _INBOX.y 0\r\n\r\n");
    drop((audit, orders));
    assert_eq!(reason(&web.message()), "receiver-lost");
    assert!(heard(&mut web).is_empty());
}
