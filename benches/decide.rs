//! What a decision costs: an uncached one by the number of services, and with wildcards everywhere; a cached one by
//! the number of names that the connection keeps at hand.

use std::fmt::Write as _;
use std::hint::black_box;
use std::ops::DerefMut;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use exocom::exchange::mailbox::{ConnId, Mailbox, Peer};
use exocom::exchange::replies::PendingReplies;
use exocom::exchange::turn::Turn;
use exocom::exchange::ways::{Way, Ways};
use exocom::exchange::world::World;
use exocom::identity::{Identity, Role};
use exocom::policy::{Action, Policy, Source};
use exocom::traffic::flow::FlowRegistry;
use exocom::wire::name::MessageName;

const NAMES: usize = 10_000;

fn identity(service: usize) -> Identity {
    Identity {
        trust_domain: "bench.example".into(),
        role: Role::Service(format!("service-{service}").into()),
        serial: "1".into(),
        expires_unix_s: 0,
    }
}

fn name(number: usize) -> MessageName {
    let text = format!("area-{}.thing-{}.verb-{number}", number % 20, number % 500);
    MessageName::new(&text).expect("made of valid tokens")
}

fn compile(text: String) -> Policy {
    let text = format!("version = 1\ntrust-domain = \"bench.example\"\n{text}");
    let sources = [Source {
        name: "bench.toml".into(),
        text,
    }];
    Policy::compile(&sources).expect("made of valid sections").policy
}

/// Each name sent by one service and received by the next; a tenth of the names have settings of their own.
fn listed(services: usize) -> Policy {
    compile(listing(services))
}

fn listing(services: usize) -> String {
    let mut text = String::new();
    for service in 0..services {
        let list = |offset: usize| {
            let names = (0..NAMES).filter(|number| (number + offset) % services == service);
            names.fold(String::new(), |mut list, number| {
                write!(list, "\"{}\", ", name(number)).expect("writing to a string cannot fail");
                list
            })
        };
        let (sends, receives) = (list(0), list(1));
        write!(
            text,
            "[service.service-{service}]\nsends = [{sends}]\nreceives = [{receives}]\n"
        )
        .expect("writing to a string cannot fail");
    }
    for number in (0..NAMES).step_by(10) {
        write!(text, "[message.\"{}\"]\nreply-within = \"5s\"\n", name(number))
            .expect("writing to a string cannot fail");
    }
    text
}

/// 1,000 services that receive by patterns of every shape, with exceptions, and settings by patterns.
fn wildcards() -> Policy {
    let mut text = String::from(
        "[message.\">\"]\naudit = \"each\"\n[message.\"*.*.>\"]\nattempts = 7\n[message.\"area-1.*.*\"]\nkind = \"event\"\n",
    );
    for service in 0..1_000 {
        let (area, thing) = (service % 20, service % 500);
        write!(
            text,
            "[service.service-{service}]\nreceives = [\"area-{area}.*.*\", \"*.thing-{thing}.*\", \
             \"*.*.verb-{service}\", \"area-{area}.>\", \"*.*.*\"]\n\
             receives-except = [\"*.thing-{thing}.verb-{thing}\", \"area-{area}.secret.>\"]\n"
        )
        .expect("writing to a string cannot fail");
    }
    compile(text)
}

fn decide(criterion: &mut Criterion) {
    for services in [10, 100, 1_000] {
        let policy = listed(services);
        let requests: Vec<_> = (0..NAMES)
            .map(|number| (identity(number % services), name(number)))
            .collect();
        run(
            criterion,
            &format!("send, permit, {services} services"),
            &policy,
            Action::Send,
            &requests,
            true,
        );
        let denied: Vec<_> = (0..NAMES)
            .map(|number| (identity((number + 3) % services), name(number)))
            .collect();
        run(
            criterion,
            &format!("send, denial, {services} services"),
            &policy,
            Action::Send,
            &denied,
            false,
        );
    }
    let policy = wildcards();
    let requests: Vec<_> = (0..NAMES)
        .map(|number| (identity(number % 1_000), name(number)))
        .collect();
    let label = "receive, wildcards, 1000 services";
    let sample: Vec<_> = requests
        .into_iter()
        .filter(|(identity, name)| policy.decide(identity, Action::Receive, name).is_ok())
        .collect();
    run(criterion, label, &policy, Action::Receive, &sample, true);
}

/// Goes round the requests, so that no decision finds the caches warmed by the last one.
fn run(
    criterion: &mut Criterion,
    label: &str,
    policy: &Policy,
    action: Action,
    requests: &[(Identity, MessageName)],
    permitted: bool,
) {
    for (identity, name) in requests {
        assert_eq!(policy.decide(identity, action, name).is_ok(), permitted, "{name}");
    }
    // A stride that is prime to the number of requests meets each, far from the one before.
    let mut round = (0..requests.len()).map(|at| at * 7_919 % requests.len()).cycle();
    criterion.bench_function(label, |bencher| {
        bencher.iter(|| {
            let request = round.next().and_then(|at| requests.get(at));
            let (identity, name) = request.expect("the round never ends and stays inside");
            black_box(policy.decide(black_box(identity), action, black_box(name)))
        });
    });
}

/// A peer for a world in which nobody listens.
#[derive(Debug, Clone)]
struct Nobody;

impl Peer for Nobody {
    fn id(&self) -> ConnId {
        ConnId(1)
    }

    fn with_mailbox<R>(&self, _: impl FnOnce(&mut Mailbox) -> R) -> R {
        unreachable!("no message is sent")
    }

    fn replies(&self) -> impl DerefMut<Target = PendingReplies<Self>> {
        let none: fn() -> Box<PendingReplies<Self>> = || unreachable!("no message is sent");
        none()
    }

    fn is_ready(&self) -> bool {
        true
    }
}

/// A connection asks again for a name that it has at hand, as a session does for each message: permits and denials.
fn cached(criterion: &mut Criterion) {
    let text = format!("{}[service.hub]\nsends = [\"*.*.*\"]\n", listing(1_000));
    let world = World::<Nobody>::new(Arc::new(compile(text)), None);
    let hub = Identity {
        role: Role::Service("hub".into()),
        ..identity(0)
    };
    let mut turn = Turn::default();
    for names in [1, 10, 4_000] {
        let permitted: Vec<_> = (0..names)
            .map(|number| name(number).as_str().to_owned())
            .collect();
        let denied: Vec<_> = permitted.iter().map(|name| format!("{name}.denied")).collect();
        for (what, subjects) in [("permit", permitted), ("denial", denied)] {
            let book = FlowRegistry::default().open_book(&"hub".into(), 1);
            let mut ways = Ways::new(
                ConnId(1),
                Arc::new(hub.clone()),
                book,
                &world.share(&"hub".into()),
                &world,
            );
            for subject in &subjects {
                let is_open = matches!(ways.find(&world, subject.as_bytes(), &mut turn), Way::Open(_));
                assert_eq!(is_open, what == "permit", "{subject}");
            }
            let mut round = (0..names).map(|at| at * 7_919 % names).cycle();
            criterion.bench_function(&format!("cached, {what}, {names} names at hand"), |bencher| {
                bencher.iter(|| {
                    let subject = round.next().and_then(|at| subjects.get(at));
                    let subject = subject.expect("the round never ends and stays inside");
                    black_box(ways.find(&world, black_box(subject.as_bytes()), &mut turn))
                });
            });
        }
    }
}

criterion_group!(benches, decide, cached);
criterion_main!(benches);
