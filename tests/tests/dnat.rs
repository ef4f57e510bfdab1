//! `forwarding = "dnat"`: servers see the client's own address and port, in both families, and answer by way of the
//! gateway.

use std::{net::SocketAddr, time::SystemTime};

use anyhow::{Context, Result, ensure};
use balancer_tests::{
    lab::Topology,
    site::{Forwarding, Options, PASSWORDS, Pool, Programs, Site, WEB},
    wire::Wire,
};

const FOUR: Pool = Pool { forwarding: Forwarding::Dnat, ..PASSWORDS };
const SIX: Pool = Pool { name: "passwords6", family: 1, ..FOUR };

#[test]
fn a_server_sees_the_clients_own_address_and_port() -> Result<()> {
    let site = site("dnat", &Topology::two_armed().dual_stack())?;
    for pool in [FOUR, SIX] {
        for _ in 0..3 {
            sees_the_client(&site, pool)?;
        }
    }
    Ok(())
}

#[test]
fn connections_are_right_on_the_wire_and_follow_a_failover() -> Result<()> {
    let mut site = site("dnat_wire", &Topology::two_armed().dual_stack())?;
    let ((), wire) = Wire::watched(&site, || {
        load(&site, FOUR, "500", "server1")?;
        load(&site, SIX, "500", "server1")
    })?;
    wire.must_be_clean()?;
    let status = site.gateway.status()?;
    for pool in [FOUR, SIX] {
        let services = status.pool_named(pool.name)["services"].as_array().cloned().unwrap_or_default();
        let web = services.iter().find(|one| one["name"] == "web").context("web")?;
        assert_eq!(web["new_flows"], 500, "{status}");
        wire.must_be_counted(&site, pool, WEB)?;
    }
    let watcher = site.watch(WEB)?;
    watcher.first_answer("server1", SystemTime::UNIX_EPOCH)?;
    let killed = site.kill(0);
    watcher.first_answer("server2", killed)?;
    site.gateway.wait_until("the backup in both", |status| {
        [FOUR, SIX].iter().all(|pool| status.pool_named(pool.name)["active"] == "server2")
    })?;
    load(&site, FOUR, "50", "server2")?;
    load(&site, SIX, "50", "server2")
}

#[test]
fn one_armed_the_gateway_is_the_backends_way_back_to_clients_elsewhere() -> Result<()> {
    let site = site("dnat_one", &Topology::one_armed().dual_stack().client_router())?;
    let ((), wire) = Wire::watched(&site, || {
        for pool in [FOUR, SIX] {
            sees_the_client(&site, pool)?;
            load(&site, pool, "200", "server1")?;
        }
        Ok(())
    })?;
    wire.must_be_clean()
}

fn sees_the_client(site: &Site, pool: Pool) -> Result<()> {
    let target = SocketAddr::new(site.vip(pool), WEB.port);
    let told = site.transfer_to(site.lab().client(), target, &["--down", "100000", "--up", "100000"])?;
    ensure!(told["name"] == "server1" && told["peer"] == told["local"], "{}: {told}", pool.name);
    Ok(())
}

fn load(site: &Site, pool: Pool, connections: &str, expect: &str) -> Result<()> {
    let arguments = ["--connections", connections, "--parallel", "20", "--expect", expect];
    let target = SocketAddr::new(site.vip(pool), WEB.port);
    let report = site.load_from(site.lab().client(), target, &arguments)?;
    ensure!(report["failed"] == 0, "{}: {report}", pool.name);
    Ok(())
}

fn site(label: &str, topology: &Topology) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    let options = Options { pools: &[FOUR, SIX], ..Options::default() };
    Site::start(label, topology, options, &programs)
}
