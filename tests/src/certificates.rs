//! A certificate authority made on the spot, and server certificates of it, good and bad ones, as PEM files.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// When a certificate is valid, seen from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// Since yesterday, for 90 days: long enough that nobody warns of its end.
    Now,
    /// Since yesterday, for 5 days.
    EndsSoon,
    /// Until yesterday.
    Expired,
    /// From tomorrow on.
    NotYet,
}

impl Validity {
    fn range(self, now: SystemTime) -> (SystemTime, SystemTime) {
        match self {
            Self::Now => (now - DAY, now + 90 * DAY),
            Self::EndsSoon => (now - DAY, now + 5 * DAY),
            Self::Expired => (now - 30 * DAY, now - DAY),
            Self::NotYet => (now + DAY, now + 30 * DAY),
        }
    }
}

/// A server's certificate chain and key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFiles {
    /// PEM, the server's certificate.
    pub certificate: PathBuf,
    /// PEM, PKCS#8, mode 0600.
    pub key: PathBuf,
}

/// An authority that lives as long as the test; only its certificate is written down.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
    ca_file: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes one; its certificate goes to `<dir>/<name>.pem`.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn new(dir: &Path, name: &str) -> Result<Self> {
        let key = KeyPair::generate().context("make the authority's key")?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let (from, until) = Validity::Now.range(SystemTime::now());
        (params.not_before, params.not_after) = (from.into(), until.into());
        let certificate = params.self_signed(&key).context("sign the authority's certificate")?;
        let ca_file = dir.join(format!("{name}.pem"));
        fs::write(&ca_file, certificate.pem()).with_context(|| format!("write {}", ca_file.display()))?;
        Ok(Self { dir: dir.to_owned(), ca_file, issuer: Issuer::new(params, key) })
    }

    /// What clients and probes trust.
    #[must_use]
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// A server certificate for these host names or IP addresses, in `<dir>/<file>.pem` and `<dir>/<file>.key`.
    ///
    /// # Errors
    /// When a name can't stand in a certificate or a file can't be written.
    pub fn issue(&self, file: &str, names: &[&str], validity: Validity) -> Result<ServerFiles> {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).context("names of a server certificate")?;
        params.distinguished_name.push(DnType::CommonName, file);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let (from, until) = validity.range(SystemTime::now());
        (params.not_before, params.not_after) = (from.into(), until.into());
        let key = KeyPair::generate().context("make a server's key")?;
        let certificate = params.signed_by(&key, &self.issuer).context("sign a server certificate")?;

        let files = ServerFiles {
            certificate: self.dir.join(format!("{file}.pem")),
            key: self.dir.join(format!("{file}.key")),
        };
        fs::write(&files.certificate, certificate.pem())
            .with_context(|| format!("write {}", files.certificate.display()))?;
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&files.key)
            .and_then(|mut key_file| key_file.write_all(key.serialize_pem().as_bytes()))
            .with_context(|| format!("write {}", files.key.display()))?;
        Ok(files)
    }
}
