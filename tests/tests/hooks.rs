//! A change with hooks, on real packets: clients are held and served by the new backend, what fails is held for, and
//! nothing is done twice, whatever becomes of the daemon.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use balancer_tests::{
    folder::Folder,
    gateway::{PATIENCE, Status},
    lab::Topology,
    poll::poll_until,
    site::{Options, PASSWORDS, Programs, Site, WEB},
};
use serde_json::Value;

/// Writes down that it ran, and for what; waits while a file `wait-NAME` is there; ends as a file `exit-NAME` says.
const STEP: &str = r#"
name=$(basename "$1")
cat >> "$folder/told-$name"
echo "$name $BALANCER_POOL $BALANCER_FROM $BALANCER_TO $BALANCER_REASON $BALANCER_TRANSITION" >> "$folder/steps"
while [ -e "$folder/wait-$name" ]; do sleep 0.05; done
if [ -e "$folder/exit-$name" ]; then echo "no such database"; exit "$(cat "$folder/exit-$name")"; fi
"#;

/// A site with these hooks: names, and when each runs.
fn site(label: &str, folder: &Folder, hooks: &[(&str, &str)]) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    let mut site = Site::prepare(label, &Topology::two_armed(), Options::default(), &programs)?;
    let step = folder.script("step", STEP)?;
    let mut text = site.configuration(Options::default()).replace("on_backend_down = \"keep\"\n", "");
    for (name, when) in hooks {
        text += &format!(
            "\n[[pool.hook]]\nname = \"{name}\"\nwhen = \"{when}\"\nrun = [{step:?}, \"{name}\"]\ntimeout = \"5s\"\n"
        );
    }
    site.gateway.configure(&text)?;
    (0..2).try_for_each(|server| site.serve(server))?;
    site.gateway.start(&[])?;
    site.gateway.wait_until("all servers to be up", Status::are_all_up)?;
    Ok(site)
}

fn step_names(folder: &Folder) -> Vec<String> {
    folder.lines("steps").iter().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
}

fn wait_for_step(folder: &Folder, name: &str) -> Result<()> {
    poll_until(PATIENCE, &format!("the step {name}"), || {
        let steps = step_names(folder);
        if steps.iter().any(|step| step == name) { Ok(()) } else { Err(format!("{steps:?}")) }
    })
}

fn state(status: &Status) -> &str {
    status.pool()["state"].as_str().unwrap_or_default()
}

/// A client that connects: who serves it, and since when it was connected.
fn client(site: &Site) -> Result<(String, Instant)> {
    let mut held = site.hold(PASSWORDS, WEB)?;
    let connected = Instant::now();
    Ok((held.ask()?, connected))
}

#[test]
fn clients_wait_for_the_steps_and_are_served_by_the_promoted_backend() -> Result<()> {
    let folder = Folder::new()?;
    let mut site =
        site("hooks", &folder, &[("fence", "before"), ("promote", "before"), ("announce", "after")])?;
    let mut old = site.hold(PASSWORDS, WEB)?;
    fs::write(folder.at("wait-promote"), "")?;
    site.kill(0);
    wait_for_step(&folder, "promote")?;
    let status = site.gateway.status()?;
    assert_eq!((state(&status), status.active()), ("switching", "server1"), "{status}");
    let transition = &status.pool()["transition"];
    assert_eq!((&transition["step"], &transition["hook"]), (&1.into(), &"promote".into()), "{transition}");
    ensure!(old.ask().is_err(), "the flow of the old backend was cut before the first step");

    thread::scope(|scope| -> Result<()> {
        let waiting = scope.spawn(|| client(&site));
        poll_until(PATIENCE, "a client that waits", || {
            let flows = site.gateway.verb(&["flows", "-o", "json"])?.expect(0)?.json()?;
            let flows = flows["flows"].as_array().cloned().unwrap_or_default();
            let waits = flows.iter().any(|flow| flow["state"] == "half_open" && flow["backend"].is_null());
            if waits { Ok(()) } else { Err(anyhow::anyhow!("{flows:?}")) }
        })?;
        let switch = Instant::now();
        fs::remove_file(folder.at("wait-promote"))?;
        let (server, connected) = waiting.join().expect("no panic")?;
        assert_eq!(server, "server2");
        println!("the client was connected {:?} after the last step was let go", connected - switch);
        Ok(())
    })?;

    let status = site.gateway.wait_until("the last step", |status| {
        state(status) == "serving" && status.pool()["transition"].is_null()
    })?;
    assert_eq!((status.active(), &status.pool()["reason"]), ("server2", &"backend_down".into()));
    assert_eq!(step_names(&folder), ["fence", "promote", "announce"]);
    assert_eq!(folder.lines("steps")[0], "fence passwords server1 server2 backend_down 2");
    let told: Value = serde_json::from_str(&folder.lines("told-promote")[0])?;
    let expected = serde_json::json!({
        "pool": "passwords", "from": "server1", "to": "server2", "reason": "backend_down",
        "transition": 2, "step": 1, "when": "before",
    });
    assert_eq!(told, expected);
    let why = site.gateway.verb(&["why", "passwords"])?.expect(0)?;
    for words in ["backend_down", ": refused", "a hook was done: \"promote\" (transition 2, step 1)"] {
        assert!(why.stdout.contains(words), "{words} in {}", why.stdout);
    }
    Ok(())
}

#[test]
fn a_step_that_fails_is_held_for_until_the_operator_goes_on() -> Result<()> {
    let folder = Folder::new()?;
    let mut site = site("hookfail", &folder, &[("promote", "before"), ("announce", "after")])?;
    fs::write(folder.at("exit-promote"), "3")?;
    site.kill(0);
    let status = site.gateway.wait_until("the hold", |status| state(status) == "held")?;
    assert_eq!(status.active(), "server1");
    thread::scope(|scope| -> Result<()> {
        let waiting = scope.spawn(|| client(&site));
        let refused = site.gateway.verb(&["failover", "passwords"])?.expect(1)?;
        assert!(refused.stderr.contains("exit code 3: no such database"), "{}", refused.stderr);
        let again = site.gateway.verb(&["resume", "passwords", "--retry"])?.expect(1)?;
        assert!(again.stderr.contains("held on its way to server2"), "{}", again.stderr);
        assert_eq!(step_names(&folder), ["promote", "promote"]);
        let done = site.gateway.verb(&["resume", "passwords", "--skip"])?.expect(0)?;
        let words = "server2 is the active backend of passwords now (transition 2)";
        assert!(done.stdout.contains(words), "{}", done.stdout);
        assert_eq!(waiting.join().expect("no panic")?.0, "server2");
        Ok(())
    })?;
    assert_eq!(step_names(&folder), ["promote", "promote", "announce"]);
    Ok(())
}

/// [42, 43]
#[test]
fn a_daemon_that_is_killed_in_a_step_never_repeats_it() -> Result<()> {
    let folder = Folder::new()?;
    let mut site =
        site("hookkill", &folder, &[("fence", "before"), ("promote", "before"), ("announce", "after")])?;
    for killed_in in ["fence", "promote", "announce"] {
        fs::write(folder.at(&format!("wait-{killed_in}")), "")?;
        let _ = fs::remove_file(folder.at("steps"));
        let from = site.gateway.status()?.active().to_owned();
        site.gateway.verb(&["failover", "passwords", "--no-wait"])?.expect(0)?;
        wait_for_step(&folder, killed_in)?;
        let transition = site.gateway.status()?.pool()["transition"]["id"].clone();
        site.gateway.kill();
        site.gateway.start(&[])?;
        let status = site.gateway.wait_until("the hold", |status| state(status) == "held")?;
        assert_eq!(status.pool()["transition"]["id"], transition);
        fs::remove_file(folder.at(&format!("wait-{killed_in}")))?;
        let before = step_names(&folder);
        thread::sleep(Duration::from_millis(500));
        assert_eq!(step_names(&folder), before, "nothing runs by itself");
        site.gateway.verb(&["resume", "passwords", "--skip"])?.expect(0)?;
        assert_eq!(step_names(&folder), ["fence", "promote", "announce"], "killed in {killed_in}");
        let status = site.gateway.status()?;
        assert_eq!(state(&status), "serving", "{status}");
        assert_ne!(status.active(), from);
    }
    Ok(())
}

/// [43] Nobody knows any more who had the role, but its flows are still there.
#[test]
fn flows_of_a_backend_that_left_the_configuration_end_before_the_first_step() -> Result<()> {
    let folder = Folder::new()?;
    let mut site = site("hookgone", &folder, &[("promote", "before")])?;
    let mut old = site.hold(PASSWORDS, WEB)?;
    site.gateway.kill();
    let text = fs::read_to_string(site.gateway.configuration())?;
    let mut parts: Vec<_> = text.split("\n[[pool.backend]]\n").collect();
    ensure!(parts.remove(1).contains("server1"), "{text}");
    site.gateway.configure(&parts.join("\n[[pool.backend]]\n"))?;
    site.gateway.start(&[])?;
    let status = site.gateway.wait_until("the hold", |status| state(status) == "held")?;
    assert!(status.pool()["transition"].is_null(), "{status}");
    assert_eq!(old.ask()?, "server1", "it is drained like any other that is removed");

    fs::write(folder.at("wait-promote"), "")?;
    let asked = ["failover", "passwords", "--to", "server2", "--force"];
    site.gateway.verb(&[&asked[..], &["--no-wait"]].concat())?.expect(0)?;
    wait_for_step(&folder, "promote")?;
    ensure!(old.ask().is_err(), "the flow was cut before the first step");
    fs::remove_file(folder.at("wait-promote"))?;
    let status = site.gateway.wait_until("the switch", |status| state(status) == "serving")?;
    assert_eq!(status.active(), "server2", "{status}");
    assert_eq!(client(&site)?.0, "server2");
    Ok(())
}

/// [42] Not only a step may not have been written down, but the switch before it.
#[test]
fn after_a_switch_that_was_not_written_down_the_steps_behind_it_are_the_operators() -> Result<()> {
    let folder = Folder::new()?;
    let mut site = site("hooklost", &folder, &[("announce", "after")])?;
    // Not even root writes a file where a directory stands that isn't empty.
    let block = site.lab().state_dir().join("state.json.new");
    fs::create_dir_all(block.join("full"))?;
    site.gateway.verb(&["failover", "passwords"])?.expect(1)?;
    site.gateway.kill();
    fs::remove_dir_all(block)?;
    site.gateway.start(&[])?;
    let status = site.gateway.wait_until("the hold", |status| state(status) == "held")?;
    assert_eq!((status.active(), &status.pool()["transition"]["id"]), ("server2", &2.into()), "{status}");
    assert_eq!(client(&site)?.0, "server2", "traffic goes on");
    let events = site.gateway.verb(&["events"])?.expect(0)?;
    assert!(events.stdout.contains("whether the hooks behind it have run is not known"), "{}", events.stdout);
    assert_eq!(step_names(&folder), [""; 0]);
    site.gateway.verb(&["resume", "passwords", "--retry"])?.expect(0)?;
    assert_eq!(folder.lines("steps"), ["announce passwords server1 server2 restored 2"]);
    assert_eq!(state(&site.gateway.status()?), "serving");
    Ok(())
}

#[test]
fn a_step_that_hangs_is_ended_at_its_deadline() -> Result<()> {
    let folder = Folder::new()?;
    let site = site("hookhang", &folder, &[("promote", "before")])?;
    fs::write(folder.at("wait-promote"), "")?;
    let begun = Instant::now();
    let failed = site.gateway.verb(&["failover", "passwords"])?.expect(1)?;
    assert!(failed.stderr.contains("not done in time, and ended"), "{}", failed.stderr);
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(5), "{took:?}");
    let status = site.gateway.status()?;
    assert_eq!(state(&status), "held");
    site.gateway.verb(&["failover", "passwords", "--to", "server1", "--force"])?.expect(0)?;
    let status = site.gateway.status()?;
    assert_eq!((state(&status), status.active()), ("serving", "server1"));
    Ok(())
}
