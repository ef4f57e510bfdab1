//! What the kernel tells of its own accord: that interfaces, addresses, rules or routes have changed, and neighbours.
//!
//! Of all but neighbours only that something has changed: what follows for a backend is asked of the kernel, which alone
//! knows what it would do. Bounded: a batch is so many datagrams at most, and what the kernel could not deliver (ENOBUFS) is
//! told as a change of everything. Deliberately absent: any memory.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::task::{Context, Poll};

use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};

use super::neighbours::{Neighbour, neighbour_in};

/// What is listened to.
const GROUPS: [MulticastGroup; 9] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Nexthop,
];

/// Datagrams of one batch; the loop behind it gets its turn in between.
const BATCH: usize = 64;
/// The kernel's largest messages to us are those about interfaces, with some kilobytes.
const DATAGRAM_BYTES: usize = 32 * 1024;
/// For what comes faster than it is read: thousands of neighbours or routes in one go. The kernel doubles it.
const KERNEL_BUFFER_BYTES: u32 = 1 << 20;

/// Length and kind of a message, flags, number and sender.
const HEADER_BYTES: usize = 16;

/// A subscription.
pub struct News {
    socket: TokioSocket,
    buffer: Vec<u8>,
}

/// What has been heard.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Interfaces, addresses, rules or routes have changed, or nobody knows what.
    pub is_anything: bool,
    /// Neighbours, the latest last, and what the kernel believes of each.
    pub neighbours: Vec<(u32, IpAddr, Option<Neighbour>)>,
}

impl News {
    /// Subscribes in the network namespace of this thread.
    pub fn subscribe() -> io::Result<Self> {
        let mut socket = <TokioSocket as AsyncSocket>::new(NETLINK_ROUTE)?;
        let kernel_side = socket.socket_mut();
        kernel_side.set_rx_buf_sz(KERNEL_BUFFER_BYTES)?;
        kernel_side.bind(&SocketAddr::new(0, 0))?;
        for group in GROUPS {
            kernel_side.add_membership(group as u32)?;
        }
        Ok(Self { socket, buffer: Vec::with_capacity(DATAGRAM_BYTES) })
    }

    /// Waits for news; may be given up and asked again.
    pub async fn hear(&mut self) -> io::Result<Heard> {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Heard>> {
        let mut heard = Heard::default();
        for count in 0..BATCH {
            self.buffer.clear();
            match self.socket.poll_recv(context, &mut self.buffer) {
                Poll::Pending if count == 0 => return Poll::Pending,
                Poll::Pending => break,
                Poll::Ready(Ok(())) => heard.read(&self.buffer),
                Poll::Ready(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    heard.is_anything = true;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(heard))
    }
}

impl Heard {
    /// The messages of a datagram; what follows a damaged one is left out.
    fn read(&mut self, mut datagram: &[u8]) {
        while let Some([a, b, c, d, e, f, ..]) = datagram.first_chunk::<HEADER_BYTES>() {
            let length = u32::from_ne_bytes([*a, *b, *c, *d]) as usize;
            let Some(message) = datagram.get(..length).filter(|message| message.len() >= HEADER_BYTES) else {
                return;
            };
            match u16::from_ne_bytes([*e, *f]) {
                libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => self.neighbours.extend(neighbour(message)),
                _ => self.is_anything = true,
            }
            datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn neighbour(message: &[u8]) -> Option<(u32, IpAddr, Option<Neighbour>)> {
    match NetlinkMessage::deserialize(message).ok()?.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(entry)) => neighbour_in(&entry),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelNeighbour(entry)) => {
            neighbour_in(&entry).map(|(ifindex, address, _)| (ifindex, address, None))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_route::AddressFamily;
    use rtnetlink::packet_route::link::LinkMessage;
    use rtnetlink::packet_route::neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
    };

    fn message(inner: RouteNetlinkMessage) -> Vec<u8> {
        let mut message = NetlinkMessage::from(inner);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn entry(state: NeighbourState) -> NeighbourMessage {
        let mut entry = NeighbourMessage::default();
        entry.header.family = AddressFamily::Inet;
        (entry.header.ifindex, entry.header.state) = (7, state);
        entry.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet([10, 0, 2, 11].into())),
            NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 1]),
        ];
        entry
    }

    fn heard(datagram: &[u8]) -> Heard {
        let mut heard = Heard::default();
        heard.read(datagram);
        heard
    }

    #[test]
    fn neighbours_are_told_one_by_one_and_the_rest_as_a_change() {
        let known = message(RouteNetlinkMessage::NewNeighbour(entry(NeighbourState::Reachable)));
        let gone = message(RouteNetlinkMessage::DelNeighbour(entry(NeighbourState::Stale)));
        let both = heard(&[known, gone].concat());
        let told: Vec<_> = both.neighbours.iter().map(|(_, _, neighbour)| neighbour.is_some()).collect();
        assert_eq!((told, both.is_anything), (vec![true, false], false));
        let link = heard(&message(RouteNetlinkMessage::NewLink(LinkMessage::default())));
        assert_eq!(link, Heard { is_anything: true, neighbours: Vec::new() });
    }

    #[test]
    fn damage_neither_hangs_nor_panics() {
        let whole = message(RouteNetlinkMessage::NewNeighbour(entry(NeighbourState::Reachable)));
        for length in 0..whole.len() {
            assert!(heard(&whole[..length]).neighbours.is_empty());
        }
        for length in [0_u32, 1, 15, u32::MAX] {
            let mut damaged = whole.clone();
            damaged[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(heard(&damaged), Heard::default());
        }
        for position in HEADER_BYTES..whole.len() {
            let mut damaged = whole.clone();
            damaged[position] = 0xff;
            heard(&damaged);
        }
    }
}
