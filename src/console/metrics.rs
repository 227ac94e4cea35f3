//! The metrics: a snapshot of the broker in the OpenMetrics text format, which Prometheus and others read.
//!
//! There are never more series than `limits.rs` allows, whatever clients do: past a bound, they are counted together
//! under the name `>`. Where a port for them is open, it answers everybody who reaches it, and shows nothing else.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, StatusCode, header};
use axum::response::IntoResponse;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::console::admin::StatusOrders;
use crate::console::figures::{Figures, FlowStatus, ServiceStatus, SortBy, Wanted};
use crate::console::queue::QueueStatus;
use crate::console::status::{HearingStatus, Status};
use crate::limits::{ADMIN_HEAD_MS_MAX, METRICS_CONNECTIONS_MAX, METRICS_FLOWS_MAX, METRICS_SERVICES_MAX};

/// What the text is, for who reads it.
pub(super) const CONTENT_TYPE: (HeaderName, &str) = (
    header::CONTENT_TYPE,
    "application/openmetrics-text; version=1.0.0; charset=utf-8",
);

/// What is not told apart.
const OTHERS: &str = ">";

/// The rows of a snapshot that metrics need.
pub(super) fn wanted() -> Wanted {
    Wanted {
        sort: SortBy::Messages,
        limit: METRICS_SERVICES_MAX,
        filter: String::new(),
    }
}

/// A snapshot as text.
pub(super) fn to_text(status: Status) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Metrics {
        families: families(&status),
        response_times: response_times(&status),
    }));
    let mut out = String::new();
    text::encode(&mut out, &registry).expect("a String takes all text");
    out
}

/// Answers whoever connects, until the task is dropped.
pub async fn serve(socket: TcpListener, status: StatusOrders) {
    let places = Arc::new(Semaphore::new(METRICS_CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = match socket.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "the port of metrics cannot accept; trying again in 100 ms");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let status = Arc::clone(&status);
        let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let status = Arc::clone(&status);
            async move {
                let answer = match request.uri().path() {
                    "/metrics" => ([CONTENT_TYPE], to_text(status(wanted()).await)).into_response(),
                    _ => (StatusCode::NOT_FOUND, "the metrics are at /metrics\n").into_response(),
                };
                Ok::<_, Infallible>(answer)
            }
        });
        tokio::spawn(async move {
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_millis(ADMIN_HEAD_MS_MAX))
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection to the port of metrics ended");
            }
            drop(place);
        });
    }
}

type Labels = Vec<(&'static str, String)>;

/// One metric with its series.
#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    is_counter: bool,
    rows: Vec<(Labels, f64)>,
}

#[derive(Debug)]
struct Metrics {
    families: Vec<Family>,
    response_times: Vec<Histogram>,
}

/// How something is spread, of one service.
#[derive(Debug)]
struct Histogram {
    labels: Labels,
    sum: f64,
    /// Up to which value, and how many.
    buckets: Vec<(f64, u64)>,
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.families {
            let kind = if family.is_counter {
                MetricType::Counter
            } else {
                MetricType::Gauge
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for (labels, value) in &family.rows {
                let mut row = metric.encode_family(labels)?;
                if family.is_counter {
                    row.encode_counter::<NoLabelSet, _, f64>(value, None)?;
                } else {
                    row.encode_gauge(value)?;
                }
            }
        }
        let (name, help) = ("exocom_response_time_seconds", "Response times, by who answered.");
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for Histogram { labels, sum, buckets } in &self.response_times {
            let count = buckets.iter().map(|(_, count)| count).sum();
            let mut row = metric.encode_family(labels)?;
            row.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)?;
        }
        Ok(())
    }
}

/// Of each service that has answered.
fn response_times(status: &Status) -> Vec<Histogram> {
    let answered = status.services.iter().filter(|row| row.received.responses > 0);
    let histogram = |row: &ServiceStatus| {
        let octaves = row.response_times.by_octave();
        let seconds = |us: Option<u64>| us.map_or(f64::INFINITY, |us| us as f64 / 1e6);
        Histogram {
            labels: vec![("service", row.service.clone())],
            sum: row.received.response_us_sum as f64 / 1e6,
            buckets: octaves
                .map(|(below_us, count)| (seconds(below_us), count))
                .collect(),
        }
    };
    answered.map(histogram).collect()
}

fn families(status: &Status) -> Vec<Family> {
    let mut all = of_the_broker(status);
    all.extend(of_connections(status));
    all.extend(of_services(status));
    all.extend(of_flows(status));
    all
}

fn gauge(name: &'static str, help: &'static str, rows: Vec<(Labels, f64)>) -> Family {
    Family {
        name,
        help,
        is_counter: false,
        rows,
    }
}

fn counter(name: &'static str, help: &'static str, rows: Vec<(Labels, f64)>) -> Family {
    Family {
        name,
        help,
        is_counter: true,
        rows,
    }
}

fn one(value: f64) -> Vec<(Labels, f64)> {
    vec![(Vec::new(), value)]
}

fn by(label: &'static str, counts: &BTreeMap<String, u64>) -> Vec<(Labels, f64)> {
    let rows = counts.iter();
    rows.map(|(name, count)| (vec![(label, name.clone())], *count as f64))
        .collect()
}

fn of_the_broker(status: &Status) -> Vec<Family> {
    let info = |key, value: &str| vec![(vec![(key, value.to_owned())], 1.0)];
    let mut open: BTreeMap<String, u64> = BTreeMap::new();
    for alarm in &status.alarms {
        *open.entry(alarm.finding.kind.name().to_owned()).or_default() += 1;
    }
    let expiries = status.soonest_expiries.iter();
    let expiries = expiries.map(|(of, expiry)| (vec![("of", of.clone())], expiry.expires_unix_s as f64));
    let refused = [
        ("policy", status.policy.refused_change.is_some()),
        ("certificates", status.refused_certificates.is_some()),
    ];
    let refused =
        refused.map(|(of, is_refused)| (vec![("of", of.to_owned())], f64::from(u8::from(is_refused))));
    let mut families = vec![
        gauge(
            "exocom_build_info",
            "The version of ExoCom.",
            info("version", &status.version),
        ),
        gauge(
            "exocom_policy_info",
            "The version of the policy in force.",
            info("version", &status.policy.version),
        ),
        gauge(
            "exocom_uptime_seconds",
            "Since the broker's start.",
            one(status.uptime_s as f64),
        ),
        gauge("exocom_alarms_open", "Alarms that are open.", by("kind", &open)),
        gauge(
            "exocom_expiry_timestamp_seconds",
            "When the first of these expires, in seconds since 1970.",
            expiries.collect(),
        ),
        gauge(
            "exocom_change_refused",
            "Whether the latest change was not taken.",
            refused.into(),
        ),
        gauge(
            "exocom_revoked",
            "Entries of the list of what operators have revoked.",
            one(status.revoked as f64),
        ),
    ];
    let queues = status.queues.iter().flatten().take(METRICS_SERVICES_MAX);
    let of_queue = |count: fn(&QueueStatus) -> usize| {
        let rows = queues.clone();
        rows.map(|queue| (vec![("service", queue.service.clone())], count(queue) as f64))
            .collect()
    };
    families.extend([
        gauge(
            "exocom_tracked_waiting",
            "Tracked messages on their way.",
            of_queue(|queue| queue.pending),
        ),
        gauge(
            "exocom_dead_letters",
            "Tracked messages that were given up.",
            of_queue(|queue| queue.dead),
        ),
    ]);
    let audit = status.audit.as_ref();
    let failing = audit.map(|audit| one(f64::from(u8::from(audit.failing_since_unix_ms.is_some()))));
    let heard = audit
        .into_iter()
        .flat_map(|audit| &audit.witnesses)
        .chain(&status.webhook);
    let hearing = |figure: fn(&HearingStatus) -> f64| {
        let rows = heard.clone();
        rows.map(|hearing| (vec![("name", hearing.name.clone())], figure(hearing)))
            .collect()
    };
    families.extend([
        counter(
            "exocom_audit_entries",
            "Entries of the audit log on disk, of all time.",
            audit.map(|audit| one(audit.entries as f64)).unwrap_or_default(),
        ),
        gauge(
            "exocom_audit_failing",
            "Whether the audit log cannot be written.",
            failing.unwrap_or_default(),
        ),
        gauge(
            "exocom_outside_failing",
            "Whether a witness, or the webhook, did not hear the last thing it was told.",
            hearing(|hearing| f64::from(u8::from(hearing.error.is_some()))),
        ),
        gauge(
            "exocom_outside_waiting",
            "What waits to be told to a witness, or to the webhook.",
            hearing(|hearing| hearing.waiting as f64),
        ),
        counter(
            "exocom_outside_given_up",
            "What a witness, or the webhook, was never told.",
            hearing(|hearing| hearing.lost as f64),
        ),
    ]);
    families
}

fn of_connections(status: &Status) -> Vec<Family> {
    let counts = &status.counts;
    vec![
        counter(
            "exocom_connections_accepted",
            "Sockets accepted.",
            one(counts.accepted as f64),
        ),
        counter(
            "exocom_connections_ended",
            "Sessions that have ended, by reason.",
            by("reason", &counts.ended),
        ),
        gauge(
            "exocom_handshakes",
            "Handshakes under way.",
            one(counts.half_open as f64),
        ),
        counter(
            "exocom_handshakes_refused",
            "Clients that got no session, by the rule they broke.",
            by("rule", &counts.refused),
        ),
        counter(
            "exocom_protocol_errors",
            "Connections closed for a protocol error.",
            one(counts.protocol_errors as f64),
        ),
        gauge(
            "exocom_outbox_bytes",
            "Bytes that wait for all sockets.",
            one(counts.waiting_bytes as f64),
        ),
    ]
}

fn of_services(status: &Status) -> Vec<Family> {
    let all = &status.traffic;
    let rows = |sent: bool, figure: fn(&Figures) -> u64| -> Vec<(Labels, f64)> {
        let of = |row: &ServiceStatus| figure(if sent { &row.sent } else { &row.received });
        let told: u64 = status.services.iter().map(of).sum();
        let row = |row: &ServiceStatus| (vec![("service", row.service.clone())], of(row) as f64);
        let mut rows: Vec<_> = status.services.iter().map(row).collect();
        if status.left_out.services > 0 {
            let others = figure(all).saturating_sub(told) as f64;
            rows.push((vec![("service", OTHERS.to_owned())], others));
        }
        rows
    };
    let connections = status.services.iter();
    let connections = connections
        .map(|row| (vec![("service", row.service.clone())], row.connections as f64))
        .collect();
    let seconds = rows(false, |figures| figures.response_us_sum);
    let seconds = seconds
        .into_iter()
        .map(|(labels, us)| (labels, us / 1e6))
        .collect();
    vec![
        gauge("exocom_connections", "Open connections.", connections),
        counter(
            "exocom_messages_sent",
            "Messages delivered, by sender.",
            rows(true, |figures| figures.messages),
        ),
        counter(
            "exocom_sent_bytes",
            "Their payload bytes, by sender.",
            rows(true, |figures| figures.bytes),
        ),
        counter(
            "exocom_messages_received",
            "Messages delivered, by receiver.",
            rows(false, |figures| figures.messages),
        ),
        counter(
            "exocom_received_bytes",
            "Their payload bytes, by receiver.",
            rows(false, |figures| figures.bytes),
        ),
        counter(
            "exocom_messages_denied",
            "Messages that the policy denied, by sender.",
            rows(true, |figures| figures.denied),
        ),
        counter(
            "exocom_messages_over_limit",
            "Messages that were more than the policy's limits allow, by sender.",
            rows(true, |figures| figures.over_limit),
        ),
        counter(
            "exocom_messages_quarantined",
            "Messages that were held or refused because their sender is in quarantine.",
            rows(true, |figures| figures.quarantined),
        ),
        counter(
            "exocom_messages_no_receiver",
            "Messages that nobody was there to receive, by sender.",
            rows(true, |figures| figures.no_receiver),
        ),
        counter(
            "exocom_messages_dropped",
            "Messages that a slow or lost receiver missed, by receiver.",
            rows(false, |figures| figures.dropped),
        ),
        counter(
            "exocom_responses",
            "Requests answered, by who answered.",
            rows(false, |figures| figures.responses),
        ),
        counter(
            "exocom_response_seconds",
            "The sum of the response times, by who answered.",
            seconds,
        ),
        counter(
            "exocom_requests_unanswered",
            "Requests that expired or whose receiver was lost, by receiver.",
            rows(false, |figures| figures.unanswered),
        ),
    ]
}

fn of_flows(status: &Status) -> Vec<Family> {
    let told = status.flows.get(..METRICS_FLOWS_MAX).unwrap_or(&status.flows);
    let is_all = told.len() == status.flows.len() && status.left_out.flows == 0;
    let rows = |figure: fn(&Figures) -> u64| {
        let labels = |sender: &str, message: &str, receiver: &str| {
            vec![
                ("sender", sender.to_owned()),
                ("message", message.to_owned()),
                ("receiver", receiver.to_owned()),
            ]
        };
        let row = |flow: &FlowStatus| {
            let receiver = flow.receiver.as_deref().unwrap_or_default();
            (
                labels(&flow.sender, &flow.message, receiver),
                figure(&flow.figures) as f64,
            )
        };
        let mut rows: Vec<_> = told.iter().map(row).collect();
        if !is_all {
            let counted: u64 = told.iter().map(|flow| figure(&flow.figures)).sum();
            let others = figure(&status.traffic).saturating_sub(counted);
            rows.push((labels(OTHERS, OTHERS, OTHERS), others as f64));
        }
        rows
    };
    vec![
        counter(
            "exocom_flow_messages",
            "Messages of a flow, of the largest flows.",
            rows(|figures| figures.messages),
        ),
        counter(
            "exocom_flow_bytes",
            "Their payload bytes.",
            rows(|figures| figures.bytes),
        ),
    ]
}
