//! Random policies over few tokens, so that patterns meet, and every name that can tell them apart.

use crate::policy::{Grant, Policy, Rule, Source};
use crate::wire::name::{MessageName, Pattern};

/// The test's own source of chance: the same numbers for the same seed (SplitMix64).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    pub(super) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// Up to three tokens of `a`, `b` and wildcards.
    pub(super) fn pattern(&mut self) -> Pattern {
        let count = 1 + self.below(3);
        let mut tokens: Vec<_> = (0..count).map(|_| *self.pick(&["a", "b", "*"])).collect();
        if self.below(4) == 0 {
            tokens[count - 1] = ">";
        }
        Pattern::new(&tokens.join(".")).unwrap()
    }

    pub(super) fn patterns(&mut self, count_max: usize) -> Vec<Pattern> {
        let count = self.below(count_max + 1);
        (0..count).map(|_| self.pattern()).collect()
    }
}

/// Every name of up to four tokens, one of which no pattern spells out. That is enough to tell apart sets of patterns
/// of up to three: a fourth token matters only to a final `>`.
pub(super) fn all_names() -> Vec<MessageName> {
    let mut names = vec![String::new()];
    let mut all = Vec::new();
    for _ in 0..4 {
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

pub(super) fn grants(patterns: &[Pattern]) -> Vec<Grant> {
    let rule = |line| Rule {
        file: "p.toml".into(),
        line,
    };
    patterns
        .iter()
        .zip(1..)
        .map(|(pattern, line)| Grant {
            pattern: pattern.clone(),
            rule: rule(line),
        })
        .collect()
}

pub(super) fn policy(text: &str) -> Policy {
    let text = format!("version = 1\ntrust-domain = \"todo.example\"\n{text}");
    policy_as_written("p.toml", &text)
}

pub(super) fn policy_as_written(name: &str, text: &str) -> Policy {
    let source = Source {
        name: name.to_owned(),
        text: text.to_owned(),
    };
    Policy::compile(&[source])
        .unwrap_or_else(|error| panic!("{text}\n{}", error.diagnostics().render(false)))
        .policy
}
