//! The way to a backend in a running daemon: as fresh as the kernel's neighbour table, and there before it is needed.

use anyhow::Result;
use balancer_tests::{
    gateway::PATIENCE,
    lab::Topology,
    poll::poll_until,
    site::{Options, POOL, Programs, Site, WEB},
};

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
    backend.run(["ip", "link", "set", "eth0", "address", "02:00:00:00:00:99"])?;
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

fn site(label: &str) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    // Out of the way: a probe that fails in the moment of the move is none of these claims.
    let options = Options { max_fails: 10, ..Options::default() };
    Site::start(label, &Topology::two_armed(), options, &programs)
}
