//! A TLS connection that a test holds open for as long as it likes.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use super::SERVER_NAME;
use crate::{gateway::PATIENCE, lab::Host};

/// Both handshakes are done, and requests are answered; dropping it closes it.
#[derive(Debug)]
pub struct Held {
    tls: StreamOwned<ClientConnection, TcpStream>,
    /// The client's end.
    pub local: SocketAddr,
}

impl Held {
    pub(super) fn open(host: &Host, target: SocketAddr, ca_file: &Path) -> Result<Self> {
        let tcp = host.enter(|| TcpStream::connect_timeout(&target, PATIENCE))?;
        let tcp = tcp.with_context(|| format!("connect to {target}"))?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_nodelay(true)?;
        let local = tcp.local_addr()?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca_file).context("read the CA file")? {
            roots.add(certificate.context("parse the CA file")?)?;
        }
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let client = ClientConnection::new(Arc::new(config), ServerName::try_from(SERVER_NAME)?)?;
        let mut held = Self { tls: StreamOwned::new(client, tcp), local };
        held.ask().with_context(|| format!("ask {target}"))?;
        Ok(held)
    }

    /// Asks who serves, and is told.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn ask(&mut self) -> Result<String> {
        write!(self.tls, "GET / HTTP/1.1\r\nHost: {SERVER_NAME}\r\n\r\n")?;
        let mut answer = Vec::new();
        // The body is the name and an end of line.
        loop {
            let mut chunk = [0; 1024];
            let length = self.tls.read(&mut chunk)?;
            ensure!(length > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&chunk[..length]);
            let text = String::from_utf8_lossy(&answer);
            if let Some((_, body)) = text.split_once("\r\n\r\n")
                && let Some(name) = body.strip_suffix('\n')
            {
                return Ok(name.to_owned());
            }
        }
    }
}
