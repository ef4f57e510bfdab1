//! Test runs: packets by the feeder, into one of the programs of the benchmark's object or into the product's.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues, ProgramArray};
use aya::programs::{ProgramFd, TestRun, TestRunOptions, Xdp};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader};
use rustix::time::{ClockId, clock_gettime};

use super::plan::{KINDS, Part, Plan, Storm, WORDS_4, WORDS_6};
use crate::case::{Side, ifindex, xdp_md};

/// A [`Plan`] as its map has it.
type PlanWords = [u64; size_of::<Plan>() / size_of::<u64>()];

/// The loaded object.
pub(super) struct Feeder {
    ebpf: Ebpf,
    plan: Array<MapData, PlanWords>,
    programs: ProgramArray<MapData>,
    counts: PerCpuArray<MapData, u64>,
    floor_flows: HashMap<MapData, [u8; 16], [u8; 32]>,
    /// What the peer's tables have room for.
    pub(super) entries: u32,
}

/// Who gets the packets.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    /// A program of the object.
    Own(&'static str),
    /// The program under test.
    Product(&'a ProgramFd),
}

/// A test run.
#[derive(Debug)]
pub(super) struct Run {
    /// Of this thread, in the kernel and around it.
    pub(super) cpu: Duration,
    /// Of the last packet.
    pub(super) action: u32,
    /// The last packet, as the program left it.
    pub(super) frame: Vec<u8>,
}

const OWN: [&str; 4] = ["feeder", "empty", "floor", "floor_insert"];

impl Feeder {
    /// Loads the object; the peer's tables get so many entries.
    pub(super) fn load(object: &Path, entries: u32) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("FLOWS", entries).map_max_entries("FULL", entries);
        let mut ebpf = loader.load_file(object).with_context(|| format!("load {}", object.display()))?;
        for name in OWN {
            let program = ebpf.program_mut(name).with_context(|| format!("the object has no {name}"))?;
            let program: &mut Xdp = program.try_into()?;
            program.load().with_context(|| format!("load {name}"))?;
        }
        Ok(Self {
            plan: take(&mut ebpf, "PLAN")?,
            programs: take(&mut ebpf, "PROGRAMS")?,
            counts: take(&mut ebpf, "COUNTS")?,
            floor_flows: take(&mut ebpf, "FLOWS")?,
            ebpf,
            entries,
        })
    }

    /// So many packets into this program, as if they had come in on this side.
    pub(super) fn run(&mut self, target: Target<'_>, plan: &Plan, side: Side, packets: u32) -> Result<Run> {
        match target {
            Target::Own(name) => self.programs.set(0, own(&self.ebpf, name)?.fd()?, 0),
            Target::Product(fd) => self.programs.set(0, fd, 0),
        }
        .context("hand the feeder its program")?;
        self.plan.set(0, words(plan), 0).context("tell the feeder its plan")?;
        let length = if plan.is_ipv6 == 0 { WORDS_4 } else { WORDS_6 } * size_of::<u64>();
        let context = xdp_md(length, ifindex(side.interface())?);
        let (blank, mut frame) = (vec![0; length], vec![0; length]);
        let options = TestRunOptions {
            data_in: Some(&blank),
            data_out: Some(&mut frame),
            ctx_in: Some(&context),
            repeat: packets,
            ..TestRunOptions::default()
        };
        let feeder = own(&self.ebpf, "feeder")?;
        let before = cpu_time();
        let result = feeder.test_run(options).context("BPF_PROG_TEST_RUN")?;
        let cpu = cpu_time().saturating_sub(before);
        let made = self.plan.get(&0, 0)?[PLACE_OF_MADE].wrapping_sub(plan.made);
        ensure!(made == u64::from(packets), "the feeder has made {made} packets instead of {packets}");
        Ok(Run { cpu, action: result.return_value, frame })
    }

    /// Packets that the peers have handled, and those that they haven't.
    pub(super) fn floor_counts(&self) -> Result<[u64; 2]> {
        let sum = |what| -> Result<u64> { Ok(self.counts.get(&what, 0)?.iter().sum()) };
        Ok([sum(0)?, sum(1)?])
    }

    /// Tells the peer of flows.
    pub(super) fn learn(&mut self, flows: impl Iterator<Item = ([u8; 16], [u8; 32])>) -> Result<()> {
        for (key, recipe) in flows {
            self.floor_flows.insert(key, recipe, 0)?;
        }
        Ok(())
    }
}

/// A storm's, which several threads send at once.
pub(super) struct StormFeeder {
    ebpf: Ebpf,
    programs: ProgramArray<MapData>,
    kinds: Array<MapData, PlanWords>,
    storms: PerCpuArray<MapData, StormWords>,
    ingress: u32,
}

/// A [`Storm`] as its map has it.
type StormWords = [u64; size_of::<Storm>() / size_of::<u64>()];

impl StormFeeder {
    /// Loads the object. The calling thread is in the lab's gateway.
    pub(super) fn load(object: &Path) -> Result<Self> {
        // The peers stay away, so their tables need not be large.
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("FLOWS", 1).map_max_entries("FULL", 1);
        let mut ebpf = loader.load_file(object).with_context(|| format!("load {}", object.display()))?;
        let program: &mut Xdp = ebpf.program_mut("storm").context("the object has no storm")?.try_into()?;
        program.load().context("load storm")?;
        Ok(Self {
            programs: take(&mut ebpf, "PROGRAMS")?,
            kinds: take(&mut ebpf, "STORM_KINDS")?,
            storms: take(&mut ebpf, "STORMS")?,
            ingress: ifindex(Side::Wan.interface())?,
            ebpf,
        })
    }

    /// The next storm: into this program, with these kinds of packets.
    pub(super) fn prepare(
        &mut self,
        program: &ProgramFd,
        kinds: &[Plan],
        flows_mask: u64,
        seed: u64,
    ) -> Result<()> {
        self.programs.set(0, program, 0).context("hand the storm its program")?;
        ensure!(kinds.len() == KINDS, "{} kinds of packets", kinds.len());
        for (kind, plan) in kinds.iter().enumerate() {
            self.kinds.set(kind as u32, words(plan), 0)?;
        }
        let cpus = nr_cpus().map_err(|(what, error)| anyhow::anyhow!("{what}: {error}"))?;
        // Far apart for each CPU, and never zero.
        let random = |cpu: usize| (seed ^ (cpu as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).max(1);
        let storms = (0..cpus).map(|cpu| [random(cpu), flows_mask, 0]).collect::<Vec<StormWords>>();
        Ok(self.storms.set(0, PerCpuValues::try_from(storms)?, 0)?)
    }

    /// Packets that were made since, on all CPUs.
    pub(super) fn made(&self) -> Result<u64> {
        Ok(self.storms.get(&0, 0)?.iter().map(|[_, _, made]| made).sum())
    }

    /// So many packets on the calling thread's CPU.
    pub(super) fn storm(&self, packets: u32) -> Result<()> {
        let length = WORDS_4 * size_of::<u64>();
        let context = xdp_md(length, self.ingress);
        let blank = vec![0; length];
        let options = TestRunOptions {
            data_in: Some(&blank),
            ctx_in: Some(&context),
            repeat: packets,
            ..TestRunOptions::default()
        };
        let result = own(&self.ebpf, "storm")?.test_run(options).context("BPF_PROG_TEST_RUN")?;
        ensure!(result.return_value != 0, "the storm's program is broken");
        Ok(())
    }
}

fn own<'a>(ebpf: &'a Ebpf, name: &str) -> Result<&'a Xdp> {
    Ok(ebpf.program(name).with_context(|| format!("the object has no {name}"))?.try_into()?)
}

fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> Result<M> {
    let map = ebpf.take_map(name).with_context(|| format!("the object has no map {name}"))?;
    M::try_from(map).with_context(|| format!("open {name}"))
}

/// Where `made` is: last.
const PLACE_OF_MADE: usize = size_of::<PlanWords>() / size_of::<u64>() - 1;

/// In the order of the fields.
fn words(plan: &Plan) -> PlanWords {
    let parts = [plan.source, plan.destination, plan.source_port, plan.destination_port];
    let parts = parts.iter().flat_map(|Part { first, shift, mask }| [*first, *shift, *mask]);
    let before = plan.frame.into_iter().chain([plan.is_ipv6, plan.ip_sum, plan.tcp_sum]);
    let all = before.chain(parts).chain([plan.first, plan.mask, plan.step, plan.made]);
    let mut words = [0; size_of::<Plan>() / size_of::<u64>()];
    for (to, from) in words.iter_mut().zip(all) {
        *to = from;
    }
    words
}

/// What this thread has used of its CPU.
pub(super) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
