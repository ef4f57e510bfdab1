//! What is not for a service reaches the gateway as if balancer were not there: its own services, ICMP, ARP, and
//! refusals. The kernel forwards nothing meanwhile.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
    thread,
};

use anyhow::{Context, Result, anyhow};
use balancer_tests::{
    gateway::PATIENCE,
    lab::{Host, Topology},
    poll::poll_until,
    site::{Options, Programs, Site, WEB},
};
use etherparse::{
    IcmpEchoHeader, Icmpv4Header, Icmpv4Slice, Icmpv4Type, Icmpv6Header, Icmpv6Slice, Icmpv6Type,
    Ipv4HeaderSlice,
};
use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, SockaddrLike,
        recv, sendto, setsockopt, socket, sockopt,
    },
    time::{TimeVal, TimeValLike},
};

/// Of the gateway's own, as sshd has one.
const OWN_PORT: u16 = 2222;

#[test]
fn the_gateways_own_services_are_reached_on_the_vip_and_beside_it() -> Result<()> {
    for (label, topology) in [("own", Topology::two_armed()), ("own_one", Topology::one_armed())] {
        let site = site(label, &topology)?;
        let lab = site.lab();
        for address in [lab.vip(), lab.gateway().address()] {
            talk(lab.client(), lab.gateway(), (address, OWN_PORT).into())?;
        }
        // The other way round: the gateway as a client of a server that is a backend too.
        talk(lab.gateway(), lab.backend(0), (lab.backend(0).address(), OWN_PORT).into())?;
    }
    Ok(())
}

#[test]
fn a_port_without_a_service_is_refused_by_the_kernel() -> Result<()> {
    let site = site("refuse", &Topology::two_armed())?;
    let lab = site.lab();
    // The service's port on another address, and another port of the service's address.
    for target in [(lab.gateway().address(), WEB.port), (lab.vip(), OWN_PORT)] {
        let target = SocketAddr::from(target);
        let refused = lab.client().enter(|| TcpStream::connect_timeout(&target, PATIENCE))?;
        let kind = refused.map_err(|error| error.kind()).err();
        assert_eq!(kind, Some(io::ErrorKind::ConnectionRefused), "{target}");
    }
    Ok(())
}

#[test]
fn icmp_and_neighbour_discovery_pass() -> Result<()> {
    let site = site("icmp", &Topology::two_armed().dual_stack())?;
    let lab = site.lab();
    for address in [lab.vips(), &lab.gateway().interfaces()[0].addresses].concat() {
        echo(lab.client(), address)?;
    }
    // Everybody forgets everybody, and has to ask again through the program.
    for host in [lab.client(), lab.gateway(), lab.backend(0)] {
        host.run(["ip", "neighbour", "flush", "all"])?;
    }
    lab.vips().iter().try_for_each(|&vip| echo(lab.client(), vip))?;
    lab.gateway().interfaces()[1].addresses.iter().try_for_each(|&address| echo(lab.backend(0), address))?;
    let report = site.load(WEB, &["--connections", "20", "--expect", "server1"])?;
    assert_eq!(report["failed"], 0, "{report}");
    Ok(())
}

#[test]
fn the_kernel_forwards_nothing_while_balancer_does() -> Result<()> {
    let site = site("forward", &Topology::two_armed())?;
    let lab = site.lab();
    let report = site.load(WEB, &["--connections", "20", "--expect", "server1"])?;
    assert_eq!(report["failed"], 0, "{report}");
    assert_eq!(lab.gateway().sysctl("net/ipv4/ip_forward")?, "0");
    assert_eq!(lab.gateway().snmp("Ip", "ForwDatagrams")?, 0);
    Ok(())
}

fn site(label: &str, topology: &Topology) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    Site::start(label, topology, Options::default(), &programs)
}

/// A TCP connection from one host to a listener on another, with a word there and back.
fn talk(from: &Host, listener_on: &Host, address: SocketAddr) -> Result<()> {
    let listener = listener_on.enter(|| TcpListener::bind(address))?.context("listen")?;
    thread::scope(|scope| {
        let answer = scope.spawn(|| echo_once(&listener));
        let heard = from.enter(|| say(address, b"hello"))?;
        if heard.is_err() {
            // Or the other thread would wait for ever.
            drop(listener_on.enter(|| TcpStream::connect(address))?);
        }
        let heard = heard.with_context(|| format!("{} to {address}", from.role()))?;
        assert_eq!(&heard, b"hello");
        answer.join().map_err(|_| anyhow!("the echo panicked"))?.context("echo")
    })
}

fn echo_once(listener: &TcpListener) -> io::Result<()> {
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut word = [0; 5];
    stream.read_exact(&mut word)?;
    stream.write_all(&word)
}

fn say(address: SocketAddr, word: &[u8; 5]) -> io::Result<[u8; 5]> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(word)?;
    let mut heard = [0; 5];
    stream.read_exact(&mut heard)?;
    Ok(heard)
}

/// An ICMP echo request and its answer; asked again, as `ping` does, because the first may wait for ARP.
fn echo(from: &Host, to: IpAddr) -> Result<()> {
    poll_until(PATIENCE, &format!("{to} to answer {}", from.role()), || {
        let tried = from.enter(|| match to {
            IpAddr::V4(to) => echo_v4(to),
            IpAddr::V6(to) => echo_v6(to),
        });
        tried.and_then(|tried| tried).map_err(|error| format!("{error:#}"))
    })
}

const ASKED: IcmpEchoHeader = IcmpEchoHeader { id: 7, seq: 1 };
const PAYLOAD: &[u8] = b"payload";

fn echo_v4(to: Ipv4Addr) -> Result<()> {
    let request = Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(ASKED), PAYLOAD);
    let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
    let socket = ask(AddressFamily::Inet, SockProtocol::Icmp, &to, &request.to_bytes())?;
    hear(&socket, |bytes| {
        let header = Ipv4HeaderSlice::from_slice(bytes)?;
        let message = Icmpv4Slice::from_slice(&bytes[header.slice().len()..])?;
        Ok(message.icmp_type() == Icmpv4Type::EchoReply(ASKED) && message.payload() == PAYLOAD)
    })
}

fn echo_v6(to: Ipv6Addr) -> Result<()> {
    // The kernel writes the checksum, which it needs the source address for.
    let request = Icmpv6Header::new(Icmpv6Type::EchoRequest(ASKED));
    let to = SockaddrIn6::from(SocketAddrV6::new(to, 0, 0, 0));
    let socket = ask(AddressFamily::Inet6, SockProtocol::IcmpV6, &to, &request.to_bytes())?;
    hear(&socket, |bytes| {
        let message = Icmpv6Slice::from_slice(bytes)?;
        Ok(message.icmp_type() == Icmpv6Type::EchoReply(ASKED) && message.payload() == PAYLOAD)
    })
}

fn ask(
    family: AddressFamily,
    protocol: SockProtocol,
    to: &dyn SockaddrLike,
    header: &[u8],
) -> Result<OwnedFd> {
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(1))?;
    let packet = [header, PAYLOAD].concat();
    sendto(socket.as_raw_fd(), &packet, to, MsgFlags::empty()).context("send the echo request")?;
    Ok(socket)
}

/// The socket hears all ICMP of this host: until it is the answer.
fn hear(socket: &OwnedFd, is_answer: impl Fn(&[u8]) -> Result<bool>) -> Result<()> {
    let mut buffer = [0; 1500];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).context("wait for the echo")?;
        if is_answer(&buffer[..length])? {
            return Ok(());
        }
    }
}
