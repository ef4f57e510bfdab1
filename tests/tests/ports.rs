//! The ports that flows leave from: when there are too few of them, and when the kernel gives some of them to others, `status` and
//! the events say so, and what to do.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result};
use balancer_tests::{
    gateway::Status,
    lab::Topology,
    site::{Options, PASSWORDS, Programs, Site, WEB},
};

/// Of each of four targets, every 500 ms.
const SOME_PROBES: Duration = Duration::from_secs(3);
/// For a SYN that is dropped.
const SOON: Duration = Duration::from_millis(300);

#[test]
fn a_pool_that_has_no_port_left_is_told() -> Result<()> {
    let site = site("exhausted")?;
    site.gateway.reload(&with_ports(&site, "20000")?)?;
    let mut held = site.hold(PASSWORDS, WEB)?;
    let target = SocketAddr::new(site.vip(PASSWORDS), WEB.port);
    let refused = site.lab().client().enter(|| TcpStream::connect_timeout(&target, SOON))?;
    assert!(refused.is_err(), "the one port is taken");
    told(&site, "snat_exhausted")?;
    assert_eq!(held.ask().context("who has the port keeps it")?, "server1");
    Ok(())
}

#[test]
fn ports_that_became_the_kernels_own_are_told_until_a_reload_leaves_them_out() -> Result<()> {
    let mut site = site("taken")?;
    let gateway = site.lab().gateway().clone();
    let set_range =
        |range: &str| gateway.run(["sysctl", "-w", &format!("net.ipv4.ip_local_port_range={range}")]);
    // All of them are flows'.
    set_range("20000 30000")?;
    told(&site, "ports 20000-30000 of snat_ports")?;
    sleep(SOME_PROBES);
    let status = site.gateway.status()?;
    assert!(status.are_all_up() && status.active() == "server1", "probes leave from others: {status}");
    let went_down: Vec<_> =
        site.gateway.logged("health").into_iter().filter(|health| health["to"] == "down").collect();
    assert!(went_down.is_empty(), "{went_down:?}");
    site.kill(0);
    site.gateway.wait_until("a server that has died to be left", |status| status.active() == "server2")?;

    let text = fs::read_to_string(site.gateway.configuration())?;
    let said = site.gateway.reload(&text)?;
    assert!(said.iter().any(|line| line.contains("usable snat_ports")), "{said:?}");
    site.gateway.wait_until("nothing to be missing", |status| degraded(status).is_empty())?;
    let report = site.load(WEB, &["--connections", "20", "--expect", "server2"])?;
    assert_eq!(report["failed"], 0, "{report}");
    // Those who look whether the gateway's stack has seen a flow know of the usual ports only.
    set_range("32768 60999")?;
    sleep(SOME_PROBES);
    site.stack.forget()
}

fn site(label: &str) -> Result<Site> {
    Site::start(
        label,
        &Topology::two_armed(),
        Options::default(),
        &Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?,
    )
}

/// The configuration with these ports alone.
fn with_ports(site: &Site, ports: &str) -> Result<String> {
    let text = fs::read_to_string(site.gateway.configuration())?;
    let (before, after) = text.split_once("[[pool]]\n").context("a pool")?;
    Ok(format!("{before}[[pool]]\nsnat_ports = \"{ports}\"\n{after}"))
}

/// In `status`, and as an event.
fn told(site: &Site, words: &str) -> Result<()> {
    let has_words = |status: &Status| degraded(status).iter().any(|trouble| trouble.contains(words));
    site.gateway.wait_until(words, has_words)?;
    let events = site.gateway.verb(&["events", "-o", "json"])?.expect(0)?.json()?;
    let is_told = |event: &serde_json::Value| {
        event["event"] == "degraded" && event["evidence"].as_str().is_some_and(|said| said.contains(words))
    };
    anyhow::ensure!(events["events"].as_array().is_some_and(|all| all.iter().any(is_told)), "{events}");
    Ok(())
}

fn degraded(status: &Status) -> Vec<String> {
    let troubles = status.0["degraded"].as_array().into_iter().flatten();
    troubles.filter_map(|trouble| Some(trouble.as_str()?.to_owned())).collect()
}
