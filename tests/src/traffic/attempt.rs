//! One connection from SYN to FIN: TCP, a full TLS handshake, one GET, the server's name out of the answer.

use std::{
    fmt,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{timeout, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Our servers answer with some hundred bytes; whatever sends more isn't one.
const ANSWER_MAX: usize = 16 * 1024;

/// As long as a whole attempt by default: one who doesn't answer by then has gone silent.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// Whom to connect to and what to believe; shared by all attempts.
#[derive(Clone)]
pub struct Target {
    address: SocketAddr,
    server_name: ServerName<'static>,
    host: String,
    connector: TlsConnector,
    timeout: Duration,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // TlsConnector has no Debug, and keys have no business in logs.
        f.debug_struct("Target")
            .field("address", &self.address)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// How far an attempt came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// TCP's handshake.
    Connect,
    /// TLS's handshake, the certificate's verification included.
    Handshake,
    /// The request and its answer.
    Answer,
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// Not done within the target's timeout.
    #[error("{stage:?}: no progress until the timeout")]
    Timeout {
        /// Where it stood then.
        stage: Stage,
    },
    /// Refused, reset, or not believed.
    #[error("{stage:?}: {source}")]
    Io {
        /// Where it stood then.
        stage: Stage,
        /// The cause.
        source: std::io::Error,
    },
    /// Something answered, but not one of our servers with 200.
    #[error("Answer: not understood: {0:?}")]
    Answer(String),
}

/// An attempt that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The server's name for itself.
    pub name: String,
    /// Who the client was to itself.
    pub local: SocketAddr,
    /// Whom the server saw.
    pub peer: SocketAddr,
    /// From the SYN until both handshakes were done.
    pub connect: Duration,
    /// From the SYN until the answer was complete.
    pub took: Duration,
}

impl Target {
    /// Trusts `ca_file` (PEM) alone, and expects a certificate for `sni`.
    ///
    /// # Errors
    /// When the file has no certificate or the name is none.
    pub fn new(address: SocketAddr, sni: &str, ca_file: &Path, timeout: Duration) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        let certificates = CertificateDer::pem_file_iter(ca_file)
            .with_context(|| format!("read the CA file {}", ca_file.display()))?;
        for certificate in certificates {
            let certificate =
                certificate.with_context(|| format!("parse the CA file {}", ca_file.display()))?;
            roots.add(certificate).with_context(|| format!("trust {}", ca_file.display()))?;
        }
        anyhow::ensure!(!roots.is_empty(), "the CA file {} holds no certificate", ca_file.display());
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.resumption = Resumption::disabled();
        let server_name =
            ServerName::try_from(sni.to_owned()).with_context(|| format!("server name {sni:?}"))?;
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Self { address, server_name, host: sni.to_owned(), connector, timeout })
    }

    /// One attempt, over within the target's timeout and a moment to take leave.
    ///
    /// # Errors
    /// See [`AttemptError`].
    pub async fn attempt(&self) -> Result<Answered, AttemptError> {
        let started = Instant::now();
        let deadline = (started + self.timeout).into();
        let mut stage = Stage::Connect;
        let ask = async {
            let io = |stage| move |source| AttemptError::Io { stage, source };
            let tcp = self.connect().await.map_err(io(Stage::Connect))?;
            let local = tcp.local_addr().map_err(io(Stage::Connect))?;
            stage = Stage::Handshake;
            let mut tls = self.shake_hands(tcp).await.map_err(io(Stage::Handshake))?;
            let connect = started.elapsed();
            stage = Stage::Answer;
            let answer = self.get(&mut tls).await.map_err(io(Stage::Answer))?;
            let (name, peer) = understood(&answer).ok_or_else(|| AttemptError::Answer(excerpt(&answer)))?;
            Ok((tls, Answered { name, local, peer, connect, took: started.elapsed() }))
        };
        let outcome = timeout_at(deadline, ask).await;
        let (tls, answered) = outcome.unwrap_or(Err(AttemptError::Timeout { stage }))?;
        // The answer counts; a server that is gone before it hears our goodbye doesn't change it.
        let _ = timeout(LEAVE_MAX, take_leave(tls)).await;
        Ok(answered)
    }

    pub(super) async fn connect(&self) -> std::io::Result<TcpStream> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        Ok(tcp)
    }

    pub(super) async fn shake_hands(&self, tcp: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.server_name.clone(), tcp).await
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    async fn get(&self, tls: &mut TlsStream<TcpStream>) -> std::io::Result<Vec<u8>> {
        let request = format!("GET / HTTP/1.1\r\nHost: {}\r\nUser-Agent: lab-host\r\n\r\n", self.host);
        tls.write_all(request.as_bytes()).await?;
        tls.flush().await?;
        read_answer(tls).await
    }
}

/// Closes first, so that TIME_WAIT stays on this side, where each connection has a port of its own, and waits for the
/// server's close: a socket closed before that answers it with a reset, which would look like a failure on the wire.
pub(super) async fn take_leave(mut tls: TlsStream<TcpStream>) -> std::io::Result<()> {
    tls.shutdown().await?;
    while tls.read(&mut [0; 256]).await? > 0 {}
    Ok(())
}

/// Reads until the announced body is complete, the peer closes, or `ANSWER_MAX`.
async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut answer = Vec::with_capacity(1024);
    while answer.len() < ANSWER_MAX {
        if let Some((_, body, announced)) = split(&answer)
            && body.len() >= announced
        {
            break;
        }
        if stream.read_buf(&mut answer).await? == 0 {
            break;
        }
    }
    Ok(answer)
}

/// Head, what there is of the body, and the body's announced length; `None` while the head isn't complete.
pub(super) fn split(answer: &[u8]) -> Option<(&str, &[u8], usize)> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let length = header(head, "content-length").and_then(|value| value.parse().ok()).unwrap_or(usize::MAX);
    Some((head, &answer[end + 4..], length))
}

/// What a complete answer of one of our servers says: its name, in the header and, the same, in the body, and its peer.
fn understood(answer: &[u8]) -> Option<(String, SocketAddr)> {
    let (head, body, length) = split(answer)?;
    let (name, peer) = name_and_peer(head)?;
    let body = std::str::from_utf8(body.get(..length)?).ok()?;
    (body.trim() == name).then_some((name, peer))
}

/// The server's name and its peer, in the head of a good answer.
pub(super) fn name_and_peer(head: &str) -> Option<(String, SocketAddr)> {
    let peer = header(head, "x-peer")?.parse().ok()?;
    let name = header(head, "server")?;
    head.starts_with("HTTP/1.1 200 ").then(|| (name.to_owned(), peer))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.into_iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn excerpt(answer: &[u8]) -> String {
    String::from_utf8_lossy(answer).chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_complete_and_consistent_answer_has_a_name() {
        let peer = "X-Peer: 10.0.2.1:4000";
        let good =
            format!("HTTP/1.1 200 OK\r\nServer: server1\r\n{peer}\r\nContent-Length: 8\r\n\r\nserver1\n");
        let heard = understood(good.as_bytes()).map(|(name, peer)| (name, peer.to_string()));
        assert_eq!(heard, Some(("server1".to_owned(), "10.0.2.1:4000".to_owned())));
        let bad = [
            String::new(),
            good.trim_end().to_owned(),
            good.replace("\nserver1", "\nserver2"),
            good.replace("200 OK", "503 No"),
            good.replace("Content-Length: 8\r\n", ""),
            good.replace("Length: 8", "Length: 99999999999999999999"),
            good.replace(peer, "X-Peer: somebody"),
        ];
        for answer in bad {
            assert_eq!(understood(answer.as_bytes()), None, "{answer:?}");
        }
    }
}
