//! Large packets: MTU 9000, and narrow places on the way, which senders learn of by ICMP through the gateway or from it.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use balancer_tests::{
    capture::{IcmpError, Report},
    gateway::PATIENCE,
    lab::{Host, Topology},
    poll::poll_until,
    site::{Forwarding, Options, PASSWORDS, Pool, Programs, Site, WEB},
    wire::Wire,
};

const SIX: Pool = Pool { name: "passwords6", family: 1, ..PASSWORDS };
const DNAT: Pool = Pool { forwarding: Forwarding::Dnat, ..PASSWORDS };
const SIX_DNAT: Pool = Pool { forwarding: Forwarding::Dnat, ..SIX };

/// Of the narrow places; above IPv6's least.
const NARROW: u16 = 1300;

/// A transfer that fills the congestion window again and again, and takes a second at most.
const MUCH: &str = "3000000";
const LITTLE: &str = "1000";

#[test]
fn jumbo_frames_go_through_both_ways_in_native_mode() -> Result<()> {
    let options = Options { xdp_mode: "native", pools: &[PASSWORDS, SIX], ..Options::default() };
    let site = site("jumbo", &Topology::two_armed().dual_stack().mtu(9000), options)?;
    let status = site.gateway.status()?;
    let attachments = status.0["attachments"].as_array().context("attachments")?;
    assert!(attachments.iter().all(|attachment| attachment["mode"] == "native"), "{status}");
    for pool in [PASSWORDS, SIX] {
        let ((), wire) = Wire::watched(&site, || transfer(&site, pool, MUCH, MUCH))?;
        wire.must_be_clean()?;
        for report in [&wire.clients[0], &wire.servers[0]] {
            assert!(report.largest_sent > 8900, "{}: {} bytes", pool.name, report.largest_sent);
        }
        wire.must_be_counted(&site, pool, WEB)?;
    }
    Ok(())
}

#[test]
fn senders_learn_of_narrow_places_behind_routers_in_snat_and_dnat() -> Result<()> {
    for (label, pools) in
        [("narrow", &[PASSWORDS, SIX_DNAT] as &'static [Pool]), ("narrow_turned", &[DNAT, SIX])]
    {
        let options = Options { pools, ..Options::default() };
        let topology = Topology::two_armed().dual_stack().client_router().backend_router();
        let site = site(label, &topology, options)?;
        let lab = site.lab();
        let [client_router, backend_router] = lab.routers() else { panic!("two routers wanted") };
        // Less fits beyond the router than on the way to it, and those who stand there know it.
        client_router.set_mtu("back", NARROW)?;
        lab.client().limit_sending(NARROW)?;
        for &pool in pools {
            let ((), wire) = Wire::watched(&site, || transfer(&site, pool, LITTLE, MUCH))?;
            wire.must_be_clean().with_context(|| format!("{label}: {}", pool.name))?;
            told(&wire.servers, pool, None).with_context(|| format!("{label}: {}, down", pool.name))?;
        }
        // And at the other end.
        client_router.set_mtu("back", 1500)?;
        lab.client().send_as_before()?;
        backend_router.set_mtu("back", NARROW)?;
        lab.backends().iter().try_for_each(|backend| backend.limit_sending(NARROW))?;
        for &pool in pools {
            let ((), wire) = Wire::watched(&site, || transfer(&site, pool, MUCH, LITTLE))?;
            wire.must_be_clean().with_context(|| format!("{label}: {}", pool.name))?;
            let from = site.vip(pool);
            told(&wire.clients, pool, Some(from)).with_context(|| format!("{label}: {}, up", pool.name))?;
        }
    }
    Ok(())
}

#[test]
fn the_gateway_tells_senders_of_its_own_narrow_ways_out() -> Result<()> {
    let options = Options { pools: &[PASSWORDS, SIX], ..Options::default() };
    let site = site("own_narrow", &Topology::two_armed().dual_stack(), options)?;
    let gateway = site.lab().gateway();
    // Nobody sends much against the direction that is looked at, so nothing is lost at the narrow end itself.
    gateway.set_mtu("wan0", NARROW)?;
    for (pool, family) in [(PASSWORDS, 0), (SIX, 1)] {
        let towards_backend = gateway.interfaces()[1].addresses[family];
        until_told(&format!("{}, down", pool.name), || {
            let ((), wire) = Wire::watched(&site, || transfer(&site, pool, LITTLE, MUCH))?;
            wire.must_be_clean()?;
            told(&wire.servers, pool, Some(towards_backend))
        })?;
    }
    // The other way round.
    gateway.set_mtu("wan0", 1500)?;
    gateway.set_mtu("lan0", NARROW)?;
    site.lab().backends().iter().try_for_each(Host::forget_paths)?;
    for pool in [PASSWORDS, SIX] {
        until_told(&format!("{}, up", pool.name), || {
            let ((), wire) = Wire::watched(&site, || transfer(&site, pool, MUCH, LITTLE))?;
            wire.must_be_clean()?;
            told(&wire.clients, pool, Some(site.vip(pool)))
        })?;
    }
    let stats = site.gateway.verb(&["stats", "-o", "json"])?.expect(0)?.json()?;
    assert!(stats["answers"]["too_big"].as_u64() >= Some(4), "{stats}");
    Ok(())
}

/// Again and again: the controller learns of the new MTU a moment later, and a veth carries more than its own until then.
fn until_told(what: &str, mut tried: impl FnMut() -> Result<()>) -> Result<()> {
    poll_until(PATIENCE, what, || tried().map_err(|error| format!("{error:#}")))
}

fn transfer(site: &Site, pool: Pool, up: &str, down: &str) -> Result<()> {
    let target = SocketAddr::new(site.vip(pool), WEB.port);
    let told = site.transfer_to(site.lab().client(), target, &["--up", up, "--down", down])?;
    ensure!(told["name"] == "server1", "{}: {told}", pool.name);
    Ok(())
}

/// Whether one of these hosts was told the narrow place's MTU, by this address if it matters, and no other one.
fn told(reports: &[Report], pool: Pool, by: Option<IpAddr>) -> Result<()> {
    let errors = Wire::errors_at(reports);
    let kind = if pool.family == 0 { (3, 4) } else { (2, 0) };
    let is_of_family = |error: &&IcmpError| error.source.is_ipv4() == (pool.family == 0);
    let errors: Vec<_> = errors.keys().filter(is_of_family).collect();
    ensure!(!errors.is_empty(), "nobody was told");
    let is_right = |error: &&IcmpError| {
        error.kind == kind && error.mtu == u32::from(NARROW) && by.is_none_or(|by| error.source == by)
    };
    ensure!(errors.iter().all(is_right), "wanted {kind:?} by {by:?}: {errors:?}");
    Ok(())
}

fn site(label: &str, topology: &Topology, options: Options) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    Site::start(label, topology, options, &programs)
}
