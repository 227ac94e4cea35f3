//! PEM files to the parts of a [`TlsServer`](super::TlsServer). Reading is bounded; every error names the file.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::{ClientVerifier, Shown, TlsConfigError, Trust};
use crate::limits::{CRL_FILE_BYTES_MAX, PEM_FILE_BYTES_MAX};

/// Where the certificate is that a server shows.
#[derive(Debug, Clone)]
pub struct ShownFiles {
    /// The server's certificate, then its intermediates.
    pub certificate: PathBuf,
    /// Its private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

impl ShownFiles {
    /// Reads both files and checks that they belong together. On any error the caller keeps what it has.
    pub fn load(&self) -> Result<Shown, TlsConfigError> {
        let certificate = read_certificates(&self.certificate)?;
        Shown::new(certificate, read_private_key(&self.key)?)
            .map_err(|error| in_files([&self.certificate, &self.key], error))
    }

    /// All files that are read.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.certificate, &self.key].into_iter()
    }
}

/// Where the parts of a [`Trust`] are.
#[derive(Debug, Clone)]
pub struct TrustFiles {
    /// Each trust domain with a file of the roots bound to it.
    pub roots: Vec<(String, PathBuf)>,
    /// Files of revocation lists; `None` revokes nothing, an empty list is an error.
    pub crls: Option<Vec<PathBuf>>,
    /// The longest life of a client's certificate, in days.
    pub lifetime_max_days: u32,
}

impl TrustFiles {
    /// Reads all files and checks what they say. On any error the caller keeps what it has.
    pub fn load(&self) -> Result<ClientVerifier, TlsConfigError> {
        let roots = self
            .roots
            .iter()
            .map(|(trust_domain, file)| Ok((trust_domain.clone(), read_certificates(file)?)));
        let trust = Trust {
            roots: roots.collect::<Result<_, TlsConfigError>>()?,
            crls: self.crls.as_deref().map(read_all_crls).transpose()?,
            lifetime_max_days: self.lifetime_max_days,
        };
        trust.verifier().map_err(|error| self.name_files(error))
    }

    /// All files that are read.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let roots = self.roots.iter().map(|(_, file)| file);
        roots.chain(self.crls.iter().flatten())
    }

    /// The same error with the files that it is about.
    pub fn name_files(&self, error: TlsConfigError) -> TlsConfigError {
        let roots = self.roots.iter();
        let files: Vec<&PathBuf> = match &error {
            TlsConfigError::Root { trust_domain, .. } | TlsConfigError::TrustDomain { trust_domain, .. } => {
                let of_domain = roots.filter(|(domain, _)| domain == trust_domain);
                of_domain.map(|(_, file)| file).collect()
            }
            TlsConfigError::NoCrls | TlsConfigError::Crl { .. } => self.crls.iter().flatten().collect(),
            _ => roots.map(|(_, file)| file).collect(),
        };
        in_files(files, error)
    }
}

fn in_files<'a>(files: impl IntoIterator<Item = &'a PathBuf>, error: TlsConfigError) -> TlsConfigError {
    let names: Vec<_> = files.into_iter().map(|file| file.display().to_string()).collect();
    let files = if names.is_empty() {
        "the configuration".to_owned()
    } else {
        names.join(", ")
    };
    TlsConfigError::InFiles {
        files,
        error: Box::new(error),
    }
}

/// Reads all certificates of a file; at least one.
pub fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    read_sections(file, PEM_FILE_BYTES_MAX, "certificate", "CERTIFICATE")
}

/// Reads all revocation lists of a file; at least one.
pub fn read_crls(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsConfigError> {
    read_sections(
        file,
        CRL_FILE_BYTES_MAX,
        "certificate revocation list",
        "X509 CRL",
    )
}

/// Reads the first private key of a file.
pub fn read_private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsConfigError> {
    let pem = read_bounded(file, PEM_FILE_BYTES_MAX)?;
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| no_section(file, "private key", "PRIVATE KEY", error.to_string()))
}

fn read_all_crls(files: &[PathBuf]) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsConfigError> {
    let lists = files
        .iter()
        .map(|file| read_crls(file))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(lists.into_iter().flatten().collect())
}

fn read_sections<T: PemObject>(
    file: &Path,
    bytes_max: u64,
    wanted: &'static str,
    label: &'static str,
) -> Result<Vec<T>, TlsConfigError> {
    let pem = read_bounded(file, bytes_max)?;
    let sections = T::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| no_section(file, wanted, label, error.to_string()))?;
    if sections.is_empty() {
        return Err(no_section(
            file,
            wanted,
            label,
            "nothing of that kind is in it".to_owned(),
        ));
    }
    Ok(sections)
}

fn read_bounded(file: &Path, bytes_max: u64) -> Result<Vec<u8>, TlsConfigError> {
    let failed = |error| TlsConfigError::Read {
        file: file.display().to_string(),
        error,
    };
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|opened| opened.take(bytes_max + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    let len = bytes.len() as u64;
    if len > bytes_max {
        return Err(TlsConfigError::FileSize {
            file: file.display().to_string(),
            bytes: len,
            bytes_max,
        });
    }
    Ok(bytes)
}

fn no_section(file: &Path, wanted: &'static str, label: &'static str, error: String) -> TlsConfigError {
    TlsConfigError::Pem {
        file: file.display().to_string(),
        wanted,
        label,
        error,
    }
}
