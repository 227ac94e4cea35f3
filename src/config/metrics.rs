//! The section `[metrics]`: a port at which whoever reaches it reads the metrics, without a certificate.
//!
//! Pure, like the rest of the configuration.

use std::net::SocketAddr;

use serde::Deserialize;
use toml::Spanned;

use crate::config::{ConfigError, Problem, address};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawMetrics {
    listen: Spanned<String>,
    #[serde(default)]
    beyond_loopback: bool,
}

/// The section, valid. Beyond this machine it opens only where somebody has said so.
pub(super) fn metrics(raw: RawMetrics, problem: Problem<'_>) -> Result<SocketAddr, ConfigError> {
    let address = address(&raw.listen, problem)?;
    if address.ip().is_loopback() || raw.beyond_loopback {
        return Ok(address);
    }
    Err(problem(
        raw.listen.span(),
        "whoever reaches this address could read all names and counts, and nobody asks them who they are",
        "write 127.0.0.1, add beyond-loopback = true, or leave [metrics] out and read /metrics of [admin] with a \
         certificate",
    ))
}
