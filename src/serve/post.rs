//! The store's way to the connections: finds the live instances of a service, puts attempts into their mailboxes,
//! and answers into those of publishers. Each mailbox is locked once for a run of messages.
//!
//! Every attempt is decided anew: the policy in force must let the service receive the message.

use std::collections::HashMap;
use std::sync::Arc;

use crate::audit::each::{EachMessage, Outcome, payload_digest};
use crate::delivery::{InstanceId, Outgoing, Seq};
use crate::disk::files::Folder;
use crate::disk::store::{Content, Store};
use crate::exchange::mailbox::{Mailbox, NotTaken, Peer, Subscription};
use crate::exchange::replies::{Asker, Attempt, Origin, Pending, PendingReplies};
use crate::exchange::shadow::{Seen, Shadow};
use crate::identity::Role;
use crate::limits::{LOG_LINES_AT_ONCE, LOG_LINES_PER_S};
use crate::net::broker::Broker;
use crate::net::handle::Handle;
use crate::policy::{Action, Audit, Kind};
use crate::serve::keeper::instance;
use crate::traffic::budget::LineBudget;
use crate::traffic::flow::FlowBook;
use crate::wire::encode::{self, Head, Reason, Refusal, Stamp, TrackedStamp};
use crate::wire::name::MessageName;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Post {
    broker: Arc<Broker>,
    /// Live subscriptions by service and message name, as of the epoch.
    live: HashMap<(Arc<str>, Arc<str>), Vec<Live>>,
    epoch: u64,
    /// Where the tracked flows of each sender are counted.
    books: HashMap<Arc<str>, Arc<FlowBook>>,
    lines: LineBudget,
    /// Attempts that are recorded by themselves.
    each: Vec<EachMessage>,
}

#[derive(Debug, Clone)]
struct Live {
    peer: Handle,
    subscription: Arc<Subscription>,
    /// Whether each message is recorded by itself.
    is_each: bool,
    /// Where attempts are counted that a candidate policy would deny.
    shadow: Option<Arc<Seen>>,
}

impl Post {
    pub(super) fn new(broker: Arc<Broker>) -> Self {
        Self {
            broker,
            live: HashMap::new(),
            epoch: 0,
            books: HashMap::new(),
            lines: LineBudget::new(LOG_LINES_AT_ONCE, LOG_LINES_PER_S),
            each: Vec::new(),
        }
    }

    /// Changes whenever instances come or go, or the policy changes. What was found before is forgotten then.
    pub(super) fn epoch(&mut self) -> u64 {
        let world = &self.broker.world;
        let epoch = world.directory.epoch().wrapping_add(world.policy_generation());
        if epoch != self.epoch {
            self.epoch = epoch;
            self.live.clear();
        }
        epoch
    }

    /// Adds the instances of a service that listen to a name and may receive it.
    pub(super) fn listening(&mut self, service: &Arc<str>, name: &Arc<str>, found: &mut Vec<InstanceId>) {
        let key = (Arc::clone(service), Arc::clone(name));
        let broker = &self.broker;
        let live = self
            .live
            .entry(key)
            .or_insert_with(|| find(broker, service, name));
        for live in live {
            let id = instance(live.peer.id());
            if !found.contains(&id) {
                found.push(id);
            }
        }
    }

    /// Puts attempts into their instances' mailboxes, in order. Gives back those that were not taken.
    pub(super) fn send(
        &mut self,
        store: &Store<Folder>,
        out: &[Outgoing],
        asker: impl Fn(Seq) -> Option<Asker<Handle>>,
    ) -> Vec<Outgoing> {
        let mut not_taken: Vec<Outgoing> = Vec::new();
        for run in out.chunk_by(|a, b| a.to == b.to) {
            let letters: Vec<_> = run
                .iter()
                .map(|outgoing| self.letter(store, outgoing, &asker).ok_or(*outgoing))
                .collect();
            let mut ready = letters.iter().flatten();
            let Some(peer) = ready.next().map(|letter| letter.live.peer.clone()) else {
                not_taken.extend(run);
                continue;
            };
            let each = &mut self.each;
            peer.with_mailbox(|mailbox| {
                let mut replies = peer.replies();
                for letter in letters {
                    let outgoing = *letter
                        .as_ref()
                        .map_or_else(|outgoing| outgoing, |letter| &letter.outgoing);
                    let is_stopped = not_taken.iter().any(|other| other.lane == outgoing.lane);
                    let is_taken = !is_stopped
                        && letter.is_ok_and(|letter| {
                            let noted = letter.each();
                            let is_taken = letter.put(mailbox, &mut replies).is_ok();
                            each.extend(noted.filter(|_| is_taken));
                            is_taken
                        });
                    if !is_taken {
                        not_taken.push(outgoing);
                    }
                }
            });
        }
        if let Some(audit) = self.broker.audit.as_ref().filter(|_| !self.each.is_empty()) {
            audit.note_each(&mut self.each);
        }
        not_taken
    }

    /// Everything that an attempt needs, before its instance's mailbox is locked. `None` where the instance has
    /// left meanwhile, or the message cannot be read now.
    fn letter(
        &mut self,
        store: &Store<Folder>,
        outgoing: &Outgoing,
        asker: &impl Fn(Seq) -> Option<Asker<Handle>>,
    ) -> Option<Letter> {
        let now_us = self.broker.clock.now_us();
        let content = match store.content(outgoing.seq) {
            Ok(content) => content?,
            Err(error) => {
                if let Some(withheld) = self.lines.take(now_us) {
                    tracing::error!(
                        message = %outgoing.seq, %error, withheld,
                        "cannot read a message from the store; it is tried again"
                    );
                }
                return None;
            }
        };
        let service = Arc::clone(store.deliveries().service_of(outgoing.seq, outgoing.receiver)?);
        let key = (Arc::clone(&service), Arc::clone(&content.name));
        let is_to = |live: &&Live| instance(live.peer.id()) == outgoing.to && !live.subscription.has_ended();
        let live = self.live.get(&key)?.iter().find(is_to)?.clone();
        let flow = self.book(&content.sender).counters(&content.name, Some(&service));
        let attempt = Attempt {
            seq: outgoing.seq,
            receiver: outgoing.receiver,
            us_max: outgoing.attempt_ms_max.saturating_mul(1000),
        };
        let (peer, inbox) = asker(outgoing.seq).map(|asker| (asker.peer, asker.inbox)).unzip();
        let origin = Origin {
            peer,
            service: Arc::clone(&content.sender),
            name: Arc::clone(&content.name),
            // Attempts are bounded by windows of their own.
            requests: None,
            flow,
        };
        let pending = Pending {
            request: Arc::new(origin).request()?,
            inbox,
            opened_us: now_us,
            deadline_us: attempt.deadline_us(now_us),
            siblings: None,
            attempt: Some(attempt),
        };
        Some(Letter {
            receiver: service,
            outgoing: *outgoing,
            stamp: Stamp::tracked(&content.sender, stamp_of(outgoing)),
            content,
            live,
            pending,
        })
    }

    /// Answers publishers: with the text, or with a refusal.
    pub(super) fn answer<O>(
        &self,
        mut answers: Vec<(Asker<Handle>, O)>,
        text: impl Fn(&O) -> Result<String, Reason>,
    ) {
        if answers.is_empty() {
            return;
        }
        let policy = self.broker.world.policy();
        answers.sort_by_key(|(asker, _)| asker.peer.id());
        for same in answers.chunk_by(|(a, _), (b, _)| a.peer.id() == b.peer.id()) {
            let Some((first, _)) = same.first() else { continue };
            first.peer.with_mailbox(|mailbox| {
                for (asker, outcome) in same {
                    match text(outcome) {
                        Ok(text) => mailbox.tell(&asker.inbox, text.as_bytes()),
                        Err(reason) => mailbox.refuse(
                            &asker.inbox,
                            &Refusal {
                                reason,
                                rule: None,
                                policy: policy.version(),
                            },
                        ),
                    }
                }
            });
        }
    }

    /// Tells those who asked that their commands cannot succeed, or not in time.
    pub(super) fn refuse(&self, askers: Vec<Asker<Handle>>, reason: Reason) {
        let answers = askers.into_iter().map(|asker| (asker, ())).collect();
        self.answer(answers, |()| Err(reason));
    }

    /// Counts a message that found no room in the store.
    pub(super) fn count_dropped(&mut self, sender: &Arc<str>, name: &Arc<str>) {
        self.book(sender).counters(name, None).count_dropped();
    }

    fn book(&mut self, sender: &Arc<str>) -> Arc<FlowBook> {
        let broker = &self.broker;
        let book = self
            .books
            .entry(Arc::clone(sender))
            .or_insert_with(|| broker.flows.open_book(sender, 0));
        Arc::clone(book)
    }
}

const fn stamp_of(outgoing: &Outgoing) -> TrackedStamp {
    TrackedStamp {
        seq: outgoing.seq.0,
        attempt: outgoing.attempt,
        is_command: matches!(outgoing.kind, Kind::Command),
        within_ms: outgoing.attempt_ms_max,
    }
}

/// One attempt, ready for a mailbox.
struct Letter {
    receiver: Arc<str>,
    outgoing: Outgoing,
    stamp: Stamp,
    content: Arc<Content>,
    live: Live,
    pending: Pending<Handle>,
}

impl Letter {
    /// What is recorded of it, where it is recorded by itself.
    fn each(&self) -> Option<EachMessage> {
        self.live.is_each.then(|| EachMessage {
            at_us: self.pending.opened_us,
            sender: Arc::clone(&self.content.sender),
            sender_connection: 0,
            message: Arc::clone(&self.content.name),
            receiver: Some(Arc::clone(&self.receiver)),
            receiver_connection: self.live.peer.id().0,
            bytes: self.content.payload.len() as u64,
            digest: payload_digest(&self.content.payload),
            outcome: Outcome::Delivered,
            seq: self.outgoing.seq.0,
            attempt: self.outgoing.attempt,
        })
    }

    fn put(self, mailbox: &mut Mailbox, replies: &mut PendingReplies<Handle>) -> Result<(), NotTaken> {
        let content = encode::Content {
            stamp: &self.stamp,
            headers: &self.content.headers,
            payload: &self.content.payload,
        };
        let flow = Arc::clone(&self.pending.request.flow);
        let head = Head::new(self.content.name.as_bytes(), &self.live.subscription.sid);
        let (shadow, now_us) = (self.live.shadow, self.pending.opened_us);
        let open = || replies.open(self.pending);
        mailbox.deliver(&self.live.subscription, &head, &content, Some(open))?;
        flow.count_delivered(self.content.payload.len());
        if let Some(seen) = shadow {
            seen.count(now_us);
        }
        Ok(())
    }
}

/// The live subscriptions of a service to a name, if it may receive it. One for each instance will be used.
fn find(broker: &Broker, service: &Arc<str>, name: &Arc<str>) -> Vec<Live> {
    let Ok(name) = MessageName::new(name) else {
        return Vec::new();
    };
    let policy = broker.world.policy();
    let shadow = broker.world.shadow();
    let has_log = broker.audit.is_some();
    let live = broker
        .world
        .directory
        .find(&name)
        .into_iter()
        .filter_map(|entry| {
            let is_it = matches!(&entry.identity.role, Role::Service(other) if other == service);
            let permit = policy.decide(&entry.identity, Action::Receive, &name);
            let permit = permit.ok().filter(|_| is_it)?;
            let judge = |shadow: &Arc<Shadow>| shadow.judge_receive(&policy, &entry.identity, &name, &permit);
            Some(Live {
                peer: entry.peer,
                subscription: entry.subscription,
                is_each: has_log && permit.terms().audit == Audit::Each,
                shadow: shadow.as_ref().and_then(judge),
            })
        });
    live.collect()
}
