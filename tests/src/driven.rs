//! The data plane on the gateway of a lab without a daemon: a test says itself which backend is active, when flows wait,
//! and when they end. Its clients and servers are real.
//!
//! Deliberately not here: pins, probes, and anything that decides.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use aya::programs::XdpMode;
use balancer_common::abi::{ActiveWord, Interface, NextHop};
use balancer_user::dataplane::{
    cut::CutReport,
    cut_all::Doomed,
    flows::{FlowTable, Lifetimes},
    held::{Entrance, ReplayReport, Waiting},
    object::{self, Loaded, Wanted},
    repeats::Repeats,
    slots::{BackendPlan, Busy, Forwarding, PoolPlan, PoolSlots, Retry, ServicePlan, assign},
    tables::Tables,
};
use nix::{ifaddrs::getifaddrs, net::if_::if_nametoindex};

use crate::{
    lab::{Host, Lab},
    packet::Mac,
};

/// Where the service listens, and its backends.
pub const PORT: u16 = 443;
/// Flows and handshakes that there may be: more than the clients of a test open, as nobody takes closed ones out.
const FLOWS: u32 = 1 << 16;
const INTERFACES: [&str; 2] = ["wan0", "lan0"];
/// The slot of `lan0`: they are counted from 1.
const LAN: u16 = 2;

/// A program in the kernel, and its tables. What it does, it does on a thread that is in the lab's gateway.
pub struct Driven {
    program: Loaded,
    tables: Tables,
    flows: FlowTable,
    slots: PoolSlots,
    generic: BTreeSet<u32>,
}

impl Driven {
    /// One pool with one service, of the lab's first family, and all of the lab's backends; no new flow goes to any of them.
    /// To be called in the gateway.
    ///
    /// # Errors
    /// Without the object or capabilities, or when the lab isn't two-armed.
    pub fn start(lab: &Lab, forwarding: Forwarding, mode: XdpMode) -> Result<Self> {
        let is_ipv4 = lab.vip().is_ipv4();
        let wanted =
            Wanted { max_flows: FLOWS, max_half_open: FLOWS, ipv4: is_ipv4, ipv6: !is_ipv4, frags: true };
        let mut program = object::load(wanted, None)?;
        let mut tables = Tables::take(&mut program.ebpf)?;
        let lifetimes = Lifetimes { established: Duration::from_secs(3600) };
        let flows = FlowTable::take(&mut program.ebpf, lifetimes)?;
        let plan = [plan(lab, forwarding)];
        let slots = assign(&plan, &tables.occupied()?, &Busy::default())?;
        tables.write_pools(&plan, &slots)?;
        let mut generic = BTreeSet::new();
        for (slot, name) in (1..).zip(INTERFACES) {
            let ifindex = if_nametoindex(name).with_context(|| format!("look for {name}"))?;
            let interface = Interface { ifindex, mtu: 1500, mac: mac(name)?, padding: 0 };
            tables.set_interface(slot, interface)?;
            program.program()?.attach(name, mode).with_context(|| format!("attach to {name}"))?;
            if mode == XdpMode::Skb {
                generic.insert(ifindex);
            }
        }
        let gateway = lab.gateway().interfaces()[1].address();
        for (slot, backend) in slots[0].backends.iter().zip(lab.backends()) {
            let mac = backend.enter(|| mac(&backend.interfaces()[0].name))??;
            tables.set_way(slot.index, Some((gateway, NextHop { mac, interface: LAN })))?;
        }
        tables.publish_services(&plan, &slots)?;
        let slots = slots.into_iter().next().context("a pool")?;
        Ok(Self { program, tables, flows, slots, generic })
    }

    /// New flows go to this backend.
    pub fn activate(&self, backend: usize) {
        self.set(ActiveWord::new(self.slots.backends[backend].index, 0, 0));
    }

    /// New flows wait.
    pub fn hold(&self) {
        self.set(ActiveWord::hold(0, 0));
    }

    fn set(&self, word: ActiveWord) {
        self.tables.set_active(self.slots.pool.index, word);
    }

    /// What waits comes in once more.
    ///
    /// # Errors
    /// When the tables can't be read.
    pub fn replay(&self) -> Result<ReplayReport> {
        let services = self.slots.services.iter().map(|slot| slot.index).collect();
        let exits = self.tables.exits(0)?;
        let entrance = Entrance {
            program: &self.program,
            exits: &exits,
            generic: &self.generic,
            repeats: &Repeats::new(&self.flows),
        };
        Ok(self.flows.replay(&Waiting { services, not_at: None }, entrance))
    }

    /// Ends a backend's flows.
    ///
    /// # Errors
    /// When the tables can't be read.
    pub fn cut(&self, backend: usize) -> Result<CutReport> {
        let slot = self.slots.backends[backend].index;
        let doomed = Doomed { slot, name: String::new(), exits: self.tables.exits(slot)? };
        Ok(self.flows.cut_all(&[doomed], None).pop().context("a report")??)
    }

    /// Packets of a backend's flows that went on so far, both ways.
    ///
    /// # Errors
    /// When the table can't be read.
    pub fn forwarded(&self, backend: usize) -> Result<u64> {
        Ok(self.tables.backend_traffic(self.slots.backends[backend].index)?.packets)
    }

    /// The flows' backends, none for those that wait.
    #[must_use]
    pub fn flows(&self) -> Vec<Option<usize>> {
        let mut flows = Vec::new();
        self.flows.for_each(|flow| {
            flows.push(self.slots.backends.iter().position(|slot| slot.index == flow.backend));
        });
        flows
    }
}

fn plan(lab: &Lab, forwarding: Forwarding) -> PoolPlan {
    let backend = |host: &Host| BackendPlan { name: host.role().to_owned(), address: host.address() };
    PoolPlan {
        name: "driven".into(),
        forwarding,
        snat_addresses: Vec::new(),
        snat_ports: vec![1024..=32767],
        retry: Retry::Off,
        connect_timeout: Duration::ZERO,
        services: vec![ServicePlan {
            name: "web".into(),
            listen: SocketAddr::new(lab.vip(), PORT),
            backend_port: PORT,
        }],
        backends: lab.backends().iter().map(backend).collect(),
    }
}

/// Of an interface of this thread's network.
fn mac(interface: &str) -> Result<Mac> {
    getifaddrs()
        .context("list interfaces")?
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| entry.address?.as_link_addr()?.addr())
        .with_context(|| format!("there is no interface {interface}"))
}

/// A server that says its number to whoever connects, and then waits until the connection ends. It ends with the lab.
///
/// # Errors
/// When it can't listen.
pub fn serve(lab: &Lab, backend: usize) -> Result<()> {
    let host = lab.backend(backend);
    let listen = SocketAddr::new(host.address(), PORT);
    let listener = host.enter(|| TcpListener::bind(listen))?.context("listen")?;
    thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let _ = connection.write_all(&[backend as u8]);
            thread::spawn(move || {
                let _ = connection.read_to_end(&mut Vec::new());
            });
        }
    });
    Ok(())
}

/// Connects to the service from the lab's client, and tells which server has answered.
///
/// # Errors
/// When nobody does.
pub fn connect(lab: &Lab) -> Result<(TcpStream, usize)> {
    const PATIENCE: Duration = Duration::from_secs(20);
    let service = SocketAddr::new(lab.vip(), PORT);
    let stream = lab.client().enter(|| TcpStream::connect_timeout(&service, PATIENCE))?;
    let mut stream = stream.context("connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut number = [0];
    stream.read_exact(&mut number).context("read the server's number")?;
    Ok((stream, usize::from(number[0])))
}
