//! How long flows may be silent, by how far they are.

use std::time::Duration;

use balancer_common::flow::Stage;
use balancer_common::limits::HALF_CLOSED_IDLE_NS;
use balancer_common::table::since;

use crate::dataplane::clock::FlowClock;

/// A FIN that got lost is repeated within a few retransmission timeouts; nothing else can follow.
const CLOSED_IDLE: Duration = Duration::from_secs(15);
const HALF_CLOSED_IDLE: Duration = Duration::from_nanos(HALF_CLOSED_IDLE_NS);

/// How long flows live without a packet.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// Established flows; the others have fixed times.
    pub established: Duration,
}

/// Who is too old.
pub(super) struct Ager {
    /// In ticks.
    pub(super) now: u32,
    pub(super) clock: FlowClock,
    pub(super) lifetimes: Lifetimes,
    /// Looks for a client's line behind each backend's that is silent.
    pub(super) is_thorough: bool,
}

impl Ager {
    /// How long ago; a packet that came after the walk had begun came just now.
    pub(super) fn since(&self, tick: u32) -> Duration {
        self.clock.duration(since(tick, self.now))
    }

    pub(super) fn lifetime(&self, stage: Stage) -> Duration {
        match stage {
            Stage::Established => self.lifetimes.established,
            Stage::HalfClosed => HALF_CLOSED_IDLE,
            Stage::Closed => CLOSED_IDLE,
        }
    }
}
