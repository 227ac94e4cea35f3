//! The live subscriptions of all connections, found by message name.
//!
//! Shared and sharded by a name's first token; a connection writes its own entries, publishers read when the
//! route they keep is stale. Inboxes are not here: nobody but their owner may find them.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};

use parking_lot::RwLock;

use crate::exchange::mailbox::{ConnId, Subscription};
use crate::identity::Identity;
use crate::wire::name::{MessageName, Pattern, Token};

/// Enough that two busy parts of an application rarely share one.
const SHARDS: usize = 64;

/// One live subscription.
#[derive(Debug, Clone)]
pub struct Entry<P> {
    /// Who listens.
    pub peer: P,
    /// Whose certificate it showed.
    pub identity: Arc<Identity>,
    /// The subscription itself.
    pub subscription: Arc<Subscription>,
}

/// A subscription's place among those of its pattern.
pub type EntryKey = (ConnId, u64);

/// See the module's documentation.
#[derive(Debug)]
pub struct Directory<P> {
    shards: Box<[Shard<P>]>,
    /// For patterns whose first token is a wildcard.
    any_first: Shard<P>,
    epoch: AtomicU64,
    hasher: foldhash::fast::RandomState,
}

#[derive(Debug)]
struct Shard<P> {
    version: AtomicU64,
    root: RwLock<Node<P>>,
}

#[derive(Debug)]
struct Node<P> {
    literal: HashMap<Box<str>, Self>,
    one: Option<Box<Self>>,
    here: BTreeMap<EntryKey, Entry<P>>,
    rest: BTreeMap<EntryKey, Entry<P>>,
}

impl<P> Default for Node<P> {
    fn default() -> Self {
        Self {
            literal: HashMap::new(),
            one: None,
            here: BTreeMap::new(),
            rest: BTreeMap::new(),
        }
    }
}

impl<P> Default for Shard<P> {
    fn default() -> Self {
        Self {
            version: AtomicU64::new(0),
            root: RwLock::default(),
        }
    }
}

impl<P> Default for Directory<P> {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            any_first: Shard::default(),
            epoch: AtomicU64::new(0),
            hasher: foldhash::fast::RandomState::default(),
        }
    }
}

/// The state of the directory where a route came from. Equal versions mean an equal route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteVersion {
    shard: u64,
    any_first: u64,
}

impl<P: Clone> Directory<P> {
    /// Changes whenever anything in the directory does: while it stands still, every route is fresh.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Acquire)
    }

    /// The version of everything that a name's route depends on.
    pub fn version(&self, name: &str) -> RouteVersion {
        RouteVersion {
            shard: self.shard(first_token(name)).version.load(Acquire),
            any_first: self.any_first.version.load(Acquire),
        }
    }

    /// Enters a subscription. Whoever reads the epoch after this returns finds it.
    pub fn insert(&self, pattern: &Pattern, key: EntryKey, entry: Entry<P>) {
        self.change(pattern, |root| {
            let mut node = root;
            for token in pattern.tokens() {
                node = match token {
                    Token::Literal(literal) => node.literal.entry(literal.into()).or_default(),
                    Token::One => node.one.get_or_insert_default(),
                    Token::Rest => {
                        node.rest.insert(key, entry);
                        return;
                    }
                };
            }
            node.here.insert(key, entry);
        });
    }

    /// Takes a subscription out. Whoever reads the epoch after this returns no longer finds it.
    pub fn remove(&self, pattern: &Pattern, key: EntryKey) {
        let tokens: Vec<_> = pattern.tokens().collect();
        self.change(pattern, |root| root.remove(&tokens, key));
    }

    /// All subscriptions that a name reaches.
    pub fn find(&self, name: &MessageName) -> Vec<Entry<P>> {
        let tokens: Vec<_> = name.tokens().collect();
        let mut found = Vec::new();
        self.shard(first_token(name.as_str()))
            .root
            .read()
            .find(&tokens, &mut found);
        self.any_first.root.read().find(&tokens, &mut found);
        found
    }

    fn change(&self, pattern: &Pattern, change: impl FnOnce(&mut Node<P>)) {
        let shard = match first_token(pattern.as_str()) {
            "*" | ">" => &self.any_first,
            token => self.shard(token),
        };
        let mut root = shard.root.write();
        change(&mut root);
        shard.version.fetch_add(1, Release);
        drop(root);
        self.epoch.fetch_add(1, Release);
    }

    fn shard(&self, first_token: &str) -> &Shard<P> {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(first_token.as_bytes());
        let index = usize::try_from(hasher.finish() % SHARDS as u64).expect("below the number of shards");
        self.shards.get(index).expect("below the number of shards")
    }
}

impl<P: Clone> Node<P> {
    /// Visits each node at most once, whatever wildcards there are.
    fn find(&self, tokens: &[&str], found: &mut Vec<Entry<P>>) {
        let Some((first, after)) = tokens.split_first() else {
            found.extend(self.here.values().cloned());
            return;
        };
        found.extend(self.rest.values().cloned());
        if let Some(node) = self.literal.get(*first) {
            node.find(after, found);
        }
        if let Some(node) = &self.one {
            node.find(after, found);
        }
    }

    fn remove(&mut self, tokens: &[Token<'_>], key: EntryKey) {
        match tokens.split_first() {
            None => {
                self.here.remove(&key);
            }
            Some((Token::Rest, _)) => {
                self.rest.remove(&key);
            }
            Some((Token::One, after)) => {
                if let Some(node) = &mut self.one {
                    node.remove(after, key);
                    if node.is_empty() {
                        self.one = None;
                    }
                }
            }
            Some((Token::Literal(literal), after)) => {
                if let Some(node) = self.literal.get_mut(*literal) {
                    node.remove(after, key);
                    if node.is_empty() {
                        self.literal.remove(*literal);
                    }
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.literal.is_empty() && self.one.is_none() && self.here.is_empty() && self.rest.is_empty()
    }
}

fn first_token(text: &str) -> &str {
    text.split('.').next().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Role;
    use proptest::prelude::*;

    fn entry(peer: u64) -> Entry<u64> {
        let identity = Identity {
            trust_domain: "t".into(),
            role: Role::Service("s".into()),
            serial: "1".into(),
            expires_unix_s: 0,
        };
        Entry {
            peer,
            identity: Arc::new(identity),
            subscription: Arc::new(Subscription::new(b"1", None)),
        }
    }

    fn token() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b", "c"])
    }

    fn pattern() -> impl Strategy<Value = Pattern> {
        let token = prop_oneof![3 => token(), 1 => Just("*")];
        (prop::collection::vec(token, 1..4), any::<bool>()).prop_map(|(mut tokens, rest)| {
            if rest {
                tokens.push(">");
            }
            Pattern::new(&tokens.join(".")).unwrap()
        })
    }

    proptest! {
        #[test]
        fn finds_what_a_naive_list_finds(
            steps in prop::collection::vec((pattern(), any::<bool>(), any::<prop::sample::Index>()), 1..40),
            names in prop::collection::vec(prop::collection::vec(token(), 1..5), 1..10),
        ) {
            let directory = Directory::default();
            let mut naive: Vec<(Pattern, u64)> = Vec::new();
            for (number, (pattern, removes, index)) in (0..).zip(steps) {
                let epoch = directory.epoch();
                if removes && !naive.is_empty() {
                    let (old, key) = naive.swap_remove(index.index(naive.len()));
                    directory.remove(&old, (ConnId(key), key));
                } else {
                    directory.insert(&pattern, (ConnId(number), number), entry(number));
                    naive.push((pattern, number));
                }
                prop_assert_ne!(directory.epoch(), epoch);
            }
            for name in names {
                let name = MessageName::new(&name.join(".")).unwrap();
                let mut found: Vec<_> = directory.find(&name).into_iter().map(|entry| entry.peer).collect();
                let mut expected: Vec<_> =
                    naive.iter().filter(|(pattern, _)| pattern.matches(&name)).map(|(_, key)| *key).collect();
                found.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(found, expected);
            }
            for (pattern, key) in naive {
                directory.remove(&pattern, (ConnId(key), key));
            }
            prop_assert!(directory.shards.iter().all(|shard| shard.root.read().is_empty()));
            prop_assert!(directory.any_first.root.read().is_empty());
        }
    }

    #[test]
    fn a_change_elsewhere_leaves_a_routes_version() {
        let directory = Directory::default();
        let before = directory.version("a.b");
        directory.insert(&Pattern::new("a.*").unwrap(), (ConnId(1), 1), entry(1));
        let after = directory.version("a.b");
        assert_ne!(before, after);
        directory.insert(&Pattern::new(">").unwrap(), (ConnId(1), 2), entry(1));
        assert_ne!(directory.version("a.b"), after);
    }
}
