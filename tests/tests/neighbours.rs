//! Routes and neighbours as the kernel tells them, in both families: the way to a backend is what comes of them.
//!
//! Labs are IPv4; here the gateway and the backends get IPv6 addresses beside it.

use std::net::IpAddr;

use anyhow::{Context, Result};
use balancer_tests::{
    gateway::PATIENCE,
    lab::{Host, Lab, Topology},
    poll::poll_until,
};
use balancer_user::dataplane::{
    DataplaneError,
    neighbours::{Known, Neighbours, Route},
};

const GATEWAY: &str = "2001:db8:2::1";
const BACKEND: &str = "2001:db8:2::11";
/// Has only this one: routers need no other.
const ROUTER: &str = "fe80::12";

#[test]
fn backends_of_both_families_are_found_and_followed() -> Result<()> {
    let lab = lab("found")?;
    let backend = lab.backend(0);
    let (v4, own_v4) = (lab.backend(0).address(), "10.0.2.1");
    for (address, own) in [(BACKEND.parse()?, GATEWAY), (v4, own_v4)] {
        let route = route(&lab, address)?.context("a route")?;
        assert_eq!((route.next_hop, route.source), (address, Some(own.parse()?)));
        wait_for_mac(&lab, route, &mac(backend)?)?;
    }
    // As another machine that takes the address over does.
    backend.run(["ip", "link", "set", "eth0", "address", "02:00:00:00:00:99"])?;
    for address in [BACKEND.parse()?, v4] {
        wait_for_mac(&lab, route(&lab, address)?.context("a route")?, "02:00:00:00:00:99")?;
    }
    Ok(())
}

#[test]
fn a_neighbour_is_asked_without_a_change_of_anything_and_what_moved_silently_is_found_anew() -> Result<()> {
    let lab = lab("asked")?;
    let backend = lab.backend(0);
    for setting in ["ipv4/conf/eth0/arp_notify", "ipv6/conf/eth0/ndisc_notify"] {
        backend.set_sysctl(&format!("net/{setting}"), "0")?;
    }
    let addresses = [BACKEND.parse()?, lab.backend(0).address()];
    let before = mac(backend)?;
    for address in addresses {
        let route = route(&lab, address)?.context("a route")?;
        wait_for_mac(&lab, route, &before)?;
        ask(&lab, async |kernel| kernel.confirm(route.ifindex, route.next_hop).await)?;
        let is_heard = || {
            let found = ask(&lab, async |kernel| kernel.neighbour(route.ifindex, route.next_hop).await);
            let found = found.map_err(|error| format!("{error:#}"))?;
            let is_heard = found.is_some_and(|neighbour| neighbour.known == Known::Heard);
            if is_heard { Ok(()) } else { Err(format!("{found:?}")) }
        };
        poll_until(PATIENCE, "its answer", is_heard)?;
    }
    backend.run(["ip", "link", "set", "eth0", "address", "02:00:00:00:00:98"])?;
    for address in addresses {
        let route = route(&lab, address)?.context("a route")?;
        ask(&lab, async |kernel| kernel.find_anew(route.ifindex, route.next_hop).await)?;
        wait_for_mac(&lab, route, "02:00:00:00:00:98")?;
    }
    // Nobody is there: nothing to ask, and nothing is made of it.
    let route = Route { next_hop: "10.0.2.99".parse()?, ..route(&lab, addresses[1])?.context("a route")? };
    ask(&lab, async |kernel| kernel.confirm(route.ifindex, route.next_hop).await)?;
    assert_eq!(ask(&lab, async |kernel| kernel.neighbour(route.ifindex, route.next_hop).await)?, None);
    Ok(())
}

#[test]
fn a_router_is_found_by_its_link_local_address() -> Result<()> {
    let lab = lab("router")?;
    let gateway = lab.gateway();
    gateway.run(["ip", "route", "add", "2001:db8:9::/64", "via", ROUTER, "dev", "lan0"])?;
    gateway.run(["ip", "route", "add", "10.9.0.0/16", "via", "inet6", ROUTER, "dev", "lan0"])?;
    for (behind, own) in [("2001:db8:9::11", GATEWAY), ("10.9.0.11", "10.0.2.1")] {
        let route = route(&lab, behind.parse()?)?.context("a route")?;
        assert_eq!((route.next_hop, route.source), (ROUTER.parse()?, Some(own.parse()?)));
        wait_for_mac(&lab, route, &mac(lab.backend(1))?)?;
    }
    Ok(())
}

#[test]
fn where_no_other_machine_is_there_is_no_route() -> Result<()> {
    let lab = lab("nowhere")?;
    lab.gateway().run(["ip", "route", "add", "unreachable", "2001:db8:fe::/64"])?;
    lab.gateway().run(["ip", "route", "add", "blackhole", "10.8.0.0/16"])?;
    for nowhere in ["2001:db8:ff::1", "2001:db8:fe::1", GATEWAY, "10.7.0.1", "10.8.0.1", "10.0.2.1"] {
        assert_eq!(route(&lab, nowhere.parse()?)?, None, "{nowhere}");
    }
    Ok(())
}

fn route(lab: &Lab, destination: IpAddr) -> Result<Option<Route>> {
    ask(lab, async |kernel| kernel.route(destination).await)
}

/// Until the kernel has it, which is nudged as the daemon does it.
fn wait_for_mac(lab: &Lab, route: Route, mac: &str) -> Result<()> {
    poll_until(PATIENCE, "the neighbour's hardware address", || {
        let found = ask(lab, async |kernel| {
            let found = kernel.neighbour(route.ifindex, route.next_hop).await?;
            if found.is_none() {
                kernel.find(route.ifindex, route.next_hop).await?;
            }
            Ok(found)
        });
        let found = found.map_err(|error| format!("{error:#}"))?;
        let seen = found.map(|neighbour| neighbour.mac.map(|byte| format!("{byte:02x}")).join(":"));
        if seen.as_deref() == Some(mac) { Ok(()) } else { Err(format!("{seen:?}, wanted {mac}")) }
    })
}

fn ask<T: Send>(
    lab: &Lab,
    question: impl AsyncFnOnce(&Neighbours) -> Result<T, DataplaneError> + Send,
) -> Result<T> {
    lab.gateway().enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(async { question(&Neighbours::connect()?).await })?)
    })?
}

fn mac(host: &Host) -> Result<String> {
    let said = host.run(["ip", "-br", "link", "show", "dev", "eth0"])?;
    let line = String::from_utf8(said.stdout)?;
    line.split_whitespace().nth(2).map(ToOwned::to_owned).with_context(|| line.clone())
}

fn lab(label: &str) -> Result<Lab> {
    let lab = Lab::new(label, &Topology::two_armed())?;
    for (host, interface, address) in [
        (lab.gateway(), "lan0", format!("{GATEWAY}/64")),
        (lab.backend(0), "eth0", format!("{BACKEND}/64")),
        (lab.backend(1), "eth0", format!("{ROUTER}/64")),
    ] {
        // Who moves says so, in both families.
        for (setting, value) in [("ipv6/conf", "ndisc_notify"), ("ipv4/conf", "arp_notify")] {
            host.set_sysctl(&format!("net/{setting}/{interface}/{value}"), "1")?;
        }
        for which in ["all", interface] {
            host.set_sysctl(&format!("net/ipv6/conf/{which}/disable_ipv6"), "0")?;
        }
        // Not looked for duplicates of: it can be used at once.
        host.run(["ip", "address", "add", &address, "dev", interface, "nodad"])?;
    }
    Ok(lab)
}
