//! Starts that are refused: each with its exit code and a message that helps, and everything as it was before.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result};
use balancer_tests::{
    gateway::Said,
    inventory::attached_programs,
    lab::Topology,
    site::{Options, Programs, Site},
};
use balancer_user::dataplane::object::{self, Wanted};

#[test]
fn a_wrong_configuration_exits_3_with_its_place_and_what_to_write() -> Result<()> {
    let site = site("config")?;
    let vip = site.lab().vip().to_string();
    let same_listen = format!("listen = \"{vip}:443\"");
    let own_address = format!("address = \"{vip}\"");
    let port_0 = format!("listen = \"{vip}:0\"");
    // What is written in place of what, and words of the error, which stands where the new text does.
    let cases = [
        ("failback = ", "fail_back = ", &["did you mean `failback`?"][..]),
        (&format!("listen = \"{vip}:8877\""), &same_listen, &["already a listening address, on line"]),
        ("address = \"10.0.2.11\"", &own_address, &["pool.backend.address"]),
        (&same_listen, &port_0, &["pool.service.listen"]),
        ("interval = \"500ms\"", "interval = \"500\"", &["needs a unit"]),
        ("ca.pem", "gone.pem", &["gone.pem", "No such file"]),
        ("\"lan0\"", "\"lan1\"", &["there is no interface `lan1`", "did you mean `lan0`?"]),
    ];
    for (right, wrong, words) in cases {
        let configuration = site.configuration(Options::default()).replacen(right, wrong, 1);
        site.gateway.configure(&configuration)?;
        // The last one, when the mistake is to write something twice.
        let before = configuration.rfind(wrong).with_context(|| format!("{wrong} in {configuration}"))?;
        let line = 1 + configuration[..before].matches('\n').count();
        let place = format!("{}:{line}:", site.gateway.configuration().display());
        for verb in ["check", "run"] {
            let said = site.gateway.verb(&[verb])?.expect(3)?;
            let column = said.stderr.split_once(&place).and_then(|(_, rest)| rest.split(':').next());
            let is_placed = column.is_some_and(|column| column.parse::<usize>().is_ok());
            assert!(is_placed, "{wrong}: {place}COLUMN in {said:?}");
            assert!(words.iter().all(|word| said.stderr.contains(word)), "{wrong}: {words:?} in {said:?}");
        }
        assert_untouched(&site)?;
    }
    Ok(())
}

#[test]
fn what_no_probe_can_be_made_for_is_refused_by_check_and_run_alike() -> Result<()> {
    let site = site("roots")?;
    let usual = site.configuration(Options::default());
    let own_roots = format!("ca_file = {:?}\n", site.ca_file());
    assert!(usual.contains(&own_roots), "{usual}");
    site.gateway.configure(&usual.replace(&own_roots, ""))?;
    let without_any = ["env", "SSL_CERT_FILE=/dev/null", "SSL_CERT_DIR=/nonexistent"].map(str::to_owned);
    for (verb, code) in
        [(&["check"][..], 3), (&["run"], 3), (&["check", "--no-resolve"], 0), (&["check", "--explain"], 3)]
    {
        let words = [&without_any[..], &site.gateway.words(verb)].concat();
        let said = site.gateway.run(&words)?.expect(code)?;
        assert_eq!(said.stderr.contains("no root certificates"), code == 3, "{verb:?}: {said:?}");
    }
    assert_untouched(&site)
}

#[test]
fn an_empty_pool_and_a_missing_file_exit_3() -> Result<()> {
    let site = site("empty")?;
    let whole = site.configuration(Options::default());
    let without_backends = &whole[..whole.find("[[pool.backend]]").context("a backend")?];
    site.gateway.configure(without_backends)?;
    let said = site.gateway.verb(&["run"])?.expect(3)?;
    assert!(said.stderr.contains("the pool has no backend"), "{said:?}");

    fs::remove_file(site.gateway.configuration())?;
    let said = site.gateway.verb(&["run"])?.expect(3)?;
    assert!(said.stderr.contains(&site.gateway.configuration().display().to_string()), "{said:?}");
    assert_untouched(&site)
}

#[test]
fn without_capabilities_the_exit_code_is_5_and_they_are_named() -> Result<()> {
    let site = site("caps")?;
    // Nobody else can look into the lab's directory, nor perhaps into the binary's.
    let open_dir = tempfile::tempdir_in("/run")?;
    fs::set_permissions(open_dir.path(), fs::Permissions::from_mode(0o755))?;
    let [binary, configuration] = ["balancer", "balancer.toml"].map(|file| open_dir.path().join(file));
    let usual = site.configuration(Options::default());
    let ca_file = format!("ca_file = {:?}", site.ca_file());
    fs::write(&configuration, usual.replace(&ca_file, "verify = false"))?;
    let usual = site.gateway.words(&["run"]);
    fs::copy(&usual[0], &binary)?;

    let run_as = |privileges: &[&str]| -> Result<Said> {
        let arguments = usual[1..].iter().map(|word| {
            let is_configuration = Path::new(word) == site.gateway.configuration();
            if is_configuration { configuration.display().to_string() } else { word.clone() }
        });
        let mut words: Vec<_> = ["setpriv"].iter().chain(privileges).map(|&word| word.to_owned()).collect();
        words.push(binary.display().to_string());
        words.extend(arguments);
        site.gateway.run(&words)
    };
    let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let said = run_as(&nobody)?.expect(5)?;
    let all = ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN", "run as root"];
    assert!(all.iter().all(|word| said.stderr.contains(word)), "{said:?}");
    let said = run_as(&["--bounding-set", "-net_admin"])?.expect(5)?;
    assert!(said.stderr.contains("missing CAP_NET_ADMIN:"), "{said:?}");
    assert_untouched(&site)
}

#[test]
fn a_foreign_program_is_never_replaced() -> Result<()> {
    let site = site("foreign")?;
    let gateway = site.lab().gateway();
    // A program of somebody else: not in this instance's pins. It is on the second interface, so that the first
    // would have been done already.
    let mut foreign = object::load(
        Wanted { max_flows: 16, max_half_open: 16, ipv4: true, ipv6: false, frags: true },
        None,
    )?;
    let program = foreign.program()?;
    let attach = || program.attach("lan0", aya::programs::XdpMode::Driver);
    gateway.enter(attach)??;
    let before = attached_programs(gateway)?;
    assert_eq!(before.keys().collect::<Vec<_>>(), ["lan0"]);

    let said = site.gateway.verb(&["run"])?.expect(7)?;
    let id = before["lan0"];
    assert!(said.stderr.contains(&format!("lan0 already has an XDP program (id {id})")), "{said:?}");
    assert_eq!(attached_programs(gateway)?, before);
    assert!(!site.lab().pin_dir().exists());
    Ok(())
}

#[test]
fn when_the_second_interface_refuses_the_first_is_released() -> Result<()> {
    let mut site = site("second")?;
    set_queues_beyond_lan0(&site, "2")?;
    site.gateway.configure(&site.configuration(Options { xdp_mode: "native", ..Options::default() }))?;
    let said = site.gateway.verb(&["run"])?.expect(1)?;
    assert!(["lan0", "native", "No space"].iter().all(|word| said.stderr.contains(word)), "{said:?}");
    assert_untouched(&site)?;

    // And it is no dead end.
    set_queues_beyond_lan0(&site, "1")?;
    site.gateway.start(&[])?;
    Ok(())
}

#[test]
fn where_native_mode_cannot_be_auto_is_generic_everywhere_and_says_so() -> Result<()> {
    let mut site = site("auto")?;
    set_queues_beyond_lan0(&site, "2")?;
    site.gateway.start(&[])?;
    let status = site.gateway.status()?;
    let modes = ["wan0", "lan0"].map(|name| {
        let attachments = status.0["attachments"].as_array().cloned().unwrap_or_default();
        attachments.into_iter().find(|one| one["interface"] == name).unwrap_or_default()
    });
    assert_eq!([&modes[0]["mode"], &modes[1]["mode"]], ["generic", "generic"], "{status}");
    assert!(modes[1]["error"].as_str().is_some_and(|error| error.contains("generic")), "{status}");
    Ok(())
}

#[test]
fn a_wrong_command_line_exits_2() -> Result<()> {
    let site = site("usage")?;
    for words in [&["runn"][..], &["run", "--detach"], &["failover"], &["status", "-o", "yaml"]] {
        let said = site.gateway.verb(words)?.expect(2)?;
        assert!(said.stderr.starts_with("error: ") && said.stdout.is_empty(), "{said:?}");
    }
    assert_untouched(&site)
}

/// Of the other end of the gateway's second cable: one that transmits by more queues than `lan0` receives by is what
/// native XDP on veth refuses (ENOSPC); a large MTU it takes.
fn set_queues_beyond_lan0(site: &Site, queues: &str) -> Result<()> {
    let switch = format!("--net=/run/netns/{}-switch_lan", site.lab().name());
    let words = ["nsenter", &switch, "ethtool", "-L", "gateway", "tx", queues];
    site.lab().gateway().run(words).map(drop)
}

/// No program, no pin and no socket is there.
fn assert_untouched(site: &Site) -> Result<()> {
    assert_eq!(attached_programs(site.lab().gateway())?, BTreeMap::new());
    assert!(!site.lab().pin_dir().exists(), "{} is left", site.lab().pin_dir().display());
    assert!(!site.lab().socket().exists(), "{} is left", site.lab().socket().display());
    Ok(())
}

/// Servers are not needed to be refused.
fn site(label: &str) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    Site::prepare(label, &Topology::two_armed(), Options::default(), &programs)
}
