//! Flows as the controller sees them: counts them, lists them, and forgets those that have outlived their time. `cut` ends
//! flows before that, `held` sends those on their way that wait.
//!
//! The packet path makes and changes flows; here they are only read and taken out, both directions together, through a
//! mapping of the packet path's own memory: no system call a flow. Most flows are judged by their client's line alone; the
//! other direction's is looked at when the client was silent for too long, or when the flow may have begun to end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use aya::Ebpf;
use balancer_common::abi::{Address4, Address6, Carried, Count, FlowKey, Line, Past, WireAddress, socket};
use balancer_common::flow::{Progress, Seen, Stage};
use balancer_common::limits::{
    HALF_CLOSED_IDLE_NS, HALF_OPEN_IDLE_NS, HELD_IDLE_NS, MAX_BACKENDS, MAX_SERVICES,
};
use balancer_common::table::{State, since};

use super::DataplaneError;
use super::clock::{FlowClock, Jiffies, monotonic_ns};
use super::lines::{Copied, MappedTable, Met, Names};
use super::maps::Maps;
use super::slots::Busy;
use super::tables::take_array;
use super::words::MappedWords;

const HALF_OPEN_IDLE: Duration = Duration::from_nanos(HALF_OPEN_IDLE_NS);
const HELD_IDLE: Duration = Duration::from_nanos(HELD_IDLE_NS);
/// A FIN that got lost is repeated within a few retransmission timeouts; nothing else can follow.
const CLOSED_IDLE: Duration = Duration::from_secs(15);
const HALF_CLOSED_IDLE: Duration = Duration::from_nanos(HALF_CLOSED_IDLE_NS);

/// A walk over a large table rests after so many lines, some ten milliseconds of work at the most, and for so long: whoever
/// else wants its processor has it.
const STRETCH: u32 = 1 << 17;
const REST: Duration = Duration::from_millis(1);

/// How long flows live without a packet.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// Established flows; the others have fixed times.
    pub established: Duration,
}

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

/// What one walk over the tables found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Established flows that haven't begun to close, by backend slot.
    pub established: BTreeMap<u16, u64>,
    /// Slots that any flow refers to.
    pub busy: Busy,
}

/// How far a flow is, as people are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowState {
    /// The handshake is under way.
    HalfOpen,
    /// Both directions are open.
    Established,
    /// One side has ended it, or both.
    Closing,
}

/// A flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Who connected.
    pub client: SocketAddr,
    /// To which address and port.
    pub listen: SocketAddr,
    /// Slot of the service.
    pub service: u16,
    /// Slot of the backend; 0: it has none yet, its SYN is held.
    pub backend: u16,
    /// How far it is.
    pub state: FlowState,
    /// Since its SYN.
    pub age: Duration,
    /// Since its last packet.
    pub idle: Duration,
    /// Packets of both directions.
    pub packets: u64,
    /// Their bytes, whole frames.
    pub bytes: u64,
}

/// How many flows are in the tables of the family that has more of them; each family may have as many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Established flows.
    pub established: u64,
    /// Handshakes.
    pub half_open: u64,
}

/// A walk's notes, in arrays as it passes many flows.
struct Notes {
    established: Vec<u64>,
    backends: Vec<bool>,
    services: Vec<bool>,
}

impl Notes {
    fn new() -> Self {
        Self {
            established: vec![0; MAX_BACKENDS],
            backends: vec![false; MAX_BACKENDS],
            services: vec![false; MAX_SERVICES],
        }
    }

    /// Slots that no controller gives away are nobody's.
    fn refer(&mut self, (service, backend): (u16, u16), is_open: bool) {
        if let Some(busy) = self.services.get_mut(usize::from(service)) {
            *busy = true;
        }
        if backend != 0
            && let Some(busy) = self.backends.get_mut(usize::from(backend))
        {
            *busy = true;
            self.established[usize::from(backend)] += u64::from(is_open);
        }
    }

    fn census(self) -> Census {
        let slots = |busy: Vec<bool>| {
            busy.into_iter().enumerate().filter_map(|(slot, busy)| busy.then_some(slot as u16)).collect()
        };
        let counted = self.established.into_iter().enumerate().filter(|(_, flows)| *flows > 0);
        Census {
            established: counted.map(|(slot, flows)| (slot as u16, flows)).collect(),
            busy: Busy { backends: slots(self.backends), services: slots(self.services) },
        }
    }
}

const fn names(lines: &'static str, tags: &'static str, pasts: &'static str) -> Names {
    Names { lines, tags, pasts }
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
                &names("HALF_OPEN_4", "HALF_TAGS_4", "HALF_PAST_4"),
                "COUNTS_4",
            )?,
            v6: FamilyTables::take(
                maps,
                &names("ESTABLISHED_6", "ESTAB_TAGS_6", "ESTAB_PAST_6"),
                &names("HALF_OPEN_6", "HALF_TAGS_6", "HALF_PAST_6"),
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

/// Who is too old.
struct Ager {
    /// In ticks.
    now: u32,
    clock: FlowClock,
    lifetimes: Lifetimes,
    /// Looks for a client's line behind each backend's that is silent.
    is_thorough: bool,
}

impl Ager {
    /// How long ago; a packet that came after the walk had begun came just now.
    fn since(&self, tick: u32) -> Duration {
        self.clock.duration(since(tick, self.now))
    }

    fn lifetime(&self, stage: Stage) -> Duration {
        match stage {
            Stage::Established => self.lifetimes.established,
            Stage::HalfClosed => HALF_CLOSED_IDLE,
            Stage::Closed => CLOSED_IDLE,
        }
    }
}

/// Both directions of a flow.
pub(super) struct Both<A: WireAddress> {
    pub(super) client: Line<A>,
    pub(super) past: Past,
    pub(super) backend: (Met, Line<A>, Past),
}

impl<A: WireAddress> Both<A> {
    /// Whether the backend has answered the client's SYN.
    pub(super) fn is_answered(&self) -> bool {
        seen(self.backend.0).has(Seen::OPENED)
    }

    /// Whether the backend has refused the client's SYN, which goes on to another one when it comes again.
    pub(super) fn is_refused(&self) -> bool {
        seen(self.backend.0).has(Seen::RST)
    }

    pub(super) fn stage(&self, client: Met) -> Stage {
        let (backend, line, past) = &self.backend;
        stage((client, &self.client, &self.past), (*backend, line, past))
    }
}

/// How far a flow is of which both directions were met.
fn stage<A: WireAddress>(client: (Met, &Line<A>, &Past), backend: (Met, &Line<A>, &Past)) -> Stage {
    let [client, backend] = [client, backend].map(|(met, line, past)| Progress::of(seen(met), line, past));
    Stage::of(&client, &backend)
}

/// Whether the client of a handshake waits for the answer to its SYN, of a backend that has got it.
pub(super) fn is_unanswered<A: WireAddress>(table: &MappedTable<A>, client: Met) -> bool {
    both(table, client).is_some_and(|both| !both.is_answered())
}

pub(super) fn seen(met: Met) -> Seen {
    Seen(met.state.marks())
}

/// Flows whose other directions are fetched at once: more than a processor has loads under way, and, with all that is
/// read of them, a quarter of a usual first-level cache.
const BATCH: usize = 64;

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

    fn sweep(&self, ager: &Ager, notes: &mut Notes) {
        let Self { established, half_open, counts } = self;
        half_open.sweep(counts, |table, met| judge_handshake(table, ager, notes, met));
        established.sweep(counts, |table, met| judge(table, ager, notes, met));
    }

    fn for_each(&self, ager: &Ager, visit: &mut impl FnMut(Flow)) {
        for (table, is_established) in [(&self.half_open.table, false), (&self.established.table, true)] {
            let mut teller = Teller { table, ager, is_established, copies: [Copied::new(), Copied::new()] };
            let mut batch = [Met { line: 0, index: 0, state: State::default() }; BATCH];
            let mut clients = 0;
            for met in table.live() {
                // Kept or written over, and not asked which: it is chance.
                batch[clients] = met;
                clients += usize::from(seen(met).is_from_client());
                if clients == BATCH {
                    teller.tell(&batch, visit);
                    clients = 0;
                }
            }
            teller.tell(&batch[..clients], visit);
        }
    }
}

/// Tells of flows, by their clients' lines.
struct Teller<'a, A: WireAddress> {
    table: &'a MappedTable<A>,
    ager: &'a Ager,
    is_established: bool,
    copies: [Copied<A>; 2],
}

impl<A: WireAddress> Teller<'_, A> {
    fn tell(&mut self, clients: &[Met], visit: &mut impl FnMut(Flow)) {
        self.table.fetch(clients.iter().map(|met| self.table.twin_of(met.index)));
        for met in clients {
            if let Some(flow) = self.flow(*met) {
                visit(flow);
            }
        }
    }

    fn flow(&mut self, met: Met) -> Option<Flow> {
        let Self { table, ager, is_established, copies: [client, backend] } = self;
        let client = table.read_into(met, client)?;
        let past = table.past(met.index);
        let FlowKey { source, destination, source_port, destination_port } = client.key;
        let begun = Flow {
            client: socket(source.into(), source_port),
            listen: socket(destination.into(), destination_port),
            service: client.service,
            backend: client.backend,
            state: FlowState::HalfOpen,
            age: ager.since(past.began),
            idle: ager.since(met.state.last_seen()),
            packets: 0,
            bytes: 0,
        };
        let Some((twin, backend)) = table.twin_into(client, &past, backend) else {
            // It waits for a backend, and nothing of it has gone on; or it is half a flow.
            return (!*is_established && client.backend == 0).then_some(begun);
        };
        let state = if !*is_established {
            FlowState::HalfOpen
        } else if !seen(met).may_end() {
            // Of most there is no more to be known, and what is kept apart from the other line is far away.
            FlowState::Established
        } else {
            match stage((met, client, &past), (twin, backend, &table.past(twin.index))) {
                Stage::Established => FlowState::Established,
                Stage::HalfClosed | Stage::Closed => FlowState::Closing,
            }
        };
        let [forth, back] = [client, backend].map(|line| Carried { low: line.packets, high: line.bytes });
        Some(Flow {
            state,
            idle: begun.idle.min(ager.since(twin.state.last_seen())),
            packets: forth.packets() + back.packets(),
            bytes: forth.bytes() + back.bytes(),
            ..begun
        })
    }
}

fn read_count(counts: &MappedWords, which: usize) -> Count {
    let word = |word| counts.load(which * COUNT_WORDS + word);
    Count { begun: word(BEGUN), ended: word(ENDED), swept: word(SWEPT), ..Count::default() }
}

/// What becomes of a line that a walk comes to.
#[derive(PartialEq, Eq)]
enum Fate {
    /// A flow that stays.
    Kept,
    /// A flow whose time is over; the other direction's line with it.
    Over(Option<Met>),
    /// Half a flow, left over.
    Remains,
    /// Not a flow's line to be counted.
    Passed,
}

impl<A: WireAddress> Counted<A> {
    fn sweep(&self, counts: &MappedWords, mut judge: impl FnMut(&MappedTable<A>, Met) -> Fate) {
        let before = read_count(counts, self.count);
        let (mut there, mut swept) = (0_i64, 0);
        let mut stretch = 0;
        for met in self.table.live() {
            if met.index / STRETCH != stretch {
                stretch = met.index / STRETCH;
                sleep(REST);
            }
            match judge(&self.table, met) {
                Fate::Kept => there += 1,
                Fate::Passed => {}
                // The client's line first: without it no packet of the client finds the other.
                Fate::Over(twin) => {
                    if self.table.remove_if_silent(met) {
                        swept += 1;
                        if let Some(twin) = twin {
                            self.table.remove(twin);
                        }
                    } else {
                        there += 1;
                    }
                }
                Fate::Remains => {
                    self.table.remove_if_silent(met);
                }
            }
        }
        self.count_swept(counts, swept);
        let before = Count { swept: before.swept.wrapping_add(swept), ..before };
        self.audit(counts, &before, there);
    }

    /// So many flows were taken out here.
    pub(super) fn count_swept(&self, counts: &MappedWords, flows: u64) {
        counts.add(self.count * COUNT_WORDS + SWEPT, flows);
    }

    /// Whoever is killed between taking a line out and counting it leaves the count wrong by one. What two walks in a row
    /// have found, beyond what came and went meanwhile, is mended.
    fn audit(&self, counts: &MappedWords, before: &Count, there: i64) {
        let after = read_count(counts, self.count);
        let moved = |now: u64, then: u64| (now.wrapping_sub(then) as i64).abs();
        // Flows that are cut meanwhile are swept by others.
        let unsure = moved(after.begun, before.begun)
            + moved(after.ended, before.ended)
            + moved(after.swept, before.swept);
        let counted = after.begun.wrapping_sub(after.ended).wrapping_sub(after.swept) as i64;
        let gap = counted - there;
        let off = if gap > 0 { (gap - unsure).max(0) } else { (gap + unsure).min(0) };
        let last = self.off.load(Ordering::Relaxed);
        let sure = if off.signum() == last.signum() { off.signum() * off.abs().min(last.abs()) } else { 0 };
        if sure != 0 {
            counts.add(self.count * COUNT_WORDS + SWEPT, sure as u64);
        }
        self.off.store(off - sure, Ordering::Relaxed);
    }
}

/// Both directions of the flow that has this line of a client's.
pub(super) fn both<A: WireAddress>(table: &MappedTable<A>, client: Met) -> Option<Both<A>> {
    let line = table.read(client)?;
    let past = table.past(client.index);
    let (backend, twin) = table.twin(&line, &past)?;
    Some(Both { client: line, past, backend: (backend, twin, table.past(backend.index)) })
}

/// A line of an established flow. Made and taken out together within microseconds, so alone means: in the making, or left
/// over by a crash.
fn judge<A: WireAddress>(table: &MappedTable<A>, ager: &Ager, notes: &mut Notes, met: Met) -> Fate {
    let silent = ager.since(met.state.last_seen());
    let is_young = silent <= ager.lifetimes.established;
    if !seen(met).is_from_client() {
        let may_have_twin = if ager.is_thorough { silent <= HALF_OPEN_IDLE } else { is_young };
        return if may_have_twin || has_twin(table, met) { Fate::Passed } else { Fate::Remains };
    }
    if is_young && !seen(met).may_end() {
        notes.refer(table.slots(met), true);
        return Fate::Kept;
    }
    let Some(both) = both(table, met) else {
        return if silent <= HALF_OPEN_IDLE { Fate::Kept } else { Fate::Over(None) };
    };
    let stage = both.stage(met);
    let (backend, ..) = both.backend;
    if silent.min(ager.since(backend.state.last_seen())) > ager.lifetime(stage) {
        return Fate::Over(Some(backend));
    }
    notes.refer(table.slots(met), stage == Stage::Established);
    Fate::Kept
}

/// A line of a handshake. Only the client's own packets keep one alive: a backend goes on answering a SYN that was forged.
/// One that is held has no other direction.
fn judge_handshake<A: WireAddress>(table: &MappedTable<A>, ager: &Ager, notes: &mut Notes, met: Met) -> Fate {
    let lifetime = if table.is_held(met) { HELD_IDLE } else { HALF_OPEN_IDLE };
    let is_young = ager.since(met.state.last_seen()) <= lifetime;
    if !seen(met).is_from_client() {
        return if is_young || has_twin(table, met) { Fate::Passed } else { Fate::Remains };
    }
    if is_young {
        notes.refer(table.slots(met), false);
        return Fate::Kept;
    }
    Fate::Over(both(table, met).map(|both| both.backend.0))
}

fn has_twin<A: WireAddress>(table: &MappedTable<A>, met: Met) -> bool {
    table.read(met).is_some_and(|line| table.twin(&line, &table.past(met.index)).is_some())
}
