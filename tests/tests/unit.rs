//! The unit as it is shipped, under systemd: what it grants is enough and is all that is held, its hardening lets the daemon
//! work, and traffic is not touched by whatever becomes of the service.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use balancer_tests::{
    gateway::{PATIENCE, Status, binary_under_test},
    lab::{Lab, Topology},
    machine::{Machine, Parts},
    poll::poll_until,
    site::{Load, Options, POOL, Programs, Site, WEB},
};

const UNIT: &str = include_str!("../../balancer-user/systemd/balancer.service");
const SERVICE: &str = "balancer.service";
/// The second server's.
const NAME: &str = "db2.example.org";

/// Tells what a hook may do, and what its pool is about to do.
const HOOK: &str = r#"grep '^Cap' /proc/self/status > /var/lib/balancer/hook
echo "$BALANCER_FROM $BALANCER_TO" >> /var/lib/balancer/hook"#;

/// Every property of the whole unit: what the daemon does in its life happens here under systemd's restrictions.
#[test]
fn what_the_unit_grants_is_enough_for_a_life_and_nothing_else_is_held() -> Result<()> {
    let stand = Stand::start("unit", "", HOOK)?;
    let Stand { site, machine } = &stand;
    let granted = mask(value("CapabilityBoundingSet=")?)?;
    for (thread, sets) in stand.threads()? {
        for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
            let held = sets.iter().find(|(name, _)| name == set).map(|(_, held)| *held);
            let held = held.with_context(|| format!("{set} of thread {thread}"))?;
            ensure!(held & !granted == 0, "thread {thread}: {set} is {held:x}, granted {granted:x}");
        }
    }
    assert_eq!(machine.do_well(&["stat", "-c", "%U %G %a", "/run/balancer/control.sock"])?.trim(), GROUPED);

    // Programs are loaded, flows are made; now one that fails, with a hook, and clients that wait for it.
    let mut load = site.start_load(WEB, &["--rate", "100", "--parallel", "50", "--connections", "800"])?;
    machine.do_well(&["balancer", "failover", POOL])?;
    let hook = stand.file("/var/lib/balancer/hook")?;
    let of_the_hook = sets_of(&hook);
    let permitted = of_the_hook.iter().find(|(name, _)| name == "CapPrm").map(|(_, held)| *held);
    assert_eq!(permitted, Some(granted), "a hook gets what the unit grants: {hook}");
    assert!(hook.ends_with("server1 server2\n"), "{hook}");
    let before = stand.status()?;
    assert_eq!((before.active(), &before.backend("server2")["host"]), ("server2", &NAME.into()), "{before}");
    assert_eq!(before.0["degraded"], serde_json::json!([]), "{before}");

    // Killed, restarted, reset of flows included.
    while load.is_running() {
        stand.kill_and_wait()?;
        let after = stand.status()?;
        assert_eq!((after.active(), &after.pool()["reason"]), ("server2", &"restored".into()), "{after}");
        assert_eq!(after.link_ids(), before.link_ids());
    }
    flawless(load)?;
    machine.do_well(&["systemctl", "restart", SERVICE])?;
    assert_eq!(stand.status()?.link_ids(), before.link_ids());
    let mut held = site.hold(balancer_tests::site::PASSWORDS, WEB)?;
    machine.do_well(&["balancer", "maint", POOL, "server2"])?;
    ensure!(held.ask().is_err(), "frames of our own end a flow");
    assert_eq!(stand.status()?.active(), "server1");

    // Without the service traffic goes on, until it is taken away.
    machine.do_well(&["systemctl", "stop", SERVICE])?;
    assert_eq!(machine.property(SERVICE, "Result")?, "success");
    flawless(site.start_load(WEB, &["--connections", "50", "--expect", "server1"])?)?;
    machine.do_well(&["balancer", "detach"])?;
    let left = balancer_tests::inventory::attached_programs(site.lab().gateway())?;
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

#[test]
fn a_loop_that_stopped_misses_its_watchdog_and_is_replaced_unnoticed() -> Result<()> {
    let stand = Stand::start("watchdog", "[Service]\nWatchdogSec=4s\n", "true")?;
    let (site, machine) = (&stand.site, &stand.machine);
    let first = stand.pid()?;
    // Longer than the time that the loop has.
    flawless(site.start_load(WEB, &["--rate", "50", "--parallel", "50", "--connections", "250"])?)?;
    assert_eq!(stand.pid()?, first, "a loop that turns is left alone");

    let load = site.start_load(WEB, &["--rate", "100", "--parallel", "50", "--connections", "600"])?;
    machine.do_well(&["kill", "-STOP", &first])?;
    poll_until(PATIENCE, "another daemon", || match stand.status() {
        Ok(status) if stand.pid().is_ok_and(|pid| pid != first) => Ok(status),
        other => Err(format!("{other:?}; {}", machine.console())),
    })?;
    assert_eq!(machine.property(SERVICE, "NRestarts")?, "1");
    flawless(load)
}

#[test]
fn a_first_decision_that_takes_longer_than_a_start_may_is_waited_for() -> Result<()> {
    let stand = Stand::start("patience", "[Service]\nTimeoutStartSec=3s\n", "true")?;
    let (site, machine) = (&stand.site, &stand.machine);
    machine.do_well(&["systemctl", "stop", SERVICE])?;
    // A first start, as after a reboot without a memory; and servers that are there and say nothing.
    machine.do_well(&["balancer", "detach"])?;
    machine.do_well(&["rm", "/var/lib/balancer/state.json"])?;
    let longer = "s/^timeout = \"500ms\"/timeout = \"8s\"/";
    machine.do_well(&["sed", "-i", longer, "/etc/balancer/balancer.toml"])?;
    let mute = "add table inet mute; add chain inet mute in { type filter hook input priority -400; }; \
                add rule inet mute in meta l4proto tcp drop";
    site.lab().backends().iter().try_for_each(|server| server.run(["nft", mute]).map(drop))?;
    let begun = Instant::now();
    machine.do_well(&["systemctl", "start", SERVICE])?;
    assert!(begun.elapsed() >= Duration::from_secs(6), "it was decided after {:?}", begun.elapsed());
    assert_eq!(machine.property(SERVICE, "NRestarts")?, "0");
    Ok(())
}

#[test]
fn a_hook_reaches_further_by_a_drop_in_and_by_a_unit_of_its_own() -> Result<()> {
    let drop_in = "[Service]\nCapabilityBoundingSet=CAP_SYS_BOOT CAP_SETUID\n";
    // Without D-Bus, which this machine lacks, systemd-run can't wait.
    let tell = "sh -c \"grep '^CapBnd' /proc/self/status > /var/lib/balancer/unit\"";
    let stand = Stand::start("further", drop_in, &format!("{HOOK}\nsystemd-run --quiet --collect {tell}"))?;
    stand.machine.do_well(&["balancer", "failover", POOL])?;
    let granted = mask(value("CapabilityBoundingSet=")?)?;
    let added = granted | mask("CAP_SYS_BOOT CAP_SETUID")?;
    let hook = stand.file("/var/lib/balancer/hook")?;
    assert!(hook.contains(&format!("CapPrm:\t{added:016x}")), "{added:x} in {hook}");
    for (thread, sets) in stand.threads()? {
        let held = sets.iter().find(|(name, _)| name == "CapPrm").map(|(_, held)| *held);
        let held = held.with_context(|| format!("CapPrm of thread {thread}"))?;
        assert_eq!(held & !granted, 0, "what a hook is granted the daemon drops (thread {thread})");
    }
    let bounding = poll_until(PATIENCE, "a unit of its own", || {
        let unit = stand.file("/var/lib/balancer/unit").map_err(|error| format!("{error:#}"))?;
        sets_of(&unit).first().map(|(_, held)| *held).ok_or(unit)
    })?;
    assert!(bounding & !added != 0, "a unit of its own is bounded by nothing of ours: {bounding:x}");
    Ok(())
}

#[test]
fn what_a_hook_runs_as_another_user_is_ended_at_its_deadline() -> Result<()> {
    let drop_in = "[Service]\nCapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_KILL\n";
    let hook = "echo $$ > /var/lib/balancer/hook\n\
                exec setpriv --reuid 65534 --regid 65534 --clear-groups sleep 600";
    let stand = Stand::start("deputy", drop_in, hook)?;
    let said = stand.machine.run(&["balancer", "failover", POOL])?.expect(1)?;
    assert!(said.stderr.contains("not done in time, and ended"), "{said:?}");
    let hook = format!("/proc/{}", stand.file("/var/lib/balancer/hook")?.trim());
    poll_until(PATIENCE, "its end", || {
        let ls = stand.machine.run(&["ls", "-d", &hook]).map_err(|error| format!("{error:#}"))?;
        if ls.code == Some(2) { Ok(()) } else { Err(format!("{ls:?}")) }
    })
}

#[test]
fn every_directive_of_the_unit_is_known_and_its_capabilities_are_all_needed() -> Result<()> {
    let stand = Stand::start("verify", "", "true")?;
    let unit = stand.machine.property(SERVICE, "FragmentPath")?;
    let verified = stand.machine.run(&["systemd-analyze", "verify", "--man=no", &unit])?;
    assert_eq!((verified.code, verified.stderr.as_str()), (Some(0), ""), "{verified:?}");
    stand.machine.do_well(&["systemctl", "stop", SERVICE])?;
    // And nothing in place of it: CAP_SYS_ADMIN would do for some.
    let names: Vec<_> = value("CapabilityBoundingSet=")?.split(' ').collect();
    for missing in &names {
        let others = names.iter().filter(|name| *name != missing);
        let others = others.map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase()));
        let bounded = format!("-all{}", others.collect::<String>());
        let run = ["setpriv", "--bounding-set", &bounded, "balancer", "run"];
        if *missing == ONLY_FOR_REDIRECTS {
            let said = stand.machine.run(&[&["timeout", "5"], &run[..]].concat())?.expect(124)?;
            let words = ["nobody answers plain HTTP there", "Permission denied"];
            assert!(words.iter().all(|words| said.stderr.contains(words)), "{said:?}");
            continue;
        }
        let said = stand.machine.run(&run)?.expect(5)?;
        assert!(said.stderr.contains(&format!("missing {missing}:")), "{said:?}");
    }
    Ok(())
}

#[test]
fn without_a_configuration_the_service_waits_for_one() -> Result<()> {
    let stand = Stand::start("absent", "", "true")?;
    let machine = &stand.machine;
    machine.do_well(&["systemctl", "stop", SERVICE])?;
    machine.do_well(&["mv", "/etc/balancer/balancer.toml", "/etc/balancer/later.toml"])?;
    machine.do_well(&["systemctl", "start", SERVICE])?;
    assert_eq!(machine.property(SERVICE, "ConditionResult")?, "no");
    assert_eq!(machine.property(SERVICE, "ActiveState")?, "inactive");
    machine.do_well(&["mv", "/etc/balancer/later.toml", "/etc/balancer/balancer.toml"])?;
    machine.do_well(&["systemctl", "start", SERVICE])?;
    assert_eq!(machine.property(SERVICE, "ActiveState")?, "active");
    Ok(())
}

/// Everything else goes on without it.
const ONLY_FOR_REDIRECTS: &str = "CAP_NET_BIND_SERVICE";

/// Who may use the control socket.
const GROUPED: &str = "root balancer 660";

/// Capability sets by their names.
type Sets = Vec<(String, u64)>;

/// Servers and clients of a site, and a machine as its gateway.
struct Stand {
    machine: Machine,
    site: Site,
}

impl Stand {
    /// With the unit, this drop-in and this hook; the service has started.
    fn start(label: &str, drop_in: &str, hook: &str) -> Result<Self> {
        let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
        let options = Options { on_backend_down: "reset", ..Options::default() };
        let mut site = Site::prepare(label, &Topology::two_armed(), options, &programs)?;
        (0..2).try_for_each(|server| site.serve(server))?;
        let parts = parts(site.lab(), drop_in)?;
        parts.copy(site.ca_file(), "/etc/balancer/ca.pem")?;
        parts.script("/etc/balancer/hooks/step", hook)?;
        let text = site.configuration(options);
        let text = text.replace(&site.ca_file().display().to_string(), "/etc/balancer/ca.pem");
        // One by name: the unit lets the daemon resolve it.
        let second = site.lab().backend(1).address().to_string();
        parts.write("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")?;
        parts.write("/etc/hosts", &format!("127.0.0.1 localhost\n{second} {NAME}\n"))?;
        let text = text.replace(&format!("\"{second}\""), &format!("\"{NAME}\""));
        let redirect = format!("name = \"web\"\nredirect_http = \"{}:80\"\n", site.lab().vip());
        let text = text.replace("name = \"web\"\n", &redirect);
        let hook = "\n[[pool.hook]]\nname = \"step\"\nwhen = \"before\"\nrun = [\"/etc/balancer/hooks/step\"]\n\
                    timeout = \"5s\"\n";
        parts.write("/etc/balancer/balancer.toml", &(text + hook))?;
        let machine = Machine::boot(site.lab(), parts)?;
        machine.do_well(&["groupadd", "--force", "--system", "balancer"])?;
        machine.do_well(&["systemctl", "start", SERVICE])?;
        let stand = Self { machine, site };
        poll_until(PATIENCE, "all servers to be up", || match stand.status() {
            Ok(status) if status.are_all_up() => Ok(()),
            other => Err(format!("{other:?}; {}", stand.machine.console())),
        })?;
        Ok(stand)
    }

    fn status(&self) -> Result<Status> {
        let said = self.machine.run(&["balancer", "status", "-o", "json"])?.expect(0)?;
        let status = Status(said.json()?);
        ensure!(status.0["daemon"].is_object(), "no daemon: {status}");
        Ok(status)
    }

    /// As the machine numbers it.
    fn pid(&self) -> Result<String> {
        self.machine.property(SERVICE, "MainPID")
    }

    fn file(&self, path: &str) -> Result<String> {
        self.machine.do_well(&["cat", path])
    }

    /// SIGKILL, and systemd starts another.
    fn kill_and_wait(&self) -> Result<()> {
        let pid = self.pid()?;
        self.machine.do_well(&["kill", "-KILL", &pid])?;
        poll_until(PATIENCE, "another daemon", || match self.status() {
            Ok(_) if self.pid().is_ok_and(|now| now != pid) => Ok(()),
            other => Err(format!("{other:?}; {}", self.machine.console())),
        })
    }

    /// The capability sets of each of the daemon's threads.
    fn threads(&self) -> Result<Vec<(String, Sets)>> {
        let pid = self.pid()?;
        let threads = self.machine.do_well(&["ls", &format!("/proc/{pid}/task")])?;
        let mut found = Vec::new();
        for thread in threads.lines() {
            let status = self.machine.do_well(&["cat", &format!("/proc/{pid}/task/{thread}/status")])?;
            found.push((thread.to_owned(), sets_of(&status)));
        }
        ensure!(found.len() >= 3, "the loop, the log, the store: {found:?}");
        Ok(found)
    }
}

/// The binary under test, and the unit with a drop-in.
fn parts(lab: &Lab, drop_in: &str) -> Result<Parts> {
    let parts = Parts::new(lab)?;
    parts.copy(Path::new(&binary_under_test()?), "/usr/bin/balancer")?;
    parts.unit(SERVICE, UNIT)?;
    let log = lab.dir().join("machine/log");
    fs::write(&log, "")?;
    let logged = format!("[Service]\nStandardError=append:{}\n", log.display());
    parts.unit("balancer.service.d/log.conf", &logged)?;
    if !drop_in.is_empty() {
        parts.unit("balancer.service.d/test.conf", drop_in)?;
    }
    Ok(parts)
}

/// What stands behind this in the unit.
fn value(directive: &str) -> Result<&'static str> {
    UNIT.lines().find_map(|line| line.strip_prefix(directive)).with_context(|| directive.to_owned())
}

/// Capabilities by their names, as the kernel numbers them (`linux/capability.h`).
fn mask(names: &str) -> Result<u64> {
    const NUMBERS: [(&str, u32); 7] = [
        ("CAP_SETUID", 7),
        ("CAP_NET_BIND_SERVICE", 10),
        ("CAP_NET_ADMIN", 12),
        ("CAP_NET_RAW", 13),
        ("CAP_SYS_BOOT", 22),
        ("CAP_PERFMON", 38),
        ("CAP_BPF", 39),
    ];
    names.split(' ').try_fold(0, |mask, name| {
        let number = NUMBERS.iter().find(|(known, _)| *known == name).with_context(|| name.to_owned())?;
        Ok(mask | 1 << number.1)
    })
}

/// The lines `CapPrm: 0000…` of a process's status.
fn sets_of(status: &str) -> Sets {
    let lines = status.lines().filter(|line| line.starts_with("Cap"));
    let sets = lines.filter_map(|line| line.split_once(":\t"));
    sets.filter_map(|(name, held)| Some((name.to_owned(), u64::from_str_radix(held.trim(), 16).ok()?)))
        .collect()
}

fn flawless(load: Load) -> Result<()> {
    let report = load.report()?;
    ensure!(report["failed"] == 0, "{report}");
    Ok(())
}
