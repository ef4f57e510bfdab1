//! The watch over the iron rule is not blind: a packet of a service that the gateway's own stack sees fails its test.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    panic::{self, AssertUnwindSafe},
};

use anyhow::{Context, Result};
use balancer_tests::{
    gateway::PATIENCE,
    lab::{Family, Topology},
    poll::poll_until,
    site::{Forwarding, Options, PASSWORDS, Pool, Programs, Site, WEB},
};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, socket,
};

/// One of the default `snat_ports`.
const SNAT_PORT: u16 = 2000;

#[test]
fn a_client_answered_by_the_gateways_own_stack_fails_the_test() -> Result<()> {
    for family in [Family::V4, Family::V6] {
        // Nothing runs: the kernel refuses for the gateway, which is what must never happen under a balancer.
        let site = site("answered", &Topology::two_armed().family(family), Options::default())?;
        let vip = site.lab().vip();
        let knock =
            |port| site.lab().client().enter(|| TcpStream::connect_timeout(&(vip, port).into(), PATIENCE));
        assert_eq!(
            knock(WEB.port)?.map_err(|error| error.kind()).err(),
            Some(io::ErrorKind::ConnectionRefused)
        );
        let seen = site.stack.seen()?;
        let names: Vec<_> = seen.keys().map(String::as_str).collect();
        assert_eq!(names, ["passwords_web_from_client", "passwords_web_to_client"], "{seen:?}");
        fails(site, "passwords_web_to_client")?;
    }
    Ok(())
}

#[test]
fn a_backends_packet_to_a_snat_port_that_reaches_the_stack_fails_the_test() -> Result<()> {
    let site = site("answered_snat", &Topology::two_armed(), Options::default())?;
    let (gateway, backend) = (site.lab().gateway(), site.lab().backend(0));
    let server = SocketAddr::new(backend.address(), WEB.backend_port);
    let _listener = backend.enter(|| TcpListener::bind(server))??;
    // As a probe does: none of the watch's business.
    drop(gateway.enter(|| TcpStream::connect_timeout(&server, PATIENCE))??);
    assert!(site.stack.seen()?.is_empty());
    let own = SocketAddr::new(gateway.interfaces()[1].address(), SNAT_PORT);
    gateway.enter(|| connect_from(own, server))??;
    fails(site, "passwords_web_from_backend")
}

#[test]
fn in_dnat_a_backends_answer_that_reaches_the_stack_fails_the_test() -> Result<()> {
    const DNAT: Pool = Pool { forwarding: Forwarding::Dnat, ..PASSWORDS };
    let options = Options { pools: &[DNAT], ..Options::default() };
    let site = site("answered_dnat", &Topology::two_armed(), options)?;
    let (client, backend) = (site.lab().client(), site.lab().backend(0));
    let own = SocketAddr::new(backend.address(), WEB.backend_port);
    // It gets no farther than the gateway, which drops it silently.
    let target = SocketAddr::new(client.address(), SNAT_PORT);
    backend.enter(|| begin_to_connect(own, target))??;
    poll_until(PATIENCE, "the packet to be counted", || match site.stack.seen() {
        Ok(seen) if seen.contains_key("passwords_web_from_backend") => Ok(()),
        seen => Err(format!("{seen:?}")),
    })?;
    fails(site, "passwords_web_from_backend")
}

/// The end of the site, and so of its test, is a panic that names the counter.
fn fails(site: Site, counter: &str) -> Result<()> {
    let panicked = panic::catch_unwind(AssertUnwindSafe(|| drop(site))).err().context("the test passed")?;
    let message = panicked.downcast::<String>().map_or_else(|_| String::new(), |text| *text);
    assert!(message.contains(counter), "{message:?}");
    Ok(())
}

fn connect_from(own: SocketAddr, to: SocketAddr) -> Result<()> {
    let socket = socket(family(own), SockType::Stream, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(own))?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to)).with_context(|| format!("{own} to {to}"))
}

/// Sends a SYN and waits for nothing.
fn begin_to_connect(own: SocketAddr, to: SocketAddr) -> Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family(own), SockType::Stream, flags, SockProtocol::Tcp)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(own))?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
        Err(nix::errno::Errno::EINPROGRESS) => Ok(()),
        other => other.with_context(|| format!("{own} to {to}")),
    }
}

fn family(address: SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn site(label: &str, topology: &Topology, options: Options) -> Result<Site> {
    Site::prepare(label, topology, options, &Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?)
}
