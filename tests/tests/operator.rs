//! `failover` and `failback` typed by a person: what they do, what they refuse and why, and how they exit.

use anyhow::Result;
use balancer_tests::{
    gateway::Said,
    lab::Topology,
    site::{API, Options, POOL, Programs, Site, WEB},
};

#[test]
fn failover_moves_to_the_next_backend_and_wraps() -> Result<()> {
    let site = site("next", Options::default())?;
    for (from, to) in [("server1", "server2"), ("server2", "server1")] {
        assert_eq!(site.gateway.status()?.active(), from);
        let said = site.gateway.verb(&["failover", POOL, "-o", "json"])?.expect(0)?.json()?;
        assert_eq!((&said["changed"], &said["active"]), (&true.into(), &to.into()), "{said}");
        // In the kernel before the verb has ended: not one connection goes elsewhere.
        for service in [WEB, API] {
            let report = site.load(service, &["--connections", "20", "--expect", to])?;
            assert_eq!(report["failed"], 0, "{report}");
        }
        assert_eq!(site.gateway.status()?.pool()["reason"], "operator");
    }
    Ok(())
}

#[test]
fn failover_to_where_it_is_already_changes_nothing_and_exits_0() -> Result<()> {
    let site = site("already", Options::default())?;
    site.gateway.verb(&["failover", POOL, "--to", "server2"])?.expect(0)?;
    let moved = site.gateway.logged("transition").len();
    let said = site.gateway.verb(&["failover", POOL, "--to", "server2", "-o", "json"])?.expect(0)?.json()?;
    assert_eq!((&said["changed"], &said["active"]), (&false.into(), &"server2".into()), "{said}");
    let said = site.gateway.verb(&["failover", POOL, "--to", "server2"])?.expect(0)?;
    assert!(said.stdout.contains("server2 is the active backend of passwords already"), "{said:?}");
    assert_eq!(site.gateway.logged("transition").len(), moved);
    Ok(())
}

#[test]
fn what_cannot_be_is_refused_with_its_reason_and_exit_code_1() -> Result<()> {
    let mut site = site("refused", Options { fail_timeout: "60s", ..Options::default() })?;
    let refused = |site: &Site, verb: &[&str], words: &[&str]| -> Result<()> {
        let said: Said = site.gateway.verb(verb)?.expect(1)?;
        assert!(words.iter().all(|word| said.stderr.contains(word)), "{words:?} in {said:?}");
        assert_eq!(said.stdout, "", "{said:?}");
        Ok(())
    };
    refused(&site, &["failover", "mails"], &["there is no pool \"mails\""])?;
    refused(&site, &["failback", "mails"], &["there is no pool \"mails\""])?;
    refused(&site, &["failover", POOL, "--to", "server3"], &["no backend \"server3\"", "server1, server2"])?;
    refused(&site, &["status", "mails"], &["no pool is named \"mails\"", POOL])?;

    site.kill(1);
    site.gateway.wait_until("the backup to be down", |status| status.is("server2", "down"))?;
    refused(&site, &["failover", POOL, "--to", "server2"], &["is down (", ": refused)", "--force"])?;
    refused(&site, &["failover", POOL], &["no other backend", "--force"])?;
    site.kill(0);
    site.gateway.wait_until("all to be down", |status| status.pool()["state"] == "all_down")?;
    refused(&site, &["failback", POOL], &["no backend of pool", "is eligible"])?;
    let status = site.gateway.status()?;
    assert_eq!(status.active(), "server1", "a refusal changes nothing: {status}");
    assert_eq!(site.gateway.logged("transition").len(), 1, "the initial one");
    Ok(())
}

#[test]
fn force_takes_a_backend_that_is_down_and_keeps_it() -> Result<()> {
    // Longer than the test: no probe will find out that it is back.
    let mut site = site("force", Options { fail_timeout: "60s", ..Options::default() })?;
    site.kill(1);
    site.gateway.wait_until("the backup to be down", |status| status.is("server2", "down"))?;
    site.serve(1)?;
    site.gateway.verb(&["failover", POOL, "--to", "server2", "--force"])?.expect(0)?;
    let report = site.load(WEB, &["--rate", "40", "--connections", "60", "--expect", "server2"])?;
    assert_eq!(report["failed"], 0, "{report}");
    let status = site.gateway.status()?;
    assert_eq!((status.active(), status.is("server2", "down")), ("server2", true), "{status}");
    assert_eq!(site.gateway.verb(&["status", "--exit-code"])?.code, Some(6), "not on an up backend");
    Ok(())
}

#[test]
fn the_operators_choice_holds_against_automatic_failback() -> Result<()> {
    let site = site("holds", Options { failback: "auto", fail_timeout: "1s", ..Options::default() })?;
    site.gateway.verb(&["failover", POOL])?.expect(0)?;
    let steady = ["--rate", "40", "--duration", "3s", "--connections", "1000", "--expect", "server2"];
    let report = site.load(WEB, &steady)?;
    assert_eq!(report["failed"], 0, "{report}");
    assert!(site.gateway.status()?.is("server1", "up"));
    site.gateway.verb(&["failback", POOL])?.expect(0)?;
    assert_eq!(site.gateway.status()?.active(), "server1");
    Ok(())
}

fn site(label: &str, options: Options) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    Site::start(label, &Topology::two_armed(), options, &programs)
}
