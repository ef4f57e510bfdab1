//! Where it was measured: numbers of different machines are not comparable, ratios are.

use std::fmt::{self, Display};
use std::fs;

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// What the numbers depend on.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    processor: String,
    cores: usize,
    kernel: String,
    /// The one that measures, if it is but one.
    cpu: Option<usize>,
}

impl Machine {
    /// This one.
    pub(crate) fn here() -> Result<Self> {
        let facts = fs::read_to_string("/proc/cpuinfo").context("read /proc/cpuinfo")?;
        let model = facts.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Ok(Self {
            processor: model.map_or("unknown processor", |(_, model)| model).to_owned(),
            cores: allowed()?.count() as usize,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .context("ask for the kernel's version")?
                .trim()
                .to_owned(),
            cpu: None,
        })
    }

    /// This one, with the calling thread pinned to the last CPU that it may use: the first has most of the interrupts.
    pub(super) fn pinned() -> Result<Self> {
        let machine = Self::here()?;
        let allowed = allowed()?;
        let mut usable = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
        let cpu = usable.next_back().context("a CPU to use")?;
        let mut only = CpuSet::new();
        only.set(cpu);
        sched_setaffinity(None, &only).with_context(|| format!("stay on CPU {cpu}"))?;
        Ok(Self { cpu: Some(cpu), ..machine })
    }
}

fn allowed() -> Result<CpuSet> {
    sched_getaffinity(None).context("ask for the CPUs to use")
}

impl Display for Machine {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, cores, kernel, cpu } = self;
        write!(to, "{processor}, {cores} CPUs, Linux {kernel}")?;
        cpu.map_or(Ok(()), |cpu| write!(to, ", measured on CPU {cpu}"))
    }
}
