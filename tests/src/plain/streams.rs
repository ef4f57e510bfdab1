//! How many bytes a second come through, in one connection or in several at a time, from the server to the client.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use super::{Busy, Window, server::POUR};

/// For the connection to stand, and for a byte to come.
const TIMEOUT: Duration = Duration::from_secs(2);
/// What a client takes from its socket at a time.
const READ_BYTES: usize = 256 * 1024;

pub(super) fn streams(window: &Window, streams: usize) -> Result<Value> {
    let connect = || -> Result<TcpStream> {
        let mut connection = TcpStream::connect_timeout(&window.target, TIMEOUT)
            .with_context(|| format!("connect to {}", window.target))?;
        connection.set_read_timeout(Some(TIMEOUT)).context("limit the time of a byte")?;
        connection.write_all(&[POUR]).context("ask for bytes")?;
        Ok(connection)
    };
    let connections = (0..streams).map(|_| connect()).collect::<Result<Vec<_>>>()?;
    let (bytes, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let readers: Vec<_> = connections
            .into_iter()
            .map(|connection| scope.spawn(|| read(connection, &bytes, &is_over)))
            .collect();
        thread::sleep(window.warm_up_ms);
        let counted = counted(&bytes, window.window_ms);
        is_over.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().map_err(|_| anyhow!("a reading thread panicked"))??;
        }
        let (bytes, seconds, busy_seconds) = counted?;
        ensure!(bytes > 0, "nothing came in {seconds} s");
        Ok(json!({"bytes": bytes, "seconds": seconds, "busy_seconds": busy_seconds}))
    })
}

fn counted(bytes: &AtomicU64, window: Duration) -> Result<(u64, f64, f64)> {
    let (before, busy) = (bytes.load(Ordering::Relaxed), Busy::now()?);
    thread::sleep(window);
    let counted = bytes.load(Ordering::Relaxed) - before;
    let (seconds, busy_seconds) = busy.since()?;
    Ok((counted, seconds, busy_seconds))
}

fn read(mut connection: TcpStream, bytes: &AtomicU64, is_over: &AtomicBool) -> Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    while !is_over.load(Ordering::Relaxed) {
        let length = connection.read(&mut buffer).context("read")?;
        ensure!(length > 0, "the server has closed the connection");
        bytes.fetch_add(length as u64, Ordering::Relaxed);
    }
    Ok(())
}
