//! What is not for a service reaches the gateway as if balancer were not there: its own services, ICMP, ARP, and
//! refusals. The kernel forwards nothing meanwhile.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::AsRawFd,
    thread,
};

use anyhow::{Context, Result, anyhow};
use balancer_tests::{
    gateway::PATIENCE,
    lab::{Host, Topology},
    poll::poll_until,
    site::{Options, Programs, Site, WEB},
};
use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Slice, Icmpv4Type, Ipv4HeaderSlice};
use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, setsockopt,
        socket, sockopt,
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
fn icmp_and_arp_pass() -> Result<()> {
    let site = site("icmp", &Topology::two_armed())?;
    let lab = site.lab();
    for address in [lab.vip(), lab.gateway().address()] {
        echo(lab.client(), address)?;
    }
    // Everybody forgets everybody, and has to ask again through the program.
    for host in [lab.client(), lab.gateway(), lab.backend(0)] {
        host.run(["ip", "neighbour", "flush", "all"])?;
    }
    echo(lab.client(), lab.vip())?;
    echo(lab.backend(0), lab.gateway().interfaces()[1].address)?;
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
fn echo(from: &Host, to: Ipv4Addr) -> Result<()> {
    poll_until(PATIENCE, &format!("{to} to answer {}", from.role()), || {
        from.enter(|| echo_tried(to)).and_then(|tried| tried).map_err(|error| format!("{error:#}"))
    })
}

fn echo_tried(to: Ipv4Addr) -> Result<()> {
    let asked = IcmpEchoHeader { id: 7, seq: 1 };
    let socket = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(1))?;
    let request = Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(asked), b"payload");
    let packet = [request.to_bytes().as_slice(), b"payload"].concat();
    let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
    sendto(socket.as_raw_fd(), &packet, &to, MsgFlags::empty()).context("send the echo request")?;
    let mut buffer = [0; 1500];
    // The socket hears all ICMP of this host.
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).context("wait for the echo")?;
        let header = Ipv4HeaderSlice::from_slice(&buffer[..length])?;
        let message = Icmpv4Slice::from_slice(&buffer[header.slice().len()..length])?;
        if message.icmp_type() == Icmpv4Type::EchoReply(asked) && message.payload() == b"payload" {
            return Ok(());
        }
    }
}
