//! The section `[audit]`: where the audit log is, how much of it is kept, and what happens when it cannot be written.
//!
//! Pure, like the rest of the configuration.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use crate::config::ConfigError;
use crate::config::outside::https_url;
use crate::limits::{AUDIT_INTERVAL_MS, AUDIT_INTERVAL_S_MAX, AUDIT_KEEP_BYTES_MIN};

/// The audit log.
#[derive(Debug, Clone)]
pub struct AuditConfig {
    /// The folder of its files.
    pub folder: PathBuf,
    /// The file of its secret key, which is made where it is missing.
    pub key: PathBuf,
    /// From one flow record to the next, in milliseconds.
    pub interval_ms: u64,
    /// What happens to messages while it cannot be written.
    pub on_failure: OnFailure,
    /// How old its entries get, in milliseconds; `None`: they stay.
    pub keep_ms: Option<u64>,
    /// How many bytes of entries stay; `None`: all.
    pub keep_bytes: Option<u64>,
    /// Who hears of each checkpoint.
    pub witnesses: Vec<WitnessConfig>,
}

/// Somebody who hears of checkpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WitnessConfig {
    /// A file, to which they are appended.
    File(PathBuf),
    /// A server, to which the newest is posted.
    Https(String),
}

/// What happens to messages while the audit log cannot be written. Policy and operators' orders are refused anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// They are refused.
    Stop,
    /// They pass, and the log tells of it when it can be written again.
    Continue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawAudit {
    folder: PathBuf,
    key: Option<PathBuf>,
    interval_s: Option<Spanned<u64>>,
    #[serde(default = "stop")]
    on_failure: OnFailure,
    keep_days: Option<Spanned<u64>>,
    keep_bytes: Option<Spanned<u64>>,
    #[serde(default)]
    witnesses: Vec<Spanned<String>>,
}

const fn stop() -> OnFailure {
    OnFailure::Stop
}

/// The section, valid.
pub(super) fn audit(
    raw: RawAudit,
    folder: &Path,
    problem: &impl Fn(Range<usize>, &str, &str) -> ConfigError,
) -> Result<AuditConfig, ConfigError> {
    let check = |value: &Option<Spanned<u64>>, min: u64, max: u64, message: &str| match value {
        Some(value) if !(min..=max).contains(value.get_ref()) => {
            let help = format!("write a number from {min} to {max}, or leave it out");
            Err(problem(value.span(), message, &help))
        }
        _ => Ok(()),
    };
    let too_long = "the time between flow records is out of range";
    check(&raw.interval_s, 1, AUDIT_INTERVAL_S_MAX, too_long)?;
    check(&raw.keep_days, 1, 36_500, "the days to keep are out of range")?;
    let too_few = "an audit log that keeps next to nothing shows nothing";
    check(&raw.keep_bytes, AUDIT_KEEP_BYTES_MIN, i64::MAX as u64, too_few)?;
    let witness = |witness: &Spanned<String>| {
        if witness.get_ref().contains("://") {
            return https_url(witness, problem).map(WitnessConfig::Https);
        }
        Ok(WitnessConfig::File(folder.join(witness.get_ref())))
    };
    let witnesses = raw.witnesses.iter().map(witness).collect::<Result<_, _>>()?;
    let audit_folder = folder.join(raw.folder);
    Ok(AuditConfig {
        key: raw
            .key
            .map_or_else(|| audit_folder.join("log.key"), |key| folder.join(key)),
        folder: audit_folder,
        interval_ms: raw
            .interval_s
            .map_or(AUDIT_INTERVAL_MS, |seconds| seconds.into_inner() * 1000),
        on_failure: raw.on_failure,
        keep_ms: raw.keep_days.map(|days| days.into_inner() * 86_400_000),
        keep_bytes: raw.keep_bytes.map(Spanned::into_inner),
        witnesses,
    })
}
