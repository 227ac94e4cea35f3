//! What an uncached decision costs: by the number of services, and with wildcards everywhere.

use std::fmt::Write as _;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use exocom::identity::{Identity, Role};
use exocom::policy::{Action, Policy, Source};
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
    compile(text)
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

criterion_group!(benches, decide);
criterion_main!(benches);
