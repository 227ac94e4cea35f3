//! The JSON Schema of a policy's file, by which editors complete and check what a person types.
//!
//! Only the shape: what a value may be in detail, and what lines mean together, `exocom policy check` says. A test holds
//! it against the parser.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde_json::Value;

/// A policy of ExoCom: who may connect, what each service may send and receive, how messages travel, and who operates
/// the broker. What it does not allow is denied.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields, title = "ExoCom policy")]
#[expect(dead_code, reason = "only its shape is used")]
struct PolicyFile {
    /// The version of this format, always 1. At least one file of a policy gives it.
    #[schemars(range(min = 1, max = 1))]
    version: Option<u32>,
    /// The trust domain of every certificate, without scheme, port or path. At least one file of a policy gives it.
    #[schemars(regex(pattern = r"^[a-z0-9._-]{1,255}$"))]
    trust_domain: Option<String>,
    /// What is said of the alarms about all services.
    alarms: Option<AlarmsOfAll>,
    /// The services, by the path of their SPIFFE ID.
    service: Option<BTreeMap<Label, Service>>,
    /// How messages travel, by name or pattern; for each key the most specific pattern that sets it counts.
    message: Option<BTreeMap<Pattern, Message>>,
    /// The operators, by name.
    operator: Option<BTreeMap<Label, Operator>>,
}

/// A service: what is not listed, it may not.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape is used")]
struct Service {
    /// The zone of the listeners that it may connect to; without, it may connect to any.
    zone: Option<Label>,
    /// The messages that it may send.
    sends: Option<Vec<Pattern>>,
    /// The messages that it may receive.
    receives: Option<Vec<Pattern>>,
    /// What is taken away from `receives`.
    receives_except: Option<Vec<Pattern>>,
    /// How many messages all its instances may send together. Without: as many as they like.
    limits: Option<Limits>,
    /// Whether alarms are raised about what it sends and about its denials, and how readily, where no message says
    /// otherwise. Without: default.
    alarms: Option<Alarms>,
    /// Whether an alarm that it sends more than usual also holds it, until somebody has looked. Without: tell.
    on_alarm: Option<OnAlarm>,
}

/// How messages travel.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape is used")]
struct Message {
    /// A command asks one service; an event tells every receiving service. Without: command.
    kind: Option<Kind>,
    /// At most once: now or never. At least once: kept on disk, and tried until it is acknowledged. Without: at most once.
    delivery: Option<Delivery>,
    /// How long the answer to a command may take, 1ms to 1h. Without: 10s.
    reply_within: Option<Time>,
    /// How long a receiver may take to acknowledge a tracked event, 1ms to 1d. Without: 30s.
    ack_within: Option<Time>,
    /// How often delivery is tried before a tracked message is a dead letter. Without: 5.
    #[schemars(range(min = 1, max = 1000))]
    attempts: Option<u32>,
    /// The waits between attempts, doubled from the first to the longest, such as "1s..1m".
    #[schemars(regex(pattern = r"^[0-9]+(ms|s|m|h|d)\.\.[0-9]+(ms|s|m|h|d)$"))]
    backoff: Option<String>,
    /// How long a tracked message is kept for a receiver, 1ms to 30d. Without: 24h.
    expires: Option<Time>,
    /// Whether each message has a record in the audit log, or is counted in its flow's. Without: flow.
    audit: Option<Audit>,
    /// The largest payload, such as "64KiB". Without: the broker's own limit.
    #[schemars(regex(pattern = r"^[0-9]+(B|KiB|MiB)$"))]
    payload_max: Option<String>,
    /// How many of them each service may send, all names of this table together. Without: as many as it likes.
    limits: Option<Limits>,
    /// Whether alarms are raised about them, and how readily. Without: as the sending service has it.
    alarms: Option<Alarms>,
}

/// How many messages may come; what is more is refused as overloaded.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape is used")]
struct Limits {
    /// Messages in a unit of time (s, m, h or d), such as "500/s".
    #[schemars(regex(pattern = r"^[0-9]+/(s|m|h|d)$"))]
    rate: String,
    /// How many may come at once. Without: as many as in a second at that rate.
    #[schemars(range(min = 1, max = 10_000_000))]
    burst: Option<u32>,
}

/// Of the alarms about all services.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape is used")]
struct AlarmsOfAll {
    /// How long the broker must have watched before a flow that was never seen is an alarm, 1s to 60d; or never.
    /// Without: 1d.
    #[schemars(regex(pattern = r"^(never|[0-9]+(ms|s|m|h|d))$"))]
    new_flow_after: Option<String>,
}

/// Whether alarms are raised, and how readily.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its shape is used")]
enum Alarms {
    Word(AlarmsWord),
    Sensitive(SensitiveAlarms),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
#[expect(dead_code, reason = "only its shape is used")]
enum AlarmsWord {
    Default,
    Off,
}

/// Alarms of another sensitivity.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape is used")]
struct SensitiveAlarms {
    sensitivity: Sensitivity,
}

/// Low: only what is glaring. High: also what is faint, with more false alarms.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
#[expect(dead_code, reason = "only its shape is used")]
enum Sensitivity {
    Low,
    Normal,
    High,
}

/// An operator: what is not listed, they may not.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape is used")]
struct Operator {
    /// What they may do.
    may: Vec<Capability>,
}

/// The name of a service, zone or operator.
#[derive(JsonSchema, PartialEq, Eq, PartialOrd, Ord)]
struct Label(#[schemars(regex(pattern = r"^[A-Za-z0-9_-]{1,63}$"))] String);

/// A message name, in which `*` may stand for one token and a final `>` for one or more.
#[derive(JsonSchema, PartialEq, Eq, PartialOrd, Ord)]
struct Pattern(
    #[schemars(
        length(max = 255),
        regex(pattern = r"^(>|(\*|[A-Za-z0-9-][A-Za-z0-9_-]*)(\.(\*|[A-Za-z0-9_-]+))*(\.>)?)$")
    )]
    String,
);

/// A whole number and a unit: ms, s, m, h or d.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its shape is used")]
struct Time(#[schemars(regex(pattern = r"^[0-9]+(ms|s|m|h|d)$"))] String);

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
#[expect(dead_code, reason = "only its shape is used")]
enum OnAlarm {
    Tell,
    Quarantine,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
#[expect(dead_code, reason = "only its shape is used")]
enum Kind {
    Command,
    Event,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
#[expect(dead_code, reason = "only its shape is used")]
enum Delivery {
    AtMostOnce,
    AtLeastOnce,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
#[expect(dead_code, reason = "only its shape is used")]
enum Audit {
    Flow,
    Each,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
#[expect(dead_code, reason = "only its shape is used")]
enum Capability {
    View,
    ApplyPolicy,
    Revoke,
    Quarantine,
    Replay,
}

/// The schema, in the draft that editors of TOML know.
pub fn schema() -> Schema {
    let settings = SchemaSettings::draft07().with_transform(RecursiveTransform(without_null));
    settings.into_generator().into_root_schema_for::<PolicyFile>()
}

/// TOML has no null: a key that may be left out is left out. And it has one kind of whole number.
fn without_null(schema: &mut Schema) {
    schema.remove("format");
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
    }
}
