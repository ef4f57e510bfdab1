//! The daemon's life: killed, ended, started again and again, and taken away. Traffic is the kernel's and doesn't
//! notice; what the kernel holds stays the same, or is all gone.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    time::SystemTime,
};

use anyhow::{Context, Result};
use balancer_tests::{
    gateway::{PATIENCE, Said, Status, binary_under_test},
    inventory::{Inventory, attached_programs},
    lab::Topology,
    poll::poll_until,
    site::{API, Load, Options, PASSWORDS, POOL, Programs, Site, WEB},
};
use balancer_user::dataplane::layout_version;

/// Six seconds of it, all to the backup.
const STEADY: [&str; 8] =
    ["--rate", "200", "--parallel", "50", "--connections", "1200", "--expect", "server2"];

/// The first byte of a TLS record that holds an alert.
const TLS_ALERT: u8 = 21;

#[test]
fn a_killed_daemon_is_not_noticed_and_the_next_one_takes_over() -> Result<()> {
    let mut site = site("killed")?;
    // Not where a new start would begin.
    site.gateway.verb(&["failover", POOL])?.expect(0)?;
    let before = site.gateway.status()?;
    let (mut web, api) = (site.start_load(WEB, &STEADY)?, site.start_load(API, &STEADY)?);
    let mut rounds = 0;
    while web.is_running() {
        site.gateway.kill();
        site.gateway.start(&[])?;
        let after = site.gateway.status()?;
        assert_eq!(after.link_ids(), before.link_ids(), "no interface was without a program");
        assert_eq!((after.active(), &after.pool()["reason"]), ("server2", &"restored".into()), "{after}");
        assert_eq!(site.gateway.logged("transition").len(), 0);
        rounds += 1;
    }
    assert!(rounds >= 2, "killed {rounds} times while connections were made");
    flawless([web, api])?;
    let after = site.gateway.status()?;
    assert_eq!(after.service("web")["new_flows"], 1200, "counters go on: {after}");
    assert_eq!(site.gateway.new_flows_of("server1")?, 0);
    Ok(())
}

#[test]
fn a_daemon_killed_while_it_starts_is_not_noticed_either() -> Result<()> {
    let mut site = site("starting")?;
    site.gateway.verb(&["failover", POOL])?.expect(0)?;
    let before = site.gateway.status()?;
    let (mut web, api) = (site.start_load(WEB, &STEADY)?, site.start_load(API, &STEADY)?);
    while web.is_running() {
        // Maps adopted; in the middle of the first probes; programs replaced, before it says so to anybody.
        for event in ["started", "health", "attached"] {
            site.gateway.launch(&[])?;
            poll_until(PATIENCE, event, || {
                if site.gateway.logged(event).is_empty() { Err("not logged yet") } else { Ok(()) }
            })?;
            site.gateway.kill();
        }
    }
    flawless([web, api])?;
    site.gateway.start(&[])?;
    let after = site.gateway.status()?;
    assert_eq!((after.link_ids(), after.active()), (before.link_ids(), "server2"), "{after}");
    Ok(())
}

#[test]
fn a_server_that_died_while_no_daemon_watched_is_left_at_the_next_start() -> Result<()> {
    let mut site = site("unwatched")?;
    site.gateway.kill();
    site.kill(0);
    site.gateway.start(&[])?;
    let status = site.gateway.wait_until("the backup to be active", |status| status.active() == "server2")?;
    assert_eq!(status.pool()["reason"], "backend_down", "{status}");
    let report = site.load(WEB, &["--connections", "20", "--expect", "server2"])?;
    assert_eq!(report["failed"], 0, "{report}");
    Ok(())
}

#[test]
fn a_refused_start_leaves_what_is_pinned_and_its_traffic_alone() -> Result<()> {
    let mut site = site("pinned")?;
    let held = Inventory::of(&site.gateway.status()?);
    site.gateway.terminate()?;
    site.gateway.configure(&site.configuration(Options::default()).replace("[gateway]", "[gatewai]"))?;
    let said = site.gateway.verb(&["run"])?.expect(3)?;
    assert!(said.stderr.contains("did you mean"), "{said:?}");
    assert_eq!(held.remaining(), held);
    let report = site.load(WEB, &["--connections", "20", "--expect", "server1"])?;
    assert_eq!(report["failed"], 0, "{report}");
    Ok(())
}

#[test]
fn tables_of_another_size_wait_for_a_start_that_replaces_them() -> Result<()> {
    let mut site = site("sizes")?;
    let mut client = site.hold(PASSWORDS, WEB)?;
    let held = Inventory::of(&site.gateway.status()?);
    let other = site
        .configuration(Options::default())
        .replace("max_flows = 16384", "max_flows = 32768")
        .replace("max_half_open = 4096", "max_half_open = 1000");
    site.gateway.reload(&other)?;
    for _ in 0..2 {
        site.gateway.kill();
        site.gateway.start(&[])?;
        assert_eq!(client.ask()?, "server1");
        let status = site.gateway.status()?;
        assert_eq!(status.service("web")["new_flows"], 1, "counters go on: {status}");
        let pending = status.0["pending"].to_string();
        assert!(pending.contains("max_flows stays 16384") && pending.contains("to 32768"), "{pending}");
        assert!(pending.contains("max_half_open stays 4096") && pending.contains("to 1000"), "{pending}");
        // And is waited for by whoever reloads.
        assert_eq!(site.gateway.reload(&other)?[1], "nothing changed");
    }
    site.gateway.kill();
    site.gateway.start(&["--replace"])?;
    assert_eq!(site.gateway.status()?.0["pending"], serde_json::json!([]));
    // Nothing but the links: no interface was without a program.
    wait_for_remaining(&held, &Inventory { links: held.links.clone(), ..Inventory::default() })?;
    let report = site.load(WEB, &["--connections", "20", "--expect", "server1"])?;
    assert_eq!(report["failed"], 0, "{report}");
    Ok(())
}

#[test]
fn traffic_goes_on_without_a_daemon() -> Result<()> {
    for by_signal in ["SIGTERM", "SIGKILL"] {
        let mut site = site("alone")?;
        site.gateway.verb(&["failover", POOL])?.expect(0)?;
        let before = site.gateway.status()?;
        let load = site.start_load(WEB, &STEADY)?;
        if by_signal == "SIGTERM" {
            site.gateway.terminate()?
        } else {
            site.gateway.kill()
        }
        flawless([load, site.start_load(API, &STEADY)?])?;
        site.gateway.start(&[])?;
        let after = site.gateway.status()?;
        assert_eq!(after.link_ids(), before.link_ids(), "{by_signal}");
        assert_eq!(after.service("api")["new_flows"], 1200, "{by_signal}: counted without a daemon: {after}");
    }
    Ok(())
}

#[test]
fn an_open_connection_outlives_the_daemon() -> Result<()> {
    let mut site = site("open")?;
    let mut client = site.connect(WEB)?;
    let is_open = |status: &Status| status.backend("server1")["flows"] == 1;
    site.gateway.wait_until("the flow", is_open)?;
    site.gateway.kill();
    site.gateway.start(&[])?;
    assert!(is_open(&site.gateway.status()?), "the flow was not adopted");
    // The server waits for a TLS handshake and answers anything else with an alert.
    client.write_all(b"no TLS at all\r\n")?;
    let mut answer = [0];
    client.read_exact(&mut answer)?;
    assert_eq!(answer, [TLS_ALERT]);
    Ok(())
}

#[test]
fn twenty_restarts_leave_as_many_programs_links_and_maps() -> Result<()> {
    let mut site = site("twenty")?;
    let first = Inventory::of(&site.gateway.status()?);
    assert_eq!((first.programs.len(), first.links.len()), (1, 2), "{first:?}");
    for round in 0..20 {
        if round % 2 == 0 {
            site.gateway.kill()
        } else {
            site.gateway.terminate()?
        }
        site.gateway.start(&[])?;
    }
    // The kernel frees what was replaced a little later.
    poll_until(PATIENCE, "as much as at first", || {
        let status = site.gateway.status().map_err(|error| format!("{error:#}"))?;
        let now = Inventory::of(&status);
        let is_same = now.counts() == first.counts() && now.links == first.links;
        if is_same { Ok(()) } else { Err(format!("{now:?}, at first {first:?}")) }
    })
}

#[test]
fn detach_leaves_nothing_and_is_refused_beside_a_daemon() -> Result<()> {
    let mut site = site("detach")?;
    let status = site.gateway.status()?;
    let held = Inventory::of(&status);
    let said = site.gateway.verb(&["detach"])?.expect(7)?;
    let pid = site.gateway.pid()?.to_string();
    assert!(said.stderr.contains(&format!("(pid {pid})")), "{said:?}");
    assert_eq!(site.gateway.status()?.link_ids(), status.link_ids(), "a refusal changes nothing");
    // Who may not see what is pinned isn't told that there is nothing.
    let said = by_nobody(&site, &["detach"])?.expect(5)?;
    assert!(said.stderr.contains("root"), "{said:?}");

    site.gateway.terminate()?;
    assert_eq!(held.remaining(), held, "SIGTERM leaves everything in place");
    site.gateway.verb(&["detach"])?.expect(0)?;
    assert_gone(&site, &held)?;
    site.gateway.verb(&["detach"])?.expect(0)?;
    Ok(())
}

/// A verb of the binary, where every user may run it, by one without any rights.
fn by_nobody(site: &Site, verb: &[&str]) -> Result<Said> {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    let binary = folder.path().join("balancer");
    fs::copy(binary_under_test()?, &binary)?;
    let mut words = site.gateway.words(verb);
    words[0] = binary.display().to_string();
    let user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"].map(str::to_owned);
    site.gateway.run(&[&user[..], &words].concat())
}

#[test]
fn detach_on_exit_leaves_nothing() -> Result<()> {
    let mut site = site("on_exit")?;
    site.gateway.terminate()?;
    site.gateway.start(&["--detach-on-exit"])?;
    let held = Inventory::of(&site.gateway.status()?);
    site.gateway.terminate()?;
    assert_gone(&site, &held)
}

#[test]
fn a_second_instance_is_refused_and_the_first_one_goes_on() -> Result<()> {
    let site = site("second")?;
    let before = site.gateway.status()?;
    let said = site.gateway.verb(&["run"])?.expect(7)?;
    let pid = site.gateway.pid()?.to_string();
    assert!(said.stderr.contains(&format!("(pid {pid})")), "{said:?}");
    let after = site.gateway.status()?;
    assert_eq!(after.0["attachments"], before.0["attachments"], "{after}");
    let report = site.load(WEB, &["--connections", "20", "--expect", "server1"])?;
    assert_eq!(report["failed"], 0, "{report}");
    Ok(())
}

#[test]
fn verbs_without_a_daemon_and_without_pins_exit_4() -> Result<()> {
    let mut site = site("verbs")?;
    site.gateway.terminate()?;
    site.gateway.verb(&["detach"])?.expect(0)?;
    for verb in [&["status"][..], &["stats"], &["flows"], &["failover", POOL], &["failback", POOL]] {
        let said = site.gateway.verb(verb)?.expect(4)?;
        assert!(said.stdout.is_empty() && said.stderr.contains("no daemon answers"), "{said:?}");
    }
    Ok(())
}

#[test]
fn what_another_layout_has_pinned_is_named_and_given_up_only_when_asked() -> Result<()> {
    let mut site = site("layout")?;
    let before = site.gateway.status()?;
    let held = Inventory::of(&before);
    become_another_version(&mut site, "v4")?;
    let said = site.gateway.verb(&["run"])?.expect(1)?;
    let words = [
        "/v4 ",
        "layout v4",
        "wan0, lan0",
        "flows and its counters would be lost",
        "`balancer run --replace`",
    ];
    assert!(words.iter().all(|words| said.stderr.contains(words)), "{said:?}");
    assert!(!said.stderr.contains("not ours"), "{said:?}");
    assert_eq!(held.remaining(), held);
    let report = site.load(WEB, &["--connections", "20", "--expect", "server1"])?;
    assert_eq!(report["failed"], 0, "{report}");

    let clients = site.watch_as(WEB, &["--interval", "10ms", "--timeout", "500ms"])?;
    site.gateway.start(&["--replace"])?;
    clients.first_answer("server1", SystemTime::now())?;
    let attempts = clients.attempts();
    let failed = attempts.iter().filter(|attempt| attempt["error"].is_string()).count();
    // Those that were under way in that moment.
    assert!(attempts.len() >= 20 && failed <= 5, "{failed} failed of {attempts:?}");
    assert_eq!(site.gateway.status()?.link_ids(), before.link_ids(), "no interface was without a program");
    wait_for_remaining(&held, &Inventory { links: held.links.clone(), ..Inventory::default() })?;
    assert!(!site.lab().pin_dir().join("v4").exists());
    Ok(())
}

#[test]
fn detach_takes_along_what_another_layout_has_pinned() -> Result<()> {
    let mut site = site("layouts")?;
    let held = Inventory::of(&site.gateway.status()?);
    become_another_version(&mut site, "v3")?;
    site.gateway.verb(&["detach"])?.expect(0)?;
    assert_gone(&site, &held)
}

/// Ends the daemon, and makes it look as if another version had been it.
fn become_another_version(site: &mut Site, layout: &str) -> Result<()> {
    site.gateway.terminate()?;
    let pins = site.lab().pin_dir();
    fs::rename(pins.join(layout_version()), pins.join(layout)).context("rename the pins' directory")
}

fn wait_for_remaining(held: &Inventory, wanted: &Inventory) -> Result<()> {
    // The kernel frees programs and maps a little after their last user.
    poll_until(PATIENCE, "the kernel to free the old ones", || {
        let remaining = held.remaining();
        if remaining == *wanted { Ok(()) } else { Err(format!("{remaining:?}")) }
    })
}

/// Nothing of it in the kernel, on the interfaces or on bpffs.
fn assert_gone(site: &Site, held: &Inventory) -> Result<()> {
    wait_for_remaining(held, &Inventory::default())?;
    assert_eq!(attached_programs(site.lab().gateway())?, BTreeMap::new());
    assert!(!site.lab().pin_dir().exists());
    Ok(())
}

fn flawless(loads: [Load; 2]) -> Result<()> {
    for load in loads {
        let report = load.report()?;
        assert_eq!((&report["ok"], &report["failed"]), (&1200.into(), &0.into()), "{report}");
    }
    Ok(())
}

fn site(label: &str) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    Site::start(label, &Topology::two_armed(), Options::default(), &programs)
}
