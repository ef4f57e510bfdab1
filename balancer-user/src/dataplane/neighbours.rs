//! The way to backends and the facts of interfaces, asked of the kernel through netlink.
//!
//! The packet path asks for neither routes nor neighbours: `bpf_fib_lookup` answers nothing while `ip_forward` is 0.
//! Both families, and IPv4 behind an IPv6 router too: a neighbour is found by interface and address, whatever it is.
//! Deliberately absent: any routing or source selection of our own; what the kernel would do with a packet of its own
//! is what we do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use balancer_common::abi::Interface;
use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkXdp, XdpAttached};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, RouteMessageBuilder};
use tokio::time::timeout;

use super::DataplaneError;
use super::attach::{Carrier, Mode, Target};
use super::generic::{Family, Generic};

/// The kernel answers at once. An answer that got lost, or that can't be read, must not be waited for.
pub(super) const ANSWER: Duration = Duration::from_secs(2);

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

/// A neighbour whose hardware address the kernel would use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its hardware address.
    pub mac: [u8; 6],
    /// How the kernel knows it.
    pub known: Known,
}

/// How the kernel knows a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Somebody has put it there: an operator, or a daemon whose business it is. It is nobody's to ask.
    Given,
    /// The neighbour has said so, some time ago.
    Heard,
    /// The neighbour is being asked whether it is still so.
    Asked,
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
        let link = match first(answer.try_next()).await {
            Ok(link) => link,
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => {
                return Err(DataplaneError::NoInterface(name.to_owned()));
            }
            Err(error) => return Err(failed(format!("looking up interface {name}"))(error)),
        };
        let ifindex = link.header.index;
        let mut facts = Interface { ifindex, ..Interface::default() };
        let mut program = None;
        let carrier = carrier(link.header.flags);
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::Mtu(mtu) => facts.mtu = *mtu,
                LinkAttribute::Address(bytes) => facts.mac = mac(bytes).unwrap_or_default(),
                LinkAttribute::Xdp(xdp) => program = attached_program(xdp),
                _ => {}
            }
        }
        Ok((Target { interface: name.to_owned(), ifindex, mtu: facts.mtu, program, carrier }, facts))
    }

    /// What the device of this index is called; `None`: it is gone.
    pub async fn interface_name(&self, ifindex: u32) -> Result<Option<String>, DataplaneError> {
        let mut answer = self.handle.link().get().match_index(ifindex).execute();
        let link = match first(answer.try_next()).await {
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => None,
            answer => Some(answer.map_err(failed(format!("looking up interface {ifindex}")))?),
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
        match first(answer.try_next()).await {
            Ok(route) => Ok(usable(&route, destination)),
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

    /// What the kernel knows of a neighbour; `None`: no hardware address.
    pub async fn neighbour(
        &self,
        ifindex: u32,
        address: IpAddr,
    ) -> Result<Option<Neighbour>, DataplaneError> {
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNeighbour(entry(ifindex, address)));
        // Of the whole table's dump there may be thousands.
        request.header.flags = NLM_F_REQUEST;
        let failed = failed(format!("looking up neighbour {address}"));
        let mut answer = match self.handle.clone().request(request) {
            Ok(answer) => answer,
            Err(error) => return Err(failed(error)),
        };
        match first(async { Ok(answer.next().await) }).await.map(|answer| answer.payload) {
            Err(error) => Err(failed(error)),
            Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(entry))) => {
                Ok(neighbour_in(&entry).and_then(|(.., neighbour)| neighbour))
            }
            Ok(NetlinkPayload::Error(error))
                if ![-libc::ENOENT, -libc::ENODEV].contains(&error.raw_code()) =>
            {
                Err(failed(rtnetlink::Error::NetlinkError(error)))
            }
            _ => Ok(None),
        }
    }

    /// Has the kernel find a neighbour out, as a packet to it would (`ip neigh … use`); nothing where that is under way.
    pub async fn find(&self, ifindex: u32, neighbour: IpAddr) -> Result<(), DataplaneError> {
        let asked = self
            .handle
            .neighbours()
            .add(ifindex, neighbour)
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace()
            .execute();
        within(asked).await.map_err(failed(format!("resolving neighbour {neighbour}")))
    }

    /// Has the kernel ask a neighbour whether it is still where it was; nobody else hears the question. Its hardware
    /// address stays in use meanwhile. Nothing where none is known.
    pub async fn confirm(&self, ifindex: u32, neighbour: IpAddr) -> Result<(), DataplaneError> {
        self.change(ifindex, neighbour, NeighbourState::Probe).await
    }

    /// Has the kernel ask everybody who is there now: it forgets the hardware address, and finds out another.
    pub async fn find_anew(&self, ifindex: u32, neighbour: IpAddr) -> Result<(), DataplaneError> {
        self.change(ifindex, neighbour, NeighbourState::Failed).await?;
        self.find(ifindex, neighbour).await
    }

    /// Changes the state of an entry that is there, and nothing else of it: neither made nor replaced.
    async fn change(
        &self,
        ifindex: u32,
        neighbour: IpAddr,
        state: NeighbourState,
    ) -> Result<(), DataplaneError> {
        let mut message = entry(ifindex, neighbour);
        message.header.state = state;
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewNeighbour(message));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK;
        let failed = failed(format!("asking neighbour {neighbour}"));
        let mut answer = match self.handle.clone().request(request) {
            Ok(answer) => answer,
            Err(error) => return Err(failed(error)),
        };
        // That it was done ends the answer without a word.
        let answer = within(async { Ok(answer.next().await) }).await;
        match answer.map(|answer| answer.map(|answer| answer.payload)) {
            Err(error) => Err(failed(error)),
            // EINVAL: it has lost its hardware address meanwhile.
            Ok(Some(NetlinkPayload::Error(error)))
                if ![0, -libc::ENOENT, -libc::ENODEV, -libc::EINVAL].contains(&error.raw_code()) =>
            {
                Err(failed(rtnetlink::Error::NetlinkError(error)))
            }
            _ => Ok(()),
        }
    }
}

/// A message about a neighbour, which says no more than which.
fn entry(ifindex: u32, address: IpAddr) -> NeighbourMessage {
    let mut entry = NeighbourMessage::default();
    entry.header.ifindex = ifindex;
    let (family, address) = match address {
        IpAddr::V4(v4) => (AddressFamily::Inet, NeighbourAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, NeighbourAddress::Inet6(v6)),
    };
    entry.header.family = family;
    entry.attributes.push(NeighbourAttribute::Destination(address));
    entry
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

/// Which neighbour a message is about, and what the kernel knows of it.
pub(super) fn neighbour_in(entry: &NeighbourMessage) -> Option<(u32, IpAddr, Option<Neighbour>)> {
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
    let known = match entry.header.state {
        NeighbourState::Permanent | NeighbourState::Noarp => Some(Known::Given),
        NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Delay => Some(Known::Heard),
        NeighbourState::Probe => Some(Known::Asked),
        _ => None,
    };
    // What another daemon, or the kernel by order, keeps fresh: a change of state from here would end that.
    let is_kept = |attribute: &NeighbourAttribute| matches!(attribute, NeighbourAttribute::ExtFlags(flags) if flags.contains(NeighbourExtFlags::Managed));
    let is_kept =
        entry.header.flags.contains(NeighbourFlags::ExtLearned) || entry.attributes.iter().any(is_kept);
    let known = known.map(|known| if is_kept { Known::Given } else { known });
    let neighbour = known.zip(hardware).map(|(known, mac)| Neighbour { mac, known });
    Some((entry.header.ifindex, address?, neighbour))
}

fn carrier(flags: LinkFlags) -> Carrier {
    match (flags.contains(LinkFlags::Up), flags.contains(LinkFlags::LowerUp)) {
        (false, _) => Carrier::Down,
        (true, false) => Carrier::None,
        (true, true) => Carrier::Up,
    }
}

fn mac(bytes: &[u8]) -> Option<[u8; 6]> {
    bytes.try_into().ok()
}

pub(super) fn attached_program(attributes: &[LinkXdp]) -> Option<(u32, Mode)> {
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

/// The first part of an answer, which has one.
async fn first<T>(
    answer: impl Future<Output = Result<Option<T>, rtnetlink::Error>>,
) -> Result<T, rtnetlink::Error> {
    // A connection that has ended ends its answers without one.
    within(answer).await?.ok_or(rtnetlink::Error::RequestFailed)
}

async fn within<T>(answer: impl Future<Output = Result<T, rtnetlink::Error>>) -> Result<T, rtnetlink::Error> {
    timeout(ANSWER, answer).await.unwrap_or(Err(rtnetlink::Error::RequestFailed))
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
            for (state, known) in [
                (NeighbourState::Permanent, Some(Known::Given)),
                (NeighbourState::Reachable, Some(Known::Heard)),
                (NeighbourState::Stale, Some(Known::Heard)),
                (NeighbourState::Probe, Some(Known::Asked)),
                (NeighbourState::Incomplete, None),
                (NeighbourState::Failed, None),
            ] {
                let wanted = known.map(|known| Neighbour { mac: [2, 0, 0, 0, 0, 1], known });
                let found = neighbour_in(&entry(state, written.clone()));
                assert_eq!(found, Some((7, address, wanted)), "{state:?}");
            }
        }
    }

    #[test]
    fn a_neighbour_that_somebody_else_keeps_is_not_asked() {
        let known = |entry: &NeighbourMessage| neighbour_in(entry)?.2.map(|neighbour| neighbour.known);
        let mut entry = entry(NeighbourState::Reachable, NeighbourAddress::Inet(Ipv4Addr::LOCALHOST));
        entry.header.flags = NeighbourFlags::ExtLearned;
        assert_eq!(known(&entry), Some(Known::Given));
        entry.header.flags = NeighbourFlags::empty();
        entry.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
        assert_eq!(known(&entry), Some(Known::Given));
    }
}
