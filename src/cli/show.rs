//! `exocom certs show`: what ExoCom would make of a certificate, rule by rule, by the code of the handshake.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use crate::cli::answer::print_json;
use crate::cli::certs::date;
use crate::cli::inventory::root_of;
use crate::cli::serve::read_config;
use crate::identity::{Finding, Identity, Role, describe};
use crate::limits::CERT_LIFE_DAYS_MAX;
use crate::net::tls::{TlsServer, Trust, fingerprint, read_certificates};
use crate::policy::Policy;
use crate::serve::{client_tls, load_policy};

/// Show what ExoCom would make of a certificate, rule by rule
#[derive(Debug, Args)]
#[command(
    long_about = "Shows what ExoCom would make of a certificate, rule by rule, by the same code as the handshake; nothing is \
        connected.\n\n\
        With --config it is asked of each listener of a configuration: its roots, its revocation lists, what operators have \
        revoked, and whether the policy lets it in. Without, the root is ca.pem beside the file.\n\n\
        Ends with 1 where it would be refused; with --config, where every listener would refuse it.",
    after_long_help = "Examples:\n  \
        exocom certs show certs/web.pem\n  \
        exocom certs show web.pem --config /etc/exocom/exocom.toml --json"
)]
pub struct ShowArgs {
    /// The certificate in PEM, its intermediates after it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The configuration of the broker that would be asked
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Shown {
    file: String,
    certificate: String,
    fingerprint: String,
    asked: Vec<AskedOf>,
}

/// What one listener would make of it.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct AskedOf {
    of: String,
    accepted: bool,
    rules: Vec<Row>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Row {
    asked: String,
    kept: bool,
    rule: Option<&'static str>,
    found: String,
}

impl ShowArgs {
    /// Does it.
    pub fn run(&self, now_unix_s: i64, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
        let chain = read_certificates(&self.file)?;
        let leaf = chain.first().context("the file has a certificate")?;
        let asked = match &self.config {
            Some(config) => of_configuration(config, &chain, now_unix_s)?,
            None => vec![of_folder(&self.file, &chain, now_unix_s)?],
        };
        let is_accepted = asked.iter().any(|asked| asked.accepted);
        let shown = Shown {
            file: self.file.display().to_string(),
            certificate: describe(leaf),
            fingerprint: fingerprint(leaf)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            asked,
        };
        if self.json {
            print_json(out, &shown)?;
        } else {
            shown.print(out)?;
        }
        Ok(if is_accepted {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

type Chain = [rustls::pki_types::CertificateDer<'static>];

/// With the root beside the file.
fn of_folder(file: &Path, chain: &Chain, now_unix_s: i64) -> anyhow::Result<AskedOf> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let (trust_domain, root) = root_of(folder.unwrap_or(Path::new(".")))
        .context("which root? Put ca.pem beside the file, or name a configuration with --config")?;
    let trust = Trust {
        roots: vec![(trust_domain.clone(), vec![root])],
        crls: None,
        lifetime_max_days: CERT_LIFE_DAYS_MAX,
    };
    let verifier = trust.verifier()?;
    let identity = verifier.identify(chain, now_unix_s);
    let mut rules = rows(verifier.examine(chain, now_unix_s))?;
    rules.push(verdict(&identity)?);
    Ok(AskedOf {
        of: format!("the root of {trust_domain}"),
        accepted: identity.is_ok(),
        rules,
    })
}

fn of_configuration(config: &Path, chain: &Chain, now_unix_s: i64) -> anyhow::Result<Vec<AskedOf>> {
    let config = read_config(config)?;
    let policy = load_policy(&config.policy, config.store.is_some())?.policy;
    let listeners = client_tls(&config, policy.trust_domain())?;
    listeners
        .into_iter()
        .map(|(name, zone, tls)| {
            let (accepted, rules) = of_listener(&name, zone.as_deref(), &tls, &policy, chain, now_unix_s)?;
            Ok(AskedOf {
                of: format!("listener {name}"),
                accepted,
                rules,
            })
        })
        .collect()
}

fn of_listener(
    name: &str,
    zone: Option<&str>,
    tls: &TlsServer,
    policy: &Policy,
    chain: &Chain,
    now_unix_s: i64,
) -> anyhow::Result<(bool, Vec<Row>)> {
    let identity = tls.recheck(chain, now_unix_s);
    let mut rules = rows(tls.examine(chain, now_unix_s))?;
    rules.push(verdict(&identity)?);
    let Ok(identity) = identity else {
        return Ok((false, rules));
    };
    let admitted = match (name, &identity.role) {
        ("admin", _) => policy
            .operator(&identity)
            .map(|operator| operator.name().to_string()),
        _ => policy
            .admit(&identity, zone)
            .map(|admission| admission.rule().to_string()),
    };
    let accepted = admitted.is_ok();
    rules.push(Row {
        asked: "let in by the policy".to_owned(),
        kept: accepted,
        rule: None,
        found: admitted.unwrap_or_else(|denial| denial.to_string()),
    });
    Ok((accepted, rules))
}

fn rows(findings: Vec<Finding>) -> anyhow::Result<Vec<Row>> {
    let rows = findings.into_iter().map(|finding| Row {
        asked: finding.asked.to_owned(),
        kept: finding.found.is_ok(),
        rule: finding.found.as_ref().err().map(crate::identity::Refusal::rule),
        found: finding.found.unwrap_or_else(|refusal| refusal.to_string()),
    });
    Ok(rows.collect())
}

/// What the whole handshake says: signatures, issuers and lists too.
fn verdict(identity: &Result<Identity, crate::net::tls::RefusedHandshake>) -> anyhow::Result<Row> {
    let asked = "a chain to a root, nothing revoked".to_owned();
    Ok(match identity {
        Ok(identity) => Row {
            asked,
            kept: true,
            rule: None,
            found: format!(
                "{} {} until {}",
                match identity.role {
                    Role::Service(_) => "service",
                    Role::Operator(_) => "an",
                },
                identity.role,
                date(identity.expires_unix_s)?
            ),
        },
        Err(refused) => Row {
            asked,
            kept: false,
            rule: Some(refused.rule),
            found: refused.message.clone(),
        },
    })
}

impl Shown {
    fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        writeln!(out, "{}: {}", self.file, self.certificate)?;
        writeln!(out, "sha256 {}", self.fingerprint)?;
        for asked in &self.asked {
            let verdict = if asked.accepted {
                "would be accepted"
            } else {
                "would be REFUSED"
            };
            writeln!(out, "\n{}: {verdict}", asked.of)?;
            for row in &asked.rules {
                let (mark, rule) = match (row.kept, row.rule) {
                    (true, _) => ("ok  ", String::new()),
                    (false, Some(rule)) => ("FAIL", format!("{rule}: ")),
                    (false, None) => ("FAIL", String::new()),
                };
                writeln!(out, "  {mark}  {}: {rule}{}", row.asked, row.found)?;
            }
        }
        Ok(())
    }
}
