//! The only map definitions. Each has one writer, named here; typed access is in the module that owns the map's use.
//!
//! All are BTF maps, so that any loader and bpftool can read the object and its tables. Sizes of the flow tables are
//! placeholders: the controller sets them from `max_flows` and `max_half_open` when it loads the object. What a flow table
//! is made of is `balancer_common::table`; the controller has it mapped into its memory.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::{Array, DevMap, HashMap, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use balancer_common::abi::{
    Address, Address4, Address6, Backend, Budget, ClientSyn, Clock, Count, Failure, Interface, Line, Past,
    Pool, Roles, Seed, Service, ServiceKey, Signals, Successors, Tally, TraceState, Traced, Traffic, Watch,
    address_bits, port_roles,
};
use balancer_common::limits::{
    FAILURES_BYTES, MAX_ADDRESSES, MAX_BACKENDS, MAX_INTERFACES, MAX_POOLS, MAX_SERVICES, TRACES_BYTES,
};
use balancer_common::table;
use balancer_common::verdict::Reason;

use crate::draft::Draft;
use crate::extensions::End;

/// `BPF_F_MMAPABLE`, kernel 5.5: the controller stores words through a mapping.
const MMAPABLE: usize = BPF_F_MMAPABLE as usize;

/// Listen address and port -> service. Writer: controller.
#[btf_map]
pub(crate) static SERVICES: HashMap<ServiceKey, Service, MAX_SERVICES> = HashMap::new();

/// What an address is: listened on, a backend's, or where flows to backends come from. Writer: controller.
#[btf_map]
pub(crate) static ADDRESSES: HashMap<Address, Roles, MAX_ADDRESSES> = HashMap::new();

/// Which addresses are in there, see `address_bits`. Writer: controller, word by word through its mapping.
#[btf_map]
pub(crate) static ADDRESS_BITS: Array<u64, { address_bits::WORDS }, MMAPABLE> = Array::new();

/// What ports are, see `port_roles`. Writer: controller, word by word through its mapping.
#[btf_map]
pub(crate) static PORTS: Array<u64, { port_roles::WORDS }, MMAPABLE> = Array::new();

/// Pools by slot. Writer: controller.
#[btf_map]
pub(crate) static POOLS: Array<Pool, MAX_POOLS> = Array::new();

/// Each pool's active backend, an `ActiveWord`. Writer: controller, by one store through its mapping.
#[btf_map]
pub(crate) static ACTIVE: Array<u64, MAX_POOLS, MMAPABLE> = Array::new();

/// Where each pool's connection attempts go on that a backend did not take. Writer: controller, by stores through its
/// mapping.
#[btf_map]
pub(crate) static SUCCESSORS: Array<Successors, MAX_POOLS, MMAPABLE> = Array::new();

/// Whom each service's next connection is to try, before the active backend: a backend's slot; 0: nobody. Writers: the
/// controller puts one there, through its mapping; the packet path takes it out, by compare-and-swap.
#[btf_map]
pub(crate) static TRIALS: Array<u64, MAX_SERVICES, MMAPABLE> = Array::new();

/// Backends by slot. Writer: controller.
#[btf_map]
pub(crate) static BACKENDS: Array<Backend, MAX_BACKENDS> = Array::new();

/// Where in its cycle of SNAT addresses and ports each backend is, a `Place`. Writer: packet path.
#[btf_map]
pub(crate) static SNAT_CYCLES: Array<u64, MAX_BACKENDS> = Array::new();

/// Each backend's `NextHop` word. Writer: controller, by one store through its mapping.
#[btf_map]
pub(crate) static NEXT_HOPS: Array<u64, MAX_BACKENDS, MMAPABLE> = Array::new();

/// Interfaces by slot. Writer: controller.
#[btf_map]
pub(crate) static INTERFACES: Array<Interface, MAX_INTERFACES> = Array::new();

/// Their slots by the kernel's index. Writer: controller.
#[btf_map]
pub(crate) static INTERFACE_SLOTS: HashMap<u32, u32, MAX_INTERFACES> = HashMap::new();

/// The kernel's devices by the same slots. Writer: controller; the kernel empties a slot when its device goes.
#[btf_map]
pub(crate) static DEVICES: DevMap<MAX_INTERFACES> = DevMap::new();

/// Tags of a table's lines, a bucket's in an element, which is a cache line, as the array begins on a page.
pub(crate) type Tags = Array<[u64; table::TAG_WORDS as usize], BUCKETS, MMAPABLE>;
/// A table's lines, each of them whole cache lines, as the array begins on a page.
pub(crate) type Lines<A> = Array<Line<A>, LINES, MMAPABLE>;
/// What established flows keep apart from their lines.
pub(crate) type Pasts = Array<Past, LINES, MMAPABLE>;
/// What half-open flows keep apart from their clients' lines.
pub(crate) type ClientSyns = Array<ClientSyn, LINES, MMAPABLE>;
/// How many flows a family has.
pub(crate) type Counts = Array<Count, 2, MMAPABLE>;
/// In [`Counts`].
pub(crate) const ESTABLISHED: u32 = 0;
/// In [`Counts`].
pub(crate) const HALF_OPEN: u32 = 1;
/// Placeholder, see above.
const BUCKETS: usize = 128;
/// Placeholder, see above.
const LINES: usize = BUCKETS * table::WAYS as usize;

/// What hashes are made with, kept for the next program. Writer: controller, once.
#[btf_map]
static SEED: Array<Seed, 1> = Array::new();

/// Sequence numbers of keys' locks, in the lower half. Taken by the packet path alone, and for less than a microsecond.
#[btf_map]
pub(crate) static LOCKS: Array<u64, { table::LOCKS as usize }> = Array::new();

/// This program's time beside the controller's. Writer: packet path, when the controller asks.
#[btf_map]
pub(crate) static CLOCK: Array<Clock, 1> = Array::new();

/// Where flows whose handshake is complete are. Writer: packet path; the controller takes lines out.
#[btf_map]
pub(crate) static ESTAB_TAGS_4: Tags = Array::new();

/// IPv4 flows whose handshake is complete. Writer: packet path; the controller takes lines out.
#[btf_map]
pub(crate) static ESTABLISHED_4: Lines<Address4> = Array::new();

/// When they began, how they end. Writer: packet path.
#[btf_map]
pub(crate) static ESTAB_PAST_4: Pasts = Array::new();

/// Where handshakes are. Writer: packet path; the controller takes lines out.
#[btf_map]
pub(crate) static HALF_TAGS_4: Tags = Array::new();

/// IPv4 handshakes. Writer: packet path; the controller takes lines out.
#[btf_map]
pub(crate) static HALF_OPEN_4: Lines<Address4> = Array::new();

/// Their clients' SYNs. Writer: packet path.
#[btf_map]
pub(crate) static HALF_SYNS_4: ClientSyns = Array::new();

/// How many there are. Writers: see `Count`.
#[btf_map]
pub(crate) static COUNTS_4: Counts = Array::new();

/// As `ESTAB_TAGS_4`, for IPv6.
#[btf_map]
pub(crate) static ESTAB_TAGS_6: Tags = Array::new();

/// As `ESTABLISHED_4`, for IPv6.
#[btf_map]
pub(crate) static ESTABLISHED_6: Lines<Address6> = Array::new();

/// As `ESTAB_PAST_4`, for IPv6.
#[btf_map]
pub(crate) static ESTAB_PAST_6: Pasts = Array::new();

/// As `HALF_TAGS_4`, for IPv6.
#[btf_map]
pub(crate) static HALF_TAGS_6: Tags = Array::new();

/// As `HALF_OPEN_4`, for IPv6.
#[btf_map]
pub(crate) static HALF_OPEN_6: Lines<Address6> = Array::new();

/// As `HALF_SYNS_4`, for IPv6.
#[btf_map]
pub(crate) static HALF_SYNS_6: ClientSyns = Array::new();

/// As `COUNTS_4`, for IPv6.
#[btf_map]
pub(crate) static COUNTS_6: Counts = Array::new();

/// Room for a new IPv4 flow while it is made. Writer: packet path.
#[btf_map]
pub(crate) static DRAFT_4: PerCpuArray<Draft<Address4>, 1> = PerCpuArray::new();

/// As `DRAFT_4`, for IPv6.
#[btf_map]
pub(crate) static DRAFT_6: PerCpuArray<Draft<Address6>, 1> = PerCpuArray::new();

/// Where a packet's extension headers end, while it is looked at. Writer: packet path.
#[btf_map]
pub(crate) static CHAIN_END: PerCpuArray<End, 1> = PerCpuArray::new();

/// Packets that were neither forwarded nor simply passed, by reason. Writer: packet path.
#[btf_map]
pub(crate) static REASONS: PerCpuArray<Tally, { Reason::ALL.len() }> = PerCpuArray::new();

/// How many answers may still be sent. Writer: packet path.
#[btf_map]
pub(crate) static ANSWERS: PerCpuArray<Budget, 1> = PerCpuArray::new();

/// How many searches for room may still be made. Writer: packet path.
#[btf_map]
pub(crate) static SEARCHES: PerCpuArray<Budget, 1> = PerCpuArray::new();

/// Traffic by service slot. Writer: packet path.
#[btf_map]
pub(crate) static SERVICE_TRAFFIC: PerCpuArray<Traffic, MAX_SERVICES> = PerCpuArray::new();

/// Traffic by backend slot. Writer: packet path.
#[btf_map]
pub(crate) static BACKEND_TRAFFIC: PerCpuArray<Traffic, MAX_BACKENDS> = PerCpuArray::new();

/// Connection attempts by backend slot. Writer: packet path.
#[btf_map]
pub(crate) static SIGNALS: PerCpuArray<Signals, MAX_BACKENDS> = PerCpuArray::new();

/// What all CPUs know of a backend, by slot. Writer: packet path.
#[btf_map]
pub(crate) static WATCHES: Array<Watch, MAX_BACKENDS, MMAPABLE> = Array::new();

/// Failed connection attempts, a `Failure` each, for the controller. Writer: packet path (kernel 5.8). Other loaders want it
/// to have values of no size.
#[btf_map]
pub(crate) static FAILURES: RingBuf<[Failure; 0], FAILURES_BYTES> = RingBuf::new();

/// What is kept of traced packets. Writer: packet path.
#[btf_map]
pub(crate) static TRACE_STATE: PerCpuArray<TraceState, 1> = PerCpuArray::new();

/// Packets that somebody wants to see, a `Traced` each. Writer: packet path (kernel 5.8).
#[btf_map]
pub(crate) static TRACES: RingBuf<[Traced; 0], TRACES_BYTES> = RingBuf::new();
