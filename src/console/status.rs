//! What `exocom status` shows: a snapshot of the broker, as JSON and as text for people.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

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
    /// Why the latest change of certificates, roots or revocation lists was not taken, if it was not.
    pub refused_certificates: Option<String>,
    /// The audit log, where one is kept.
    pub audit: Option<AuditStatus>,
    /// The server that hears of alarms, where there is one.
    pub webhook: Option<HearingStatus>,
    /// How many entries the list of what is revoked has.
    pub revoked: usize,
    /// The ports.
    pub listeners: Vec<ListenerStatus>,
    /// Sockets and sessions, counted since the start.
    pub counts: serde_json::Value,
    /// The open connections.
    pub connections: Vec<ConnectionStatus>,
    /// The flows, counted since the start.
    pub flows: Vec<FlowStatus>,
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

/// One flow.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FlowStatus {
    /// The sending service.
    pub sender: String,
    /// The message name.
    pub message: String,
    /// The receiving service; `None` where there was none.
    pub receiver: Option<String>,
    /// Messages delivered.
    pub messages: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Messages denied.
    pub denied: u64,
    /// Messages dropped.
    pub dropped: u64,
    /// Messages without a receiver.
    pub no_receiver: u64,
    /// Messages that were more than the policy's limits allow.
    pub over_limit: u64,
    /// Requests answered.
    pub responses: u64,
    /// The mean response time, in microseconds.
    pub response_us_mean: u64,
    /// The longest response time, in microseconds.
    pub response_us_max: u64,
    /// Requests that expired or whose receiver was lost.
    pub unanswered: u64,
    /// Answers that the requester did not get.
    pub replies_dropped: u64,
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
        for listener in &self.listeners {
            let zone = listener
                .zone
                .as_deref()
                .map_or("all zones".to_owned(), |zone| format!("zone {zone}"));
            writeln!(out, "listener {} on {}, {zone}", listener.name, listener.address)?;
        }
        writeln!(out)?;
        let connections = self.connections.iter().map(|row| {
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
        table(out, "connections", &head, connections.collect())?;
        writeln!(out)?;
        let flows = self.flows.iter().map(|row| {
            vec![
                row.sender.clone(),
                row.message.clone(),
                row.receiver.clone().unwrap_or_else(|| "-".to_owned()),
                row.messages.to_string(),
                row.bytes.to_string(),
                row.denied.to_string(),
                row.dropped.to_string(),
                row.no_receiver.to_string(),
                row.over_limit.to_string(),
                row.unanswered.to_string(),
                row.responses.to_string(),
                format!("{:.1}", row.response_us_mean as f64 / 1000.0),
                format!("{:.1}", row.response_us_max as f64 / 1000.0),
            ]
        });
        let head = [
            "SENDER",
            "MESSAGE",
            "RECEIVER",
            "MESSAGES",
            "BYTES",
            "DENIED",
            "DROPPED",
            "NO RECEIVER",
            "OVER LIMIT",
            "UNANSWERED",
            "ANSWERED",
            "MEAN MS",
            "MAX MS",
        ];
        table(out, "messages so far", &head, flows.collect())
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

/// A table, or a word where it would be empty.
fn table(out: &mut String, what: &str, head: &[&str], rows: Vec<Vec<String>>) -> std::fmt::Result {
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
    Ok(())
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A moment, as people and programs read it.
pub(super) fn rfc3339(unix_s: i64) -> String {
    time::OffsetDateTime::from_unix_timestamp(unix_s)
        .ok()
        .and_then(|moment| moment.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_else(|| unix_s.to_string())
}
