//! The way to a backend in a running daemon: as fresh as the kernel's neighbour table, and there before it is needed.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use balancer_tests::{
    gateway::PATIENCE,
    lab::Topology,
    poll::poll_until,
    site::{Options, PASSWORDS, POOL, Programs, Site, WEB},
};

/// A hardware address that nobody else has.
const MOVED: &str = "02:00:00:00:00:99";

#[test]
fn the_first_packet_after_a_failover_is_not_lost() -> Result<()> {
    let site = site("first")?;
    let sent_again = || site.lab().client().snmp("Tcp", "RetransSegs");
    let before = sent_again()?;
    for to in ["server2", "server1"] {
        // The one that takes over has had no client until now.
        site.gateway.verb(&["failover", POOL])?.expect(0)?;
        let report = site.load(WEB, &["--connections", "1", "--expect", to])?;
        assert_eq!(report["failed"], 0, "{report}");
    }
    assert_eq!(sent_again()?, before, "segments that the client sent again");
    Ok(())
}

#[test]
fn a_backend_that_moves_to_another_machine_is_followed() -> Result<()> {
    let site = site("moved")?;
    let backend = site.lab().backend(0);
    // Its probes go on by the kernel's own table, which hears of the move: then so does the way.
    backend.set_sysctl("net/ipv4/conf/eth0/arp_notify", "1")?;
    backend.run(["ip", "link", "set", "eth0", "address", MOVED])?;
    poll_until(PATIENCE, "an answer from where it is now", || {
        match site.load(WEB, &["--connections", "1", "--expect", "server1"]) {
            Ok(report) if report["failed"] == 0 => Ok(()),
            Ok(report) => Err(report.to_string()),
            Err(error) => Err(format!("{error:#}")),
        }
    })?;
    let status = site.gateway.status()?;
    assert_eq!((status.active(), site.gateway.logged("transition").len()), ("server1", 1), "{status}");
    Ok(())
}

#[test]
fn an_idle_standby_that_moved_without_a_word_gets_the_first_packet() -> Result<()> {
    // Nobody has anything to do with it but the daemon that keeps its way warm: no client, no probe.
    let site = prepared("idle", &Topology::two_armed(), "1h")?;
    let (gateway, standby) = (site.lab().gateway(), site.lab().backend(1));
    // The kernel by itself would forget it at once, as it does with one that nobody has used for long.
    for (name, value) in [("base_reachable_time_ms", "1000"), ("gc_stale_time", "1")] {
        gateway.set_sysctl(&format!("net/ipv4/neigh/lan0/{name}"), value)?;
    }
    standby.set_sysctl("net/ipv4/conf/eth0/arp_notify", "0")?;
    standby.run(["ip", "link", "set", "eth0", "address", MOVED])?;
    poll_until(PATIENCE, "the gateway to know where the standby is", || {
        let known = gateway.run(["ip", "neigh", "show", "10.0.2.12", "dev", "lan0"]);
        let known = known.map_err(|error| format!("{error:#}"))?;
        let known = String::from_utf8_lossy(&known.stdout).into_owned();
        if known.contains(MOVED) { Ok(()) } else { Err(known) }
    })?;
    let before = site.lab().client().snmp("Tcp", "RetransSegs")?;
    site.gateway.verb(&["failover", POOL])?.expect(0)?;
    let report = site.load(WEB, &["--connections", "1", "--expect", "server2"])?;
    assert_eq!(report["failed"], 0, "{report}");
    assert_eq!(
        site.lab().client().snmp("Tcp", "RetransSegs")?,
        before,
        "segments that the client sent again"
    );
    Ok(())
}

#[test]
fn a_backend_whose_route_moves_to_another_interface_is_followed() -> Result<()> {
    let site = prepared("route", &Topology::three_armed(), "500ms")?;
    let mut held = site.hold(PASSWORDS, WEB)?;
    let clients = site.watch_as(WEB, &["--interval", "20ms", "--timeout", "500ms"])?;
    // Its cable goes to the other switch, and the gateway's route with it.
    let (gateway, name) = (site.lab().gateway(), site.lab().name());
    let [old, new] = ["lan", "lan1"].map(|subnet| format!("{name}-switch_{subnet}"));
    gateway.run(["ip", "-n", &old, "link", "set", "backend0", "netns", &new])?;
    gateway.run(["ip", "-n", &new, "link", "set", "backend0", "master", "br0", "up"])?;
    gateway.run(["ip", "route", "add", "10.0.2.11/32", "dev", "lan1", "src", "10.0.2.1"])?;
    // It has to find the gateway there, as a machine that was moved does.
    site.lab().backend(0).run(["ip", "neigh", "flush", "all"])?;
    let took = clients.first_answer("server1", SystemTime::now())?;
    assert!(took < Duration::from_secs(2), "it took {took:?}");
    assert_eq!(held.ask()?, "server1");
    Ok(())
}

#[test]
fn another_address_of_the_gateway_is_used_for_new_flows_and_old_ones_go_on() -> Result<()> {
    let site = prepared("source", &Topology::two_armed(), "500ms")?;
    let mut held = site.hold(PASSWORDS, WEB)?;
    let gateway = site.lab().gateway();
    gateway.run(["ip", "address", "add", "10.0.2.2/24", "dev", "lan0"])?;
    gateway.run(["ip", "route", "change", "10.0.2.0/24", "dev", "lan0", "src", "10.0.2.2"])?;
    poll_until(PATIENCE, "flows from the other address", || {
        let report = site.load(WEB, &["--connections", "1"]).map_err(|error| format!("{error:#}"))?;
        if report["by_peer"]["10.0.2.2"] == 1 { Ok(()) } else { Err(report.to_string()) }
    })?;
    assert_eq!(held.ask()?, "server1");
    Ok(())
}

fn site(label: &str) -> Result<Site> {
    prepared(label, &Topology::two_armed(), Options::default().interval)
}

fn prepared(label: &str, topology: &Topology, interval: &'static str) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    // Out of the way: a probe that fails in the moment of the move is none of these claims.
    let options = Options { max_fails: 0, interval, ..Options::default() };
    Site::start(label, topology, options, &programs)
}
