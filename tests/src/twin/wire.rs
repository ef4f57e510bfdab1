//! One end of a cable, as a packet socket: any bytes out, every frame in.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
            sockopt,
        },
        time::{TimeVal, TimeValLike},
    },
};

use crate::lab::Host;

/// Longest frame of these cables, with room to see one that is too long.
const FRAME_MAX: usize = 2048;
/// How long one look for a frame takes at most.
const LOOK: Duration = Duration::from_millis(50);

mod packet_socket {
    //! An option of packet sockets that nix doesn't have.

    #[derive(Debug, Clone, Copy)]
    pub(super) struct IgnoreOutgoing;
    nix::setsockopt_impl!(
        IgnoreOutgoing,
        libc::SOL_PACKET,
        libc::PACKET_IGNORE_OUTGOING,
        bool,
        nix::sys::socket::sockopt::SetBool
    );
}

/// The only voice and ear of a host without addresses.
#[derive(Debug)]
pub struct Wire(OwnedFd);

impl Wire {
    /// On this interface of this host.
    ///
    /// # Errors
    /// When there is no such interface, or without CAP_NET_RAW.
    pub fn open(host: &Host, interface: &str) -> Result<Self> {
        let socket = host.enter(|| open(interface))?;
        Ok(Self(socket.with_context(|| format!("on {interface} of {}", host.role()))?))
    }

    /// Sends a frame as it is.
    ///
    /// # Errors
    /// When it doesn't leave.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = send(self.0.as_raw_fd(), frame, MsgFlags::empty()).context("send a frame")?;
        ensure!(sent == frame.len(), "{sent} of {} bytes were sent", frame.len());
        Ok(())
    }

    /// The next frame; `None` when there is none before the deadline. One that is there already is found in any case.
    ///
    /// # Errors
    /// When the socket can't be read.
    pub fn next(&self, deadline: Instant) -> Result<Option<Vec<u8>>> {
        loop {
            let flags = if Instant::now() < deadline { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
            match self.receive(flags)? {
                Some(frame) if is_noise(&frame) => {}
                Some(frame) => return Ok(Some(frame)),
                None if flags == MsgFlags::MSG_DONTWAIT => return Ok(None),
                None => {}
            }
        }
    }

    fn receive(&self, flags: MsgFlags) -> Result<Option<Vec<u8>>> {
        let mut frame = vec![0; FRAME_MAX];
        match recv(self.0.as_raw_fd(), &mut frame, flags) {
            Ok(length) => {
                frame.truncate(length);
                Ok(Some(frame))
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(error) => Err(error).context("read from the packet socket"),
        }
    }
}

/// A socket stays in the network in which it was opened, whichever thread reads it.
fn open(interface: &str) -> Result<OwnedFd> {
    let address = getifaddrs()
        .context("list interfaces")?
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| entry.address?.as_link_addr().copied())
        .with_context(|| format!("there is no interface {interface}"))?;
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
        .context("open a packet socket (needs CAP_NET_RAW)")?;
    setsockopt(&socket, packet_socket::IgnoreOutgoing, &true).context("ignore what is sent")?;
    let look_ms = i64::try_from(LOOK.as_millis()).context("milliseconds of a look")?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(look_ms))
        .context("set the timeout")?;
    // Interfaces are listed with protocol 0: binding then keeps the socket's own, all of them.
    bind(socket.as_raw_fd(), &address).with_context(|| format!("bind to {interface}"))?;
    Ok(socket)
}

/// What a gateway says of its own accord, at any time: ARP, and IPv6's neighbours, routers and group memberships.
fn is_noise(frame: &[u8]) -> bool {
    const ARP: [u8; 2] = [0x08, 0x06];
    const IPV6: [u8; 2] = [0x86, 0xdd];
    const HOP_BY_HOP: u8 = 0;
    const ICMPV6: u8 = 58;
    // Types 130 to 143: group membership, router and neighbour discovery.
    let is_housekeeping = |kind: &u8| (130..=143).contains(kind);
    match frame.get(12..14) {
        Some(ether_type) if ether_type == ARP => true,
        Some(ether_type) if ether_type == IPV6 => match frame.get(20) {
            Some(&ICMPV6) => frame.get(54).is_some_and(is_housekeeping),
            // Memberships carry a router alert of eight bytes.
            Some(&HOP_BY_HOP) => frame.get(54) == Some(&ICMPV6) && frame.get(62).is_some_and(is_housekeeping),
            _ => false,
        },
        _ => false,
    }
}
