//! The way from those who see something to the task that writes it down: bounded, and never waited for.
//!
//! Records come one by one. Denials and refused handshakes, of which anybody can cause a million, are counted by
//! what they are about, so that each is one record a round with its exact count. What finds no room is counted.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::audit::each::EachMessage;
use crate::audit::record::{Entry, Record};
use crate::limits::{
    AUDIT_DENIAL_KEYS_MAX, AUDIT_DENIAL_KEYS_PER_SENDER_MAX, AUDIT_INTAKE_EACH_MAX, AUDIT_INTAKE_RECORDS_MAX,
};

/// Something that the policy denied.
#[derive(Debug, Clone, Copy)]
pub struct Denied<'a> {
    /// The verified service.
    pub sender: &'a str,
    /// The connection.
    pub connection: u64,
    /// What it tried.
    pub action: &'static str,
    /// On what, made printable.
    pub subject: &'a str,
    /// The policy's line, or the reason.
    pub rule: &'a str,
    /// The policy's version.
    pub policy: &'a str,
    /// How often.
    pub count: u64,
}

/// A client that got no session.
#[derive(Debug, Clone, Copy)]
pub struct Refusal<'a> {
    /// The listener.
    pub listener: &'a str,
    /// Where it came from.
    pub address: &'a str,
    /// The rule that it broke.
    pub rule: &'static str,
    /// Whose certificate it showed.
    pub certificate: Option<&'a str>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Intake {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    entries: Vec<Entry>,
    denials: HashMap<DenialKey, DenialSum, foldhash::fast::RandomState>,
    /// Of the denials, how many keys each sender has.
    senders: HashMap<Box<str>, usize, foldhash::fast::RandomState>,
    refusals: HashMap<(Box<str>, &'static str), RefusalSum, foldhash::fast::RandomState>,
    each: Vec<EachMessage>,
    lost: u64,
    is_woken: bool,
    is_closed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct DenialKey {
    sender: Box<str>,
    action: &'static str,
    subject: Box<str>,
    rule: Box<str>,
}

#[derive(Debug)]
struct DenialSum {
    connection: u64,
    policy: Box<str>,
    count: u64,
}

#[derive(Debug)]
struct RefusalSum {
    address: String,
    certificate: Option<String>,
    count: u64,
}

/// What has come.
#[derive(Debug, Default)]
pub struct Arrived {
    /// In order, the counted ones last.
    pub entries: Vec<Entry>,
    /// Single messages, in order.
    pub each: Vec<EachMessage>,
    /// Records that found no room.
    pub lost: u64,
}

impl Intake {
    /// Takes a record. Whoever gives it does not wait; where there is no room it is counted as lost.
    pub fn note(&self, record: Record, at_unix_ms: u64) {
        let mut waiting = self.waiting.lock();
        if waiting.entries.len() >= AUDIT_INTAKE_RECORDS_MAX {
            waiting.lost += 1;
            return;
        }
        waiting.entries.push(Entry { at_unix_ms, record });
        let is_half_full = waiting.entries.len() == AUDIT_INTAKE_RECORDS_MAX / 2;
        drop(waiting);
        if is_half_full {
            self.wake();
        }
    }

    /// Takes the records of single messages, and empties `messages`.
    pub fn note_each(&self, messages: &mut Vec<EachMessage>) {
        let mut waiting = self.waiting.lock();
        let before = waiting.each.len();
        let room = AUDIT_INTAKE_EACH_MAX - before;
        if messages.len() > room {
            waiting.lost += (messages.len() - room) as u64;
            messages.truncate(room);
        }
        waiting.each.append(messages);
        const FILL: usize = AUDIT_INTAKE_EACH_MAX / 8;
        let is_time = before < FILL && waiting.each.len() >= FILL;
        drop(waiting);
        if is_time {
            self.wake();
        }
    }

    /// Counts a denial.
    pub fn deny(&self, denied: &Denied<'_>) {
        let mut waiting = self.waiting.lock();
        let mut key = DenialKey {
            sender: denied.sender.into(),
            action: denied.action,
            subject: denied.subject.into(),
            rule: denied.rule.into(),
        };
        if !waiting.denials.contains_key(&key) {
            let has_keys = waiting.senders.get(denied.sender).copied().unwrap_or(0);
            if waiting.denials.len() >= AUDIT_DENIAL_KEYS_MAX || has_keys >= AUDIT_DENIAL_KEYS_PER_SENDER_MAX
            {
                // Names can be made up; services and rules of the policy cannot.
                key.subject = ">".into();
            } else {
                *waiting.senders.entry(denied.sender.into()).or_default() += 1;
            }
        }
        let sum = waiting.denials.entry(key).or_insert_with(|| DenialSum {
            connection: 0,
            policy: "".into(),
            count: 0,
        });
        sum.connection = denied.connection;
        sum.count += denied.count;
        if *sum.policy != *denied.policy {
            sum.policy = denied.policy.into();
        }
    }

    /// Counts a client that got no session.
    pub fn refuse(&self, refusal: &Refusal<'_>) {
        let mut waiting = self.waiting.lock();
        let key = (refusal.listener.into(), refusal.rule);
        let sum = waiting.refusals.entry(key).or_insert_with(|| RefusalSum {
            address: refusal.address.to_owned(),
            certificate: refusal.certificate.map(str::to_owned),
            count: 0,
        });
        sum.count += 1;
    }

    /// Takes all that has come. `at_unix_ms` is the time of those that were counted.
    pub fn take(&self, at_unix_ms: u64) -> Arrived {
        let mut waiting = self.waiting.lock();
        let mut entries = std::mem::take(&mut waiting.entries);
        let denials = std::mem::take(&mut waiting.denials);
        let refusals = std::mem::take(&mut waiting.refusals);
        waiting.senders.clear();
        let each = std::mem::take(&mut waiting.each);
        let lost = std::mem::take(&mut waiting.lost);
        drop(waiting);
        let denials = denials.into_iter().map(|(key, sum)| Record::Denial {
            sender: key.sender.into(),
            connection: sum.connection,
            action: key.action.to_owned(),
            subject: key.subject.into(),
            rule: key.rule.into(),
            policy: sum.policy.into(),
            count: sum.count,
        });
        let refusals = refusals
            .into_iter()
            .map(|((listener, rule), sum)| Record::Refused {
                listener: listener.into(),
                address: sum.address,
                rule: rule.to_owned(),
                certificate: sum.certificate,
                count: sum.count,
            });
        let counted = denials.chain(refusals);
        entries.extend(counted.map(|record| Entry { at_unix_ms, record }));
        Arrived { entries, each, lost }
    }

    /// Waits until somebody wakes, or that much time has passed.
    pub fn wait(&self, patience: Duration) {
        let mut waiting = self.waiting.lock();
        if !waiting.is_woken && !waiting.is_closed {
            self.arrived.wait_for(&mut waiting, patience);
        }
        waiting.is_woken = false;
    }

    /// Wakes the one who waits.
    pub fn wake(&self) {
        self.waiting.lock().is_woken = true;
        self.arrived.notify_one();
    }

    /// Says that nothing more will come.
    pub fn close(&self) {
        self.waiting.lock().is_closed = true;
        self.arrived.notify_one();
    }

    /// Whether nothing more will come.
    pub fn is_closed(&self) -> bool {
        self.waiting.lock().is_closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denials_are_counted_exactly_and_made_up_names_do_not_fill_the_log() {
        let intake = Intake::default();
        let deny = |sender: &str, subject: &str, count: u64| {
            intake.deny(&Denied {
                sender,
                connection: 1,
                action: "publish",
                subject,
                rule: "no grant",
                policy: "p",
                count,
            });
        };
        for round in 0..10_000 {
            deny("web", &format!("made-up.{}", round % 5_000), 3);
        }
        deny("todos", "todos.purge", 7);
        deny("todos", "todos.purge", 1);
        let entries = intake.take(5).entries;
        let count_of = |wanted: &str| -> u64 {
            let counts = entries.iter().map(|entry| match &entry.record {
                Record::Denial { sender, count, .. } if sender == wanted => *count,
                _ => 0,
            });
            counts.sum()
        };
        assert_eq!((count_of("web"), count_of("todos")), (30_000, 8));
        assert_eq!(entries.len(), AUDIT_DENIAL_KEYS_PER_SENDER_MAX + 2);
        assert!(intake.take(6).entries.is_empty());
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let intake = Intake::default();
        for _ in 0..AUDIT_INTAKE_RECORDS_MAX + 5 {
            intake.note(Record::Stop, 1);
        }
        let arrived = intake.take(2);
        assert_eq!(
            (arrived.entries.len(), arrived.lost),
            (AUDIT_INTAKE_RECORDS_MAX, 5)
        );
        assert_eq!(intake.take(2).lost, 0);
    }

    #[test]
    fn refused_handshakes_are_one_record_a_round_for_each_rule() {
        let intake = Intake::default();
        for port in 1..=1_000 {
            intake.refuse(&Refusal {
                listener: "dmz",
                address: &format!("192.0.2.1:{port}"),
                rule: "expired",
                certificate: Some("spiffe://a/b"),
            });
        }
        let entries = intake.take(5).entries;
        let [entry] = entries.as_slice() else {
            panic!("{entries:?}")
        };
        let expected = Record::Refused {
            listener: "dmz".into(),
            address: "192.0.2.1:1".into(),
            rule: "expired".into(),
            certificate: Some("spiffe://a/b".into()),
            count: 1_000,
        };
        assert_eq!(entry.record, expected);
    }
}
