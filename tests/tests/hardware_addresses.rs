//! Hardware addresses change under living connections: a client's is relearned from its packets, a backend's is
//! followed by the controller.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use balancer_tests::{
    gateway::PATIENCE,
    lab::{Host, Topology},
    site::{Forwarding, Options, PASSWORDS, Pool, Programs, Site, WEB},
};

const SIX: Pool = Pool { name: "passwords6", family: 1, ..PASSWORDS };
const DNAT: Pool = Pool { forwarding: Forwarding::Dnat, ..PASSWORDS };

/// Locally administered, and nobody's else.
const OTHER_MAC: &str = "02:00:00:00:77:01";

#[test]
fn a_client_with_another_hardware_address_is_relearned_from_its_own_packets() -> Result<()> {
    for (label, pools) in [("client_mac", &[PASSWORDS, SIX] as &'static [Pool]), ("client_mac_dnat", &[DNAT])]
    {
        let options = Options { pools, ..Options::default() };
        let site = site(label, &Topology::two_armed().dual_stack(), options)?;
        let client = site.lab().client();
        let kept = pools.iter().map(|&pool| connect(&site, pool)).collect::<Result<Vec<_>>>()?;
        client.change_mac("eth0", OTHER_MAC)?;
        for (mut stream, pool) in kept.into_iter().zip(pools) {
            is_answered(&mut stream).with_context(|| format!("{label}: {}", pool.name))?;
            new_connections(&site, client, *pool)?;
        }
    }
    Ok(())
}

#[test]
fn a_backend_with_another_hardware_address_is_followed_and_its_connections_live() -> Result<()> {
    let options = Options { pools: &[PASSWORDS, SIX], ..Options::default() };
    let site = site("backend_mac", &Topology::two_armed().dual_stack(), options)?;
    let kept = [PASSWORDS, SIX].map(|pool| connect(&site, pool));
    site.lab().backend(0).change_mac("eth0", OTHER_MAC)?;
    for (stream, pool) in kept.into_iter().zip([PASSWORDS, SIX]) {
        // What was sent to the old address meanwhile is sent again.
        is_answered(&mut stream?).context(pool.name)?;
        new_connections(&site, site.lab().client(), pool)?;
    }
    assert_eq!(site.gateway.logged("transition").len(), 2, "nobody failed over");
    Ok(())
}

#[test]
fn a_backend_that_moves_without_a_word_is_found_within_two_seconds() -> Result<()> {
    let options = Options { max_fails: 0, pools: &[PASSWORDS, SIX], ..Options::default() };
    let site = site("silently", &Topology::two_armed().dual_stack(), options)?;
    let mut held =
        [PASSWORDS, SIX].map(|pool| site.hold(pool, WEB)).into_iter().collect::<Result<Vec<_>>>()?;
    let clients = site.watch_as(WEB, &["--interval", "20ms", "--timeout", "500ms"])?;
    let backend = site.lab().backend(0);
    for setting in ["ipv4/conf/eth0/arp_notify", "ipv6/conf/eth0/ndisc_notify"] {
        backend.set_sysctl(&format!("net/{setting}"), "0")?;
    }
    backend.run(["ip", "link", "set", "eth0", "address", OTHER_MAC])?;
    let took = clients.first_answer("server1", SystemTime::now())?;
    ensure!(took < Duration::from_secs(2), "it took {took:?}");
    for held in &mut held {
        assert_eq!(held.ask()?, "server1");
    }
    new_connections(&site, site.lab().client(), SIX)
}

/// A connection that has said nothing yet.
fn connect(site: &Site, pool: Pool) -> Result<TcpStream> {
    let service = SocketAddr::new(site.vip(pool), WEB.port);
    let stream = site.lab().client().enter(|| TcpStream::connect_timeout(&service, PATIENCE))??;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The server waits for a TLS handshake and answers anything else with an alert.
fn is_answered(stream: &mut TcpStream) -> Result<()> {
    const TLS_ALERT: u8 = 21;
    stream.write_all(b"no TLS at all\r\n")?;
    let mut answer = [0];
    stream.read_exact(&mut answer).context("wait for the alert")?;
    ensure!(answer == [TLS_ALERT], "{answer:?}");
    Ok(())
}

fn new_connections(site: &Site, client: &Host, pool: Pool) -> Result<()> {
    let target = SocketAddr::new(site.vip(pool), WEB.port);
    let report = site.load_from(client, target, &["--connections", "20", "--expect", "server1"])?;
    ensure!(report["failed"] == 0, "{}: {report}", pool.name);
    Ok(())
}

fn site(label: &str, topology: &Topology, options: Options) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    Site::start(label, topology, options, &programs)
}
