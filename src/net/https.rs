//! Calls to servers outside: one request by HTTPS, and whether it was taken.
//!
//! It waits, so threads of their own call it. It follows nobody elsewhere, takes no proxy from the environment, and
//! reads of an answer no more than its status.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::limits::HTTPS_CALL_MS_MAX;
use crate::net::tls::{provider, read_certificates};

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Https(ureq::Agent);

impl Https {
    /// Calls servers that these root certificates vouch for; without, those that the system trusts.
    pub fn new(roots: Option<&[PathBuf]>) -> Result<Self, String> {
        let mut certificates = Vec::new();
        match roots {
            Some(files) => {
                for file in files {
                    certificates.extend(read_certificates(file).map_err(|error| error.to_string())?);
                }
            }
            None => certificates = rustls_native_certs::load_native_certs().certs,
        }
        if certificates.is_empty() {
            return Err("no root certificate vouches for any server: name some in [https] roots".to_owned());
        }
        let roots = certificates
            .iter()
            .map(|root| Certificate::from_der(root).to_owned());
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(roots.collect())))
            .unversioned_rustls_crypto_provider(provider())
            .build();
        let config = ureq::Agent::config_builder()
            .https_only(true)
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("exocom/", env!("CARGO_PKG_VERSION")))
            .timeout_global(Some(Duration::from_millis(HTTPS_CALL_MS_MAX)))
            .max_idle_connections_per_host(1)
            .tls_config(tls)
            .build();
        Ok(Self(config.into()))
    }

    /// Posts a body; an error says why it was not taken.
    pub fn post(&self, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<(), PostError> {
        let request = headers.iter().fold(self.0.post(url), |request, (name, value)| {
            request.header(*name, *value)
        });
        let response = request.send(body).map_err(|error| PostError {
            status: None,
            text: error.to_string(),
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        Err(PostError {
            status: Some(status.as_u16()),
            text: format!("it answers {status}"),
        })
    }
}

/// Why something was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct PostError {
    /// What was answered, if anything was.
    pub status: Option<u16>,
    /// In words.
    pub text: String,
}
