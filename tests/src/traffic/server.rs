//! A TLS server that answers each HTTP/1.1 request with its name. Hostile peers get bounded time, memory and sockets.

use std::{fmt::Write as _, io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

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
use tokio_rustls::TlsAcceptor;

/// Twenty times what a test opens at once; beyond it connections wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 1024;
const REQUEST_MAX: usize = 8 * 1024;
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
    let answer: Arc<[u8]> = answer(name).into_bytes().into();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut accepting = JoinSet::new();
    for address in listen {
        let listener = TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?;
        accepting.spawn(accept(listener, acceptor.clone(), answer.clone(), places.clone()));
    }
    println!("ready");
    while accepting.join_next().await.is_some() {}
    Ok(())
}

fn tls_config(certificate: &Path, key: &Path) -> Result<ServerConfig> {
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

fn answer(name: &str) -> String {
    let mut answer = format!("HTTP/1.1 200 OK\r\nServer: {name}\r\nContent-Type: text/plain\r\n");
    // Writing to a String can't fail.
    let _ = write!(answer, "Content-Length: {}\r\n\r\n{name}\n", name.len() + 1);
    answer
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, answer: Arc<[u8]>, places: Arc<Semaphore>) {
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((tcp, _)) => {
                let (acceptor, answer) = (acceptor.clone(), answer.clone());
                tokio::spawn(async move {
                    // A client that breaks off is its own affair; the clients report failures.
                    let _ = converse(tcp, &acceptor, &answer).await;
                    drop(place);
                });
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn converse(tcp: TcpStream, acceptor: &TlsAcceptor, answer: &[u8]) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut tls = timeout(PATIENCE, acceptor.accept(tcp)).await??;
    let mut request = Vec::with_capacity(512);
    for _ in 0..REQUESTS_PER_CONNECTION_MAX {
        let end = loop {
            if let Some(start) = request.windows(4).position(|window| window == b"\r\n\r\n") {
                break start + 4;
            }
            if request.len() >= REQUEST_MAX {
                return tls.shutdown().await;
            }
            if timeout(PATIENCE, tls.read_buf(&mut request)).await?? == 0 {
                // The client's TLS has ended. Its FIN comes first, or TIME_WAIT would stay here, where all
                // connections share one port.
                while timeout(PATIENCE, tls.get_mut().0.read(&mut [0; 256])).await?? > 0 {}
                return tls.shutdown().await;
            }
        };
        let is_last = wants_close(&request[..end]);
        request.drain(..end);
        tls.write_all(answer).await?;
        tls.flush().await?;
        if is_last {
            break;
        }
    }
    tls.shutdown().await
}

fn wants_close(head: &[u8]) -> bool {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    head.lines().any(|line| line.strip_prefix("connection:").is_some_and(|value| value.trim() == "close"))
}
