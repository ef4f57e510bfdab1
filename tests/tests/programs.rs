//! Programs of the operator's, as the daemon runs them: an exec probe that decides, and the notify command.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::Result;
use balancer_tests::{
    folder::Folder,
    gateway::PATIENCE,
    lab::Topology,
    poll::poll_until,
    site::{Options, Programs, Site},
};
use serde_json::Value;

/// Says what the test has written under the backend's name, if it has, and fails then.
const PROBE: &str = r#"
echo "$BALANCER_POOL $BALANCER_BACKEND $BALANCER_PORT $BALANCER_ROLE" >> "$folder/roles"
if [ -e "$folder/$BALANCER_BACKEND" ]; then cat "$folder/$BALANCER_BACKEND"; exit 7; fi
"#;

const NOTIFY: &str = "cat >> \"$folder/events\"";

/// A site whose probes are that program. All its backends are up.
fn site(label: &str, probe: &Path, notify: &Path) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    let mut site = Site::prepare(label, &Topology::two_armed(), Options::default(), &programs)?;
    let written = site.configuration(Options::default());
    let tls_only = |line: &&str| !line.starts_with("server_name") && !line.starts_with("ca_file");
    let text = written.lines().filter(tls_only).collect::<Vec<_>>().join("\n");
    let text = text
        .replace("kind = \"tls\"", &format!("kind = \"exec\"\nrun = [{probe:?}]"))
        // A shell, on a busy machine.
        .replace("timeout = \"500ms\"", "timeout = \"10s\"")
        .replace("[gateway]", &format!("[gateway]\nnotify = [{notify:?}]"));
    site.gateway.configure(&text)?;
    site.gateway.start(&[])?;
    site.gateway.wait_until("all backends to be up", balancer_tests::gateway::Status::are_all_up)?;
    Ok(site)
}

#[test]
fn a_program_decides_who_is_up_and_another_hears_that_none_is() -> Result<()> {
    let folder = Folder::new()?;
    let site = site("programs", &folder.script("probe", PROBE)?, &folder.script("notify", NOTIFY)?)?;
    assert_eq!(site.gateway.status()?.active(), "server1");
    let tells = |wanted: &[&str]| {
        poll_until(PATIENCE, "each role to be told", || {
            let roles = folder.lines("roles");
            let missing = wanted.iter().find(|told| !roles.iter().any(|line| line == **told));
            missing.map_or(Ok(()), |told| Err(format!("{told} in {roles:?}")))
        })
    };
    tells(&["passwords server1 10001 active", "passwords server1 8877 active"])?;

    fs::write(folder.at("server1"), "read only\n\u{1b}[2Jno primary\n")?;
    let status = site.gateway.wait_until("the failover", |status| status.active() == "server2")?;
    let reason = status.reason("server1");
    assert!(reason.ends_with(": exit_code 7: [2Jno primary"), "{reason}");
    tells(&["passwords server1 8877 standby", "passwords server2 8877 active"])?;

    assert_eq!(folder.lines("events"), Vec::<String>::new(), "nobody is wanted yet");
    fs::write(folder.at("server2"), "")?;
    site.gateway.wait_until("all to be down", |status| status.pool()["state"] == "all_down")?;
    let event =
        poll_until(PATIENCE, "the event", || folder.lines("events").first().cloned().ok_or("nothing"))?;
    let event: Value = serde_json::from_str(&event)?;
    assert_eq!((&event["event"], &event["pool"]), (&"all_down".into(), &"passwords".into()), "{event}");
    assert!(
        event["evidence"].as_str().is_some_and(|evidence| evidence.ends_with(": exit_code 7")),
        "{event}"
    );
    Ok(())
}

#[test]
fn who_refuses_new_flows_still_has_the_role_and_nobody_else_is_asked_for_it() -> Result<()> {
    let folder = Folder::new()?;
    let site = site("refusing", &folder.script("probe", PROBE)?, &folder.script("notify", NOTIFY)?)?;
    let text = fs::read_to_string(site.gateway.configuration())?;
    site.gateway.reload(&text.replacen("forwarding =", "when_all_down = \"reject\"\nforwarding =", 1))?;
    for server in ["server1", "server2"] {
        fs::write(folder.at(server), "")?;
        site.gateway.wait_until("it to be down", |status| status.is(server, "down"))?;
    }
    let status = site.gateway.wait_until("all to be down", |status| status.pool()["state"] == "all_down")?;
    assert_eq!(status.active(), "", "{status}");
    let why = site.gateway.verb(&["why", "passwords", "-o", "json"])?.expect(0)?.json()?;
    assert_eq!((&why["active"], &why["chain"][0]["to"]), (&Value::Null, &"server2".into()), "{why}");
    let told = folder.lines("roles").len();
    poll_until(PATIENCE, "both to be asked again", || {
        let roles = folder.lines("roles").split_off(told);
        let is_asked = |role: &str| roles.iter().any(|line| line.ends_with(role));
        assert!(!is_asked("server1 10001 active") && !is_asked("server1 8877 active"), "{roles:?}");
        let are_both = is_asked("server1 10001 standby") && is_asked("server2 10001 active");
        if are_both { Ok(()) } else { Err(format!("{roles:?}")) }
    })
}

#[test]
fn a_program_that_can_not_be_run_any_more_makes_nobody_down() -> Result<()> {
    let folder = Folder::new()?;
    let probe = folder.script("probe", PROBE)?;
    let site = site("unrunnable", &probe, &folder.script("notify", NOTIFY)?)?;
    fs::set_permissions(&probe, fs::Permissions::from_mode(0o777))?;
    let faults = || site.gateway.logged("probe_fault");
    poll_until(PATIENCE, "faults of both backends", || {
        let faults = faults();
        let has = |backend: &str| faults.iter().filter(|fault| fault["backend"] == backend).count() > 3;
        if has("server1") && has("server2") { Ok(()) } else { Err(format!("{faults:?}")) }
    })?;
    let fault = faults().swap_remove(0)["error"].to_string();
    assert!(fault.contains("others than its owner may write to it (mode 0777): chmod it to 0755"), "{fault}");
    let status = site.gateway.status()?;
    assert!(status.are_all_up() && status.active() == "server1", "{status}");
    let is_told = |status: &balancer_tests::gateway::Status| {
        status.0["degraded"].to_string().contains("can't be probed (and 3 more of the pool)")
    };
    site.gateway.wait_until("all of them to be told of", is_told)?;
    let told = poll_until(PATIENCE, "a person to be called", || {
        folder.lines("events").first().cloned().ok_or("nobody was called")
    })?;
    assert!(told.contains("probes of passwords"), "{told}");
    fs::set_permissions(&probe, fs::Permissions::from_mode(0o755))?;
    let is_well = |status: &balancer_tests::gateway::Status| status.0["degraded"] == serde_json::json!([]);
    site.gateway.wait_until("it to be over", is_well)?;
    Ok(())
}
