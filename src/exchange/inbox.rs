//! Which reply subjects a client may name as its own, and on which of them it listens.
//!
//! An inbox is a reserved name, which no message can have, and never one of our own reply tokens. Nobody but its
//! owner hears or finds one.

use std::collections::HashMap;

use crate::exchange::mailbox::NotTaken;
use crate::limits::{INBOX_BYTES_MAX, INBOX_PATTERNS_PER_CONNECTION_MAX};
use crate::wire::REPLY_PREFIX;
use crate::wire::name::matches_text;

/// Whether a client may ask to be answered there: a reserved name of its own, not one of our tokens.
pub(super) fn is_inbox(subject: &[u8]) -> bool {
    let mut last = b'.';
    let is_name = subject.iter().all(|&byte| {
        let is_empty_token = byte == b'.' && last == b'.';
        last = byte;
        byte.is_ascii_graphic() && byte != b'*' && byte != b'>' && !is_empty_token
    });
    is_name
        && last != b'.'
        && subject.first() == Some(&b'_')
        && subject.len() <= INBOX_BYTES_MAX
        && !subject.starts_with(REPLY_PREFIX)
}

/// A pattern of reply subjects: reserved names, which no message can have.
pub(super) fn inbox_pattern(subject: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(subject).ok()?;
    let is_ours = subject.starts_with(REPLY_PREFIX);
    let is_valid = text.starts_with('_')
        && text.len() <= INBOX_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && text
            .split('.')
            .rev()
            .enumerate()
            .all(|(from_end, token)| match token {
                "" => false,
                "*" => true,
                ">" => from_end == 0,
                token => !token.contains(['*', '>']),
            });
    (is_valid && !is_ours).then_some(text)
}

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// The reply subjects on which one connection listens. Nobody else can hear or write on them.
#[derive(Debug, Default)]
pub struct Inboxes {
    /// Those without a wildcard: the ids that listen, by subject, ...
    exact: Map<Box<str>, Vec<Box<[u8]>>>,
    /// ... and each by its id.
    exact_by_sid: Map<Box<[u8]>, Exact>,
    /// The others. A client has one, for all its requests.
    wild: Vec<Wild>,
}

#[derive(Debug)]
struct Exact {
    subject: Box<str>,
    heard: Heard,
}

#[derive(Debug)]
struct Wild {
    sid: Box<[u8]>,
    pattern: Box<str>,
    /// How far the pattern goes before its first wildcard.
    literal_bytes: usize,
    heard: Heard,
}

/// How many answers a subscription has heard, and after how many it ends; 0: never.
#[derive(Debug, Default)]
struct Heard {
    count: u64,
    max: u64,
}

impl Heard {
    /// Counts one; says whether it was the last.
    const fn count(&mut self) -> bool {
        self.count += 1;
        self.count == self.max
    }

    /// Says whether it has heard so many, after which it is to end.
    fn end_after(&mut self, max: Option<u64>) -> bool {
        self.max = max.unwrap_or(0);
        max.is_none_or(|max| self.count >= max)
    }
}

impl Wild {
    fn matches(&self, subject: &str) -> bool {
        let Some((literal, rest)) = self.pattern.split_at_checked(self.literal_bytes) else {
            return false;
        };
        let Some(theirs) = subject.strip_prefix(literal) else {
            return false;
        };
        match rest {
            "*" => !theirs.is_empty() && memchr::memchr(b'.', theirs.as_bytes()).is_none(),
            _ => matches_text(rest, theirs),
        }
    }
}

impl Inboxes {
    /// Listens on a checked pattern. Says whether there was room.
    pub fn listen(&mut self, pattern: &str, sid: &[u8]) -> bool {
        if let Some(literal_bytes) = pattern.find(['*', '>']) {
            if self.wild.len() >= INBOX_PATTERNS_PER_CONNECTION_MAX {
                return false;
            }
            self.wild.push(Wild {
                sid: sid.into(),
                pattern: pattern.into(),
                literal_bytes,
                heard: Heard::default(),
            });
            return true;
        }
        let sids = self.exact.entry(pattern.into()).or_default();
        if sids.len() >= INBOX_PATTERNS_PER_CONNECTION_MAX {
            return false;
        }
        sids.push(sid.into());
        let exact = Exact {
            subject: pattern.into(),
            heard: Heard::default(),
        };
        self.exact_by_sid.insert(sid.into(), exact);
        true
    }

    /// Stops listening, at once or after `max` messages in all.
    pub fn stop(&mut self, sid: &[u8], max: Option<u64>) {
        self.wild
            .retain_mut(|wild| *wild.sid != *sid || !wild.heard.end_after(max));
        let exact = self.exact_by_sid.get_mut(sid);
        if exact.is_some_and(|exact| exact.heard.end_after(max)) {
            self.remove_exact(sid);
        }
    }

    /// How many subscriptions listen.
    pub fn len(&self) -> usize {
        self.exact_by_sid.len() + self.wild.len()
    }

    /// Whether none listens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this subscription listens.
    pub fn has(&self, sid: &[u8]) -> bool {
        self.exact_by_sid.contains_key(sid) || self.wild.iter().any(|wild| *wild.sid == *sid)
    }

    /// Calls `each` with the id of every subscription that listens on a subject, until one has no room.
    pub(super) fn hear(
        &mut self,
        subject: &[u8],
        mut each: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), NotTaken> {
        let Ok(subject) = std::str::from_utf8(subject) else {
            return Err(NotTaken::Gone);
        };
        let mut heard = Err(NotTaken::Gone);
        let mut over: Vec<Box<[u8]>> = Vec::new();
        let sids = match self.exact.is_empty() {
            true => None,
            false => self.exact.get(subject),
        };
        for sid in sids.into_iter().flatten() {
            let Some(exact) = self.exact_by_sid.get_mut(sid) else {
                continue;
            };
            if !each(sid) {
                heard = Err(NotTaken::Full);
                break;
            }
            heard = Ok(());
            if exact.heard.count() {
                over.push(sid.clone());
            }
        }
        for wild in &mut self.wild {
            if heard == Err(NotTaken::Full) {
                break;
            }
            if !wild.matches(subject) {
                continue;
            }
            heard = match each(&wild.sid) {
                true => Ok(()),
                false => Err(NotTaken::Full),
            };
            if heard.is_ok() && wild.heard.count() {
                over.push(wild.sid.clone());
            }
        }
        for sid in over {
            self.remove_exact(&sid);
            self.wild.retain(|wild| *wild.sid != *sid);
        }
        heard
    }

    fn remove_exact(&mut self, sid: &[u8]) {
        let Some(Exact { subject, .. }) = self.exact_by_sid.remove(sid) else {
            return;
        };
        if let Some(sids) = self.exact.get_mut(&subject) {
            sids.retain(|other| **other != *sid);
            if sids.is_empty() {
                self.exact.remove(&subject);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subjects() -> impl Strategy<Value = String> {
        let part = prop::sample::select(vec![
            "_INBOX", "_", "a", "b7", ".", "*", ">", "_R.", "_R", " ", "é", "\u{7f}", "..",
        ]);
        prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn an_inbox_is_a_pattern_of_inboxes_without_wildcards(subject in subjects()) {
            let by_pattern = inbox_pattern(subject.as_bytes()).is_some_and(|text| !text.contains(['*', '>']));
            prop_assert_eq!(is_inbox(subject.as_bytes()), by_pattern);
        }

        #[test]
        fn those_whose_pattern_matches_hear(patterns in prop::collection::vec(subjects(), 0..6), subject in subjects()) {
            let mut inboxes = Inboxes::default();
            let mut expected = Vec::new();
            for (sid, pattern) in patterns.iter().enumerate() {
                if inbox_pattern(pattern.as_bytes()).is_none() {
                    continue;
                }
                inboxes.listen(pattern, sid.to_string().as_bytes());
                if matches_text(pattern, &subject) {
                    expected.push(sid.to_string());
                }
            }
            let mut heard = Vec::new();
            let result = inboxes.hear(subject.as_bytes(), |sid| {
                heard.push(String::from_utf8(sid.to_vec()).unwrap());
                true
            });
            heard.sort_unstable();
            prop_assert_eq!(result.is_ok(), !expected.is_empty());
            prop_assert_eq!(heard, expected);
        }
    }

    #[test]
    fn a_subscription_ends_after_its_last_answer_and_leaves_nothing() {
        let mut inboxes = Inboxes::default();
        let hear = |inboxes: &mut Inboxes, subject: &str| inboxes.hear(subject.as_bytes(), |_| true).is_ok();
        inboxes.listen("_INBOX.a.*", b"1");
        inboxes.listen("_INBOX.b", b"2");
        inboxes.stop(b"1", Some(2));
        inboxes.stop(b"2", Some(1));
        assert!(hear(&mut inboxes, "_INBOX.a.x") && hear(&mut inboxes, "_INBOX.b"));
        assert!(hear(&mut inboxes, "_INBOX.a.y") && !hear(&mut inboxes, "_INBOX.b"));
        assert!(!hear(&mut inboxes, "_INBOX.a.z"));
        assert!(inboxes.is_empty() && inboxes.exact.is_empty() && inboxes.exact_by_sid.is_empty());
    }
}
