//! Clients and servers in unusual places, and many of them: beside each other, on three arms, in several pools, behind
//! several SNAT addresses.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context, Result, ensure};
use balancer_tests::{
    capture::Direction,
    gateway::PATIENCE,
    lab::{Host, Topology},
    site::{API, Options, PASSWORDS, POOL, Pool, Programs, Service, Site, WEB},
    wire::Wire,
};

const SIX: Pool = Pool { name: "passwords6", family: 1, ..PASSWORDS };

#[test]
fn a_backend_and_its_neighbour_are_clients_like_any_other() -> Result<()> {
    let options = Options { pools: &[PASSWORDS, SIX], ..Options::default() };
    let site = site("hairpin", &Topology::two_armed().dual_stack().lan_clients(1), options)?;
    let lab = site.lab();
    let ((), wire) = Wire::watched(&site, || {
        for pool in [PASSWORDS, SIX] {
            // The active backend reaches itself by way of the gateway, the backup the active one.
            for client in [lab.backend(0), lab.backend(1), &lab.clients()[1], lab.client()] {
                load(&site, client, pool, WEB, "server1")?;
            }
        }
        Ok(())
    })?;
    wire.must_be_clean()?;
    let status = site.gateway.status()?;
    for pool in [PASSWORDS, SIX] {
        assert_eq!(status.pool_named(pool.name)["services"][0]["new_flows"], 4 * 50, "{status}");
    }
    Ok(())
}

#[test]
fn pools_and_services_side_by_side_do_not_touch_each_other() -> Result<()> {
    const SMTPS: Service = Service { name: "smtps", port: 465, backend_port: 10465 };
    const IMAPS: Service = Service { name: "imaps", port: 993, backend_port: 10993 };
    const POP3S: Service = Service { name: "pop3s", port: 995, backend_port: 10995 };
    const MAIL: Pool = Pool { name: "mail", services: &[SMTPS, IMAPS, POP3S], servers: &[2, 3], ..PASSWORDS };
    let options = Options { pools: &[PASSWORDS, MAIL], ..Options::default() };
    let mut site = site("pools", &Topology::two_armed().backends(4), options)?;
    let all = |site: &Site, passwords, mail| {
        let client = site.lab().client();
        [WEB, API].iter().try_for_each(|&service| load(site, client, PASSWORDS, service, passwords))?;
        MAIL.services.iter().try_for_each(|&service| load(site, client, MAIL, service, mail))
    };
    all(&site, "server1", "server3")?;
    site.kill_one(2, IMAPS);
    site.gateway
        .wait_until("the mail's backup", |status| status.pool_named("mail")["active"] == "server4")?;
    all(&site, "server1", "server4")?;
    let status = site.gateway.verb(&["failover", POOL])?.expect(0).and_then(|_| site.gateway.status())?;
    assert_eq!(status.pool_named("mail")["active"], "server4", "{status}");
    all(&site, "server2", "server4")?;
    let status = site.gateway.status()?;
    let services = |name: &str| status.pool_named(name)["services"].as_array().cloned().unwrap_or_default();
    let services = [services(POOL), services("mail")].concat();
    assert_eq!(services.len(), 5, "{status}");
    assert!(services.iter().all(|service| service["new_flows"] == 3 * 50), "{status}");
    Ok(())
}

#[test]
fn every_arm_is_served_with_its_own_source_address() -> Result<()> {
    let options = Options { pools: &[PASSWORDS, SIX], ..Options::default() };
    let site = site("arms", &Topology::three_armed().dual_stack().lan_clients(1), options)?;
    let lab = site.lab();
    for (pool, family) in [(PASSWORDS, 0), (SIX, 1)] {
        // server1 is on lan0, server2 on lan1.
        for (server, arm) in [("server1", 1), ("server2", 2)] {
            let source = lab.gateway().interfaces()[arm].addresses[family];
            for client in lab.clients() {
                let target = SocketAddr::new(site.vip(pool), WEB.port);
                let told = site.transfer_to(client, target, &["--up", "100000", "--down", "100000"])?;
                let peer: SocketAddr = told["peer"].as_str().context("a peer")?.parse()?;
                assert_eq!((&told["name"], peer.ip()), (&server.into(), source), "{told}");
                load(&site, client, pool, WEB, server)?;
            }
            site.gateway.verb(&["failover", pool.name])?.expect(0)?;
        }
    }
    Ok(())
}

#[test]
fn another_snat_address_is_used_when_the_ports_of_one_are_taken() -> Result<()> {
    const OPEN: usize = 40;
    let options = Options { pools: &[PASSWORDS, SIX], ..Options::default() };
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    let topology = Topology::two_armed().dual_stack().snat_addresses(3);
    let mut site = Site::prepare("sources", &topology, options, &programs)?;
    // Sixty pairs of address and port for each backend and port of it.
    let few = "snat_ports = \"2000-2019\"\nsnat_addresses = ";
    site.gateway.configure(&site.configuration(options).replace("snat_addresses = ", few))?;
    (0..2).try_for_each(|server| site.serve(server))?;
    site.gateway.start(&[])?;
    for pool in [PASSWORDS, SIX] {
        let vip = site.vip(pool);
        let target = SocketAddr::new(vip, WEB.port);
        let connect = || TcpStream::connect_timeout(&target, PATIENCE);
        let (open, wire) = Wire::watched(&site, || {
            let connected = (0..OPEN).map(|_| Ok(site.lab().client().enter(connect)??));
            connected.collect::<Result<Vec<_>>>()
        })?;
        wire.must_be_clean()?;
        let from_gateway = wire.servers[0].syns.keys().filter(|path| path.direction == Direction::In);
        let sources: Vec<_> = from_gateway
            .map(|path| path.source)
            .filter(|source| source.is_ipv4() == vip.is_ipv4() && (2000..2020).contains(&source.port()))
            .collect();
        assert_eq!(sources.len(), OPEN, "each has a pair of its own: {sources:?}");
        let addresses: BTreeSet<_> = sources.iter().map(SocketAddr::ip).collect();
        let are_given = addresses.iter().all(|address| site.lab().snat_addresses().contains(address));
        assert!(are_given && addresses.len() > 1, "{addresses:?}");
        drop(open);
    }
    Ok(())
}

fn load(site: &Site, client: &Host, pool: Pool, service: Service, expect: &str) -> Result<()> {
    let target = SocketAddr::new(site.vip(pool), service.port);
    let arguments = ["--connections", "50", "--parallel", "10", "--expect", expect];
    let report = site.load_from(client, target, &arguments)?;
    ensure!(report["failed"] == 0, "{} on {}: {report}", client.role(), pool.name);
    Ok(())
}

fn site(label: &str, topology: &Topology, options: Options) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    Site::start(label, topology, options, &programs)
}
