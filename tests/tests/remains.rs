//! What is told without a daemon, from the kernel's maps and the state directory; and what is watched over its end.

use anyhow::{Context, Result, ensure};
use balancer_tests::{
    gateway::{PATIENCE, Status},
    lab::{Process, Topology},
    poll::poll_until,
    site::{API, Options, PASSWORDS, POOL, Programs, Site, WEB},
};
use rustix::process::Signal;
use serde_json::Value;

#[test]
fn without_a_daemon_the_maps_tell_what_becomes_of_traffic() -> Result<()> {
    let mut site = site("remains")?;
    let mut first = site.hold(PASSWORDS, WEB)?;
    site.gateway.verb(&["failover", POOL, "--to", "server2"])?.expect(0)?;
    site.gateway.verb(&["drain", POOL, "server1", "--deadline", "1h"])?.expect(0)?;
    let mut second = site.hold(PASSWORDS, API)?;
    let (before, counted) = (site.gateway.status()?, site.gateway.stats_of("server2")?);
    site.gateway.kill();

    let after = site.gateway.status()?;
    assert_eq!(after.0["daemon"], Value::Null, "{after}");
    for key in ["name", "active", "state", "since", "reason", "failback", "transition"] {
        assert_eq!(after.pool()[key], before.pool()[key], "{key}: {after}");
    }
    assert_eq!(after.link_ids(), before.link_ids(), "{after}");
    assert_eq!(after.0["attachments"], before.0["attachments"]);
    for (server, admin, flows) in [("server1", "drain", 1), ("server2", "ready", 1)] {
        let (now, then) = (after.backend(server), before.backend(server));
        assert_eq!((&now["admin"], &now["flows"]), (&admin.into(), &flows.into()), "{after}");
        assert_eq!((&now["address"], &now["backup"]), (&then["address"], &then["backup"]), "{after}");
        assert_eq!(now["health"], "unknown", "nobody probes it: {after}");
    }
    for service in [WEB, API] {
        let keys = ["listen", "backend_port", "new_flows"];
        let (now, then) = (after.service(service.name), before.service(service.name));
        assert!(keys.iter().all(|key| now[key] == then[key]), "{now} {then}");
    }
    let table = site.gateway.verb(&["status", "--exit-code"])?.expect(6)?.stdout;
    assert!(table.starts_with("no daemon is running") && table.contains("●  server2 (backup)"), "{table}");

    let said = site.gateway.verb(&["flows", "-o", "json"])?.expect(0)?;
    assert!(said.stderr.contains("from the pinned maps"), "{said:?}");
    let flows = said.json()?;
    assert_eq!((&flows["daemon"], flows["schema"].as_str()), (&Value::Null, Some("balancer.flows/1")));
    let clients = flows["flows"].as_array().context("flows")?;
    let clients = clients.iter().map(|flow| (flow["client"].to_string(), flow["backend"].to_string()));
    let mut wanted = [(&first, "server1"), (&second, "server2")]
        .map(|(held, server)| (format!("\"{}\"", held.local), format!("\"{server}\"")));
    wanted.sort();
    let mut clients: Vec<_> = clients.collect();
    clients.sort();
    assert_eq!(clients, wanted);
    site.gateway.verb(&["flows", "--pool", "mails"])?.expect(1)?;

    let stats = site.gateway.stats_of("server2")?;
    assert_eq!((&stats["new_flows"], &stats["flows"]), (&counted["new_flows"], &1.into()), "{stats}");
    assert_eq!(
        (first.ask()?, second.ask()?),
        ("server1".to_owned(), "server2".to_owned()),
        "traffic goes on"
    );
    Ok(())
}

#[test]
fn a_watch_goes_on_over_the_daemons_end_and_ends_when_it_is_interrupted() -> Result<()> {
    let mut site = site("watch")?;
    let words = site.gateway.words(&["status", "--watch", "--interval", "100ms", "-o", "json"]);
    let mut watch = site.lab().gateway().spawn(&words)?;
    let answered_by = |watch: &Process, pid: Value| -> Result<()> {
        poll_until(PATIENCE, &format!("an answer of {pid}"), || {
            let answer = last(watch).map_err(|error| format!("{error:#}"))?;
            let daemon = &answer.0["daemon"];
            let is_it = daemon["pid"] == pid || (pid.is_null() && daemon.is_null());
            if is_it { Ok(()) } else { Err(answer.to_string()) }
        })
    };
    answered_by(&watch, site.gateway.pid()?.into())?;
    site.gateway.kill();
    answered_by(&watch, Value::Null)?;
    site.gateway.start(&[])?;
    answered_by(&watch, site.gateway.pid()?.into())?;
    watch.signal(Signal::INT)?;
    assert_eq!(watch.wait(PATIENCE)?.code(), Some(0));
    let lines = watch.stdout();
    assert!(lines.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "a document a line");
    Ok(())
}

#[test]
fn a_watch_ends_when_nobody_reads_it_any_more() -> Result<()> {
    let site = site("watch_pipe")?;
    for verb in [["status", "--watch"], ["stats", "--watch"]] {
        let words = site.gateway.words(&[&verb[..], &["--interval", "100ms"]].concat());
        let piped =
            [vec!["sh".to_owned(), "-c".to_owned(), "\"$@\" | head -n 1".to_owned(), "sh".to_owned()], words];
        let said = site.gateway.run(&piped.concat())?.expect(0)?;
        ensure!(said.stdout.lines().count() == 1 && said.stderr.is_empty(), "{said:?}");
    }
    Ok(())
}

/// The last whole line of what a watch has printed.
fn last(watch: &Process) -> Result<Status> {
    let text = watch.stdout();
    let whole = text.rfind('\n').context("no line yet")?;
    let line = text[..whole].lines().last().context("no line")?;
    Ok(Status(serde_json::from_str(line)?))
}

fn site(label: &str) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    Site::start(label, &Topology::two_armed(), Options::default(), &programs)
}
