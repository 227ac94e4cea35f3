//! Small worlds for property tests: few tokens, so that patterns meet.

use proptest::prelude::*;

use crate::wire::name::{MessageName, Pattern};

/// Up to three tokens of `a`, `b` and wildcards.
pub(super) fn any_pattern() -> impl Strategy<Value = Pattern> {
    let tokens = prop::collection::vec(prop::sample::select(vec!["a", "b", "*"]), 1..4);
    (tokens, any::<bool>()).prop_map(|(mut tokens, rest)| {
        if rest {
            *tokens.last_mut().unwrap() = ">";
        }
        Pattern::new(&tokens.join(".")).unwrap()
    })
}

/// A name of the same tokens, and one that no pattern spells out.
pub(super) fn any_name() -> impl Strategy<Value = MessageName> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "z"]), 1..6)
        .prop_map(|tokens| MessageName::new(&tokens.join(".")).unwrap())
}

/// Every such name up to five tokens.
pub(super) fn all_names() -> Vec<MessageName> {
    let mut names = vec![String::new()];
    let mut all = Vec::new();
    for _ in 0..5 {
        names = names
            .iter()
            .flat_map(|name| {
                let dot = if name.is_empty() { "" } else { "." };
                ["a", "b", "z"].map(|token| format!("{name}{dot}{token}"))
            })
            .collect();
        all.extend(names.iter().map(|name| MessageName::new(name).unwrap()));
    }
    all
}
