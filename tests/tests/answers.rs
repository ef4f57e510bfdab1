//! What the gateway answers on purpose, seen by real senders: packets at the end of their life, and segments of flows
//! that nobody knows any more.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::AsRawFd,
};

use anyhow::{Context, Result, bail, ensure};
use balancer_tests::{
    capture::IcmpError,
    gateway::PATIENCE,
    lab::Topology,
    site::{Forwarding, Options, PASSWORDS, Pool, Programs, Site, WEB},
    wire::Wire,
};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, setsockopt, socket,
        sockopt,
    },
};

const SIX: Pool = Pool { name: "passwords6", family: 1, ..PASSWORDS };
const DNAT: Pool = Pool { forwarding: Forwarding::Dnat, ..PASSWORDS };

#[test]
fn the_gateway_is_a_hop_that_traceroute_sees() -> Result<()> {
    let options = Options { pools: &[PASSWORDS, SIX], ..Options::default() };
    let site = site("hops", &Topology::two_armed().dual_stack().client_router(), options)?;
    let client = site.lab().client();
    for (family, pool) in [PASSWORDS, SIX].into_iter().enumerate() {
        let service = SocketAddr::new(site.vip(pool), WEB.port);
        let router = site.lab().routers()[0].interfaces()[1].addresses[family];
        // The router, the gateway in the service's name, and the server.
        for (hops, answered_by) in [(1, Some(router)), (2, Some(service.ip())), (3, None)] {
            let (tried, wire) = Wire::watched(&site, || client.enter(|| connect_within(hops, service)))?;
            let errors: Vec<IcmpError> = Wire::errors_at(&wire.clients).into_keys().collect();
            match (answered_by, &errors[..]) {
                (None, []) => tried.with_context(|| format!("{service} in {hops} hops"))?,
                (Some(by), [error]) => {
                    let kind = if family == 0 { (11, 0) } else { (3, 0) };
                    ensure!((error.source, error.kind) == (by, kind), "{hops} hops: {error:?}");
                    ensure!(tried == Err(Errno::EHOSTUNREACH), "{hops} hops: {tried:?}");
                }
                _ => bail!("{service} in {hops} hops: {tried:?}, {errors:?}"),
            }
        }
    }
    let stats = site.gateway.verb(&["stats", "-o", "json"])?.expect(0)?.json()?;
    assert!(stats["answers"]["ttl_expired"].as_u64() >= Some(2), "{stats}");
    Ok(())
}

#[test]
fn connections_of_a_lost_flow_table_are_reset_at_once_and_their_clients_come_back() -> Result<()> {
    for (label, pools) in [("lost", &[PASSWORDS, SIX] as &'static [Pool]), ("lost_dnat", &[DNAT])] {
        let options = Options { pools, ..Options::default() };
        let mut site = site(label, &Topology::two_armed().dual_stack(), options)?;
        let mut kept = Vec::new();
        for &pool in pools {
            let service = SocketAddr::new(site.vip(pool), WEB.port);
            let stream = site.lab().client().enter(|| TcpStream::connect_timeout(&service, PATIENCE))??;
            stream.set_read_timeout(Some(PATIENCE))?;
            kept.push((service, stream));
        }
        site.gateway.wait_until("the flows", |status| {
            pools.iter().all(|pool| status.pool_named(pool.name)["backends"][0]["flows"] == 1)
        })?;
        // Clients are silent meanwhile: nothing is for the kernel to refuse.
        site.gateway.terminate()?;
        site.gateway.verb(&["detach"])?.expect(0)?;
        site.gateway.start(&[])?;
        for (service, mut stream) in kept {
            stream.write_all(b"is anybody there?")?;
            let heard = stream.read(&mut [0; 16]).map_err(|error| error.kind());
            assert_eq!(heard, Err(io::ErrorKind::ConnectionReset), "{label}: {service}");
            let client = site.lab().client();
            let report = site.load_from(client, service, &["--connections", "20", "--expect", "server1"])?;
            assert_eq!(report["failed"], 0, "{label}: {report}");
        }
        let stats = site.gateway.verb(&["stats", "-o", "json"])?.expect(0)?.json()?;
        assert!(stats["answers"]["no_flow"].as_u64() >= Some(pools.len() as u64), "{label}: {stats}");
    }
    Ok(())
}

/// A connection whose packets pass this many hops at most.
fn connect_within(hops: u8, to: SocketAddr) -> Result<(), Errno> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp)?;
    if to.is_ipv4() {
        setsockopt(&socket, sockopt::Ipv4Ttl, &i32::from(hops))?;
    } else {
        setsockopt(&socket, sockopt::Ipv6Ttl, &i32::from(hops))?;
    }
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))
}

fn site(label: &str, topology: &Topology, options: Options) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    Site::start(label, topology, options, &programs)
}
