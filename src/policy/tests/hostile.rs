//! Hostile text: whatever comes, a refusal or a policy, and never a panic.

use super::*;

fn survives(text: &str) {
    for text in [text.to_owned(), format!("{TOP}{text}")] {
        match Policy::compile(&[source("p.toml", &text)]) {
            Ok(compiled) => drop(compiled.warnings.render(true)),
            Err(errors) => assert!(!errors.diagnostics().render(true).is_empty()),
        }
    }
}

#[test]
fn text_never_panics() {
    for text in [
        "\0",
        "\u{feff}version = 1",
        "[service.\"\0\"]",
        "[service.\"\u{202e}\"]\nsends = [\"\u{1b}[31m\"]",
        "a = 99999999999999999999999999999999999999999999999",
        "version = 0x1",
        "[message.a]\nattempts = -1",
        "[message.a]\nattempts = 0xffffffffffffffffffff",
        "[message.a]\nattempts = 1e400",
        "[service.é]\r\nsénds = [\"é\"]\r\n",
        "[service",
        "\"\"\"",
        "[a]\n[a]\n[a]\na=1\na=2",
        "= 1",
        "[service.web]\nsends = \"\"\"\na\nb\"\"\"",
    ] {
        survives(text);
    }
    survives(&"[".repeat(100_000));
    survives(&format!("a = {}", "[".repeat(100_000)));
    survives(&format!("a = {}{}", "[".repeat(1_000), "]".repeat(1_000)));
    survives(&format!("a = {}", "{a=".repeat(100_000)));
    survives(&format!("[{}]", vec!["a"; 10_000].join(".")));
    survives(&"a".repeat(1_000_000));
    survives(&"[service.web]\nsends = []\n".repeat(10_000));
}

#[test]
fn terminal_codes_in_a_policy_reach_no_terminal() {
    for text in [
        "[service.\"\\u001b[31mx\"]\nsends = [\"\\u009b31m\"]\n# \u{1b}[2J \u{7}\n",
        "[service.a]\nsends = [\"\u{9b}31m\", \"\u{1b}[31m\"]",
        "[service.\u{9b}31m]\n",
        "[service.\"\u{9b}31m\"]\nsends = [\"\u{9b}\"]",
    ] {
        let errors = Policy::compile(&[source("p.toml", &format!("{TOP}{text}"))]).unwrap_err();
        let rendered = errors.diagnostics().render(false);
        let control = rendered.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(control, None, "{rendered}");
    }
}

#[test]
fn many_mistakes_are_counted_but_not_all_kept() {
    let text: String = (0..1_000)
        .map(|n| format!("[service.s{n}]\nsendz = []\n"))
        .collect();
    let errors = Policy::compile(&[source("p.toml", &format!("{TOP}{text}"))]).unwrap_err();
    assert_eq!(
        errors.diagnostics().iter().count(),
        crate::limits::POLICY_DIAGNOSTICS_MAX
    );
    assert_eq!(errors.diagnostics().len(), 1_000);
    assert!(
        errors
            .diagnostics()
            .render(false)
            .ends_with("... and 800 more like these\n")
    );
}

#[test]
fn an_error_is_shown_although_warnings_came_first() {
    let list = "\"a\", ".repeat(1_000);
    let text = format!("{TOP}[service.a]\nsends = [{list}]\n[service.b]\nsendz = []");
    let errors = Policy::compile(&[source("p.toml", &text)]).unwrap_err();
    assert!(errors.to_string().contains("sendz"), "{errors}");
    // 999 duplicates, and that nobody receives "a".
    assert_eq!(errors.diagnostics().len(), 999 + 1);
}

#[test]
fn a_long_file_compiles() {
    let mut text = TOP.to_owned();
    for n in 0..2_000 {
        text.push_str(&format!(
            "[service.s{n}]\nsends = [\"s{n}.a\", \"s{n}.b\"]\nreceives = [\"s{}.*\"]\n\n[message.\"s{n}.a\"]\n\
             reply-within = \"1s\"\n",
            (n + 1) % 2_000
        ));
    }
    assert!(text.lines().count() > 10_000);
    let compiled = Policy::compile(&[source("p.toml", &text)]).unwrap();
    assert!(
        compiled.warnings.is_empty(),
        "{}",
        compiled.warnings.render(false)
    );
    let permit = compiled
        .policy
        .decide(&service("s7"), Action::Receive, &name("s8.b"))
        .unwrap();
    assert_eq!(permit.rule().line, 3 + 7 * 6 + 2);
}

#[test]
fn all_files_together_may_be_as_long_as_a_policy_may_be_and_no_longer() {
    let comment = |bytes| source("rest.toml", &format!("#{}", "x".repeat(bytes - 1)));
    let top = source("p.toml", TOP);
    let rest_bytes_max = crate::limits::POLICY_BYTES_MAX - TOP.len();
    assert!(Policy::compile(&[top.clone(), comment(rest_bytes_max)]).is_ok());
    let errors = Policy::compile(&[top, comment(rest_bytes_max + 1)]).unwrap_err();
    let rendered = errors.diagnostics().render(false);
    assert!(
        rendered.contains("a policy has at most 67108864 bytes, all its files together"),
        "{rendered}"
    );
}

#[test]
fn wildcards_everywhere_do_not_blow_up_a_walk() {
    // Without the nodes' paths being distinct, this would take 2 to the power of 60 steps.
    let patterns: String = (0..60)
        .map(|n| format!("\"{}*.>\", ", ["*.", "a."].map(|t| t.repeat(n)).concat()))
        .collect();
    let policy = policy(&format!("[service.s]\nreceives = [{patterns}]"));
    let long = vec!["a"; 120].join(".");
    assert!(
        policy
            .decide(&service("s"), Action::Receive, &name(&long))
            .is_ok()
    );
}

proptest! {
    #[test]
    fn any_text_is_survived(text in "(\\PC|\n|\"|\\[|\\]|=|\\.){0,200}") {
        survives(&text);
    }

    #[test]
    fn any_mutilated_policy_is_survived(cut in 0_usize..400, noise in any::<char>(), at in 0_usize..400) {
        let mut text: String = TODO.chars().skip(cut % 100).take(cut).collect();
        let at = text.char_indices().map(|(at, _)| at).nth(at).unwrap_or(0);
        text.insert(at, noise);
        survives(&text);
    }
}
