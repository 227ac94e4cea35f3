//! One line for each thing that an entry tells.
//!
//! Whatever a log says, what is shown goes to a terminal: control characters are made visible.

use serde_json::{Map, Value, json};

use crate::audit::flows::{FlowReader, ReadFlow};
use crate::audit::record::NamedFlow;
use crate::audit::{Entry, Record};
use crate::wire::printable;

use crate::cli::time::time_text;

/// How much of an entry that is no record of this version is shown, in bytes.
const SHOWN_BYTES_MAX: usize = 500;

/// One line.
#[derive(Debug)]
pub(in crate::cli) struct Row {
    /// The entry's number.
    pub(in crate::cli) entry: u64,
    /// When it was recorded.
    pub(in crate::cli) at_unix_ms: u64,
    /// Its kind; `flow` for one flow of a flow record.
    pub(in crate::cli) kind: &'static str,
    /// The services that it is about.
    pub(in crate::cli) services: Vec<String>,
    /// The message name that it is about.
    pub(in crate::cli) message: Option<String>,
    /// Who did it.
    pub(in crate::cli) operator: Option<String>,
    /// The sequence of the tracked message that it is about.
    pub(in crate::cli) seq: Option<u64>,
    /// For people.
    pub(in crate::cli) text: String,
    /// For programs.
    pub(in crate::cli) json: Value,
}

/// Reads entries in the order of the log.
#[derive(Debug, Default)]
pub(in crate::cli) struct Rows {
    flows: FlowReader,
}

impl Rows {
    /// The lines of an entry. One that is no record of this version is shown as it is.
    pub(in crate::cli) fn read(&mut self, number: u64, entry: Result<Entry, Vec<u8>>) -> Vec<Row> {
        let entry = match entry {
            Ok(entry) => entry,
            Err(line) => {
                let text = printable(&line, SHOWN_BYTES_MAX);
                return vec![Row {
                    entry: number,
                    at_unix_ms: 0,
                    kind: "unknown",
                    services: Vec::new(),
                    message: None,
                    operator: None,
                    seq: None,
                    json: json!({ "entry": number, "kind": "unknown", "line": text }),
                    text,
                }];
            }
        };
        if let Record::Flows(flows) = &entry.record {
            let read = self.flows.read(flows);
            let rows = read
                .iter()
                .map(|flow| row_of_flow(number, entry.at_unix_ms, &flows.policy, flow));
            return rows.collect();
        }
        vec![row(number, &entry)]
    }
}

fn row_of_flow(entry: u64, at_unix_ms: u64, policy: &str, flow: &ReadFlow) -> Row {
    let unknown = || NamedFlow(flow.count.flow, "?".into(), "?".into(), Some("?".into()));
    let NamedFlow(_, sender, message, receiver) = flow.names.clone().unwrap_or_else(unknown);
    let count = &flow.count;
    let mut text = format!(
        "{sender} {message} to {}",
        receiver.as_deref().unwrap_or("nobody")
    );
    let parts = [
        (count.messages, "messages"),
        (count.bytes, "bytes"),
        (count.denied, "denied"),
        (count.dropped, "dropped"),
        (count.unreceived, "without a receiver"),
    ];
    let parts = parts.iter().filter(|(number, _)| *number > 0);
    let parts: Vec<_> = parts.map(|(number, what)| format!("{number} {what}")).collect();
    text.push_str(&format!(": {}", parts.join(", ")));
    let mut services = vec![sender.clone()];
    services.extend(receiver.clone());
    Row {
        entry,
        at_unix_ms,
        kind: "flow",
        json: json!({
            "entry": entry, "at": time_text(at_unix_ms), "kind": "flow", "sender": sender, "message": message,
            "receiver": receiver, "messages": count.messages, "bytes": count.bytes, "denied": count.denied,
            "dropped": count.dropped, "unreceived": count.unreceived, "connection_first": count.first,
            "connection_last": count.last, "policy": policy,
        }),
        services,
        message: Some(message),
        operator: None,
        seq: None,
        text: printable(text.as_bytes(), usize::MAX),
    }
}

fn row(number: u64, entry: &Entry) -> Row {
    let mut json = match serde_json::to_value(entry) {
        Ok(Value::Object(object)) => object,
        _ => Map::new(),
    };
    json.remove("at_unix_ms");
    json.insert("entry".into(), number.into());
    json.insert("at".into(), time_text(entry.at_unix_ms).into());
    let field = |name: &str| json.get(name).and_then(Value::as_str).map(str::to_owned);
    let services = [field("sender"), field("receiver")]
        .into_iter()
        .flatten()
        .collect();
    // An operator's order names the message in words.
    let about = field("about").and_then(|about| {
        let words = about.strip_prefix("message ")?;
        words.split(' ').next()?.parse().ok()
    });
    let seq = json.get("seq").and_then(Value::as_u64).or(about);
    let (message, operator) = (field("message").or_else(|| field("subject")), field("who"));
    Row {
        entry: number,
        at_unix_ms: entry.at_unix_ms,
        kind: entry.record.kind(),
        services,
        message,
        operator,
        seq,
        text: printable(text_of(&entry.record).as_bytes(), usize::MAX),
        json: Value::Object(json),
    }
}

fn text_of(record: &Record) -> String {
    let told = |why: &Option<String>| {
        why.as_ref()
            .map_or(String::new(), |why| format!(", because: {why}"))
    };
    match record {
        Record::Start {
            name,
            version,
            policy,
        } => format!("{name} {version} starts, policy {policy}"),
        Record::Stop => "stopped in order".to_owned(),
        Record::Gap(gap) => {
            let cause = match gap.cause {
                crate::audit::record::GapCause::UncleanStop => {
                    "the broker or its machine stopped without saying so"
                }
                crate::audit::record::GapCause::CannotWrite => "the log could not be written",
                crate::audit::record::GapCause::Overflow => {
                    "more happened than could be kept until it was written"
                }
            };
            let records = gap
                .records
                .map_or(String::new(), |records| format!("{records} records, "));
            format!(
                "not recorded: {records}after {}: {cause}",
                time_text(gap.after_unix_ms)
            )
        }
        Record::Connected {
            connection,
            sender,
            serial,
            address,
            listener,
        } => format!("{sender} connected as {connection} from {address} to {listener}, certificate {serial}"),
        Record::Disconnected {
            connection,
            sender,
            reason,
        } => format!("{sender} disconnected {connection}: {reason}"),
        Record::Refused {
            listener,
            address,
            rule,
            certificate,
            count,
        } => {
            let whose = certificate.as_deref().unwrap_or("nobody");
            format!("{count} at {listener} from {address}: {rule}, certificate of {whose}")
        }
        Record::Denial {
            sender,
            connection,
            action,
            subject,
            rule,
            policy,
            count,
        } => format!("{sender} ({connection}) {action} {subject}: {rule}, policy {policy}, {count} times"),
        Record::Flows(flows) => format!("{} flows", flows.counts.len()),
        Record::Message {
            sender,
            message,
            receiver,
            bytes,
            outcome,
            seq,
            attempt,
            ..
        } => {
            let receiver = receiver.as_deref().unwrap_or("nobody");
            let mut text = format!("{sender} {message} to {receiver}: {outcome}, {bytes} bytes");
            if *seq > 0 {
                text.push_str(&format!(", message {seq}"));
            }
            if *attempt > 0 {
                text.push_str(&format!(", attempt {attempt}"));
            }
            text
        }
        Record::Policy { from, to, who, why } => format!("from {from} to {to} by {who}{}", told(why)),
        Record::Admin {
            who,
            why,
            verb,
            about,
            ..
        } => format!("{who}: {verb} {about}{}", told(why)),
        Record::AdminDone {
            who,
            verb,
            about,
            is_done,
            outcome,
        } => {
            let how = if *is_done { "done" } else { "failed" };
            format!("{who}: {verb} {about}: {how}: {outcome}")
        }
        Record::AdminRefused {
            who,
            verb,
            about,
            reason,
        } => format!("{who} may not {verb} {about}: {reason}"),
        Record::Withdrawn { entry } => format!("entry {entry} did not take effect"),
        Record::DeadLetter {
            seq,
            receiver,
            message,
            cause,
            attempts,
        } => format!("{seq} {message} for {receiver}: {cause} after {attempts} attempts"),
        Record::Alarm {
            id,
            is_closed,
            what,
            text,
            outcome,
        } => {
            let state = if *is_closed { "closed" } else { "opened" };
            let outcome = outcome
                .as_ref()
                .map_or_else(String::new, |outcome| format!(" ({outcome})"));
            format!("alarm {id} {state}, {what}: {text}{outcome}")
        }
        Record::Quarantine {
            sender,
            message,
            is_held,
            who,
            why,
            alarm,
        } => {
            let part = message
                .as_ref()
                .map_or_else(String::new, |message| format!(", {message}"));
            let state = if *is_held { "held" } else { "no longer held" };
            let alarm = alarm.map_or_else(String::new, |alarm| format!(" (alarm {alarm})"));
            format!("{sender}{part}: {state} by {who}{alarm}, because: {why}")
        }
        Record::Prune { before } => format!("entries before {before} removed, their hashes kept"),
    }
}
