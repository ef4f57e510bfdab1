//! docs/operating.md's keepalived, as it is written there, beside balancer: the virtual address comes and goes, and balancer
//! has not to be told.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Result, ensure};
use balancer_tests::{
    docs::{Document, Shell},
    gateway::{PATIENCE, Status},
    lab::{Process, Topology},
    poll::poll_until,
    site::{Options, Programs, Site, WEB},
};
use rustix::process::Signal;

/// What the document's script says to systemd.
const SYSTEMCTL: &str = "#!/bin/sh\necho \"$*\" >> \"$(dirname \"$0\")/said\"\n";

fn executable(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// Starts keepalived with the document's configuration and script.
fn keepalived(shell: &Shell) -> Result<Process> {
    let document = Document::read("docs/operating.md")?;
    let script = shell.folder().join("keepalived-script");
    let text = document.block_after("so that only keepalived starts it:")?;
    executable(&script, &text.replace("/var/lib/balancer", "$BALANCER_STATE_DIR"))?;
    executable(&shell.folder().join("systemctl"), SYSTEMCTL)?;
    let text = document.block_after("`/etc/keepalived/keepalived.conf`, on both")?;
    let text = text.replace("/etc/balancer/keepalived", &script.display().to_string());
    fs::write(shell.folder().join("keepalived.conf"), text)?;
    shell.start(
        "exec keepalived --dont-fork --log-console --use-file=keepalived.conf --pid=k.pid --vrrp_pid=v.pid",
    )
}

fn has_address(site: &Site) -> Result<bool> {
    let shown =
        site.lab().gateway().run(["ip", "-o", "address", "show", "to", &site.lab().vip().to_string()])?;
    Ok(!shown.stdout.is_empty())
}

#[test]
fn a_gateway_serves_as_soon_as_keepalived_gives_it_the_address() -> Result<()> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    let mut site = Site::prepare("keepalived", &Topology::two_armed(), Options::default(), &programs)?;
    let address = site.lab().vip().to_string();
    site.lab().gateway().run(["ip", "address", "flush", "dev", "wan0", "to", &address])?;
    // In reserve: it probes and decides, and nothing arrives.
    (0..2).try_for_each(|server| site.serve(server))?;
    site.gateway.start(&[])?;
    site.gateway.wait_until("all to be up", Status::are_all_up)?;
    ensure!(!has_address(&site)?, "balancer never adds it");

    let shell = Shell::new(site.lab(), &site.gateway, &programs.balancer)?;
    let mut keepalived = keepalived(&shell)?;
    poll_until(PATIENCE, "the address", || match has_address(&site) {
        Ok(true) => Ok(()),
        other => Err(format!("{other:?}: {}", keepalived.stdout() + &keepalived.stderr())),
    })?;
    let report = site.load(WEB, &["--rate", "100", "--connections", "100", "--expect", "server1"])?;
    assert_eq!(report["failed"], 0, "{report}");
    let said = || fs::read_to_string(shell.folder().join("said")).unwrap_or_default();
    // Each keepalived begins in reserve, and says so.
    let wanted = "stop balancer\nstart balancer\n";
    poll_until(PATIENCE, "the script", || if said() == wanted { Ok(()) } else { Err(said()) })?;

    // The other gateway's turn: the script detaches, which a daemon that runs refuses.
    site.gateway.terminate()?;
    keepalived.signal(Signal::TERM)?;
    poll_until(PATIENCE, "the script", || {
        if said() == format!("{wanted}stop balancer\n") { Ok(()) } else { Err(said()) }
    })?;
    poll_until(PATIENCE, "nothing that is left", || {
        let left = balancer_tests::inventory::attached_programs(site.lab().gateway());
        let has_state = site.lab().state_dir().join("state.json").exists();
        match left {
            Ok(left) if left.is_empty() && !has_state && !has_address(&site).unwrap_or(true) => Ok(()),
            other => Err(format!("{other:?}, state.json: {has_state}")),
        }
    })
}
