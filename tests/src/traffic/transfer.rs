//! Many bytes in one connection, in either direction: what shows whether large packets come through.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use super::attempt::{Target, name_and_peer, split, take_leave};

const CHUNK: usize = 64 * 1024;
const HEAD_MAX: usize = 16 * 1024;

/// Sends `up` bytes and has `down` bytes sent, within the target's timeout; TLS would notice a wrong one. The report is
/// `{"name", "local", "peer", "up", "down"}`: who answered, who the client is to itself, and who to the server.
///
/// # Errors
/// When the connection fails, ends early or takes too long.
pub async fn transfer(target: &Target, up: u64, down: u64) -> Result<Value> {
    timeout(target.timeout(), carry_out(target, up, down))
        .await
        .context("the transfer did not end in time")?
}

async fn carry_out(target: &Target, up: u64, down: u64) -> Result<Value> {
    let tcp = target.connect().await.context("connect")?;
    let local = tcp.local_addr().context("the own address")?;
    let mut tls = target.shake_hands(tcp).await.context("TLS handshake")?;
    let host = target.host();
    let head = format!("POST /{down} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {up}\r\n\r\n");
    tls.write_all(head.as_bytes()).await.context("send the request")?;
    let chunk = vec![b'.'; CHUNK];
    let mut missing = up;
    while missing > 0 {
        let part = usize::try_from(missing).map_or(CHUNK, |missing| missing.min(CHUNK));
        tls.write_all(&chunk[..part]).await.with_context(|| format!("send, {missing} bytes to go"))?;
        missing -= part as u64;
    }
    tls.flush().await.context("send the last bytes")?;
    let (name, peer) = receive(&mut tls, down).await?;
    // What was asked for is there; how the connection ends doesn't change it.
    let _ = take_leave(tls).await;
    Ok(json!({"name": name, "local": local.to_string(), "peer": peer, "up": up, "down": down}))
}

async fn receive(tls: &mut TlsStream<TcpStream>, down: u64) -> Result<(String, String)> {
    let mut received = Vec::with_capacity(CHUNK);
    let (said, mut count) = loop {
        ensure!(received.len() < HEAD_MAX + CHUNK, "an answer without an end of its head");
        ensure!(
            tls.read_buf(&mut received).await.context("read the answer")? > 0,
            "the answer's head was cut"
        );
        if let Some((head, body, announced)) = split(&received) {
            ensure!(announced as u64 == down, "{announced} bytes announced instead of {down}");
            let (name, peer) = name_and_peer(head).with_context(|| format!("not understood: {head:?}"))?;
            break ((name, peer.to_string()), body.len() as u64);
        }
    };
    while count < down {
        received.clear();
        let length = tls.read_buf(&mut received).await.with_context(|| format!("read, {count} of {down}"))?;
        ensure!(length > 0, "the answer ended after {count} of {down} bytes");
        count += length as u64;
    }
    Ok(said)
}
