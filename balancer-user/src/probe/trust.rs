//! Which certificates a probe accepts, read once: the system's roots, or the operator's own file.
//!
//! The file is taken as hostile: a device, a FIFO or a disk image given by mistake is an error, not a hang.
//! Deliberately not here: how a certificate is judged (`certificate.rs`).

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// A whole system's bundle is about 250 kB.
const LARGEST_CA_FILE: u64 = 4 * 1024 * 1024;

/// Which certificates are accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verify {
    /// Any, whatever its name and dates. The handshake's signature is still checked: the server holds the key of the
    /// certificate that it shows.
    Off,
    /// Those that the system trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured).
    SystemRoots,
    /// Those issued by the certificates in this PEM file, and those in it themselves.
    CaFile(PathBuf),
}

/// Why a prober could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ProbeSetupError {
    /// Not a host name nor an address.
    #[error(
        "server_name {name:?} is neither a host name nor an IP address; write it as in the certificate, e.g. pw.example.org (international names in their xn-- form)"
    )]
    InvalidServerName {
        /// As it was given.
        name: String,
    },
    /// Nothing to trust on this system.
    #[error(
        "this system has no root certificates{why}; install the package ca-certificates, or give ca_file, or set verify = false"
    )]
    NoSystemRoots {
        /// The first trouble met, if any.
        why: String,
    },
    /// The file can't be opened or read.
    #[error("cannot read ca_file {}: {source}", path.display())]
    CaFileUnreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory, device or FIFO.
    #[error("ca_file {} is not a regular file; give a file with certificates in PEM form", path.display())]
    CaFileNotRegular {
        /// The file.
        path: PathBuf,
    },
    /// Larger than any bundle.
    #[error("ca_file {} is larger than {} MiB; give a file with certificates in PEM form", path.display(), LARGEST_CA_FILE >> 20)]
    CaFileTooLarge {
        /// The file.
        path: PathBuf,
    },
    /// No PEM in it.
    #[error("ca_file {} has no certificate in PEM form (-----BEGIN CERTIFICATE-----); convert a DER file with: openssl x509 -inform der", path.display())]
    CaFileEmpty {
        /// The file.
        path: PathBuf,
    },
    /// PEM, but one of its certificates is damaged.
    #[error("ca_file {}: certificate {number} is damaged: {why}", path.display())]
    CaFileDamaged {
        /// The file.
        path: PathBuf,
        /// Which, counted from 1.
        number: usize,
        /// What is wrong with it.
        why: String,
    },
    /// The TLS library did not accept what it was given.
    #[error("cannot set up TLS: {0}")]
    Tls(
        /// Why.
        String,
    ),
}

/// What a certificate may lead back to.
#[derive(Debug)]
pub(super) struct Roots {
    pub(super) store: RootCertStore,
    /// Certificates that are accepted themselves, when a server shows one. Only the operator's own file has them: a
    /// self-signed certificate made with `openssl req -x509` claims to be a CA, which chain building refuses in a
    /// server, but naming it as ca_file can mean only one thing (as it does for nginx and HAProxy).
    pub(super) accepted: Vec<CertificateDer<'static>>,
}

impl Roots {
    pub(super) fn of_the_system() -> Result<Self, ProbeSetupError> {
        let found = rustls_native_certs::load_native_certs();
        let mut store = RootCertStore::empty();
        // A bundle may hold a certificate that we can't parse; the others are as good as without it.
        store.add_parsable_certificates(found.certs);
        if store.is_empty() {
            let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
            return Err(ProbeSetupError::NoSystemRoots { why });
        }
        Ok(Self { store, accepted: Vec::new() })
    }

    pub(super) fn of_file(path: &Path) -> Result<Self, ProbeSetupError> {
        let text = read(path)?;
        let mut store = RootCertStore::empty();
        let mut accepted = Vec::new();
        for (index, section) in CertificateDer::pem_slice_iter(&text).enumerate() {
            let damaged = |why: String| ProbeSetupError::CaFileDamaged {
                path: path.to_owned(),
                number: index + 1,
                why,
            };
            let certificate = section.map_err(|error| damaged(error.to_string()))?;
            store.add(certificate.clone()).map_err(|error| damaged(error.to_string()))?;
            accepted.push(certificate);
        }
        if accepted.is_empty() {
            return Err(ProbeSetupError::CaFileEmpty { path: path.to_owned() });
        }
        Ok(Self { store, accepted })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ProbeSetupError> {
    let unreadable = |source| ProbeSetupError::CaFileUnreadable { path: path.to_owned(), source };
    // O_NONBLOCK: opening a FIFO would wait for a writer.
    let file: File =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(ProbeSetupError::CaFileNotRegular { path: path.to_owned() });
    }
    let mut text = Vec::new();
    file.take(LARGEST_CA_FILE + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() as u64 > LARGEST_CA_FILE {
        return Err(ProbeSetupError::CaFileTooLarge { path: path.to_owned() });
    }
    Ok(text)
}
