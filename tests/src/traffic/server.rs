//! A TLS server that answers each HTTP/1.1 request with its name, or with as many bytes as the path asks for, and says
//! whom it saw. Hostile peers get bounded time, memory and sockets.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// Twenty times what a test opens at once; beyond it connections wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 1024;
const REQUEST_MAX: usize = 8 * 1024;
/// Of a request's body, and of an answer's.
const BODY_MAX: u64 = 1 << 30;
/// What is read and written at a time of a body.
const CHUNK: usize = 64 * 1024;
const REQUESTS_PER_CONNECTION_MAX: usize = 1000;
/// For the handshake, and for each request: also how long an idle connection is kept.
const PATIENCE: Duration = Duration::from_secs(30);
/// Out of file descriptors, accept fails at once again and again: some pause lets connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until the process ends; prints `ready` once all addresses accept.
///
/// # Errors
/// When a file can't be used or an address can't be listened on.
pub async fn serve(listen: &[SocketAddr], certificate: &Path, key: &Path, name: &str) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    ensure!(
        !name.is_empty() && name.bytes().all(is_plain),
        "server name {name:?}: use letters, digits and -_."
    );
    let acceptor = TlsAcceptor::from(Arc::new(tls_config(certificate, key)?));
    let name: Arc<str> = name.into();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut accepting = JoinSet::new();
    for address in listen {
        let listener = TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?;
        accepting.spawn(accept(listener, acceptor.clone(), name.clone(), places.clone()));
    }
    println!("ready");
    while accepting.join_next().await.is_some() {}
    Ok(())
}

/// A server with this certificate, without client certificates.
pub(crate) fn tls_config(certificate: &Path, key: &Path) -> Result<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("read the certificate {}", certificate.display()))?;
    let private_key =
        PrivateKeyDer::from_pem_file(key).with_context(|| format!("read the key {}", key.display()))?;
    ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, private_key)
        .with_context(|| format!("use {} with {}", certificate.display(), key.display()))
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, name: Arc<str>, places: Arc<Semaphore>) {
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((tcp, peer)) => {
                let (acceptor, name) = (acceptor.clone(), name.clone());
                tokio::spawn(async move {
                    // A client that breaks off is its own affair; the clients report failures.
                    let _ = converse(tcp, peer, &acceptor, &name).await;
                    drop(place);
                });
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn converse(tcp: TcpStream, peer: SocketAddr, acceptor: &TlsAcceptor, name: &str) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut tls = timeout(PATIENCE, acceptor.accept(tcp)).await??;
    let mut received = Vec::with_capacity(512);
    for _ in 0..REQUESTS_PER_CONNECTION_MAX {
        let end = loop {
            if let Some(start) = received.windows(4).position(|window| window == b"\r\n\r\n") {
                break start + 4;
            }
            if received.len() >= REQUEST_MAX {
                return tls.shutdown().await;
            }
            if timeout(PATIENCE, tls.read_buf(&mut received)).await?? == 0 {
                // The client's TLS has ended. Its FIN comes first, or TIME_WAIT would stay here, where all
                // connections share one port.
                while timeout(PATIENCE, tls.get_mut().0.read(&mut [0; 256])).await?? > 0 {}
                return tls.shutdown().await;
            }
        };
        let Some(request) = Request::of(&String::from_utf8_lossy(&received[..end])) else { break };
        received.drain(..end);
        skip_body(&mut tls, &mut received, request.body).await?;
        answer(&mut tls, name, peer, request.wanted).await?;
        if request.is_last {
            break;
        }
    }
    tls.shutdown().await
}

/// Reads a body of this length, the beginning of which has been received, and what follows stays.
async fn skip_body(tls: &mut TlsStream<TcpStream>, received: &mut Vec<u8>, length: u64) -> io::Result<()> {
    let mut missing = length;
    loop {
        let here = usize::try_from(missing).map_or(received.len(), |missing| missing.min(received.len()));
        received.drain(..here);
        missing -= here as u64;
        if missing == 0 {
            return Ok(());
        }
        received.reserve(CHUNK);
        if timeout(PATIENCE, tls.read_buf(received)).await?? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// With the name, or with this many bytes.
async fn answer(
    tls: &mut TlsStream<TcpStream>,
    name: &str,
    peer: SocketAddr,
    wanted: Option<u64>,
) -> io::Result<()> {
    let length = wanted.unwrap_or(name.len() as u64 + 1);
    let mut text = format!(
        "HTTP/1.1 200 OK\r\nServer: {name}\r\nX-Peer: {peer}\r\nContent-Type: text/plain\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    if wanted.is_none() {
        text += &format!("{name}\n");
    }
    // One write for what fits into one segment.
    tls.write_all(text.as_bytes()).await?;
    let chunk = vec![b'.'; CHUNK];
    let mut missing = wanted.unwrap_or_default();
    while missing > 0 {
        let part = usize::try_from(missing).map_or(CHUNK, |missing| missing.min(CHUNK));
        timeout(PATIENCE, tls.write_all(&chunk[..part])).await??;
        missing -= part as u64;
    }
    tls.flush().await
}

/// What the head of a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Request {
    /// The length of its body.
    body: u64,
    /// How many bytes; `None`: the name.
    wanted: Option<u64>,
    is_last: bool,
}

impl Request {
    /// `None` when it isn't one, or too large.
    fn of(head: &str) -> Option<Self> {
        let head = head.to_ascii_lowercase();
        let fields = || head.lines().filter_map(|line| line.split_once(':'));
        let field = |name| fields().find(|(field, _)| *field == name).map(|(_, value)| value.trim());
        let body = field("content-length").map_or(Some(0), |value| value.parse().ok())?;
        let path = head.split(' ').nth(1)?;
        let wanted = match path.strip_prefix('/')? {
            "" => None,
            bytes => Some(bytes.parse().ok()?),
        };
        let is_last = field("connection") == Some("close");
        (body <= BODY_MAX && wanted.is_none_or(|wanted| wanted <= BODY_MAX)).then_some(Self {
            body,
            wanted,
            is_last,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_how_much_comes_and_how_much_is_wanted() {
        let of = |head| Request::of(head).map(|one| (one.body, one.wanted, one.is_last));
        assert_eq!(of("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), Some((0, None, false)));
        let post = "POST /70000 HTTP/1.1\r\nContent-Length: 9\r\nConnection: close\r\n\r\n";
        assert_eq!(of(post), Some((9, Some(70_000), true)));
        for bad in ["", "GET", "GET /x HTTP/1.1", "GET /9999999999 HTTP/1.1", "GET / x\r\nContent-Length: -1"]
        {
            assert_eq!(of(bad), None, "{bad:?}");
        }
    }
}
