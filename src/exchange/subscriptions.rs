//! What one connection listens to.
//!
//! Owned by the connection's session, which alone enters its subscriptions into the directory and takes them out.
//! Subscriptions to answers are in the mailbox alone. Nothing here delivers a message.

use std::collections::HashMap;
use std::sync::Arc;

use crate::exchange::directory::Entry;
use crate::exchange::inbox::inbox_pattern;
use crate::exchange::mailbox::{Peer, Subscription};
use crate::exchange::share::{Holding, Share};
use crate::exchange::turn::Turn;
use crate::exchange::ways::Law;
use crate::exchange::world::World;
use crate::identity::Identity;
use crate::limits::{
    SUBSCRIPTION_TOKENS_PER_CONNECTION_MAX, SUBSCRIPTIONS_PER_CONNECTION_MAX, SUBSCRIPTIONS_PER_PATTERN_MAX,
};
use crate::wire::encode::{self, ErrText};
use crate::wire::name::Pattern;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Subscriptions<P> {
    peer: P,
    identity: Arc<Identity>,
    by_sid: HashMap<Box<[u8]>, Listening>,
    /// How many there are of each pattern: each gets every message.
    of_pattern: HashMap<Box<str>, usize>,
    /// Tokens of all patterns together: what they cost the directory.
    tokens: Holding,
    made: u64,
}

/// One subscription to messages.
#[derive(Debug)]
struct Listening {
    pattern: Pattern,
    number: u64,
    subscription: Arc<Subscription>,
}

/// What a client asks to hear.
enum Wanted<'a> {
    Messages(Pattern),
    Answers(&'a str),
}

impl<P: Peer> Subscriptions<P> {
    /// None yet.
    pub(super) fn new(peer: P, identity: Arc<Identity>, share: &Share) -> Self {
        Self {
            peer,
            identity,
            by_sid: HashMap::new(),
            of_pattern: HashMap::new(),
            tokens: share.subscription_tokens.hold_none(),
            made: 0,
        }
    }

    /// How many subscriptions to messages there are.
    pub(super) fn len(&self) -> usize {
        self.by_sid.len()
    }

    /// Ends those that a changed policy no longer grants, and tells the client.
    pub(super) fn apply_policy(&mut self, world: &World<P>, law: Law<'_>, turn: &mut Turn<P>) {
        let refused: Vec<Box<[u8]>> = self
            .by_sid
            .iter()
            .filter(|(_, listening)| {
                law.decide_subscription(&self.identity, &listening.pattern)
                    .is_err()
            })
            .map(|(sid, _)| sid.clone())
            .collect();
        for sid in refused {
            if let Some(Listening {
                pattern,
                subscription,
                ..
            }) = self.by_sid.get(&sid)
            {
                let (pattern, queue) = (pattern.as_str().as_bytes(), subscription.queue.as_deref());
                turn.notice("subscribe", pattern, "the policy has changed");
                turn.count_denial("subscribe", pattern, "the policy has changed");
                encode::err(&mut turn.control, ErrText::SubscriptionDenied(pattern, queue));
            }
            self.stop_listening(world, &sid);
        }
    }

    /// Makes a subscription, or tells the client that it may not. Says whether all is well.
    pub(super) fn subscribe(
        &mut self,
        world: &World<P>,
        law: Law<'_>,
        subject: &[u8],
        queue: Option<&[u8]>,
        sid: &[u8],
        turn: &mut Turn<P>,
    ) -> bool {
        match self.try_subscribe(world, law, subject, queue, sid) {
            Ok(()) => true,
            Err(rule) => {
                turn.notice("subscribe", subject, &rule);
                turn.count_denial("subscribe", subject, &rule);
                encode::err(&mut turn.control, ErrText::SubscriptionDenied(subject, queue));
                false
            }
        }
    }

    /// Says which rule forbids it.
    fn try_subscribe(
        &mut self,
        world: &World<P>,
        law: Law<'_>,
        subject: &[u8],
        queue: Option<&[u8]>,
        sid: &[u8],
    ) -> Result<(), String> {
        let wanted = match inbox_pattern(subject) {
            Some(inbox) => Wanted::Answers(inbox),
            None => Wanted::Messages(self.granted(law, subject)?),
        };
        let (inboxes, is_inbox) = self
            .peer
            .with_mailbox(|mailbox| (mailbox.inboxes.len(), mailbox.inboxes.has(sid)));
        if is_inbox || self.is_live(world, sid) {
            // As in nats-server, an id in use keeps its first subscription.
            return Ok(());
        }
        if inboxes + self.by_sid.len() >= SUBSCRIPTIONS_PER_CONNECTION_MAX {
            return Err("too many subscriptions".to_owned());
        }
        match wanted {
            Wanted::Messages(pattern) => self.listen(world, pattern, queue, sid),
            Wanted::Answers(inbox) => self.listen_for_answers(inbox, sid),
        }
    }

    /// The pattern, if the service may receive all that it matches.
    fn granted(&self, law: Law<'_>, subject: &[u8]) -> Result<Pattern, String> {
        let pattern = Pattern::parse(subject).map_err(|error| error.to_string())?;
        match law.decide_subscription(&self.identity, &pattern) {
            Ok(_) => Ok(pattern),
            Err(denial) => Err(denial.rule_or_no_grant().to_string()),
        }
    }

    /// Whether an id names a subscription to messages. One that has had all its deliveries no longer does, though
    /// it may not have been taken out yet.
    fn is_live(&mut self, world: &World<P>, sid: &[u8]) -> bool {
        let has_ended = self
            .by_sid
            .get(sid)
            .map(|listening| listening.subscription.has_ended());
        if has_ended == Some(true) {
            self.stop_listening(world, sid);
        }
        has_ended == Some(false)
    }

    /// Enters a subscription to messages, if there is room for it.
    fn listen(
        &mut self,
        world: &World<P>,
        pattern: Pattern,
        queue: Option<&[u8]>,
        sid: &[u8],
    ) -> Result<(), String> {
        let same = self.of_pattern.get(pattern.as_str()).copied().unwrap_or(0);
        if same >= SUBSCRIPTIONS_PER_PATTERN_MAX {
            return Err("too many subscriptions to one pattern".to_owned());
        }
        let tokens = pattern.tokens().count();
        if self.tokens.amount() + tokens > SUBSCRIPTION_TOKENS_PER_CONNECTION_MAX || !self.tokens.grow(tokens)
        {
            return Err("too many subscriptions".to_owned());
        }
        self.of_pattern.insert(pattern.as_str().into(), same + 1);
        let subscription = Arc::new(Subscription::new(sid, queue));
        self.made += 1;
        let number = self.made;
        let entry = Entry {
            peer: self.peer.clone(),
            identity: Arc::clone(&self.identity),
            subscription: Arc::clone(&subscription),
        };
        world.directory.insert(&pattern, (self.peer.id(), number), entry);
        world.wake_deliveries();
        self.by_sid.insert(
            sid.into(),
            Listening {
                pattern,
                number,
                subscription,
            },
        );
        Ok(())
    }

    fn listen_for_answers(&self, inbox: &str, sid: &[u8]) -> Result<(), String> {
        let listens = self
            .peer
            .with_mailbox(|mailbox| mailbox.inboxes.listen(inbox, sid));
        if listens {
            Ok(())
        } else {
            Err("too many inboxes with wildcards, or of one name".to_owned())
        }
    }

    /// Ends a subscription, now or after `max` deliveries in all.
    pub(super) fn unsubscribe(&mut self, world: &World<P>, sid: &[u8], max: Option<u64>) {
        let Some(listening) = self.by_sid.get(sid) else {
            return self.peer.with_mailbox(|mailbox| mailbox.inboxes.stop(sid, max));
        };
        let subscription = &listening.subscription;
        let is_over = max.is_none_or(|max| self.peer.with_mailbox(|_| subscription.end_after(max)));
        if is_over {
            self.stop_listening(world, sid);
        }
    }

    fn stop_listening(&mut self, world: &World<P>, sid: &[u8]) {
        if let Some(Listening {
            pattern,
            number,
            subscription,
        }) = self.by_sid.remove(sid)
        {
            // Out of the directory first: whoever finds that it has ended can then find another.
            world.directory.remove(&pattern, (self.peer.id(), number));
            self.tokens.shrink(pattern.tokens().count());
            match self.of_pattern.get_mut(pattern.as_str()) {
                Some(same) if *same > 1 => *same -= 1,
                _ => drop(self.of_pattern.remove(pattern.as_str())),
            }
            self.peer.with_mailbox(|_| subscription.end());
        }
    }

    /// Takes out the subscriptions that have had all their deliveries.
    pub(super) fn reap(&mut self, world: &World<P>) {
        for subscription in self
            .peer
            .with_mailbox(|mailbox| mailbox.take_ended_subscriptions())
        {
            // Its id may be another's by now.
            let still = self.by_sid.get(&subscription.sid);
            if still.is_some_and(|listening| Arc::ptr_eq(&listening.subscription, &subscription)) {
                self.stop_listening(world, &subscription.sid);
            }
        }
    }

    /// Takes all of them out of the directory.
    pub(super) fn end(&mut self, world: &World<P>) {
        for Listening { pattern, number, .. } in std::mem::take(&mut self.by_sid).into_values() {
            world.directory.remove(&pattern, (self.peer.id(), number));
        }
        self.tokens.shrink(self.tokens.amount());
    }
}
