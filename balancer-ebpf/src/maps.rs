//! The only map definitions. Each has one writer, named here; typed access is in the module that owns the map's use.
//!
//! All are BTF maps, so that any loader and bpftool can read the object and its tables. Sizes of the flow tables are
//! placeholders: the controller sets them from `max_flows` and `max_half_open` when it loads the object.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::{Array, DevMap, HashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use balancer_common::abi::{
    Address, Backend, FlowEntry, FlowKey, Interface, Pool, Service, ServiceKey, Traffic,
};
use balancer_common::limits::{MAX_BACKENDS, MAX_INTERFACES, MAX_POOLS, MAX_SERVICES};
use balancer_common::verdict::Reason;

/// `BPF_F_MMAPABLE`, kernel 5.5: the controller stores words through a mapping.
const MMAPABLE: usize = BPF_F_MMAPABLE as usize;

/// Listen address and port -> service. Writer: controller.
#[btf_map]
pub(crate) static SERVICES: HashMap<ServiceKey, Service, MAX_SERVICES> = HashMap::new();

/// Listen addresses alone, for packets that have no port. Writer: controller.
#[btf_map]
pub(crate) static LISTEN_ADDRESSES: HashMap<Address, u32, MAX_SERVICES> = HashMap::new();

/// Pools by slot. Writer: controller.
#[btf_map]
pub(crate) static POOLS: Array<Pool, MAX_POOLS> = Array::new();

/// Each pool's active backend, an `ActiveWord`. Writer: controller, by one store through its mapping.
#[btf_map]
pub(crate) static ACTIVE: Array<u64, MAX_POOLS, MMAPABLE> = Array::new();

/// Backends by slot. Writer: controller.
#[btf_map]
pub(crate) static BACKENDS: Array<Backend, MAX_BACKENDS> = Array::new();

/// Each backend's `NextHop` word. Writer: controller, by one store through its mapping.
#[btf_map]
pub(crate) static NEXT_HOPS: Array<u64, MAX_BACKENDS, MMAPABLE> = Array::new();

/// Interfaces by slot. Writer: controller.
#[btf_map]
pub(crate) static INTERFACES: Array<Interface, MAX_INTERFACES> = Array::new();

/// The kernel's devices by the same slots. Writer: controller; the kernel empties a slot when its device goes.
#[btf_map]
pub(crate) static DEVICES: DevMap<MAX_INTERFACES> = DevMap::new();

/// Both directions of handshakes. Writer: packet path; the controller only removes.
#[btf_map]
pub(crate) static HALF_OPEN: HashMap<FlowKey, FlowEntry, 131_072> = HashMap::new();

/// Both directions of flows whose handshake is complete. Writer: packet path; the controller only removes.
#[btf_map]
pub(crate) static ESTABLISHED: HashMap<FlowKey, FlowEntry, 524_288> = HashMap::new();

/// Drops by reason. Writer: packet path.
#[btf_map]
pub(crate) static DROPS: PerCpuArray<u64, { Reason::ALL.len() }> = PerCpuArray::new();

/// Traffic by service slot. Writer: packet path.
#[btf_map]
pub(crate) static SERVICE_TRAFFIC: PerCpuArray<Traffic, MAX_SERVICES> = PerCpuArray::new();

/// Traffic by backend slot. Writer: packet path.
#[btf_map]
pub(crate) static BACKEND_TRAFFIC: PerCpuArray<Traffic, MAX_BACKENDS> = PerCpuArray::new();
