//! The primary returns: with `failback = "manual"` nothing new reaches it until the operator says so, with `auto` it
//! takes over by itself once its time down is over.

use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use balancer_tests::{
    gateway::Status,
    lab::Topology,
    site::{API, Options, POOL, Programs, Site, WEB},
};

#[test]
fn manual_stays_on_the_backup_until_failback() -> Result<()> {
    let options = Options { failback: "manual", fail_timeout: "1s", ..Options::default() };
    let mut site = site("sticky", options)?;
    site.kill(0);
    site.gateway.wait_until("the backup to be active", |status| status.active() == "server2")?;
    site.serve(0)?;
    site.gateway.wait_until("the primary to be up again", |status| status.is("server1", "up"))?;
    let before = site.gateway.new_flows_of("server1")?;

    // Over five times its `fail_timeout`, connections all the while.
    let steady = ["--rate", "40", "--duration", "5s", "--connections", "1000", "--expect", "server2"];
    let (web, api) = (site.start_load(WEB, &steady)?, site.start_load(API, &steady)?);
    for report in [web.report()?, api.report()?] {
        assert_eq!(report["failed"], 0, "{report}");
        assert!(report["ok"].as_u64() > Some(50), "{report}");
    }
    assert_eq!(site.gateway.new_flows_of("server1")?, before, "new flows of a server that was left");
    let status = site.gateway.status()?;
    assert_eq!((status.active(), status.is("server1", "up")), ("server2", true), "{status}");

    let said = site.gateway.verb(&["failback", POOL, "-o", "json"])?.expect(0)?.json()?;
    assert_eq!((&said["changed"], &said["active"]), (&true.into(), &"server1".into()), "{said}");
    let report = site.load(WEB, &["--connections", "50", "--expect", "server1"])?;
    assert_eq!(report["failed"], 0, "{report}");
    assert_eq!(site.gateway.status()?.pool()["reason"], "failback");
    Ok(())
}

#[test]
fn auto_returns_by_itself_after_fail_timeout_without_a_failed_connection() -> Result<()> {
    let options = Options { failback: "auto", fail_timeout: "2s", ..Options::default() };
    let mut site = site("auto", options)?;
    let killed = Instant::now();
    site.kill(0);
    site.gateway.wait_until("the backup to be active", |status| status.active() == "server2")?;
    site.serve(0)?;
    let watcher = site.watch(WEB)?;
    let served = SystemTime::now();
    watcher.first_answer("server2", served)?;
    watcher.first_answer("server1", served)?;
    assert!(killed.elapsed() >= Duration::from_secs(2), "down for {:?} only", killed.elapsed());

    let failed: Vec<_> =
        watcher.attempts().into_iter().filter(|attempt| attempt["error"].is_string()).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let status = site.gateway.status()?;
    assert_eq!((status.active(), &status.pool()["reason"]), ("server1", &"failback".into()), "{status}");
    assert_eq!(site.gateway.logged("transition").len(), 3, "initial, there and back");
    Ok(())
}

#[test]
fn the_operators_failover_holds_against_auto_until_failback_and_over_a_restart() -> Result<()> {
    let options = Options { failback: "auto", fail_timeout: "1s", ..Options::default() };
    let mut site = site("wish", options)?;
    site.gateway.verb(&["failover", POOL])?.expect(0)?;
    site.gateway.kill();
    site.gateway.start(&[])?;
    let both_up = |status: &Status| status.is("server1", "up") && status.is("server2", "up");
    site.gateway.wait_until("both backends to be up", both_up)?;
    let steady = ["--rate", "40", "--duration", "3s", "--connections", "1000", "--expect", "server2"];
    let report = site.load(WEB, &steady)?;
    assert_eq!(report["failed"], 0, "{report}");
    site.gateway.verb(&["failback", POOL])?.expect(0)?;
    assert_eq!(site.gateway.status()?.active(), "server1");
    Ok(())
}

#[test]
fn auto_leaves_a_primary_that_does_not_answer_alone() -> Result<()> {
    let options = Options { failback: "auto", fail_timeout: "1s", ..Options::default() };
    let mut site = site("gone", options)?;
    site.kill(0);
    let left = site.gateway.wait_until("the backup to be active", |status| status.active() == "server2")?;
    let before = site.gateway.new_flows_of("server1")?;
    // Each probation ends with its first probe, and no client pays for it.
    let steady = ["--rate", "40", "--duration", "4s", "--connections", "1000", "--expect", "server2"];
    let report = site.load(WEB, &steady)?;
    assert_eq!(report["failed"], 0, "{report}");
    assert_eq!(site.gateway.new_flows_of("server1")?, before);
    let status = site.gateway.status()?;
    assert!(probed(&status) > probed(&left), "it was probed meanwhile: {status}");
    assert!(status.is("server1", "down"), "{status}");
    assert_eq!(site.gateway.logged("transition").len(), 2, "initial and there");
    Ok(())
}

/// When the primary was last probed; as text it sorts as in time.
fn probed(status: &Status) -> Option<&str> {
    status.backend("server1")["last_probe"]["at"].as_str()
}

fn site(label: &str, options: Options) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    Site::start(label, &Topology::two_armed(), options, &programs)
}
