//! A gateway under a load that must not notice anything: connections that stand and are checked record by record, and new
//! ones all the time, while something is done to the gateway again and again. And what must not grow meanwhile.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

use crate::gateway::PATIENCE;
use crate::inventory::Inventory;
use crate::lab::{Process, Topology};
use crate::poll::poll_until;
use crate::site::{Load, Options, Programs, Site, WEB};

/// The service whose connections stand; without TLS, as only bytes are to be counted.
const ECHO_PORT: u16 = 7;
const ECHO_BACKEND_PORT: u16 = 7007;
/// For the last records to come back.
const LAST_RECORDS: Duration = Duration::from_secs(120);
/// The allocator keeps some of what was used at once; what leaks for each round is more than that in the long run.
const GROWTH_KB: u64 = 8 * 1024;

/// How much of it: little in CI, all that was promised by command.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Connections that stand.
    pub flows: u64,
    /// New connections a second.
    pub rate: u64,
    /// Whether it is all that was promised.
    pub is_full: bool,
}

impl Scale {
    /// Full with `BALANCER_SOAK=full` in the environment.
    #[must_use]
    pub fn wanted() -> Self {
        let is_full = std::env::var_os("BALANCER_SOAK").is_some_and(|value| value == "full");
        if is_full {
            Self { flows: 1000, rate: 300, is_full }
        } else {
            Self { flows: 200, rate: 100, is_full }
        }
    }

    /// How many rounds.
    #[must_use]
    pub const fn rounds(&self, in_ci: u32, full: u32) -> u32 {
        if self.is_full { full } else { in_ci }
    }

    /// How long.
    #[must_use]
    pub const fn time(&self, in_ci: Duration, full: Duration) -> Duration {
        if self.is_full { full } else { in_ci }
    }
}

/// A site under load.
#[derive(Debug)]
pub struct Soak {
    /// What it is done to.
    pub site: Site,
    standing: Process,
    coming: Load,
    before: Usage,
    _servers: Vec<Process>,
}

/// What an instance uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    kernel: [usize; 3],
    links: Vec<u64>,
    descriptors: usize,
    resident_kb: u64,
}

impl Soak {
    /// Starts it. The names of servers in the configuration are `server1` and `server2`, that of the pool whose
    /// connections stand is `echo`.
    ///
    /// # Errors
    /// When any of it can't be started.
    pub fn start(label: &str, scale: Scale, lab_host: &str) -> Result<Self> {
        let options = Options { on_backend_down: "keep", fail_timeout: "1s", ..Options::default() };
        let mut site =
            Site::prepare(label, &Topology::two_armed(), options, &Programs::under_test(lab_host)?)?;
        site.gateway.configure(&configuration(&site))?;
        let mut servers = Vec::new();
        for backend in site.lab().backends() {
            let listen = SocketAddr::new(backend.address(), ECHO_BACKEND_PORT).to_string();
            let mut server = backend.spawn([lab_host, "echo", "--listen", &listen])?;
            server.wait_for_line("ready", PATIENCE)?;
            servers.push(server);
        }
        site.begin()?;
        let target = SocketAddr::new(site.lab().vip(), ECHO_PORT).to_string();
        let flows = scale.flows.to_string();
        let client = site.lab().client();
        let mut standing = client.spawn([lab_host, "hold", "--target", &target, "--flows", &flows])?;
        standing.wait_for_line("ready", PATIENCE)?;
        let rate = scale.rate.to_string();
        // A lost SYN is repeated after a second, and then after two and four.
        let load = ["--rate", &rate, "--connections", "1000000", "--parallel", "400", "--timeout", "10s"];
        let coming = site.start_load(WEB, &load)?;
        let before = Usage::of(&site)?;
        Ok(Self { site, standing, coming, before, _servers: servers })
    }

    /// Ends the load. An error unless nobody has noticed anything, and the gateway holds what it held: `is_anew`
    /// says that its links are others, as their devices are.
    ///
    /// # Errors
    /// See above.
    pub fn end(mut self, is_anew: bool) -> Result<()> {
        let coming = self.coming.end()?;
        self.standing.signal(Signal::TERM)?;
        let said = self.standing.finish(LAST_RECORDS)?;
        let report = said.lines().last().unwrap_or_default();
        let standing: serde_json::Value = serde_json::from_str(report).context("the report of `hold`")?;
        ensure!(coming["failed"] == 0 && coming["ok"].as_u64() > Some(0), "new connections: {coming}");
        ensure!(
            standing["broken"] == 0 && standing["records"].as_u64() > Some(0),
            "those that stand: {standing}"
        );
        poll_until(PATIENCE, "as much to be held as before", || {
            let after = Usage::of(&self.site).map_err(|error| format!("{error:#}"))?;
            let is_same = if is_anew { after.is_as_much_as(&self.before) } else { after.is_as(&self.before) };
            if is_same { Ok(()) } else { Err(format!("{after:?}, before it was {:?}", self.before)) }
        })
    }
}

impl Usage {
    /// Of the daemon that runs, and of what it holds in the kernel.
    ///
    /// # Errors
    /// When it doesn't answer.
    pub fn of(site: &Site) -> Result<Self> {
        let status = site.gateway.status()?;
        let process = Path::new("/proc").join(site.gateway.pid()?.to_string());
        let descriptors = fs::read_dir(process.join("fd")).context("list descriptors")?.count();
        let about = fs::read_to_string(process.join("status")).context("read its memory")?;
        let resident = about.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|text| text.trim().trim_end_matches("kB").trim().parse().ok());
        Ok(Self {
            kernel: Inventory::of(&status).counts(),
            links: status.link_ids(),
            descriptors,
            resident_kb: resident.context("VmRSS")?,
        })
    }

    fn is_as(&self, before: &Self) -> bool {
        self.links == before.links && self.is_as_much_as(before)
    }

    /// Probes hold a few descriptors while they are under way.
    fn is_as_much_as(&self, before: &Self) -> bool {
        const PROBES: usize = 8;
        self.kernel == before.kernel
            && self.descriptors.abs_diff(before.descriptors) <= PROBES
            && self.resident_kb <= before.resident_kb + GROWTH_KB
    }
}

/// The usual pool, and that whose connections stand.
#[must_use]
pub fn configuration(site: &Site) -> String {
    let options = Options { on_backend_down: "keep", fail_timeout: "1s", ..Options::default() };
    let mut text = site.configuration(options);
    let listen = SocketAddr::new(site.lab().vip(), ECHO_PORT);
    text += &format!(
        "\n[[pool]]\nname = \"echo\"\non_backend_down = \"keep\"\n\
         [pool.probe]\nkind = \"tcp\"\ninterval = \"1s\"\n\
         [[pool.service]]\nname = \"echo\"\nlisten = \"{listen}\"\nbackend_port = {ECHO_BACKEND_PORT}\n"
    );
    for (index, backend) in site.lab().backends().iter().enumerate() {
        let address = backend.address();
        text += &format!(
            "[[pool.backend]]\nname = \"server{}\"\naddress = \"{address}\"\nbackup = {}\nfail_timeout = \"1s\"\n",
            index + 1,
            index > 0
        );
    }
    text
}

/// Numbers that only have to differ, from a seed that a failing test prints.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Other numbers each time.
    #[must_use]
    pub fn cast() -> Self {
        let moment = clock_gettime(ClockId::Monotonic).tv_nsec;
        let seed = u64::from(std::process::id()) << 32 | moment.cast_unsigned();
        println!("seed {seed}");
        Self(seed)
    }

    /// Below this.
    pub fn below(&mut self, most: Duration) -> Duration {
        // Knuth's MMIX generator; its upper bits are good.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        most.mul_f64((self.0 >> 40) as f64 / f64::from(1 << 24))
    }
}
