//! The primary fails, and new connections go to the backup: whatever way it fails, all services together, and only as
//! fast as the configuration allows.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use balancer_tests::{
    lab::Topology,
    site::{API, Options, POOL, Programs, Site, WEB},
};
use serde_json::json;

/// An interval of 500 ms and a timeout of 500 ms make 1 s; the rest is for a busy machine. `bench-failover` measures.
const SWITCH_MAX: Duration = Duration::from_secs(3);

#[test]
fn a_killed_primary_is_replaced_by_the_backup() -> Result<()> {
    let mut site = site("killed", Options::default())?;
    let watcher = site.watch(WEB)?;
    watcher.first_answer("server1", SystemTime::UNIX_EPOCH)?;
    let killed = site.kill(0);
    let took = watcher.first_answer("server2", killed)?;
    assert!(took < SWITCH_MAX, "{took:?}");

    let status = site.gateway.wait_until("the backup to be active", |status| status.active() == "server2")?;
    assert_eq!(status.pool()["reason"], "backend_down", "{status}");
    assert_eq!(status.pool()["state"], "serving", "{status}");
    assert!(status.reason("server1").ends_with(": refused"), "{status}");
    let report = site.load(API, &["--connections", "50", "--expect", "server2"])?;
    assert_eq!(report["failed"], 0, "{report}");
    Ok(())
}

#[test]
fn a_silenced_primary_is_replaced_by_the_backup() -> Result<()> {
    let site = site("silenced", Options::default())?;
    let watcher = site.watch(WEB)?;
    watcher.first_answer("server1", SystemTime::UNIX_EPOCH)?;
    let silenced = SystemTime::now();
    site.lab().backend(0).nft_silence()?;
    let took = watcher.first_answer("server2", silenced)?;
    assert!(took < SWITCH_MAX, "{took:?}");

    let status = site.gateway.wait_until("the backup to be active", |status| status.active() == "server2")?;
    assert!(status.reason("server1").ends_with(": connect_timeout"), "{status}");
    // A server that is heard again is found again, with its hardware address to be asked for.
    site.lab().backend(0).nft_restore()?;
    site.gateway.wait_until("the primary to be up", |status| status.is("server1", "up"))?;
    assert_eq!(site.gateway.verb(&["failback", POOL])?.code, Some(0));
    let report = site.load(WEB, &["--connections", "50", "--expect", "server1"])?;
    assert_eq!(report["failed"], 0, "{report}");
    Ok(())
}

#[test]
fn one_failed_service_moves_all_services() -> Result<()> {
    let mut site = site("together", Options::default())?;
    let (web, api) = (site.watch(WEB)?, site.watch(API)?);
    let killed = SystemTime::now();
    site.kill_one(0, API);
    api.first_answer("server2", killed)?;
    let status = site.gateway.wait_until("the backup to be active", |status| status.active() == "server2")?;
    let moved = SystemTime::now();
    assert_eq!(status.backend("server1")["last_probe"]["service"].as_str().map(|_| ()), Some(()), "{status}");
    web.first_answer("server2", moved)?;
    let report = site.load(WEB, &["--connections", "50", "--expect", "server2"])?;
    assert_eq!(report["failed"], 0, "443 and 8877 are on different servers: {report}");
    Ok(())
}

#[test]
fn a_switch_is_one_line_in_the_log_with_all_its_fields() -> Result<()> {
    let mut site = site("log", Options::default())?;
    assert_eq!(site.gateway.logged("transition").len(), 1, "the initial one");
    site.kill(0);
    site.gateway.wait_until("the backup to be active", |status| status.active() == "server2")?;
    let lines = site.gateway.logged("transition");
    let [initial, switch] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((&initial["reason"], &initial["to"]), (&json!("initial"), &json!("server1")));
    let told =
        ["pool", "from", "to", "reason", "level"].map(|field| switch[field].as_str().unwrap_or_default());
    assert_eq!(told, [POOL, "server1", "server2", "backend_down", "INFO"], "{switch}");
    assert!(switch["id"].as_u64() > initial["id"].as_u64(), "{lines:?}");
    assert!(switch["took_ms"].as_f64().is_some_and(|ms| (0.0..1000.0).contains(&ms)), "{switch}");
    let health = site.gateway.logged("health");
    let down = health.iter().find(|line| line["to"] == "down").unwrap_or_else(|| panic!("{health:?}"));
    let told = ["pool", "backend", "from"].map(|field| down[field].as_str().unwrap_or_default());
    assert_eq!(told, [POOL, "server1", "up"], "{down}");
    assert!(down["reason"].as_str().is_some_and(|reason| reason.ends_with(": refused")), "{down}");
    Ok(())
}

#[test]
fn with_max_fails_2_one_failed_probe_changes_nothing() -> Result<()> {
    // Slow enough that the server is back before the next probe.
    let slow = Options {
        max_fails: 2,
        interval: "2s",
        fast_interval: "2s",
        fail_timeout: "10s",
        ..Options::default()
    };
    let mut site = site("twice", slow)?;
    site.kill(0);
    site.gateway.wait_until("a failed probe", |status| status.backend("server1")["fails"] == 1)?;
    site.serve(0)?;
    let status = site.gateway.wait_until("a good probe", |status| {
        let probe = &status.backend("server1")["last_probe"];
        probe["ok"] == true
    })?;
    assert_eq!(
        status.backend("server1")["fails"],
        1,
        "a success takes no failure out of the window: {status}"
    );
    assert!(status.is("server1", "up"), "{status}");
    assert_eq!(status.active(), "server1");
    assert_eq!(site.gateway.logged("transition").len(), 1, "the initial one");

    site.kill(0);
    site.gateway.wait_until("the second failure in the window", |status| status.active() == "server2")?;
    Ok(())
}

#[test]
fn when_all_are_down_the_last_one_keeps_the_traffic_and_recovers_without_a_switch() -> Result<()> {
    let mut site = site("all_down", Options::default())?;
    assert_eq!(site.gateway.verb(&["status", "--exit-code"])?.code, Some(0));
    site.kill(1);
    site.gateway.wait_until("the backup to be down", |status| status.is("server2", "down"))?;
    site.kill(0);
    let status = site.gateway.wait_until("all to be down", |status| status.pool()["state"] == "all_down")?;
    assert_eq!(status.active(), "server1", "{status}");
    assert_eq!(site.gateway.verb(&["status", "--exit-code"])?.code, Some(6));
    assert_eq!(site.gateway.verb(&["status"])?.code, Some(0), "only when asked for");
    assert_eq!(site.gateway.logged("all_down").len(), 1);

    // New connections still go there, so it serves as soon as it can, whatever the probes know.
    site.serve(0)?;
    let report = site.load(WEB, &["--connections", "20", "--expect", "server1"])?;
    assert_eq!(report["failed"], 0, "{report}");
    let status = site.gateway.wait_until("the end of it", |status| status.pool()["state"] == "serving")?;
    assert_eq!((status.active(), &status.pool()["reason"]), ("server1", &json!("initial")), "{status}");
    assert_eq!(site.gateway.logged("transition").len(), 1, "the initial one");
    assert_eq!(site.gateway.verb(&["status", "--exit-code"])?.code, Some(0));
    Ok(())
}

fn site(label: &str, options: Options) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    Site::start(label, &Topology::two_armed(), options, &programs)
}
