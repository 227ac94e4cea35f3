//! Which messages travel in another way under another policy.
//!
//! Exact, key by key: a pattern decides about a key for the names that no more specific pattern with that key matches.

use std::collections::BTreeMap;

use super::diff::{Change, Effect};
use super::reach::{TooIntricate, shortest};
use crate::policy::{Policy, Terms};
use crate::wire::name::Pattern;

/// The patterns that set one key, with its value as it is written.
type Setters<'p> = BTreeMap<&'p Pattern, String>;

/// Who decides about a key, of a policy: one of its patterns, or the default.
#[derive(Clone, Copy)]
struct Decider<'s, 'p> {
    pattern: Option<&'p Pattern>,
    value: Option<&'s String>,
}

/// All messages whose terms differ.
pub(super) fn changes(old: &Policy, new: &Policy) -> Result<Vec<Change>, TooIntricate> {
    let mut changes = Vec::new();
    let (mut before, mut after) = (setters(old), setters(new));
    for (key, default) in Terms::default().written() {
        let before = before.remove(key).unwrap_or_default();
        let after = after.remove(key).unwrap_or_default();
        if before != after {
            of_key(key, &before, &after, default.as_ref(), &mut changes)?;
        }
    }
    Ok(changes)
}

fn setters(policy: &Policy) -> BTreeMap<&'static str, Setters<'_>> {
    let mut setters: BTreeMap<_, Setters<'_>> = BTreeMap::new();
    for message in policy.messages() {
        for (key, value) in message.written() {
            if let Some(value) = value {
                setters.entry(key).or_default().insert(message.pattern(), value);
            }
        }
    }
    setters
}

/// Where a name changes hands from one value to another, a pattern decides about it that the other policy has not, or
/// has with another value: were both deciders in both policies, the more specific one would decide in both.
fn of_key(
    key: &'static str,
    before: &Setters<'_>,
    after: &Setters<'_>,
    default: Option<&String>,
    changes: &mut Vec<Change>,
) -> Result<(), TooIntricate> {
    let mut pairs = Vec::new();
    for old in deciders(before, default) {
        let is_kept = |pattern| after.get(pattern) == before.get(pattern);
        let old_is_kept = old.pattern.is_none_or(is_kept);
        for new in deciders(after, default) {
            let new_is_kept = new.pattern.is_none_or(is_kept);
            if old.value != new.value && !(old_is_kept && new_is_kept) {
                pairs.push((old, new));
            }
        }
    }
    let mut found: Vec<Change> = Vec::new();
    for (old, new) in pairs {
        let Some(pattern) = common(old.pattern, new.pattern) else {
            continue;
        };
        let without: Vec<_> = before
            .keys()
            .filter(|other| precedes(other, old.pattern))
            .chain(after.keys().filter(|other| precedes(other, new.pattern)))
            .copied()
            .filter(|other| other.overlaps(&pattern))
            .collect();
        if let Some(example) = shortest(&pattern, &without)? {
            found.push(Change::Terms {
                effect: Effect::Change,
                whole: without.is_empty(),
                pattern,
                example,
                key,
                old: old.value.cloned(),
                new: new.value.cloned(),
            });
        }
    }
    changes.extend(found);
    Ok(())
}

fn deciders<'s, 'p>(
    setters: &'s Setters<'p>,
    default: Option<&'s String>,
) -> impl Iterator<Item = Decider<'s, 'p>> {
    let of_patterns = setters.iter().map(|(&pattern, value)| Decider {
        pattern: Some(pattern),
        value: Some(value),
    });
    of_patterns.chain([Decider {
        pattern: None,
        value: default,
    }])
}

/// The names that both may decide about; the default may decide about all.
fn common(old: Option<&Pattern>, new: Option<&Pattern>) -> Option<Pattern> {
    match (old, new) {
        (Some(old), Some(new)) => old.common(new),
        (Some(one), None) | (None, Some(one)) => Some(one.clone()),
        (None, None) => None,
    }
}

/// Whether a pattern decides before another one, or before the default.
fn precedes(pattern: &Pattern, other: Option<&Pattern>) -> bool {
    other.is_none_or(|other| pattern.specificity() < other.specificity())
}
