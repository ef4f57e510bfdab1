//! Steady traffic through the gateway: every connection reaches the primary, every packet is right on the wire, and the
//! counters are true.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context, Result};
use balancer_tests::{
    capture::{Capture, Direction, Path, Report},
    gateway::PATIENCE,
    lab::Topology,
    site::{API, Options, Programs, SERVER_NAME, SERVERS, Service, Site, WEB},
};

#[test]
fn five_thousand_connections_fifty_at_a_time_all_reach_the_primary() -> Result<()> {
    let site = site("steady", &Topology::two_armed())?;
    let arguments = ["--connections", "5000", "--parallel", "50", "--expect", "server1"];
    let (report, wire) = watched(&site, || site.load(WEB, &arguments))?;
    assert_eq!((&report["ok"], &report["failed"]), (&5000.into(), &0.into()), "{report}");
    assert_eq!(report["by_name"]["server1"], 5000, "{report}");
    assert_clean(&site, &wire);
    // A lost SYN is repeated a second later, and nobody would notice; one or two may be when the machine stands still.
    let syns = sent(&wire.at_client.syns, Direction::Out);
    assert!((5000..5010).contains(&syns), "{syns} SYNs for 5,000 connections");

    assert_eq!([site.gateway.new_flows_of("server1")?, site.gateway.new_flows_of("server2")?], [5000, 0]);
    let status = site
        .gateway
        .wait_until("all flows to have ended", |status| status.backend("server1")["flows"] == 0)?;
    assert_eq!(status.service("web")["new_flows"], 5000, "{status}");
    assert_eq!(status.service("api")["new_flows"], 0, "{status}");
    let mut drops = status.0["drops"].as_object().into_iter().flatten();
    assert!(drops.all(|(_, count)| count == 0), "{status}");
    // A TLS connection is some twenty packets, both directions together.
    let packets = status.service("web")["packets"].as_u64().unwrap_or_default();
    assert!((50_000..250_000).contains(&packets), "{status}");
    Ok(())
}

#[test]
fn both_services_at_once_reach_the_primary_two_armed_and_one_armed() -> Result<()> {
    for (label, topology) in [("both", Topology::two_armed()), ("both_one", Topology::one_armed())] {
        let site = site(label, &topology)?;
        let arguments = ["--connections", "1000", "--parallel", "20", "--expect", "server1"];
        let ((web, api), wire) = watched(&site, || {
            let (web, api) = (site.start_load(WEB, &arguments)?, site.start_load(API, &arguments)?);
            Ok((web.report()?, api.report()?))
        })?;
        for report in [web, api] {
            assert_eq!((&report["ok"], &report["failed"]), (&1000.into(), &0.into()), "{label}: {report}");
        }
        assert_clean(&site, &wire);
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

/// What clients and servers saw on their interfaces, and what their kernels thought of it.
struct Wire {
    at_client: Report,
    at_servers: Vec<Report>,
    checksum_errors: u64,
}

fn watched<T>(site: &Site, body: impl FnOnce() -> Result<T>) -> Result<(T, Wire)> {
    let (client, servers) = (site.lab().client(), site.lab().backends());
    let errors = || {
        [client].into_iter().chain(servers).map(|host| host.snmp("Tcp", "InCsumErrors")).sum::<Result<u64>>()
    };
    let before = errors()?;
    let at_client = Capture::start(client, "eth0")?;
    let at_servers =
        servers.iter().map(|server| Capture::start(server, "eth0")).collect::<Result<Vec<_>>>()?;
    let done = body()?;
    let at_client = at_client.stop()?;
    let at_servers = at_servers.into_iter().map(Capture::stop).collect::<Result<_>>()?;
    Ok((done, Wire { at_client, at_servers, checksum_errors: errors()? - before }))
}

/// No wrong checksum anywhere, and no reset that no server has sent.
fn assert_clean(site: &Site, wire: &Wire) {
    assert_eq!(wire.checksum_errors, 0, "a kernel saw a wrong checksum");
    for (host, report) in SERVERS.iter().zip(&wire.at_servers).chain([(&"client", &wire.at_client)]) {
        assert_eq!(report.bad_checksums, Vec::<String>::new(), "{host}");
        assert_eq!(report.missed, 0, "{host}: the capture missed frames");
        assert!(report.checked > 0, "{host}: no checksum was looked at");
    }
    // A server's kernel sends some, to a FIN that was repeated when all was over.
    let by_servers: u64 = wire.at_servers.iter().map(|report| sent(&report.rsts, Direction::Out)).sum();
    let by_gateway = sent(&wire.at_client.rsts, Direction::In).saturating_sub(by_servers);
    assert_eq!(by_gateway, 0, "{}: {:?}", site.lab().name(), wire.at_client.rsts);
}

fn sent(segments: &BTreeMap<Path, u64>, direction: Direction) -> u64 {
    segments.iter().filter(|(path, _)| path.direction == direction).map(|(_, count)| count).sum()
}

fn curl(site: &Site, service: Service) -> Result<String> {
    let (vip, port) = (site.lab().vip(), service.port);
    let (url, resolve) = (format!("https://{SERVER_NAME}:{port}/"), format!("{SERVER_NAME}:{port}:{vip}"));
    let ca_file = site.ca_file().display().to_string();
    let words = ["curl", "--silent", "--show-error", "--max-time", "10", "--cacert", &ca_file];
    let output = site.lab().client().run(words.into_iter().chain(["--resolve", &resolve, &url]))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
