//! A TLS server that costs little, and writes down when each connection was opened.
//!
//! Connections are accepted on a thread of its own, so that handshakes which take their time don't make starts look
//! later than they were. Deliberately not here: anything over TLS; who has had its handshake says goodbye.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Handle,
    task::spawn_blocking,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::traffic::server::tls_config;

/// For one connection, from its beginning to its end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Microseconds of the clock that all processes of this machine share and nobody sets.
#[must_use]
pub(super) fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or_default() * 1_000_000
        + u64::try_from(now.tv_nsec).unwrap_or_default() / 1000
}

/// Serves until the process ends; prints `ready`, and then a line for each connection: when it was opened.
///
/// # Errors
/// When a file can't be used, or the address can't be listened on.
pub async fn serve(listen: SocketAddr, certificate: &Path, key: &Path) -> Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(tls_config(certificate, key)?));
    let listener = std::net::TcpListener::bind(listen).with_context(|| format!("listen on {listen}"))?;
    let runtime = Handle::current();
    println!("ready");
    spawn_blocking(move || {
        loop {
            let (stream, _) = listener.accept().context("accept a connection")?;
            println!("{}", now_us());
            stream.set_nonblocking(true).context("make a connection non-blocking")?;
            let acceptor = acceptor.clone();
            // How one ends is the client's affair.
            runtime.spawn(async move { timeout(PATIENCE, converse(stream, acceptor)).await });
        }
    })
    .await?
}

async fn converse(stream: std::net::TcpStream, acceptor: TlsAcceptor) -> Result<()> {
    let stream = TcpStream::from_std(stream)?;
    stream.set_nodelay(true)?;
    let mut tls = acceptor.accept(stream).await?;
    while tls.read(&mut [0; 64]).await? > 0 {}
    tls.shutdown().await?;
    Ok(())
}
