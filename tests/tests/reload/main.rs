//! The configuration is read once more under traffic: what is the same goes on, what is another way is so at once, and what
//! is wrong changes nothing.

mod asked;
mod remembered;
mod role;

use std::{
    fs,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use balancer_tests::{
    folder::Folder,
    gateway::{PATIENCE, Status},
    inventory::Inventory,
    lab::Topology,
    poll::poll_until,
    site::{API, Held, Load, Options, PASSWORDS, POOL, Programs, Service, Site, WEB},
};
use rustix::process::Signal;

/// For what comes at once, and has to come before a client would notice by itself.
const SOON: Duration = Duration::from_secs(10);
/// A load that goes on for some six seconds.
const STEADY: [&str; 6] = ["--rate", "200", "--parallel", "50", "--connections", "1200"];

#[test]
fn what_is_the_same_goes_on_and_what_is_not_is_told_line_by_line() -> Result<()> {
    let site = site("same", &Topology::two_armed())?;
    let right = site.configuration(Options::default());
    let mut held = site.hold(PASSWORDS, WEB)?;
    let (web, api) = (site.start_load(WEB, &STEADY)?, site.start_load(API, &STEADY)?);
    let before = site.gateway.status()?;
    let said = site.gateway.reload(&right)?;
    assert_eq!(said, ["configuration generation 2 is accepted", "nothing changed"]);
    let said = site.gateway.reload(&right.replace("max_fails = 1", "max_fails = 5"))?;
    let lines = [
        "configuration generation 3 is accepted",
        "pool passwords: max_fails of server1 1 -> 5",
        "pool passwords: max_fails of server2 1 -> 5",
    ];
    assert_eq!(said, lines);
    let after = site.gateway.status()?;
    assert_eq!(after.link_ids(), before.link_ids());
    for server in ["server1", "server2"] {
        let (before, after) = (before.backend(server), after.backend(server));
        assert_eq!((&after["since"], &after["health"]), (&before["since"], &before["health"]), "{after}");
    }
    assert_eq!((after.active(), &after.pool()["since"]), ("server1", &before.pool()["since"]), "{after}");
    assert_eq!(after.0["daemon"]["config_generation"], 3);
    flawless([web, api])?;
    assert_eq!(held.ask()?, "server1");
    let after = site.gateway.status()?;
    assert_eq!(after.service("web")["new_flows"], 1201, "counters go on: {after}");
    let events = site.gateway.verb(&["events"])?.expect(0)?.stdout;
    assert!(events.contains("max_fails of server1 1 -> 5"), "{events}");
    Ok(())
}

#[test]
fn a_removed_backend_gets_nothing_new_and_its_flows_end_at_the_deadline() -> Result<()> {
    let site = site("removed", &Topology::two_armed())?;
    let right = with_pool_keys(&site, "drain_deadline = \"3s\"\n");
    site.gateway.reload(&right)?;
    let mut busy = site.hold(PASSWORDS, WEB)?;
    assert_eq!(busy.ask()?, "server1");
    let load = site.start_load(WEB, &STEADY)?;
    site.gateway
        .wait_until("connections", |status| status.service("web")["new_flows"].as_u64() > Some(100))?;
    let begun = Instant::now();
    let said = site.gateway.reload(&without_backend(&right, "server1"))?;
    assert!(said[1].starts_with("pool passwords: backend server1 removed (10.0.2.11)"), "{said:?}");
    let status = site.gateway.status()?;
    assert_eq!((status.active(), &status.pool()["reason"]), ("server2", &"config".into()), "{status}");
    assert_eq!(status.pool()["backends"].as_array().map(Vec::len), Some(1), "{status}");
    let later = site.load(WEB, &["--connections", "20", "--expect", "server2"])?;
    assert_eq!(later["failed"], 0, "{later}");
    assert_eq!(busy.ask()?, "server1", "what it has goes on");
    let flows = site.gateway.verb(&["flows", "--backend", "server1"])?.expect(0)?.stdout;
    assert!(flows.contains("server1"), "{flows}");
    ends(&mut busy)?;
    assert!(begun.elapsed() >= Duration::from_secs(3), "after {:?}", begun.elapsed());
    assert_eq!(load.report()?["failed"], 0);
    // Back again, it is nobody's heir.
    let said = site.gateway.reload(&right)?;
    assert!(said[1].starts_with("pool passwords: backend server1 added"), "{said:?}");
    let status = site.gateway.wait_until("both to be up", Status::are_all_up)?;
    assert_eq!(status.active(), "server2", "{status}");
    Ok(())
}

#[test]
fn what_left_before_a_restart_is_ended_after_it() -> Result<()> {
    let mut site = site("orphan", &Topology::two_armed())?;
    let right = with_pool_keys(&site, "drain_deadline = \"3s\"\n");
    let mut busy = site.hold(PASSWORDS, WEB)?;
    site.gateway.terminate()?;
    site.gateway.configure(&without_backend(&right, "server1"))?;
    let begun = Instant::now();
    site.gateway.start(&[])?;
    assert_eq!(busy.ask()?, "server1", "what it has goes on");
    ends(&mut busy)?;
    assert!(begun.elapsed() >= Duration::from_secs(3), "after {:?}", begun.elapsed());
    let report = site.load(WEB, &["--connections", "20", "--expect", "server2"])?;
    assert_eq!(report["failed"], 0, "{report}");
    Ok(())
}

#[test]
fn each_kind_of_change_is_carried_out_under_traffic() -> Result<()> {
    let mut site = site("kinds", &Topology::two_armed())?;
    let right = site.configuration(Options::default());
    let load = site.start_load(WEB, &["--rate", "150", "--parallel", "50", "--connections", "3000"])?;
    let mut held = site.hold(PASSWORDS, WEB)?;

    // A service more, and one less.
    let more = format!(
        "{right}\n[[pool.service]]\nname = \"more\"\nlisten = \"203.0.113.10:8443\"\nbackend_port = 10001\n"
    );
    let said = site.gateway.reload(&more)?;
    has(&said, "pool passwords: service more added (203.0.113.10:8443 to port 10001)");
    let service = Service { name: "more", port: 8443, backend_port: 10001 };
    let mut on_more = site.hold(PASSWORDS, service)?;
    assert_eq!(on_more.ask()?, "server1");
    site.gateway.reload(&right)?;
    assert_eq!(on_more.ask()?, "server1", "its flows go on");

    // Another order, under `manual`.
    let said = site.gateway.reload(&turned(&right))?;
    has(&said, "pool passwords: backends in another order: server2, server1");
    assert_eq!(site.gateway.status()?.active(), "server1");
    site.gateway.reload(&right)?;

    // Another way of forwarding, and other limits.
    let said = site.gateway.reload(&right.replace("forwarding = \"snat\"", "forwarding = \"dnat\""))?;
    has(&said, "pool passwords: forwarding snat -> dnat");
    let report = site.load(WEB, &["--connections", "20", "--expect", "server1"])?;
    assert_eq!(report["failed"], 0, "{report}");
    assert_eq!(held.ask()?, "server1");
    site.gateway.reload(&right)?;

    // Another port on the backends: where another service of theirs listens.
    let moved = right.replacen("backend_port = 10001", "backend_port = 8877", 1);
    let said = site.gateway.reload(&moved)?;
    has(&said, "pool passwords: backend_port of service web 10001 -> 8877");
    let report = site.load(WEB, &["--connections", "20", "--expect", "server1"])?;
    assert_eq!(report["failed"], 0, "{report}");
    assert_eq!(held.ask()?, "server1", "the flow keeps its port");
    site.kill_one(0, WEB);
    let report = site.load(WEB, &["--connections", "20", "--expect", "server1"])?;
    assert_eq!(report["failed"], 0, "new flows are not led there any more: {report}");
    site.serve_service(0, WEB)?;
    site.gateway.reload(&right)?;
    site.gateway.wait_until("all to be up", Status::are_all_up)?;

    // A pool more.
    let pool = format!("{right}{}", second_pool(&right));
    let said = site.gateway.reload(&pool)?;
    has(&said, "pool second added (1 services, 1 backends)");
    let target = SocketAddr::new(site.vip(PASSWORDS), 9443);
    let report =
        site.load_from(site.lab().client(), target, &["--connections", "20", "--expect", "server2"])?;
    assert_eq!(report["failed"], 0, "{report}");
    let said = site.gateway.reload(&right)?;
    has(&said, "pool second removed");

    // What needs a restart is said, and the rest is done.
    let larger =
        right.replace("max_flows = 16384", "max_flows = 32768").replace("max_fails = 1", "max_fails = 2");
    let said = site.gateway.reload(&larger)?;
    let pending =
        said.iter().find(|line| line.starts_with("pending: max_flows stays 16384")).context("pending")?;
    assert!(pending.contains("--replace"), "{said:?}");
    has(&said, "pool passwords: max_fails of server1 1 -> 2");
    let report = load.report()?;
    assert_eq!(report["failed"], 0, "{report}");
    Ok(())
}

#[test]
fn an_interface_is_added_and_removed_under_traffic() -> Result<()> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    let mut site = Site::prepare("interface", &Topology::three_armed(), Options::default(), &programs)?;
    let right = site.configuration(Options::default());
    let less = right.replace(", \"lan1\"", "");
    ensure!(less != right, "{right}");
    site.gateway.configure(&less)?;
    (0..2).try_for_each(|server| site.serve(server))?;
    site.gateway.start(&[])?;
    let load = site.start_load(WEB, &STEADY)?;
    let said = site.gateway.reload(&right)?;
    assert!(said[1].starts_with("gateway: interfaces ") && said[1].ends_with("lan0, lan1"), "{said:?}");
    site.gateway.wait_until("the new interface", |status| status.link_ids().len() == 3)?;
    site.gateway.wait_until("all servers to be up", Status::are_all_up)?;
    site.gateway.verb(&["failover", POOL, "--to", "server2"])?.expect(0)?;
    let report = site.load(WEB, &["--connections", "20", "--expect", "server2"])?;
    assert_eq!(report["failed"], 0, "{report}");
    site.gateway.verb(&["failback", POOL])?.expect(0)?;
    site.gateway.reload(&less)?;
    assert_eq!(site.gateway.status()?.link_ids().len(), 2);
    assert_eq!(load.report()?["failed"], 0);
    Ok(())
}

#[test]
fn a_pool_that_is_switching_is_left_alone_until_that_is_over() -> Result<()> {
    let folder = Folder::new()?;
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    let mut site = Site::prepare("switching", &Topology::two_armed(), Options::default(), &programs)?;
    let step =
        folder.script("step", "while [ -e $folder/wait ]; do sleep 0.05; done; exit $(cat $folder/code)")?;
    fs::write(folder.at("wait"), "")?;
    fs::write(folder.at("code"), "1")?;
    let hook = |program: &str| {
        format!(
            "\n[[pool.hook]]\nname = \"promote\"\nwhen = \"before\"\nrun = [{program:?}]\ntimeout = \"20s\"\n"
        )
    };
    let base = site.configuration(Options::default()).replace("on_backend_down = \"keep\"\n", "");
    let step = step.display().to_string();
    site.gateway.configure(&format!("{base}{}", hook(&step)))?;
    (0..2).try_for_each(|server| site.serve(server))?;
    site.gateway.start(&[])?;
    site.gateway.wait_until("all servers to be up", Status::are_all_up)?;
    site.gateway.verb(&["failover", POOL, "--no-wait"])?.expect(0)?;
    let other = base.replace("max_fails = 1", "max_fails = 5");
    let said = site.gateway.reload(&format!("{other}{}", hook(&step)))?;
    let pending = "pending: pool passwords is in the middle of a change";
    assert!(said.iter().any(|line| line.starts_with(pending)), "{said:?}");
    let status = site.gateway.status()?;
    assert_eq!(status.pool()["state"], "switching", "{status}");
    assert!(status.0["pending"][0].is_string(), "{status}");
    fs::remove_file(folder.at("wait"))?;
    let is_held = |status: &Status| status.pool()["state"] == "held";
    let status = site.gateway.wait_until("the failed hook", is_held)?;
    let change = status.pool()["transition"]["id"].clone();
    site.gateway.wait_until("the rest", |status| status.0["pending"] == serde_json::json!([]))?;

    // What is held may be mended: the same step, another program.
    let mended = folder.script("mended", "exit 0")?;
    let said = site.gateway.reload(&format!("{other}{}", hook(&mended.display().to_string())))?;
    assert!(said[1].starts_with("pool passwords: run of hook promote"), "{said:?}");
    let status = site.gateway.status()?;
    assert_eq!((&status.pool()["state"], &status.pool()["transition"]["id"]), (&"held".into(), &change));
    site.gateway.verb(&["resume", POOL, "--retry"])?.expect(0)?;
    assert_eq!(site.gateway.status()?.active(), "server2");
    Ok(())
}

#[test]
fn many_reloads_under_load_break_nothing_and_leave_nothing_behind() -> Result<()> {
    const RELOADS: usize = 30;
    let site = site("many", &Topology::two_armed())?;
    let right = site.configuration(Options::default());
    let kinds = [
        right.clone(),
        right.replace("max_fails = 1", "max_fails = 2"),
        turned(&right),
        format!("{right}{}", second_pool(&right)),
        right.replace("interval = \"500ms\"", "interval = \"400ms\""),
    ];
    let mut held = (0..4).map(|_| site.hold(PASSWORDS, WEB)).collect::<Result<Vec<_>>>()?;
    let (web, api) = (site.start_load(WEB, &STEADY)?, site.start_load(API, &STEADY)?);
    let before = Inventory::of(&site.gateway.status()?);
    let mut descriptors = Vec::new();
    for n in 0..RELOADS {
        if n % 10 == 9 {
            site.gateway.configure("nonsense")?;
            site.gateway.verb(&["reload"])?.expect(3)?;
        } else {
            site.gateway.reload(&kinds[n % kinds.len()])?;
        }
        descriptors.push(fs::read_dir(format!("/proc/{}/fd", site.gateway.pid()?))?.count());
    }
    for held in &mut held {
        assert_eq!(held.ask()?, "server1");
    }
    flawless([web, api])?;
    let after = site.gateway.status()?;
    assert_eq!(after.0["daemon"]["config_generation"], 1 + RELOADS as u64 - RELOADS as u64 / 10);
    assert_eq!(Inventory::of(&after), before, "the same programs, links and maps");
    // A probe or two may be under way.
    let (least, most) = (descriptors[0].saturating_sub(8), descriptors[0] + 8);
    assert!(descriptors.iter().all(|count| (least..=most).contains(count)), "{descriptors:?}");
    let events = site.gateway.verb(&["events", "--limit", "1000", "-o", "json"])?.expect(0)?.json()?;
    let down = |event: &&serde_json::Value| event["event"] == "health" && event["to"] == "down";
    assert_eq!(events["events"].as_array().into_iter().flatten().filter(down).count(), 0, "{events}");
    Ok(())
}

fn has(said: &[String], line: &str) {
    assert!(said.iter().any(|one| one == line), "{line} in {said:?}");
}

/// The configuration with more keys of the first pool.
fn with_pool_keys(site: &Site, keys: &str) -> String {
    site.configuration(Options::default()).replacen("forwarding =", &format!("{keys}forwarding ="), 1)
}

/// The table of a backend, from its head to the next one or the end.
fn backend_table<'a>(configuration: &'a str, name: &str) -> &'a str {
    let head = format!("[[pool.backend]]\nname = \"{name}\"");
    let start = configuration.find(&head).expect("the backend");
    let rest = &configuration[start..];
    let end = rest[1..].find("[[").map_or(rest.len(), |end| end + 1);
    &rest[..end]
}

fn without_backend(configuration: &str, name: &str) -> String {
    let less = configuration.replace(backend_table(configuration, name), "");
    less.replace("backup = true", "backup = false")
}

/// The backends in the other order, neither of them a backup.
fn turned(configuration: &str) -> String {
    let plain = configuration.replace("backup = true", "backup = false");
    let first = backend_table(&plain, "server1").to_owned();
    format!("{}\n{first}", plain.replace(&first, ""))
}

/// Another pool: server2 alone, behind a port of its own, with the probe of the first one.
fn second_pool(configuration: &str) -> String {
    let probe = &configuration[configuration.find("[pool.probe]").expect("the probe")..];
    let probe = &probe[..probe.find("[[pool.service]]").expect("the first service")];
    let backend = backend_table(configuration, "server2");
    format!(
        "\n[[pool]]\nname = \"second\"\n{probe}[[pool.service]]\nname = \"web\"\nlisten = \"203.0.113.10:9443\"\n\
         backend_port = 10001\n\n{backend}"
    )
}

fn ends(held: &mut Held) -> Result<()> {
    poll_until(PATIENCE, "the connection to end", || match held.ask() {
        Ok(name) => {
            thread::sleep(Duration::from_millis(50));
            Err(format!("answered by {name}"))
        }
        Err(_) => Ok(()),
    })
}

fn flawless(loads: [Load; 2]) -> Result<()> {
    for load in loads {
        let report = load.report()?;
        assert_eq!((&report["ok"], &report["failed"]), (&1200.into(), &0.into()), "{report}");
    }
    Ok(())
}

fn site(label: &str, topology: &Topology) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    Site::start(label, topology, Options::default(), &programs)
}
