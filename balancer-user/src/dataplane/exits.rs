//! What it takes to send frames of our own: the interfaces, a backend's next hop, and a socket.
//!
//! A copy of what the tables say at one moment, for who works beside the loop that keeps them. The frames leave through
//! `AF_PACKET`, whole and as they are: past the kernel's own stack, which knows of none of the connections.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread::sleep;
use std::time::Duration;

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
    /// For how long it may still wait for queues that are full, all frames together.
    patience: Duration,
}

/// An interface, with a socket of its own: a slow one holds up nobody else's frames.
struct Link {
    address: LinkAddr,
    socket: Option<OwnedFd>,
    /// Since a frame last went.
    waited: Duration,
}

/// Who waits for the end of a cut gives up after ten seconds.
const PATIENCE: Duration = Duration::from_secs(6);
/// A queue from which nothing goes for so long belongs to no link that works.
const STILL: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(1);

impl FrameSocket {
    /// For interfaces of this thread's network. Needs CAP_NET_RAW.
    pub(super) fn open() -> Result<Self, DataplaneError> {
        let links = getifaddrs().map_err(failed("listing interfaces"))?;
        let links = links.filter_map(|entry| entry.address?.as_link_addr().copied());
        // Listed with protocol 0: the kernel takes that of the frame.
        let link = |address| Link { address, socket: None, waited: Duration::ZERO };
        let links = links.map(|address| (address.ifindex() as u32, link(address))).collect();
        Ok(Self { links, patience: PATIENCE })
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
                Err(Errno::EAGAIN | Errno::ENOBUFS) if *waited < STILL && self.patience > Duration::ZERO => {
                    *waited += PAUSE;
                    self.patience = self.patience.saturating_sub(PAUSE);
                    sleep(PAUSE);
                }
                Err(error) => return Err(failed("sending a frame")(error)),
            }
        }
    }
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
