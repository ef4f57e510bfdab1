//! What reloads have left behind, over restarts and further reloads.

use std::os::unix::fs::{PermissionsExt as _, chown};

use super::*;

#[test]
fn a_pool_that_comes_back_is_as_the_operator_left_it() -> Result<()> {
    let mut site = site("back", &Topology::two_armed())?;
    let right = site.configuration(Options::default());
    let second = second_pool(&right);
    let pool = right.find("\n[[pool]]").context("the pool")?;
    let without = format!("{}{second}", &right[..pool]);
    site.gateway.reload(&format!("{right}{second}"))?;
    site.gateway.verb(&["maint", POOL, "server1"])?.expect(0)?;
    for restarts in [false, true] {
        has(&site.gateway.reload(&without)?, "pool passwords removed");
        if restarts {
            site.gateway.kill();
            site.gateway.start(&[])?;
        }
        has(
            &site.gateway.reload(&format!("{right}{second}"))?,
            "pool passwords added (2 services, 2 backends)",
        );
        let status = site.gateway.status()?;
        assert_eq!((status.active(), &status.pool()["state"]), ("server2", &"serving".into()), "{status}");
        assert_eq!(status.backend("server1")["admin"], "maint", "{status}");
        let report = site.load(WEB, &["--connections", "20", "--expect", "server2"])?;
        assert_eq!(report["failed"], 0, "{report}");
    }
    Ok(())
}

#[test]
fn a_pool_that_is_new_is_never_all_down_before_its_first_probe() -> Result<()> {
    let site = site("new", &Topology::two_armed())?;
    let right = site.configuration(Options::default());
    // Nobody answers, and for long.
    site.lab().backend(1).nft_silence()?;
    let second = second_pool(&right).replace("timeout = \"500ms\"", "timeout = \"10s\"");
    site.gateway.reload(&format!("{right}{second}"))?;
    let status = site.gateway.status()?;
    let new = status.pool_named("second");
    assert_eq!((&new["state"], &new["active"]), (&"serving".into(), &"server2".into()), "{status}");
    assert_eq!(new["backends"][0]["health"], "unknown", "{status}");
    site.lab().backend(1).nft_restore()
}

#[test]
fn the_time_of_who_has_left_goes_on_over_a_restart() -> Result<()> {
    const TIME: Duration = Duration::from_secs(6);
    let mut site = site("time", &Topology::two_armed())?;
    let right = with_pool_keys(&site, "drain_deadline = \"6s\"\n");
    site.gateway.reload(&right)?;
    let mut busy = site.hold(PASSWORDS, WEB)?;
    let begun = Instant::now();
    site.gateway.reload(&without_backend(&right, "server1"))?;
    thread::sleep(TIME / 2);
    let restarted = Instant::now();
    site.gateway.kill();
    site.gateway.start(&[])?;
    ends(&mut busy)?;
    assert!(begun.elapsed() >= TIME, "after {:?}", begun.elapsed());
    assert!(restarted.elapsed() < TIME, "its time began anew: {:?}", restarted.elapsed());
    Ok(())
}

#[test]
fn a_confirmation_is_waited_for_over_a_restart() -> Result<()> {
    let mut site = site("waits", &Topology::two_armed())?;
    let right = site.configuration(Options::default());
    let other = right.replace("max_fails = 1", "max_fails = 5");
    for (round, within) in ["8s", "1s"].into_iter().enumerate() {
        site.gateway.configure(&other)?;
        site.gateway.verb(&["reload", "--confirm", within])?.expect(0)?;
        site.gateway.kill();
        if within == "1s" {
            // Over before there is a daemon again.
            thread::sleep(Duration::from_millis(1500));
        }
        site.gateway.start(&[])?;
        let taken_back = |status: &Status| status.0["daemon"]["config_generation"] == 2;
        let status = site.gateway.wait_until("it to be taken back", taken_back)?;
        assert_eq!(status.0["pending"], serde_json::json!([]), "{status}");
        let events = site.gateway.verb(&["events", "--limit", "20"])?.expect(0)?.stdout;
        assert!(events.contains("max_fails of server1 5 -> 1"), "{events}");
        // The file still says it.
        site.gateway.kill();
        site.gateway.start(&[])?;
        let status = site.gateway.status()?;
        assert_eq!(status.0["daemon"]["config_generation"], 1, "{status}");
        assert!(status.0["degraded"].to_string().contains("was not confirmed in time"), "{status}");
        assert_eq!(rolled_back(&site)?, round + 1, "a person was called before");
        site.gateway.verb(&["reload", "--confirmed"])?.expect(1)?;
    }
    // What was confirmed, or is in the file by now instead, stays.
    site.gateway.verb(&["reload", "--confirm", "2s"])?.expect(0)?;
    site.gateway.kill();
    site.gateway.configure(&right.replace("max_fails = 1", "max_fails = 7"))?;
    site.gateway.start(&[])?;
    assert_eq!(site.gateway.status()?.0["pending"], serde_json::json!([]));
    site.gateway.reload(&right)?;
    site.gateway.verb(&["reload", "--confirm", "60s"])?.expect(0)?;
    site.gateway.kill();
    site.gateway.start(&[])?;
    let shown = site.gateway.verb(&["status"])?.expect(0)?.stdout;
    assert!(shown.contains("pending: the last reload is taken back at"), "{shown}");
    site.gateway.verb(&["reload", "--confirmed"])?.expect(0)?;
    site.gateway.kill();
    site.gateway.start(&[])?;
    assert_eq!(site.gateway.status()?.0["pending"], serde_json::json!([]));
    Ok(())
}

#[test]
fn what_ran_out_while_there_was_no_daemon_is_taken_back_with_the_hooks_of_its_pools() -> Result<()> {
    const TIME: Duration = Duration::from_secs(10);
    let folder = Folder::new()?;
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    let mut site = Site::prepare("overdue", &Topology::two_armed(), Options::default(), &programs)?;
    let step = folder
        .script("step", "echo \"$BALANCER_FROM $BALANCER_TO $BALANCER_REASON\" >> $folder/told; sleep 0.3")?;
    let base = site.configuration(Options::default()).replace("on_backend_down = \"keep\"\n", "");
    let hook = format!("\n[[pool.hook]]\nname = \"promote\"\nwhen = \"before\"\nrun = [{step:?}]\n");
    site.gateway.configure(&format!("{}{hook}", without_backend(&base, "server2")))?;
    (0..2).try_for_each(|server| site.serve(server))?;
    site.gateway.start(&[])?;
    site.gateway.configure(&format!("{base}{hook}"))?;
    let begun = Instant::now();
    site.gateway.verb(&["reload", "--confirm", "10s"])?.expect(0)?;
    site.gateway.wait_until("all servers to be up", Status::are_all_up)?;
    site.gateway.verb(&["failover", POOL, "--to", "server2"])?.expect(0)?;
    site.gateway.kill();
    ensure!(begun.elapsed() < TIME, "after {:?}", begun.elapsed());
    thread::sleep(TIME.saturating_sub(begun.elapsed()) + Duration::from_millis(500));
    site.gateway.start(&[])?;
    let is_done = |status: &Status| {
        status.0["daemon"]["config_generation"] == 2 && status.0["pending"] == serde_json::json!([])
    };
    let status = site.gateway.wait_until("it to be taken back, and what follows", is_done)?;
    assert_eq!((status.active(), &status.pool()["state"]), ("server1", &"serving".into()), "{status}");
    assert_eq!(status.pool()["backends"].as_array().map(Vec::len), Some(1), "{status}");
    assert!(status.0["degraded"].to_string().contains("was not confirmed in time"), "{status}");
    assert_eq!(folder.lines("told"), ["server1 server2 operator", "server2 server1 config"]);
    let report = site.load(WEB, &["--connections", "20", "--expect", "server1"])?;
    assert_eq!(report["failed"], 0, "{report}");
    Ok(())
}

#[test]
fn a_file_that_only_another_user_can_read_is_told_with_what_to_do() -> Result<()> {
    let site = site("owner", &Topology::two_armed())?;
    let file = site.gateway.configuration();
    chown(file, Some(65534), Some(65534))?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
    // Root with all it may do reads it.
    site.gateway.verb(&["check"])?.expect(0)?;
    let said = site.gateway.verb(&["reload"])?.expect(3)?;
    let remedy = format!("`chown root: {}`", file.display());
    assert!(said.stderr.contains("is another user's") && said.stderr.contains(&remedy), "{said:?}");
    chown(file, Some(0), Some(0))?;
    site.gateway.verb(&["reload"])?.expect(0)?;
    Ok(())
}

#[test]
fn a_start_that_can_not_be_made_with_an_unconfirmed_reload_takes_it_back() -> Result<()> {
    let folder = Folder::new()?;
    let mut site = site("unstartable", &Topology::two_armed())?;
    let right = site.configuration(Options::default());
    let script = folder.script("notify", "exit 0")?;
    let notify = format!("[gateway]\nnotify = [{script:?}]\n");
    let other = right.replace("[gateway]\n", &notify).replace("max_fails = 1", "max_fails = 5");
    unconfirmed(&mut site, &other)?;
    // What it names is gone.
    fs::remove_file(&script)?;
    for round in 0..2 {
        site.gateway.start(&[])?;
        let status = site.gateway.status()?;
        let degraded = status.0["degraded"].to_string();
        assert!(
            degraded.contains("which was not confirmed") && degraded.contains("gateway.notify"),
            "{status}"
        );
        assert_eq!((status.active(), &status.0["pending"]), ("server1", &serde_json::json!([])), "{status}");
        let report = site.load(WEB, &["--connections", "20", "--expect", "server1"])?;
        assert_eq!(report["failed"], 0, "{report}");
        let events = site.gateway.verb(&["events", "-o", "json"])?.expect(0)?.json()?;
        let last = |name: &str| {
            let all = events["events"].as_array().into_iter().flatten();
            all.rev().find(|event| event["event"] == name).map(|event| event["reason"].clone())
        };
        let called = if round == 0 { "rolled_back" } else { "refused" };
        assert_eq!(last("reload"), Some(called.into()), "a person is called once: {events}");
        assert_eq!(last("degraded"), Some("configuration".into()), "{events}");
        site.gateway.verb(&["reload", "--confirmed"])?.expect(1)?;
        site.gateway.verb(&["reload"])?.expect(3)?;
        site.gateway.kill();
    }
    // Somebody who is there has written something else: that is as wrong as ever.
    site.gateway.configure(&other.replace("max_fails = 5", "max_fails = 4"))?;
    let said = site.gateway.verb(&["run"])?.expect(3)?;
    assert!(said.stderr.contains("gateway.notify"), "{said:?}");
    site.gateway.configure(&other)?;
    site.gateway.start(&[])?;
    assert_eq!(site.gateway.reload(&right)?[1], "nothing changed");
    let status = site.gateway.status()?;
    assert_eq!(status.0["degraded"], serde_json::json!([]), "{status}");
    site.gateway.kill();
    site.gateway.start(&[])?;
    Ok(())
}

#[test]
fn a_file_that_is_gone_is_taken_back_by_a_start_too() -> Result<()> {
    let mut site = site("gone", &Topology::two_armed())?;
    let right = site.configuration(Options::default());
    let mut held = site.hold(PASSWORDS, WEB)?;
    unconfirmed(&mut site, &right.replace("max_fails = 1", "max_fails = 5"))?;
    fs::remove_file(site.gateway.configuration())?;
    site.gateway.start(&[])?;
    let degraded = site.gateway.status()?.0["degraded"].to_string();
    assert!(degraded.contains("can't read the configuration"), "{degraded}");
    assert_eq!(site.gateway.reload(&right)?[1], "nothing changed");
    assert_eq!(held.ask()?, "server1");
    Ok(())
}

#[test]
fn what_can_not_be_attached_is_taken_back_by_the_same_start_and_stays_so() -> Result<()> {
    let mut site = site("unattachable", &Topology::two_armed())?;
    let http = "\n[http]\nlisten = \"127.0.0.1:9464\"\n";
    let right = format!("{}{http}", site.configuration(Options::default()));
    site.gateway.reload(&right)?;
    // Links that are there keep their mode.
    unconfirmed(&mut site, &right.replace("[gateway]\n", "[gateway]\nxdp_mode = \"native\"\n"))?;
    // What a native program sends to the client is lost from now on.
    site.lab().client().run(["ethtool", "-K", "eth0", "gro", "off"])?;
    for reboots in [true, false, true] {
        if reboots {
            site.gateway.verb(&["detach"])?.expect(0)?;
        }
        site.gateway.start(&[])?;
        let status = site.gateway.status()?;
        let degraded = status.0["degraded"].to_string();
        assert!(degraded.contains("was not confirmed"), "{status}");
        assert!(
            degraded.contains("native mode is not possible"),
            "what was wrong is not forgotten: {status}"
        );
        assert!(!degraded.contains("[http]"), "its address is free for the second try: {status}");
        let modes: Vec<_> = (0..2).map(|at| status.0["attachments"][at]["mode"].clone()).collect();
        assert_eq!(modes, ["generic", "generic"], "{status}");
        assert_eq!((status.active(), &status.0["pending"]), ("server1", &serde_json::json!([])), "{status}");
        let report = site.load(WEB, &["--connections", "20", "--expect", "server1"])?;
        assert_eq!(report["failed"], 0, "{report}");
        site.gateway.kill();
    }
    site.gateway.start(&[])?;
    assert_eq!(site.gateway.reload(&right)?[1], "nothing changed");
    let status = site.gateway.status()?;
    assert_eq!(status.0["degraded"], serde_json::json!([]), "{status}");
    Ok(())
}

#[test]
fn where_no_start_can_be_made_with_the_configuration_before_either_both_errors_are_told() -> Result<()> {
    let mut site = site("neither", &Topology::two_armed())?;
    let right =
        site.configuration(Options::default()).replace("[gateway]\n", "[gateway]\nxdp_mode = \"native\"\n");
    site.gateway.reload(&right)?;
    unconfirmed(&mut site, &right.replace("max_fails = 1", "max_fails = 5"))?;
    site.gateway.verb(&["detach"])?.expect(0)?;
    site.lab().client().run(["ethtool", "-K", "eth0", "gro", "off"])?;
    let said = site.gateway.verb(&["run"])?.expect(1)?;
    let (_, ending) = said.stderr.rsplit_once("balancer: ").context("an error")?;
    assert_eq!(ending.matches("native mode is not possible").count(), 2, "{said:?}");
    assert!(ending.contains("either with the configuration before"), "{said:?}");
    assert!(!said.stderr.contains("before is back"), "{said:?}");
    assert!(!site.lab().pin_dir().exists());
    // Nothing of it is forgotten.
    site.lab().client().run(["ethtool", "-K", "eth0", "gro", "on"])?;
    site.gateway.start(&[])?;
    site.gateway.wait_until("it to be taken back", |status| status.0["daemon"]["config_generation"] == 2)?;
    assert_eq!(rolled_back(&site)?, 1);
    Ok(())
}

#[test]
fn where_the_configuration_before_can_not_be_used_the_files_is_until_it_can() -> Result<()> {
    let folder = Folder::new()?;
    let mut site = site("until", &Topology::two_armed())?;
    let plain = site.configuration(Options::default());
    let script = folder.script("notify", "exit 0")?;
    site.gateway.reload(&plain.replace("[gateway]\n", &format!("[gateway]\nnotify = [{script:?}]\n")))?;
    site.gateway.configure(&plain.replace("max_fails = 1", "max_fails = 5"))?;
    site.gateway.verb(&["reload", "--confirm", "1s"])?.expect(0)?;
    site.gateway.wait_until("it to be taken back", |status| status.0["daemon"]["config_generation"] == 4)?;
    site.gateway.kill();
    fs::remove_file(&script)?;
    site.gateway.start(&[])?;
    let status = site.gateway.status()?;
    assert_eq!(
        (status.active(), &status.0["daemon"]["config_generation"]),
        ("server1", &1.into()),
        "{status}"
    );
    assert!(status.0["pending"].to_string().contains("the last reload is taken back"), "{status}");
    let logged = site.gateway.logged("reload");
    let is_told =
        |line: &serde_json::Value| line.to_string().contains("is tried again every 10s until it is back");
    assert!(logged.iter().any(is_told), "{logged:?}");
    folder.script("notify", "exit 0")?;
    site.gateway.wait_until("it to be back", |status| status.0["daemon"]["config_generation"] == 2)?;
    assert_eq!(rolled_back(&site)?, 2);
    Ok(())
}

/// How often a person was called for a reload that was taken back.
fn rolled_back(site: &Site) -> Result<usize> {
    let events = site.gateway.verb(&["events", "--limit", "100", "-o", "json"])?.expect(0)?.json()?;
    let is_it = |event: &&serde_json::Value| event["event"] == "reload" && event["reason"] == "rolled_back";
    Ok(events["events"].as_array().into_iter().flatten().filter(is_it).count())
}

/// A reload that waits for its confirmation, and the daemon's end.
fn unconfirmed(site: &mut Site, configuration: &str) -> Result<()> {
    site.gateway.configure(configuration)?;
    site.gateway.verb(&["reload", "--confirm", "10m"])?.expect(0)?;
    site.gateway.kill();
    Ok(())
}
