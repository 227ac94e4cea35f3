//! Policy files. Compiling is repeatable; a refusal is told in a text that may go to a terminal; and what a policy
//! that was taken decides is what a naive reading of the same text decides: it permits nothing that the text does
//! not grant, and denies nothing that it does.

use exocom::identity::{Identity, Role};
use exocom::policy::{Action, Compiled, Policy, PolicyErrors, Source};
use exocom::wire::name::{MessageName, Pattern};
use toml::{Table, Value};

const NAMES_MAX: usize = 60;
const SERVICES_MAX: usize = 12;

/// Between the files of a policy.
const NEXT_FILE: &str = "\n#---\n";

pub const WORDS: &[&[u8]] = &[
    b"version = 1\n",
    b"trust-domain = \"t.example\"\n",
    b"[service.a]\n",
    b"[service.b]\n",
    b"sends = [",
    b"receives = [",
    b"receives-except = [",
    b"zone = \"z\"\n",
    b"[message.\"a.*\"]\n",
    b"[message.\">\"]\n",
    b"kind = \"event\"\n",
    b"delivery = \"at-least-once\"\n",
    b"reply-within = \"5s\"\n",
    b"payload-max = \"64KiB\"\n",
    b"limits = {rate = \"5/s\", burst = 7}\n",
    b"on-alarm = \"quarantine\"\n",
    b"alarms = \"off\"\n",
    b"alarms = {sensitivity = \"low\"}\n",
    b"[alarms]\nnew-flow-after = \"never\"\n",
    b"backoff = \"1s..1m\"\n",
    b"[operator.x]\nmay = [\"view\"]\n",
    b"\"a.b\"",
    b"\"a.*\"",
    b"\"*\"",
    b"\">\"",
    b"\"a.>\"",
    b", ",
    b"]",
    b"\n#---\n",
    b"\x1b[31m",
    b"\"\"\"",
    b"\\u001b",
];

/// One file, or several after each other.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let sources: Vec<_> = text
        .split(NEXT_FILE)
        .enumerate()
        .map(|(number, text)| Source {
            name: format!("{number}.toml"),
            text: text.to_owned(),
        })
        .collect();
    let (first, second) = (Policy::compile(&sources), Policy::compile(&sources));
    match (first, second) {
        (Ok(first), Ok(second)) => {
            assert_eq!(first.policy.version(), second.policy.version());
            assert_eq!(first.warnings.render(false), second.warnings.render(false));
            is_for_a_terminal(&first.warnings.render(false));
            judge(&first, &second, &sources);
        }
        (Err(first), Err(second)) => {
            let told = |errors: &PolicyErrors| errors.diagnostics().render(false);
            assert_eq!(told(&first), told(&second));
            assert!(!told(&first).is_empty(), "a refusal says why");
            is_for_a_terminal(&told(&first));
        }
        _ => panic!("taken once and refused once"),
    }
}

fn is_for_a_terminal(text: &str) {
    let control = text.chars().find(|char| char.is_control() && *char != '\n');
    assert_eq!(control, None, "{text}");
}

fn judge(compiled: &Compiled, again: &Compiled, sources: &[Source]) {
    let naive = Naive::read(sources);
    let mut listed: Vec<_> = compiled
        .policy
        .services()
        .map(|service| service.name().to_string())
        .collect();
    let mut expected: Vec<_> = naive
        .services
        .iter()
        .map(|service| service.name.clone())
        .collect();
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);
    let names = naive.names();
    for service in naive.services.iter().take(SERVICES_MAX) {
        let identity = Identity {
            trust_domain: compiled.policy.trust_domain().into(),
            role: Role::Service(service.name.as_str().into()),
            serial: "1".into(),
            expires_unix_s: i64::MAX,
        };
        for name in &names {
            for action in [Action::Send, Action::Receive] {
                let decision = compiled.policy.decide(&identity, action, name);
                assert_eq!(
                    decision.is_ok(),
                    service.may(action, name.as_str()),
                    "{} {action:?} {name}: {decision:?}",
                    service.name
                );
                assert_eq!(decision, again.policy.decide(&identity, action, name));
            }
        }
        for pattern in naive.patterns() {
            if compiled.policy.decide_subscription(&identity, &pattern).is_ok() {
                let mut matching = names.iter().filter(|name| pattern.matches(name));
                let denied = matching.find(|name| !service.may(Action::Receive, name.as_str()));
                assert_eq!(denied, None, "{} may subscribe to {pattern}", service.name);
            }
        }
        let stranger = Identity {
            trust_domain: "stranger.example".into(),
            ..identity
        };
        if compiled.policy.trust_domain() != "stranger.example" {
            assert!(compiled.policy.admit(&stranger, None).is_err());
        }
    }
}

/// The text, as far as it says who may do what, read without any cleverness.
struct Naive {
    services: Vec<Service>,
}

struct Service {
    name: String,
    sends: Vec<String>,
    receives: Vec<String>,
    except: Vec<String>,
}

impl Naive {
    fn read(sources: &[Source]) -> Self {
        let mut services = Vec::new();
        for source in sources {
            let table: Table = source.text.parse().expect("what was compiled is TOML");
            let listed = table.get("service").and_then(Value::as_table);
            for (name, service) in listed.into_iter().flatten() {
                let list = |key: &str| {
                    let values = service.get(key).and_then(Value::as_array);
                    values
                        .into_iter()
                        .flatten()
                        .filter_map(|value| value.as_str().map(str::to_owned))
                        .collect()
                };
                services.push(Service {
                    name: name.clone(),
                    sends: list("sends"),
                    receives: list("receives"),
                    except: list("receives-except"),
                });
            }
        }
        Self { services }
    }

    fn texts(&self) -> impl Iterator<Item = &String> {
        self.services.iter().flat_map(|service| {
            service
                .sends
                .iter()
                .chain(&service.receives)
                .chain(&service.except)
        })
    }

    fn patterns(&self) -> impl Iterator<Item = Pattern> {
        self.texts()
            .take(NAMES_MAX)
            .filter_map(|text| Pattern::new(text).ok())
    }

    /// Names that the patterns stand for, and some beside them.
    fn names(&self) -> Vec<MessageName> {
        let mut names = Vec::new();
        for text in self.texts().take(NAMES_MAX) {
            names.push(text.replace('*', "any").replace('>', "rest"));
            names.push(text.replace('*', "any").replace('>', "rest.of.it"));
            names.push(format!("{}.more", text.replace(['*', '>'], "x")));
            names.push(
                text.rsplit_once('.')
                    .map_or("nothing", |(before, _)| before)
                    .replace(['*', '>'], "x"),
            );
        }
        names.truncate(NAMES_MAX);
        names
            .iter()
            .filter_map(|name| MessageName::new(name).ok())
            .collect()
    }
}

impl Service {
    fn may(&self, action: Action, name: &str) -> bool {
        let holds = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, name));
        match action {
            Action::Send => holds(&self.sends),
            Action::Receive => holds(&self.receives) && !holds(&self.except),
        }
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match (pattern.split_once('.'), name.split_once('.')) {
        _ if pattern == ">" => true,
        (Some((pattern, patterns)), Some((token, tokens))) => {
            (pattern == "*" || pattern == token) && matches(patterns, tokens)
        }
        (None, None) => pattern == "*" || pattern == name,
        _ => false,
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let top = "version = 1\ntrust-domain = \"t.example\"\n";
    let mut seeds = crate::texts(&[
        include_str!("../../policies/todo.toml"),
        include_str!("../../policies/shop.toml"),
    ]);
    for text in [
        "[service.a]\nsends = [\"a.*\", \"b\"]\nreceives = [\"a.>\", \"*.b\"]\nreceives-except = [\"a.secret\"]\n",
        "[service.a]\nreceives = [\">\"]\n[service.b]\nzone = \"z\"\nsends = [\"*\", \"*.*\", \"a.b.c\"]\n",
        "[message.\"a.*\"]\nkind = \"event\"\ndelivery = \"at-least-once\"\nattempts = 3\nbackoff = \"1s..1m\"\n",
        "[service.a]\nsends = [\"a\"]\n\n#---\n[service.b]\nreceives = [\"a\"]\n[operator.x]\nmay = [\"view\", \"replay\"]\n",
        "[service.\"a b\"]\nsends = [\"a..b\", 3, \"$SYS\"]\nrecieves = \"\\u001b[31m\"\n",
    ] {
        seeds.push(format!("{top}{text}").into_bytes());
    }
    seeds
}
