//! The only map definitions. Each has one writer, named here; typed access is in the module that owns the map's use.
//!
//! All are BTF maps, so that any loader and bpftool can read the object and its tables. Sizes of the flow tables are
//! placeholders: the controller sets them from `max_flows` and `max_half_open` when it loads the object.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::{Array, DevMap, HashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use balancer_common::abi::{
    Address, Address4, Address6, Backend, Budget, FlowEntry, FlowKey, Interface, Pool, Roles, Service,
    ServiceKey, Tally, Traffic, port_roles,
};
use balancer_common::limits::{MAX_ADDRESSES, MAX_BACKENDS, MAX_INTERFACES, MAX_POOLS, MAX_SERVICES};
use balancer_common::verdict::Reason;

use crate::extensions::End;
use crate::unknown::Draft;

/// `BPF_F_MMAPABLE`, kernel 5.5: the controller stores words through a mapping.
const MMAPABLE: usize = BPF_F_MMAPABLE as usize;

/// Listen address and port -> service. Writer: controller.
#[btf_map]
pub(crate) static SERVICES: HashMap<ServiceKey, Service, MAX_SERVICES> = HashMap::new();

/// What an address is: listened on, a backend's, or where flows to backends come from. Writer: controller.
#[btf_map]
pub(crate) static ADDRESSES: HashMap<Address, Roles, MAX_ADDRESSES> = HashMap::new();

/// What ports are, see `port_roles`. Writer: controller, word by word through its mapping.
#[btf_map]
pub(crate) static PORTS: Array<u64, { port_roles::WORDS }, MMAPABLE> = Array::new();

/// Pools by slot. Writer: controller.
#[btf_map]
pub(crate) static POOLS: Array<Pool, MAX_POOLS> = Array::new();

/// Each pool's active backend, an `ActiveWord`. Writer: controller, by one store through its mapping.
#[btf_map]
pub(crate) static ACTIVE: Array<u64, MAX_POOLS, MMAPABLE> = Array::new();

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

/// Flows of one family.
pub(crate) type Flows<A, const ENTRIES: usize> = HashMap<FlowKey<A>, FlowEntry<A>, ENTRIES>;
/// Placeholder, see above.
pub(crate) const HALF_OPEN_ENTRIES: usize = 131_072;
/// Placeholder, see above.
pub(crate) const ESTABLISHED_ENTRIES: usize = 524_288;

/// Both directions of IPv4 handshakes. Writer: packet path; the controller only removes.
#[btf_map]
pub(crate) static HALF_OPEN_4: Flows<Address4, HALF_OPEN_ENTRIES> = HashMap::new();

/// Both directions of IPv4 flows whose handshake is complete. Writer: packet path; the controller only removes.
#[btf_map]
pub(crate) static ESTABLISHED_4: Flows<Address4, ESTABLISHED_ENTRIES> = HashMap::new();

/// As `HALF_OPEN_4`, for IPv6.
#[btf_map]
pub(crate) static HALF_OPEN_6: Flows<Address6, HALF_OPEN_ENTRIES> = HashMap::new();

/// As `ESTABLISHED_4`, for IPv6.
#[btf_map]
pub(crate) static ESTABLISHED_6: Flows<Address6, ESTABLISHED_ENTRIES> = HashMap::new();

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

/// Traffic by service slot. Writer: packet path.
#[btf_map]
pub(crate) static SERVICE_TRAFFIC: PerCpuArray<Traffic, MAX_SERVICES> = PerCpuArray::new();

/// Traffic by backend slot. Writer: packet path.
#[btf_map]
pub(crate) static BACKEND_TRAFFIC: PerCpuArray<Traffic, MAX_BACKENDS> = PerCpuArray::new();
