//! `exocom dev`: everything at once for a laptop or a test.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use crate::cli::authority::{Authority, Issue};
use crate::cli::inventory;
use crate::cli::say;
use crate::cli::serve::{Signals, read_config, runtime, serve_until};
use crate::net::clock::Clock;
use crate::policy::Policy;
use crate::serve::{Server, load_policy};

/// Run a broker for a laptop or a test, with certificates for everybody in the policy
#[derive(Debug, Args)]
#[command(
    long_about = "Runs a broker for a laptop or a test: makes certificates for every service and operator of the \
        policy, starts, and prints on standard output, as its first line, `ready ADDRESS:PORT`.\n\n\
        Everything lies under DIR and is used again on the next start: certs/ (ca.pem, ca.key, and NAME.pem with \
        NAME.key for each service and operator), exocom.toml (the configuration it runs with), store/ (tracked messages), audit/ (the audit log, with its public key log.pub) and admin.sock. \
        Without --dir it is a temporary folder, removed at the end. One listener serves all zones.",
    after_long_help = "Examples:\n  \
        exocom dev --policy policies/todo.toml --dir /tmp/todo\n  \
        exocom status --admin /tmp/todo/admin.sock\n\n\
        A service connects with EXOCOM_PORT, EXOCOM_CA=DIR/certs/ca.pem, EXOCOM_CERT=DIR/certs/web.pem and \
        EXOCOM_KEY=DIR/certs/web.key."
)]
pub struct DevArgs {
    /// The policy: a file, or a folder of *.toml files
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0", value_parser = address)]
    listen: SocketAddr,
    /// The folder for everything; a temporary one if left out
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Keep no audit log
    #[arg(long)]
    no_audit: bool,
}

/// Does it.
pub fn run(args: &DevArgs) -> anyhow::Result<ExitCode> {
    let folder = Folder::open(args.dir.as_deref())?;
    runtime()?.block_on(async {
        let signals = Signals::new()?;
        let server = start(&args.policy, args.listen, folder.path(), !args.no_audit).await?;
        let address = server
            .addresses()
            .first()
            .copied()
            .context("the configuration has one listener")?;
        say(&format!("ready {address}")).context("cannot say on standard output where the broker listens")?;
        // Whoever started it may read no further than the first line.
        let shown = say(&format!("certificates {}", folder.path().join("certs").display()))
            .and_then(|()| say(&format!("admin {}", folder.path().join("admin.sock").display())));
        if let Err(error) = shown {
            tracing::debug!(%error, "standard output is closed");
        }
        serve_until(signals, server).await
    })
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let remedy = |_| "write an IP address and a port, such as 127.0.0.1:4222 or [::1]:4222".to_owned();
    text.parse().map_err(remedy)
}

/// The folder of a `dev` broker.
#[derive(Debug)]
pub(super) enum Folder {
    Kept(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Folder {
    pub(super) fn open(dir: Option<&Path>) -> anyhow::Result<Self> {
        let Some(dir) = dir else {
            let folder = tempfile::Builder::new().prefix("exocom-").tempdir();
            return Ok(Self::Temporary(folder.context("cannot make a temporary folder")?));
        };
        std::fs::create_dir_all(dir).with_context(|| format!("{}: cannot make the folder", dir.display()))?;
        let path = dir
            .canonicalize()
            .with_context(|| format!("{}: cannot use the folder", dir.display()))?;
        Ok(Self::Kept(path))
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }
}

/// Makes what is missing in `dir` and starts the broker.
pub(super) async fn start(
    policy_path: &Path,
    listen: SocketAddr,
    dir: &Path,
    keeps_audit: bool,
) -> anyhow::Result<Server> {
    let policy = load_policy(policy_path, true)?.policy;
    make_certificates(&policy, &dir.join("certs"))?;
    let policy_path = policy_path
        .canonicalize()
        .with_context(|| policy_path.display().to_string())?;
    let config = dir.join("exocom.toml");
    std::fs::write(
        &config,
        effective_configuration(&policy_path, listen, keeps_audit),
    )
    .with_context(|| format!("{}: cannot write the configuration", config.display()))?;
    Ok(Server::start(read_config(&config)?).await?)
}

fn effective_configuration(policy: &Path, listen: SocketAddr, keeps_audit: bool) -> String {
    let audit = if keeps_audit {
        "[audit]                       # who did what: exocom audit\nfolder = \"audit\"\n\n"
    } else {
        ""
    };
    let policy = toml::Value::String(policy.display().to_string());
    format!(
        "# Written by `exocom dev` at each start. A copy of it is a start for `exocom serve`.\n\
         version = 1\n\
         name = \"exocom-dev\"\n\
         policy = {policy}\n\
         admin-socket = \"admin.sock\"\n\n\
         [tls]\n\
         certificate = \"certs/server.pem\"\n\
         key = \"certs/server.key\"\n\n\
         [listener.dev]                # no zone: serves them all\n\
         address = \"{listen}\"\n\
         roots = [\"certs/ca.pem\"]\n\n\
         [store]                       # tracked messages: delivery = \"at-least-once\"\n\
         folder = \"store\"\n\n\
         {audit}[limits]\n\
         lame-duck-ms = 0              # a laptop has no time to lose\n"
    )
}

fn make_certificates(policy: &Policy, dir: &Path) -> anyhow::Result<()> {
    let now = Clock::unix_s();
    let issue = Issue::at(now);
    let authority = if dir.join("ca.pem").exists() {
        Authority::open(dir)?
    } else {
        Authority::init(dir, policy.trust_domain(), issue)?
    };
    if authority.trust_domain() != policy.trust_domain() {
        bail!(
            "{}: the root is of trust domain {}, the policy of {}; use another --dir",
            dir.display(),
            authority.trust_domain(),
            policy.trust_domain()
        );
    }
    // A certificate with less than a day to live would end in the middle of the work.
    let fresh: BTreeSet<PathBuf> = inventory::list(dir, now)?
        .into_iter()
        .filter(|listed| listed.refused.is_none() && listed.not_after_unix_s > now + 86_400)
        .map(|listed| listed.file)
        .collect();
    let missing = |name: &str| !fresh.contains(&dir.join(format!("{name}.pem")));
    let issue = Issue { force: true, ..issue };
    if missing("server") {
        authority.issue_server(&[], issue)?;
    }
    for service in policy.services().filter(|service| missing(service.name())) {
        authority.issue_service(service.name(), issue)?;
    }
    let is_service = |name: &str| policy.service(name).is_some();
    for operator in policy.operators() {
        if is_service(operator.name()) {
            bail!(
                "{}: an operator and a service are both called {}, and their certificates would be one file; \
                 rename one",
                operator.rule(),
                operator.name()
            );
        }
        if missing(operator.name()) {
            authority.issue_operator(operator.name(), issue)?;
        }
    }
    Ok(())
}
