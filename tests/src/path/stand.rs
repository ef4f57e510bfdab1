//! Where everybody is measured: one lab, its settings, the server, and clients.
//!
//! Client, gateway and backend are joined by one cable each, and client and backend by one more (`direct`). Ports must be no
//! limit for anyone: a client's are free again a second after their connection was closed (`tcp_tw_reuse`), and there are as
//! many as there can be. Server and client stay on a CPU each, the last and the first: whether they meet on one would be the
//! scheduler's mood.

use std::{
    fs,
    net::SocketAddr,
    thread::{self, available_parallelism},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    gateway::PATIENCE,
    lab::{Host, Lab, Process, Topology},
};

use super::{cables::Cables, direct, programs::Programs, subject::Subject};

/// Before what is measured counts, as a part of that: TCP has found its window, and caches are warm.
const WARM_UP_PART: u32 = 5;
/// A client that takes this much longer than it was told to is stuck.
const CLIENT_MAX: Duration = Duration::from_secs(30);

/// A lab with a server in it.
#[derive(Debug)]
pub struct Stand {
    /// Kept: it ends when it is dropped.
    _server: Process,
    programs: Programs,
    cores: usize,
    /// Dropped last: it ends whatever still runs.
    lab: Lab,
}

impl Stand {
    /// A lab, with frames of wire size, and a server that listens for all subjects.
    ///
    /// # Errors
    /// When it can't be built.
    pub fn build(programs: Programs) -> Result<Self> {
        let lab = Lab::new("path", &Topology::two_armed().backends(1).cabled_directly())?;
        for host in [lab.client(), lab.gateway(), lab.backend(0)] {
            host.set_sysctl("net/ipv4/tcp_tw_reuse", "1")?;
            host.set_sysctl("net/ipv4/tcp_max_tw_buckets", "262144")?;
            host.set_sysctl("net/core/somaxconn", "4096")?;
            host.set_sysctl("net/ipv4/tcp_max_syn_backlog", "4096")?;
        }
        lab.client().set_sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
        direct::lay(&lab)?;
        Cables::Wire.set(&lab)?;
        let backend = lab.backend(0);
        let cores = available_parallelism().context("count the CPUs")?.get();
        let last = (cores - 1).to_string();
        let mut command = backend.command(&programs.lab_host, ["plain", "--cpu", &last, "serve"]);
        for subject in Subject::ALL {
            command.arg("--listen").arg(subject.backend(&lab).to_string());
        }
        let mut server = backend.spawn_command(command)?;
        server.wait_for_line("ready", PATIENCE)?;
        Ok(Self { _server: server, programs, cores, lab })
    }

    /// Its hosts.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    pub(super) fn programs(&self) -> &Programs {
        &self.programs
    }

    /// How many CPUs the machine has for all of them.
    #[must_use]
    pub fn cores(&self) -> usize {
        self.cores
    }

    /// Runs a client to its end, and hands its report on.
    pub(super) fn client(&self, words: &[&str], target: SocketAddr, window: Duration) -> Result<Value> {
        let milliseconds = |time: Duration| time.as_millis().to_string();
        let (target, window_ms) = (target.to_string(), milliseconds(window));
        let warm_up_ms = milliseconds(window / WARM_UP_PART);
        let times = ["--target", &target, "--warm-up-ms", &warm_up_ms, "--window-ms", &window_ms];
        let client = self.lab.client();
        let plain = ["plain", "--cpu", "0"];
        let command = client.command(&self.programs.lab_host, plain.iter().chain(words).chain(&times));
        let told = client.spawn_command(command)?.finish(window + CLIENT_MAX)?;
        serde_json::from_str(&told).with_context(|| format!("the report of {words:?}: {told}"))
    }

    /// Frames a second that come out at the backend, while a client sends as many as it can.
    ///
    /// The backend drops them before its own stack sees them, which would cost more than all the rest.
    pub(super) fn frames(&self, subject: Subject, window: Duration) -> Result<f64> {
        let (client, backend) = (self.lab.client(), self.lab.backend(0));
        let target = subject.target(&self.lab).to_string();
        let mut words = vec!["flood", "--interface", "eth0", "--target", &target];
        if !subject.takes_connections() {
            words.push("--made-up");
        }
        let flood = self.serve_programs(client, &words)?;
        let discard = self.serve_programs(backend, &["discard", "--interface", "eth0"])?;
        thread::sleep(window / WARM_UP_PART);
        let (before, started) = (received(backend)?, Instant::now());
        thread::sleep(window);
        let (frames, seconds) = (received(backend)? - before, started.elapsed().as_secs_f64());
        flood.kill();
        discard.kill();
        Ok(frames as f64 / seconds)
    }

    /// Starts `lab-host plain` with the BPF object, and waits until its program is in its place.
    pub(super) fn serve_programs(&self, host: &Host, words: &[&str]) -> Result<Process> {
        let mut command = host.command(&self.programs.lab_host, ["plain"].iter().chain(words));
        command.arg("--object").arg(&self.programs.object);
        let mut process = host.spawn_command(command)?;
        process.wait_for_line("ready", PATIENCE)?;
        Ok(process)
    }
}

/// Frames that the host's interface has received so far.
fn received(host: &Host) -> Result<u64> {
    // Not /sys, which shows the network that was there when it was mounted.
    let text = host.enter(|| fs::read_to_string("/proc/thread-self/net/dev"))?.context("read net/dev")?;
    frames_of(&text, "eth0").context("eth0 in /proc/net/dev")
}

fn frames_of(text: &str, interface: &str) -> Option<u64> {
    let counters =
        text.lines().find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'))?;
    counters.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::frames_of;

    #[test]
    fn received_frames_are_the_second_number() {
        let text = "Inter-| Receive\n face |bytes packets\n    lo: 1 2 3\n  eth0: 4000 50 0 0\n";
        assert_eq!(frames_of(text, "eth0"), Some(50));
        assert_eq!(frames_of(text, "eth1"), None);
    }
}
