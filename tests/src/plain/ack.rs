//! The frame that is replayed to count packets: the last bare ACK of a connection that stands, as short as Ethernet
//! allows.
//!
//! Only what forwards packets can be measured with it: a proxy ends the connection, and drops or answers them. 64 bytes
//! are 60 and the checksum of the frame, which software never sees.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, socket},
};

use super::{REQUEST_BYTES, server::ECHO};
use crate::{
    capture::link_address,
    packet::{ETHERNET_BYTES, Ethernet, IPV4, IPV4_BYTES, Mac, PROTOCOL_TCP, Packet, TCP_BYTES, flags},
};

/// Without the checksum of the frame.
pub(super) const FRAME_BYTES: usize = 60;
/// An ACK may be delayed, by 200 ms at most.
const ACK_MAX: Duration = Duration::from_millis(300);
/// For each step of making a connection.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Makes a connection, and a frame of its last bare ACK.
pub(super) fn established(interface: &str, target: SocketAddr) -> Result<(Frame, TcpStream)> {
    let tap = tap(interface)?;
    let mut connection =
        TcpStream::connect_timeout(&target, TIMEOUT).with_context(|| format!("connect to {target}"))?;
    connection.set_read_timeout(Some(TIMEOUT)).context("limit the time of an answer")?;
    connection.write_all(&[ECHO; REQUEST_BYTES]).context("send a request")?;
    connection.read_exact(&mut [0; REQUEST_BYTES]).context("read the answer")?;
    let own = connection.local_addr().context("ask for the connection's own address")?;
    let (mut last, mut buffer) = (None, [0; 2048]);
    let started = Instant::now();
    while started.elapsed() < ACK_MAX {
        match recv(tap.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => last = ack_of(&buffer[..length], own, target).or(last),
            Err(Errno::EAGAIN) => thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(error).context("read from the packet socket"),
        }
    }
    let frame = last.with_context(|| format!("no bare ACK from {own} to {target} was seen"))?;
    Ok((of_64_bytes(frame)?, connection))
}

/// What the host would send had it a connection there, to nobody's hardware address.
pub(super) fn made_up(interface: &str, target: SocketAddr) -> Result<Frame> {
    let source: Mac = link_address(interface)?.addr().context("the interface's hardware address")?;
    let own = SocketAddr::new(IpAddr::from([203, 0, 113, 7]), 40_000);
    let ethernet = Ethernet { destination: [2, 0, 0, 0, 0, 1], source, ..Ethernet::default() };
    of_64_bytes(Packet::new(own, target).ack().with(|packet| packet.ethernet = ethernet))
}

/// All of it but its checksum.
pub(super) type Frame = [u8; FRAME_BYTES];

/// A packet socket that sees all that passes the interface, also what is sent.
fn tap(interface: &str) -> Result<OwnedFd> {
    let address = link_address(interface)?;
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
        .context("open a packet socket (needs CAP_NET_RAW)")?;
    bind(socket.as_raw_fd(), &address).with_context(|| format!("bind to {interface}"))?;
    Ok(socket)
}

/// With padding to the shortest frame that there is.
fn of_64_bytes(packet: Packet) -> Result<Frame> {
    let padding = vec![0; FRAME_BYTES - ETHERNET_BYTES - IPV4_BYTES - TCP_BYTES];
    let frame = packet.with(|packet| packet.ethernet.padding = padding).to_frame();
    frame.try_into().ok().context("a bare ACK without options fits a frame of 64 bytes")
}

/// The same segment without options, if the frame is a bare ACK of this connection.
fn ack_of(frame: &[u8], own: SocketAddr, target: SocketAddr) -> Option<Packet> {
    let (ip, tcp) = (frame.get(ETHERNET_BYTES..)?, frame.get(ETHERNET_BYTES + IPV4_BYTES..)?);
    let word = |bytes: &[u8], at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let long = |at: usize| Some(u32::from(word(tcp, at)?) << 16 | u32::from(word(tcp, at + 2)?));
    let header_bytes = IPV4_BYTES + usize::from(tcp.get(12)? >> 4) * 4;
    let is_of_it = word(frame, 12)? == IPV4
        && (ip[0], *ip.get(9)?) == (0x45, PROTOCOL_TCP)
        && (word(tcp, 0)?, word(tcp, 2)?) == (own.port(), target.port());
    let is_bare = *tcp.get(13)? == flags::ACK && usize::from(word(ip, 2)?) == header_bytes;
    if !is_of_it || !is_bare {
        return None;
    }
    let mac = |at: usize| frame.get(at..at + 6)?.try_into().ok();
    let ethernet = Ethernet { destination: mac(0)?, source: mac(6)?, ..Ethernet::default() };
    let ack = Packet::new(own, target).ack().seq(long(4)?).acks(long(8)?);
    Some(ack.with(|packet| packet.ethernet = ethernet))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bare_ack_of_the_connection_is_taken() {
        let (own, target) = ("203.0.113.7:40000".parse().unwrap(), "203.0.113.10:8001".parse().unwrap());
        let ack = Packet::new(own, target).ack().seq(7).acks(0x0102_0304);
        let with_options = ack.clone().with(|packet| packet.options = vec![1; 12]);
        let taken = ack_of(&with_options.to_frame(), own, target).unwrap();
        assert_eq!(of_64_bytes(taken).unwrap()[..54], ack.to_frame());
        for other in [ack.clone().payload(b"data"), ack.clone().fin(), Packet::new(target, own).ack()] {
            assert_eq!(ack_of(&other.to_frame(), own, target), None, "{other:?}");
        }
        let frame = ack.to_frame();
        for length in 0..ETHERNET_BYTES + IPV4_BYTES + 14 {
            assert_eq!(ack_of(&frame[..length], own, target), None, "{length}");
        }
    }
}
