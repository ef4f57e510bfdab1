//! What it takes to send frames of our own: the interfaces, a backend's next hop, and a socket.
//!
//! A copy of what the tables say at one moment, for who works beside the loop that keeps them. The frames leave through
//! `AF_PACKET`, whole and as they are: past the kernel's own stack, which knows of none of the connections.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use balancer_common::abi::{Interface, NextHop};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket};

use super::DataplaneError;

/// What a frame leaves by.
#[derive(Clone, Debug)]
pub struct Exits {
    /// By slot; those without an index are nobody's.
    pub(super) interfaces: Vec<Interface>,
    /// The way to the backend that is asked about; interface 0: there is none.
    pub(super) backend: NextHop,
}

impl Exits {
    /// The interface in this slot, if there is one.
    pub(super) fn interface(&self, slot: u16) -> Option<&Interface> {
        self.interfaces.get(usize::from(slot)).filter(|interface| interface.ifindex != 0)
    }
}

/// Sends frames.
pub(super) struct FrameSocket {
    links: BTreeMap<u32, Link>,
    /// Until then it waits for queues that are full.
    until: Instant,
}

/// An interface, with a socket of its own: what waits for a slow one takes no room from the frames of others.
struct Link {
    address: LinkAddr,
    socket: Option<OwnedFd>,
    /// Since a frame last went.
    waited: Duration,
}

/// For all frames of a cut, whoever's flows it ends: who waits for its end gives up after ten seconds.
const PATIENCE: Duration = Duration::from_secs(6);
/// A queue from which nothing goes for so long belongs to no link that works.
const STILL: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(1);

impl FrameSocket {
    /// For interfaces of this thread's network. Needs CAP_NET_RAW. `until`: of [`patience`].
    pub(super) fn open(until: Instant) -> Result<Self, DataplaneError> {
        let links = getifaddrs().map_err(failed("listing interfaces"))?;
        let links = links.filter_map(|entry| entry.address?.as_link_addr().copied());
        // Listed with protocol 0: the kernel takes that of the frame.
        let link = |address| Link { address, socket: None, waited: Duration::ZERO };
        let links = links.map(|address| (address.ifindex() as u32, link(address))).collect();
        Ok(Self { links, until })
    }

    pub(super) fn send(&mut self, ifindex: u32, frame: &[u8]) -> Result<(), DataplaneError> {
        let link = self.links.get_mut(&ifindex);
        let Link { address, socket, waited } =
            link.ok_or(DataplaneError::NoInterface(format!("number {ifindex}")))?;
        let socket = match socket {
            Some(socket) => socket,
            None => socket.insert(packet_socket()?),
        };
        loop {
            match sendto(socket.as_raw_fd(), frame, address, MsgFlags::MSG_DONTWAIT) {
                Ok(_) => {
                    *waited = Duration::ZERO;
                    return Ok(());
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN | Errno::ENOBUFS) if *waited < STILL && Instant::now() < self.until => {
                    *waited += PAUSE;
                    sleep(PAUSE);
                }
                Err(error) => return Err(failed("sending a frame")(error)),
            }
        }
    }
}

/// Until when what begins now may wait for queues.
pub(super) fn patience() -> Instant {
    Instant::now() + PATIENCE
}

/// A packet socket that receives nothing.
pub(super) fn packet_socket() -> Result<OwnedFd, DataplaneError> {
    socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).map_err(|error| match error {
        Errno::EPERM | Errno::EACCES => DataplaneError::MissingCapabilities { missing: "CAP_NET_RAW".into() },
        error => failed("opening a packet socket")(error),
    })
}

fn failed(what: &'static str) -> impl FnOnce(Errno) -> DataplaneError {
    move |error| DataplaneError::Io { what: what.into(), source: error.into() }
}
