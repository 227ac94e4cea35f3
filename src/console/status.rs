//! What `exocom status` shows: a snapshot of the broker, as JSON and as text for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::console::alarms;
use crate::console::figures::{Figures, FlowStatus, LeftOut, ServiceStatus};
use crate::console::queue::QueueStatus;
use crate::traffic::desk::Alarm;

/// A snapshot of the broker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The broker's name.
    pub name: String,
    /// ExoCom's version.
    pub version: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// The policy in force.
    pub policy: PolicyStatus,
    /// The certificate that expires first of those that the open connections and the listeners use.
    pub soonest_expiry: Option<ExpiryStatus>,
    /// The first that expires of each kind: `connections`, `certificates` of the broker, `roots`, `revocation-lists`.
    pub soonest_expiries: BTreeMap<String, ExpiryStatus>,
    /// Why the latest change of certificates, roots or revocation lists was not taken, if it was not.
    pub refused_certificates: Option<String>,
    /// The audit log, where one is kept.
    pub audit: Option<AuditStatus>,
    /// The server that hears of alarms, where there is one.
    pub webhook: Option<HearingStatus>,
    /// How many entries the list of what is revoked has.
    pub revoked: usize,
    /// How many entries the quarantine has.
    pub held: usize,
    /// The ports.
    pub listeners: Vec<ListenerStatus>,
    /// Sockets and sessions, counted since the start.
    pub counts: CountsStatus,
    /// Tracked messages by service; `None` where there is no store, or where it does not answer at once.
    pub queues: Option<Vec<QueueStatus>>,
    /// The alarms that are open, the oldest first.
    pub alarms: Vec<Alarm>,
    /// All traffic.
    pub traffic: Figures,
    /// Over how long all rates are told, in seconds.
    pub rates_over_s: f64,
    /// The services.
    pub services: Vec<ServiceStatus>,
    /// The open connections.
    pub connections: Vec<ConnectionStatus>,
    /// The flows.
    pub flows: Vec<FlowStatus>,
    /// How many rows the lists leave out.
    pub left_out: LeftOut,
}

/// Sockets and sessions, counted since the start.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CountsStatus {
    /// Sockets accepted.
    pub accepted: u64,
    /// Connections that are open now, of all senders.
    pub open: usize,
    /// Handshakes under way now.
    pub half_open: usize,
    /// Bytes that wait for all sockets together now.
    pub waiting_bytes: usize,
    /// Connections closed for a protocol error.
    pub protocol_errors: u64,
    /// Clients that got no session, by the rule they broke.
    pub refused: BTreeMap<String, u64>,
    /// Sessions that have ended, by reason.
    pub ended: BTreeMap<String, u64>,
}

/// The policy in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Where it comes from.
    pub path: String,
    /// Its version, a digest of its text.
    pub version: String,
    /// How many services it lists.
    pub services: usize,
    /// Why the latest change was not taken, if it was not.
    pub refused_change: Option<String>,
    /// Where it waits to be confirmed: what comes back otherwise.
    #[serde(default)]
    pub unconfirmed: Option<UnconfirmedStatus>,
    /// The candidate that is tried beside it.
    #[serde(default)]
    pub candidate: Option<CandidateStatus>,
}

/// How long a policy in force waits to be confirmed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UnconfirmedStatus {
    /// When it is taken back, in seconds since 1970.
    pub until_unix_s: i64,
    /// The version that is in force then.
    pub before: String,
}

/// A candidate policy that is tried.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CandidateStatus {
    /// Its version.
    pub version: String,
    /// Who has begun.
    pub who: String,
    /// When, in seconds since 1970.
    pub since_unix_s: i64,
}

/// The audit log.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AuditStatus {
    /// Its folder.
    pub folder: String,
    /// Its entries that are on disk and signed.
    pub entries: u64,
    /// When it was signed last, in milliseconds since 1970.
    pub signed_unix_ms: u64,
    /// Since when it cannot be written, in milliseconds since 1970; `None`: it can.
    pub failing_since_unix_ms: Option<u64>,
    /// Who hears of its checkpoints.
    pub witnesses: Vec<HearingStatus>,
}

/// How it goes with somebody outside who is told things.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HearingStatus {
    /// A path, or an address.
    pub name: String,
    /// Why the last was not heard; `None`: it was.
    pub error: Option<String>,
    /// How many things wait to be told.
    pub waiting: usize,
    /// How many were given up.
    pub lost: u64,
}

/// When something expires.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExpiryStatus {
    /// In seconds since 1970.
    pub expires_unix_s: i64,
    /// What expires then.
    pub what: String,
}

/// One port.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Its name in the configuration.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// Its zone; `None` serves all.
    pub zone: Option<String>,
}

/// One open connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConnectionStatus {
    /// Its number.
    pub id: u64,
    /// The verified sender.
    pub sender: String,
    /// Where it connects from.
    pub address: String,
    /// The zone of its listener.
    pub zone: Option<String>,
    /// What it calls itself; a claim.
    pub name: Option<String>,
    /// The client library it says it uses.
    pub client: Option<String>,
    /// Seconds since its handshake.
    pub age_s: u64,
    /// When its authority ends, in seconds since 1970.
    pub expires_unix_s: i64,
    /// Subscriptions to messages.
    pub subscriptions: usize,
    /// Requests that wait for its answer.
    pub pending_replies: usize,
    /// Bytes that wait for its socket.
    pub outbox_bytes: usize,
}

impl Status {
    /// The snapshot as text for people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        self.write_text(&mut text).expect("a String takes all text");
        text
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        let policy = &self.policy;
        writeln!(
            out,
            "{} {}, up {}",
            self.name,
            self.version,
            duration(self.uptime_s)
        )?;
        writeln!(
            out,
            "policy   {} version {}, {} services",
            policy.path, policy.version, policy.services
        )?;
        if let Some(error) = &policy.refused_change {
            writeln!(
                out,
                "         the latest change was refused, the policy before it stays in force:\n{error}"
            )?;
        }
        if let Some(waits) = &policy.unconfirmed {
            writeln!(
                out,
                "         it is taken back at {}, and {} in force again, unless you confirm it: exocom policy confirm {}",
                rfc3339(waits.until_unix_s),
                waits.before,
                policy.version
            )?;
        }
        if let Some(candidate) = &policy.candidate {
            writeln!(
                out,
                "         {} is tried beside it, since {} by {}, see `exocom policy shadow report`",
                candidate.version,
                rfc3339(candidate.since_unix_s),
                candidate.who
            )?;
        }
        if let Some(expiry) = &self.soonest_expiry {
            writeln!(
                out,
                "expires  {} first, at {}",
                expiry.what,
                rfc3339(expiry.expires_unix_s)
            )?;
        }
        if let Some(error) = &self.refused_certificates {
            writeln!(
                out,
                "         changed certificates were refused, those before them stay:\n{error}"
            )?;
        }
        if let Some(audit) = &self.audit {
            writeln!(
                out,
                "audit    {} entries in {}, the last signed {}",
                audit.entries,
                audit.folder,
                rfc3339((audit.signed_unix_ms / 1_000).cast_signed())
            )?;
            if let Some(since) = audit.failing_since_unix_ms {
                let since = rfc3339((since / 1_000).cast_signed());
                writeln!(
                    out,
                    "         it cannot be written since {since}; see the broker's log"
                )?;
            }
            for witness in &audit.witnesses {
                write_hearing(out, "witness", witness)?;
            }
        }
        if let Some(webhook) = &self.webhook {
            write_hearing(out, "webhook", webhook)?;
        }
        if self.revoked > 0 {
            writeln!(out, "revoked  {}, see `exocom certs revoked`", self.revoked)?;
        }
        if self.held > 0 {
            writeln!(out, "held     {}, see `exocom quarantine list`", self.held)?;
        }
        for listener in &self.listeners {
            let zone = listener
                .zone
                .as_deref()
                .map_or("all zones".to_owned(), |zone| format!("zone {zone}"));
            writeln!(out, "listener {} on {}, {zone}", listener.name, listener.address)?;
        }
        let rates = &self.traffic.rates;
        writeln!(
            out,
            "traffic  {} messages/s, {}/s, over the last {} s; {} open connections",
            decimal(rates.messages_per_s),
            bytes(rates.bytes_per_s),
            decimal(self.rates_over_s),
            self.counts.open
        )?;
        self.write_alarms(out)?;
        self.write_queues(out)?;
        writeln!(out)?;
        self.write_services(out)?;
        writeln!(out)?;
        self.write_connections(out)?;
        writeln!(out)?;
        self.write_flows(out)
    }

    fn write_alarms(&self, out: &mut String) -> std::fmt::Result {
        for alarm in &self.alarms {
            writeln!(out, "alarm    {}", alarms::line(alarm))?;
        }
        Ok(())
    }

    fn write_queues(&self, out: &mut String) -> std::fmt::Result {
        let Some(queues) = &self.queues else { return Ok(()) };
        let pending: usize = queues.iter().map(|queue| queue.pending).sum();
        let dead: usize = queues.iter().map(|queue| queue.dead).sum();
        writeln!(out, "tracked  {pending} on their way, {dead} dead letters")
    }

    fn write_services(&self, out: &mut String) -> std::fmt::Result {
        let rows = self.services.iter().map(|row| {
            let (sent, received) = (&row.sent, &row.received);
            vec![
                row.service.clone(),
                row.connections.to_string(),
                decimal(sent.rates.messages_per_s),
                decimal(received.rates.messages_per_s),
                sent.messages.to_string(),
                received.messages.to_string(),
                sent.denied.to_string(),
                sent.over_limit.to_string(),
                sent.quarantined.to_string(),
                received.dropped.to_string(),
                received.unanswered.to_string(),
                milliseconds(received.response_us_mean),
                milliseconds(received.response_us_p99.unwrap_or_default()),
            ]
        });
        let head = [
            "SERVICE",
            "CONNECTIONS",
            "SENDS/S",
            "RECEIVES/S",
            "SENT",
            "RECEIVED",
            "DENIED",
            "OVER LIMIT",
            "HELD",
            "DROPPED",
            "UNANSWERED",
            "MEAN MS",
            "P99 MS",
        ];
        table(out, "services", &head, rows.collect(), self.left_out.services)
    }

    fn write_connections(&self, out: &mut String) -> std::fmt::Result {
        let rows = self.connections.iter().map(|row| {
            vec![
                row.id.to_string(),
                row.sender.clone(),
                row.address.clone(),
                row.zone.clone().unwrap_or_else(|| "-".to_owned()),
                row.client.clone().unwrap_or_else(|| "-".to_owned()),
                duration(row.age_s),
                row.subscriptions.to_string(),
                row.pending_replies.to_string(),
                row.outbox_bytes.to_string(),
            ]
        });
        let head = [
            "ID", "SENDER", "ADDRESS", "ZONE", "CLIENT", "AGE", "SUBS", "PENDING", "OUTBOX B",
        ];
        table(
            out,
            "connections",
            &head,
            rows.collect(),
            self.left_out.connections,
        )
    }

    fn write_flows(&self, out: &mut String) -> std::fmt::Result {
        let rows = self.flows.iter().map(|row| {
            let figures = &row.figures;
            vec![
                row.sender.clone(),
                row.message.clone(),
                row.receiver.clone().unwrap_or_else(|| "-".to_owned()),
                decimal(figures.rates.messages_per_s),
                figures.messages.to_string(),
                figures.bytes.to_string(),
                figures.denied.to_string(),
                figures.dropped.to_string(),
                figures.no_receiver.to_string(),
                figures.over_limit.to_string(),
                figures.quarantined.to_string(),
                figures.unanswered.to_string(),
                figures.responses.to_string(),
                milliseconds(figures.response_us_mean),
                milliseconds(figures.response_us_p50.unwrap_or_default()),
                milliseconds(figures.response_us_p99.unwrap_or_default()),
                milliseconds(figures.response_us_max),
            ]
        });
        let head = [
            "SENDER",
            "MESSAGE",
            "RECEIVER",
            "PER S",
            "MESSAGES",
            "BYTES",
            "DENIED",
            "DROPPED",
            "NO RECEIVER",
            "OVER LIMIT",
            "HELD",
            "UNANSWERED",
            "ANSWERED",
            "MEAN MS",
            "P50 MS",
            "P99 MS",
            "MAX MS",
        ];
        table(out, "messages so far", &head, rows.collect(), self.left_out.flows)
    }
}

fn write_hearing(out: &mut String, what: &str, hearing: &HearingStatus) -> std::fmt::Result {
    let HearingStatus {
        name,
        error,
        waiting,
        lost,
    } = hearing;
    match error {
        None => writeln!(out, "{what}  {name}"),
        Some(error) => writeln!(
            out,
            "{what}  {name}: hears nothing, {waiting} waiting, {lost} given up: {error}"
        ),
    }
}

/// A table, or a word where it would be empty; and how many rows it leaves out.
fn table(
    out: &mut String,
    what: &str,
    head: &[&str],
    rows: Vec<Vec<String>>,
    left_out: usize,
) -> std::fmt::Result {
    if rows.is_empty() {
        return writeln!(out, "no {what}");
    }
    let widths: Vec<usize> = head
        .iter()
        .enumerate()
        .map(|(column, title)| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(String::len)
                .max()
                .unwrap_or(0)
                .max(title.len())
        })
        .collect();
    let head: Vec<String> = head.iter().map(ToString::to_string).collect();
    for row in std::iter::once(head).chain(rows) {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"))
            .collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    if left_out > 0 {
        writeln!(
            out,
            "and {left_out} more; --limit shows more rows, --sort and --filter choose which"
        )?;
    }
    Ok(())
}

/// A rate or a time, short: `0`, `0.3`, `12.5`, `1234`.
pub(crate) fn decimal(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

/// Bytes, short: `17 B`, `1.2 KiB`.
pub(crate) fn bytes(value: f64) -> String {
    let mut value = value;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1024.0 {
            return format!("{} {unit}", decimal(value));
        }
        value /= 1024.0;
    }
    format!("{} GiB", decimal(value))
}

fn milliseconds(us: u64) -> String {
    format!("{:.1}", us as f64 / 1000.0)
}

pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A moment, as people and programs read it.
pub(crate) fn rfc3339(unix_s: i64) -> String {
    time::OffsetDateTime::from_unix_timestamp(unix_s)
        .ok()
        .and_then(|moment| moment.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_else(|| unix_s.to_string())
}
