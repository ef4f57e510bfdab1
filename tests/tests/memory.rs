//! What outlives the daemon, and the kernel's maps: who is active and why. And a state directory that can't be written,
//! which is no reason for anything to stop.

use std::fs;

use anyhow::{Context, Result};
use balancer_tests::{
    folder::Folder,
    gateway::{PATIENCE, Status},
    lab::Topology,
    poll::poll_until,
    site::{API, Options, POOL, Programs, Site, WEB},
};
use serde_json::Value;

/// [44]
#[test]
fn after_a_reboot_the_promoted_backend_is_active_and_the_first_one_gets_nothing() -> Result<()> {
    let mut site = site("reboot")?;
    site.kill(0);
    site.gateway.wait_until("the backup to be active", |status| status.active() == "server2")?;
    site.serve(0)?;
    site.gateway.kill();
    // What a reboot leaves of the kernel's side.
    site.gateway.verb(&["detach"])?.expect(0)?;

    site.gateway.start(&[])?;
    let status = site.gateway.wait_until("both to be up", Status::are_all_up)?;
    assert_eq!((status.active(), &status.pool()["reason"]), ("server2", &"restored".into()), "{status}");
    for service in [WEB, API] {
        let report = site.load(service, &["--connections", "50", "--expect", "server2"])?;
        assert_eq!(report["failed"], 0, "{report}");
    }
    assert_eq!(site.gateway.new_flows_of("server1")?, 0);

    let story = site.gateway.verb(&["events", "-o", "json"])?.expect(0)?.json()?;
    assert_eq!(story["schema"], "balancer.events/1");
    let moves: Vec<_> = of_kind(&story["events"], "transition").map(change).collect();
    let expected = [("null", "server1", "initial"), ("server1", "server2", "backend_down")];
    assert_eq!(moves, expected.map(|(from, to, reason)| format!("{from} {to} {reason}")), "{story}");
    assert_eq!(of_kind(&story["events"], "started").count(), 2, "{story}");
    let ids: Vec<_> = list(&story["events"]).filter_map(|record| record["id"].as_u64()).collect();
    assert!(ids[0] == 1 && ids.windows(2).all(|two| two[0] + 1 == two[1]), "{ids:?}");

    let why = explained(&site)?;
    // The same from what a dead daemon left behind.
    site.gateway.terminate()?;
    assert_eq!(explained(&site)?["chain"], why["chain"]);
    let said = site.gateway.verb(&["events", "--limit", "1"])?.expect(0)?;
    assert!(said.stdout.contains("stopped") && said.stderr.contains("no daemon answers"), "{said:?}");

    site.gateway.start(&[])?;
    site.gateway.verb(&["failback", POOL])?.expect(0)?;
    assert_eq!(site.gateway.status()?.active(), "server1");
    let said = site.gateway.verb(&["why", POOL])?.expect(0)?;
    let words =
        ["passwords is on server1", "new flows went from server2 to server1, reason failback", "by uid 0"];
    assert!(words.iter().all(|word| said.stdout.contains(word)), "{said:?}");
    Ok(())
}

/// Asks for the reason of the failover, and holds it against the story.
fn explained(site: &Site) -> Result<Value> {
    let why = site.gateway.verb(&["why", POOL, "-o", "json"])?.expect(0)?.json()?;
    assert_eq!((&why["pool"], &why["active"]), (&POOL.into(), &"server2".into()), "{why}");
    let chain: Vec<_> = list(&why["chain"]).collect();
    let (first, last) = (chain.first().context("a chain")?, chain.last().context("a chain")?);
    assert_eq!(
        (change(first), change(last)),
        ("server1 server2 backend_down".into(), "null server1 initial".into())
    );
    let failure = of_kind(&why["chain"], "health").find(|record| record["backend"] == "server1");
    let failure = failure.with_context(|| format!("server1's failure in {why}"))?;
    assert_eq!(failure["to"], "down", "{why}");
    Ok(why)
}

#[test]
fn an_unknown_pool_is_refused_with_those_that_there_are() -> Result<()> {
    let mut site = site("whose")?;
    for round in ["with a daemon", "without one"] {
        let said = site.gateway.verb(&["why", "mails"])?.expect(1)?;
        assert!(said.stderr.contains("there is no pool \"mails\"; there is passwords"), "{round}: {said:?}");
        if round == "with a daemon" {
            site.gateway.terminate()?;
        }
    }
    Ok(())
}

#[test]
fn followers_hear_what_happens_until_the_daemon_ends() -> Result<()> {
    let mut site = site("follow")?;
    let words = site.gateway.words(&["events", "--follow", "--limit", "1", "-o", "json"]);
    let mut follower = site.lab().gateway().spawn(words)?;
    poll_until(PATIENCE, "the past", || match follower.stdout().lines().count() {
        1 => Ok(()),
        count => Err(format!("{count} lines")),
    })?;
    site.gateway.verb(&["failover", POOL])?.expect(0)?;
    site.gateway.terminate()?;
    assert_eq!(follower.wait(PATIENCE)?.code(), Some(0), "{}", follower.stderr());
    assert!(follower.stderr().contains("the daemon has ended"), "{}", follower.stderr());
    let records: Vec<Value> =
        follower.stdout().lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let events: Vec<_> = records[1..].iter().filter_map(|record| record["event"].as_str()).collect();
    assert_eq!(events, ["command", "transition", "stopped"], "{records:?}");
    Ok(())
}

/// [51]
#[test]
fn a_state_directory_that_cannot_be_written_is_told_and_stops_nothing() -> Result<()> {
    let folder = Folder::new()?;
    let notify = folder.script("notify", "cat >> \"$folder/events\"")?;
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    let options = Options { failback: "manual", ..Options::default() };
    let mut site = Site::prepare("unwritable", &Topology::two_armed(), options, &programs)?;
    let text = site.configuration(options);
    site.gateway.configure(&text.replace("[gateway]", &format!("[gateway]\nnotify = [{notify:?}]")))?;
    site.begin()?;
    // Not even root writes a file where a directory stands that isn't empty.
    let block = site.lab().state_dir().join("state.json.new");
    fs::create_dir_all(block.join("full"))?;
    let said = site.gateway.verb(&["failover", POOL])?.expect(0)?;
    assert!(
        said.stdout.contains("a reboot may forget it: ") && said.stdout.contains("state.json"),
        "{said:?}"
    );
    let status = site.gateway.status()?;
    assert_eq!(status.active(), "server2", "{status}");
    assert!(status.0["degraded"][0].as_str().is_some_and(|text| text.contains("state.json")), "{status}");
    let table = site.gateway.verb(&["status"])?.expect(0)?.stdout;
    assert!(table.contains("degraded: "), "{table}");
    let report = site.load(WEB, &["--connections", "50", "--expect", "server2"])?;
    assert_eq!(report["failed"], 0, "{report}");
    let told = site.gateway.logged("store").len();
    site.gateway.verb(&["failback", POOL])?.expect(0)?;
    assert_eq!((told, site.gateway.logged("store").len()), (1, 1), "once for as long as it lasts");
    let called = poll_until(PATIENCE, "the call", || {
        let lines = folder.lines("events");
        if lines.is_empty() { Err("nobody was called") } else { Ok(lines) }
    })?;
    let calls: Vec<Value> = called.iter().map(|line| serde_json::from_str(line)).collect::<Result<_, _>>()?;
    let calls: Vec<_> = calls.iter().map(|call| (&call["event"], &call["reason"])).collect();
    assert_eq!(calls, [(&"degraded".into(), &"state.json".into())], "once");

    fs::remove_dir_all(block)?;
    site.gateway.wait_until("it to be well again", |status| status.0["degraded"] == Value::Array(vec![]))?;
    let state: Value = serde_json::from_str(&fs::read_to_string(site.lab().state_dir().join("state.json"))?)?;
    assert_eq!(state["pools"][0]["active"], "server1", "{state}");
    Ok(())
}

fn list(records: &Value) -> impl Iterator<Item = &Value> {
    records.as_array().into_iter().flatten()
}

fn of_kind<'a>(records: &'a Value, event: &'a str) -> impl Iterator<Item = &'a Value> {
    list(records).filter(move |record| record["event"] == event)
}

/// `FROM TO REASON`.
fn change(record: &Value) -> String {
    let word = |key: &str| record[key].as_str().unwrap_or("null").to_owned();
    format!("{} {} {}", word("from"), word("to"), word("reason"))
}

fn site(label: &str) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    let options = Options { failback: "manual", fail_timeout: "1s", ..Options::default() };
    Site::start(label, &Topology::two_armed(), options, &programs)
}
