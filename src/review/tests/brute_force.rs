//! Differences against trying every name.

use std::collections::HashMap;

use super::super::reach::shortest;
use super::super::testing::{Dice, all_names, grants, policy};
use super::super::{Change, Effect, Listeners, Reach, diff};
use crate::identity::{Identity, Role};
use crate::policy::{Action, Capability, Policy};
use crate::wire::name::{MessageName, Pattern};

/// A set of names: a bit for each of [`all_names`], of which there are 120.
type Bits = u128;

struct Names {
    all: Vec<MessageName>,
    known: HashMap<Pattern, Bits>,
}

impl Names {
    fn new() -> Self {
        let all = all_names();
        assert!(all.len() <= Bits::BITS as usize);
        Self {
            all,
            known: HashMap::new(),
        }
    }

    fn of(&mut self, pattern: &Pattern) -> Bits {
        if let Some(&bits) = self.known.get(pattern) {
            return bits;
        }
        let all = self.all.iter().enumerate();
        let bits = all
            .filter(|(_, name)| pattern.matches(name))
            .fold(0, |bits, (at, _)| bits | 1 << at);
        self.known.insert(pattern.clone(), bits);
        bits
    }

    fn of_any(&mut self, patterns: &[Pattern]) -> Bits {
        patterns.iter().fold(0, |bits, pattern| bits | self.of(pattern))
    }

    fn shortest(&self, bits: Bits) -> Option<usize> {
        let set = self.all.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
        set.map(|(_, name)| name.as_str().len()).min()
    }
}

fn matches_any(patterns: &[Pattern], name: &MessageName) -> bool {
    patterns.iter().any(|pattern| pattern.matches(name))
}

/// 20,000 unless the nightly run asks for more.
fn pairs() -> u64 {
    std::env::var("EXOCOM_DIFF_PAIRS").map_or(20_000, |count| count.parse().expect("it is a number"))
}

#[test]
fn differences_of_reach_agree_with_every_name() {
    let mut names = Names::new();
    let mut gains = 0;
    for seed in 0..pairs() {
        let mut dice = Dice::new(seed);
        let mut sides = [0, 1].map(|_| (dice.patterns(4), dice.patterns(2)));
        if dice.below(2) == 0 {
            // Policies are mostly edited: the new one is the old one with a pattern more.
            let (granted, taken) = sides[0].clone();
            sides[1].0.truncate(1);
            sides[1].0.extend(granted);
            sides[1].1 = taken;
        }
        let [(old, old_taken), (new, new_taken)] = &sides;
        let seen = format!("seed {seed}: {old:?} - {old_taken:?} -> {new:?} - {new_taken:?}");

        let had = names.of_any(old) & !names.of_any(old_taken);
        let has = names.of_any(new) & !names.of_any(new_taken);
        let gained = has & !had;
        gains += usize::from(gained != 0);

        let (old_grants, old_excepts) = (grants(old), grants(old_taken));
        let (new_grants, new_excepts) = (grants(new), grants(new_taken));
        let before = Reach::new(&old_grants, &old_excepts);
        let after = Reach::new(&new_grants, &new_excepts);
        let parts = after.beyond(&before).unwrap();

        let told = parts.iter().fold(0, |bits, part| bits | names.of(&part.pattern));
        assert_eq!(gained & !told, 0, "{seen}: not all told: {parts:?}");
        for part in &parts {
            let example = &part.example;
            assert!(part.pattern.matches(example), "{seen}: {part:?}");
            assert!(
                matches_any(new, example) && !matches_any(new_taken, example),
                "{seen}: {part:?}"
            );
            assert!(
                !matches_any(old, example) || matches_any(old_taken, example),
                "{seen}: {part:?}"
            );
            if part.whole {
                assert_eq!(names.of(&part.pattern) & !gained, 0, "{seen}: {part:?}");
            }
        }
        let shortest = parts.iter().map(|part| part.example.as_str().len()).min();
        assert_eq!(shortest, names.shortest(gained), "{seen}: {parts:?}");
    }
    // Else the dice are loaded, and nothing was tested.
    let pairs = pairs() as usize;
    assert!(
        (pairs / 5..pairs - pairs / 10).contains(&gains),
        "{gains} gains of {pairs}"
    );
}

#[test]
fn the_example_is_a_shortest_name() {
    let mut names = Names::new();
    for seed in 0..pairs() {
        let mut dice = Dice::new(seed);
        let (pattern, without) = (dice.pattern(), dice.patterns(6));
        let left = names.of(&pattern) & !names.of_any(&without);
        let found = shortest(&pattern, &without.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!(
            found.as_ref().map(|name| name.as_str().len()),
            names.shortest(left),
            "seed {seed}: {pattern} without {without:?}: {found:?}"
        );
    }
}

/// Two services, two message tables and two operators, each with something of everything.
fn any_policy(dice: &mut Dice) -> Policy {
    let mut text = String::new();
    text.push_str(dice.pick::<&str>(&[
        "",
        "[alarms]\nnew-flow-after = \"never\"\n",
        "[alarms]\nnew-flow-after = \"7d\"\n",
    ]));
    for service in ["s", "t"] {
        if dice.below(5) == 0 {
            continue;
        }
        text.push_str(&format!("[service.{service}]\n"));
        text.push_str(dice.pick::<&str>(&["", "zone = \"x\"\n", "zone = \"y\"\n"]));
        text.push_str(dice.pick::<&str>(&[
            "",
            "limits = {rate = \"1/s\"}\n",
            "limits = {rate = \"1/s\", burst = 2}\n",
            "on-alarm = \"quarantine\"\n",
        ]));
        text.push_str(dice.pick::<&str>(&["", "alarms = \"off\"\n", "alarms = {sensitivity = \"low\"}\n"]));
        for (key, count_max) in [("sends", 3), ("receives", 3), ("receives-except", 2)] {
            let mut patterns = dice.patterns(count_max);
            patterns.sort();
            patterns.dedup();
            let patterns: Vec<_> = patterns.iter().map(|pattern| format!("\"{pattern}\"")).collect();
            text.push_str(&format!("{key} = [{}]\n", patterns.join(", ")));
        }
    }
    let mut patterns = dice.patterns(3);
    patterns.sort();
    patterns.dedup();
    for pattern in patterns {
        text.push_str(&format!("[message.\"{pattern}\"]\n"));
        text.push_str(dice.pick::<&str>(&["", "attempts = 1\n", "attempts = 2\n"]));
        text.push_str(dice.pick::<&str>(&["", "alarms = \"off\"\n", "alarms = \"default\"\n"]));
        text.push_str(dice.pick::<&str>(&["", "payload-max = \"1KiB\"\n", "payload-max = \"2KiB\"\n"]));
    }
    for operator in ["o", "p"] {
        if dice.below(2) == 0 {
            text.push_str(&format!("[operator.{operator}]\nmay = [\"view\"]\n"));
        }
    }
    policy(&text)
}

fn identity(role: Role) -> Identity {
    Identity {
        trust_domain: "todo.example".into(),
        role,
        serial: "1".into(),
        expires_unix_s: 0,
    }
}

#[test]
fn differences_of_policies_agree_with_every_decision() {
    let names = all_names();
    for seed in 0..pairs() / 40 {
        let mut dice = Dice::new(seed);
        let (old, new) = (any_policy(&mut dice), any_policy(&mut dice));
        let found = diff(&old, &new).unwrap();
        for service in ["s", "t"] {
            let who = identity(Role::Service(service.into()));
            for zone in ["x", "y", "z"] {
                let admits = |policy: &Policy| policy.admit(&who, Some(zone)).is_ok();
                check_connection(&found, service, zone, admits(&old), admits(&new), seed);
            }
            for action in Action::ALL {
                let may = |policy: &Policy, name| policy.decide(&who, action, name).is_ok();
                for name in &names {
                    let change = match (may(&old, name), may(&new, name)) {
                        (false, true) => Effect::Gain,
                        (true, false) => Effect::Loss,
                        _ => continue,
                    };
                    let told = found.changes().iter().any(|found| matches!(
                        found,
                        Change::Message { effect, service: named, action: verb, pattern, .. }
                            if *effect == change && **named == *service && *verb == action && pattern.matches(name)
                    ));
                    assert!(
                        told,
                        "seed {seed}: {change:?} of {service} to {action} {name}: {found:?}"
                    );
                }
            }
        }
        check_terms(&found, &old, &new, &names, seed);
        for change in found.changes() {
            check_change(change, &old, &new, seed);
        }
    }
}

fn check_connection(found: &super::super::Diff, service: &str, zone: &str, had: bool, has: bool, seed: u64) {
    let covers = |listeners: &Listeners| match listeners {
        Listeners::Any => true,
        Listeners::Zone(named) => **named == *zone,
        Listeners::AnyBut(named) => **named != *zone,
    };
    let told = |wanted: Effect| {
        found.changes().iter().any(|change| {
            matches!(
                change,
                Change::Connect { effect, service: named, listeners, .. }
                    if *effect == wanted && **named == *service && covers(listeners)
            )
        })
    };
    assert_eq!(
        told(Effect::Gain),
        has && !had,
        "seed {seed}: {service} at {zone}: {found:?}"
    );
    assert_eq!(
        told(Effect::Loss),
        had && !has,
        "seed {seed}: {service} at {zone}: {found:?}"
    );
}

fn check_terms(found: &super::super::Diff, old: &Policy, new: &Policy, names: &[MessageName], seed: u64) {
    for name in names {
        let (before, after) = (old.terms(name), new.terms(name));
        for ((key, before), (_, after)) in before.written().zip(after.written()) {
            let told = found.changes().iter().any(|change| {
                matches!(
                    change,
                    Change::Terms { pattern, key: named, old, new, .. }
                        if *named == key && *old == before && *new == after && pattern.matches(name)
                )
            });
            let whole = found.changes().iter().any(|change| matches!(
                change,
                Change::Terms { pattern, key: named, whole: true, .. } if *named == key && pattern.matches(name)
            ));
            if before != after {
                assert!(
                    told,
                    "seed {seed}: {key} of {name}, {before:?} -> {after:?}: {found:?}"
                );
            } else {
                assert!(!whole, "seed {seed}: {key} of {name} has not changed: {found:?}");
            }
        }
    }
}

/// No change is told that is none.
fn check_change(change: &Change, old: &Policy, new: &Policy, seed: u64) {
    let (before, after) = match change.effect() {
        Effect::Loss => (new, old),
        Effect::Gain | Effect::Change => (old, new),
    };
    match change {
        Change::Message {
            service,
            action,
            example,
            ..
        } => {
            let who = identity(Role::Service(service.clone()));
            assert!(
                before.decide(&who, *action, example).is_err(),
                "seed {seed}: {change:?}"
            );
            assert!(
                after.decide(&who, *action, example).is_ok(),
                "seed {seed}: {change:?}"
            );
        }
        Change::Operator { operator, .. } => {
            let who = identity(Role::Operator(operator.clone()));
            let may = |policy: &Policy, capability: Capability| {
                policy
                    .operator(&who)
                    .is_ok_and(|operator| operator.may(capability).is_ok())
            };
            assert!(
                !may(before, Capability::View) && may(after, Capability::View),
                "seed {seed}: {change:?}"
            );
        }
        Change::Terms {
            example,
            key,
            old: told_old,
            new: told_new,
            ..
        } => {
            let value = |policy: &Policy| {
                let terms = policy.terms(example);
                terms
                    .written()
                    .find(|(named, _)| named == key)
                    .and_then(|(_, value)| value)
            };
            assert_eq!(
                (value(old), value(new)),
                (told_old.clone(), told_new.clone()),
                "seed {seed}: {change:?}"
            );
        }
        Change::Limits {
            service,
            old: told_old,
            new: told_new,
            ..
        } => {
            let written = |policy: &Policy| Some(policy.service(service)?.limit()?.limits.to_string());
            assert_eq!(
                (written(old), written(new)),
                (told_old.clone(), told_new.clone()),
                "seed {seed}: {change:?}"
            );
        }
        Change::Alarms {
            service,
            old: told_old,
            new: told_new,
            ..
        } => {
            let does = |policy: &Policy| Some(policy.service(service)?.alarms());
            assert_eq!(
                (does(old), does(new)),
                (Some(*told_old), Some(*told_new)),
                "seed {seed}: {change:?}"
            );
        }
        Change::NewFlowAfter {
            old: told_old,
            new: told_new,
            ..
        } => {
            let told = (*told_old, *told_new);
            assert_eq!(
                (old.new_flows(), new.new_flows()),
                told,
                "seed {seed}: {change:?}"
            );
        }
        Change::OnAlarm {
            service,
            old: told_old,
            new: told_new,
            ..
        } => {
            let does = |policy: &Policy| Some(policy.service(service)?.on_alarm());
            assert_eq!(
                (does(old), does(new)),
                (Some(*told_old), Some(*told_new)),
                "seed {seed}: {change:?}"
            );
        }
        Change::Connect { .. } | Change::TrustDomain { .. } => {}
    }
}
