//! The application that the tests put behind a balancer: server1 and its backup server2, each with TLS on two ports,
//! and clients in front. Servers and clients are `lab-host`; what it can do is in `traffic/`.
//!
//! Deliberately not here: assertions. A site only does what it is told and says what it saw; but one thing holds in
//! every test, the iron rule (see `stack_watch.rs`), so dropping a site panics when it was broken.

mod cables;
mod client;
mod configuration;
mod held;
mod stack_watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    certificates::{Authority, ServerFiles},
    gateway::{Gateway, PATIENCE, Status, binary_under_test},
    lab::{Host, Lab, Process, Topology},
};

pub use client::{Load, Watcher};
pub use configuration::{API, Forwarding, Options, PASSWORDS, Pool, Service, WEB, server_name};
pub use held::Held;
pub use stack_watch::StackWatch;

/// In the servers' certificates, and what clients and probes ask for.
pub const SERVER_NAME: &str = "pw.example.org";
/// The pool's name.
pub const POOL: &str = "passwords";

/// For a big one, on a busy machine, with a retransmission or two.
const TRANSFER_MAX: Duration = Duration::from_secs(70);

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

/// A running site.
#[derive(Debug)]
pub struct Site {
    servers: BTreeMap<(usize, u16), Process>,
    /// The balancer.
    pub gateway: Gateway,
    /// What the gateway's stack sees of the services: nothing.
    pub stack: StackWatch,
    pools: &'static [Pool],
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
        site.begin()?;
        Ok(site)
    }

    /// Starts what [`Site::prepare`] left out: all servers, and the balancer.
    ///
    /// # Errors
    /// When any of it can't be started.
    pub fn begin(&mut self) -> Result<()> {
        let servers: BTreeSet<_> = self.pools.iter().flat_map(|pool| pool.servers.iter().copied()).collect();
        servers.into_iter().try_for_each(|server| self.serve(server))?;
        self.gateway.start(&[])?;
        // Ready means decided; a backup that has not answered its first probe yet is nothing to test with.
        self.gateway.wait_until("all servers to be up", Status::are_all_up).map(drop)
    }

    /// A site in which nothing runs yet, but everything is in its place.
    ///
    /// # Errors
    /// When the lab can't be built.
    pub fn prepare(label: &str, topology: &Topology, options: Options, programs: &Programs) -> Result<Self> {
        let lab = Lab::new(label, topology)?;
        let authority = Authority::new(lab.dir(), "ca")?;
        let certificate = authority.issue("server", &[SERVER_NAME], options.validity)?;
        let configuration = configuration::configuration(&lab, &options, authority.ca_file());
        let gateway = Gateway::new(&lab, &programs.balancer, &configuration)?;
        let stack = StackWatch::start(&lab, options.pools)?;
        let (servers, pools, lab_host) = (BTreeMap::new(), options.pools, programs.lab_host.clone());
        Ok(Self { servers, gateway, stack, pools, authority, certificate, lab_host, lab })
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
        configuration::configuration(&self.lab, &options, self.ca_file())
    }

    /// Starts a server on all its ports.
    ///
    /// # Errors
    /// When it can't listen.
    pub fn serve(&mut self, server: usize) -> Result<()> {
        let interface = &self.lab.backend(server).interfaces()[0];
        let mut addresses: BTreeMap<u16, BTreeSet<SocketAddr>> = BTreeMap::new();
        for pool in self.pools.iter().filter(|pool| pool.servers.contains(&server)) {
            for port in pool.services.iter().map(|service| service.backend_port) {
                let address = SocketAddr::new(interface.addresses[pool.family], port);
                addresses.entry(port).or_default().insert(address);
            }
        }
        addresses.into_iter().try_for_each(|(port, listen)| self.serve_one(server, port, &listen))
    }

    fn serve_one(&mut self, server: usize, port: u16, listen: &BTreeSet<SocketAddr>) -> Result<()> {
        let host = self.lab.backend(server);
        let mut command = host.command(&self.lab_host, ["serve", "--name", &server_name(server)]);
        command.arg("--cert").arg(&self.certificate.certificate).arg("--key").arg(&self.certificate.key);
        for address in listen {
            command.arg("--listen").arg(address.to_string());
        }
        let mut process = host.spawn_command(command)?;
        process.wait_for_line("ready", PATIENCE)?;
        self.servers.insert((server, port), process);
        Ok(())
    }

    /// Kills a server's processes (SIGKILL); says when.
    pub fn kill(&mut self, server: usize) -> SystemTime {
        let killed = SystemTime::now();
        self.servers.retain(|(of, _), _| *of != server);
        killed
    }

    /// Starts what serves one service of the first pool on a server.
    ///
    /// # Errors
    /// As [`Site::serve`].
    pub fn serve_service(&mut self, server: usize, service: Service) -> Result<()> {
        let address = self.lab.backend(server).interfaces()[0].addresses[self.pools[0].family];
        let listen = SocketAddr::new(address, service.backend_port);
        self.serve_one(server, service.backend_port, &BTreeSet::from([listen]))
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
        self.watch_as(service, &["--interval", "20ms"])
    }

    /// Starts `lab-host watch` on the first client, with these arguments.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn watch_as(&self, service: Service, arguments: &[&str]) -> Result<Watcher> {
        Ok(Watcher(self.client("watch", service, arguments)?))
    }

    /// Runs `lab-host transfer` on any host and against any address to its end, and hands its report on.
    ///
    /// # Errors
    /// When it can't be started, or what was asked for didn't come through.
    pub fn transfer_to(&self, host: &Host, target: SocketAddr, arguments: &[&str]) -> Result<Value> {
        let words = [&["--timeout", "60s"], arguments].concat();
        let process = self.client_on(host, "transfer", target, &words)?;
        serde_json::from_str(&process.finish(TRANSFER_MAX)?).context("the report of a transfer")
    }

    /// Runs `lab-host load` on any host and against any address to its end, and hands its report on.
    ///
    /// # Errors
    /// When it can't be started or says nothing.
    pub fn load_from(&self, host: &Host, target: SocketAddr, arguments: &[&str]) -> Result<Value> {
        Load(self.client_on(host, "load", target, arguments)?).report()
    }

    /// Opens a connection of the first client to a service, and has one request answered on it.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn hold(&self, pool: Pool, service: Service) -> Result<Held> {
        let target = SocketAddr::new(self.vip(pool), service.port);
        Held::open(self.lab.client(), target, self.ca_file())
    }

    /// Opens a connection of the first client to a service of the first pool, on which nothing is said: the server waits
    /// half a minute for a TLS handshake.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn connect(&self, service: Service) -> Result<TcpStream> {
        let target = SocketAddr::new(self.vip(self.pools[0]), service.port);
        let stream = self.lab.client().enter(|| TcpStream::connect_timeout(&target, PATIENCE))??;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Where a pool's services are.
    #[must_use]
    pub fn vip(&self, pool: Pool) -> IpAddr {
        self.lab.vips()[pool.family]
    }

    fn client(&self, verb: &str, service: Service, arguments: &[&str]) -> Result<Process> {
        let target = SocketAddr::new(self.vip(self.pools[0]), service.port);
        self.client_on(self.lab.client(), verb, target, arguments)
    }

    fn client_on(&self, host: &Host, verb: &str, target: SocketAddr, arguments: &[&str]) -> Result<Process> {
        let (target, lab_host) = (target.to_string(), self.lab_host.display().to_string());
        let ca_file = self.ca_file().display().to_string();
        let words = [lab_host.as_str(), verb, "--target", &target, "--sni", SERVER_NAME, "--ca", &ca_file];
        host.spawn(words.iter().chain(arguments))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // A failing test has its own story to tell, and a second panic would abort all tests.
        if thread::panicking() {
            return;
        }
        match self.stack.seen() {
            Ok(seen) if seen.is_empty() => {}
            Ok(seen) => panic!("packets of services reached the gateway's own stack: {seen:?}"),
            Err(error) => panic!("the gateway's stack can't be asked what it saw: {error:#}"),
        }
    }
}
