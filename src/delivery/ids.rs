//! `Nats-Msg-Id`: which message a sender has published under an id, for as long as the window lasts.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::message::Seq;

/// The ids of the window. Scoped by sender: nobody learns or blocks another's ids.
#[derive(Debug)]
pub(super) struct Ids {
    window_ms: u64,
    count_max: usize,
    known: HashMap<Key, (Seq, u64), foldhash::fast::RandomState>,
    by_age: VecDeque<(u64, Key)>,
}

type Key = (Arc<str>, Arc<str>);

impl Ids {
    pub(super) fn new(window_ms: u64, count_max: usize) -> Self {
        Self {
            window_ms,
            count_max,
            known: HashMap::default(),
            by_age: VecDeque::new(),
        }
    }

    pub(super) fn find(&self, sender: &Arc<str>, id: &Arc<str>, now_ms: u64) -> Option<Seq> {
        let (seq, at_ms) = self.known.get(&(Arc::clone(sender), Arc::clone(id)))?;
        (now_ms.saturating_sub(*at_ms) < self.window_ms).then_some(*seq)
    }

    pub(super) fn has_room(&self) -> bool {
        self.known.len() < self.count_max
    }

    /// Remembers an id, unless a younger use of it is known: a log that was carried forward tells of the older one
    /// last.
    pub(super) fn insert(&mut self, sender: Arc<str>, id: Arc<str>, seq: Seq, at_ms: u64) {
        let key = (sender, id);
        if self.known.get(&key).is_some_and(|(known, _)| *known > seq) {
            return;
        }
        self.known.insert(key.clone(), (seq, at_ms));
        self.by_age.push_back((at_ms, key));
    }

    /// Forgets what has left the window.
    pub(super) fn forget_old(&mut self, now_ms: u64) {
        while let Some((at_ms, _)) = self.by_age.front() {
            if now_ms.saturating_sub(*at_ms) < self.window_ms {
                break;
            }
            let Some((at_ms, key)) = self.by_age.pop_front() else {
                break;
            };
            if self
                .known
                .get(&key)
                .is_some_and(|(_, known_ms)| *known_ms == at_ms)
            {
                self.known.remove(&key);
            }
        }
    }

    /// Takes uses at a time that lies ahead as uses now. They were told by a clock that was wrong, and would be
    /// remembered until it is right, with all that came after them.
    pub(super) fn forget_later_times(&mut self, now_ms: u64) {
        for (_, at_ms) in self.known.values_mut() {
            *at_ms = now_ms.min(*at_ms);
        }
        for (at_ms, _) in &mut self.by_age {
            *at_ms = now_ms.min(*at_ms);
        }
    }

    /// All that is remembered, oldest first: sender, id, message, time in milliseconds.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>, Seq, u64)> {
        self.by_age.iter().filter_map(|(at_ms, key)| {
            let (seq, known_ms) = self.known.get(key)?;
            (known_ms == at_ms).then_some((&key.0, &key.1, *seq, *at_ms))
        })
    }
}
