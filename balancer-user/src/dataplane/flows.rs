//! Flows as the controller sees them: counts them, lists them, and forgets those that have outlived their time. `cut` ends
//! flows before that, `held` sends those on their way that wait.
//!
//! The packet path makes and changes flows; here they are only read and taken out, both directions together, through a
//! mapping of the packet path's own memory: no system call a flow. Here are the tables and their counts; how flows are
//! walked over is in `sweep` and `listing`.

mod age;
mod both;
mod listing;
mod sweep;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use aya::Ebpf;
use balancer_common::abi::{Address4, Address6, Count, WireAddress};

use super::DataplaneError;
use super::clock::{FlowClock, Jiffies, monotonic_ns};
use super::lines::{MappedTable, Names};
use super::maps::Maps;
use super::tables::take_array;
use super::words::MappedWords;

pub use age::Lifetimes;
pub(super) use both::{Both, both, is_unanswered};
pub use listing::{Flow, FlowState};
pub use sweep::Census;

use age::Ager;
use sweep::Notes;

/// The flow tables.
pub struct FlowTable {
    pub(super) v4: FamilyTables<Address4>,
    pub(super) v6: FamilyTables<Address6>,
    pub(super) clock: FlowClock,
    /// Of established flows, in nanoseconds: of another configuration maybe, while a walk is under way.
    lifetime_ns: AtomicU64,
    /// A controller that was killed may have left half flows behind: the first walk looks at each backend's line.
    is_first: AtomicBool,
}

/// Those of one address family.
pub(super) struct FamilyTables<A> {
    pub(super) established: Counted<A>,
    pub(super) half_open: Counted<A>,
    pub(super) counts: MappedWords,
}

/// A table, and by how much its count was off at the last walk.
pub(super) struct Counted<A> {
    pub(super) table: MappedTable<A>,
    /// Which of its family's counts.
    count: usize,
    off: AtomicI64,
}

/// How many flows are in the tables of the family that has more of them; each family may have as many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Established flows.
    pub established: u64,
    /// Handshakes.
    pub half_open: u64,
}

const fn names(lines: &'static str, tags: &'static str, apart: &'static str) -> Names {
    Names { lines, tags, apart }
}

impl FlowTable {
    /// From a loaded object.
    pub fn take(ebpf: &mut Ebpf, lifetimes: Lifetimes) -> Result<Self, DataplaneError> {
        let clock = FlowClock::read(ebpf)?;
        let table = Self::with(clock, ebpf, lifetimes)?;
        table.v4.finish_what_was_begun();
        table.v6.finish_what_was_begun();
        Ok(table)
    }

    /// From what a controller has left, for [`FlowTable::for_each`]: nothing is taken out.
    pub fn look(maps: &mut impl Maps) -> Result<Self, DataplaneError> {
        let clock = FlowClock::as_last_read(maps)?;
        Self::with(clock, maps, Lifetimes { established: Duration::MAX })
    }

    fn with(clock: FlowClock, maps: &mut impl Maps, lifetimes: Lifetimes) -> Result<Self, DataplaneError> {
        Ok(Self {
            v4: FamilyTables::take(
                maps,
                &names("ESTABLISHED_4", "ESTAB_TAGS_4", "ESTAB_PAST_4"),
                &names("HALF_OPEN_4", "HALF_TAGS_4", "HALF_SYNS_4"),
                "COUNTS_4",
            )?,
            v6: FamilyTables::take(
                maps,
                &names("ESTABLISHED_6", "ESTAB_TAGS_6", "ESTAB_PAST_6"),
                &names("HALF_OPEN_6", "HALF_TAGS_6", "HALF_SYNS_6"),
                "COUNTS_6",
            )?,
            clock,
            lifetime_ns: AtomicU64::new(nanos(lifetimes.established)),
            is_first: AtomicBool::new(true),
        })
    }

    /// From the next walk on flows live for so long.
    pub fn set_lifetimes(&self, lifetimes: Lifetimes) {
        self.lifetime_ns.store(nanos(lifetimes.established), Ordering::Relaxed);
    }

    /// Walks over all flows once, counts them and takes out those whose time is over.
    pub fn sweep(&self) -> Census {
        self.sweep_at(monotonic_ns())
    }

    /// As [`FlowTable::sweep`], when the clock of the packet path (`CLOCK_MONOTONIC`) says `now_ns`.
    pub fn sweep_at(&self, now_ns: u64) -> Census {
        let mut notes = Notes::new();
        let mut ager = self.ager(now_ns);
        ager.is_thorough = self.is_first.swap(false, Ordering::Relaxed);
        self.v4.sweep(&ager, &mut notes);
        self.v6.sweep(&ager, &mut notes);
        notes.census()
    }

    fn ager(&self, now_ns: u64) -> Ager {
        let now = self.clock.tick_at(now_ns);
        let established = Duration::from_nanos(self.lifetime_ns.load(Ordering::Relaxed));
        Ager { now, clock: self.clock, lifetimes: Lifetimes { established }, is_thorough: false }
    }

    /// How full the tables are, from the packet path's own counts.
    #[must_use]
    pub fn fill(&self) -> Fill {
        let more = |which| self.v4.count(which).flows().max(self.v6.count(which).flows());
        Fill { established: more(ESTABLISHED), half_open: more(HALF_OPEN) }
    }

    /// How long ago a moment of the packet path was.
    #[must_use]
    pub fn age(&self, then: Jiffies) -> Duration {
        self.clock.age_at(then, monotonic_ns())
    }

    /// Every flow, in no order. One that ends meanwhile may be left out.
    pub fn for_each(&self, mut visit: impl FnMut(Flow)) {
        let ager = self.ager(monotonic_ns());
        self.v4.for_each(&ager, &mut visit);
        self.v6.for_each(&ager, &mut visit);
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

const ESTABLISHED: usize = 0;
const HALF_OPEN: usize = 1;
const COUNT_WORDS: usize = size_of::<Count>() / size_of::<u64>();
/// Where the words of a [`Count`] stand.
const BEGUN: usize = 0;
const ENDED: usize = 1;
const SWEPT: usize = 2;

impl<A: WireAddress> FamilyTables<A> {
    fn take(
        maps: &mut impl Maps,
        established: &Names,
        half_open: &Names,
        counts: &'static str,
    ) -> Result<Self, DataplaneError> {
        Ok(Self {
            established: Counted {
                table: MappedTable::take(maps, established, false)?,
                count: ESTABLISHED,
                off: AtomicI64::new(0),
            },
            half_open: Counted {
                table: MappedTable::take(maps, half_open, true)?,
                count: HALF_OPEN,
                off: AtomicI64::new(0),
            },
            counts: take_array(maps, counts, COUNT_WORDS)?,
        })
    }

    fn finish_what_was_begun(&self) {
        self.established.table.finish_what_was_begun();
        self.half_open.table.finish_what_was_begun();
    }

    fn count(&self, which: usize) -> Count {
        read_count(&self.counts, which)
    }
}

fn read_count(counts: &MappedWords, which: usize) -> Count {
    let word = |word| counts.load(which * COUNT_WORDS + word);
    Count { begun: word(BEGUN), ended: word(ENDED), swept: word(SWEPT), ..Count::default() }
}
