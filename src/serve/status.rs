//! The snapshot of the broker that operators look at, and that the metrics are made of.
//!
//! It reads what is there and changes nothing. No message waits for it: counters are read as they stand, and the rows
//! of a list are made only where somebody wants to see them.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::console::figures::{SortBy, Traffic, Wanted};
use crate::console::queue::{QueueAnswer, QueueStatus, QueueVerb};
use crate::console::status::{
    ConnectionStatus, CountsStatus, ExpiryStatus, ListenerStatus, PolicyStatus, Status,
};
use crate::exchange::mailbox::ConnId;
use crate::identity::Role;
use crate::limits::STATUS_QUEUES_MS_MAX;
use crate::net::handle::Handle;
use crate::serve::Shared;
use crate::serve::alarms::AlarmDesk;
use crate::serve::auditor::Recorder;
use crate::serve::keeper::Counter;
use crate::traffic::flow::{FlowKey, ResponseTimes};

impl Shared {
    /// A snapshot, with the rows that are wanted.
    pub(super) async fn status(
        self: &Arc<Self>,
        alarms: &AlarmDesk,
        counter: Option<Counter>,
        wanted: Wanted,
    ) -> Status {
        let queues = match counter {
            Some(counter) => queues(&counter).await,
            None => None,
        };
        alarms.wait_for_rates().await;
        let (shared, alarms) = (Arc::clone(self), alarms.clone());
        // So many rows are not made where others wait.
        let taken = tokio::task::spawn_blocking(move || shared.snapshot(&alarms, queues, &wanted));
        match taken.await {
            Ok(status) => status,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    fn snapshot(&self, alarms: &AlarmDesk, queues: Option<Vec<QueueStatus>>, wanted: &Wanted) -> Status {
        let broker = &self.broker;
        let policy = broker.world.policy();
        let open = broker.connections();
        let mut services: BTreeMap<_, _> = policy
            .services()
            .map(|service| (Arc::clone(service.name()), 0))
            .collect();
        for (_, handle) in &open {
            if let Role::Service(name) = &handle.identity.role {
                *services.entry(Arc::clone(name)).or_default() += 1;
            }
        }
        let (before, now) = alarms.sample();
        let mut traffic = Traffic::new(&before, &now, services, wanted);
        let times = &mut |key: &FlowKey, times: &ResponseTimes| traffic.handle_times(key, times);
        broker.flows.response_times(times);
        traffic.end_times();
        let mut left_out = traffic.left_out;
        let counts = broker.counts();
        let counts = CountsStatus {
            accepted: counts.accepted,
            open: open.len(),
            half_open: counts.half_open,
            waiting_bytes: counts.waiting_bytes,
            protocol_errors: counts.protocol_errors,
            refused: counts
                .refused
                .into_iter()
                .map(|(rule, count)| (rule.to_owned(), count))
                .collect(),
            ended: counts.ended,
        };
        let soonest_expiries = self.soonest_expiries(&open);
        let (connections, connections_left_out) = self.connections(open, wanted);
        left_out.connections = connections_left_out;
        Status {
            name: self.config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: broker.clock.now_us() / 1_000_000,
            audit: self.recorder.as_ref().map(Recorder::status),
            webhook: self.webhook.as_ref().map(|webhook| webhook.hearing()),
            policy: PolicyStatus {
                path: self.config.policy.display().to_string(),
                version: policy.version().to_owned(),
                services: policy.services().len(),
                refused_change: self.refused_change.lock().clone(),
                unconfirmed: self.desk.unconfirmed(),
                candidate: self.candidate(),
            },
            soonest_expiry: soonest_expiries.values().min().cloned(),
            soonest_expiries,
            refused_certificates: self.refused_certificates(),
            revoked: self.revoked.lock().len(),
            held: broker.world.quarantine().len(),
            listeners: self
                .listeners
                .iter()
                .map(|listener| ListenerStatus {
                    name: listener.name.clone(),
                    address: listener.address.to_string(),
                    zone: listener.zone.as_deref().map(str::to_owned),
                })
                .collect(),
            counts,
            queues,
            alarms: alarms.open_alarms(),
            traffic: traffic.all,
            rates_over_s: traffic.rates_over_s,
            services: traffic.services,
            connections,
            flows: traffic.flows,
            left_out,
        }
    }

    /// The first that expires of each kind.
    fn soonest_expiries(&self, open: &[(ConnId, Handle)]) -> BTreeMap<String, ExpiryStatus> {
        let first = open
            .iter()
            .min_by_key(|(id, handle)| (handle.identity.expires_unix_s, *id));
        let of_connections = first.map(|(id, handle)| {
            let expiry = ExpiryStatus {
                expires_unix_s: handle.identity.expires_unix_s,
                what: format!(
                    "the certificate of {} (connection {})",
                    handle.identity.role, id.0
                ),
            };
            ("connections", expiry)
        });
        let of_our_own = self.own_expiries().map(|expiry| {
            let of_kind = ExpiryStatus {
                expires_unix_s: expiry.unix_s,
                what: expiry.what,
            };
            (expiry.kind, of_kind)
        });
        let mut soonest: BTreeMap<String, ExpiryStatus> = BTreeMap::new();
        for (kind, expiry) in of_our_own.chain(of_connections) {
            let first = soonest.entry(kind.to_owned()).or_insert_with(|| expiry.clone());
            if expiry < *first {
                *first = expiry;
            }
        }
        soonest
    }

    /// The connections that are wanted, and how many that leaves out.
    fn connections(
        &self,
        mut open: Vec<(ConnId, Handle)>,
        wanted: &Wanted,
    ) -> (Vec<ConnectionStatus>, usize) {
        open.retain(|(_, handle)| {
            wanted.matches(&handle.identity.role.to_string()) || wanted.matches(&handle.address.to_string())
        });
        open.sort_by_key(|(id, _)| *id);
        if wanted.sort != SortBy::Name {
            // Of a connection there is nothing else to compare.
            open.sort_by_cached_key(|(_, handle)| Reverse(handle.outbox_bytes()));
        }
        let left_out = wanted.cut(&mut open);
        let now_us = self.broker.clock.now_us();
        let status = |(id, handle): (ConnId, Handle)| {
            let about = handle.about.lock().clone();
            ConnectionStatus {
                id: id.0,
                sender: handle.identity.role.to_string(),
                address: handle.address.to_string(),
                zone: handle.zone.as_deref().map(str::to_owned),
                name: about.name,
                client: about.client,
                age_s: now_us.saturating_sub(handle.since_us) / 1_000_000,
                expires_unix_s: handle.identity.expires_unix_s,
                subscriptions: about.subscriptions,
                pending_replies: handle.pending_replies(),
                outbox_bytes: handle.outbox_bytes(),
            }
        };
        (open.into_iter().map(status).collect(), left_out)
    }
}

/// What waits, if the store says so at once: while its disk hangs there is more to see than nothing.
pub(super) async fn queues(counter: &Counter) -> Option<Vec<QueueStatus>> {
    let limit = Duration::from_millis(STATUS_QUEUES_MS_MAX);
    match tokio::time::timeout(limit, counter.order(QueueVerb::Depths)).await {
        Ok(QueueAnswer::Queues { queues, .. }) => Some(queues),
        _ => None,
    }
}
