//! IPv6, alone and beside IPv4: the same product, packet for packet.

use std::{net::SocketAddr, time::SystemTime};

use anyhow::{Context, Result};
use balancer_tests::{
    gateway::Status,
    lab::{Family, Topology},
    site::{API, Options, PASSWORDS, POOL, Pool, Programs, Site, WEB},
    wire::Wire,
};

#[test]
fn ipv6_connections_reach_the_primary_and_after_its_death_the_backup() -> Result<()> {
    for (label, topology) in [("six", Topology::two_armed()), ("six_one", Topology::one_armed())] {
        let mut site = site(label, &topology.family(Family::V6), Options::default())?;
        let arguments = ["--connections", "1000", "--parallel", "20", "--expect", "server1"];
        let ((web, api), wire) = Wire::watched(&site, || {
            let (web, api) = (site.start_load(WEB, &arguments)?, site.start_load(API, &arguments)?);
            Ok((web.report()?, api.report()?))
        })?;
        for report in [web, api] {
            assert_eq!((&report["ok"], &report["failed"]), (&1000.into(), &0.into()), "{label}: {report}");
        }
        wire.must_be_clean().context(label)?;
        let status = site.gateway.status()?;
        for service in [WEB, API] {
            assert_eq!(status.service(service.name)["new_flows"], 1000, "{label}: {status}");
            wire.must_be_counted(&site, PASSWORDS, service).context(label)?;
        }

        let watcher = site.watch(WEB)?;
        watcher.first_answer("server1", SystemTime::UNIX_EPOCH)?;
        let killed = site.kill(0);
        watcher.first_answer("server2", killed)?;
        let status = site.gateway.wait_until("the backup", |status| status.active() == "server2")?;
        assert!(status.reason("server1").ends_with(": refused"), "{label}: {status}");
        let report = site.load(API, &["--connections", "50", "--expect", "server2"])?;
        assert_eq!(report["failed"], 0, "{label}: {report}");
    }
    Ok(())
}

#[test]
fn a_silent_ipv6_primary_is_left_and_found_again() -> Result<()> {
    let site = site("six_silent", &Topology::two_armed().family(Family::V6), Options::default())?;
    let watcher = site.watch(WEB)?;
    watcher.first_answer("server1", SystemTime::UNIX_EPOCH)?;
    let silenced = SystemTime::now();
    site.lab().backend(0).nft_silence()?;
    watcher.first_answer("server2", silenced)?;
    drop(watcher);
    // Heard again, with its hardware address to be asked for by neighbour discovery.
    site.lab().backend(0).nft_restore()?;
    site.gateway.wait_until("the primary to be up", |status| status.is("server1", "up"))?;
    site.gateway.verb(&["failback", POOL])?.expect(0)?;
    let report = site.load(WEB, &["--connections", "50", "--expect", "server1"])?;
    assert_eq!(report["failed"], 0, "{report}");
    Ok(())
}

const SIX: Pool = Pool { name: "passwords6", family: 1, ..PASSWORDS };

#[test]
fn a_family_that_comes_into_use_needs_a_new_start_and_costs_the_other_one_nothing() -> Result<()> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    let both = Options { pools: &[PASSWORDS, SIX], ..Options::default() };
    let mut site = Site::prepare("second", &Topology::two_armed().dual_stack(), both, &programs)?;
    site.gateway.configure(&site.configuration(Options::default()))?;
    (0..2).try_for_each(|server| site.serve(server))?;
    site.gateway.start(&[])?;
    let mut held = site.hold(PASSWORDS, WEB)?;
    site.gateway.configure(&site.configuration(both))?;
    let said = site.gateway.verb(&["reload"])?.expect(1)?;
    assert!(said.stderr.contains("the first IPv6 service") && !said.stderr.contains("--replace"), "{said:?}");
    let links = site.gateway.status()?.link_ids();
    site.gateway.kill();
    site.gateway.start(&[])?;
    assert_eq!(site.gateway.status()?.link_ids(), links);
    assert_eq!(held.ask()?, "server1");
    let target = SocketAddr::new(site.vip(SIX), WEB.port);
    let report =
        site.load_from(site.lab().client(), target, &["--connections", "50", "--expect", "server1"])?;
    assert_eq!(report["failed"], 0, "{report}");
    Ok(())
}

#[test]
fn pools_of_both_families_on_one_gateway_fail_over_each_by_itself() -> Result<()> {
    let options = Options { pools: &[PASSWORDS, SIX], ..Options::default() };
    let mut site = site("dual", &Topology::two_armed().dual_stack(), options)?;
    let arguments = |expect| ["--connections", "300", "--parallel", "20", "--expect", expect];
    let load = |site: &Site, pool: Pool, expect| {
        let target = SocketAddr::new(site.vip(pool), WEB.port);
        let report = site.load_from(site.lab().client(), target, &arguments(expect))?;
        assert_eq!(report["failed"], 0, "{}: {report}", pool.name);
        anyhow::Ok(())
    };
    let ((), wire) = Wire::watched(&site, || {
        load(&site, PASSWORDS, "server1")?;
        load(&site, SIX, "server1")
    })?;
    wire.must_be_clean()?;
    let status = site.gateway.status()?;
    for pool in [PASSWORDS, SIX] {
        let services = status.pool_named(pool.name)["services"].as_array().cloned().unwrap_or_default();
        let web = services.iter().find(|one| one["name"] == "web").context("web")?;
        assert_eq!(web["new_flows"], 300, "{status}");
        wire.must_be_counted(&site, pool, WEB)?;
    }

    // Both are adopted by the next daemon, and go on without one.
    let links = site.gateway.status()?.link_ids();
    site.gateway.kill();
    load(&site, PASSWORDS, "server1")?;
    load(&site, SIX, "server1")?;
    site.gateway.start(&[])?;
    assert_eq!(site.gateway.status()?.link_ids(), links);
    site.gateway.wait_until("all servers to be up", Status::are_all_up)?;

    site.gateway.verb(&["failover", SIX.name])?.expect(0)?;
    load(&site, SIX, "server2")?;
    load(&site, PASSWORDS, "server1")?;
    site.kill(0);
    site.gateway.wait_until("the backup in both", |status| {
        [PASSWORDS, SIX].iter().all(|pool| status.pool_named(pool.name)["active"] == "server2")
    })?;
    load(&site, SIX, "server2")?;
    load(&site, PASSWORDS, "server2")
}

fn site(label: &str, topology: &Topology, options: Options) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    Site::start(label, topology, options, &programs)
}
