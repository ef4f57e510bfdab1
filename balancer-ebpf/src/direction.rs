//! One direction of a flow, by its line: what becomes of its packets, and what they leave behind.
#![expect(unsafe_code, reason = "lines are read and written through the pointers that lookups return")]

use core::marker::PhantomData;

use balancer_common::abi::{FlowKey, Line, NextHop, Opening, Past};
use balancer_common::flow::{Kind, Progress, Seen};
use balancer_common::table::{self, Lines, Place, State};

use crate::clock::now;
use crate::family::Family;
use crate::memory::{Established, HalfOpen, Tier, compiler_barrier};

/// One direction's line, as it was met in this run of the program.
///
/// The memory stays a line for as long as the program runs, but not necessarily this flow's: another CPU may give it to the
/// next flow. So what a packet is rewritten with is copied out and the line's life looked at once more
/// ([`Direction::recipe`]), marks are compare-and-swaps, and what is stored without either is a word or two, right after
/// such a look: at worst a packet, an acknowledgement and a time are those of a flow that is microseconds old, or its handshake
/// begins anew.
pub(crate) struct Direction<A: Family, T: Tier> {
    /// Where, and in which life it was met.
    pub(crate) place: Place<*mut Line<A>>,
    tier: PhantomData<T>,
}

impl<A: Family, T: Tier> Clone for Direction<A, T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<A: Family, T: Tier> Copy for Direction<A, T> {}

/// What becomes of a direction's packets.
#[derive(Clone, Copy)]
pub(crate) struct Recipe<A> {
    pub(crate) becomes: FlowKey<A>,
    pub(crate) ip_delta: u16,
    pub(crate) tcp_delta: u16,
    pub(crate) service: u16,
    pub(crate) backend: u16,
    pub(crate) client: NextHop,
    pub(crate) is_from_client: bool,
}

impl<A: Family, T: Tier> Direction<A, T> {
    /// The direction whose line had this state when it was met.
    #[inline(always)]
    pub(crate) fn at(index: u32, state: u64) -> Option<Self> {
        let line = T::table::<A>().line(index)?;
        Some(Self::met(Place { line, index, state: State(state) }))
    }

    #[inline(always)]
    pub(crate) fn met(place: Place<*mut Line<A>>) -> Self {
        Self { place, tier: PhantomData }
    }

    /// What was seen when the line was met.
    #[inline(always)]
    pub(crate) fn seen(&self) -> Seen {
        Seen(self.place.state.marks())
    }

    /// A copy of what its packets become; `None`: the flow has just ended.
    #[inline(always)]
    pub(crate) fn recipe(&self) -> Option<Recipe<A>> {
        let line = self.place.line;
        // SAFETY: a whole, aligned line of the map, see above; any value of its integers is sound.
        let recipe = unsafe {
            Recipe {
                becomes: (*line).becomes,
                ip_delta: (*line).ip_delta,
                tcp_delta: (*line).tcp_delta,
                service: (*line).service,
                backend: (*line).backend,
                client: NextHop::from_word((*line).client),
                is_from_client: self.seen().is_from_client(),
            }
        };
        compiler_barrier();
        self.is_alive().then_some(recipe)
    }

    #[inline(always)]
    pub(crate) fn is_alive(&self) -> bool {
        T::state_of(self.place.line).is_same_life(self.place.state)
    }

    /// The other direction.
    #[inline(always)]
    pub(crate) fn twin(&self) -> Option<Self> {
        let twin = T::twin_of(self.place.index, self.place.line);
        // Compared where they are, as the stack has no room for copies. If this line is another flow's by now, either it is
        // a whole one's or nothing has its reverse.
        // SAFETY: as in `recipe`.
        let answers = |line: *mut Line<A>| unsafe { is_reverse(&(*line).key, &(*self.place.line).becomes) };
        Some(Self::met(table::met_if(&T::table::<A>(), twin, answers)?))
    }

    /// The way to the client.
    #[inline(always)]
    pub(crate) fn client(&self) -> NextHop {
        // SAFETY: as in `recipe`; an aligned word.
        NextHop::from_word(unsafe { (&raw const (*self.place.line).client).read_volatile() })
    }

    /// The client is there now.
    #[inline(always)]
    pub(crate) fn client_is_at(&self, hop: NextHop) {
        if self.is_alive() {
            // SAFETY: as in `recipe`; one aligned word, so nobody sees half of it.
            unsafe { (&raw mut (*self.place.line).client).write_volatile(hop.to_word()) }
        }
    }

    /// The slot of its backend.
    #[inline(always)]
    pub(crate) fn backend(&self) -> u16 {
        // SAFETY: as in `recipe`; an aligned half word.
        unsafe { (*self.place.line).backend }
    }

    /// The slot of its service.
    #[inline(always)]
    pub(crate) fn service(&self) -> u16 {
        // SAFETY: as in `backend`.
        unsafe { (*self.place.line).service }
    }

    /// What its packets look like, where they are.
    #[inline(always)]
    pub(crate) fn key(&self) -> &FlowKey<A> {
        // SAFETY: as in `recipe`; the memory stays a line, whoever's it is.
        unsafe { &(*self.place.line).key }
    }

    /// For how long it had no packet, in ticks.
    #[inline(always)]
    pub(crate) fn silent(&self, now: u32) -> u32 {
        T::state_of(self.place.line).silent(now)
    }

    #[inline(always)]
    fn mark(&self, seen: Seen) {
        table::mark(&T::table::<A>(), self.place, seen.0);
    }

    /// One more packet went this way.
    #[inline(always)]
    pub(crate) fn count(&self, kind: Kind, bytes: u64) {
        // Two CPUs with packets of one direction may lose a count between them, never more.
        T::carry(self.place.line, bytes);
        if T::is_kept_by(self.seen(), kind) {
            self.touch();
        }
    }

    /// It isn't silent.
    #[inline(always)]
    pub(crate) fn touch(&self) {
        // The time is the state's upper half, in memory too. A word of its own to the processor: whoever changes the lower
        // one by compare-and-swap sees that it has changed, and tries again.
        const UPPER_HALF: usize = 1;
        // SAFETY: as in `recipe`.
        unsafe {
            (&raw mut (*self.place.line).state).cast::<u32>().add(UPPER_HALF).write_volatile(now());
        }
    }
}

impl<A: Family> Direction<A, HalfOpen> {
    #[inline(always)]
    pub(crate) fn opening(&self) -> *mut Opening {
        HalfOpen::opening(self.place.line)
    }

    /// Its first sequence number; a backend's is known when it has [answered](Self::opened).
    #[inline(always)]
    pub(crate) fn first_sequence(&self) -> u32 {
        // SAFETY: as in `recipe`; an aligned word.
        unsafe { (*self.opening()).first_sequence }
    }

    /// How long ago the flow of this client's direction began, in ticks.
    #[inline(always)]
    pub(crate) fn age(&self, now: u32) -> u32 {
        // SAFETY: as in `recipe`; an aligned word.
        table::since(unsafe { (*self.opening()).began_or_acknowledged }, now)
    }

    /// The backend has answered, with this first sequence number and acknowledgement.
    #[inline(always)]
    pub(crate) fn opened(&self, sequence: u32, acknowledgement: u32) {
        let opening = self.opening();
        // SAFETY: as in `recipe`; aligned words.
        let is_known = unsafe {
            (*opening).first_sequence == sequence && (*opening).began_or_acknowledged == acknowledgement
        };
        if (is_known && self.seen().has(Seen::OPENED)) || !self.is_alive() {
            return;
        }
        // SAFETY: as above.
        unsafe {
            (*opening).first_sequence = sequence;
            (*opening).began_or_acknowledged = acknowledgement;
        }
        self.mark(Seen::OPENED);
    }

    /// This backend has refused the flow's SYN, which goes on to another one when it comes again.
    #[inline(always)]
    pub(crate) fn refused(&self) {
        self.mark(Seen::RST);
    }
}

impl<A: Family> Direction<A, Established> {
    #[inline(always)]
    fn past(&self) -> Option<*mut Past> {
        Established::past::<A>(self.place.index)
    }

    /// The same to be written, while the line is still this flow's.
    #[inline(always)]
    fn own_past(&self) -> Option<*mut Past> {
        self.past().filter(|_| self.is_alive())
    }

    /// How far this direction is.
    #[inline(always)]
    pub(crate) fn progress(&self) -> Option<Progress> {
        let past = self.past()?;
        let seen = Seen(Established::state_of(self.place.line).marks());
        // SAFETY: as in `recipe`; integers of a line and of the past at its index.
        Some(unsafe {
            Progress {
                seen,
                acknowledged: (*self.place.line).acknowledged,
                packets: (*self.place.line).packets,
                fin_end: (*past).fin_end,
                packets_at_reset: (*past).packets_at_reset,
            }
        })
    }

    /// Its first sequence number.
    #[inline(always)]
    pub(crate) fn first_sequence(&self) -> Option<u32> {
        // SAFETY: as in `recipe`; an aligned word.
        self.past().map(|past| unsafe { (*past).first_sequence })
    }

    /// A FIN was seen that ends this direction before `end`.
    #[inline(always)]
    pub(crate) fn finished(&self, end: u32) {
        if let Some(past) = self.own_past() {
            // SAFETY: as in `recipe`; an aligned word.
            unsafe { (*past).fin_end = end };
            self.ends(Seen::FIN);
        }
    }

    /// A RST was seen that the other direction, which had so many packets, may believe.
    #[inline(always)]
    pub(crate) fn reset(&self, packets: u32) {
        if let Some(past) = self.own_past() {
            // SAFETY: as in `recipe`; an aligned word.
            unsafe { (*past).packets_at_reset = packets };
            self.ends(Seen::RST);
        }
    }

    #[inline(always)]
    fn ends(&self, how: Seen) {
        self.mark(how);
        if let Some(twin) = self.twin() {
            twin.mark(Seen::OTHER_ENDS);
        }
    }

    /// The sender expects this sequence number next.
    #[inline(always)]
    pub(crate) fn acknowledged(&self, acknowledgement: u32) {
        // SAFETY: as in `recipe`; an aligned word.
        unsafe { (*self.place.line).acknowledged = acknowledgement }
    }
}

/// Whether packets with one tuple answer those with the other.
#[inline(always)]
fn is_reverse<A: Family>(one: &FlowKey<A>, other: &FlowKey<A>) -> bool {
    let is_equal = one.source == other.destination
        && one.destination == other.source
        && one.source_port == other.destination_port
        && one.destination_port == other.source_port;
    compiler_barrier();
    is_equal
}
