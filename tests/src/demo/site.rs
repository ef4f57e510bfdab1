//! The scene: the lab, its certificates, the configuration, and the programs in it.
//!
//! `balancer` is a black box here: a program that is started, asked and killed as a person would.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::{
    certificates::{Authority, ServerFiles, Validity},
    lab::{Host, Lab, Process, Topology},
    site::{PASSWORDS, StackWatch},
};

use super::kept::Kept;

/// In order: the first is the one that is preferred.
pub(super) const FIRST: &str = "server1";
pub(super) const SECOND: &str = "server2";
pub(super) const POOL: &str = "passwords";
/// Name, port at the gateway, port at the servers: one that is translated and one that isn't.
pub(super) const SERVICES: [(&str, u16, u16); 2] = [("web", 443, 10001), ("api", 8877, 8877)];
pub(super) const SERVER_NAME: &str = "pw.example.org";

/// How often each backend and service is probed; a kill is noticed within it.
pub(super) const PROBE_INTERVAL: &str = "500ms";
/// How often each client loop connects: about 60 connections a second in all, little work for a small machine.
const CLIENT_INTERVAL: &str = "30ms";
/// Longer than TCP's first retransmission (1 s): a packet lost on a busy machine is not a failed connection.
pub(super) const CLIENT_TIMEOUT: Duration = Duration::from_secs(2);
/// For things that take a fraction of a second on a quiet machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// A process, and how far what it prints has been read.
#[derive(Debug)]
struct Watched {
    process: Process,
    bytes_read: usize,
}

impl Watched {
    fn new(process: Process) -> Self {
        Self { process, bytes_read: 0 }
    }

    /// The complete lines of `text`, which only grows, that were not read yet.
    fn new_lines(&mut self, text: &str) -> Vec<String> {
        let fresh = text.get(self.bytes_read..).unwrap_or_default();
        let complete = &fresh[..fresh.rfind('\n').map_or(0, |at| at + 1)];
        self.bytes_read += complete.len();
        complete.lines().map(ToOwned::to_owned).collect()
    }
}

/// All that runs; dropping it ends the lab. The lab stands last: what runs in it ends before it.
#[derive(Debug)]
pub(super) struct Site {
    balancer: PathBuf,
    lab_host: PathBuf,
    files: ServerFiles,
    ca_file: PathBuf,
    servers: [Option<Process>; 2],
    daemon: Option<Watched>,
    clients: Vec<(&'static str, Watched)>,
    stack: StackWatch,
    lab: Lab,
}

impl Site {
    /// Builds the lab, makes the certificates and writes the configuration; nothing runs yet.
    pub(super) fn build(balancer: &Path, lab_host: &Path) -> Result<Self> {
        let lab = Lab::new("demo", &Topology::two_armed())?;
        let authority = Authority::new(lab.dir(), "ca")?;
        let files = authority.issue("server", &[SERVER_NAME], Validity::Now)?;
        let ca_file = authority.ca_file().to_owned();
        // The demo's pool is the one of the tests.
        let stack = StackWatch::start(&lab, &[PASSWORDS])?;
        let site = Self {
            balancer: balancer.to_owned(),
            lab_host: lab_host.to_owned(),
            files,
            ca_file,
            servers: [None, None],
            daemon: None,
            clients: Vec::new(),
            stack,
            lab,
        };
        let file = site.config_file();
        fs::write(&file, site.config()).with_context(|| format!("write {}", file.display()))?;
        Ok(site)
    }

    pub(super) fn lab(&self) -> &Lab {
        &self.lab
    }

    pub(super) fn config_file(&self) -> PathBuf {
        self.lab.dir().join("balancer.toml")
    }

    fn config(&self) -> String {
        let vip = self.lab.vip();
        let services = SERVICES.map(|(name, port, backend_port)| {
            format!("[[pool.service]]\nname = \"{name}\"\nlisten = \"{vip}:{port}\"\nbackend_port = {backend_port}\n")
        });
        let [first, second] = [0, 1].map(|index| self.lab.backend(index).address());
        format!(
            r#"[gateway]
interfaces = ["wan0", "lan0"]

[[pool]]
name = "{POOL}"
failback = "manual"
on_backend_down = "keep"
passive = "off"
connect_retry = "off"

[pool.probe]
kind = "tls"
interval = "{PROBE_INTERVAL}"
timeout = "1s"
server_name = "{SERVER_NAME}"
ca_file = "{ca_file}"

{services}
[[pool.backend]]
name = "{FIRST}"
address = "{first}"
max_fails = 1
fail_timeout = "2s"

[[pool.backend]]
name = "{SECOND}"
address = "{second}"
max_fails = 1
fail_timeout = "2s"
"#,
            ca_file = self.ca_file.display(),
            services = services.join("\n"),
        )
    }

    /// Starts the server of this index, on the ports of both services.
    pub(super) fn start_server(&mut self, index: usize) -> Result<()> {
        let host = self.lab.backend(index);
        let mut command = host.command(&self.lab_host, ["serve", "--name", [FIRST, SECOND][index]]);
        command.arg("--cert").arg(&self.files.certificate).arg("--key").arg(&self.files.key);
        for (_, _, port) in SERVICES {
            command.arg("--listen").arg(format!("{}:{port}", host.address()));
        }
        let mut server = host.spawn_command(command)?;
        server.wait_for_line("ready", PATIENCE)?;
        self.servers[index] = Some(server);
        Ok(())
    }

    /// SIGKILL: no goodbye.
    pub(super) fn kill_server(&mut self, index: usize) {
        if let Some(server) = self.servers[index].take() {
            server.kill();
        }
    }

    /// Starts the daemon in the gateway; it is ready when its log says so.
    pub(super) fn start_daemon(&mut self) -> Result<()> {
        let gateway = self.lab.gateway();
        let mut command = gateway.command(&self.balancer, ["run", "--log-format", "json"]);
        command.arg("--config").arg(self.config_file());
        command.arg("--socket").arg(self.lab.socket());
        command.arg("--state-dir").arg(self.lab.state_dir());
        command.arg("--pin-dir").arg(self.lab.pin_dir());
        // The timeline is made from the log, whatever the user's shell says.
        command.env("BALANCER_LOG", "info");
        self.daemon = Some(Watched::new(gateway.spawn_command(command)?));
        Ok(())
    }

    /// SIGKILL; returns what it had logged and wasn't read yet.
    pub(super) fn kill_daemon(&mut self) -> Result<Vec<String>> {
        let Some(mut daemon) = self.daemon.take() else { return Ok(Vec::new()) };
        daemon.process.signal(Signal::KILL)?;
        daemon.process.wait(PATIENCE)?;
        let log = daemon.process.stderr();
        Ok(daemon.new_lines(&log))
    }

    /// What the daemon has logged since the last call.
    pub(super) fn daemon_lines(&mut self) -> Vec<String> {
        let Some(daemon) = &mut self.daemon else { return Vec::new() };
        let log = daemon.process.stderr();
        daemon.new_lines(&log)
    }

    /// Starts one client loop per service.
    pub(super) fn start_clients(&mut self) -> Result<()> {
        let client = self.lab.client();
        for (service, port, _) in SERVICES {
            let target = format!("{}:{port}", self.lab.vip());
            let timeout = format!("{}ms", CLIENT_TIMEOUT.as_millis());
            let mut command = client.command(&self.lab_host, ["watch", "--interval", CLIENT_INTERVAL]);
            command.args(["--target", &target, "--sni", SERVER_NAME, "--timeout", &timeout]);
            command.arg("--ca").arg(&self.ca_file);
            self.clients.push((service, Watched::new(client.spawn_command(command)?)));
        }
        Ok(())
    }

    /// What the client loops have told since the last call, with the service's name.
    pub(super) fn client_lines(&mut self) -> Vec<(&'static str, String)> {
        let of_client = |(service, client): &mut (&'static str, Watched)| {
            let told = client.process.stdout();
            let service = *service;
            client.new_lines(&told).into_iter().map(move |line| (service, line)).collect::<Vec<_>>()
        };
        self.clients.iter_mut().flat_map(of_client).collect()
    }

    /// # Errors
    /// When a program has ended by itself: nothing that is waited for would come any more.
    pub(super) fn all_run(&mut self) -> Result<()> {
        if let Some(daemon) = &mut self.daemon {
            ensure!(daemon.process.is_running(), "the daemon has ended by itself");
        }
        for (service, client) in &mut self.clients {
            let is_running = client.process.is_running();
            ensure!(
                is_running,
                "the client loop of {service} has ended; stderr {:?}",
                client.process.stderr()
            );
        }
        for (name, server) in [FIRST, SECOND].into_iter().zip(&mut self.servers) {
            if let Some(server) = server {
                ensure!(server.is_running(), "{name} has ended by itself; stderr {:?}", server.stderr());
            }
        }
        Ok(())
    }

    /// Runs a verb of `balancer` that asks the daemon, and returns what it prints.
    pub(super) fn ask(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.balancer);
        command.args(words).arg("--socket").arg(self.lab.socket()).stdin(Stdio::null());
        let shown = words.join(" ");
        let output = command.output().with_context(|| format!("start {}", self.balancer.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`balancer {shown}` failed ({}): {}", output.status, said.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Ends everything, and looks whether it has gone, and whether nothing had leaked into the gateway's stack.
    pub(super) fn end(self) -> Result<()> {
        let leaked = self.stack.seen()?;
        let namespace = Path::new("/run/netns").join(self.lab.gateway().namespace());
        let traces = [namespace, self.lab.pin_dir().to_owned(), self.lab.dir().to_owned()];
        drop(self);
        for trace in traces {
            ensure!(!trace.exists(), "the lab has ended and left {} behind", trace.display());
        }
        ensure!(leaked.is_empty(), "packets of services reached the gateway's own stack: {leaked:?}");
        Ok(())
    }

    /// Leaves everything running but the client loops, whose output would grow for ever.
    pub(super) fn keep(self) -> Result<Kept> {
        let Self { balancer, servers, daemon, clients, lab, ca_file, .. } = self;
        drop(clients);
        let server_pids = servers.each_ref().map(|server| server.as_ref().map(Process::id));
        let processes = servers.into_iter().flatten().chain(daemon.map(|daemon| daemon.process));
        processes.for_each(Process::leave_running);
        let of = |host: &Host| host.namespace().to_owned();
        Ok(Kept {
            balancer,
            ca_file,
            socket: lab.socket(),
            vip: lab.vip(),
            gateway: of(lab.gateway()),
            client: of(lab.client()),
            server_pids,
            end_command: lab.keep()?.end_command,
        })
    }
}
