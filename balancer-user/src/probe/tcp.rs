//! The TCP side of a probe: one connection, opened and left again without litter.
//!
//! How a probe leaves is decided here. A server that was probed well must not see an error: resets right after a
//! handshake fill the logs of many servers. The gateway must not collect sockets: thousands of probes a minute with a
//! FIN from our side would each leave a TIME_WAIT, and those against a host gone silent each an orphan that retransmits
//! for minutes. So:
//! - every probe socket has `SO_LINGER` 0 from the start: a probe that fails, times out or is cancelled cuts the
//!   connection with a RST and leaves nothing here, and nothing half-open on the backend;
//! - after a good TLS handshake we say close_notify, in a request `Connection: close`, and let the server close first
//!   ([`drained`]): the TIME_WAIT is then the server's, as with any client of it;
//! - after a good `tcp` probe we send FIN first, because a server that waits for us to speak would never close by
//!   itself; this leaves one TIME_WAIT of 60 s here per probe (30 at the default interval, some 250 bytes each, in the
//!   kernel's ephemeral ports, which flows never use);
//! - a server that hasn't closed when the goodbye's time is over gets the RST.
//!
//! Deliberately not here: anything of TLS or HTTP.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::failure::Failure;
use super::mishap::{Mishap, Step};
use super::ports::LocalPorts;

/// How long the goodbye may take: many round trips of a LAN, a few of a WAN, and short enough not to matter beside an
/// interval.
const GOODBYE: Duration = Duration::from_millis(250);

/// How many ports are tried before there is none: of those that there are a few are in use.
const PORT_TRIES: u32 = 16;

/// How much a server may still send us during the goodbye: session tickets, a banner, the answer to nothing.
const GOODBYE_BYTES: u64 = 64 * 1024;

/// Opens the connection that is to be probed.
pub(super) async fn connect(
    target: SocketAddr,
    deadline: Instant,
    ports: &LocalPorts,
) -> Result<TcpStream, Mishap> {
    let mut socket = if ports.are_chosen() { chosen(target, ports)? } else { socket(target)? };
    begin(&socket, target)?;
    if !ports.are_chosen() && own_port(&socket).is_some_and(|port| ports.is_wrong(port)) {
        // What answers that SYN, nobody hears.
        socket = chosen(target, ports)?;
        begin(&socket, target)?;
    }
    let stream = TcpStream::from_std(socket.into()).map_err(Mishap::Local)?;
    match timeout_at(deadline, connected(&stream)).await {
        Ok(Ok(())) => Ok(stream),
        Ok(Err(error)) => Err(Mishap::from_io(&error, Step::Connect)),
        Err(_) => Err(Mishap::Backend(Failure::ConnectTimeout)),
    }
}

/// Sends the SYN.
fn begin(socket: &OwnedFd, target: SocketAddr) -> Result<(), Mishap> {
    match rustix::net::connect(socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(()),
        Err(errno) => Err(Mishap::from_io(&errno.into(), Step::Connect)),
    }
}

/// The port that the kernel has given.
fn own_port(socket: &OwnedFd) -> Option<u16> {
    let own = getsockname(socket).and_then(SocketAddr::try_from).ok()?;
    Some(own.port())
}

/// A socket with a port that is chosen here.
fn chosen(target: SocketAddr, ports: &LocalPorts) -> Result<OwnedFd, Mishap> {
    let anywhere: IpAddr =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    for _ in 0..PORT_TRIES {
        let mut by_chance = [0; 4];
        getrandom(&mut by_chance, GetRandomFlags::empty()).map_err(local)?;
        let Some(port) = ports.chosen(u32::from_ne_bytes(by_chance)) else { break };
        let socket = socket(target)?;
        match bind(&socket, &SocketAddr::new(anywhere, port)) {
            Ok(()) => return Ok(socket),
            Err(Errno::ADDRINUSE) => {}
            Err(errno) => return Err(local(errno)),
        }
    }
    let problem = "the kernel's own ports are snat_ports now, and no other one is free: `balancer reload` leaves them out of \
                   snat_ports";
    Err(Mishap::Local(io::Error::other(problem)))
}

/// No packet has left when something fails here, so it is never the backend's fault.
fn socket(target: SocketAddr) -> Result<OwnedFd, Mishap> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None).map_err(local)?;
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).map_err(local)?;
    // close_notify follows our last handshake message at once; Nagle's algorithm would hold it for a round trip.
    sockopt::set_tcp_nodelay(&socket, true).map_err(local)?;
    Ok(socket)
}

fn local(errno: Errno) -> Mishap {
    Mishap::Local(errno.into())
}

/// Until a connection attempt has ended.
async fn connected(stream: &TcpStream) -> io::Result<()> {
    stream.writable().await?;
    stream.take_error()?.map_or(Ok(()), Err)
}

/// Until when a goodbye may last that begins now.
pub(super) fn goodbye_ends(deadline: Instant) -> Instant {
    deadline.min(Instant::now() + GOODBYE)
}

/// Reads what the server still has to say, until it has closed. `Ok(false)`: it said too much, or had no end in time.
pub(super) async fn drained(stream: &mut (impl AsyncRead + Unpin), until: Instant) -> io::Result<bool> {
    let mut rest = stream.take(GOODBYE_BYTES);
    match timeout_at(until, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await {
        Ok(copied) => Ok(copied? < GOODBYE_BYTES),
        Err(_) => Ok(false),
    }
}

/// Ends a good `tcp` probe.
pub(super) async fn finish(mut stream: TcpStream, deadline: Instant) {
    // An error means that the server was faster, with a RST: nothing is left to be said.
    if stream.shutdown().await.is_ok() {
        await_close(stream, goodbye_ends(deadline)).await;
    }
}

/// Waits for the server's FIN and closes in order; without one the drop of the stream resets.
pub(super) async fn await_close(mut stream: TcpStream, until: Instant) {
    if let Ok(true) = drained(&mut stream, until).await {
        // Fails on a socket that is gone already, which is what we want.
        let _ = sockopt::set_socket_linger(&stream, None);
    }
}
