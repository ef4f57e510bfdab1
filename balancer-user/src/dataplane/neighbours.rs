//! The way to backends and the facts of interfaces, asked of the kernel through netlink.
//!
//! The packet path asks for neither routes nor neighbours: `bpf_fib_lookup` answers nothing while `ip_forward` is 0.
//! Both families, and IPv4 behind an IPv6 router too: a neighbour is found by interface and address, whatever it is.
//! Deliberately absent: any routing or source selection of our own; what the kernel would do with a packet of its own
//! is what we do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use balancer_common::abi::Interface;
use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{LinkAttribute, LinkXdp, XdpAttached};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::DataplaneError;
use super::attach::{Mode, Target};
use super::generic::{Family, Generic};

/// A netlink connection. What drivers can do is asked of it, too (`features`).
#[derive(Debug)]
pub struct Neighbours {
    pub(super) handle: Handle,
    pub(super) generic: Generic,
    pub(super) netdev: Family,
    pub(super) ethtool: Family,
    connection: tokio::task::JoinHandle<()>,
}

/// What the kernel would do with a packet to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Out through this interface.
    pub ifindex: u32,
    /// To this neighbour: the backend itself or a router, which in IPv6 usually has a link-local address.
    pub next_hop: IpAddr,
    /// From this address, of the destination's family; `None`: the gateway has none that is valid there. A new IPv6
    /// address is not while the kernel looks for duplicates of it, and a link-local one never is.
    pub source: Option<IpAddr>,
}

/// A neighbour that the kernel believes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// On this interface.
    pub ifindex: u32,
    /// Its address.
    pub address: IpAddr,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// The kernel would not ask before it uses it.
    pub is_sure: bool,
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
        let (generic, [netdev, ethtool]) = (Generic::connect()?, ["netdev", "ethtool"].map(Family::new));
        Ok(Self { handle, generic, netdev, ethtool, connection: tokio::spawn(connection) })
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
        Ok((Target { interface: name.to_owned(), ifindex, mtu: facts.mtu, program }, facts))
    }

    /// What the device of this index is called; `None`: it is gone.
    pub async fn interface_name(&self, ifindex: u32) -> Result<Option<String>, DataplaneError> {
        let mut answer = self.handle.link().get().match_index(ifindex).execute();
        let link = match answer.try_next().await {
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => None,
            answer => answer.map_err(failed(format!("looking up interface {ifindex}")))?,
        };
        let names = link.into_iter().flat_map(|link| link.attributes);
        let mut names = names.filter_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        });
        Ok(names.next())
    }

    /// The kernel's route to an address; `None`: there is none to another machine.
    pub async fn route(&self, destination: IpAddr) -> Result<Option<Route>, DataplaneError> {
        let message = match destination {
            IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(v4, 32).build(),
            IpAddr::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(v6, 128).build(),
        };
        let mut answer = self.handle.route().get(message).execute();
        match answer.try_next().await {
            Ok(found) => Ok(found.and_then(|route| usable(&route, destination))),
            // No route, or one that forbids: for us the same.
            Err(rtnetlink::Error::NetlinkError(error))
                if [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EACCES, libc::EINVAL]
                    .contains(&-error.raw_code()) =>
            {
                Ok(None)
            }
            Err(error) => Err(failed(format!("looking up the route to {destination}"))(error)),
        }
    }

    /// All neighbours that the kernel believes in.
    pub async fn table(&self) -> Result<Vec<Neighbour>, DataplaneError> {
        let mut answer = self.handle.neighbours().get().set_address_family(AddressFamily::Unspec).execute();
        let mut table = Vec::new();
        while let Some(entry) = answer.try_next().await.map_err(failed("listing neighbours".into()))? {
            table.extend(known(&entry));
        }
        Ok(table)
    }

    /// Asks the kernel to find a neighbour out, or to confirm it, as a packet to it would (`ip neigh … use`).
    pub async fn resolve(&self, ifindex: u32, neighbour: IpAddr) -> Result<(), DataplaneError> {
        self.handle
            .neighbours()
            .add(ifindex, neighbour)
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace()
            .execute()
            .await
            .map_err(failed(format!("resolving neighbour {neighbour}")))
    }
}

/// What a route says about the way; IPv6 answers with routes that forbid where IPv4 answers with an error.
fn usable(route: &RouteMessage, destination: IpAddr) -> Option<Route> {
    if route.header.kind != RouteType::Unicast {
        return None;
    }
    let (mut ifindex, mut source, mut next_hop) = (None, None, destination);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Gateway(address) => next_hop = ip(address)?,
            RouteAttribute::Via(RouteVia::Inet(router)) => next_hop = IpAddr::V4(*router),
            RouteAttribute::Via(RouteVia::Inet6(router)) => next_hop = IpAddr::V6(*router),
            _ => {}
        }
    }
    // A link-local source ends at the first router, and the backend's answers couldn't name the way back.
    let source = source.filter(|source| match source {
        IpAddr::V4(_) => true,
        IpAddr::V6(source) => !source.is_unicast_link_local(),
    });
    Some(Route { ifindex: ifindex?, next_hop, source })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

/// A neighbour whose hardware address may be used.
fn known(entry: &NeighbourMessage) -> Option<Neighbour> {
    let is_sure = match entry.header.state {
        NeighbourState::Reachable | NeighbourState::Permanent | NeighbourState::Noarp => true,
        NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe => false,
        _ => return None,
    };
    let (mut address, mut hardware) = (None, None);
    for attribute in &entry.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(inet)) => {
                address = Some(IpAddr::V4(*inet))
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(inet)) => {
                address = Some(IpAddr::V6(*inet))
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => hardware = mac(bytes),
            _ => {}
        }
    }
    Some(Neighbour { ifindex: entry.header.ifindex, address: address?, mac: hardware?, is_sure })
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

pub(super) fn failed(request: String) -> impl FnOnce(rtnetlink::Error) -> DataplaneError {
    move |source| DataplaneError::Netlink { request, source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKEND: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 11);
    const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    const OURS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);

    fn route(kind: RouteType, attributes: &[RouteAttribute]) -> RouteMessage {
        let mut route = RouteMessage::default();
        route.header.kind = kind;
        route.attributes = attributes.to_vec();
        route
    }

    fn source(address: Ipv6Addr) -> RouteAttribute {
        RouteAttribute::PrefSource(RouteAddress::Inet6(address))
    }

    #[test]
    fn a_router_with_a_link_local_address_is_a_next_hop() {
        let gateway = RouteAttribute::Gateway(RouteAddress::Inet6(ROUTER));
        let found = usable(
            &route(RouteType::Unicast, &[RouteAttribute::Oif(7), gateway, source(OURS)]),
            BACKEND.into(),
        );
        let wanted = Route { ifindex: 7, next_hop: ROUTER.into(), source: Some(OURS.into()) };
        assert_eq!(found, Some(wanted));
    }

    #[test]
    fn without_a_router_the_backend_is_the_next_hop() {
        let found =
            usable(&route(RouteType::Unicast, &[RouteAttribute::Oif(7), source(OURS)]), BACKEND.into());
        assert_eq!(found.map(|route| route.next_hop), Some(BACKEND.into()));
    }

    #[test]
    fn an_ipv6_router_leads_to_ipv4_backends() {
        let backend = Ipv4Addr::new(10, 0, 2, 11);
        let attributes = [RouteAttribute::Oif(7), RouteAttribute::Via(RouteVia::Inet6(ROUTER))];
        let found = usable(&route(RouteType::Unicast, &attributes), backend.into());
        assert_eq!(found, Some(Route { ifindex: 7, next_hop: ROUTER.into(), source: None }));
    }

    #[test]
    fn a_link_local_source_is_none() {
        let found =
            usable(&route(RouteType::Unicast, &[RouteAttribute::Oif(7), source(ROUTER)]), BACKEND.into());
        assert_eq!(found.map(|route| route.source), Some(None));
    }

    #[test]
    fn only_a_route_to_another_machine_is_one() {
        for kind in [RouteType::Local, RouteType::Unreachable, RouteType::BlackHole, RouteType::Prohibit] {
            assert_eq!(usable(&route(kind, &[RouteAttribute::Oif(1), source(OURS)]), BACKEND.into()), None);
        }
    }

    fn entry(state: NeighbourState, address: NeighbourAddress) -> NeighbourMessage {
        let mut entry = NeighbourMessage::default();
        (entry.header.ifindex, entry.header.state) = (7, state);
        entry.attributes = vec![
            NeighbourAttribute::Destination(address),
            NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 1]),
        ];
        entry
    }

    #[test]
    fn neighbours_of_both_families_are_known_while_the_kernel_believes_in_them() {
        let addresses = [
            (NeighbourAddress::Inet6(ROUTER), IpAddr::from(ROUTER)),
            (NeighbourAddress::Inet(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv4Addr::LOCALHOST)),
        ];
        for (written, address) in addresses {
            for (state, sure) in [
                (NeighbourState::Reachable, Some(true)),
                (NeighbourState::Permanent, Some(true)),
                (NeighbourState::Stale, Some(false)),
                (NeighbourState::Probe, Some(false)),
                (NeighbourState::Incomplete, None),
                (NeighbourState::Failed, None),
            ] {
                let wanted =
                    sure.map(|is_sure| Neighbour { ifindex: 7, address, mac: [2, 0, 0, 0, 0, 1], is_sure });
                assert_eq!(known(&entry(state, written.clone())), wanted, "{state:?}");
            }
        }
    }
}
