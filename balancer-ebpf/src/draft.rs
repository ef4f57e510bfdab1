//! A new flow in the making: a place for its handshake, a tuple for its backend's side, then both lines.
#![expect(unsafe_code, reason = "lines are written through the pointers that lookups return")]

use core::cell::Cell;
use core::ptr::from_ref;

use aya_ebpf::programs::XdpContext;
use balancer_common::abi::{Address4, Address6, ClientSyn, FlowKey, Line, Opening, Port, SavedSyn};
use balancer_common::checksum::Delta;
use balancer_common::flow::{Seen, Stage};
use balancer_common::limits::HALF_OPEN_IDLE_NS;
use balancer_common::nat::Deltas;
use balancer_common::table::{self, Hash, NOT_LOOKED_FOR, WINDOWS};
use network_types::eth::EthHdr;
use network_types::tcp::TcpHdr;

use crate::clock::{now, ticks};
use crate::direction::Direction;
use crate::family::Family;
use crate::flow_table::{self, Refused, begin, direction, moment};
use crate::memory::{Established, HalfOpen, Locked, Tier, compiler_barrier};
use crate::parse::{Packet, TCP_AT_MASK, header};
use crate::service;
use crate::subprograms::{Index, Made};
use crate::words::load;

/// A new flow in the making, in a map: the stack has no room for it, and functions can be called that take nothing. In
/// cells, as who asks for it holds it while he calls another who does.
#[repr(C)]
pub(crate) struct Draft<A> {
    /// What the client's packets look like, and that as a hash's word.
    client: Cell<FlowKey<A>>,
    client_hash: Cell<u64>,
    /// What the backend's packets look like, and that as a hash's word.
    backend: Cell<FlowKey<A>>,
    backend_hash: Cell<u64>,
    /// The sequence number that the lock of the client's tuple had before no flow of it was found.
    sequence: Cell<u32>,
    /// Whether what the client sends is for a service: only then the slots of service and pool and the backend's port are
    /// its.
    pub(crate) has_service: Cell<bool>,
    /// The way to the client, a word.
    pub(crate) hop: Cell<u64>,
    /// Where in the cycle of SNAT addresses and ports to try next, as a word. Not in a variable, of which the verifier
    /// would follow every value.
    pub(crate) place: Cell<u64>,
    /// Where a closed flow was met, as a word; 0: nowhere.
    pub(crate) closed: Cell<u64>,
    /// Slots.
    pub(crate) service_slot: Cell<u16>,
    pub(crate) pool_slot: Cell<u16>,
    pub(crate) backend_slot: Cell<u16>,
    /// The backend's.
    pub(crate) backend_port: Cell<Port>,
    /// The SYN's.
    pub(crate) first_sequence: Cell<u32>,
    /// The index of the backend's line, once it is made.
    pub(crate) backend_line: Cell<u32>,
    /// The index of the client's line, once it is made.
    pub(crate) client_line: Cell<u32>,
    /// What the client's packets are changed by, a word of [`Deltas`].
    pub(crate) deltas: Cell<u32>,
    /// The SYN, to be sent again.
    pub(crate) syn: Cell<SavedSyn>,
    /// Backends that did not take it, see `ClientSyn`.
    pub(crate) tried: Cell<u64>,
}

/// Drafts are pinned: of another size, a daemon can't take over what runs, without another `LAYOUT_VERSION`.
const _: () = assert!(size_of::<Draft<Address4>>() == 160 && size_of::<Draft<Address6>>() == 208);

impl<A: Family> Draft<A> {
    /// What the client's packets look like, and the service that they are for.
    #[inline(always)]
    pub(crate) fn set_client(&self, key: FlowKey<A>, hash: Hash) {
        self.client.set(key);
        self.client_hash.set(hash.to_word());
        self.find_service();
    }

    #[inline(always)]
    fn find_service(&self) {
        let service = service::find(self.client());
        self.has_service.set(service.is_some());
        if let Some(service) = service {
            self.service_slot.set(service.slot);
            self.pool_slot.set(service.pool);
            self.backend_port.set(service.backend_port);
        }
    }

    /// Field by field: the stack has no room for another key.
    #[inline(always)]
    pub(crate) fn set_backend(&self, backend: &A, port: Port, source: &A, source_port: Port) {
        let key = self.backend.as_ptr();
        // SAFETY: a cell's content, which nobody refers to while it is set.
        unsafe {
            copy_words(from_ref(backend), &raw mut (*key).source);
            copy_words(from_ref(source), &raw mut (*key).destination);
            (*key).source_port = port;
            (*key).destination_port = source_port;
        }
        self.backend_hash.set(A::hash_of(self.backend()).to_word());
    }

    #[inline(always)]
    pub(crate) fn client_hash(&self) -> Hash {
        Hash::from_word(self.client_hash.get())
    }

    #[inline(always)]
    pub(crate) fn backend_hash(&self) -> Hash {
        Hash::from_word(self.backend_hash.get())
    }

    #[inline(always)]
    pub(crate) fn client(&self) -> &FlowKey<A> {
        // SAFETY: it is set when the draft is begun, before anybody asks for it.
        unsafe { &*self.client.as_ptr() }
    }

    /// Whether the SYN comes again, as some backends did not take it. Read anew each time: of a value that it has in a
    /// register the verifier would walk all that follows twice.
    #[inline(always)]
    pub(crate) fn is_again(&self) -> bool {
        // SAFETY: a cell's content, an aligned word.
        unsafe { self.tried.as_ptr().read_volatile() != 0 }
    }

    #[inline(always)]
    pub(crate) fn syn(&self) -> &SavedSyn {
        // SAFETY: as in `backend`.
        unsafe { &*self.syn.as_ptr() }
    }

    #[inline(always)]
    pub(crate) fn backend(&self) -> &FlowKey<A> {
        // SAFETY: nobody who asks for it keeps it until it is set again.
        unsafe { &*self.backend.as_ptr() }
    }
}

/// This CPU's draft.
#[inline(always)]
pub(crate) fn draft<A: Family>() -> Option<&'static Draft<A>> {
    // SAFETY: this CPU's own element, and XDP runs to its end before the next packet of this CPU.
    A::drafts().get_ptr(0).map(|draft| unsafe { &*draft })
}

/// What follows is of no flow yet, as was found when the lock of its tuple had this sequence number, and nobody has tried to
/// take it.
#[inline(always)]
pub(crate) fn afresh<A: Family>(sequence: u32) {
    if let Some(draft) = draft::<A>() {
        draft.tried.set(0);
        draft.sequence.set(sequence);
    }
}

/// Makes room for one more handshake: if there are as many as there may be, one that has been silent for longest in the
/// places of this key is forgotten.
#[inline(always)]
pub(crate) fn reserve_half_open<A: Family>() -> bool {
    let Some(count) = HalfOpen::count::<A>() else { return false };
    if begin(count, HalfOpen::limit()) {
        return true;
    }
    if !(0..WINDOWS).any(|window| A::forget_oldest(window)) {
        return false;
    }
    // SAFETY: a whole, aligned count of the map; one aligned word.
    unsafe { (*count).evicted = moment() };
    begin(count, HalfOpen::limit())
}

/// [`Family::forget_oldest`], of those of which a line is in this window of the places where the draft's client could be.
#[inline(always)]
pub(crate) fn forget_oldest<A: Family>(window: u32) -> bool {
    let Some(draft) = draft::<A>() else { return false };
    let found = table::oldest(&HalfOpen::table::<A>(), draft.client_hash(), window, now(), |_| true);
    let Some(place) = found else { return false };
    let direction: Direction<A, HalfOpen> = Direction::met(place);
    let twin = direction.twin();
    // A backend's line without a client's is of a flow in the making, which isn't one yet, or was left over long ago.
    let is_half = !direction.seen().is_from_client() && twin.is_none();
    if is_half && direction.silent(now()) <= ticks(HALF_OPEN_IDLE_NS) {
        return false;
    }
    flow_table::release_with(direction, twin)
}

/// Claims the draft's backend-side tuple, by making its line.
#[inline(always)]
pub(crate) fn claim<A: Family>(draft: &Draft<A>) -> Result<(), Refused> {
    draft.backend_line.set(Made::from_word(A::claim())?);
    Ok(())
}

/// [`Family::claim`].
#[inline(always)]
pub(crate) fn try_claim<A: Family>() -> u64 {
    Made::to_word(claim_backend::<A>())
}

#[inline(always)]
fn claim_backend<A: Family>() -> Result<u32, Refused> {
    let draft = draft::<A>().ok_or(Refused::Full)?;
    let hash = draft.backend_hash();
    let (key, other) = (draft.backend(), draft.client());
    let _locked = lock_unmet(key, hash)?;
    insert_half_open(hash, Seen::FROM_BACKEND, |line, _index| {
        draft.deltas.set(A::deltas());
        let deltas = Deltas::from_word(draft.deltas.get()).reversed();
        fill(line, key, other, draft, deltas, Opening { twin: u32::MAX, ..Opening::default() });
        true
    })
}

/// Makes the client's side of the draft, whose backend's side is claimed.
#[inline(always)]
pub(crate) fn complete<A: Family>(draft: &Draft<A>) -> Result<(), Refused> {
    draft.client_line.set(Made::from_word(A::complete())?);
    Ok(())
}

/// [`Family::complete`].
#[inline(always)]
pub(crate) fn try_complete<A: Family>() -> u64 {
    Made::to_word(complete_client::<A>())
}

#[inline(always)]
fn complete_client<A: Family>() -> Result<u32, Refused> {
    let draft = draft::<A>().ok_or(Refused::Full)?;
    let hash = draft.client_hash();
    let (key, other, twin) = (draft.client(), draft.backend(), draft.backend_line.get());
    let _locked = match Locked::lock_since(hash, draft.sequence.get()) {
        Some(locked) => locked,
        None => lock_unmet(key, hash)?,
    };
    insert_half_open::<A>(hash, Seen::OPENED, |line, index| {
        let deltas = Deltas::from_word(draft.deltas.get());
        let first_sequence = draft.first_sequence.get();
        fill(
            line,
            key,
            other,
            draft,
            deltas,
            Opening { twin, first_sequence, began_or_acknowledged: now(), carried: 0 },
        );
        keep_syn(draft, index);
        // Met once more: a cut takes out half a flow, too.
        if let Some(backend) = table::met(&HalfOpen::table::<A>(), twin, other) {
            // SAFETY: the line that this CPU has made; an aligned word.
            unsafe { (*HalfOpen::opening(backend.line)).twin = index };
        }
        true
    })
}

/// A key's lock, if there is no line for it: nobody else can make one meanwhile.
#[inline(always)]
fn lock_unmet<A: Family>(key: &FlowKey<A>, hash: Hash) -> Result<Locked, Refused> {
    let locked = Locked::lock(hash)?;
    if flow_table::met(key, hash).is_some() {
        return Err(Refused::Taken);
    }
    Ok(locked)
}

#[inline(always)]
fn insert_half_open<A: Family>(
    hash: Hash,
    seen: Seen,
    fill: impl FnOnce(*mut Line<A>, u32) -> bool,
) -> Result<u32, Refused> {
    Ok(table::insert_if(&HalfOpen::table::<A>(), hash, (seen.0, now()), fill)?.index)
}

/// [`Family::deltas`]: what the client's packets are changed by, a word of [`Deltas`].
#[inline(always)]
pub(crate) fn deltas<A: Family>() -> u32 {
    let Some(draft) = draft::<A>() else { return 0 };
    let (client, backend) = (draft.client(), draft.backend());
    let addresses = change(&client.source, &backend.destination, Delta::NONE);
    Deltas::with(change(&client.destination, &backend.source, addresses), client, backend).to_word()
}

/// As [`change`](balancer_common::abi::WireAddress::change), one word after the other: of all at once the compiler fills the stack, which older kernels
/// find too small.
#[inline(always)]
fn change<A: Family>(old: &A, new: &A, mut delta: Delta) -> Delta {
    for word in 0..A::WORDS {
        let [old, new] = [old, new].map(|address| from_ref(address).cast::<u32>());
        // SAFETY: one of the words that an address is made of.
        delta = unsafe { delta.long(old.add(word).read(), new.add(word).read()) };
        compiler_barrier();
    }
    delta
}

#[inline(always)]
fn fill<A: Family>(
    line: *mut Line<A>,
    key: &FlowKey<A>,
    other: &FlowKey<A>,
    draft: &Draft<A>,
    deltas: Deltas,
    opening: Opening,
) {
    // SAFETY: a claimed line, which is this CPU's alone.
    unsafe {
        copy_words(from_ref(key), &raw mut (*line).key);
        copy_words(from_ref(&other.destination), &raw mut (*line).becomes.source);
        copy_words(from_ref(&other.source), &raw mut (*line).becomes.destination);
        (*line).becomes.source_port = other.destination_port;
        (*line).becomes.destination_port = other.source_port;
        (*line).ip_delta = deltas.ip;
        (*line).tcp_delta = deltas.tcp;
        (*line).service = draft.service_slot.get();
        (*line).backend = draft.backend_slot.get();
        (*line).client = draft.hop.get();
        HalfOpen::opening(line).write(opening);
    }
}

/// Word by word: of more than a few the compiler makes a call of memmove, which goes byte by byte.
#[inline(always)]
unsafe fn copy_words<T>(from: *const T, to: *mut T) {
    const { assert!(align_of::<T>() == align_of::<u32>()) };
    for word in 0..size_of::<T>() / size_of::<u32>() {
        // SAFETY: within both, which the caller may read and write.
        unsafe { to.cast::<u32>().add(word).write_volatile(from.cast::<u32>().add(word).read_volatile()) }
    }
}

/// [`Family::closed`].
#[inline(always)]
pub(crate) fn closed_index<A: Family>() -> u64 {
    let closed = || {
        let backend = direction::<A, Established>(draft::<A>()?.backend())?;
        let (forth, back) = (backend.twin()?.progress()?, backend.progress()?);
        matches!(Stage::of(&forth, &back), Stage::Closed).then_some(backend.place.index)
    };
    Index::to_word(closed())
}

/// The flow with the draft's backend-side tuple, if it is over and only kept for its last retransmissions.
#[inline(always)]
pub(crate) fn closed<A: Family>() -> Option<Direction<A, Established>> {
    let index = Index::from_word(A::closed())?;
    let key = draft::<A>()?.backend();
    Some(Direction::met(table::met(&Established::table::<A>(), index.0, key)?))
}

/// Takes the draft's backend side out, which was claimed for nothing.
#[inline(always)]
pub(crate) fn unclaim<A: Family>(draft: &Draft<A>) {
    let table = HalfOpen::table::<A>();
    if let Some(place) = table::met(&table, draft.backend_line.get(), draft.backend()) {
        HalfOpen::remove::<A>(place.index, place.state.0);
    }
}

/// Keeps what it takes to send this SYN again.
#[inline(always)]
pub(crate) fn save_syn<A: Family>(ctx: &XdpContext, packet: &Packet<'_, A>, draft: &Draft<A>) {
    let length = packet.header_length() - TcpHdr::LEN;
    A::save_options(ctx.ctx, (packet.tcp_at + TcpHdr::LEN) as u32, length as u32);
    // SAFETY: a cell's content in a map, which nobody else refers to.
    let syn = unsafe { &mut *draft.syn.as_ptr() };
    syn.window = packet.tcp.window;
    let had_data = packet.end_of_data() != packet.sequence();
    let had_more = packet.tcp_at != EthHdr::LEN + size_of::<A::Header>();
    syn.options_length = length as u8
        | if had_data { SavedSyn::HAD_DATA } else { 0 }
        | if had_more { SavedSyn::HAD_IP_OPTIONS } else { 0 };
    syn.flags = packet.flags();
    syn.traffic_class = A::traffic_class(packet.ip);
    syn.hops = A::hops_left(packet.ip);
    syn.check = packet.kept_check();
}

/// [`Family::save_options`]: so many bytes of TCP options from there into the draft's SYN.
#[inline(always)]
pub(crate) fn save_options<A: Family>(ctx: &XdpContext, at: u32, length: u32) {
    let Some(draft) = draft::<A>() else { return };
    let at = (at & TCP_AT_MASK) as usize;
    // SAFETY: a cell's content in a map, which nobody else refers to.
    let options = unsafe { &mut (*draft.syn.as_ptr()).options };
    for (word, option) in options.iter_mut().enumerate() {
        *option = match header::<[u16; 2]>(ctx, at + 4 * word) {
            Some(halves) if 4 * word < length as usize => load::<0, _>(halves),
            _ => 0,
        };
    }
}

/// Beside the client's line, at this index.
#[inline(always)]
fn keep_syn<A: Family>(draft: &Draft<A>, index: u32) {
    if let Some(kept) = A::client_syns().get_ptr_mut(index) {
        // SAFETY: of a claimed line, which is this CPU's alone.
        unsafe {
            copy_words(draft.syn.as_ptr().cast::<SynWords>(), (&raw mut (*kept).syn).cast());
            (*kept).tried = draft.tried.get();
        }
    }
}

/// The backends that have not taken this client's SYN.
#[inline(always)]
pub(crate) fn tried<A: Family>(client: &Direction<A, HalfOpen>) -> u64 {
    // SAFETY: an aligned word of the map; whose it is, is looked at when the flow is taken out, and else it is of a signal.
    let read = |kept: *const ClientSyn| unsafe { (&raw const (*kept).tried).read_volatile() };
    A::client_syns().get_ptr(client.place.index).map_or(0, read)
}

/// Whether data came with this client's SYN.
#[inline(always)]
pub(crate) fn had_data<A: Family>(client: &Direction<A, HalfOpen>) -> bool {
    // SAFETY: as in `tried`; a byte.
    let read = |kept: *const ClientSyn| unsafe { (&raw const (*kept).syn.options_length).read_volatile() };
    A::client_syns().get_ptr(client.place.index).map_or(0, read) & SavedSyn::HAD_DATA != 0
}

/// Drafts the flow of this client once more, without a backend yet. `None`: it has just ended.
#[inline(always)]
pub(crate) fn again<A: Family>(client: &Direction<A, HalfOpen>, tried: u64) -> Option<()> {
    let draft = draft::<A>()?;
    let kept = A::client_syns().get_ptr(client.place.index)?;
    // SAFETY: cells' contents in a map, which nobody refers to, and a SYN of the map. Whose it is, is seen after.
    unsafe {
        copy_words(from_ref(client.key()), draft.client.as_ptr());
        draft.client_hash.set(A::hash_of(draft.client()).to_word());
        copy_words((&raw const (*kept).syn).cast::<SynWords>(), draft.syn.as_ptr().cast());
    }
    draft.find_service();
    draft.hop.set(client.client().to_word());
    draft.first_sequence.set(client.first_sequence());
    draft.tried.set(tried);
    draft.sequence.set(NOT_LOOKED_FOR);
    compiler_barrier();
    client.is_alive().then_some(())
}

/// A [`SavedSyn`] as words.
type SynWords = [u32; size_of::<SavedSyn>() / size_of::<u32>()];
