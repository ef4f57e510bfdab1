//! The watcher of checksums is not blind: what is wrong on the wire is reported, with the direction it took.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    os::fd::AsRawFd,
    time::Duration,
};

use anyhow::{Context, Result};
use balancer_tests::{
    capture::{Capture, Direction, Path},
    lab::{Lab, Topology},
    poll::poll_until,
};
use etherparse::PacketBuilder;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// Where in an IPv4 packet without options the TCP checksum is.
const TCP_CHECKSUM: usize = 20 + 16;

#[test]
fn one_wrong_bit_in_a_checksum_is_seen_by_sender_and_receiver() {
    let lab = Lab::new("bad", &Topology::one_armed()).unwrap();
    let (client, backend) = (lab.client(), lab.backend(0));
    let at_client = Capture::start(client, "eth0").unwrap();
    let at_backend = Capture::start(backend, "eth0").unwrap();

    let [from, to] = [client, backend].map(|host| v4(host.address()));
    let mut packet = syn(from, to).unwrap();
    packet[TCP_CHECKSUM] ^= 1;
    client.enter(|| send_as_is(&packet, to)).unwrap().unwrap();
    poll_until(PATIENCE, "the backend's stack to refuse the segment", || {
        match backend.snmp("Tcp", "InCsumErrors").unwrap() {
            1 => Ok(()),
            errors => Err(errors),
        }
    })
    .unwrap();

    for (capture, direction) in [(at_client, "Out: TCP checksum"), (at_backend, "In: TCP checksum")] {
        let report = capture.stop().unwrap();
        assert_eq!(report.bad, 1, "{report:?}");
        assert!(report.bad_checksums[0].starts_with(direction), "{report:?}");
    }
}

#[test]
fn a_refusal_is_a_syn_out_and_a_reset_in() {
    let lab = Lab::new("reset", &Topology::one_armed()).unwrap();
    let (client, backend) = (lab.client(), SocketAddr::new(lab.backend(0).address(), 9));
    let capture = Capture::start(client, "eth0").unwrap();
    let refused = client.enter(|| TcpStream::connect_timeout(&backend, PATIENCE)).unwrap().unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

    let report = capture.stop().unwrap();
    let syns: Vec<&Path> = report.syns.keys().collect();
    let [syn] = syns[..] else { panic!("{report:?}") };
    assert_eq!((syn.direction, syn.destination), (Direction::Out, backend));
    let reset = Path { direction: Direction::In, source: backend, destination: syn.source };
    assert_eq!(report.rsts.get(&reset), Some(&1), "{report:?}");
    assert_eq!((report.rsts.len(), report.bad, report.not_ready), (1, 0, 0), "{report:?}");
}

#[test]
fn an_interface_that_is_not_there_is_an_error() {
    let lab = Lab::new("none", &Topology::one_armed()).unwrap();
    let error = format!("{:#}", Capture::start(lab.client(), "wan7").unwrap_err());
    assert!(error.contains("there is no interface wan7"), "{error}");
}

fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => panic!("{address} in a lab of IPv4"),
    }
}

fn syn(from: Ipv4Addr, to: Ipv4Addr) -> Result<Vec<u8>> {
    let builder = PacketBuilder::ipv4(from.octets(), to.octets(), 64).tcp(40000, 443, 7, 1024).syn();
    let mut packet = Vec::with_capacity(builder.size(0));
    builder.write(&mut packet, &[]).context("build a packet")?;
    Ok(packet)
}

/// Sends an IPv4 packet whose TCP part the kernel leaves alone.
fn send_as_is(packet: &[u8], to: Ipv4Addr) -> Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
    let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
    sendto(socket.as_raw_fd(), packet, &to, MsgFlags::empty()).map(drop).context("send a raw packet")
}
