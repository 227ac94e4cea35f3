//! The sections `[https]` and `[alarms]`: the servers that the broker calls, and what vouches for them.
//!
//! Pure, like the rest of the configuration.

use std::ops::Range;
use std::path::{Path, PathBuf};

use hyper::Uri;
use serde::Deserialize;
use toml::Spanned;

use crate::config::ConfigError;

/// Where alarms are told.
#[derive(Debug, Clone)]
pub struct WebhookConfig {
    /// The address, `https`.
    pub url: String,
    /// The file of the secret that both sides know.
    pub secret: PathBuf,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHttps {
    roots: Option<Vec<PathBuf>>,
}

impl RawHttps {
    pub(super) fn roots(self, folder: &Path) -> Option<Vec<PathBuf>> {
        let roots = self.roots?;
        Some(roots.into_iter().map(|file| folder.join(file)).collect())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawAlarms {
    webhook: Option<Spanned<String>>,
    webhook_secret: Option<PathBuf>,
    pub(super) quarantine_max: Option<usize>,
}

/// The section `[alarms]`, valid.
pub(super) fn webhook(
    raw: RawAlarms,
    folder: &Path,
    problem: &impl Fn(Range<usize>, &str, &str) -> ConfigError,
) -> Result<Option<WebhookConfig>, ConfigError> {
    let Some(webhook) = raw.webhook else {
        return Ok(None);
    };
    let url = https_url(&webhook, problem)?;
    match raw.webhook_secret {
        Some(secret) => Ok(Some(WebhookConfig {
            url,
            secret: folder.join(secret),
        })),
        None => Err(problem(
            webhook.span(),
            "who hears of alarms cannot tell who speaks",
            "add webhook-secret = \"FILE\" with at least 32 random characters, such as from `openssl rand -hex 32`",
        )),
    }
}

/// An address that is `https`, and has no secret in it, since it is shown.
pub(super) fn https_url(
    url: &Spanned<String>,
    problem: &impl Fn(Range<usize>, &str, &str) -> ConfigError,
) -> Result<String, ConfigError> {
    let text = url.get_ref();
    let parsed = text.parse::<Uri>().ok();
    let authority = parsed.as_ref().and_then(Uri::authority);
    let scheme = parsed.as_ref().and_then(Uri::scheme_str);
    match (scheme, authority) {
        (Some("https"), Some(authority)) if !authority.as_str().contains('@') => Ok(text.clone()),
        (Some("https"), Some(_)) => Err(problem(
            url.span(),
            "an address is shown in logs, and this one has a user or password in it",
            "write https://HOST/PATH",
        )),
        _ => Err(problem(
            url.span(),
            "this is no address that the broker calls: it calls by HTTPS alone",
            "write https://HOST/PATH",
        )),
    }
}
