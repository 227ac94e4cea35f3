//! Where operators meet the broker: what the admin interface gives access to, and the port for those elsewhere.
//!
//! Who an operator is comes from the same handshake and the same rules as for services; what they may do is asked in
//! the console's gate. Nobody without an operator's certificate holds more than a few places here, and not for long.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::console::action::{Gate, Who};
use crate::console::admin::{Access, PolicyOrders, QueueOrders, answer};
use crate::console::answer::Answer;
use crate::console::policy::PolicyVerb;
use crate::identity::Identity;
use crate::limits::{ADMIN_CONNECTIONS_MAX, ADMIN_STRANGER_MS_MAX, ADMIN_STRANGERS_MAX};
use crate::net::broker::Broker;
use crate::net::clock::Clock;
use crate::net::listener::Listener;
use crate::net::tls::HandshakeError;
use crate::serve::Shared;
use crate::serve::alarms::AlarmDesk;
use crate::serve::auditor::Recorder;
use crate::serve::keeper::Keeper;
use crate::serve::passage::Passage;
use crate::serve::quarantine::QuarantineDesk;

/// What operators have access to.
pub(super) fn access(
    shared: &Arc<Shared>,
    keeper: Option<&Keeper>,
    passage: Passage,
    alarms: AlarmDesk,
    quarantine: QuarantineDesk,
) -> Access {
    let broker = Arc::clone(&shared.broker);
    let clock = broker.clock;
    let status = Arc::clone(shared);
    let counter = keeper.map(Keeper::counter);
    let desk = alarms.clone();
    Access {
        gate: Arc::new(Gate::new(
            move || broker.world.policy(),
            move || clock.now_us(),
            shared.recorder.clone().map(Recorder::of_operators),
        )),
        status: Arc::new(move |wanted| {
            let (status, desk, counter) = (Arc::clone(&status), desk.clone(), counter.clone());
            Box::pin(async move { status.status(&desk, counter, wanted).await })
        }),
        queue: keeper.map(queue_orders),
        revoke: {
            let shared = Arc::clone(shared);
            Arc::new(move |verb, who| Box::pin(Arc::clone(&shared).carry_out_revocation(verb, who)))
        },
        policy: policy_orders(shared, passage),
        alarms: Arc::new(move |verb, who| alarms.carry_out(verb, &who)),
        quarantine: Arc::new(move |verb, who| Box::pin(quarantine.clone().carry_out(verb, who))),
    }
}

/// A policy is in force when everything is over that was begun under the old one. The same holds of a candidate that
/// is tried.
fn policy_orders(shared: &Arc<Shared>, passage: Passage) -> PolicyOrders {
    let shared = Arc::clone(shared);
    Arc::new(move |verb, who| {
        let (shared, passage) = (Arc::clone(&shared), passage.clone());
        Box::pin(async move {
            let (is_change, is_stop) = (verb.is_change(), matches!(verb, PolicyVerb::ShadowStop { .. }));
            let answer = Arc::clone(&shared).carry_out_policy(verb, who).await;
            if is_change && !answer.is_refused() {
                passage.wait().await;
                if is_stop {
                    // Now all is counted that there was to count.
                    return shared.report_shadow().unwrap_or(answer);
                }
            }
            answer
        })
    })
}

fn queue_orders(keeper: &Keeper) -> QueueOrders {
    let counter = keeper.counter();
    Arc::new(move |verb| {
        let counter = counter.clone();
        Box::pin(async move { counter.order(verb).await })
    })
}

/// Accepts operators until the task is dropped.
pub(super) async fn accept(
    listener: Arc<Listener>,
    socket: TcpListener,
    broker: Arc<Broker>,
    access: Access,
) {
    let places = Arc::new(Places {
        operators: Semaphore::new(ADMIN_CONNECTIONS_MAX),
        strangers: Semaphore::new(ADMIN_STRANGERS_MAX),
    });
    // They end with this task.
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            Some(_) = open.join_next() => continue,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "cannot accept an operator; trying again in 100 ms");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let place = match broker.take_half_open(address.ip()) {
            Ok(place) => place,
            Err(rule) => {
                broker.count_refused(rule, address.ip());
                continue;
            }
        };
        let (listener, broker, access, places) = (
            Arc::clone(&listener),
            Arc::clone(&broker),
            access.clone(),
            Arc::clone(&places),
        );
        open.spawn(async move {
            let limit = Duration::from_millis(broker.settings.handshake_ms_max);
            let shaken = tokio::time::timeout(limit, shake_hands(&listener, &broker, stream));
            let shaken = place.hold(shaken).await;
            drop(place);
            let Some(Ok(Some((stream, identity, chain)))) = shaken else { return };
            let identity = Arc::new(identity);
            let is_operator = broker.world.policy().operator(&identity).is_ok();
            let who = who(&listener, Arc::clone(&identity), chain);
            if is_operator {
                // One that finds no place hears it from the closed connection: there are as many as people need.
                let Ok(_place) = places.operators.try_acquire() else {
                    tracing::warn!(%who, %address, "too many connections of operators at once; this one is closed");
                    return;
                };
                tracing::debug!(%who, %address, serial = %identity.serial, "an operator has connected");
                answer(stream, who, access).await;
            } else {
                broker.count_refused("not-an-operator", address.ip());
                let Ok(_place) = places.strangers.try_acquire() else { return };
                let limit = Duration::from_millis(ADMIN_STRANGER_MS_MAX);
                if tokio::time::timeout(limit, answer(stream, who, access)).await.is_err() {
                    tracing::debug!(%address, "closed the connection of somebody who is no operator");
                }
            }
        });
    }
}

struct Places {
    operators: Semaphore,
    strangers: Semaphore,
}

type Shaken = (
    tokio_rustls::server::TlsStream<TcpStream>,
    Identity,
    Vec<CertificateDer<'static>>,
);

async fn shake_hands(listener: &Listener, broker: &Broker, stream: TcpStream) -> Option<Shaken> {
    let address = stream.peer_addr().ok()?;
    match listener.tls.load_full().accept(stream).await {
        Ok((stream, identity)) => {
            let chain = stream
                .get_ref()
                .1
                .peer_certificates()
                .unwrap_or_default()
                .to_vec();
            Some((stream, identity, chain))
        }
        Err(HandshakeError::Refused(refused)) => {
            broker.count_refused(refused.rule, address.ip());
            if let Some(withheld) = broker.stranger_lines.take(broker.clock.now_us()) {
                let whose = refused.whose.as_deref().unwrap_or("nobody");
                let withheld = (withheld > 0).then_some(withheld);
                tracing::warn!(
                    listener = listener.name, %address, rule = refused.rule, certificate = whose, withheld,
                    "handshake refused: {}", refused.message
                );
            }
            None
        }
        Err(HandshakeError::Lost(error)) => {
            broker.count_refused("handshake-lost", address.ip());
            tracing::debug!(listener = listener.name, %address, %error, "connection lost in the handshake");
            None
        }
    }
}

/// Somebody with a certificate. Before each action it is asked whether a handshake would still take it.
fn who(listener: &Arc<Listener>, identity: Arc<Identity>, chain: Vec<CertificateDer<'static>>) -> Who {
    let listener = Arc::clone(listener);
    Who::Remote {
        identity,
        still_holds: Arc::new(move || {
            let tls = listener.tls.load();
            tls.recheck(&chain, Clock::unix_s())
                .map(drop)
                .map_err(|refused| refused.to_string())
        }),
    }
}
