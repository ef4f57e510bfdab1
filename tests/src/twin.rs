//! Twins: the same frames through balancer and through the kernel's own NAT, and what comes out compared byte by byte.
//!
//! Two labs of one shape, with the same addresses, hardware addresses too. One gateway runs balancer; the other is a
//! Linux router with nft's dnat and, for a pool that forwards by snat, masquerade. Clients and backend are packet sockets
//! and nothing else: no stack of theirs may add a word. So the kernel's NAT, which nobody here has written, says what each
//! frame must become. Where the two differ on purpose stands in `listed.rs`; every other difference is a failure.
//!
//! Deliberately not here: real stacks, retries and time. Frames go one by one, and what one leads to is known before the
//! next is sent.

mod build;
mod conversation;
mod flow;
mod frame;
mod icmp;
mod listed;
mod odd;
mod options;
mod report;
mod scene;
mod seed;
mod side;
mod wire;

use anyhow::{Context, Result, bail};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

use listed::Case;
use side::{Emerged, Side};

pub use conversation::Conversation;
pub use listed::{Listed, Tally};
pub use odd::Odd;
pub use scene::{End, Family, Forwarding, Scene};
pub use wire::Wire;

/// Both labs.
#[derive(Debug)]
pub struct Twins {
    ours: Side,
    kernels: Side,
    /// How the frames so far came out.
    pub tally: Tally,
}

impl Twins {
    /// Builds both labs; `label` (a-z, 0-9, _) is part of their names. The calling thread stays on one CPU from then on.
    ///
    /// # Errors
    /// When either can't be built, or forwards nothing.
    pub fn new(label: &str, scene: Scene) -> Result<Self> {
        let kernels = build::kernels(&format!("{label}_k"), scene).context("the kernel's lab")?;
        let ours = build::ours(&format!("{label}_b"), scene).context("balancer's lab")?;
        // What a send leads to happens on the sender's CPU: on two of them frames could overtake each other.
        let mut here = CpuSet::new();
        here.set(sched_getcpu());
        sched_setaffinity(None, &here).context("stay on one CPU")?;
        Ok(Self { ours, kernels, tally: Tally::default() })
    }

    /// Puts one frame into both labs. An error when what comes out differs and isn't one of `allowed`; with both frames,
    /// field by field.
    fn put(&mut self, from: End, frame: &[u8], allowed: &[Listed]) -> Result<Fate> {
        let kernels = self.kernels.put(from, frame)?;
        let ours = self.ours.put(from, frame)?;
        let case = Case { from, frame, ours: &ours, kernels: &kernels };
        let difference = (ours != kernels)
            .then(|| allowed.iter().copied().find(|listed| listed.explains(case)).context("not listed"))
            .transpose();
        let Ok(difference) = difference else {
            bail!(
                "{}balancer's drops: {}",
                report::describe(from, frame, &ours, &kernels),
                self.ours.drops()?
            );
        };
        self.tally.count(difference);
        Ok(Fate { from, kernels, difference })
    }

    /// Holds a conversation through both gateways: each segment has to be forwarded, by both alike.
    ///
    /// # Errors
    /// At the first segment for which that isn't so.
    pub fn hold(&mut self, conversation: &Conversation) -> Result<()> {
        for (number, (from, segment)) in conversation.said.iter().enumerate() {
            let told = || format!("segment {number} of {conversation}\n{}", conversation.transcript());
            let frame = conversation.flow.frame(*from, segment)?;
            let fate = self.put(*from, &frame, &[Listed::Padding]).with_context(told)?;
            // Two gateways that both drop everything are alike too.
            fate.forwarded().with_context(told)?;
        }
        Ok(())
    }
}

/// What became of a frame: on our side the same as on the kernel's, but for the difference.
#[derive(Debug)]
struct Fate {
    from: End,
    kernels: Emerged,
    difference: Option<Listed>,
}

impl Fate {
    /// The frame that came out at the other end, and alone.
    fn forwarded(&self) -> Result<&[u8]> {
        let forwarded = self.kernels.only_at(self.from.other());
        forwarded.with_context(|| format!("neither gateway forwards it; instead: {:02x?}", self.kernels))
    }

    /// The frame that came back, and alone.
    fn answered(&self) -> Option<&[u8]> {
        self.kernels.only_at(self.from)
    }

    fn is_silence(&self) -> bool {
        self.kernels == Emerged::default()
    }
}
