//! Connections that stand: a server that sends back what it gets, and clients that count what they send, so that a byte
//! which is lost, doubled or another connection's is seen.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::ending::Ending;
use super::load::millis;

/// More than a soak holds; beyond it connections wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 4096;
/// How many open at a time.
const OPENING: usize = 64;
/// For opening, and for an echo: longer than any gap that a connection has to survive.
const PATIENCE: Duration = Duration::from_secs(100);
/// The number of the connection, and that of the record.
const RECORD_BYTES: usize = 16;

/// Sends back what it gets, until the process ends; prints `ready` once listening.
///
/// # Errors
/// When the address can't be listened on, or nobody can be accepted.
pub async fn serve(listen: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    println!("ready");
    loop {
        let place = places.clone().acquire_owned().await?;
        let (tcp, _) = listener.accept().await.context("accept")?;
        tokio::spawn(async move {
            // A client that breaks off is its own affair; the clients report failures.
            let _ = send_back(tcp).await;
            drop(place);
        });
    }
}

async fn send_back(mut tcp: TcpStream) -> io::Result<u64> {
    tcp.set_nodelay(true)?;
    let (mut read, mut write) = tcp.split();
    copy(&mut read, &mut write).await
}

/// Opens so many connections, prints `ready`, and has each send a record every so often, until it is told to end.
///
/// # Errors
/// When not all can be opened.
pub async fn hold(target: SocketAddr, flows: u64, every: Duration, ending: &Ending) -> Result<Value> {
    ensure!(flows as usize <= CONNECTIONS_MAX, "--flows must be at most {CONNECTIONS_MAX}");
    let mut standing = Vec::new();
    let mut opening = JoinSet::new();
    for number in 0..flows {
        while opening.len() >= OPENING {
            standing.extend(opening.join_next().await.transpose()?.transpose()?);
        }
        opening.spawn(async move { open(target, number).await });
    }
    while let Some(opened) = opening.join_next().await {
        standing.push(opened??);
    }
    println!("ready");
    let mut talking = JoinSet::new();
    for (number, tcp) in standing {
        let ending = ending.clone();
        // Spread over the time between two records.
        let first = every.mul_f64(number as f64 / flows as f64);
        talking.spawn(async move { talk(tcp, number, (first, every), ending).await });
    }
    let (mut records, mut longest, mut errors) = (0, Duration::ZERO, BTreeMap::<String, u64>::new());
    while let Some(talked) = talking.join_next().await {
        let Talk { records: of_one, longest: its_longest, error } = talked?;
        records += of_one;
        longest = longest.max(its_longest);
        if let Some(error) = error {
            *errors.entry(error).or_default() += 1;
        }
    }
    let broken: u64 = errors.values().sum();
    let longest = millis(longest);
    Ok(json!({"flows": flows, "records": records, "broken": broken, "errors": errors, "longest_ms": longest}))
}

async fn open(target: SocketAddr, number: u64) -> Result<(u64, TcpStream)> {
    let tcp = timeout(PATIENCE, TcpStream::connect(target)).await;
    let tcp = tcp.map_err(io::Error::from).flatten().with_context(|| format!("connect to {target}"))?;
    tcp.set_nodelay(true)?;
    Ok((number, tcp))
}

/// What became of one connection.
struct Talk {
    records: u64,
    /// From a record to its echo.
    longest: Duration,
    error: Option<String>,
}

async fn talk(mut tcp: TcpStream, number: u64, (first, every): (Duration, Duration), ending: Ending) -> Talk {
    let mut talk = Talk { records: 0, longest: Duration::ZERO, error: None };
    sleep(first).await;
    while !ending.is_here() {
        let begun = Instant::now();
        let echo = timeout(PATIENCE, exchange(&mut tcp, number, talk.records)).await;
        if let Err(error) = echo.map_err(io::Error::from).flatten() {
            talk.error = Some(error.to_string());
            return talk;
        }
        talk.records += 1;
        talk.longest = talk.longest.max(begun.elapsed());
        sleep(every).await;
    }
    talk
}

async fn exchange(tcp: &mut TcpStream, number: u64, record: u64) -> io::Result<()> {
    let mut sent = [0; RECORD_BYTES];
    sent[..8].copy_from_slice(&number.to_be_bytes());
    sent[8..].copy_from_slice(&record.to_be_bytes());
    tcp.write_all(&sent).await?;
    let mut echo = [0; RECORD_BYTES];
    tcp.read_exact(&mut echo).await?;
    if echo == sent { Ok(()) } else { Err(io::Error::other("another record came back")) }
}
