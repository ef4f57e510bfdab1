//! Steady traffic through the gateway: every connection reaches the primary, every packet is right on the wire, and the
//! counters are true.

use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result};
use balancer_tests::{
    gateway::PATIENCE,
    lab::Topology,
    site::{API, Options, PASSWORDS, Programs, SERVER_NAME, Service, Site, WEB},
    wire::Wire,
};

#[test]
fn five_thousand_connections_fifty_at_a_time_all_reach_the_primary() -> Result<()> {
    let site = site("steady", &Topology::two_armed())?;
    let arguments = ["--connections", "5000", "--parallel", "50", "--expect", "server1"];
    let (report, wire) = Wire::watched(&site, || site.load(WEB, &arguments))?;
    assert_eq!((&report["ok"], &report["failed"]), (&5000.into(), &0.into()), "{report}");
    assert_eq!(report["by_name"]["server1"], 5000, "{report}");
    wire.must_be_clean()?;
    // A lost SYN is repeated a second later, and nobody would notice; one or two may be when the machine stands still.
    let syns = wire.client_syns();
    assert!((5000..5010).contains(&syns), "{syns} SYNs for 5,000 connections");

    assert_eq!([site.gateway.new_flows_of("server1")?, site.gateway.new_flows_of("server2")?], [5000, 0]);
    let status = site
        .gateway
        .wait_until("all flows to have ended", |status| status.backend("server1")["flows"] == 0)?;
    assert_eq!(status.service("web")["new_flows"], 5000, "{status}");
    assert_eq!(status.service("api")["new_flows"], 0, "{status}");
    let mut drops = status.0["drops"].as_object().into_iter().flatten();
    assert!(drops.all(|(_, count)| count == 0), "{status}");
    wire.must_be_counted(&site, PASSWORDS, WEB)?;
    let stats = site.gateway.verb(&["stats", "-o", "json"])?.expect(0)?.json()?;
    let server1 = stats["backends"].as_array().into_iter().flatten().find(|one| one["backend"] == "server1");
    assert_eq!(server1.map(|one| &one["packets"]), Some(&status.service("web")["packets"]), "{stats}");
    Ok(())
}

#[test]
fn both_services_at_once_reach_the_primary_two_armed_and_one_armed() -> Result<()> {
    for (label, topology) in [("both", Topology::two_armed()), ("both_one", Topology::one_armed())] {
        let site = site(label, &topology)?;
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
        }
        assert_eq!(site.gateway.new_flows_of("server1")?, 2000, "{label}");
    }
    Ok(())
}

#[test]
fn curl_is_answered_on_both_services() -> Result<()> {
    for (label, topology) in [("curl", Topology::two_armed()), ("curl_one", Topology::one_armed())] {
        let site = site(label, &topology)?;
        for service in [WEB, API] {
            assert_eq!(curl(&site, service)?, "server1\n", "{label}");
        }
    }
    Ok(())
}

#[test]
fn an_open_connection_is_counted_until_it_closes() -> Result<()> {
    let site = site("count", &Topology::two_armed())?;
    let target = SocketAddr::from((site.lab().vip(), API.port));
    let flows = |wanted: u64| {
        let what = format!("{wanted} open flows");
        site.gateway.wait_until(&what, |status| status.backend("server1")["flows"] == wanted).map(drop)
    };
    flows(0)?;
    let connect = || TcpStream::connect_timeout(&target, PATIENCE);
    let streams = [(); 3].map(|()| site.lab().client().enter(connect).and_then(|opened| Ok(opened?)));
    let [first, second, third] = streams.map(|opened| opened.context("connect to the service"));
    let (first, second, third) = (first?, second?, third?);
    flows(3)?;
    drop(first);
    flows(2)?;
    drop((second, third));
    flows(0)?;
    assert_eq!(site.gateway.status()?.service("api")["new_flows"], 3);
    Ok(())
}

fn site(label: &str, topology: &Topology) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    Site::start(label, topology, Options::default(), &programs)
}

fn curl(site: &Site, service: Service) -> Result<String> {
    let (vip, port) = (site.lab().vip(), service.port);
    let (url, resolve) = (format!("https://{SERVER_NAME}:{port}/"), format!("{SERVER_NAME}:{port}:{vip}"));
    let ca_file = site.ca_file().display().to_string();
    let words = ["curl", "--silent", "--show-error", "--max-time", "10", "--cacert", &ca_file];
    let output = site.lab().client().run(words.into_iter().chain(["--resolve", &resolve, &url]))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
