//! The configuration file: raw TOML to a configuration that is valid as a whole.
//!
//! Pure: text and the folder it lies in come in, nothing is read here. Paths in the file are relative to the
//! file. An error names line and column, and says what to write instead.

mod audit;
mod metrics;
mod outside;
mod store;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::limits::{
    CERT_LIFE_DAYS_MAX, HALF_OPEN_MAX, HALF_OPEN_PER_ADDRESS_MAX, HANDSHAKE_MS_MAX, LAME_DUCK_MS,
    PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MAX_CONFIGURABLE, QUARANTINED_BY_ALARMS_MAX, THREADS_MAX,
};
use crate::policy::shown;

pub use audit::{AuditConfig, OnFailure, WitnessConfig};
pub use outside::WebhookConfig;
pub use store::StoreConfig;

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name that clients see.
    pub name: String,
    /// The policy: a file, or a folder of them.
    pub policy: PathBuf,
    /// The Unix socket for operators.
    pub admin_socket: PathBuf,
    /// The port for operators elsewhere; `None`: only the socket.
    pub admin: Option<ListenerConfig>,
    /// The folder of what the broker keeps besides messages.
    pub state: PathBuf,
    /// Threads that carry connections; `None`: one a core.
    pub threads: Option<usize>,
    /// The server's certificate and its intermediates.
    pub certificate: PathBuf,
    /// The server's private key.
    pub key: PathBuf,
    /// The listeners, at least one.
    pub listeners: Vec<ListenerConfig>,
    /// The store of tracked messages; without one the policy must ask for no durable delivery.
    pub store: Option<StoreConfig>,
    /// The audit log, if one is kept.
    pub audit: Option<AuditConfig>,
    /// Whom alarms are told, besides the log and the audit log.
    pub webhook: Option<WebhookConfig>,
    /// Where metrics are read without a certificate, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// How many services alarms may hold at once.
    pub quarantine_max: usize,
    /// The files of the root certificates that vouch for servers which the broker calls; `None`: the system's.
    pub https_roots: Option<Vec<PathBuf>>,
    /// The bounds that may be set.
    pub limits: LimitsConfig,
}

/// One zone's port.
#[derive(Debug, Clone)]
pub struct ListenerConfig {
    /// Its name in the configuration.
    pub name: String,
    /// The section of the configuration that makes it.
    pub section: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// The zone whose services may use it; `None`: all.
    pub zone: Option<String>,
    /// Files of root certificates, each with the trust domain it may vouch for; `None`: the policy's.
    pub roots: Vec<(Option<String>, PathBuf)>,
    /// Files of revocation lists; `None`: none are checked.
    pub crls: Option<Vec<PathBuf>>,
}

/// The bounds that may be set; each key says its unit.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LimitsConfig {
    /// The largest payload with its headers.
    pub payload_bytes: usize,
    /// From accept to the end of the TLS handshake.
    pub handshake_ms: u64,
    /// Handshakes under way in all.
    pub half_open: usize,
    /// Handshakes under way from one address.
    pub half_open_per_address: usize,
    /// Connections in all; `None`: as many as the system's open files allow, up to `CONNECTIONS_MAX`.
    pub connections: Option<usize>,
    /// Connections of one service; `None`: half of all.
    pub connections_per_service: Option<usize>,
    /// The longest life of a client's certificate.
    pub certificate_life_days: u32,
    /// From the notice of a shutdown to its end.
    pub lame_duck_ms: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            payload_bytes: PAYLOAD_BYTES_MAX,
            handshake_ms: HANDSHAKE_MS_MAX,
            half_open: HALF_OPEN_MAX,
            half_open_per_address: HALF_OPEN_PER_ADDRESS_MAX,
            connections: None,
            connections_per_service: None,
            certificate_life_days: CERT_LIFE_DAYS_MAX,
            lame_duck_ms: LAME_DUCK_MS,
        }
    }
}

/// A configuration that cannot be used: where, what, and what to write instead, ready to be shown.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawConfig {
    version: Spanned<i64>,
    #[serde(default = "default_name")]
    name: Spanned<String>,
    policy: PathBuf,
    admin_socket: PathBuf,
    #[serde(default = "default_state")]
    state: PathBuf,
    threads: Option<Spanned<usize>>,
    tls: RawTls,
    admin: Option<RawAdmin>,
    #[serde(default)]
    listener: BTreeMap<String, RawListener>,
    store: Option<Spanned<store::RawStore>>,
    audit: Option<audit::RawAudit>,
    alarms: Option<outside::RawAlarms>,
    metrics: Option<metrics::RawMetrics>,
    #[serde(default)]
    https: outside::RawHttps,
    #[serde(default)]
    limits: Option<Spanned<LimitsConfig>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTls {
    certificate: PathBuf,
    key: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAdmin {
    listen: Spanned<String>,
    roots: Option<Spanned<Vec<RawRoots>>>,
    crls: Option<Spanned<Vec<PathBuf>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawListener {
    address: Spanned<String>,
    zone: Option<Spanned<String>>,
    roots: Spanned<Vec<RawRoots>>,
    crls: Option<Spanned<Vec<PathBuf>>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawRoots {
    OfThePolicysDomain(PathBuf),
    Bound {
        #[serde(rename = "trust-domain")]
        trust_domain: String,
        file: PathBuf,
    },
}

fn default_name() -> Spanned<String> {
    Spanned::new(0..0, "exocom".to_owned())
}

fn default_state() -> PathBuf {
    "state".into()
}

impl Config {
    /// Reads a configuration. `file` names it in errors; its folder is where relative paths start.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let problem = |span: Range<usize>, message: &str, help: &str| {
            ConfigError(render(&file.display().to_string(), text, span, message, help))
        };
        let raw: RawConfig = toml::from_str(text).map_err(|error| {
            problem(
                error.span().unwrap_or_default(),
                error.message(),
                "docs/configuration.md lists every key",
            )
        })?;
        if *raw.version.get_ref() != 1 {
            return Err(problem(
                raw.version.span(),
                "this version of the format is not known",
                "write version = 1",
            ));
        }
        let name = raw.name.get_ref();
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            let message = "the name must be printable ASCII without spaces";
            return Err(problem(raw.name.span(), message, "write name = \"exocom\""));
        }
        if let Some(threads) = &raw.threads
            && !(1..=THREADS_MAX).contains(threads.get_ref())
        {
            let help = format!("write a number from 1 to {THREADS_MAX}, or leave it out for one a core");
            return Err(problem(
                threads.span(),
                "the number of threads is out of range",
                &help,
            ));
        }
        if raw.listener.is_empty() {
            let help = "add [listener.main] with address = \"0.0.0.0:4222\" and roots = [\"certs/ca.pem\"]";
            return Err(problem(text.len()..text.len(), "there is no listener", help));
        }
        let folder = file.parent().unwrap_or(Path::new(""));
        let listeners = raw
            .listener
            .into_iter()
            .map(|(name, raw)| listener(name, raw, folder, &problem))
            .collect::<Result<Vec<_>, _>>()?;
        let admin = raw
            .admin
            .map(|raw| admin(raw, &listeners, folder, &problem))
            .transpose()?;
        let store = raw
            .store
            .map(|raw| store::store(raw, folder, &problem))
            .transpose()?;
        let audit = raw
            .audit
            .map(|raw| audit::audit(raw, folder, &problem))
            .transpose()?;
        let quarantine_max = raw.alarms.as_ref().and_then(|alarms| alarms.quarantine_max);
        let webhook = match raw.alarms {
            Some(alarms) => outside::webhook(alarms, folder, &problem)?,
            None => None,
        };
        let metrics = raw
            .metrics
            .map(|raw| metrics::metrics(raw, &problem))
            .transpose()?;
        let limits = match raw.limits {
            Some(limits) => {
                check_limits(limits.get_ref())
                    .map_err(|(message, help)| problem(limits.span(), message, &help))?;
                limits.into_inner()
            }
            None => LimitsConfig::default(),
        };
        Ok(Self {
            name: raw.name.into_inner(),
            policy: folder.join(raw.policy),
            admin_socket: folder.join(raw.admin_socket),
            admin,
            state: folder.join(raw.state),
            threads: raw.threads.map(Spanned::into_inner),
            certificate: folder.join(raw.tls.certificate),
            key: folder.join(raw.tls.key),
            listeners,
            store,
            audit,
            webhook,
            metrics,
            quarantine_max: quarantine_max.unwrap_or(QUARANTINED_BY_ALARMS_MAX),
            https_roots: raw.https.roots(folder),
            limits,
        })
    }
}

/// Says where in the file something is wrong, and what to write instead.
type Problem<'a> = &'a dyn Fn(Range<usize>, &str, &str) -> ConfigError;

fn listener(
    name: String,
    raw: RawListener,
    folder: &Path,
    problem: Problem<'_>,
) -> Result<ListenerConfig, ConfigError> {
    let address = address(&raw.address, problem)?;
    if let Some(zone) = raw.zone.as_ref().filter(|zone| zone.get_ref().is_empty()) {
        return Err(problem(
            zone.span(),
            "a zone needs a name",
            "leave zone out to serve all zones",
        ));
    }
    Ok(ListenerConfig {
        section: format!("listener.{name}"),
        name,
        address,
        zone: raw.zone.map(Spanned::into_inner),
        roots: roots(raw.roots, folder, problem)?,
        crls: raw.crls.map(|crls| lists(crls, folder, problem)).transpose()?,
    })
}

/// The port for operators. Without roots of its own it believes those of all listeners, and asks all their lists.
fn admin(
    raw: RawAdmin,
    listeners: &[ListenerConfig],
    folder: &Path,
    problem: Problem<'_>,
) -> Result<ListenerConfig, ConfigError> {
    let address = address(&raw.listen, problem)?;
    let (roots, crls) = match (raw.roots, raw.crls) {
        (Some(own), crls) => (
            roots(own, folder, problem)?,
            crls.map(|crls| lists(crls, folder, problem)).transpose()?,
        ),
        (None, Some(crls)) => {
            let help = "add roots, or leave crls out to ask the lists of the listeners";
            return Err(problem(
                crls.span(),
                "revocation lists of its own need roots of its own",
                help,
            ));
        }
        (None, None) => {
            let lists = distinct(
                listeners
                    .iter()
                    .flat_map(|listener| listener.crls.iter().flatten()),
            );
            (
                distinct(listeners.iter().flat_map(|listener| &listener.roots)),
                Some(lists).filter(|lists| !lists.is_empty()),
            )
        }
    };
    Ok(ListenerConfig {
        name: "admin".to_owned(),
        section: "admin".to_owned(),
        address,
        zone: None,
        roots,
        crls,
    })
}

fn address(address: &Spanned<String>, problem: Problem<'_>) -> Result<SocketAddr, ConfigError> {
    address.get_ref().parse().map_err(|_| {
        let help = "write an IP address and a port, such as \"0.0.0.0:4222\" or \"[::]:4222\"";
        problem(address.span(), "this is not an address to listen on", help)
    })
}

fn roots(
    raw: Spanned<Vec<RawRoots>>,
    folder: &Path,
    problem: Problem<'_>,
) -> Result<Vec<(Option<String>, PathBuf)>, ConfigError> {
    if raw.get_ref().is_empty() {
        let help = "write roots = [\"certs/ca.pem\"], the certificates that vouch for your services";
        return Err(problem(raw.span(), "without a root nobody could connect", help));
    }
    let roots = raw.into_inner().into_iter().map(|roots| match roots {
        RawRoots::OfThePolicysDomain(file) => (None, folder.join(file)),
        RawRoots::Bound { trust_domain, file } => (Some(trust_domain), folder.join(file)),
    });
    Ok(roots.collect())
}

fn lists(
    raw: Spanned<Vec<PathBuf>>,
    folder: &Path,
    problem: Problem<'_>,
) -> Result<Vec<PathBuf>, ConfigError> {
    if raw.get_ref().is_empty() {
        let help = "name the files, or leave crls out to check none";
        return Err(problem(
            raw.span(),
            "an empty list would look like a check and check nothing",
            help,
        ));
    }
    Ok(raw
        .into_inner()
        .into_iter()
        .map(|file| folder.join(file))
        .collect())
}

fn distinct<'a, T: Clone + PartialEq + 'a>(all: impl Iterator<Item = &'a T>) -> Vec<T> {
    let mut seen: Vec<T> = Vec::new();
    for one in all {
        if !seen.contains(one) {
            seen.push(one.clone());
        }
    }
    seen
}

fn check_limits(limits: &LimitsConfig) -> Result<(), (&'static str, String)> {
    if !(1..=PAYLOAD_BYTES_MAX_CONFIGURABLE).contains(&limits.payload_bytes) {
        let help = format!("write a number from 1 to {PAYLOAD_BYTES_MAX_CONFIGURABLE}");
        return Err(("payload-bytes is out of range", help));
    }
    if !(100..=60_000).contains(&limits.handshake_ms) {
        return Err((
            "handshake-ms is out of range",
            "write a number from 100 to 60000".to_owned(),
        ));
    }
    let is_zero = |count: Option<usize>| count == Some(0);
    if limits.half_open == 0
        || limits.half_open_per_address == 0
        || is_zero(limits.connections)
        || is_zero(limits.connections_per_service)
    {
        return Err((
            "a limit of 0 would let nobody in",
            "leave it out for the default".to_owned(),
        ));
    }
    if limits.certificate_life_days == 0 {
        return Err((
            "certificate-life-days of 0 would let nobody in",
            "leave it out for 398".to_owned(),
        ));
    }
    if limits.lame_duck_ms > 600_000 {
        return Err(("lame-duck-ms is out of range", "write at most 600000".to_owned()));
    }
    Ok(())
}

fn render(file: &str, text: &str, span: Range<usize>, message: &str, help: &str) -> String {
    let snippet = Snippet::source(shown(text))
        .path(file)
        .annotation(AnnotationKind::Primary.span(span));
    let report = [
        Level::ERROR.primary_title(shown(message)).element(snippet),
        annotate_snippets::Group::with_title(Level::HELP.secondary_title(help)),
    ];
    Renderer::plain().render(&report)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
version = 1
policy = "policy.toml"
admin-socket = "admin.sock"

[tls]
certificate = "certs/server.pem"
key = "certs/server.key"

[listener.dmz]
address = "127.0.0.1:4222"
zone = "dmz"
roots = ["certs/ca.pem", { trust-domain = "partner.example", file = "certs/partner.pem" }]
"#;

    #[test]
    fn paths_are_relative_to_the_file() {
        let config = Config::parse(Path::new("/etc/exocom/exocom.toml"), GOOD).unwrap();
        assert_eq!(config.policy, Path::new("/etc/exocom/policy.toml"));
        let listener = &config.listeners[0];
        assert_eq!(listener.zone.as_deref(), Some("dmz"));
        assert_eq!(listener.roots[0], (None, "/etc/exocom/certs/ca.pem".into()));
        assert_eq!(listener.roots[1].0.as_deref(), Some("partner.example"));
        assert_eq!(config.limits.payload_bytes, 1 << 20);
    }

    #[test]
    fn operators_are_believed_by_the_listeners_roots_or_by_their_own() {
        let admin = |more: &str| {
            let text = format!(
                "{GOOD}crls = [\"a.crl\"]\n[listener.two]\naddress = \"127.0.0.1:1\"\n\
                roots = [\"certs/ca.pem\", \"two.pem\"]\n{more}"
            );
            Config::parse(Path::new("x.toml"), &text).map(|config| config.admin)
        };
        assert!(admin("").unwrap().is_none());
        let all = admin("[admin]\nlisten = \"127.0.0.1:4223\"").unwrap().unwrap();
        let files = |admin: &ListenerConfig| -> Vec<String> {
            let files = admin
                .roots
                .iter()
                .map(|(_, file)| file)
                .chain(admin.crls.iter().flatten());
            files.map(|file| file.display().to_string()).collect()
        };
        assert_eq!(
            files(&all),
            ["certs/ca.pem", "certs/partner.pem", "two.pem", "a.crl"]
        );
        let own = admin("[admin]\nlisten = \"127.0.0.1:4223\"\nroots = [\"o.pem\"]")
            .unwrap()
            .unwrap();
        assert_eq!(files(&own), ["o.pem"]);
        assert!(own.crls.is_none());
        let error = admin("[admin]\nlisten = \"127.0.0.1:4223\"\ncrls = [\"o.crl\"]").unwrap_err();
        assert!(error.to_string().contains("add roots"), "{error}");
    }

    #[test]
    fn terminal_codes_in_a_configuration_reach_no_terminal() {
        for text in [
            "\u{1b}[31m = 1",
            "x = \"\u{9b}31m",
            "\"\u{9b}31m\" = 1",
            "\u{9b}31m",
        ] {
            for text in [
                text.to_owned(),
                format!("{GOOD}\n{text}"),
                format!("version = 1 # {text}"),
            ] {
                let error = Config::parse(Path::new("x.toml"), &text).unwrap_err().to_string();
                let control = error.chars().find(|char| char.is_control() && *char != '\n');
                assert_eq!(control, None, "{error}");
            }
        }
    }

    #[test]
    fn mistakes_are_shown_with_line_column_and_remedy() {
        let check = |from: &str, to: &str, place: &str, words: &str| {
            assert!(GOOD.contains(from), "{from}");
            let error = Config::parse(Path::new("x.toml"), &GOOD.replace(from, to))
                .unwrap_err()
                .to_string();
            assert!(error.contains(place), "{error}");
            assert!(error.contains(words), "{error}");
        };
        check("version = 1", "version = 2", "x.toml:2:11", "write version = 1");
        check("version = 1", "", "x.toml:", "missing field `version`");
        check("policy =", "polizy =", "x.toml:3:1", "unknown field `polizy`");
        check(
            "127.0.0.1:4222",
            "localhost",
            "x.toml:11:11",
            "write an IP address and a port",
        );
        check("zone = \"dmz\"", "zone = \"\"", "x.toml:12:8", "leave zone out");
        check(
            "zone = \"dmz\"",
            "crls = []",
            "x.toml:12:8",
            "name the files, or leave crls out",
        );
        check("[listener.dmz]", "[other]", "x.toml:", "unknown field `other`");
        check("[tls]", "[tls", "x.toml:6:5", "error");
        check("roots = [", "roots = [] #", "x.toml:13:9", "certs/ca.pem");
        check(
            "[tls]",
            "[limits]\npayload-bytes = 0\n[tls]",
            "x.toml:6:1",
            "from 1 to",
        );
        check("[tls]", "threads = 0\n[tls]", "x.toml:6:11", "one a core");
    }
}
