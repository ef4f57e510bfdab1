//! What the controller tells of services, pools and backends.

use core::net::SocketAddr;

use super::address::{Address, Port, socket};
use crate::limits::{MAX_BACKENDS, MAX_PORT_RANGES, MAX_SNAT_ADDRESSES, NAME_BYTES};

/// Key of a service: its listen address and port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// The VIP.
    pub address: Address,
    /// The port that clients connect to.
    pub port: Port,
    /// Zero.
    pub padding: u16,
    /// Zero. Not an array with the other: of more than a word the compiler makes a call of memset.
    pub more_padding: u32,
}

impl ServiceKey {
    /// Of an address and a port.
    #[inline(always)]
    pub const fn new(address: Address, port: Port) -> Self {
        Self { address, port, padding: 0, more_padding: 0 }
    }
}

impl From<SocketAddr> for ServiceKey {
    fn from(listen: SocketAddr) -> Self {
        Self::new(listen.ip().into(), Port::new(listen.port()))
    }
}

impl From<ServiceKey> for SocketAddr {
    fn from(key: ServiceKey) -> Self {
        socket(key.address, key.port)
    }
}

/// A service, found by its [`ServiceKey`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Index of its counters.
    pub slot: u16,
    /// Index of its pool.
    pub pool: u16,
    /// The port on the backends.
    pub backend_port: Port,
    /// Zero.
    pub padding: u16,
    /// Its name, zero-filled: the tables explain themselves, also without a controller.
    pub name: [u8; NAME_BYTES],
}

/// Ports `first ..= first + count - 1`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest port, as a number.
    pub first: u16,
    /// How many ports.
    pub count: u16,
}

/// [`Pool::forwarding`]: backends see an address of the gateway.
pub const FORWARDING_SNAT: u32 = 0;
/// [`Pool::forwarding`]: backends see the client's address.
pub const FORWARDING_DNAT: u32 = 1;

/// A pool's settings; which backend is active stands apart, in its [`ActiveWord`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// [`FORWARDING_SNAT`] or [`FORWARDING_DNAT`].
    pub forwarding: u32,
    /// How many of `snat_addresses` are in use; 0: each backend's own [`Backend::snat_address`].
    pub snat_address_count: u32,
    /// How many of `snat_ports` are in use; 0: this slot holds no pool.
    pub snat_range_count: u32,
    /// Ports in all ranges together.
    pub snat_port_count: u32,
    /// [`RETRY_OFF`](super::RETRY_OFF) or what else becomes of an attempt that a backend did not take.
    pub retry: u32,
    /// For how long a SYN may be unanswered before it goes on to another backend.
    pub connect_timeout_ms: u32,
    /// Addresses for the gateway's side of flows to backends.
    pub snat_addresses: [Address; MAX_SNAT_ADDRESSES],
    /// Ports for the gateway's side of flows to backends.
    pub snat_ports: [PortRange; MAX_PORT_RANGES],
    /// Its name, zero-filled.
    pub name: [u8; NAME_BYTES],
}

/// A backend, found by its slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where it is; all zero: this slot holds no backend.
    pub address: Address,
    /// The gateway's address towards it.
    pub snat_address: Address,
    /// Slot of its pool.
    pub pool: u64,
    /// Its name, zero-filled.
    pub name: [u8; NAME_BYTES],
}

/// What an address is, as the packet path has to know it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// Bits: [`Roles::LISTEN`], [`Roles::SNAT`], [`Roles::BACKEND`], [`Roles::GATEWAY`].
    pub bits: u16,
    /// A backend's slot, if it is one's: of several at one address any, as the way to them is the same.
    pub backend: u16,
}

impl Roles {
    /// A service listens there.
    pub const LISTEN: u16 = 1;
    /// Flows to backends come from there.
    pub const SNAT: u16 = 2;
    /// A backend is there.
    pub const BACKEND: u16 = 4;
    /// It is the gateway's own towards a backend, whether flows come from it or not.
    pub const GATEWAY: u16 = 8;

    /// Whether it is one of these.
    #[inline(always)]
    pub const fn is(self, roles: u16) -> bool {
        self.bits & roles != 0
    }
}

/// Which addresses have [`Roles`], roughly: a bit for all addresses that come to one place. Clients have none, as a rule, and
/// what only passes the gateway has none either: for them a lookup is saved.
pub mod address_bits {
    use super::Address;

    /// Addresses a word.
    const BITS: usize = 64;
    /// Words for all addresses.
    pub const WORDS: usize = 65_536 / BITS;

    /// Where the bit of an address stands: word and shift.
    #[inline(always)]
    pub const fn place(address: Address) -> (usize, u32) {
        let bit = (address.scattered() >> 48) as usize;
        (bit / BITS, (bit % BITS) as u32)
    }
}

/// What ports are, two bits each: whether flows to backends may come from them, and whether backends offer a service
/// there. Over all pools together, for packets that belong to no flow.
pub mod port_roles {
    /// Ports a word.
    const PORTS: usize = 32;
    /// Words for all ports.
    pub const WORDS: usize = 65_536 / PORTS;
    /// Flows to backends may come from it.
    pub const SNAT: u64 = 1;
    /// A backend offers a service there.
    pub const BACKEND: u64 = 2;

    /// Where the bits of a port stand: word and shift.
    #[inline(always)]
    pub const fn place(port: u16) -> (usize, u32) {
        (port as usize / PORTS, (port as u32 % PORTS as u32) * 2)
    }
}

/// What becomes of a pool's new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Nobody has decided yet.
    Nobody,
    /// They go to the backend in this slot.
    Backend(u16),
    /// They wait: the client's SYN is kept, and sent when the pool has a backend again.
    Hold,
    /// They are refused: the client gets a RST.
    Reject,
}

/// Which backend a pool's new flows go to: one aligned word, so that a change is one store, seen by all services of the
/// pool at once. The packet path reads only the backend; the rest is what a controller has to know that comes after this
/// one: what the operator asked for, and the id of the last change.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActiveWord(pub u64);

impl ActiveWord {
    // No backend has a slot of these numbers: all are below `MAX_BACKENDS`.
    const HOLD: u16 = 0xffff;
    const REJECT: u16 = 0xfffe;

    /// [`Route::Hold`], with the controller's mark and the last change's id.
    pub const fn hold(mark: u16, change: u32) -> Self {
        Self::new(Self::HOLD, mark, change)
    }

    /// [`Route::Reject`], with the controller's mark and the last change's id.
    pub const fn reject(mark: u16, change: u32) -> Self {
        Self::new(Self::REJECT, mark, change)
    }

    /// The word for a backend's slot (0: none), the controller's mark and the last change's id.
    pub const fn new(backend: u16, mark: u16, change: u32) -> Self {
        Self(backend as u64 | (mark as u64) << 16 | (change as u64) << 32)
    }

    /// What becomes of new flows.
    #[inline(always)]
    pub const fn route(self) -> Route {
        const SLOTS: u16 = MAX_BACKENDS as u16;
        match self.0 as u16 {
            Self::HOLD => Route::Hold,
            Self::REJECT => Route::Reject,
            slot @ 1..SLOTS => Route::Backend(slot),
            _ => Route::Nobody,
        }
    }

    /// The backend's slot; `None` while new flows go to none.
    #[inline(always)]
    pub const fn backend(self) -> Option<u16> {
        match self.route() {
            Route::Backend(slot) => Some(slot),
            Route::Nobody | Route::Hold | Route::Reject => None,
        }
    }

    /// The same with another mark.
    #[must_use]
    pub const fn marked(self, mark: u16) -> Self {
        Self::new(self.0 as u16, mark, self.change())
    }

    /// What the controller wants to remember with it; means nothing here.
    pub const fn mark(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The id of the change that led to it.
    pub const fn change(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

// Sizes are sums of the fields: nothing is padded implicitly, and both sides see the same bytes.
const _: () = assert!(size_of::<ServiceKey>() == 24);
const _: () = assert!(size_of::<Service>() == 8 + NAME_BYTES);
const _: () = assert!(size_of::<Pool>() == 24 + 16 * MAX_SNAT_ADDRESSES + 4 * MAX_PORT_RANGES + NAME_BYTES);
const _: () = assert!(size_of::<Backend>() == 40 + NAME_BYTES);
const _: () = assert!(size_of::<Roles>() == 4);
const _: () = assert!(size_of::<ActiveWord>() == 8 && align_of::<ActiveWord>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_active_word_keeps_its_parts_apart() {
        let word = ActiveWord::new(4095, 0x8001, u32::MAX);
        assert_eq!((word.backend(), word.mark(), word.change()), (Some(4095), 0x8001, u32::MAX));
        assert_eq!(ActiveWord::default().backend(), None);
    }

    #[test]
    fn who_holds_or_rejects_has_no_backend() {
        let words = [
            (ActiveWord::default(), Route::Nobody),
            (ActiveWord::hold(0x8001, 7), Route::Hold),
            (ActiveWord::reject(0x8001, 7), Route::Reject),
            (ActiveWord::new(MAX_BACKENDS as u16, 0, 0), Route::Nobody),
        ];
        for (word, route) in words {
            assert_eq!((word.route(), word.backend()), (route, None));
        }
        assert_eq!((ActiveWord::hold(0x8001, 7).mark(), ActiveWord::reject(3, 7).change()), (0x8001, 7));
        assert_eq!(ActiveWord::new(1, 0, 0).route(), Route::Backend(1));
    }

    #[test]
    fn neighbouring_addresses_have_different_bits() {
        let neighbours = |first: core::net::IpAddr| match first {
            core::net::IpAddr::V4(v4) => core::array::from_fn::<core::net::IpAddr, 256, _>(|more| {
                core::net::Ipv4Addr::from(u32::from(v4) + more as u32).into()
            }),
            core::net::IpAddr::V6(v6) => {
                core::array::from_fn(|more| core::net::Ipv6Addr::from(u128::from(v6) + more as u128).into())
            }
        };
        for first in ["10.0.2.0", "203.0.113.0", "fd00:a00:2::", "2001:db8::"] {
            let mut words = std::vec![0_u64; address_bits::WORDS];
            for address in neighbours(first.parse().unwrap()) {
                let (word, shift) = address_bits::place(address.into());
                words[word] |= 1 << shift;
            }
            let different: u32 = words.iter().map(|word| word.count_ones()).sum();
            assert!(different > 250, "{first}: {different}");
        }
    }

    #[test]
    fn every_port_has_two_bits_of_its_own() {
        let mut words = std::vec![0_u64; port_roles::WORDS];
        for port in 0..=u16::MAX {
            let (word, shift) = port_roles::place(port);
            let bits = (port_roles::SNAT | port_roles::BACKEND) << shift;
            assert_eq!(words[word] & bits, 0, "{port}");
            words[word] |= bits;
        }
        assert!(words.iter().all(|word| *word == u64::MAX));
    }
}
