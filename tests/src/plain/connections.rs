//! As many new connections as go: connect, one request, its answer, close; a fixed number at a time.
//!
//! The client closes first, as most do, so what remembers a closed connection (TIME_WAIT) is on its side of whatever
//! it talks to, and a port is free again after a second (`tcp_tw_reuse`).

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    io::{Errno, read, write},
    net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt},
};
use serde_json::{Value, json};

use super::{Busy, REQUEST_BYTES, Window, percentile, server::ECHO};

/// For one connection, from SYN to answer: two lost SYNs, and there was a third.
const TIMEOUT: Duration = Duration::from_secs(4);
/// How often overdue ones are looked for, and failed ones begun anew.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
/// More different texts than this are one bug with a number in it.
const ERROR_TEXTS_MAX: usize = 16;

pub(super) fn connections(window: &Window, parallel: usize) -> Result<Value> {
    ensure!(parallel > 0, "--parallel must be at least 1");
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("make an epoll")?;
    let attempts = (0..parallel).map(|_| None).collect();
    let mut clients = Clients { target: window.target, epoll, attempts, seen: Seen::default() };
    clients.run_until(Instant::now() + window.warm_up_ms)?;
    // What failed at first would fail later too, so it isn't forgotten.
    let failed = (clients.seen.failed, std::mem::take(&mut clients.seen.errors));
    clients.seen = Seen { failed: failed.0, errors: failed.1, ..Seen::default() };
    let before = Busy::now()?;
    clients.run_until(Instant::now() + window.window_ms)?;
    let (seconds, busy_seconds) = before.since()?;
    let Seen { mut connect_us, mut answer_us, failed, errors } = clients.seen;
    Ok(json!({
        "ok": answer_us.len(),
        "failed": failed,
        "errors": errors,
        "seconds": seconds,
        "busy_seconds": busy_seconds,
        "connect_us": {"p50": percentile(&mut connect_us, 50), "p99": percentile(&mut connect_us, 99)},
        "answer_us": {"p50": percentile(&mut answer_us, 50), "p99": percentile(&mut answer_us, 99)},
    }))
}

/// One connection under way.
struct Attempt {
    socket: OwnedFd,
    started: Instant,
    is_connected: bool,
    answered: usize,
}

#[derive(Default)]
struct Seen {
    connect_us: Vec<f32>,
    /// From the start to the last byte of the answer.
    answer_us: Vec<f32>,
    failed: u64,
    errors: BTreeMap<String, u64>,
}

struct Clients {
    target: SocketAddr,
    epoll: OwnedFd,
    attempts: Vec<Option<Attempt>>,
    seen: Seen,
}

impl Clients {
    fn run_until(&mut self, end: Instant) -> Result<()> {
        let mut events = Vec::with_capacity(self.attempts.len());
        let mut looked = Instant::now();
        loop {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&LOOK)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("wait for events"),
            }
            for event in &events {
                self.go_on(event.data.u64() as usize);
            }
            let now = Instant::now();
            if events.is_empty() || now.duration_since(looked) > Duration::from_millis(10) {
                looked = now;
                self.look_after(now);
            }
            if now >= end {
                return Ok(());
            }
        }
    }

    /// Ends what is overdue, and begins where nothing is under way.
    fn look_after(&mut self, now: Instant) {
        for slot in 0..self.attempts.len() {
            match &self.attempts[slot] {
                Some(attempt) if now.duration_since(attempt.started) > TIMEOUT => {
                    let stage = if attempt.is_connected { "waiting for the answer" } else { "connecting" };
                    self.fail(slot, format!("timed out {stage}"));
                }
                Some(_) => {}
                None => self.begin(slot),
            }
        }
    }

    fn begin(&mut self, slot: usize) {
        let started = Instant::now();
        match self.open(slot) {
            Ok(socket) => {
                self.attempts[slot] = Some(Attempt { socket, started, is_connected: false, answered: 0 });
            }
            Err(error) => self.fail(slot, format!("connect: {error}")),
        }
    }

    fn open(&self, slot: usize) -> Result<OwnedFd, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        match connect(&socket, &self.target) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error),
        }
        // Told once of each change: connected, then readable.
        let events = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(slot as u64), events)?;
        Ok(socket)
    }

    fn go_on(&mut self, slot: usize) {
        let Some(attempt) = &mut self.attempts[slot] else { return };
        match step(attempt, &mut self.seen) {
            Ok(false) => {}
            Ok(true) => {
                self.attempts[slot] = None;
                self.begin(slot);
            }
            Err(error) => self.fail(slot, error),
        }
    }

    /// The next one is begun at the next look, so that a target that refuses everything is not a busy loop.
    fn fail(&mut self, slot: usize, error: String) {
        self.attempts[slot] = None;
        self.seen.failed += 1;
        let errors = &mut self.seen.errors;
        let is_known = errors.contains_key(&error) || errors.len() < ERROR_TEXTS_MAX;
        *errors.entry(if is_known { error } else { "(other errors)".to_owned() }).or_default() += 1;
    }
}

/// What is possible now; `true` when the connection has done all of it.
fn step(attempt: &mut Attempt, seen: &mut Seen) -> Result<bool, String> {
    let socket = &attempt.socket;
    if !attempt.is_connected {
        sockopt::socket_error(socket).and_then(|error| error).map_err(|error| format!("connect: {error}"))?;
        seen.connect_us.push(micros(attempt.started));
        attempt.is_connected = true;
        let sent = write(socket, &[ECHO; REQUEST_BYTES]).map_err(|error| format!("request: {error}"))?;
        if sent != REQUEST_BYTES {
            return Err(format!("request: {sent} of {REQUEST_BYTES} bytes"));
        }
    }
    let mut answer = [0; REQUEST_BYTES];
    match read(socket, &mut answer[..]) {
        Ok(0) => return Err("closed before the answer".to_owned()),
        Ok(length) => attempt.answered += length,
        Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
        Err(error) => return Err(format!("answer: {error}")),
    }
    let is_done = attempt.answered >= REQUEST_BYTES;
    if is_done {
        seen.answer_us.push(micros(attempt.started));
    }
    Ok(is_done)
}

fn micros(since: Instant) -> f32 {
    since.elapsed().as_secs_f32() * 1e6
}
