//! How long a request and its answer take in a connection that stands.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{REQUEST_BYTES, Window, percentile, server::ECHO};

/// Longer than TCP takes to send again what was lost, twice.
const TIMEOUT: Duration = Duration::from_secs(4);

pub(super) fn conversation(window: &Window) -> Result<Value> {
    let mut connection = TcpStream::connect_timeout(&window.target, TIMEOUT)
        .with_context(|| format!("connect to {}", window.target))?;
    connection.set_nodelay(true).context("set TCP_NODELAY")?;
    connection.set_read_timeout(Some(TIMEOUT)).context("limit the time of an answer")?;
    let (request, mut answer) = ([ECHO; REQUEST_BYTES], [0; REQUEST_BYTES]);
    let counted = Instant::now() + window.warm_up_ms;
    let end = counted + window.window_ms;
    let mut round_trips_us = Vec::new();
    loop {
        let asked = Instant::now();
        if asked >= end {
            break;
        }
        connection.write_all(&request).context("send a request")?;
        connection.read_exact(&mut answer).context("read an answer")?;
        if asked >= counted {
            round_trips_us.push(asked.elapsed().as_secs_f32() * 1e6);
        }
    }
    let answers = round_trips_us.len();
    let [p50, p99] = [50, 99].map(|percent| percentile(&mut round_trips_us, percent));
    Ok(json!({"answers": answers, "round_trip_us": {"p50": p50, "p99": p99}}))
}
