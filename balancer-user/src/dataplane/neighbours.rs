//! The way to backends and the facts of interfaces, asked of the kernel through netlink.
//!
//! The packet path asks for neither routes nor neighbours: `bpf_fib_lookup` answers nothing while `ip_forward` is 0.
//! Deliberately absent: any routing of our own; what the kernel would do with a packet of its own is what we do.

use std::net::{IpAddr, Ipv4Addr};

use balancer_common::abi::Interface;
use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{LinkAttribute, LinkXdp, XdpAttached};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::DataplaneError;
use super::attach::{Mode, Target};

/// A netlink connection.
#[derive(Debug)]
pub struct Neighbours {
    handle: Handle,
    connection: tokio::task::JoinHandle<()>,
}

/// What the kernel would do with a packet to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Out through this interface.
    pub ifindex: u32,
    /// To this neighbour: the backend itself or a router.
    pub next_hop: Ipv4Addr,
    /// From this address.
    pub source: Ipv4Addr,
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Neighbours {
    /// Connects in the network namespace of this thread.
    pub fn connect() -> Result<Self, DataplaneError> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|source| DataplaneError::Io { what: "connecting to netlink".into(), source })?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// An interface: where to attach, and what the packet path has to know of it.
    pub async fn interface(&self, name: &str) -> Result<(Target, Interface), DataplaneError> {
        let mut answer = self.handle.link().get().match_name(name.to_owned()).execute();
        let link = match answer.try_next().await {
            Ok(Some(link)) => link,
            Ok(None) => return Err(DataplaneError::NoInterface(name.to_owned())),
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => {
                return Err(DataplaneError::NoInterface(name.to_owned()));
            }
            Err(error) => return Err(failed(format!("looking up interface {name}"))(error)),
        };
        let ifindex = link.header.index;
        let mut facts = Interface { ifindex, ..Interface::default() };
        let mut program = None;
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::Mtu(mtu) => facts.mtu = *mtu,
                LinkAttribute::Address(bytes) => facts.mac = mac(bytes).unwrap_or_default(),
                LinkAttribute::Xdp(xdp) => program = attached_program(xdp),
                _ => {}
            }
        }
        Ok((Target { interface: name.to_owned(), ifindex, program }, facts))
    }

    /// The kernel's route to an address; `None`: there is none.
    pub async fn route(&self, destination: Ipv4Addr) -> Result<Option<Route>, DataplaneError> {
        let message = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(destination, 32).build();
        let mut answer = self.handle.route().get(message).execute();
        let route = match answer.try_next().await {
            Ok(Some(route)) => route,
            Ok(None) => return Ok(None),
            // No route, or one that forbids: for us the same.
            Err(rtnetlink::Error::NetlinkError(error))
                if [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EACCES, libc::EINVAL]
                    .contains(&-error.raw_code()) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(failed(format!("looking up the route to {destination}"))(error)),
        };
        let (mut ifindex, mut source, mut next_hop) = (None, None, destination);
        for attribute in route.attributes {
            match attribute {
                RouteAttribute::Oif(index) => ifindex = Some(index),
                RouteAttribute::PrefSource(RouteAddress::Inet(address)) => source = Some(address),
                RouteAttribute::Gateway(RouteAddress::Inet(address)) => next_hop = address,
                _ => {}
            }
        }
        Ok(ifindex.zip(source).map(|(ifindex, source)| Route { ifindex, next_hop, source }))
    }

    /// The hardware addresses of all IPv4 neighbours that the kernel believes in, with whether it is sure.
    pub async fn table(&self) -> Result<Vec<(u32, Ipv4Addr, [u8; 6], bool)>, DataplaneError> {
        let mut answer = self.handle.neighbours().get().set_address_family(AddressFamily::Inet).execute();
        let mut table = Vec::new();
        while let Some(entry) = answer.try_next().await.map_err(failed("listing neighbours".into()))? {
            table.extend(known(&entry));
        }
        Ok(table)
    }

    /// Asks the kernel to find a neighbour out, or to confirm it, as a packet to it would (`ip neigh … use`).
    pub async fn resolve(&self, ifindex: u32, neighbour: Ipv4Addr) -> Result<(), DataplaneError> {
        self.handle
            .neighbours()
            .add(ifindex, IpAddr::V4(neighbour))
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace()
            .execute()
            .await
            .map_err(failed(format!("resolving neighbour {neighbour}")))
    }
}

/// A neighbour whose hardware address may be used.
fn known(entry: &NeighbourMessage) -> Option<(u32, Ipv4Addr, [u8; 6], bool)> {
    if entry.header.family != AddressFamily::Inet {
        return None;
    }
    let sure = match entry.header.state {
        NeighbourState::Reachable | NeighbourState::Permanent | NeighbourState::Noarp => true,
        NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe => false,
        _ => return None,
    };
    let (mut address, mut hardware) = (None, None);
    for attribute in &entry.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(inet)) => address = Some(*inet),
            NeighbourAttribute::LinkLayerAddress(bytes) => hardware = mac(bytes),
            _ => {}
        }
    }
    Some((entry.header.ifindex, address?, hardware?, sure))
}

fn mac(bytes: &[u8]) -> Option<[u8; 6]> {
    bytes.try_into().ok()
}

fn attached_program(attributes: &[LinkXdp]) -> Option<(u32, Mode)> {
    let mut id = None;
    let mut mode = Mode::Native;
    for attribute in attributes {
        match attribute {
            LinkXdp::ProgId(program) => id = Some(*program),
            LinkXdp::Attached(XdpAttached::SocketBuffer) => mode = Mode::Generic,
            _ => {}
        }
    }
    id.filter(|id| *id != 0).map(|id| (id, mode))
}

fn failed(request: String) -> impl FnOnce(rtnetlink::Error) -> DataplaneError {
    move |source| DataplaneError::Netlink { request, source: Box::new(source) }
}
