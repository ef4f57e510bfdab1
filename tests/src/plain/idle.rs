//! Many connections on which nothing more is said, and how each of them ends.
//!
//! Each has had one answer: what stands between client and server knows that it is established.

use std::{
    io::{Write, stdout},
    net::SocketAddr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    io::Errno,
    net::sockopt,
};
use serde_json::{Value, json};

use super::server::answered;

/// For each step of making a connection.
const TIMEOUT: Duration = Duration::from_secs(4);
/// How often the end of the patience is looked for.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Opens so many connections, says `ready`, and waits for the end of all of them for so long. The report is
/// `{"connections", "reset", "ended_otherwise", "first_reset_unix_ms", "last_reset_unix_ms"}`; who isn't in it has heard
/// nothing.
pub(super) fn idle(target: SocketAddr, connections: usize, patience: Duration) -> Result<Value> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("make an epoll")?;
    let mut streams = Vec::with_capacity(connections);
    for number in 0..connections {
        let stream = answered(target, TIMEOUT)
            .with_context(|| format!("connection {} of {connections}", number + 1))?;
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&epoll, &stream, data, epoll::EventFlags::IN).context("watch a connection")?;
        streams.push(Some(stream));
    }
    println!("ready");
    stdout().flush().context("say ready")?;

    let (started, mut resets_ms, mut otherwise) = (Instant::now(), Vec::with_capacity(connections), 0);
    let mut events = Vec::with_capacity(1024);
    while resets_ms.len() + otherwise < connections && started.elapsed() < patience {
        events.clear();
        match epoll::wait(&epoll, spare_capacity(&mut events), Some(&LOOK)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for events"),
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the time of day")?;
        for event in &events {
            // Closing it takes it out of the epoll.
            let Some(stream) = streams.get_mut(event.data.u64() as usize).and_then(Option::take) else {
                continue;
            };
            match sockopt::socket_error(&stream).context("ask how a connection ended")? {
                Err(Errno::CONNRESET) => resets_ms.push(now.as_secs_f64() * 1000.0),
                _ => otherwise += 1,
            }
        }
    }
    Ok(json!({
        "connections": connections,
        "reset": resets_ms.len(),
        "ended_otherwise": otherwise,
        "first_reset_unix_ms": resets_ms.first(),
        "last_reset_unix_ms": resets_ms.last(),
    }))
}
