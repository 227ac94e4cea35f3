//! `exocom certs p12`: a certificate and its key in one encrypted file, as browsers and key chains import it.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Args;
use p12_keystore::{
    Certificate, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKey, PrivateKeyChain,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::PrivateKeyDer;

use crate::cli::authority::write_secret;
use crate::limits::CONFIG_BYTES_MAX;
use crate::net::tls::{Shown, fingerprint, read_certificates, read_private_key};

/// Rounds of the key derivation: what OWASP asks of PBKDF2 with SHA-256.
const ITERATIONS: u32 = 600_000;

/// The bytes of a password that is made here: as strong as the key it keeps.
const PASSWORD_BYTES: usize = 16;

/// Write a certificate and its key into a PKCS #12 file, for an operator's browser
#[derive(Debug, Args)]
#[command(
    long_about = "Writes a certificate, its chain and its key into one PKCS #12 file (.p12), which browsers and key chains \
        import. It is encrypted with AES-256 by a password: the first line of --password-file, or else one that is made and \
        shown once.",
    after_long_help = "Example:\n  exocom certs p12 certs/alice.pem --out alice.p12"
)]
pub struct P12Args {
    /// The certificate in PEM, its intermediates after it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Its private key in PEM (PKCS #8); otherwise the file of the same name that ends in .key
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The file to write; otherwise the file of the same name that ends in .p12
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// A file whose first line is the password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
}

impl P12Args {
    /// Does it.
    pub fn run(&self, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
        let key_file = self
            .key
            .clone()
            .unwrap_or_else(|| self.file.with_extension("key"));
        let chain = read_certificates(&self.file)?;
        let key = read_private_key(&key_file)?;
        Shown::new(chain.clone(), key.clone_key())
            .with_context(|| format!("{} and {} are no pair", self.file.display(), key_file.display()))?;
        let PrivateKeyDer::Pkcs8(key) = key else {
            anyhow::bail!(
                "{}: expected a key in PKCS #8 (BEGIN PRIVATE KEY); `openssl pkcs8 -topk8 -nocrypt` makes one of it",
                key_file.display()
            );
        };
        let (password, is_made) = match &self.password_file {
            Some(file) => (first_line(file)?, false),
            None => (made_password()?, true),
        };
        let alias = self
            .file
            .file_stem()
            .map_or_else(|| "exocom".to_owned(), |stem| stem.to_string_lossy().into_owned());
        let certificates = chain
            .iter()
            .map(|certificate| Certificate::from_der(certificate))
            .collect::<Result<Vec<_>, _>>()?;
        let leaf = chain.first().context("the file has a certificate")?;
        let entry = PrivateKeyChain::new(
            fingerprint(leaf).to_vec(),
            PrivateKey::from_der(key.secret_pkcs8_der())?,
            certificates,
        );
        let mut store = KeyStore::new();
        store.add_entry(&alias, KeyStoreEntry::PrivateKeyChain(entry));
        let bytes = store
            .writer(&password)
            .encryption_algorithm(EncryptionAlgorithm::PbeWithHmacSha256AndAes256)
            .encryption_iterations(ITERATIONS)
            .mac_algorithm(MacAlgorithm::HmacSha256)
            .mac_iterations(ITERATIONS)
            .write()?;
        let target = self
            .out
            .clone()
            .unwrap_or_else(|| self.file.with_extension("p12"));
        write_secret(&target, &bytes, self.force)?;
        writeln!(out, "{}", target.display())?;
        if is_made {
            writeln!(out, "password {password}")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn first_line(file: &std::path::Path) -> anyhow::Result<String> {
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(CONFIG_BYTES_MAX as u64).read_to_string(&mut text))
        .with_context(|| format!("{}: cannot read the password", file.display()))?;
    let line = text.lines().next().unwrap_or_default();
    ensure!(
        !line.is_empty(),
        "{}: its first line is empty; it is the password",
        file.display()
    );
    Ok(line.to_owned())
}

fn made_password() -> anyhow::Result<String> {
    let mut random = [0; PASSWORD_BYTES];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
