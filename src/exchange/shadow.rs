//! A candidate policy beside the one in force: what it would decide otherwise, counted for each flow.
//!
//! It is asked after the policy in force has decided, and only where that decision is made, not each time that it is
//! used from a cache. It gives out counters and never a permit, so that no message's way can depend on it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::identity::{Identity, Role};
use crate::limits::{SHADOW_FLOWS_MAX, SHADOW_FLOWS_PER_SERVICE_MAX};
use crate::policy::{Action, Denial, Permit, Policy};
use crate::wire::name::{MessageName, Pattern};

/// See the module's documentation.
#[derive(Debug)]
pub struct Shadow {
    candidate: Arc<Policy>,
    flows: Mutex<Flows>,
}

/// What somebody tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tried {
    /// To connect to a listener.
    Connect,
    /// To listen to a pattern.
    Subscribe,
    /// To send a message.
    Send,
    /// To be given one.
    Receive,
}

impl Tried {
    /// The verb.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Subscribe => "subscribe",
            Self::Send => Action::Send.as_str(),
            Self::Receive => Action::Receive.as_str(),
        }
    }
}

/// What the candidate would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Would {
    /// Deny what the policy in force allows.
    Deny,
    /// Allow what it denies.
    Allow,
}

/// One flow that fares otherwise under the candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShadowFlow {
    /// The service.
    pub service: Arc<str>,
    /// What it tries.
    pub tried: Tried,
    /// The message name; of a subscription its pattern, of a connection the listener's zone. `None` for all those past
    /// the bound on flows.
    pub name: Option<Arc<str>>,
    /// What the candidate would do.
    pub would: Would,
    /// The version of the policy that was in force; `None` as with the name.
    pub in_force: Option<Arc<str>>,
    /// The line by which the policy in force decides, or `no grant`.
    pub rule_in_force: String,
    /// The line by which the candidate would decide, or `no grant`.
    pub rule_of_candidate: String,
    /// How often.
    pub count: u64,
    /// When first, in microseconds of the broker's clock.
    pub first_us: u64,
    /// When last.
    pub last_us: u64,
}

/// Counts one flow of the report. All connections of the service count in the same.
#[derive(Debug)]
pub struct Seen {
    rule_in_force: String,
    rule_of_candidate: String,
    count: AtomicU64,
    first_us: AtomicU64,
    last_us: AtomicU64,
}

impl Seen {
    /// Counts one.
    pub fn count(&self, now_us: u64) {
        self.count.fetch_add(1, Relaxed);
        self.first_us.fetch_min(now_us, Relaxed);
        self.last_us.fetch_max(now_us, Relaxed);
    }
}

/// How the messages of one name and sender would fare: otherwise, where their payloads have these sizes.
#[derive(Debug, Clone)]
pub(super) struct Judged {
    seen: Arc<Seen>,
    bytes_min: usize,
    bytes_max: usize,
}

impl Judged {
    /// Counts a message that the policy in force has decided, if the candidate would decide otherwise.
    pub(super) fn count(&self, payload_bytes: usize, now_us: u64) {
        if (self.bytes_min..=self.bytes_max).contains(&payload_bytes) {
            self.seen.count(now_us);
        }
    }
}

#[derive(Debug, Default)]
struct Flows {
    by_key: HashMap<Key, Arc<Seen>>,
    /// Those with a name.
    told_apart: usize,
    of_service: HashMap<Arc<str>, usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    would: Would,
    service: Arc<str>,
    tried: Tried,
    name: Option<Arc<str>>,
    in_force: Option<Arc<str>>,
}

/// A decision in the words of the report: by which line it may be, or may not.
type Decided = Result<String, String>;

impl Shadow {
    /// Nothing is counted yet.
    pub fn new(candidate: Arc<Policy>) -> Self {
        Self {
            candidate,
            flows: Mutex::default(),
        }
    }

    /// Judges a message name, about whose sender the policy in force has decided.
    pub(super) fn judge_send(
        &self,
        in_force: &Policy,
        sender: &Identity,
        name: &MessageName,
        decided: &Result<Permit, Denial>,
    ) -> Option<Judged> {
        let judged = self.candidate.decide(sender, Action::Send, name);
        let payload_max = |permit: &Permit| permit.terms().payload_max.unwrap_or(usize::MAX);
        let with_size = |decided: &Result<Permit, Denial>| match decided {
            Ok(permit) => match permit.terms().payload_max {
                Some(bytes) => Ok(format!("{} (payload-max {bytes} bytes)", permit.rule())),
                None => Ok(permit.rule().to_string()),
            },
            Err(denial) => Err(denial.rule_or_no_grant().to_string()),
        };
        let (would, bytes_min, bytes_max) = match (decided, &judged) {
            (Ok(now), Ok(then)) => {
                let (now, then) = (payload_max(now), payload_max(then));
                match then.cmp(&now) {
                    std::cmp::Ordering::Less => (Would::Deny, then + 1, now),
                    std::cmp::Ordering::Greater => (Would::Allow, now + 1, then),
                    std::cmp::Ordering::Equal => return None,
                }
            }
            (Ok(now), Err(_)) => (Would::Deny, 0, payload_max(now)),
            (Err(_), Ok(then)) => (Would::Allow, 0, payload_max(then)),
            (Err(_), Err(_)) => return None,
        };
        let (now, then) = if bytes_min == 0 {
            (of_permit(decided), of_permit(&judged))
        } else {
            (with_size(decided), with_size(&judged))
        };
        let what = (sender, Tried::Send, name.as_str());
        let seen = self.seen(in_force, what, would, [text(now), text(then)]);
        Some(Judged {
            seen,
            bytes_min,
            bytes_max,
        })
    }

    /// Where deliveries to a service are counted, which the policy in force allows and the candidate would not.
    pub fn judge_receive(
        &self,
        in_force: &Policy,
        receiver: &Identity,
        name: &MessageName,
        permit: &Permit,
    ) -> Option<Arc<Seen>> {
        let judged = self.candidate.decide(receiver, Action::Receive, name);
        let what = (receiver, Tried::Receive, name.as_str());
        self.compare(in_force, what, Ok(permit.rule().to_string()), of_permit(&judged))
    }

    /// Where tracked messages are counted that the candidate would keep also for these services, which do not receive
    /// them under the policy in force.
    pub(super) fn judge_receivers(&self, in_force: &Policy, name: &MessageName) -> Box<[Arc<Seen>]> {
        let now: Vec<_> = in_force.receivers(name).collect();
        let new = self
            .candidate
            .receivers(name)
            .filter(|service| !now.contains(service));
        let seen = new.filter_map(|service| {
            let receiver = anybody_of(service, &self.candidate);
            let judged = self.candidate.decide(&receiver, Action::Receive, name);
            let decided = in_force.decide(&receiver, Action::Receive, name);
            let what = (&receiver, Tried::Receive, name.as_str());
            self.compare(in_force, what, of_permit(&decided), of_permit(&judged))
        });
        seen.collect()
    }

    /// Counts a subscription that the policy in force has decided, if the candidate would decide otherwise.
    pub(super) fn count_subscription(
        &self,
        in_force: &Policy,
        service: &Identity,
        pattern: &Pattern,
        now_us: u64,
    ) {
        let decide = |policy: &Policy| match policy.decide_subscription(service, pattern) {
            Ok(permit) => Ok(permit.rule().to_string()),
            Err(denial) => Err(denial.rule_or_no_grant().to_string()),
        };
        let what = (service, Tried::Subscribe, pattern.as_str());
        if let Some(seen) = self.compare(in_force, what, decide(in_force), decide(&self.candidate)) {
            seen.count(now_us);
        }
    }

    /// Counts a connection to a listener, if the candidate would decide otherwise than the policy in force.
    pub fn count_connection(&self, in_force: &Policy, service: &Identity, zone: Option<&str>, now_us: u64) {
        let decide = |policy: &Policy| match policy.admit(service, zone) {
            Ok(admission) => Ok(admission.rule().to_string()),
            Err(denial) => Err(denial.rule_or_no_grant().to_string()),
        };
        let what = (service, Tried::Connect, zone.unwrap_or("all"));
        if let Some(seen) = self.compare(in_force, what, decide(in_force), decide(&self.candidate)) {
            seen.count(now_us);
        }
    }

    /// All that fares otherwise: what would be denied first, and then by how often.
    pub fn report(&self) -> Vec<ShadowFlow> {
        let flows = self.flows.lock();
        let counted = flows.by_key.iter().map(|(key, seen)| ShadowFlow {
            service: Arc::clone(&key.service),
            tried: key.tried,
            name: key.name.clone(),
            would: key.would,
            in_force: key.in_force.clone(),
            rule_in_force: seen.rule_in_force.clone(),
            rule_of_candidate: seen.rule_of_candidate.clone(),
            count: seen.count.load(Relaxed),
            first_us: seen.first_us.load(Relaxed),
            last_us: seen.last_us.load(Relaxed),
        });
        let mut report: Vec<_> = counted.filter(|flow| flow.count > 0).collect();
        drop(flows);
        report.sort_by(|a, b| {
            let by = |flow: &ShadowFlow| (flow.would, std::cmp::Reverse(flow.count));
            by(a).cmp(&by(b)).then_with(|| {
                let by = |flow: &ShadowFlow| (Arc::clone(&flow.service), flow.tried, flow.name.clone());
                by(a).cmp(&by(b))
            })
        });
        report
    }

    fn compare(
        &self,
        in_force: &Policy,
        what: (&Identity, Tried, &str),
        now: Decided,
        then: Decided,
    ) -> Option<Arc<Seen>> {
        let would = match (&now, &then) {
            (Ok(_), Err(_)) => Would::Deny,
            (Err(_), Ok(_)) => Would::Allow,
            _ => return None,
        };
        Some(self.seen(in_force, what, would, [text(now), text(then)]))
    }

    /// The counter of a flow, the same each time.
    fn seen(
        &self,
        in_force: &Policy,
        (who, tried, name): (&Identity, Tried, &str),
        would: Would,
        [rule_in_force, rule_of_candidate]: [String; 2],
    ) -> Arc<Seen> {
        let service: Arc<str> = who.role.to_string().into();
        let mut key = Key {
            would,
            service: Arc::clone(&service),
            tried,
            name: Some(name.into()),
            in_force: Some(in_force.version().into()),
        };
        let mut flows = self.flows.lock();
        if let Some(seen) = flows.by_key.get(&key) {
            return Arc::clone(seen);
        }
        let of_service = flows.of_service.get(&service).copied().unwrap_or_default();
        let rules = if flows.told_apart < SHADOW_FLOWS_MAX && of_service < SHADOW_FLOWS_PER_SERVICE_MAX {
            flows.told_apart += 1;
            flows.of_service.insert(service, of_service + 1);
            [rule_in_force, rule_of_candidate]
        } else {
            key.name = None;
            key.in_force = None;
            ["several".to_owned(), "several".to_owned()]
        };
        let [rule_in_force, rule_of_candidate] = rules;
        let seen = flows.by_key.entry(key).or_insert_with(|| {
            Arc::new(Seen {
                rule_in_force,
                rule_of_candidate,
                count: AtomicU64::new(0),
                first_us: AtomicU64::new(u64::MAX),
                last_us: AtomicU64::new(0),
            })
        });
        Arc::clone(seen)
    }
}

/// Somebody of a service, who need not be there.
fn anybody_of(service: &Arc<str>, policy: &Policy) -> Identity {
    Identity {
        trust_domain: policy.trust_domain().into(),
        role: Role::Service(Arc::clone(service)),
        serial: "".into(),
        expires_unix_s: i64::MAX,
    }
}

fn of_permit(decided: &Result<Permit, Denial>) -> Decided {
    match decided {
        Ok(permit) => Ok(permit.rule().to_string()),
        Err(denial) => Err(denial.rule_or_no_grant().to_string()),
    }
}

fn text(decided: Decided) -> String {
    decided.unwrap_or_else(|rule| rule)
}
