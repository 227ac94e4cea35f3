//! Reply subjects are capabilities: they mean something on one connection, once, and for a time.

use super::*;
use crate::support::wait_for;

const POLICY: &str = r#"
version = 1
trust-domain = "shop.example"

[service.web]
sends = ["orders.place", "orders.quick", "orders.cancel"]
receives = ["orders.placed"]

[service.orders]
sends = ["orders.placed"]
receives = ["orders.place", "orders.quick"]

[service.eve]
sends = ["orders.place"]
receives = [">"]

[message."orders.quick"]
reply-within = "300ms"
"#;

struct Scene {
    web: Client,
    orders: Client,
    eve: Client,
    broker: Broker,
}

impl Scene {
    fn new() -> Self {
        let broker = Broker::dev(POLICY);
        let [mut web, mut orders, eve] = ["web", "orders", "eve"].map(|service| Client::of(&broker, service));
        assert!(web.subscribes("_INBOX.web.*", "9").is_empty());
        assert!(orders.subscribes("orders.place", "1").is_empty());
        assert!(orders.subscribes("orders.quick", "2").is_empty());
        Self {
            web,
            orders,
            eve,
            broker,
        }
    }

    /// Web asks; gives the token that orders got.
    fn ask(&mut self, name: &str, inbox: &str) -> String {
        assert!(self.web.asks(name, inbox, "question").is_empty());
        let heard = self.orders.hears();
        assert_eq!(heard.len(), 1, "{heard:#?}");
        reply_of(&heard[0]).to_owned()
    }

    /// Nothing that was tried reached web; the true answer does.
    fn only_the_true_answer_comes(&mut self, token: &str) {
        assert_eq!(self.web.hears(), Vec::<String>::new());
        assert!(self.orders.publishes(token, "true").is_empty());
        let heard = self.web.hears();
        assert_eq!(heard.len(), 1, "{heard:#?}");
        assert_eq!(
            parts_of(&heard[0]),
            (vec!["NATS/1.0", "Exo-Sender: orders"], "true")
        );
    }
}

#[test]
fn a_token_is_its_connections_own() {
    let mut scene = Scene::new();
    let token = scene.ask("orders.place", "_INBOX.web.1");
    // Another service, the requester itself, and another instance of the same service.
    assert_eq!(scene.eve.publishes(&token, "forged"), [publish_denied(&token)]);
    assert_eq!(scene.web.publishes(&token, "forged"), [publish_denied(&token)]);
    let mut second = Client::of(&scene.broker, "orders");
    assert_eq!(second.publishes(&token, "forged"), [publish_denied(&token)]);
    // A token is no subject to listen on, and none to be answered on.
    assert_eq!(
        scene.eve.subscribes(&token, "1"),
        [subscription_denied(&token, None)]
    );
    assert_eq!(
        scene.eve.asks("orders.place", &token, "x"),
        [publish_denied(&token)]
    );
    scene.only_the_true_answer_comes(&token);
}

#[test]
fn a_token_answers_once() {
    let mut scene = Scene::new();
    let token = scene.ask("orders.place", "_INBOX.web.1");
    scene.only_the_true_answer_comes(&token);
    assert_eq!(scene.orders.publishes(&token, "again"), [publish_denied(&token)]);
    // Its place is used again, and the old token does not name the new request.
    let new = scene.ask("orders.place", "_INBOX.web.2");
    assert_ne!(new, token);
    assert_eq!(scene.orders.publishes(&token, "again"), [publish_denied(&token)]);
    scene.only_the_true_answer_comes(&new);
}

#[test]
fn a_token_expires() {
    let mut scene = Scene::new();
    let token = scene.ask("orders.quick", "_INBOX.web.1");
    let mut heard = Vec::new();
    wait_for("the request to expire", || {
        heard.extend(scene.web.hears());
        !heard.is_empty()
    });
    let (headers, _) = parts_of(&heard[0]);
    assert_eq!(headers[..2], ["NATS/1.0 503", "Exo-Reason: expired"]);
    assert_eq!(scene.orders.publishes(&token, "late"), [publish_denied(&token)]);
    assert_eq!(scene.web.hears(), Vec::<String>::new());
}

#[test]
fn a_token_is_not_guessed() {
    let mut scene = Scene::new();
    let token = scene.ask("orders.place", "_INBOX.web.1");
    let (slot, generation) = token
        .strip_prefix("_R.")
        .and_then(|rest| rest.split_once('.'))
        .expect("a token");
    let (slot, generation): (u64, u64) = (
        slot.parse().expect("a number"),
        generation.parse().expect("a number"),
    );
    let guesses = [
        format!("_R.{slot}.{}", generation + 1),
        format!("_R.{slot}.{}", generation.wrapping_sub(1)),
        format!("_R.{}.{generation}", slot + 1),
        format!("_R.{slot}.{}", generation + (1 << 32)),
        format!("_R.0{slot}.{generation}"),
        format!("_R.{slot}.0{generation}"),
        format!("_R.+{slot}.{generation}"),
        format!("_R.{slot}.{generation}."),
        format!("_R.{slot}.{generation}.x"),
        format!("_R..{slot}.{generation}"),
        format!("_r.{slot}.{generation}"),
        format!("_R.{slot}.*"),
        "_R.*.*".to_owned(),
        "_R.>".to_owned(),
        format!("_R.{slot}"),
        "_R.".to_owned(),
    ];
    for guess in &guesses {
        for client in [&mut scene.orders, &mut scene.eve] {
            assert_eq!(client.publishes(guess, "forged"), [publish_denied(guess)]);
        }
    }
    scene.only_the_true_answer_comes(&token);
}

#[test]
fn a_message_name_is_no_reply_subject() {
    let mut scene = Scene::new();
    // An answer there would be a message that the receiver sends without a line that lets it.
    let subjects = [
        "orders.cancel",
        "orders.placed",
        "orders.place",
        "other",
        "orders.*",
        ">",
        "$SYS.REQ.SERVER.PING",
        "$JS.ACK.x",
        "_R.0.0",
        "_INBOX.>",
        "_INBOX.*",
        "_INBOX..x",
        "_INBOX.",
        "_INBOX.\u{e4}",
        "_INBOX.\0",
    ];
    for subject in subjects {
        let heard = scene.web.asks("orders.place", subject, "x");
        assert_eq!(heard, [publish_denied(subject)], "{subject:?}");
        assert_eq!(scene.orders.hears(), Vec::<String>::new(), "{subject:?}");
    }
}

#[test]
fn an_inbox_is_heard_and_written_by_its_owner_alone() {
    let mut scene = Scene::new();
    // Whoever listens there listens to its own answers.
    for (sid, pattern) in ["_INBOX.>", "_INBOX.web.*", "_INBOX.web.1", "_INBOX.*.*", "_EXO.>"]
        .iter()
        .enumerate()
    {
        assert!(
            scene.eve.subscribes(pattern, &format!("i{sid}")).is_empty(),
            "{pattern}"
        );
    }
    assert!(scene.eve.subscribes(">", "all").is_empty());
    let mut twin = Client::of(&scene.broker, "web");
    assert!(twin.subscribes("_INBOX.web.*", "9").is_empty());
    let token = scene.ask("orders.place", "_INBOX.web.1");
    // Eve may receive the question as such, with a token of her own, and sees no inbox in it.
    let heard = scene.eve.hears();
    assert_eq!(heard.len(), 1, "{heard:#?}");
    assert!(
        heard[0].starts_with("HMSG orders.place all _R.") && !heard[0].contains("_INBOX"),
        "{heard:#?}"
    );
    for client in [&mut scene.eve, &mut scene.orders, &mut twin] {
        for inbox in ["_INBOX.web.1", "_INBOX.web.*", "_INBOX.>"] {
            assert_eq!(client.publishes(inbox, "forged"), [publish_denied(inbox)]);
        }
    }
    scene.only_the_true_answer_comes(&token);
    assert_eq!(
        scene.eve.hears(),
        Vec::<String>::new(),
        "nobody overhears an answer"
    );
    assert_eq!(
        twin.hears(),
        Vec::<String>::new(),
        "nor does another instance of the requester"
    );
}

#[test]
fn of_several_who_could_answer_each_answers_for_itself() {
    let mut scene = Scene::new();
    assert!(scene.eve.subscribes("orders.place", "1").is_empty());
    let token = scene.ask("orders.place", "_INBOX.web.1");
    let heard = scene.eve.hears();
    let own = reply_of(&heard[0]).to_owned();
    assert!(scene.eve.publishes(&own, "hers").is_empty());
    let heard = scene.web.hears();
    assert_eq!(
        parts_of(&heard[0]),
        (vec!["NATS/1.0", "Exo-Sender: eve"], "hers"),
        "never in another's name"
    );
    scene.only_the_true_answer_comes(&token);
}
