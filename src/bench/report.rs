//! What a run found: numbers for programs, a few lines for people.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::bench::board::Measured;
use crate::bench::{BenchError, Options, Scenario};

/// The result of one run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: &'static str,
    /// Bytes of a payload.
    pub payload_bytes: usize,
    /// Message names that each sender went round.
    pub names: usize,
    /// Receivers of each message, in scenario `c`.
    pub receivers: usize,
    /// Connections that did nothing meanwhile.
    pub bystanders: usize,
    /// How long was measured.
    pub seconds: f64,
    /// Messages delivered, requests answered or handshakes done, each second.
    pub per_second: f64,
    /// Response times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// Processor time of the load generator, as a part of one core.
    pub client_cpu: f64,
    /// That of the server, where `--pid` says which it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu: Option<f64>,
    /// The server's processor time for each message, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_us_per_message: Option<f64>,
    /// What was sent and what arrived, from the first message to the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked: Option<Checked>,
    /// Memory of idle connections.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub idle: Vec<IdleStep>,
}

/// Response times, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    /// Half of the answers came in this time.
    pub p50_us: f64,
    /// 99 of 100.
    pub p99_us: f64,
    /// 999 of 1,000.
    pub p999_us: f64,
    /// All of them.
    pub max_us: f64,
}

/// That every message sent was received once by each receiver, in order, unchanged and rightly stamped.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Checked {
    /// Messages sent.
    pub sent: u64,
    /// Messages received, each checked.
    pub received: u64,
    /// How many receivers each message has.
    pub receivers_each: u64,
}

/// Memory of so many connections.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct IdleStep {
    /// How many.
    pub connections: usize,
    /// By how much the server grew, for each.
    pub bytes_per_connection: u64,
}

impl Checked {
    /// Gives the evidence only where it is complete.
    pub(super) fn holds(self) -> Result<Self, BenchError> {
        if self.sent > 0 && self.received == self.sent * self.receivers_each {
            return Ok(self);
        }
        Err(BenchError::Violation {
            who: "all receivers together".to_owned(),
            seen: format!(
                "{} messages arrived, {} were sent to {} each",
                self.received, self.sent, self.receivers_each
            ),
        })
    }
}

impl Latency {
    /// Of response times in nanoseconds.
    #[expect(clippy::cast_precision_loss, reason = "three digits are kept")]
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        let us = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            p50_us: us(0.5),
            p99_us: us(0.99),
            p999_us: us(0.999),
            max_us: histogram.max() as f64 / 1000.0,
        }
    }
}

impl Report {
    #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
    pub(super) fn new(scenario: Scenario, options: &Options, measured: Measured) -> Self {
        let messages = measured.messages as f64;
        Self {
            seconds: measured.seconds,
            per_second: messages / measured.seconds,
            client_cpu: measured.client_cpu_s / measured.seconds,
            server_cpu: measured.server_cpu_s.map(|cpu_s| cpu_s / measured.seconds),
            server_us_per_message: measured
                .server_cpu_s
                .filter(|_| measured.messages > 0)
                .map(|cpu_s| cpu_s * 1e6 / messages),
            ..Self::unmeasured(scenario, options)
        }
    }

    pub(super) const fn unmeasured(scenario: Scenario, options: &Options) -> Self {
        Self {
            scenario: scenario.name(),
            payload_bytes: options.payload_bytes,
            names: options.names,
            receivers: options.receivers,
            bystanders: options.bystanders,
            seconds: 0.0,
            per_second: 0.0,
            latency: None,
            client_cpu: 0.0,
            server_cpu: None,
            server_us_per_message: None,
            checked: None,
            idle: Vec::new(),
        }
    }

    pub(super) fn checked(self, checked: Checked) -> Self {
        Self {
            checked: Some(checked),
            ..self
        }
    }

    pub(super) fn with_latency(self, latency: Option<Latency>) -> Self {
        Self { latency, ..self }
    }

    pub(super) fn with_idle(self, idle: Vec<IdleStep>) -> Self {
        Self { idle, ..self }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<10}", self.scenario)?;
        for (place, step) in self.idle.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            #[expect(clippy::cast_precision_loss, reason = "for the eye")]
            let kib = step.bytes_per_connection as f64 / 1024.0;
            write!(f, "{comma} {kib:.1} KiB each of {} connections", step.connections)?;
        }
        if !self.idle.is_empty() {
            return Ok(());
        }
        let unit = match self.scenario {
            "handshakes" => "handshakes/s".to_owned(),
            "p1" | "p64" | "p1024" => format!("stored messages/s of {} bytes", self.payload_bytes),
            "e1024" => format!("acknowledged messages/s of {} bytes", self.payload_bytes),
            "d1" | "d256" | "floor" => format!("requests/s of {} bytes", self.payload_bytes),
            _ => format!("messages/s of {} bytes", self.payload_bytes),
        };
        write!(f, " {:>9.0} {unit}", self.per_second)?;
        if let Some(latency) = &self.latency {
            write!(
                f,
                "; p50 {:.1} µs, p99 {:.1} µs, p99.9 {:.1} µs",
                latency.p50_us, latency.p99_us, latency.p999_us
            )?;
        }
        write!(f, "; processor: load generator {:.0} %", self.client_cpu * 100.0)?;
        if let Some(server_cpu) = self.server_cpu {
            write!(f, ", server {:.0} %", server_cpu * 100.0)?;
        }
        if let Some(us) = self.server_us_per_message {
            write!(f, " ({us:.2} µs each)")?;
        }
        if let Some(checked) = &self.checked {
            write!(
                f,
                "; {} sent, {} received, all in order",
                checked.sent, checked.received
            )?;
        }
        Ok(())
    }
}
