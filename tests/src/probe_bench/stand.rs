//! What is measured: a real daemon with 500 backends, all of them addresses of one host on the gateway's network.

use std::{fmt::Write as _, net::Ipv4Addr, path::Path, time::Duration};

use anyhow::{Context, Result};

use super::Options;
use crate::{
    certificates::{Authority, Validity},
    gateway::{Gateway, PATIENCE, Status},
    lab::{Lab, Process, Topology},
    site::SERVER_NAME,
};

/// Pools and backends in each: together as many as the promise is about.
const POOLS: u8 = 125;
const BACKENDS: u8 = 4;
/// Between two probes of a backend.
pub(super) const INTERVAL: Duration = Duration::from_secs(2);
/// On every address of the backends.
const PORT: u16 = 8443;
/// Where the backends are: directly on `lan0`, each a neighbour of its own.
const SUBNET: &str = "10.9.0.0/16";

/// A running daemon, its backends' server, and the lab around them.
pub(super) struct Stand {
    pub(super) gateway: Gateway,
    server: Process,
    /// Dropped last: it ends whatever still runs.
    _lab: Lab,
}

/// How many are probed.
pub(super) const TARGETS: u32 = POOLS as u32 * BACKENDS as u32;

impl Stand {
    /// With all backends up.
    pub(super) fn start(options: &Options) -> Result<Self> {
        let lab = Lab::new("bench_probes", &Topology::two_armed().backends(1))?;
        let backend = lab.backend(0);
        backend.run(["ip", "route", "add", "local", SUBNET, "dev", "lo"])?;
        lab.gateway().run(["ip", "route", "add", SUBNET, "dev", "lan0"])?;
        let authority = Authority::new(lab.dir(), "ca")?;
        let files = authority.issue("server", &[SERVER_NAME], Validity::Now)?;
        let mut command = backend.command(&options.lab_host, ["handshakes"]);
        command.arg("--cert").arg(&files.certificate).arg("--key").arg(&files.key);
        command.arg("--listen").arg(format!("0.0.0.0:{PORT}"));
        let mut server = backend.spawn_command(command)?;
        server.wait_for_line("ready", PATIENCE)?;

        let configuration = configuration(&lab, authority.ca_file())?;
        let mut gateway = Gateway::new(&lab, &options.balancer, &configuration)?;
        gateway.start(&[])?;
        gateway.wait_until("all backends to be up", Status::are_all_up)?;
        Ok(Self { gateway, server, _lab: lab })
    }

    /// When probes started so far, in microseconds, oldest first.
    pub(super) fn starts_us(&self) -> Result<Vec<u64>> {
        let said = self.server.stdout();
        let times = said.lines().skip(1);
        times.map(|line| line.parse().with_context(|| format!("the server said {line:?}"))).collect()
    }
}

fn configuration(lab: &Lab, ca_file: &Path) -> Result<String> {
    let mut text =
        "[gateway]\ninterfaces = [\"wan0\", \"lan0\"]\nmax_flows = 16384\nmax_half_open = 4096\n".to_owned();
    for pool in 0..POOLS {
        let listen = 20_000 + u16::from(pool);
        write!(
            text,
            "\n[[pool]]\nname = \"pool{pool}\"\non_backend_down = \"keep\"\npassive = \"off\"\nconnect_retry = \"off\"\n\
             probe = {{ kind = \"tls\", interval = \"{}s\", server_name = \"{SERVER_NAME}\", ca_file = {ca_file:?} }}\n\
             [[pool.service]]\nname = \"web\"\nlisten = \"{}:{listen}\"\nbackend_port = {PORT}\n",
            INTERVAL.as_secs(),
            lab.vip(),
        )?;
        for backend in 0..BACKENDS {
            let address = Ipv4Addr::new(10, 9, pool, 1 + backend);
            writeln!(text, "[[pool.backend]]\nname = \"server{backend}\"\naddress = \"{address}\"")?;
        }
    }
    Ok(text)
}
