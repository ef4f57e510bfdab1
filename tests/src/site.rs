//! The application that the tests put behind a balancer: server1 and its backup server2, each with TLS on two ports,
//! and clients in front. Servers and clients are `lab-host`; what it can do is in `traffic/`.
//!
//! Deliberately not here: assertions. A site only does what it is told and says what it saw.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    certificates::{Authority, ServerFiles, Validity},
    gateway::{Gateway, PATIENCE, binary_under_test},
    lab::{Lab, Process, Topology},
    poll::poll_until,
};

/// In the servers' certificates, and what clients and probes ask for.
pub const SERVER_NAME: &str = "pw.example.org";
/// The pool's name.
pub const POOL: &str = "passwords";
/// The servers, the primary first.
pub const SERVERS: [&str; 2] = ["server1", "server2"];

/// The programs that a site is made of.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `balancer`.
    pub balancer: PathBuf,
    /// `lab-host`.
    pub lab_host: PathBuf,
}

impl Programs {
    /// The balancer under test, and this `lab-host`.
    ///
    /// # Errors
    /// As [`binary_under_test`].
    pub fn under_test(lab_host: &str) -> Result<Self> {
        Ok(Self { balancer: binary_under_test()?, lab_host: lab_host.into() })
    }
}

/// A listening port of the VIP and where it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// As in the configuration.
    pub name: &'static str,
    /// On the VIP.
    pub port: u16,
    /// On the servers.
    pub backend_port: u16,
}

/// 443, which is translated.
pub const WEB: Service = Service { name: "web", port: 443, backend_port: 10001 };
/// 8877, which stays.
pub const API: Service = Service { name: "api", port: 8877, backend_port: 8877 };

/// What the tests vary in the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// `manual` or `auto`.
    pub failback: &'static str,
    /// Of both backends.
    pub max_fails: u32,
    /// Of both backends.
    pub fail_timeout: &'static str,
    /// Between probes, when all is well.
    pub interval: &'static str,
    /// Between probes, when something isn't.
    pub fast_interval: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            failback: "manual",
            max_fails: 1,
            fail_timeout: "2s",
            interval: "500ms",
            fast_interval: "125ms",
        }
    }
}

/// A running site.
#[derive(Debug)]
pub struct Site {
    servers: BTreeMap<(usize, u16), Process>,
    /// The balancer.
    pub gateway: Gateway,
    authority: Authority,
    certificate: ServerFiles,
    lab_host: PathBuf,
    /// Dropped last: it ends whatever still runs.
    lab: Lab,
}

impl Site {
    /// A site whose servers listen and whose balancer is ready.
    ///
    /// # Errors
    /// When any of it can't be started.
    pub fn start(label: &str, topology: &Topology, options: Options, programs: &Programs) -> Result<Self> {
        let mut site = Self::prepare(label, topology, options, programs)?;
        (0..SERVERS.len()).try_for_each(|server| site.serve(server))?;
        site.gateway.start(&[])?;
        // Ready means decided; a backup that has not answered its first probe yet is nothing to test with.
        site.gateway.wait_until("both servers to be up", |status| {
            SERVERS.iter().all(|server| status.is(server, "up"))
        })?;
        Ok(site)
    }

    /// A site in which nothing runs yet, but everything is in its place.
    ///
    /// # Errors
    /// When the lab can't be built.
    pub fn prepare(label: &str, topology: &Topology, options: Options, programs: &Programs) -> Result<Self> {
        let lab = Lab::new(label, topology)?;
        let authority = Authority::new(lab.dir(), "ca")?;
        let certificate = authority.issue("server", &[SERVER_NAME], Validity::Now)?;
        let configuration = configuration(&lab, options, authority.ca_file());
        let gateway = Gateway::new(&lab, &programs.balancer, &configuration)?;
        let lab_host = programs.lab_host.clone();
        Ok(Self { servers: BTreeMap::new(), gateway, authority, certificate, lab_host, lab })
    }

    /// Its hosts.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// What clients have to trust.
    #[must_use]
    pub fn ca_file(&self) -> &Path {
        self.authority.ca_file()
    }

    /// The configuration with these options.
    #[must_use]
    pub fn configuration(&self, options: Options) -> String {
        configuration(&self.lab, options, self.ca_file())
    }

    /// Starts a server on all its ports.
    ///
    /// # Errors
    /// When it can't listen.
    pub fn serve(&mut self, server: usize) -> Result<()> {
        [WEB, API].into_iter().try_for_each(|service| self.serve_one(server, service))
    }

    fn serve_one(&mut self, server: usize, service: Service) -> Result<()> {
        let host = self.lab.backend(server);
        let listen = SocketAddr::from((host.address(), service.backend_port)).to_string();
        let ServerFiles { certificate, key } = &self.certificate;
        let mut process = host.spawn([
            self.lab_host.as_os_str(),
            "serve".as_ref(),
            "--listen".as_ref(),
            listen.as_ref(),
            "--cert".as_ref(),
            certificate.as_os_str(),
            "--key".as_ref(),
            key.as_os_str(),
            "--name".as_ref(),
            SERVERS[server].as_ref(),
        ])?;
        process.wait_for_line("ready", PATIENCE)?;
        self.servers.insert((server, service.backend_port), process);
        Ok(())
    }

    /// Kills a server's processes (SIGKILL); says when.
    pub fn kill(&mut self, server: usize) -> SystemTime {
        let killed = SystemTime::now();
        [WEB, API].into_iter().for_each(|service| drop(self.servers.remove(&(server, service.backend_port))));
        killed
    }

    /// Kills what serves one service on a server.
    pub fn kill_one(&mut self, server: usize, service: Service) {
        drop(self.servers.remove(&(server, service.backend_port)));
    }

    /// Runs `lab-host load` on the first client to its end, and hands its report on.
    ///
    /// # Errors
    /// When it can't be started or says nothing.
    pub fn load(&self, service: Service, arguments: &[&str]) -> Result<Value> {
        self.start_load(service, arguments)?.report()
    }

    /// Starts `lab-host load` on the first client.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start_load(&self, service: Service, arguments: &[&str]) -> Result<Load> {
        Ok(Load(self.client("load", service, arguments)?))
    }

    /// Starts `lab-host watch` on the first client: a connection every 20 ms.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn watch(&self, service: Service) -> Result<Watcher> {
        Ok(Watcher(self.client("watch", service, &["--interval", "20ms"])?))
    }

    fn client(&self, verb: &str, service: Service, arguments: &[&str]) -> Result<Process> {
        let target = SocketAddr::from((self.lab.vip(), service.port)).to_string();
        let (lab_host, ca_file) = (self.lab_host.display().to_string(), self.ca_file().display().to_string());
        let words = [lab_host.as_str(), verb, "--target", &target, "--sni", SERVER_NAME, "--ca", &ca_file];
        self.lab.client().spawn(words.iter().chain(arguments))
    }
}

/// Clients under way.
#[derive(Debug)]
pub struct Load(Process);

impl Load {
    /// The report at its end, whatever it says; see `traffic/load.rs`.
    ///
    /// # Errors
    /// When it doesn't end within two minutes, or says nothing.
    pub fn report(mut self) -> Result<Value> {
        let status = self.0.wait(Duration::from_secs(120))?;
        let report: Value = serde_json::from_str(&self.0.stdout())
            .with_context(|| format!("report of load: {:?} {:?}", self.0.stdout(), self.0.stderr()))?;
        ensure!(status.success() == (report["failed"] == 0), "{status}, but the report is {report}");
        Ok(report)
    }

    /// Whether it still makes connections.
    pub fn is_running(&mut self) -> bool {
        self.0.is_running()
    }
}

/// One that asks again and again who serves.
#[derive(Debug)]
pub struct Watcher(Process);

impl Watcher {
    /// Waits for the first answer by this server to a connection opened after `since`; from then until the answer.
    ///
    /// # Errors
    /// After [`PATIENCE`].
    pub fn first_answer(&self, server: &str, since: SystemTime) -> Result<Duration> {
        let since_ms = since.duration_since(UNIX_EPOCH).context("the time of day")?.as_secs_f64() * 1000.0;
        let answered_ms = |attempt: &Value| {
            let (started, took) = (attempt["unix_ms"].as_f64()?, attempt["took_ms"].as_f64()?);
            (started >= since_ms && attempt["name"] == server).then_some(started + took - since_ms)
        };
        poll_until(PATIENCE, &format!("an answer by {server}"), || {
            let attempts = self.attempts();
            let first = attempts.iter().filter_map(answered_ms).min_by(f64::total_cmp);
            first
                .map(|ms| Duration::from_secs_f64(ms / 1000.0))
                .ok_or_else(|| format!("{:?}", attempts.last()))
        })
    }

    /// All attempts that have ended so far; see `traffic/watch.rs`.
    #[must_use]
    pub fn attempts(&self) -> Vec<Value> {
        // The last line may be half written.
        self.0.stdout().lines().map_while(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// A pool with two services and two servers, the second a backup. What isn't carried out yet is switched off, so that
/// there is nothing to warn of.
fn configuration(lab: &Lab, options: Options, ca_file: &Path) -> String {
    let Options { failback, max_fails, fail_timeout, interval, fast_interval } = options;
    let interfaces: Vec<_> = lab.gateway().interfaces().iter().map(|one| format!("{:?}", one.name)).collect();
    let mut text = format!(
        r#"[gateway]
interfaces = [{}]
max_flows = 16384
max_half_open = 4096

[[pool]]
name = "{POOL}"
failback = "{failback}"
on_backend_down = "keep"
passive = "off"
connect_retry = "off"

[pool.probe]
kind = "tls"
interval = "{interval}"
fast_interval = "{fast_interval}"
timeout = "500ms"
server_name = "{SERVER_NAME}"
ca_file = {ca_file:?}
"#,
        interfaces.join(", ")
    );
    for Service { name, port, backend_port } in [WEB, API] {
        let listen = SocketAddr::from((lab.vip(), port));
        text += &format!(
            "\n[[pool.service]]\nname = \"{name}\"\nlisten = \"{listen}\"\nbackend_port = {backend_port}\n"
        );
    }
    for (index, name) in SERVERS.iter().enumerate() {
        let address = lab.backend(index).address();
        text += &format!(
            "\n[[pool.backend]]\nname = \"{name}\"\naddress = \"{address}\"\nbackup = {}\nmax_fails = {max_fails}\n\
             fail_timeout = \"{fail_timeout}\"\n",
            index > 0
        );
    }
    text
}
