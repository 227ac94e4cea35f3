//! The commands for policies, as people and scripts see them.

use serde_json::Value;

use super::{Answer, exocom, folder, write};
use crate::support::TODO_POLICY;

fn json(answer: &Answer) -> Value {
    assert_eq!(answer.err, "");
    serde_json::from_str(&answer.out).unwrap_or_else(|error| panic!("{error}: {}", answer.out))
}

/// The todo application's policy, edited.
fn edited(from: &str, to: &str) -> String {
    assert!(TODO_POLICY.contains(from), "{from}");
    TODO_POLICY.replace(from, to)
}

#[test]
fn a_difference_is_shown_and_a_gain_can_be_an_error() {
    let folder = folder();
    write(
        folder.path(),
        "more.toml",
        &edited("\"todos.list\",", "\"todos.list\", \"todos.purge\","),
    );
    let diff = |arguments: &[&str]| exocom(folder.path(), &[&["policy", "diff"], arguments].concat());

    let answer = diff(&["policy.toml", "policy.toml", "--no-new-access"]);
    assert_eq!((answer.code, &*answer.err), (Some(0), ""));
    assert!(answer.out.starts_with("no difference"), "{}", answer.out);

    let answer = diff(&["policy.toml", "more.toml"]);
    assert_eq!((answer.code, &*answer.err), (Some(0), ""));
    assert!(
        answer
            .out
            .contains("service web\n  + sends todos.purge  (more.toml:"),
        "{}",
        answer.out
    );

    let answer = diff(&["policy.toml", "more.toml", "--no-new-access"]);
    assert_eq!(answer.code, Some(1));
    assert_eq!(
        answer.err,
        "refused: more.toml gives more access than policy.toml\n"
    );

    // The other way round it is a loss.
    let answer = diff(&["more.toml", "policy.toml", "--no-new-access", "--json"]);
    assert_eq!(answer.code, Some(0));
    let answer = json(&answer);
    assert_eq!(
        (&answer["equal"], &answer["gains"], &answer["losses"]),
        (&false.into(), &0.into(), &1.into())
    );
    assert_eq!(answer["changes"][0]["example"], "todos.purge");
    assert_eq!(answer["changes"][0]["effect"], "loss");
}

#[test]
fn what_cannot_be_compared_is_no_answer() {
    let folder = folder();
    write(folder.path(), "bad.toml", "version = 1\n");
    let answer = exocom(folder.path(), &["policy", "diff", "policy.toml", "bad.toml"]);
    assert_eq!((answer.code, &*answer.out), (Some(2), ""));
    assert!(
        answer.err.contains("the policy does not say its trust domain"),
        "{}",
        answer.err
    );
    let answer = exocom(
        folder.path(),
        &["policy", "diff", "policy.toml", "missing.toml", "--json"],
    );
    assert_eq!(answer.code, Some(2));
    assert!(
        json(&answer)["error"]
            .as_str()
            .is_some_and(|error| error.starts_with("missing.toml: "))
    );
    let answer = exocom(folder.path(), &["policy", "diff", "policy.toml"]);
    assert_eq!(answer.code, Some(2));
}
