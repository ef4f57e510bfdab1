//! `balancer doctor`: nothing is wrong with a good gateway, and each thing that is broken here is found under its name,
//! with a fix that mends it: where it is a command, exactly that is run.
//!
//! What a namespace can't have (offloads of hardware, an old kernel, a wrong clock) is judged in the host's tests.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use balancer_tests::{
    folder::Folder,
    gateway::{PATIENCE, Said},
    lab::Topology,
    poll::poll_until,
    site::{Forwarding, Options, PASSWORDS, Pool, Programs, Site, WEB},
};
use balancer_user::dataplane::object::{self, Wanted};
use serde_json::Value;

const DNAT: Pool = Pool { forwarding: Forwarding::Dnat, ..PASSWORDS };

#[test]
fn nothing_is_wrong_with_a_good_gateway_before_the_start_and_beside_the_daemon() -> Result<()> {
    let mut site = site("good")?;
    for is_running in [false, true] {
        if is_running {
            site.begin()?;
        }
        let seen = Seen::by(&site)?;
        assert_eq!((seen.code, seen.errors()), (Some(0), vec![]), "{seen:?}");
        assert_eq!(seen.document["schema"], "balancer.doctor/1");
        humantime::parse_rfc3339(seen.document["as_of"].as_str().context("as_of")?)?;
        let vip = site.lab().vip().to_string();
        for (id, subject) in [
            ("configuration", site.gateway.configuration().to_str().context("a path")?),
            ("capabilities", "this process"),
            ("interface_up", "wan0"),
            ("xdp_native", "lan0"),
            ("xdp_transmit", "lan0"),
            ("foreign_program", "wan0"),
            ("vip_present", &vip),
            ("vip_interface", &vip),
            ("route", "passwords/server2"),
            ("neighbour", "passwords/server1"),
        ] {
            seen.well(id, subject)?;
        }
        assert_eq!(seen.find("unseen", "this process"), &Value::Null, "root sees everything");
        if is_running {
            seen.well("file_limit", &format!("the daemon (pid {})", site.gateway.pid()?))?;
        }
    }
    let table = site.gateway.verb(&["doctor"])?.expect(0)?.stdout;
    assert!(table.contains("\n0 errors, ") && table.contains("is ours, in native mode"), "{table}");

    // And it has disturbed nobody.
    let report = site.load(WEB, &["--connections", "5", "--expect", "server1"])?;
    assert_eq!(report["failed"], 0, "{report}");
    Ok(())
}

#[test]
fn what_is_wrong_with_addresses_and_interfaces_is_mended_by_what_it_says() -> Result<()> {
    let site = site("mended")?;
    let vip = site.lab().vip().to_string();
    let address = format!("{vip}/32");
    for (breaks, id, subject, severity) in [
        (&["ip", "address", "del", &address, "dev", "wan0"][..], "vip_present", vip.as_str(), "error"),
        (&["ip", "link", "set", "dev", "wan0", "down"], "interface_up", "wan0", "error"),
        (&["ip", "link", "set", "dev", "lan0", "mtu", "1400"], "mtu", "lan0", "warning"),
    ] {
        site.lab().gateway().run(breaks)?;
        let seen = Seen::by(&site)?;
        seen.ill(id, subject, severity)?;
        assert_eq!(seen.code, Some(i32::from(severity == "error")), "{seen:?}");
        mend(&site, &seen, id, subject)?;
        let seen = Seen::by(&site)?;
        seen.well(id, subject)?;
        assert_eq!((seen.code, seen.errors()), (Some(0), vec![]), "{seen:?}");
    }
    Ok(())
}

#[test]
fn ways_that_lead_nowhere_or_elsewhere_are_errors() -> Result<()> {
    let site = site("ways")?;
    let gateway = site.lab().gateway();
    // A backend that isn't there is a warning: it may be a standby that is off.
    site.lab().backend(0).run(["ip", "link", "set", "dev", "eth0", "down"])?;
    let seen = Seen::by(&site)?;
    seen.ill("neighbour", "passwords/server1", "warning")?;
    seen.well("neighbour", "passwords/server2")?;
    assert_eq!(seen.code, Some(0), "{seen:?}");

    // Through an interface that isn't in the configuration.
    gateway.run(["ip", "link", "add", "aside0", "type", "bridge"])?;
    gateway.run(["ip", "link", "set", "dev", "aside0", "up"])?;
    gateway.run(["ip", "route", "add", "10.0.2.12/32", "dev", "aside0"])?;
    let seen = Seen::by(&site)?;
    let cause = seen.ill("route", "passwords/server2", "error")?["cause"].to_string();
    assert!(cause.contains("aside0"), "{cause}");
    gateway.run(["ip", "route", "del", "10.0.2.12/32"])?;

    // A port of a bridge hides the interface that its packets belong to.
    gateway.run(["ip", "link", "set", "dev", "lan0", "master", "aside0"])?;
    let seen = Seen::by(&site)?;
    seen.ill("interface_master", "lan0", "warning")?;
    gateway.run(["ip", "link", "set", "dev", "lan0", "nomaster"])?;
    Seen::by(&site)?.well("interface_master", "lan0")?;

    gateway.run(["ip", "address", "flush", "dev", "lan0"])?;
    let seen = Seen::by(&site)?;
    seen.ill("route", "passwords/server1", "error")?;
    assert_eq!(seen.code, Some(1), "{seen:?}");

    let without = site.configuration(Options::default()).replace("\"lan0\"", "\"lan7\"");
    site.gateway.configure(&without)?;
    let seen = Seen::by(&site)?;
    let missing = seen.ill("interface_exists", "lan7", "error")?;
    assert!(missing["fix"].as_str().is_some_and(|fix| fix.contains("lan0")), "{missing}");
    Ok(())
}

#[test]
fn a_veth_whose_other_end_does_not_poll_is_found_and_mended_there() -> Result<()> {
    let site = site("polls")?;
    let gateway = site.lab().gateway();
    site.lab().client().run(["ethtool", "-K", "eth0", "gro", "off"])?;
    let seen = Seen::by(&site)?;
    let far = seen.ill("xdp_transmit", "wan0", "warning")?;
    assert!(far["fix"].as_str().is_some_and(|fix| fix.contains("`ip netns list-id`")), "{far}");
    site.lab().client().run(["ethtool", "-K", "eth0", "gro", "on"])?;
    Seen::by(&site)?.well("xdp_transmit", "wan0")?;

    // With the other end here the command is exact; and where native mode is asked for, it would not start.
    gateway.run(["ip", "link", "add", "near0", "type", "veth", "peer", "name", "near1"])?;
    for end in ["near0", "near1"] {
        gateway.run(["ip", "link", "set", "dev", end, "up"])?;
        gateway.run(["ethtool", "-K", end, "gro", "off"])?;
    }
    let native = Options { xdp_mode: "native", ..Options::default() };
    let more = site.configuration(native).replace("\"lan0\"", "\"lan0\", \"near0\"");
    site.gateway.configure(&more)?;
    let seen = Seen::by(&site)?;
    let near = seen.ill("xdp_transmit", "near0", "error")?;
    assert_eq!(near["fix"], "ethtool -K near1 gro on");
    assert_eq!(seen.code, Some(1), "{seen:?}");
    mend(&site, &seen, "xdp_transmit", "near0")?;
    let seen = Seen::by(&site)?;
    seen.well("xdp_transmit", "near0")?;
    assert_eq!((seen.code, seen.errors()), (Some(0), vec![]), "{seen:?}");
    Ok(())
}

#[test]
fn a_foreign_program_is_named_and_its_link_is_taken_off() -> Result<()> {
    let site = site("foreign")?;
    let sizes = Wanted { max_flows: 16, max_half_open: 16, ipv4: true, ipv6: false, frags: true };
    let mut foreign = object::load(sizes, None)?;
    let program = foreign.program()?;
    site.lab().gateway().enter(|| program.attach("lan0", aya::programs::XdpMode::Driver))??;
    let seen = Seen::by(&site)?;
    let found = seen.ill("foreign_program", "lan0", "error")?;
    let id = program.info()?.id();
    let cause = found["cause"].as_str().unwrap_or_default();
    assert!(cause.contains(&format!("(id {id})")) && cause.contains("its name is balancer"), "{found}");
    assert_eq!(seen.code, Some(1), "{seen:?}");
    mend(&site, &seen, "foreign_program", "lan0")?;
    Seen::by(&site)?.well("foreign_program", "lan0")
}

#[test]
fn directories_and_pins_that_are_in_the_way_are_mended_by_what_it_says() -> Result<()> {
    let mut site = site("places")?;
    let (state, pins) = (site.lab().state_dir(), site.lab().pin_dir().to_owned());
    fs::create_dir_all(&state)?;
    fs::set_permissions(&state, fs::Permissions::from_mode(0o777))?;
    let state = state.display().to_string();
    let seen = Seen::by(&site)?;
    seen.ill("state_directory", &state, "error")?;
    mend(&site, &seen, "state_directory", &state)?;
    Seen::by(&site)?.well("state_directory", &state)?;

    let older = pins.join("v1");
    let pin = older.join("OLD").display().to_string();
    fs::create_dir_all(&older)?;
    let made = [
        "bpftool", "map", "create", &pin, "type", "array", "key", "4", "value", "4", "entries", "1", "name",
        "old",
    ];
    site.lab().gateway().run(made)?;
    let older = older.display().to_string();
    let seen = Seen::by(&site)?;
    seen.ill("pin_layout", &older, "warning")?;
    mend(&site, &seen, "pin_layout", &older)?;
    assert_eq!(Seen::by(&site)?.find("pin_layout", &older), &Value::Null);

    // Pins of this layout, which the next start takes over, but not in another size.
    site.begin()?;
    site.gateway.kill();
    let pinned = pins.join(balancer_user::dataplane::layout_version()).display().to_string();
    Seen::by(&site)?.well("pin_adoption", &pinned)?;
    let larger = site.configuration(Options::default()).replace("max_flows = 16384", "max_flows = 65536");
    site.gateway.configure(&larger)?;
    let seen = Seen::by(&site)?;
    seen.well("pin_adoption", &pinned)?;
    let found = seen.ill("pin_size", &pinned, "warning")?;
    assert!(found["cause"].as_str().is_some_and(|cause| cause.contains("max_flows stays 16384")), "{found}");
    Ok(())
}

#[test]
fn a_hook_that_the_daemon_would_not_run_is_found_and_mended() -> Result<()> {
    let folder = Folder::new()?;
    let site = site("hook")?;
    let hook = folder.script("promote", "true")?;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o777))?;
    let hook = hook.display().to_string();
    let hooks = format!("\n[[pool.hook]]\nname = \"promote\"\nwhen = \"before\"\nrun = [{hook:?}]\n");
    let usual = site.configuration(Options::default()).replace("on_backend_down = \"keep\"\n", "");
    site.gateway.configure(&(usual + &hooks))?;
    let configuration = site.gateway.configuration().display().to_string();
    let seen = Seen::by(&site)?;
    seen.ill("program", &hook, "error")?;
    seen.ill("configuration", &configuration, "error")?;
    seen.well("interface_up", "wan0").context("the rest is looked at as it is written")?;
    mend(&site, &seen, "program", &hook)?;
    let seen = Seen::by(&site)?;
    seen.well("program", &hook)?;
    seen.well("configuration", &configuration)
}

#[test]
fn without_a_configuration_what_can_be_seen_is_seen() -> Result<()> {
    let site = site("nothing")?;
    let configuration = site.gateway.configuration().display().to_string();
    fs::remove_file(&configuration)?;
    let seen = Seen::by(&site)?;
    seen.ill("configuration", &configuration, "error")?;
    assert_eq!((seen.code, seen.errors()), (Some(1), vec!["configuration".to_owned()]), "{seen:?}");
    for id in ["kernel_program", "kernel_btf", "pin_directory", "state_directory", "clock"] {
        let found = seen.findings().any(|finding| finding["id"] == id && finding["ok"] == true);
        assert!(found, "{id}: {seen:?}");
    }
    Ok(())
}

#[test]
fn in_dnat_a_strict_filter_and_the_way_back_are_told() -> Result<()> {
    let site = with("dnat", Options { pools: &[DNAT], ..Options::default() })?;
    site.lab().gateway().set_sysctl("net/ipv4/conf/lan0/rp_filter", "1")?;
    let seen = Seen::by(&site)?;
    seen.ill("dnat_return", "passwords/server1", "info")?;
    seen.ill("rp_filter", "lan0", "info")?;
    mend(&site, &seen, "rp_filter", "lan0")?;
    let seen = Seen::by(&site)?;
    seen.well("rp_filter", "lan0")?;
    assert_eq!((seen.code, seen.errors()), (Some(0), vec![]), "{seen:?}");
    Ok(())
}

#[test]
fn packets_with_checksums_that_nobody_made_are_counted() -> Result<()> {
    let mut site = site("partial")?;
    site.begin()?;
    let subject = "clients and backends on this machine";
    Seen::by(&site)?.well("partial_checksums", subject)?;
    site.lab().client().run(["ethtool", "-K", "eth0", "tx", "on"])?;
    let report = site.load(WEB, &["--connections", "1"])?;
    assert_eq!(report["ok"], 0, "{report}");
    let seen = Seen::by(&site)?;
    let found = seen.ill("partial_checksums", subject, "warning")?;
    assert!(found["fix"].as_str().is_some_and(|fix| fix.contains("ethtool -K IF tx off")), "{found}");
    assert_eq!(seen.code, Some(0), "{seen:?}");
    Ok(())
}

#[test]
fn without_rights_it_says_what_it_could_not_see() -> Result<()> {
    let site = site("rights")?;
    let lacking = |privileges: &[&str], binary: &Path, configuration: &Path| -> Result<Seen> {
        let usual = site.gateway.words(&["doctor", "-o", "json"]);
        let mut words: Vec<String> =
            ["setpriv"].iter().chain(privileges).map(|&word| word.to_owned()).collect();
        words.push(binary.display().to_string());
        words.extend(usual[1..].iter().map(|word| {
            let is_configuration = Path::new(word) == site.gateway.configuration();
            if is_configuration { configuration.display().to_string() } else { word.clone() }
        }));
        Seen::of(&site.gateway.run(&words)?)
    };
    let binary = site.gateway.words(&[])[0].clone();
    let seen =
        lacking(&["--bounding-set", "-bpf,-sys_admin"], Path::new(&binary), site.gateway.configuration())?;
    let found = seen.ill("capabilities", "this process", "error")?;
    assert!(found["cause"].as_str().is_some_and(|cause| cause.contains("CAP_BPF")), "{found}");
    seen.ill("unseen", "this process", "info")?;
    assert_eq!(seen.code, Some(1), "{seen:?}");

    // Somebody who is not root must come at binary and configuration.
    let open = tempfile::tempdir_in("/run")?;
    fs::set_permissions(open.path(), fs::Permissions::from_mode(0o755))?;
    let [copy, configuration] = ["balancer", "balancer.toml"].map(|file| open.path().join(file));
    let usual = site.configuration(Options::default());
    fs::write(&configuration, usual.replace(&format!("ca_file = {:?}", site.ca_file()), "verify = false"))?;
    fs::copy(&binary, &copy)?;
    chown(&copy, Some(0), Some(0))?;
    let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let seen = lacking(&nobody, &copy, &configuration)?;
    seen.ill("capabilities", "this process", "warning")?;
    let unseen = seen.ill("unseen", "this process", "info")?;
    assert!(
        unseen["fix"].as_str().is_some_and(|fix| fix.starts_with("sudo balancer doctor --config ")),
        "{unseen}"
    );
    for (id, subject) in [("interface_up", "wan0"), ("xdp_transmit", "lan0"), ("route", "passwords/server1")]
    {
        seen.well(id, subject)?;
    }
    Ok(())
}

/// A document and the exit code.
#[derive(Debug)]
struct Seen {
    code: Option<i32>,
    document: Value,
}

impl Seen {
    fn by(site: &Site) -> Result<Self> {
        Self::of(&site.gateway.verb(&["doctor", "-o", "json"])?)
    }

    fn of(said: &Said) -> Result<Self> {
        Ok(Self { code: said.code, document: said.json()? })
    }

    fn findings(&self) -> impl Iterator<Item = &Value> {
        self.document["findings"].as_array().into_iter().flatten()
    }

    /// Null when there is none.
    fn find(&self, id: &str, subject: &str) -> &Value {
        let is_it = |finding: &&Value| finding["id"] == id && finding["subject"] == subject;
        self.findings().find(is_it).unwrap_or(&Value::Null)
    }

    fn well(&self, id: &str, subject: &str) -> Result<()> {
        let found = self.find(id, subject);
        ensure!(
            found["ok"] == true && found["fix"].is_null(),
            "{id} of {subject} should be well: {found} in {self:?}"
        );
        Ok(())
    }

    fn ill(&self, id: &str, subject: &str, severity: &str) -> Result<&Value> {
        let found = self.find(id, subject);
        let is_so = found["ok"] == false && found["severity"] == severity && found["fix"].is_string();
        ensure!(is_so, "{id} of {subject} should be ill ({severity}): {found} in {self:?}");
        Ok(found)
    }

    /// The ids of what would not work.
    fn errors(&self) -> Vec<String> {
        let errors =
            self.findings().filter(|finding| finding["ok"] == false && finding["severity"] == "error");
        errors.map(|finding| finding["id"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

/// Does what a finding says, as it stands there.
fn mend(site: &Site, seen: &Seen, id: &str, subject: &str) -> Result<()> {
    let fix = seen.find(id, subject)["fix"].as_str().context("a fix")?;
    let fix = fix.strip_prefix("# if that is right here: ").unwrap_or(fix);
    ensure!(!fix.starts_with('#'), "{id} of {subject} is for a person: {fix}");
    site.lab().gateway().run(["sh", "-c", fix])?;
    // The kernel may take a moment, as with a carrier.
    poll_until(PATIENCE, &format!("{id} of {subject} to be well after {fix}"), || {
        let seen = Seen::by(site).map_err(|error| format!("{error:#}"))?;
        let is_ill = seen.find(id, subject)["ok"] == false;
        if is_ill { Err(format!("{seen:?}")) } else { Ok(()) }
    })
}

/// Servers listen only where a test has them do.
fn site(label: &str) -> Result<Site> {
    with(label, Options::default())
}

fn with(label: &str, options: Options) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    Site::prepare(label, &Topology::two_armed(), options, &programs)
}
