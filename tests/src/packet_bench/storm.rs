//! The program under stress: two CPUs send packets of all kinds of the same flows into it at once, in no order, while the
//! product's own sweeper takes flows out; whenever they rest, the tables must be as `laws` says.
//!
//! Nothing is measured. Deliberately absent: what becomes of a single packet, which the packet cases have; here each
//! one must be counted, once.

mod laws;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use balancer_common::limits::JIFFIES_PER_TICK;
use balancer_user::dataplane::flows::FlowTable;
use balancer_user::dataplane::object::Wanted;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_getres, clock_gettime};

use super::feeder::StormFeeder;
use super::gateway::{Gateway, IDLE_TIMEOUT, WAN_SLOT};
use super::plan::{KINDS, Plan};
use super::world::{DNAT4, Flows, SNAT4, SNAT6, Segment, World};
use crate::case::on_a_gateway;
use laws::{Known, Tables};

/// Packets that a CPU sends in one go. The kernel needs some 10 ms to begin a test run, so that it takes many for two of
/// them to be at work at once for most of the time.
const PACKETS_AT_ONCE: u64 = 25_000;

/// How often each packet comes, in quarters of a world: a handshake must come about before something ends it.
const SEGMENTS: [Segment; 16] = [
    Segment::Syn,
    Segment::Syn,
    Segment::Syn,
    Segment::SynAck,
    Segment::SynAck,
    Segment::SynAck,
    Segment::Ack,
    Segment::Ack,
    Segment::Ack,
    Segment::FromClient,
    Segment::FromBackend,
    Segment::SynAnew,
    Segment::FinFromClient,
    Segment::FinFromBackend,
    Segment::ResetFromClient,
    Segment::ResetFromBackend,
];

/// How the sweeper goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sweeper {
    /// As the controller: flows that were made old beforehand go, those that get a packet in time stay.
    Honest,
    /// Now and then as if it were much later, so that it takes out everything, also what is in the making.
    Torturer,
}

/// Tables, and what goes on in them.
#[derive(Clone, Copy, Debug)]
struct Weather {
    name: &'static str,
    worlds: &'static [&'static World],
    /// Whether packets may pass uncounted: with dnat, those of a backend that belong to no flow.
    may_pass: bool,
    /// Flows of each world, a power of two.
    flows: u64,
    max_flows: u32,
    max_half_open: u32,
}

const WEATHERS: [Weather; 2] = [
    Weather {
        name: "room for all",
        worlds: &[&SNAT4, &DNAT4, &SNAT6],
        may_pass: true,
        flows: 512,
        max_flows: 2048,
        max_half_open: 2048,
    },
    Weather {
        name: "too small for all",
        worlds: &[&SNAT4, &SNAT6],
        may_pass: false,
        flows: 1024,
        max_flows: 512,
        max_half_open: 128,
    },
];

/// Sends a storm of so many packets over tables with room for all flows and over some without, with this seed.
///
/// # Errors
/// The law that was broken, or when there is no second CPU.
pub fn storm(bench_object: &Path, packets: u64, seed: u64) -> Result<()> {
    on_a_gateway("storm", || {
        let mut feeder = StormFeeder::load(bench_object)?;
        let cpus = two_cpus()?;
        let rounds = packets.div_ceil(WEATHERS.len() as u64 * 2 * PACKETS_AT_ONCE).max(4);
        for weather in WEATHERS {
            let mut storm = Storm::new(weather, &mut feeder, cpus, seed)?;
            for round in 0..rounds {
                // Torture comes last: what it tears apart stays until it is swept.
                let sweeper = if 2 * round < rounds { Sweeper::Honest } else { Sweeper::Torturer };
                storm
                    .burst(sweeper)
                    .with_context(|| format!("{}, seed {seed}, burst {round}, {sweeper:?}", weather.name))?;
            }
            storm.conclude().with_context(|| format!("{}, seed {seed}, in the end", weather.name))?;
        }
        Ok(())
    })
}

/// One program in a storm.
struct Storm<'a> {
    weather: Weather,
    feeder: &'a mut StormFeeder,
    gateway: Gateway,
    tables: Tables,
    cpus: [usize; 2],
    sent: u64,
    swept: u64,
}

impl<'a> Storm<'a> {
    fn new(weather: Weather, feeder: &'a mut StormFeeder, cpus: [usize; 2], seed: u64) -> Result<Self> {
        let wanted = Wanted {
            max_flows: weather.max_flows,
            max_half_open: weather.max_half_open,
            ipv4: true,
            ipv6: true,
            frags: true,
        };
        let mut gateway = Gateway::load(wanted, weather.worlds)?;
        feeder.prepare(gateway.fd()?, &kinds(&weather), weather.flows - 1, seed)?;
        let tables = Tables::of(&mut gateway)?;
        Ok(Self { weather, feeder, gateway, tables, cpus, sent: 0, swept: 0 })
    }

    /// Both CPUs and the sweeper at once; then all rest, and everything is looked at.
    fn burst(&mut self, sweeper: Sweeper) -> Result<()> {
        self.tables.grow_older(ticks(IDLE_TIMEOUT + Duration::from_secs(3600)))?;
        let (feeder, flows) = (&*self.feeder, &mut self.gateway.flows);
        let (start, running) = (Barrier::new(self.cpus.len()), AtomicU32::new(self.cpus.len() as u32));
        let begun = feeder.made()?;
        let sends = |cpu| {
            let sent = pin_to(cpu).and_then(|()| {
                start.wait();
                feeder.storm(PACKETS_AT_ONCE as u32)
            });
            running.fetch_sub(1, Ordering::SeqCst);
            sent
        };
        let swept: Result<u64> = thread::scope(|scope| {
            let senders = self.cpus.map(|cpu| scope.spawn(move || sends(cpu)));
            // Old flows are there for packets and sweeper to meet at, so packets come first.
            while running.load(Ordering::SeqCst) > 0 && feeder.made()? == begun {}
            let mut swept = 0;
            while running.load(Ordering::SeqCst) > 0 {
                sweep(flows, sweeper == Sweeper::Torturer && swept % 8 == 7);
                swept += 1;
            }
            for sender in senders {
                sender.join().map_err(|_| anyhow!("a sender panicked"))??;
            }
            Ok(swept)
        });
        self.swept += swept?;
        let made = feeder.made()? - begun;
        ensure!(made == PACKETS_AT_ONCE * self.cpus.len() as u64, "{made} packets were made");
        self.sent += made;
        self.rest(sweeper)
    }

    /// All laws.
    fn rest(&mut self, sweeper: Sweeper) -> Result<()> {
        // Two walks mend the count, should it be off.
        sweep(&mut self.gateway.flows, false);
        sweep(&mut self.gateway.flows, false);
        let known = Known {
            gateway: &self.gateway,
            worlds: self.weather.worlds,
            interface: WAN_SLOT,
            may_be_torn: sweeper == Sweeper::Torturer,
        };
        let found = self.tables.check(&known)?;
        let limits = [self.weather.max_flows, self.weather.max_half_open].map(|limit| 2 * u64::from(limit));
        ensure!(found.established <= limits[0] && found.half_open <= limits[1], "too many: {found:?}");
        ensure!(sweeper == Sweeper::Torturer || found.alone == 0, "half flows: {found:?}");
        let counted = self.gateway.counted()?;
        let all = counted.forwarded + counted.others.values().sum::<u64>();
        let least = if self.weather.may_pass { self.sent / 8 * 7 } else { self.sent };
        ensure!(
            (least..=self.sent).contains(&all),
            "{} packets were sent, {all} counted: {counted:?}",
            self.sent
        );
        Ok(())
    }

    /// Nothing remains of flows whose time is over, and everything that should happen did.
    fn conclude(&mut self) -> Result<()> {
        let [begun, taken] = self.tables.begun_and_swept()?;
        println!(
            "{}: {} packets, {begun} handshakes and flows begun, {taken} taken out in {} sweeps; {:?}",
            self.weather.name,
            self.sent,
            self.swept,
            self.gateway.counted()?
        );
        ensure!(begun > self.sent / 100 && taken > 0, "too little has happened");
        for _ in 0..2 {
            sweep(&mut self.gateway.flows, true);
        }
        let known = Known {
            gateway: &self.gateway,
            worlds: self.weather.worlds,
            interface: WAN_SLOT,
            may_be_torn: false,
        };
        let left = self.tables.check(&known)?;
        ensure!(left.established == 0 && left.half_open == 0 && left.alone == 0, "{left:?} is left");
        Ok(())
    }
}

/// The sweeper's walk: now, or when all flows are over that there are.
fn sweep(flows: &mut FlowTable, is_late: bool) -> BTreeMap<u16, u64> {
    let now = clock_gettime(ClockId::Monotonic);
    let later = if is_late { IDLE_TIMEOUT + Duration::from_secs(3600) } else { Duration::ZERO };
    let now = Duration::new(now.tv_sec as u64, now.tv_nsec as u32) + later;
    flows.sweep_at(now.as_nanos() as u64).established
}

/// As the tables have it.
fn ticks(duration: Duration) -> u32 {
    let resolution = clock_getres(ClockId::MonotonicCoarse);
    (duration.as_nanos() / (resolution.tv_nsec as u128 * u128::from(JIFFIES_PER_TICK))) as u32
}

/// The packets of all worlds, the first ones' twice if that fits better.
fn kinds(weather: &Weather) -> Vec<Plan> {
    let worlds = weather.worlds.iter().cycle().take(KINDS / SEGMENTS.len());
    let flows = Flows { first: 0, count: weather.flows };
    worlds.flat_map(|world| SEGMENTS.map(|segment| world.plan(segment, flows))).collect()
}

fn two_cpus() -> Result<[usize; 2]> {
    let allowed = sched_getaffinity(None).context("ask for the CPUs to use")?;
    let mut usable = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    usable.next().zip(usable.next()).map(<[usize; 2]>::from).context("it takes two CPUs")
}

fn pin_to(cpu: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).with_context(|| format!("stay on CPU {cpu}"))
}
