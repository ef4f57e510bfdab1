//! How a reload is asked for: what is wrong is refused, what nobody confirms is taken back, and who does not wait is told later.

use super::*;

#[test]
fn a_file_that_is_wrong_changes_nothing_and_every_error_is_told() -> Result<()> {
    let mut site = site("wrong", &Topology::two_armed())?;
    let right = site.configuration(Options::default());
    let wrong = right.replace("max_fails = 1", "max_fail = 5").replace("[gateway]\n", "[gateway]\nx = 1\n");
    let before = site.gateway.status()?;
    site.gateway.configure(&wrong)?;
    let said = site.gateway.verb(&["reload"])?.expect(3)?;
    assert!(said.stdout.is_empty(), "{said:?}");
    assert_eq!(said.stderr.matches("did you mean `max_fails`?").count(), 2, "{said:?}");
    assert!(said.stderr.contains(":2:1: gateway: unknown key `x`"), "{said:?}");
    site.gateway.signal(Signal::HUP)?;
    poll_until(SOON, "the log to tell", || {
        let logged = site.gateway.logged("reload");
        let told = logged.iter().filter(|line| line["level"] == "ERROR" && line["by"] == "SIGHUP");
        if told.count() > 2 { Ok(()) } else { Err(format!("{logged:?}")) }
    })?;
    let after = site.gateway.status()?;
    assert_eq!((after.link_ids(), after.active()), (before.link_ids(), "server1"));
    assert_eq!(after.0["daemon"]["config_generation"], 1);
    let events = site.gateway.verb(&["events", "-o", "json"])?.expect(0)?.json()?;
    let refused = |event: &&serde_json::Value| event["event"] == "reload" && event["reason"] == "refused";
    assert_eq!(events["events"].as_array().into_iter().flatten().filter(refused).count(), 2, "{events}");
    site.gateway.configure(&right.replace("max_fails = 1", "max_fails = 2"))?;
    site.gateway.signal(Signal::HUP)?;
    site.gateway.wait_until("SIGHUP to be heard", |status| status.0["daemon"]["config_generation"] == 2)?;
    Ok(())
}

#[test]
fn a_reload_that_nobody_confirms_is_taken_back() -> Result<()> {
    let site = site("confirm", &Topology::two_armed())?;
    let right = site.configuration(Options::default());
    let other = right.replace("max_fails = 1", "max_fails = 5");
    let load = site.start_load(WEB, &STEADY)?;
    site.gateway.verb(&["reload", "--confirmed"])?.expect(1)?;
    site.gateway.configure(&other)?;
    let said = site.gateway.verb(&["reload", "--confirm", "2s", "-o", "json"])?.expect(0)?.json()?;
    assert!(said["confirm_until"].is_string() && said["config_generation"] == 2, "{said}");
    let shown = site.gateway.verb(&["status"])?.expect(0)?.stdout;
    assert!(shown.contains("pending: the last reload is taken back at"), "{shown}");
    let said = site.gateway.verb(&["reload"])?.expect(1)?;
    assert!(said.stderr.contains("waits for its confirmation until"), "{said:?}");
    site.gateway.wait_until("it to be taken back", |status| status.0["daemon"]["config_generation"] == 3)?;
    let events = site.gateway.verb(&["events"])?.expect(0)?.stdout;
    assert!(events.contains("rolled_back") && events.contains("max_fails of server1 5 -> 1"), "{events}");
    site.gateway.verb(&["reload", "--confirmed"])?.expect(1)?;

    site.gateway.verb(&["reload", "--confirm", "1s"])?.expect(0)?;
    site.gateway.verb(&["reload", "--confirmed"])?.expect(0)?;
    // The time that was confirmed for.
    thread::sleep(Duration::from_millis(1500));
    let status = site.gateway.status()?;
    assert_eq!(status.0["daemon"]["config_generation"], 4, "{status}");
    assert_eq!(status.0["pending"], serde_json::json!([]));
    assert_eq!(site.gateway.reload(&other)?[1], "nothing changed");
    assert_eq!(load.report()?["failed"], 0);
    Ok(())
}

#[test]
fn who_does_not_wait_for_a_reload_is_told_by_an_event() -> Result<()> {
    let site = site("unwaited", &Topology::two_armed())?;
    let right = site.configuration(Options::default());
    for (text, reason, words) in [
        (right.replace("max_fails = 1", "max_fails = 2"), "accepted", "max_fails of server1 1 -> 2"),
        (right.replace("max_fails", "max_failures"), "refused", "did you mean"),
    ] {
        site.gateway.configure(&text)?;
        let said = site.gateway.verb(&["reload", "--no-wait"])?.expect(0)?;
        assert!(said.stdout.starts_with("the configuration is being read"), "{said:?}");
        poll_until(PATIENCE, reason, || {
            let events = site.gateway.verb(&["events"]).map_err(|error| format!("{error:#}"))?.stdout;
            let is_told = |line: &str| {
                [reason, "`reload --no-wait` by uid 0", words].iter().all(|word| line.contains(word))
            };
            if events.lines().any(is_told) { Ok(()) } else { Err(events) }
        })?;
    }
    Ok(())
}
