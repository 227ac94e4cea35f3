//! Policies that are swapped under load: what both allow is never lost nor denied, and nothing is decided by a policy that
//! is older than the last that was answered. How often is for `EXOCOM_POLICY_SWAPS` to say.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use exocom::console::client;
use exocom::console::policy::{PolicyAnswer, PolicyVerb};

use super::*;

const SENDERS: usize = 3;

/// Sent at a time.
const AT_A_TIME: usize = 20;

/// Sent and not read yet, in all: far fewer than an outbox takes.
const AHEAD_MAX: u64 = 2_000;

const DENIED: &str = "-ERR 'Permissions Violation for Publish to \"orders.cancel\"'";

async fn order(broker: &Broker, verb: &PolicyVerb) -> PolicyAnswer {
    let stream = tokio::net::UnixStream::connect(broker.path("admin.sock"))
        .await
        .expect("the socket is there");
    client::post(stream, "/v1/policy", "test", verb)
        .await
        .expect("the broker answers")
}

/// What those who send, who reads and who applies policies know of each other.
#[derive(Default)]
struct Shared {
    /// Odd while a policy is being applied; half of it counts them. An even count denies.
    epoch: AtomicU64,
    sent: AtomicU64,
    heard: AtomicU64,
    /// Decided between two changes, and so judged.
    judged: AtomicU64,
    is_over: AtomicBool,
}

/// Sends what both policies allow and what only one does, until it is over.
fn send(web: &mut Raw, shared: &Shared) {
    while !shared.is_over.load(SeqCst) {
        let before = shared.epoch.load(SeqCst);
        let allowed = b"PUB orders.place 1\r\nx\r\n".repeat(AT_A_TIME);
        web.send(&[&*allowed, b"PUB orders.cancel 1\r\nx\r\nPING\r\n"].concat());
        shared.sent.fetch_add(AT_A_TIME as u64, SeqCst);
        let first = web.line();
        let is_denied = first == DENIED;
        if is_denied {
            assert_eq!(web.line(), "PONG");
        } else {
            assert_eq!(first, "PONG", "only what one of them allows is ever denied");
        }
        let after = shared.epoch.load(SeqCst);
        if before == after && before.is_multiple_of(2) {
            assert_eq!(
                is_denied,
                (before / 2).is_multiple_of(2),
                "decided by another policy than the last"
            );
            shared.judged.fetch_add(1, SeqCst);
        }
        wait_for("the receiver to read", || {
            shared.sent.load(SeqCst) < shared.heard.load(SeqCst) + AHEAD_MAX
        });
    }
}

#[test]
fn nothing_allowed_is_lost_and_nothing_old_decides() {
    let swaps: u64 =
        std::env::var("EXOCOM_POLICY_SWAPS").map_or(60, |count| count.parse().expect("a number"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let shop = Shop::open();
    let both = POLICY.replace(
        r#"sends = ["orders.place", "orders.track"]"#,
        r#"sends = ["orders.place", "orders.track", "orders.cancel"]"#,
    );
    let mut webs: Vec<_> = (0..SENDERS).map(|_| shop.connect(&shop.issue("web"))).collect();
    let mut last = shop.connect(&shop.issue("web"));
    let mut orders = shop.connect(&shop.issue("orders"));
    orders.send(b"SUB orders.place 1\r\nPING\r\n");
    assert_eq!(orders.line(), "PONG");
    let mut live = shop.broker.status()["policy"]["version"]
        .as_str()
        .expect("a text")
        .to_owned();
    let shared = &Shared::default();
    std::thread::scope(|scope| {
        let sending: Vec<_> = webs
            .iter_mut()
            .map(|web| scope.spawn(move || send(web, shared)))
            .collect();
        let reading = scope.spawn(|| {
            loop {
                let message = orders.message();
                assert!(message.starts_with("HMSG orders.place 1 "), "{message}");
                if message.ends_with("last\r\n") {
                    return;
                }
                shared.heard.fetch_add(1, SeqCst);
            }
        });
        for round in 1..=swaps {
            let text = if round % 2 == 0 { POLICY } else { &both };
            let apply = PolicyVerb::Apply {
                against: live.clone(),
                files: vec![("policy.toml".to_owned(), text.to_owned())],
                why: None,
                confirm_within_ms: None,
            };
            shared.epoch.fetch_add(1, SeqCst);
            live = match runtime.block_on(order(&shop.broker, &apply)) {
                PolicyAnswer::Applied { to, .. } => to,
                other => panic!("round {round}: {other:?}"),
            };
            shared.epoch.fetch_add(1, SeqCst);
            let judged = shared.judged.load(SeqCst);
            wait_for("a decision by the new policy", || {
                assert!(
                    !sending.iter().any(|sender| sender.is_finished()),
                    "a sender has failed"
                );
                shared.judged.load(SeqCst) > judged
            });
        }
        shared.is_over.store(true, SeqCst);
        for sender in sending {
            sender.join().expect("each was decided rightly");
        }
        wait_for("all to arrive", || {
            shared.heard.load(SeqCst) >= shared.sent.load(SeqCst)
        });
        last.send(b"PUB orders.place 4\r\nlast\r\n");
        reading.join().expect("it reads to the last");
    });
    let sent = shared.sent.load(SeqCst);
    assert_eq!(shared.heard.load(SeqCst), sent, "each arrives once");
    eprintln!(
        "{swaps} policies applied; {sent} messages that all of them allow were sent meanwhile, and all arrived"
    );
}
