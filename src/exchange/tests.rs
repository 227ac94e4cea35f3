//! Sessions against each other, without sockets: what one client can do to the memory, the time and the messages
//! of others. Each test is an attack that worked once, or a bound that keeps one from working.

use std::ops::DerefMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::exchange::mailbox::{ConnId, Mailbox, Peer};
use crate::exchange::replies::PendingReplies;
use crate::exchange::session::{Next, Session};
use crate::exchange::turn::Turn;
use crate::exchange::world::World;
use crate::identity::{Identity, Role};
use crate::limits::{OUTBOX_BYTES_MAX, PAYLOAD_BYTES_MAX};
use crate::policy::{Policy, Source};
use crate::traffic::flow::FlowRegistry;
use crate::wire::decode::{Step, decode};
use crate::wire::encode::ErrText;

const POLICY: &str = r#"
version = 1
trust-domain = "shop.example"

[service.web]
sends = ["orders.>", "bulk"]
receives = ["orders.placed"]

[service.orders]
receives = ["orders.>", "bulk"]

[service.audit]
receives = ["orders.>"]
"#;

/// A connection without a socket: what it is sent stays in its outbox.
#[derive(Debug, Clone)]
struct Fake {
    id: ConnId,
    mailbox: Arc<Mutex<Mailbox>>,
    replies: Arc<Mutex<PendingReplies<Self>>>,
    is_ready: Arc<AtomicBool>,
}

impl Peer for Fake {
    fn id(&self) -> ConnId {
        self.id
    }

    fn with_mailbox<R>(&self, f: impl FnOnce(&mut Mailbox) -> R) -> R {
        f(&mut self.mailbox.lock())
    }

    fn replies(&self) -> impl DerefMut<Target = PendingReplies<Self>> {
        self.replies.lock()
    }

    fn is_ready(&self) -> bool {
        self.is_ready.load(Relaxed)
    }
}

/// A client: its session, and the turn that it shares with all others of the thread.
struct Client {
    session: Session<Fake>,
    peer: Fake,
}

struct Town {
    world: World<Fake>,
    flows: FlowRegistry,
    turn: Turn<Fake>,
    clients: u64,
    now_us: u64,
}

fn policy(text: &str) -> Arc<Policy> {
    let source = Source {
        name: "policy.toml".to_owned(),
        text: text.to_owned(),
    };
    Arc::new(Policy::compile(&[source]).unwrap().policy)
}

impl Town {
    fn new(text: &str) -> Self {
        Self {
            world: World::new(policy(text), None),
            flows: FlowRegistry::default(),
            turn: Turn::default(),
            clients: 0,
            now_us: 0,
        }
    }

    /// A client that has a session, and has said nothing yet.
    fn meet(&mut self, service: &str) -> Client {
        self.clients += 1;
        let identity = Arc::new(Identity {
            trust_domain: "shop.example".into(),
            role: Role::Service(service.into()),
            serial: "1".into(),
            expires_unix_s: i64::MAX,
        });
        let peer = Fake {
            id: ConnId(self.clients),
            mailbox: Arc::default(),
            replies: Arc::new(Mutex::new(PendingReplies::new(
                0,
                &self.world.share(&service.into()).pending_replies,
            ))),
            is_ready: Arc::new(AtomicBool::new(true)),
        };
        let book = self.flows.open_book(&service.into(), 1);
        let share = self.world.share(&service.into());
        let session = Session::new(peer.clone(), identity, None, book, share, &self.world);
        Client { session, peer }
    }

    /// A client that has said CONNECT.
    fn connect(&mut self, service: &str) -> Client {
        let mut client = self.meet(service);
        let said = self.turn(
            &mut client,
            b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\n",
        );
        assert_eq!((said, client.hears()), (Next::GoOn, String::new()));
        client
    }

    /// One turn of a client, as its connection runs it.
    fn turn(&mut self, client: &mut Client, bytes: &[u8]) -> Next {
        let Self { world, turn, .. } = self;
        let mut used = 0;
        let mut next = client.session.begin(world, turn, self.now_us);
        while next == Next::GoOn && used < bytes.len() {
            match decode(&bytes[used..], PAYLOAD_BYTES_MAX).unwrap() {
                Step::Op(op, taken) => {
                    next = client.session.handle(world, bytes, op, turn, self.now_us);
                    used += taken;
                }
                Step::Incomplete { .. } => panic!("whole operations only"),
            }
        }
        client.session.finish(world, bytes, turn, self.now_us);
        client.session.finish_control(turn);
        turn.denials.clear();
        turn.slow.clear();
        next
    }

    fn does(&mut self, client: &mut Client, text: &str) -> String {
        assert_eq!(self.turn(client, text.as_bytes()), Next::GoOn, "{text:?}");
        client.hears()
    }
}

impl Client {
    /// What its socket would have got since the last time.
    fn hears(&self) -> String {
        self.peer.with_mailbox(|mailbox| {
            let text = String::from_utf8_lossy(mailbox.outbox.waiting()).into_owned();
            mailbox.outbox.take(text.len());
            text
        })
    }

    fn outbox_bytes(&self) -> usize {
        self.peer.with_mailbox(|mailbox| mailbox.outbox.len())
    }
}

/// The reply token of the only message in a text.
fn token(text: &str) -> String {
    let line = text.lines().next().unwrap();
    line.split(' ').nth(3).unwrap().to_owned()
}

#[test]
fn a_session_that_begins_under_a_newer_policy_is_admitted_again() {
    let mut town = Town::new(POLICY);
    let without_audit = POLICY.replace("[service.audit]", "[service.other]");
    // Admitted by the old policy; the new one is in force before the session exists.
    town.world.set_policy(policy(&without_audit));
    let mut audit = town.meet("audit");
    assert_eq!(
        town.turn(&mut audit, b"PING\r\n"),
        Next::End(ErrText::StaleConnection)
    );
    let mut web = town.meet("web");
    assert_eq!(
        town.turn(&mut web, b"PING\r\n"),
        Next::End(ErrText::AuthorizationViolation)
    );
}

#[test]
fn what_a_turn_gathered_is_forgotten_at_its_end_also_where_nothing_was_delivered() {
    let mut town = Town::new(POLICY);
    let mut web = town.connect("web");
    let headers = format!("NATS/1.0 503\r\nA: {}\r\n\r\n", "a".repeat(1000));
    let denied = format!("HPUB denied {0} {0}\r\n{headers}\r\n", headers.len());
    town.does(&mut web, &denied.repeat(10));
    assert_eq!(town.turn.bytes_kept(), 0, "headers of denied messages");
    let names: Vec<_> = (0..10).map(|n| format!("PUB orders.n{n} 0\r\n\r\n")).collect();
    town.does(&mut web, &names.concat());
    assert_eq!(town.turn.routes_kept(), 0, "routes without a receiver");
}

#[test]
fn an_answer_for_many_inboxes_stops_at_the_outboxs_bound() {
    let mut town = Town::new(POLICY);
    let (mut web, mut orders) = (town.connect("web"), town.connect("orders"));
    town.does(&mut orders, "SUB orders.> 1\r\n");
    let inboxes: Vec<_> = (0..9_000).map(|n| format!("SUB _INBOX.x {n}\r\n")).collect();
    let denied = town.does(&mut web, &inboxes.concat());
    assert_eq!(denied.matches("-ERR").count(), 9_000 - 64);
    town.does(&mut web, "PUB orders.place _INBOX.x 0\r\n\r\n");
    let token = token(&orders.hears());
    let payload = "x".repeat(1_000_000);
    town.does(
        &mut orders,
        &format!("PUB {token} {}\r\n{payload}\r\n", payload.len()),
    );
    assert!(
        web.outbox_bytes() <= OUTBOX_BYTES_MAX + 2 * payload.len(),
        "{}",
        web.outbox_bytes()
    );
    let dropped: u64 = town
        .flows
        .totals()
        .values()
        .map(|totals| totals.replies_dropped)
        .sum();
    assert_eq!(dropped, 1);
}

// protocol: P-065
#[test]
fn a_group_belongs_to_one_service() {
    let mut town = Town::new(POLICY);
    let (mut web, mut orders, mut audit) =
        (town.connect("web"), town.connect("orders"), town.connect("audit"));
    town.does(&mut orders, "SUB orders.place orders 1\r\n");
    // Another service that may receive the message joins the group by its name.
    town.does(&mut audit, "SUB orders.place orders 1\r\n");
    for round in 0..4 {
        town.does(&mut web, "PUB orders.place 1\r\nx\r\n");
        assert!(orders.hears().contains("orders.place"), "round {round}");
        assert!(audit.hears().contains("orders.place"), "round {round}");
    }
}

// protocol: P-066
#[test]
fn a_message_that_an_instance_left_behind_goes_to_its_own_service() {
    let mut town = Town::new(POLICY);
    let (mut web, mut orders, mut audit) =
        (town.connect("web"), town.connect("orders"), town.connect("audit"));
    town.does(&mut orders, "SUB orders.place q 1\r\n");
    town.does(&mut audit, "SUB orders.place q 1\r\n");
    town.does(&mut web, "PUB orders.place 1\r\nx\r\n");
    drop((orders.hears(), audit.hears()));
    // It has left, and web's route does not know yet.
    town.turn(&mut web, b"");
    orders.session.end(&town.world);
    let Town { world, turn, .. } = &mut town;
    let bytes = b"PUB orders.place 1\r\ny\r\n";
    let Ok(Step::Op(op, _)) = decode(bytes, 10) else {
        panic!("a whole operation")
    };
    web.session.handle(world, bytes, op, turn, 0);
    web.session.finish(world, bytes, turn, 0);
    assert_eq!(
        audit.hears().matches("HMSG").count(),
        1,
        "its own copy, and not the other's"
    );
}

#[test]
fn each_of_many_groups_gets_its_own_copy() {
    let mut town = Town::new(POLICY);
    let (mut web, mut orders) = (town.connect("web"), town.connect("orders"));
    let groups: Vec<_> = (0..256)
        .map(|n| format!("SUB orders.place q{n} {n}\r\n"))
        .collect();
    assert_eq!(town.does(&mut orders, &groups.concat()), "");
    town.does(&mut web, "PUB orders.place 0\r\n\r\n");
    assert_eq!(orders.hears().matches("HMSG orders.place").count(), 256);
    // More of one pattern would only multiply what each publisher has to do.
    let more = "SUB orders.place more more\r\n";
    assert!(
        town.does(&mut orders, more)
            .contains("-ERR 'Permissions Violation for Subscription")
    );
    assert_eq!(town.does(&mut orders, "SUB orders.other 1000\r\n"), "");
    assert_eq!(town.does(&mut orders, &format!("UNSUB 7\r\n{more}")), "");
}

#[test]
fn a_message_for_more_than_a_batch_reaches_all() {
    let mut town = Town::new(POLICY);
    let mut web = town.connect("web");
    let all: String = (0..256).map(|n| format!("SUB orders.> {n}\r\n")).collect();
    let mut crowd: Vec<_> = (0..260).map(|_| town.connect("orders")).collect();
    for orders in &mut crowd {
        assert_eq!(town.does(orders, &all), "");
    }
    assert!(crowd.len() * 256 > crate::limits::DELIVERIES_PER_BATCH_MAX);
    town.does(&mut web, "PUB orders.a 1\r\nx\r\nPUB orders.b 1\r\ny\r\n");
    for orders in &crowd {
        let heard = orders.hears();
        assert_eq!(heard.matches("HMSG orders.a").count(), 256);
        assert_eq!(heard.matches("HMSG orders.b").count(), 256);
        assert!(
            heard.rfind("HMSG orders.a") < heard.find("HMSG orders.b"),
            "in order"
        );
    }
    let delivered: u64 = town.flows.totals().values().map(|totals| totals.messages).sum();
    assert_eq!(delivered, 2 * 260 * 256);
}

#[test]
fn cached_routes_are_bounded_by_their_receivers() {
    let mut town = Town::new(POLICY);
    let mut web = town.connect("web");
    let all: String = (0..256).map(|n| format!("SUB orders.> {n}\r\n")).collect();
    let mut crowd: Vec<_> = (0..20).map(|_| town.connect("orders")).collect();
    for orders in &mut crowd {
        town.does(orders, &all);
    }
    for name in 0..100 {
        town.does(&mut web, &format!("PUB orders.n{name} 0\r\n\r\n"));
        crowd.iter().for_each(|orders| drop(orders.hears()));
    }
    assert!(web.session.targets_kept() <= crate::limits::CACHED_TARGETS_PER_CONNECTION_MAX + 20 * 256);
}

const ASKED_AND_TOLD: &str = r#"
version = 1
trust-domain = "shop.example"

[service.web]
sends = ["orders.place"]
receives = ["orders.placed"]

[service.orders]
sends = ["orders.placed"]
receives = ["orders.place"]
"#;

// protocol: P-067
#[test]
fn an_answer_keeps_its_place_among_the_messages_of_its_sender() {
    let mut town = Town::new(ASKED_AND_TOLD);
    let (mut web, mut orders) = (town.connect("web"), town.connect("orders"));
    town.does(&mut orders, "SUB orders.place 1\r\n");
    town.does(
        &mut web,
        "SUB orders.placed 1\r\nSUB _INBOX.x 2\r\nPUB orders.place _INBOX.x 0\r\n\r\n",
    );
    let token = token(&orders.hears());
    town.does(
        &mut orders,
        &format!("PUB orders.placed 1\r\na\r\nPUB {token} 1\r\nb\r\nPUB orders.placed 1\r\nc\r\n"),
    );
    let heard = web.hears();
    let payloads: Vec<_> = heard.lines().filter(|line| line.len() == 1).collect();
    assert_eq!(payloads, ["a", "b", "c"], "{heard}");
}

// protocol: P-088
#[test]
fn a_refusal_comes_after_what_was_sent_before_it() {
    let mut town = Town::new(POLICY);
    let mut web = town.connect("web");
    town.does(&mut web, "SUB orders.placed 1\r\nSUB _INBOX.x 2\r\n");
    let heard = town.does(
        &mut web,
        "PUB orders.placed 1\r\na\r\nPUB orders.place _INBOX.x 0\r\n\r\nPUB stock _INBOX.x 0\r\n\r\n",
    );
    let lines = heard
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("Exo-Policy"));
    let expected = [
        "-ERR 'Permissions Violation for Publish to \"stock\"'",
        "HMSG orders.placed 1 29 30",
        "NATS/1.0",
        "Exo-Sender: web",
        "a",
        "HMSG _INBOX.x 2 67 67",
        "NATS/1.0 503",
        "Exo-Reason: no-receiver",
        "HMSG _INBOX.x 2 82 82",
        "NATS/1.0 503",
        "Exo-Reason: denied",
        "Exo-Rule: no grant",
    ];
    assert_eq!(lines.collect::<Vec<_>>(), expected);
}

// protocol: P-025
#[test]
fn only_what_passes_is_said_to_be_ok() {
    let mut town = Town::new(ASKED_AND_TOLD);
    let mut orders = town.meet("orders");
    assert_eq!(town.does(&mut orders, "CONNECT {}\r\n"), "+OK\r\n");
    assert_eq!(town.does(&mut orders, "PUB orders.placed 1\r\na\r\n"), "+OK\r\n");
    for denied in [
        "PUB orders.place 0\r\n\r\n",
        "PUB _R.0.0 0\r\n\r\n",
        "PUB orders.placed to 0\r\n\r\n",
    ] {
        let said = town.does(&mut orders, denied);
        assert!(
            said.starts_with("-ERR") && !said.contains("+OK"),
            "{denied:?}: {said}"
        );
    }
}

#[test]
fn deep_patterns_are_bounded_by_their_tokens() {
    let mut town = Town::new(POLICY);
    let mut orders = town.connect("orders");
    let deep = |n: usize| format!("SUB orders.n{n}{} {n}\r\n", ".x".repeat(110));
    let mut denied = 0;
    for n in 0..1_000 {
        denied += town.does(&mut orders, &deep(n)).matches("-ERR").count();
    }
    let taken = crate::limits::SUBSCRIPTION_TOKENS_PER_CONNECTION_MAX / 112;
    assert_eq!(1_000 - denied, taken);
    // What is given up can be taken anew.
    assert_eq!(town.does(&mut orders, &format!("UNSUB 1\r\n{}", deep(1))), "");
    orders.session.end(&town.world);
    let mut again = town.connect("orders");
    assert_eq!(town.does(&mut again, &deep(1)), "");
    // Of all connections of the service together.
    let mut all: Vec<_> = (0..20).map(|_| town.connect("orders")).collect();
    let mut taken = 0;
    for client in &mut all {
        for n in 0..600 {
            taken += usize::from(town.does(client, &deep(n)).is_empty());
        }
    }
    assert_eq!(
        taken + 1,
        crate::limits::SUBSCRIPTION_TOKENS_PER_SERVICE_MAX / 112
    );
}

#[test]
fn what_another_left_in_the_turn_is_nobodys() {
    let mut town = Town::new(POLICY);
    let (mut web, mut orders) = (town.connect("web"), town.connect("orders"));
    town.does(&mut orders, "SUB orders.> 1\r\n");
    // Cut off in the middle of its turn: nothing is handed over.
    let bytes = b"PUB orders.place 3\r\nold\r\nPUB denied 0\r\n\r\n";
    let Town { world, turn, .. } = &mut town;
    let mut used = 0;
    while let Ok(Step::Op(op, taken)) = decode(&bytes[used..], 10) {
        web.session.handle(world, bytes, op, turn, 0);
        used += taken;
    }
    assert!(turn.has_messages());
    turn.reset();
    assert!(
        !turn.has_messages() && turn.bytes_kept() == 0 && turn.routes_kept() == 0 && turn.denials.is_empty()
    );
    town.does(&mut web, "PUB orders.place 3\r\nnew\r\n");
    let heard = orders.hears();
    assert!(heard.ends_with("new\r\n") && !heard.contains("old"), "{heard}");
}

#[test]
fn an_id_is_free_as_soon_as_its_subscription_has_had_all_its_deliveries() {
    let mut town = Town::new(ASKED_AND_TOLD);
    let (mut web, mut orders) = (town.connect("web"), town.connect("orders"));
    for free in ["", "UNSUB 1\r\n"] {
        town.does(&mut orders, "SUB orders.place 1\r\nUNSUB 1 1\r\n");
        town.does(&mut web, "PUB orders.place 1\r\na\r\n");
        town.does(&mut orders, &format!("{free}SUB orders.place 1\r\n"));
        // The connection's own task takes the ended one out only now.
        orders.session.reap(&town.world);
        town.does(&mut web, "PUB orders.place 1\r\nb\r\nPUB orders.place 1\r\nc\r\n");
        assert_eq!(orders.hears().matches("HMSG").count(), 2, "{free:?}");
        town.does(&mut orders, "UNSUB 1\r\n");
    }
}

#[test]
fn a_subscription_is_refused_also_where_its_id_is_in_use() {
    let mut town = Town::new(ASKED_AND_TOLD);
    let mut orders = town.connect("orders");
    assert_eq!(
        town.does(&mut orders, "SUB orders.place 1\r\nSUB orders.place 1\r\n"),
        ""
    );
    assert!(
        town.does(&mut orders, "SUB orders.placed 1\r\n")
            .starts_with("-ERR")
    );
}

#[test]
fn a_client_hears_what_it_sends_right_after_it_has_subscribed() {
    let mut town =
        Town::new(&ASKED_AND_TOLD.replace("sends = [\"orders.placed\"]", "sends = [\"orders.>\"]"));
    let mut orders = town.connect("orders");
    let message = "PUB orders.place 1\r\na\r\n";
    assert_eq!(town.does(&mut orders, message), "");
    // Its route to nobody is known, and of this turn.
    let heard = town.does(&mut orders, &format!("{message}SUB orders.place 1\r\n{message}"));
    assert_eq!(heard.matches("HMSG").count(), 1, "{heard}");
}

#[test]
fn who_may_no_longer_receive_gets_nothing_also_before_it_takes_notice() {
    let mut town = Town::new(POLICY);
    let (mut web, mut orders) = (town.connect("web"), town.connect("orders"));
    town.does(&mut orders, "SUB orders.place 1\r\n");
    town.does(&mut web, "PUB orders.place 1\r\nx\r\n");
    assert!(orders.hears().contains("orders.place"));
    let less = POLICY.replace("receives = [\"orders.>\", \"bulk\"]", "receives = [\"bulk\"]");
    assert_ne!(less, POLICY);
    town.world.set_policy(policy(&less));
    // The receiver's own turn, in which its subscription ends, has yet to come.
    town.does(&mut web, "PUB orders.place 1\r\nx\r\n");
    assert_eq!(orders.hears(), "");
}

// protocol: P-098
#[test]
fn requests_of_a_service_are_bounded_over_all_its_connections() {
    let mut town = Town::new(POLICY);
    let requests = Arc::clone(&town.world.share(&"web".into()).requests);
    let (mut web, mut orders) = (town.connect("web"), town.connect("orders"));
    town.does(&mut orders, "SUB orders.place 1\r\n");
    town.does(&mut web, "SUB _INBOX.x 9\r\n");
    let mut others = requests.hold_none();
    assert!(others.grow(crate::limits::REQUESTS_PER_SERVICE_MAX - 1));
    let request = "PUB orders.place _INBOX.x 0\r\n\r\n";
    assert_eq!(town.does(&mut web, request), "");
    assert!(town.does(&mut web, request).contains("Exo-Reason: overloaded"));
    // Without an answer to come, a message needs no room.
    assert_eq!(town.does(&mut web, "PUB orders.place 0\r\n\r\n"), "");
    let heard = orders.hears();
    let token = token(&heard);
    town.does(&mut orders, &format!("PUB {token} 2\r\nok\r\n"));
    assert!(web.hears().ends_with("ok\r\n"));
    assert_eq!(town.does(&mut web, request), "", "what is answered is given back");
    orders.session.end(&town.world);
    assert!(web.hears().contains("receiver-lost"));
    drop(others);
    assert!(
        requests.hold_none().grow(crate::limits::REQUESTS_PER_SERVICE_MAX),
        "and what is lost"
    );
}

#[test]
fn cached_routes_of_a_service_are_bounded_over_all_its_connections() {
    let mut town = Town::new(POLICY);
    let cached = Arc::clone(&town.world.share(&"web".into()).cached_routes);
    let mut web = town.connect("web");
    let mut others = cached.hold_none();
    assert!(others.grow(crate::limits::CACHED_ROUTES_PER_SERVICE_MAX - 10));
    for name in 0..100 {
        town.does(
            &mut web,
            &format!("PUB denied{name} 0\r\n\r\nPUB orders.n{name} 0\r\n\r\n"),
        );
    }
    assert!(!cached.hold_none().grow(11), "nothing beyond the bound");
    web.session.end(&town.world);
    assert!(cached.hold_none().grow(10), "all is given back");
}
