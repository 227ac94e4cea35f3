//! What all threads of the broker share: the world, the flows, the bounds, and the counts of what went wrong
//! before a session began.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::audit::Record;
use crate::audit::intake::{Intake as AuditIntake, Refusal};
use crate::exchange::mailbox::ConnId;
use crate::exchange::tracked::Intake;
use crate::exchange::world::World;
use crate::limits::{HANDSHAKE_UNDISTURBED_PART, LOG_LINES_AT_ONCE, LOG_LINES_PER_S, REFUSED_ADDRESSES_MAX};
use crate::net::authority::Authority;
use crate::net::clock::Clock;
use crate::net::connection::Ended;
use crate::net::half_open::{Bounds, HalfOpen, HalfOpenPlace, party};
use crate::net::handle::Handle;
use crate::net::waiting::WaitingBytes;
use crate::policy::Policy;
use crate::traffic::budget::LineBudget;
use crate::traffic::crowd::Crowd;
use crate::traffic::flow::FlowRegistry;
use crate::wire::encode::{self, Info};

/// The version that INFO announces: clients gate features on it, so it is that of the nats-server whose
/// protocol this is, and says nothing of ExoCom's own.
pub const PROTOCOL_VERSION: &str = "2.10.0";

/// What the configuration sets.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name that INFO shows.
    pub server_name: String,
    /// The largest payload with its headers, in bytes.
    pub payload_bytes_max: usize,
    /// From accept to the end of the TLS handshake, in milliseconds.
    pub handshake_ms_max: u64,
    /// Handshakes under way in all.
    pub half_open_max: usize,
    /// Handshakes under way from one address.
    pub half_open_per_address_max: usize,
    /// Connections in all.
    pub connections_max: usize,
    /// Connections of one service.
    pub connections_per_service_max: usize,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Broker {
    /// The policy in force and the live subscriptions.
    pub world: World<Handle>,
    /// What has changed for open connections.
    pub authority: Authority,
    /// All flows.
    pub flows: FlowRegistry,
    /// The broker's clock.
    pub clock: Clock,
    /// The way to the audit log, where there is one.
    pub audit: Option<Arc<AuditIntake>>,
    /// What the configuration sets.
    pub settings: Settings,
    /// What waits for all sockets together.
    pub waiting: Arc<WaitingBytes>,
    /// Lines about clients without an identity.
    pub stranger_lines: LineBudget,
    server_id: String,
    next_id: AtomicU64,
    connections: Mutex<HashMap<ConnId, Handle>>,
    half_open: Arc<HalfOpen>,
    accepted: AtomicU64,
    protocol_errors: AtomicU64,
    refused: Mutex<BTreeMap<&'static str, u64>>,
    /// The same by address, since somebody asked.
    refused_addresses: Mutex<Crowd<IpAddr>>,
    ended: Mutex<BTreeMap<Ended, u64>>,
}

impl Broker {
    /// A broker under a policy. `server_id` should be random: clients tell servers apart by it.
    pub fn new(
        policy: Arc<Policy>,
        intake: Option<Arc<Intake<Handle>>>,
        audit: Option<Arc<AuditIntake>>,
        settings: Settings,
        server_id: String,
    ) -> Arc<Self> {
        let mut world = World::new(policy, intake);
        world.audit.clone_from(&audit);
        world.checkpoints = audit.is_some().then(Arc::default);
        Arc::new(Self {
            world,
            authority: Authority::default(),
            flows: FlowRegistry::default(),
            clock: Clock::default(),
            audit,
            settings,
            waiting: Arc::default(),
            stranger_lines: LineBudget::new(LOG_LINES_AT_ONCE, LOG_LINES_PER_S),
            server_id,
            next_id: AtomicU64::new(1),
            connections: Mutex::default(),
            half_open: Arc::default(),
            accepted: AtomicU64::new(0),
            protocol_errors: AtomicU64::new(0),
            refused: Mutex::default(),
            refused_addresses: Mutex::new(Crowd::new(REFUSED_ADDRESSES_MAX)),
            ended: Mutex::default(),
        })
    }

    /// The INFO line for one client.
    pub fn info(&self, id: ConnId, server: std::net::SocketAddr, client: std::net::SocketAddr) -> Vec<u8> {
        let (host, client_ip) = (server.ip().to_string(), client.ip().to_string());
        let info = Info {
            server_id: &self.server_id,
            server_name: &self.settings.server_name,
            version: PROTOCOL_VERSION,
            proto: 1,
            host: &host,
            port: server.port(),
            headers: true,
            max_payload: self.settings.payload_bytes_max,
            tls_required: true,
            tls_verify: true,
            client_id: id.0,
            client_ip: &client_ip,
            ldm: false,
        };
        let mut out = Vec::with_capacity(320);
        encode::info(&mut out, &info);
        out
    }

    /// A number for a new connection.
    pub fn next_id(&self) -> ConnId {
        ConnId(self.next_id.fetch_add(1, Relaxed))
    }

    /// Takes a place among the handshakes under way, or says which bound is reached. The place is given back
    /// when it is dropped.
    pub fn take_half_open(&self, address: IpAddr) -> Result<HalfOpenPlace, &'static str> {
        self.accepted.fetch_add(1, Relaxed);
        let bounds = Bounds {
            max: self.settings.half_open_max,
            per_address_max: self.settings.half_open_per_address_max,
            undisturbed_us: self.settings.handshake_ms_max * 1_000 / HANDSHAKE_UNDISTURBED_PART,
        };
        self.half_open.take(address, &bounds, self.clock.now_us())
    }

    /// Enters a connection; gives it back where there are too many.
    pub fn enter(&self, handle: &Handle, id: ConnId) -> bool {
        let mut connections = self.connections.lock();
        let has_room = connections.len() < self.settings.connections_max;
        if has_room {
            connections.insert(id, handle.clone());
        }
        has_room
    }

    /// Takes a connection out and counts why it ended.
    pub fn leave(&self, id: ConnId, why: Ended) {
        self.connections.lock().remove(&id);
        *self.ended.lock().entry(why).or_default() += 1;
    }

    /// Handles of all open connections.
    pub fn connections(&self) -> Vec<(ConnId, Handle)> {
        self.connections
            .lock()
            .iter()
            .map(|(id, handle)| (*id, handle.clone()))
            .collect()
    }

    /// How many connections are open.
    pub fn connection_count(&self) -> usize {
        self.connections.lock().len()
    }

    /// Gives a record to the audit log, where there is one.
    pub fn note(&self, record: impl FnOnce() -> Record) {
        if let Some(audit) = &self.audit {
            audit.note(record(), self.clock.now_unix_ms());
        }
    }

    /// Gives the audit log a client that got no session, and counts it by the rule it broke.
    pub fn refuse(
        &self,
        listener: &str,
        address: std::net::SocketAddr,
        rule: &'static str,
        certificate: Option<&str>,
    ) {
        self.count_refused(rule, address.ip());
        if let Some(audit) = &self.audit {
            audit.refuse(&Refusal {
                listener,
                address: &address.to_string(),
                rule,
                certificate,
            });
        }
    }

    /// Counts a client that got no session, by the rule it broke.
    pub fn count_refused(&self, rule: &'static str, address: IpAddr) {
        self.refused_addresses.lock().count(party(address));
        *self.refused.lock().entry(rule).or_default() += 1;
    }

    /// The clients that got no session since this was asked the last time: by whose address it is, and those of too many
    /// further addresses.
    pub fn take_refused(&self) -> (HashMap<IpAddr, u64>, u64) {
        self.refused_addresses.lock().take()
    }

    /// Counts a connection that did not keep to the protocol.
    pub fn count_protocol_error(&self) {
        self.protocol_errors.fetch_add(1, Relaxed);
    }

    /// What has been counted so far.
    pub fn counts(&self) -> Counts {
        Counts {
            accepted: self.accepted.load(Relaxed),
            half_open: self.half_open.count(),
            waiting_bytes: self.waiting.total(),
            protocol_errors: self.protocol_errors.load(Relaxed),
            refused: self.refused.lock().clone(),
            ended: self
                .ended
                .lock()
                .iter()
                .map(|(why, count)| (why.to_string(), *count))
                .collect(),
        }
    }
}

/// What has been counted of connections since the start.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Counts {
    /// Sockets accepted.
    pub accepted: u64,
    /// Handshakes under way now.
    pub half_open: usize,
    /// Bytes that wait for all sockets together now.
    pub waiting_bytes: usize,
    /// Connections closed for a protocol error.
    pub protocol_errors: u64,
    /// Clients that got no session, by the rule they broke.
    pub refused: BTreeMap<&'static str, u64>,
    /// Sessions that have ended, by reason.
    pub ended: BTreeMap<String, u64>,
}
