//! Mistakes as people see them.

use super::*;

/// One snapshot for all mistakes of a kind, so that they are read side by side.
fn rendered(texts: &[&str]) -> String {
    let refused = |text: &&str| match Policy::compile(&[source("p.toml", &format!("{TOP}{text}"))]) {
        Err(errors) => errors.diagnostics().render(false),
        Ok(_) => format!("NOT REFUSED: {text}\n"),
    };
    texts.iter().map(refused).collect()
}

#[test]
fn in_keys() {
    insta::assert_snapshot!(rendered(&[
        "[service.web]\nrecieves = [\"a\"]",
        "[service.web]\npublishes = [\"a\"]",
        "[services.web]\nsends = [\"a\"]",
        "[message.\"a\"]\nreply_within = \"1s\"",
        "[message.todos.create]\nreply-within = \"1s\"",
        "[operator.alice]\ncan = [\"view\"]",
        "[alarms]\nnew-flow = \"1d\"",
    ]));
}

#[test]
fn in_values() {
    insta::assert_snapshot!(rendered(&[
        "[message.a]\nkind = \"evnt\"",
        "[message.a]\ndelivery = \"exactly-once\"",
        "[message.a]\naudit = true",
        "[message.a]\nreply-within = 10",
        "[message.a]\nreply-within = \"10 seconds\"",
        "[message.a]\nreply-within = \"2h\"",
        "[message.a]\nack-within = \"2d\"",
        "[message.a]\nexpires = \"0s\"",
        "[message.a]\nattempts = 0",
        "[message.a]\nattempts = 99999999999999999999999999999999999999",
        "[message.a]\nattempts = \"5\"",
        "[message.a]\nbackoff = \"1m\"",
        "[message.a]\nbackoff = \"1m..1s\"",
        "[message.a]\npayload-max = \"64KB\"",
        "[message.a]\npayload-max = \"1GiB\"",
        "[message.a]\npayload-max = \"100MiB\"",
        "[operator.alice]\nmay = [\"veiw\"]",
        "[service.web]\nlimits = \"500/s\"",
        "[service.web]\nlimits = {}",
        "[service.web]\nlimits = {rate = \"500\"}",
        "[service.web]\nlimits = {rate = \"0/s\"}",
        "[message.a]\nlimits = {rate = \"5/s\", burst = 0}",
        "[message.a]\nlimits = {rate = \"5/s\", bursts = 5}",
        "[message.a]\nlimits = {rate = 5, burst = 5}",
        "[service.web]\non-alarm = \"hold\"",
        "[message.a]\nalarms = \"on\"",
        "[message.a]\nalarms = false",
        "[service.web]\nalarms = {}",
        "[service.web]\nalarms = {sensitivity = \"hihg\"}",
        "[service.web]\nalarms = {sensitive = \"high\"}",
        "[alarms]\nnew-flow-after = \"0s\"",
        "[alarms]\nnew-flow-after = 1",
    ]));
}

#[test]
fn in_names() {
    insta::assert_snapshot!(rendered(&[
        "[service.\"web app\"]\nsends = []",
        "[service.operator]\nsends = []",
        "[service.web]\nzone = \"\"",
        "[service.web]\nsends = [\"todos..list\"]",
        "[service.web]\nsends = [\"$SYS.x\", \"_INBOX.>\"]",
        "[service.web]\nreceives = [\"todos.>.x\"]",
        "[service.web]\nreceives = [\"todos list\"]",
        "[message.\"a*\"]\nkind = \"event\"",
        "[operator.\"al/ice\"]\nmay = []",
    ]));
}

#[test]
fn in_shapes() {
    insta::assert_snapshot!(rendered(&[
        "[service.web]\nsends = \"todos.list\"",
        "[service.web]\nsends = [1, \"a\"]",
        "[service]\nweb = 3",
        "[[service.web]]\nsends = []",
        "[operator.alice]",
        "[service.web]\nsends = [todos.list]",
        "[service.web\nsends = []",
    ]));
}

#[test]
fn in_duplicates_within_a_file() {
    insta::assert_snapshot!(rendered(&[
        "[service.web]\nsends = [\"a\"]\n\n[service.web]\nreceives = [\"b\"]",
        "[service.web]\nsends = [\"a\"]\nzone = \"dmz\"\nsends = [\"b\"]",
        "  [service.web]\r\n  sends = []\r\n\r\n[service.api]\nsends = []\n  sends = []\nsends = []\n[service.web]",
        "[service.api]\nlimits = {}\n[service.web]\nlimits = {rate = \"1/s\", rate = \"2/s\"}",
    ]));
}

#[test]
fn all_are_found_at_once() {
    insta::assert_snapshot!(rendered(&[
        "[service.web]\nrecieves = [\"a\"]\nsends = [\"a..b\"]\n[message.a]\nkind = \"evnt\"\nattempts = 0",
    ]));
}

#[test]
fn at_the_top() {
    let check = |text: &str| match Policy::compile(&[source("p.toml", text)]) {
        Err(errors) => errors.diagnostics().render(false),
        Ok(_) => format!("NOT REFUSED: {text}\n"),
    };
    insta::assert_snapshot!(
        [
            "",
            "version = 2\ntrust-domain = \"todo.example\"",
            "version = \"1\"\ntrust-domain = \"todo.example\"",
            "version = 1\ntrust-domain = \"spiffe://Todo.example\"",
            "version = 1\ntrust_domain = \"todo.example\"",
        ]
        .map(check)
        .concat()
    );
}

#[test]
fn between_files() {
    let errors = Policy::compile(&[
        source(
            "policies/b.toml",
            "[service.web]\nsends = []\n[message.a]\n[operator.alice]\nmay = []",
        ),
        source(
            "policies/a.toml",
            &format!(
                "{TOP}[alarms]\nnew-flow-after = \"1d\"\n[service.web]\n[message.a]\n[operator.alice]\nmay = []"
            ),
        ),
        source(
            "policies/c.toml",
            "trust-domain = \"shop.example\"\n[alarms]\nnew-flow-after = \"never\"",
        ),
    ])
    .unwrap_err();
    insta::assert_snapshot!(errors.diagnostics().render(false));
}

#[test]
fn files_may_repeat_the_trust_domain() {
    let compiled = Policy::compile(&[source("a.toml", TOP), source("b.toml", TOP)]);
    assert_eq!(compiled.unwrap().policy.trust_domain(), "todo.example");
}

#[test]
fn as_json() {
    let errors = Policy::compile(&[
        source("a.toml", &format!("{TOP}[service.web]\nrecieves = []")),
        source("b.toml", "[service.web]"),
    ])
    .unwrap_err();
    insta::assert_snapshot!(serde_json::to_string_pretty(errors.diagnostics()).unwrap());
}

#[test]
fn in_one_line() {
    let errors = Policy::compile(&[source("p.toml", "version = 2\nx = 1")]).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "p.toml:1:1: the policy does not say its trust domain (and 2 more)"
    );
}

#[test]
fn one_by_one() {
    let errors =
        Policy::compile(&[source("p.toml", "version = 2\ntrust-domain = \"todo.example\"")]).unwrap_err();
    let list: Vec<_> = errors.diagnostics().iter().collect();
    let [found] = list.as_slice() else {
        panic!("{errors}");
    };
    assert_eq!(found.severity(), Severity::Error);
    let place = Place {
        file: "p.toml".into(),
        line: 1,
        column: 11,
    };
    assert_eq!(found.place(), &place);
    assert_eq!(found.message(), "version \"2\" of the policy format is unknown");
    assert_eq!(
        found.help(),
        Some("write version = 1; a newer policy needs a newer exocom")
    );
    assert_eq!(
        errors.to_string(),
        "p.toml:1:11: version \"2\" of the policy format is unknown"
    );
}
