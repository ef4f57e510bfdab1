//! Who has a role that steps hand over, when the configuration takes it away or calls it something else: it is handed over by
//! the steps, or nobody else has it.

use super::*;

/// Two servers, and a step that writes down what it was told, or fails if it shall. The configuration without the hook, and the hook.
fn with_steps(label: &str, folder: &Folder) -> Result<(Site, String, String)> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    let mut site = Site::prepare(label, &Topology::two_armed(), Options::default(), &programs)?;
    let told = "[ ! -e $folder/fails ] || exit 1; echo \"$BALANCER_FROM $BALANCER_TO $BALANCER_REASON\" >> $folder/told; sleep 0.3";
    let step = folder.script("step", told)?;
    let base = site.configuration(Options::default()).replace("on_backend_down = \"keep\"\n", "");
    let hook = format!("\n[[pool.hook]]\nname = \"promote\"\nwhen = \"before\"\nrun = [{step:?}]\n");
    site.gateway.configure(&format!("{base}{hook}"))?;
    (0..2).try_for_each(|server| site.serve(server))?;
    site.gateway.start(&[])?;
    site.gateway.wait_until("all servers to be up", Status::are_all_up)?;
    Ok((site, base, hook))
}

fn is_done(status: &Status) -> bool {
    status.0["pending"] == serde_json::json!([])
}

#[test]
fn hooks_run_when_the_configuration_takes_the_role_away() -> Result<()> {
    let folder = Folder::new()?;
    let (site, base, hook) = with_steps("role", &folder)?;
    let load = site.start_load(WEB, &STEADY)?;
    let said = site.gateway.reload(&format!("{}{hook}", without_backend(&base, "server1")))?;
    let pending = "pending: pool passwords: server1 (10.0.2.11) is left out by the configuration";
    assert!(said.iter().any(|line| line.starts_with(pending)), "{said:?}");
    let status = site.gateway.wait_until("the change and what follows", is_done)?;
    assert_eq!((status.active(), &status.pool()["reason"]), ("server2", &"config".into()), "{status}");
    assert_eq!(status.pool()["backends"].as_array().map(Vec::len), Some(1), "{status}");
    assert_eq!(folder.lines("told"), ["server1 server2 config"]);
    // Those that were connected are cut, as at every such change; whoever came during it has waited.
    let report = load.report()?;
    assert!(report["failed"].as_u64() < Some(50), "{report}");
    Ok(())
}

#[test]
fn who_is_left_out_keeps_the_role_until_somebody_can_take_it_by_the_steps() -> Result<()> {
    for when_all_down in ["last", "reject"] {
        let folder = Folder::new()?;
        let (mut site, base, hook) = with_steps(&format!("left_{when_all_down}"), &folder)?;
        let base =
            base.replacen("forwarding =", &format!("when_all_down = \"{when_all_down}\"\nforwarding ="), 1);
        site.gateway.reload(&format!("{base}{hook}"))?;
        site.kill(1);
        site.gateway.wait_until("the standby to be down", |status| status.is("server2", "down"))?;
        if when_all_down == "reject" {
            site.kill(0);
            site.gateway.wait_until("all to be down", |status| status.pool()["state"] == "all_down")?;
        }
        let said = site.gateway.reload(&format!("{}{hook}", without_backend(&base, "server1")))?;
        let pending = "pending: pool passwords: server1 (10.0.2.11) is left out by the configuration";
        assert!(said.iter().any(|line| line.starts_with(pending)), "{when_all_down}: {said:?}");
        // For some probes of whoever is left.
        thread::sleep(Duration::from_secs(2));
        let status = site.gateway.status()?;
        assert_eq!((status.active(), &status.pool()["state"]), ("", &"all_down".into()), "{status}");
        assert_eq!(status.backend("server1")["admin"], "disabled", "{status}");
        assert_eq!(folder.lines("told"), Vec::<String>::new());
        site.serve(1)?;
        let status = site.gateway.wait_until("the change and what follows", is_done)?;
        assert_eq!((status.active(), &status.pool()["reason"]), ("server2", &"config".into()), "{status}");
        assert_eq!(folder.lines("told"), ["server1 server2 config"]);
    }
    Ok(())
}

#[test]
fn a_pool_that_has_another_name_is_held_and_its_old_flows_are_cut_before_the_steps() -> Result<()> {
    for restarts in [false, true] {
        let folder = Folder::new()?;
        let (mut site, base, hook) = with_steps(if restarts { "anew" } else { "renamed" }, &folder)?;
        let mut held = site.hold(PASSWORDS, WEB)?;
        let renamed = format!("{base}{hook}").replace("name = \"passwords\"", "name = \"secrets\"");
        if restarts {
            site.gateway.kill();
            site.gateway.configure(&renamed)?;
            site.gateway.start(&[])?;
        } else {
            site.gateway.reload(&renamed)?;
        }
        thread::sleep(Duration::from_secs(2));
        let status = site.gateway.status()?;
        assert_eq!(status.pool_named("secrets")["state"], "held", "{status}");
        assert_eq!(held.ask()?, "server1", "what it has goes on");
        site.gateway.verb(&["failover", "secrets", "--to", "server2", "--force"])?.expect(0)?;
        assert!(held.ask().is_err(), "nobody is connected to two servers");
        assert_eq!(folder.lines("told"), [" server2 operator"]);
        let report = site.load(WEB, &["--connections", "20", "--expect", "server2"])?;
        assert_eq!(report["failed"], 0, "{report}");
        // Once it is settled it stays so.
        site.gateway.kill();
        site.gateway.start(&[])?;
        let status = site.gateway.status()?;
        assert_eq!(status.pool_named("secrets")["state"], "serving", "{status}");
    }
    Ok(())
}

#[test]
fn a_name_that_leads_elsewhere_has_not_got_the_role_with_it() -> Result<()> {
    let folder = Folder::new()?;
    let (site, base, hook) = with_steps("elsewhere", &folder)?;
    // Who was the standby has the name of who has the role.
    let only =
        without_backend(&base, "server2").replace("address = \"10.0.2.11\"", "address = \"10.0.2.12\"");
    site.gateway.reload(&format!("{only}{hook}"))?;
    thread::sleep(Duration::from_secs(2));
    let status = site.gateway.status()?;
    assert_eq!((status.active(), &status.pool()["state"]), ("", &"held".into()), "{status}");
    assert_eq!(folder.lines("told"), Vec::<String>::new());
    // A mistake that is corrected, or taken back, is none.
    let right = format!("{base}{hook}");
    site.gateway.reload(&right)?;
    let status = site.gateway.status()?;
    assert_eq!((status.active(), &status.pool()["state"]), ("server1", &"serving".into()), "{status}");
    let report = site.load(WEB, &["--connections", "20", "--expect", "server1"])?;
    assert_eq!(report["failed"], 0, "{report}");
    site.gateway.reload(&format!("{only}{hook}"))?;
    assert_eq!(site.gateway.status()?.pool()["state"], "held");
    site.gateway.verb(&["failover", POOL, "--to", "server1", "--force"])?.expect(0)?;
    assert_eq!(folder.lines("told"), [" server1 operator"]);
    let report = site.load(WEB, &["--connections", "20", "--expect", "server2"])?;
    assert_eq!(report["failed"], 0, "{report}");
    Ok(())
}

#[test]
fn a_role_that_steps_were_taken_for_does_not_go_back_with_a_mistake() -> Result<()> {
    let folder = Folder::new()?;
    let (site, base, hook) = with_steps("taken", &folder)?;
    let moved = base.replace("address = \"10.0.2.11\"", "address = \"10.0.2.19\"");
    site.gateway.reload(&format!("{moved}{hook}"))?;
    fs::write(folder.at("fails"), "")?;
    site.gateway.verb(&["failover", POOL, "--to", "server2", "--force"])?.expect(1)?;
    // The step that was taken is another one now, so nobody knows what it has done.
    let other = hook.replace("\"promote\"", "\"raise\"");
    for changed in [base.clone(), base.replace("max_fails = 1", "max_fails = 2")] {
        site.gateway.reload(&format!("{changed}{other}"))?;
        let status = site.gateway.status()?;
        assert_eq!((status.active(), &status.pool()["state"]), ("", &"held".into()), "{status}");
    }
    Ok(())
}
