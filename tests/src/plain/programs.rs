//! The programs of the benchmark's BPF object (`balancer-ebpf/src/path`), brought where they belong: the least that XDP can
//! do, beside which the rest is measured, who sends frames, and who takes them.

use std::{
    io::{Write, stdout},
    path::Path,
    thread,
};

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{Array, xdp::DevMap},
    programs::{Xdp, xdp::XdpMode},
};
use nix::net::if_::if_nametoindex;

use super::ack::FRAME_BYTES;

/// The programs, one of them in the kernel.
pub(super) struct Programs(Ebpf);

impl Programs {
    /// Who sends this frame out of this interface of the calling thread's network.
    pub(super) fn replaying(object: &Path, interface: &str, frame: &[u8; FRAME_BYTES]) -> Result<Self> {
        let mut programs = Self::load(object, "replay")?;
        programs.send_to(interface)?;
        let map = programs.0.map_mut("FRAME").context("the object has no map FRAME")?;
        let mut words = [0_u32; FRAME_BYTES / 4];
        for (word, bytes) in words.iter_mut().zip(frame.as_chunks().0) {
            *word = u32::from_ne_bytes(*bytes);
        }
        Array::<_, [u32; FRAME_BYTES / 4]>::try_from(map)?.set(0, words, 0).context("fill the map FRAME")?;
        Ok(programs)
    }

    pub(super) fn replay(&self) -> Result<&Xdp> {
        Ok(self.0.program("replay").context("the program replay")?.try_into()?)
    }

    fn load(object: &Path, program: &str) -> Result<Self> {
        let mut ebpf = Ebpf::load_file(object).with_context(|| format!("load {}", object.display()))?;
        let xdp: &mut Xdp = ebpf
            .program_mut(program)
            .with_context(|| format!("{} has no program {program}", object.display()))?
            .try_into()?;
        xdp.load().with_context(|| format!("load the program {program}"))?;
        Ok(Self(ebpf))
    }

    fn send_to(&mut self, interface: &str) -> Result<()> {
        let index = if_nametoindex(interface).with_context(|| format!("look for interface {interface}"))?;
        let map = self.0.map_mut("OUT").context("the object has no map OUT")?;
        DevMap::try_from(map)?.set(0, index, None, 0).context("fill the map OUT")
    }

    /// For ever: the link is gone with the process that made it.
    fn run_on(mut self, interface: &str, program: &str) -> Result<()> {
        let xdp: &mut Xdp = self.0.program_mut(program).context("a program that was loaded")?.try_into()?;
        xdp.attach(interface, XdpMode::Driver).with_context(|| format!("attach to {interface}"))?;
        println!("ready");
        stdout().flush().context("say ready")?;
        loop {
            thread::park();
        }
    }
}

/// Redirects all that comes in, until this process ends.
pub(super) fn redirect(object: &Path, from: &str, to: &str) -> Result<()> {
    let mut programs = Programs::load(object, "redirect")?;
    programs.send_to(to)?;
    programs.run_on(from, "redirect")
}

/// Drops all that comes in, until this process ends.
pub(super) fn discard(object: &Path, interface: &str) -> Result<()> {
    Programs::load(object, "drop")?.run_on(interface, "drop")
}
