//! A server fails, and only clients' own connection attempts tell: they go on to the other one, the pool follows, and how
//! long that took is told. Probes are too rare to help.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use balancer_tests::{
    gateway::{PATIENCE, Status},
    lab::Topology,
    site::{Options, POOL, Programs, Site, WEB},
};
use serde_json::Value;

/// Few at a time: the first ones come before the pool has moved, the others after.
const LOAD: [&str; 6] = ["--connections", "40", "--parallel", "2", "--expect", "server2"];

#[test]
fn refused_clients_go_on_and_move_the_pool() -> Result<()> {
    let mut site = site("unrefused")?;
    site.kill(0);
    let report = site.load(WEB, &LOAD)?;
    assert_eq!(report["failed"], 0, "{report}");
    let status = site.gateway.wait_until("the backup to be active", |status| status.active() == "server2")?;
    assert!(status.reason("server1").contains("refused"), "{status}");
    let went_on = counted(&site, "server1", "retried_refused")?;
    assert!(went_on > 0 && counted(&site, "server2", "rescued")? == went_on, "{went_on} went on");
    Ok(())
}

#[test]
fn clients_that_nobody_answers_go_on_and_how_long_that_took_is_told() -> Result<()> {
    let site = site("unanswered")?;
    site.lab().backend(0).nft_silence()?;
    let report = site.load(WEB, &LOAD)?;
    assert_eq!(report["failed"], 0, "{report}");
    let is_measured = |status: &Status| status.pool()["last_failover"]["recovery_ms"].is_u64();
    let status = site.gateway.wait_until("the first answer", is_measured)?;
    let failover = &status.pool()["last_failover"];
    let told = (&failover["from"], &failover["to"], failover["detection_ms"].is_u64());
    assert_eq!(told, (&Value::from("server1"), &Value::from("server2"), true), "{status}");
    assert!(counted(&site, "server1", "retried_unanswered")? > 0);
    let why = site.gateway.verb(&["why", POOL, "-o", "json"])?.expect(0)?.json()?;
    let chain = why["chain"].as_array().into_iter().flatten().map(|record| &record["event"]);
    let newest: Vec<&Value> = chain.take(2).collect();
    assert_eq!(newest, ["answered", "transition"], "{why}");
    Ok(())
}

/// Nothing is probed: connections tell that a server fails, and one at a time whether it is back.
#[test]
fn without_probes_clients_find_out_that_a_server_is_back_and_notice_nothing() -> Result<()> {
    let options = Options {
        failback: "auto",
        fail_timeout: "1s",
        passive: "count",
        connect_retry: "instant",
        ..Options::default()
    };
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    let mut site = Site::prepare("untried", &Topology::two_armed(), options, &programs)?;
    let configuration = site.configuration(options);
    let (head, rest) = configuration.split_once("[pool.probe]").context("a probe")?;
    let (_, rest) = rest.split_once("[[pool.service]]").context("a service")?;
    let unprobed = format!("{head}[pool.probe]\nkind = \"none\"\n\n[[pool.service]]{rest}");
    site.gateway.configure(&unprobed)?;
    (0..2).try_for_each(|server| site.serve(server))?;
    site.gateway.start(&[])?;

    site.kill(0);
    serve_until(&site, "the pool has moved", |status| status.active() == "server2")?;
    serve_until(&site, "a trial has failed", |status| status.reason("server1").contains("on trial"))?;
    site.serve(0)?;
    serve_until(&site, "it has returned", |status| status.active() == "server1" && status.is("server1", "up"))
}

/// Clients come until it is so, and none of them fails.
fn serve_until(site: &Site, what: &str, is_so: impl Fn(&Status) -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let report = site.load(WEB, &["--connections", "10", "--parallel", "2"])?;
        ensure!(report["failed"] == 0, "{what}: {report}");
        let status = site.gateway.status()?;
        if is_so(&status) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{what}: {status}");
    }
}

fn site(label: &str) -> Result<Site> {
    let options =
        Options { interval: "60s", fast_interval: "60s", fail_timeout: "60s", ..Options::default() };
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    let mut site = Site::prepare(label, &Topology::two_armed(), options, &programs)?;
    let configuration = site.configuration(options);
    let configuration = configuration.replace("passive = \"off\"", "passive = \"count\"");
    site.gateway
        .configure(&configuration.replace("connect_retry = \"off\"", "connect_retry = \"instant\""))?;
    site.begin()?;
    Ok(site)
}

/// What `stats` has of a backend.
fn counted(site: &Site, backend: &str, what: &str) -> Result<u64> {
    let stats = site.gateway.verb(&["stats", "-o", "json"])?.expect(0)?.json()?;
    let mut backends = stats["backends"].as_array().into_iter().flatten();
    let of = backends.find(|found| found["backend"] == backend);
    Ok(of.and_then(|of| of[what].as_u64()).unwrap_or_default())
}
