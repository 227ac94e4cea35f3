//! From what was denied, the smallest grants that would have allowed it.
//!
//! For a person to judge: a denial may be an attack, and nothing here is ever applied by itself. What is granted are the
//! denied names alone; a wildcard is only offered, and for no fewer than three names that differ in their last token.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use super::explain::{Beside, Edit, EditVerb, allowing, beside, lists};
use super::reach::{Reach, TooIntricate};
use crate::policy::{Action, Policy};
use crate::wire::name::{Pattern, Token};

/// Something that was denied, so many times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// The service.
    pub service: Arc<str>,
    /// What it tried.
    pub action: Action,
    /// A message name; of a subscription, perhaps a pattern.
    pub name: Pattern,
    /// How often.
    pub count: u64,
}

/// All that would have allowed what was denied.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Suggestions {
    /// For each service and each of its lists.
    pub suggestions: Vec<Suggestion>,
    /// What was denied and would be allowed now, as far as the policy's grants go.
    pub allowed_now: Vec<Evidence>,
}

/// The lines of one list of one service.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Suggestion {
    /// The service.
    pub service: Arc<str>,
    /// Whether the policy lists it.
    pub is_listed: bool,
    /// What it tried.
    pub action: Action,
    /// The lines to add or remove.
    pub edits: Vec<Edit>,
    /// What they are suggested for, the most denied first.
    pub evidence: Vec<Evidence>,
    /// What the lines would allow beside.
    pub beside: Vec<Beside>,
    /// Wildcards that could stand in place of some of the lines. They allow more than was denied.
    pub wildcards: Vec<Wildcard>,
}

/// A denial, for which something is suggested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// The service.
    pub service: Arc<str>,
    /// What it tried.
    pub action: Action,
    /// With which messages.
    pub name: Pattern,
    /// How often it was denied.
    pub count: u64,
}

/// A wildcard for names that differ in their last token alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wildcard {
    /// The wildcard.
    pub pattern: Pattern,
    /// The names, three or more.
    pub names: Vec<Pattern>,
}

/// Names alike, for which a wildcard is offered, at least.
const SIBLINGS_MIN: usize = 3;

/// Suggests for each service and list.
pub fn suggest(policy: &Policy, denied: &[Denied]) -> Result<Suggestions, TooIntricate> {
    let mut tried: BTreeMap<Arc<str>, Vec<&Denied>> = BTreeMap::new();
    for denied in denied {
        tried.entry(Arc::clone(&denied.service)).or_default().push(denied);
    }
    let mut suggestions = Suggestions::default();
    for (service, denied) in tried {
        for action in Action::ALL {
            let mut names: BTreeMap<Pattern, u64> = BTreeMap::new();
            for denied in denied.iter().filter(|denied| denied.action == action) {
                let count = names.entry(denied.name.clone()).or_default();
                *count = count.saturating_add(denied.count);
            }
            of_list(policy, &service, action, names, &mut suggestions)?;
        }
    }
    Ok(suggestions)
}

fn of_list(
    policy: &Policy,
    service: &Arc<str>,
    action: Action,
    names: BTreeMap<Pattern, u64>,
    suggestions: &mut Suggestions,
) -> Result<(), TooIntricate> {
    let listed = policy.service(service);
    let reach = Reach::of(listed, action);
    let mut evidence = Vec::new();
    for (name, count) in names {
        let is_allowed = reach.missing(&name)?.is_none();
        let found = Evidence {
            service: Arc::clone(service),
            action,
            name,
            count,
        };
        if is_allowed {
            suggestions.allowed_now.push(found);
        } else {
            evidence.push(found);
        }
    }
    if evidence.is_empty() {
        return Ok(());
    }
    let mut edits: Vec<Edit> = Vec::new();
    for found in &evidence {
        for edit in allowing(listed, action, &found.name) {
            if !edits.contains(&edit) {
                edits.push(edit);
            }
        }
    }
    // What another added pattern grants need not be added.
    let added: Vec<_> = added(&edits).cloned().collect();
    edits.retain(|edit| {
        let is_wider = |other: &&Pattern| **other != edit.pattern && edit.pattern.is_included_in([*other]);
        edit.verb == EditVerb::Remove || !added.iter().any(|other| is_wider(&other))
    });
    let asked: Vec<_> = evidence.iter().map(|found| &found.name).collect();
    let beside = beside(listed, action, &asked, &edits)?;
    let (_, taken) = lists(listed, action);
    let wildcards = wildcards(self::added(&edits))
        .filter(|wildcard| {
            !taken
                .iter()
                .any(|except| except.pattern.overlaps(&wildcard.pattern))
        })
        .collect();
    evidence.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.name.cmp(&b.name)));
    suggestions.suggestions.push(Suggestion {
        service: Arc::clone(service),
        is_listed: listed.is_some(),
        action,
        edits,
        evidence,
        beside,
        wildcards,
    });
    Ok(())
}

fn added(edits: &[Edit]) -> impl Iterator<Item = &Pattern> {
    let added = edits.iter().filter(|edit| edit.verb == EditVerb::Add);
    added.map(|edit| &edit.pattern)
}

/// Of names that differ in their last token alone, where there are enough of them.
fn wildcards<'e>(added: impl Iterator<Item = &'e Pattern>) -> impl Iterator<Item = Wildcard> {
    let mut siblings: BTreeMap<String, BTreeSet<&Pattern>> = BTreeMap::new();
    for pattern in added.filter(|pattern| pattern.is_literal()) {
        let count = pattern.tokens().count();
        let before: Vec<_> = pattern
            .tokens()
            .take(count - 1)
            .filter_map(|token| match token {
                Token::Literal(literal) => Some(literal),
                Token::One | Token::Rest => None,
            })
            .collect();
        if !before.is_empty() {
            siblings.entry(before.join(".")).or_default().insert(pattern);
        }
    }
    siblings.into_iter().filter_map(|(before, names)| {
        let pattern = Pattern::new(&format!("{before}.*")).ok()?;
        (names.len() >= SIBLINGS_MIN).then(|| Wildcard {
            pattern,
            names: names.into_iter().cloned().collect(),
        })
    })
}
