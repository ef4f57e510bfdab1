//! Who is who in the measurements, and what their packets are: flow by flow, the same on every machine.
//!
//! A flow is a number. Each has a client address of its own. With snat a backend's port has only some 32,000 flows, so
//! there are many services, and flow after flow goes to the next one; a client's port is one that the gateway may use,
//! and no other flow of its service has it, so it is kept, and what the backend sees is known beforehand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use balancer_common::abi::{Address, Address4, FlowKey, Port};
use balancer_common::nat::Deltas;
use balancer_user::dataplane::slots::{BackendPlan, Forwarding, PoolPlan, Retry, ServicePlan};

use super::plan::{Part, Plan, WORDS_4, WORDS_6};
use crate::case::{LAN_MAC, ROUTER_MAC, Side, WAN_MAC};
use crate::packet::{Mac, Packet, flags};

/// Services, as a power of two.
const SERVICE_BITS: u64 = 6;
/// Ports that clients have and the gateway may use, as a power of two.
const PORT_BITS: u64 = 15;
/// So many flows can be told apart.
pub(super) const FLOWS_MAX: u64 = 1 << (SERVICE_BITS + PORT_BITS);

const FIRST_CLIENT_PORT: u16 = 16_384;
const FIRST_LISTEN_PORT: u16 = 8000;
const FIRST_BACKEND_PORT: u16 = 10_000;

const CLIENT_ISN: u32 = 1000;
const BACKEND_ISN: u32 = 5000;
/// How far a client's next sequence is; answers to the one are none to the other.
const FURTHER: u32 = 1 << 20;

/// A pool with everybody around it.
#[derive(Debug)]
pub(super) struct World {
    pub(super) name: &'static str,
    forwarding: Forwarding,
    vip: IpAddr,
    backend: IpAddr,
    backend_mac: Mac,
    /// The gateway's address towards the backend.
    gateway: IpAddr,
    /// The client of flow 0; others have higher addresses.
    client: IpAddr,
    /// Somebody behind the gateway who has no service.
    foreigner: IpAddr,
}

pub(super) static SNAT4: World = World {
    name: "snat",
    forwarding: Forwarding::Snat,
    vip: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10)),
    backend: IpAddr::V4(Ipv4Addr::new(10, 0, 2, 11)),
    backend_mac: [2, 0, 0, 4, 1, 1],
    gateway: IpAddr::V4(Ipv4Addr::new(10, 0, 2, 1)),
    client: IpAddr::V4(Ipv4Addr::new(100, 64, 0, 0)),
    foreigner: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 99)),
};

pub(super) static DNAT4: World = World {
    name: "dnat",
    forwarding: Forwarding::Dnat,
    vip: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 20)),
    backend: IpAddr::V4(Ipv4Addr::new(10, 0, 2, 21)),
    backend_mac: [2, 0, 0, 4, 2, 1],
    ..SNAT4
};

pub(super) static SNAT6: World = World {
    name: "IPv6 snat",
    forwarding: Forwarding::Snat,
    vip: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x10)),
    backend: IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0a00, 2, 0, 0, 0, 0, 0x11)),
    backend_mac: [2, 0, 0, 6, 1, 1],
    gateway: IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0a00, 2, 0, 0, 0, 0, 1)),
    client: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 0)),
    foreigner: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 0x99)),
};

/// A packet's place in its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// Of the client: opens the flow.
    Syn,
    /// Of the backend: answers.
    SynAck,
    /// Of the client: completes the handshake.
    Ack,
    /// Data of the client.
    FromClient,
    /// Data of the backend.
    FromBackend,
    /// Data of the client for somebody else.
    Foreign,
    /// Of the client, with another sequence number: opens the next flow on the same tuple.
    SynAnew,
    /// Of the client: ends its direction.
    FinFromClient,
    /// Of the backend, which has the client's: ends its direction.
    FinFromBackend,
    /// Of the client, within its window.
    ResetFromClient,
    /// Of the backend, within its window.
    ResetFromBackend,
}

impl Segment {
    /// In which order the flows have this packet, see [`Plan::step`]: each segment has its own, or they would find what
    /// earlier ones have made in the order of the memory where it is, as real packets don't. Established flows are made in
    /// the order of their numbers, as the peer's are.
    fn step(self) -> u64 {
        match self {
            Self::Syn => 0x9e37_79b1,
            Self::SynAck => 0x85eb_ca6b,
            Self::Ack => 1,
            Self::FromClient | Self::FromBackend | Self::Foreign => 0xc2b2_ae35,
            // Only of storms, which have no order.
            Self::SynAnew
            | Self::FinFromClient
            | Self::FinFromBackend
            | Self::ResetFromClient
            | Self::ResetFromBackend => 1,
        }
    }

    /// The side of the gateway that it comes in on.
    pub(super) fn side(self) -> Side {
        match self {
            Self::SynAck | Self::FromBackend | Self::FinFromBackend | Self::ResetFromBackend => Side::Lan,
            Self::Syn
            | Self::Ack
            | Self::FromClient
            | Self::Foreign
            | Self::SynAnew
            | Self::FinFromClient
            | Self::ResetFromClient => Side::Wan,
        }
    }
}

/// Flows by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flows {
    pub(super) first: u64,
    /// A power of two.
    pub(super) count: u64,
}

/// One end of a flow, as packets name it.
#[derive(Clone, Copy)]
struct End {
    address: IpAddr,
    /// Which flows have other addresses.
    address_mask: u64,
    port: Part,
}

impl End {
    /// A host whose address is the same in all flows; a port for each service.
    fn host(address: IpAddr, first_port: u16) -> Self {
        let port = Part { first: first_port.into(), shift: 0, mask: (1 << SERVICE_BITS) - 1 };
        Self { address, address_mask: 0, port }
    }

    /// In this flow.
    fn at(&self, flow: u64) -> SocketAddr {
        let further = flow & self.address_mask;
        let address = match self.address {
            IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4) + further as u32).into(),
            IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) + u128::from(further)).into(),
        };
        let Part { first, shift, mask } = self.port;
        SocketAddr::new(address, (first + (flow >> shift & mask)) as u16)
    }

    fn address_part(&self) -> Part {
        Part { first: low_half_of(self.address), shift: 0, mask: self.address_mask }
    }
}

/// The last 32 bits.
fn low_half_of(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => u128::from(v6) as u64 & 0xffff_ffff,
    }
}

impl World {
    fn client_end(&self) -> End {
        let port = Part { first: FIRST_CLIENT_PORT.into(), shift: SERVICE_BITS, mask: (1 << PORT_BITS) - 1 };
        End { address: self.client, address_mask: FLOWS_MAX * 2 - 1, port }
    }

    /// The client, as the backend sees it.
    fn seen_client_end(&self) -> End {
        match self.forwarding {
            Forwarding::Snat => End { address: self.gateway, address_mask: 0, ..self.client_end() },
            Forwarding::Dnat => self.client_end(),
        }
    }

    /// The pool as the controller hands it over.
    pub(super) fn pool(&self) -> PoolPlan {
        let service = |number: u16| ServicePlan {
            name: format!("service{number}"),
            listen: SocketAddr::new(self.vip, FIRST_LISTEN_PORT + number),
            backend_port: FIRST_BACKEND_PORT + number,
        };
        PoolPlan {
            name: self.name.into(),
            forwarding: self.forwarding,
            snat_addresses: Vec::new(),
            snat_ports: vec![FIRST_CLIENT_PORT..=FIRST_CLIENT_PORT + ((1 << PORT_BITS) - 1)],
            retry: Retry::Off,
            connect_timeout: Duration::ZERO,
            services: (0..1 << SERVICE_BITS).map(service).collect(),
            backends: vec![BackendPlan { name: format!("{} backend", self.name), address: self.backend }],
        }
    }

    /// The gateway's address towards the backend, and the backend's hardware address.
    pub(super) fn way(&self) -> (IpAddr, Mac) {
        (self.gateway, self.backend_mac)
    }

    pub(super) fn is_ipv6(&self) -> bool {
        self.vip.is_ipv6()
    }

    fn ends(&self, segment: Segment) -> (End, End) {
        match (segment, segment.side()) {
            (Segment::Foreign, _) => (self.client_end(), End::host(self.foreigner, FIRST_LISTEN_PORT)),
            (_, Side::Wan) => (self.client_end(), End::host(self.vip, FIRST_LISTEN_PORT)),
            (_, Side::Lan) => (End::host(self.backend, FIRST_BACKEND_PORT), self.seen_client_end()),
        }
    }

    /// A flow's packet, built from scratch, in a frame as long as the feeder makes them.
    pub(super) fn frame(&self, segment: Segment, flow: u64) -> Vec<u8> {
        let mut frame = self.packet(segment, flow).to_frame();
        frame.resize(if self.is_ipv6() { WORDS_6 } else { WORDS_4 } * size_of::<u64>(), 0);
        frame
    }

    fn packet(&self, segment: Segment, flow: u64) -> Packet {
        let (source, destination) = self.ends(segment);
        let packet = Packet::new(source.at(flow), destination.at(flow)).with(|packet| {
            let (from, to) = match segment.side() {
                Side::Wan => (ROUTER_MAC, WAN_MAC),
                Side::Lan => (self.backend_mac, LAN_MAC),
            };
            packet.ethernet.source = from;
            packet.ethernet.destination = to;
        });
        match segment {
            Segment::Syn => packet.syn().seq(CLIENT_ISN),
            Segment::SynAck => packet.syn_ack().seq(BACKEND_ISN).acks(CLIENT_ISN + 1),
            Segment::Ack => packet.ack().seq(CLIENT_ISN + 1).acks(BACKEND_ISN + 1),
            Segment::FromClient | Segment::Foreign => {
                let packet = packet.flags(flags::PSH | flags::ACK);
                packet.seq(CLIENT_ISN + 1).acks(BACKEND_ISN + 1).payload(b"hello")
            }
            Segment::FromBackend => {
                let packet = packet.flags(flags::PSH | flags::ACK);
                packet.seq(BACKEND_ISN + 1).acks(CLIENT_ISN + 1).payload(b"hello")
            }
            Segment::SynAnew => packet.syn().seq(CLIENT_ISN + FURTHER),
            Segment::FinFromClient => packet.fin().seq(CLIENT_ISN + 1).acks(BACKEND_ISN + 2),
            Segment::FinFromBackend => packet.fin().seq(BACKEND_ISN + 1).acks(CLIENT_ISN + 2),
            Segment::ResetFromClient => packet.rst().seq(CLIENT_ISN + 1),
            Segment::ResetFromBackend => packet.rst().seq(BACKEND_ISN + 1),
        }
    }

    /// Where this flow's client is, and the service that it talks to.
    pub(super) fn client_to_service(&self, flow: u64) -> (SocketAddr, SocketAddr) {
        let (client, service) = self.ends(Segment::Syn);
        (client.at(flow), service.at(flow))
    }

    /// Where the backend of this flow's service listens, and the gateway's or the client's address that it sees.
    pub(super) fn backend_and_source(&self, flow: u64) -> (SocketAddr, IpAddr) {
        let (backend, seen) = self.ends(Segment::SynAck);
        (backend.at(flow), seen.at(flow).ip())
    }

    /// Whether the backend may see this port instead of the client's.
    pub(super) fn may_be_seen_from(&self, port: u16, seen: u16) -> bool {
        match self.forwarding {
            Forwarding::Snat => (FIRST_CLIENT_PORT..FIRST_CLIENT_PORT + (1 << PORT_BITS)).contains(&seen),
            Forwarding::Dnat => seen == port,
        }
    }

    /// The flow that a client with this address and a service's port belongs to; `None`: neither world nor storm has it.
    pub(super) fn flow_of(&self, client: SocketAddr, listen: SocketAddr) -> Option<u64> {
        let flow = match (client.ip(), self.client) {
            (IpAddr::V4(is), IpAddr::V4(first)) => u32::from(is).checked_sub(u32::from(first))?.into(),
            (IpAddr::V6(is), IpAddr::V6(first)) => {
                u64::try_from(u128::from(is).checked_sub(u128::from(first))?).ok()?
            }
            _ => return None,
        };
        (self.client_to_service(flow) == (client, listen)).then_some(flow)
    }

    /// What the feeder has to make.
    pub(super) fn plan(&self, segment: Segment, flows: Flows) -> Plan {
        assert!(flows.count.is_power_of_two(), "{flows:?}: the feeder counts in powers of two");
        let (source, destination) = self.ends(segment);
        let is_ipv6 = self.is_ipv6();
        let bytes = self.frame(segment, 0);
        let complement = |at: usize| u64::from(!u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        let (ip_sum, tcp_sum) = if is_ipv6 { (0, complement(70)) } else { (complement(24), complement(50)) };
        let mut frame = [0; WORDS_6];
        for (word, bytes) in frame.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        Plan {
            frame,
            is_ipv6: is_ipv6.into(),
            ip_sum,
            tcp_sum,
            source: source.address_part(),
            destination: destination.address_part(),
            source_port: source.port,
            destination_port: destination.port,
            first: flows.first,
            mask: flows.count - 1,
            step: segment.step(),
            made: 0,
        }
    }

    /// What the peer's table needs for a flow of an IPv4 world: for each direction its key and what its packets become.
    pub(super) fn recipes(&self, flow: u64) -> [([u8; 16], [u8; 32]); 2] {
        let tuple = |segment| {
            let (source, destination) = self.ends(segment);
            let (source, destination) = (source.at(flow), destination.at(flow));
            FlowKey {
                source: Address::from(source.ip()).into(),
                destination: Address::from(destination.ip()).into(),
                source_port: Port::new(source.port()),
                destination_port: Port::new(destination.port()),
            }
        };
        let from_client = tuple(Segment::FromClient);
        let from_backend = tuple(Segment::FromBackend);
        let towards_backend = [self.backend_mac, LAN_MAC];
        let towards_client = [ROUTER_MAC, WAN_MAC];
        [
            (key(&from_client), recipe(towards_backend, &from_client, &from_backend.reversed())),
            (key(&from_backend), recipe(towards_client, &from_backend, &from_client.reversed())),
        ]
    }
}

/// As `floor.rs` has it: the five-tuple.
fn key(tuple: &FlowKey<Address4>) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..12].copy_from_slice(&tuple_bytes(tuple));
    bytes[12..].copy_from_slice(&6_u32.to_ne_bytes());
    bytes
}

/// As `floor.rs` has it: MACs, addresses and ports as in the packet, then what they do to checksums.
fn recipe([to, from]: [Mac; 2], old: &FlowKey<Address4>, new: &FlowKey<Address4>) -> [u8; 32] {
    let Deltas { ip, tcp } = Deltas::new(old, &new.reversed());
    let mut bytes = [0; 32];
    bytes[..6].copy_from_slice(&to);
    bytes[6..12].copy_from_slice(&from);
    bytes[12..24].copy_from_slice(&tuple_bytes(new));
    bytes[24..26].copy_from_slice(&ip.to_ne_bytes());
    bytes[26..28].copy_from_slice(&tcp.to_ne_bytes());
    bytes
}

fn tuple_bytes(tuple: &FlowKey<Address4>) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&tuple.source.to_wire());
    bytes[4..8].copy_from_slice(&tuple.destination.to_wire());
    bytes[8..10].copy_from_slice(&tuple.source_port.to_wire());
    bytes[10..].copy_from_slice(&tuple.destination_port.to_wire());
    bytes
}
