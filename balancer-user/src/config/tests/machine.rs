//! The second stage: the same errors and warnings for the same machine, which is data here.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::super::{Config, KernelPorts, Missing, Names, Surroundings};
use super::*;
use crate::program::tests::Folder;

fn gateway() -> Surroundings {
    Surroundings {
        interfaces: ["lo", "lan0", "wan0"].map(String::from).into(),
        headless: BTreeSet::new(),
        addresses: [[127, 0, 0, 1], [203, 0, 113, 10], [10, 0, 2, 1]].map(IpAddr::from).into(),
        ports: KernelPorts { ephemeral: 32768..=60999, reserved: Vec::new() },
    }
}

fn check(text: &str, machine: &Surroundings) -> Config {
    let checked = accepted(text).check(machine, Missing::Refuse, &Names::LeftAlone);
    checked.unwrap_or_else(|errors| panic!("refused:\n{errors}\nin:\n{text}"))
}

/// Exactly one error of the second stage, at the mark, with these words.
fn assert_misfit(text: &str, machine: &Surroundings, words: &str) {
    let (text, position) = marked(text);
    let errors = accepted(&text).check(machine, Missing::Refuse, &Names::LeftAlone).expect_err("accepted");
    assert_error(&errors, position, words, &text);
}

#[test]
fn a_configuration_that_fits_has_no_warning() {
    assert_eq!(check(BASE, &gateway()).warnings, []);
}

#[test]
fn a_missing_interface_is_an_error_that_names_the_others() {
    let text = replaced(INTERFACES, "interfaces = [\"lan0\", «\"wan1\"]");
    assert_misfit(&text, &gateway(), "there is no interface `wan1`");
    assert_misfit(&text, &gateway(), "did you mean `wan0`? this machine has: lan0, lo, wan0");
}

#[test]
fn an_interface_without_ethernet_headers_is_an_error_whatever_may_be_missing() {
    let machine = Surroundings { headless: ["wan0".to_owned()].into(), ..gateway() };
    let text = replaced(INTERFACES, "interfaces = [\"lan0\", «\"wan0\"]");
    assert_misfit(&text, &machine, "packets of `wan0` have no Ethernet header");
    let (text, _) = marked(&text);
    assert!(accepted(&text).check(&machine, Missing::Warn, &Names::LeftAlone).is_err());
}

#[test]
fn a_missing_interface_is_a_warning_when_that_is_asked_for() {
    let text = replaced(INTERFACES, "interfaces = [\"lan0\", \"wan1\"]");
    let config = accepted(&text).check(&gateway(), Missing::Warn, &Names::LeftAlone).unwrap();
    assert_eq!(config.gateway.interfaces, ["lan0", "wan1"]);
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    assert_eq!(config.warnings[0].line, 2);
    assert!(config.warnings[0].message.contains("`wan1`"), "{:?}", config.warnings);
}

#[test]
fn a_backend_that_is_this_gateway_is_an_error() {
    let text = replaced(ADDRESS, "address = «\"10.0.2.1\"");
    assert_misfit(&text, &gateway(), "10.0.2.1 is an address of this gateway");
}

#[test]
fn a_listening_address_that_is_not_here_yet_is_a_warning_for_each_address() {
    let mut machine = gateway();
    machine.addresses.remove(&IpAddr::from([203, 0, 113, 10]));
    let second = "[[pool.service]]\nname = \"api\"\nlisten = \"203.0.113.10:8877\"";
    let warnings = check(&behind(ADDRESS, second), &machine).warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0].line, 15);
    assert!(warnings[0].message.contains("keepalived may add it"), "{warnings:?}");
}

#[test]
fn the_machines_own_ports_are_taken_out_of_snat_ports() {
    let mut machine = gateway();
    machine.ports.reserved = vec![2000..=2999, 61000..=61000];
    let pool = |config: Config| config.pools[0].snat_ports.clone();
    assert_eq!(pool(check(BASE, &machine)), [1024..=1999, 3000..=32767, 61001..=65535]);
    machine.ports.ephemeral = 1024..=60999;
    assert_eq!(pool(check(BASE, &machine)), [61001..=65535]);
}

#[test]
fn every_listening_port_is_taken_out_of_every_pools_snat_ports() {
    let second = SECOND_POOL.replace("203.0.113.11:25", "203.0.113.10:3000");
    let text = format!("{}{second}", replaced(LISTEN, "listen = \"203.0.113.10:8877\""));
    let config = check(&text, &gateway());
    for pool in &config.pools {
        assert_eq!(
            pool.snat_ports,
            [1024..=2999, 3001..=8876, 8878..=32767, 61000..=65535],
            "pool {}",
            pool.name
        );
    }
    let text = behind(POOL, "snat_ports = «\"8877\"").replace(":443\"", ":8877\"");
    assert_misfit(&text, &gateway(), "and the ports that services listen on");
}

#[test]
fn a_source_address_that_is_not_here_yet_is_a_warning() {
    let text = behind(POOL, "snat_addresses = [\"10.0.2.1\", \"10.0.2.2\"]");
    let config = check(&text, &gateway());
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    let message = &config.warnings[0].message;
    assert!(
        message.contains("10.0.2.2 is not an address") && message.contains("backend's answer"),
        "{message}"
    );
}

#[test]
fn an_ipv6_pool_is_held_against_the_machine_like_any_other() {
    let text = BASE.replace("203.0.113.10:443", "[2001:db8::10]:443").replace("10.0.2.11", "2001:db8:2::11");
    let mut machine = gateway();
    let warnings = check(&text, &machine).warnings;
    assert!(
        warnings.len() == 1 && warnings[0].message.contains("2001:db8::10 is not an address"),
        "{warnings:?}"
    );
    machine.addresses.extend(["2001:db8::10", "2001:db8:2::1"].map(|text| text.parse::<IpAddr>().unwrap()));
    assert_eq!(check(&text, &machine).warnings, []);
    let text = text.replace("\"2001:db8:2::11\"", "«\"2001:db8:2::1\"");
    assert_misfit(&text, &machine, "2001:db8:2::1 is an address of this gateway");
}

#[test]
fn snat_ports_of_which_nothing_is_left_are_an_error() {
    let text = behind(POOL, "snat_ports = «\"40000-50000\"");
    assert_misfit(&text, &gateway(), "no port is left without the kernel's own ports (32768-60999");
    let mut machine = gateway();
    machine.ports.ephemeral = 1024..=65535;
    assert_misfit(&BASE.replace("[[pool]]", "«[[pool]]"), &machine, "no port is left");
}

#[test]
fn snat_ports_in_too_many_pieces_are_an_error() {
    let mut machine = gateway();
    machine.ports.reserved = (0..32).map(|n| 2000 + n * 10..=2000 + n * 10).collect();
    let text = behind(POOL, "snat_ports = «\"1024-32767\"");
    assert_misfit(&text, &machine, "33 ranges are left");
    machine.ports.reserved.pop();
    assert_eq!(check(&text.replace('«', ""), &machine).pools[0].snat_ports.len(), 32);
}

#[test]
fn a_ca_file_holds_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let text = |path: &Path| behind(PROBE, &format!("ca_file = «\"{}\"", path.display()));

    assert_misfit(&text(&path), &gateway(), "No such file or directory");
    assert_misfit(&text(folder.path()), &gateway(), "is a directory, not a regular file");
    assert_misfit(&text(Path::new("/dev/zero")), &gateway(), "is a device");
    for (content, words) in [
        ("", "holds no certificate in PEM form"),
        ("not a certificate\n", "holds no certificate in PEM form"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate 1: "),
        ("-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n", "certificate 1: "),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n", "certificate 1: "),
    ] {
        fs::write(&path, content).unwrap();
        assert_misfit(&text(&path), &gateway(), words);
    }

    let key = rcgen::KeyPair::generate().unwrap();
    let ca = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap();
    fs::write(&path, ca.pem()).unwrap();
    check(&text(&path).replace('«', ""), &gateway());
}

#[test]
fn a_program_is_one_that_only_root_can_have_written() {
    let folder = Folder::new();
    let file = folder.script("exit 0").program;
    let texts = |mark: &str| {
        let run = format!("[{mark}\"{}\"]", file.display());
        [
            replaced(PROBE, &format!("kind = \"exec\"\nrun = {run}")),
            behind(INTERFACES, &format!("notify = {run}")),
        ]
    };
    texts("").iter().for_each(|text| drop(check(text, &gateway())));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o775)).unwrap();
    for text in texts("«") {
        assert_misfit(&text, &gateway(), "others than its owner may write to it (mode 0775)");
        assert_misfit(&text, &gateway(), "chmod it to 0755");
    }
    fs::remove_file(&file).unwrap();
    texts("«").iter().for_each(|text| assert_misfit(text, &gateway(), "does not exist"));
}

#[test]
fn a_ca_file_of_several_services_has_one_error() {
    let second = "[[pool.service]]\nname = \"api\"\nlisten = \"203.0.113.10:8877\"";
    let text = behind(ADDRESS, second).replace(PROBE, &format!("{PROBE}\nca_file = «\"/nowhere/ca.pem\""));
    assert_misfit(&text, &gateway(), "can't read /nowhere/ca.pem");
}

#[test]
fn warnings_of_both_stages_stand_in_the_order_of_the_text() {
    let mut machine = gateway();
    machine.addresses.clear();
    let unprobed = replaced(PASSIVE, "").replace(PROBE, "kind = \"none\"");
    let lines: Vec<usize> = check(&unprobed, &machine).warnings.iter().map(|warning| warning.line).collect();
    assert_eq!(lines, [4, 15]);
}

#[test]
fn the_daemons_own_ports_are_taken_out_of_snat_ports() {
    let text = behind(SERVICE, "redirect_http = \"203.0.113.10:8080\"");
    let text = text.replace(INTERFACES, &format!("{INTERFACES}\n[http]\nlisten = \"10.0.2.1:9464\""));
    let ports = &check(&text, &gateway()).pools[0].snat_ports;
    assert_eq!(ports[..], [1024..=8079, 8081..=9463, 9465..=32767, 61000..=65535]);
}

#[test]
fn a_redirects_address_may_come_later() {
    let text = behind(SERVICE, "redirect_http = \"203.0.113.99:80\"");
    let warnings = check(&text, &gateway()).warnings;
    assert!(warnings.len() == 1 && warnings[0].message.contains("203.0.113.99"), "{warnings:?}");
}

#[test]
fn a_token_is_in_a_file_of_roots_alone() {
    let folder = Folder::new();
    let file = folder.at("token");
    fs::write(&file, "correct-horse-battery\n").unwrap();
    let text = behind(INTERFACES, &format!("[http]\nlisten = \"127.0.0.1:9464\"\ntoken_file = «{file:?}"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let token = check(&text.replace('«', ""), &gateway()).http.unwrap().token.unwrap();
    assert!(token.is(b"correct-horse-battery"));
    let warnings =
        |listen: &str| check(&text.replace('«', "").replace("127.0.0.1", listen), &gateway()).warnings;
    assert_eq!(warnings("127.0.0.1"), []);
    let [warning] = &warnings("10.0.2.1")[..] else { panic!("one warning") };
    assert!(warning.line == 5 && warning.message.contains("ssh -L"), "{warning:?}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    assert_misfit(&text, &gateway(), "(mode 0640)");
    assert_misfit(&text, &gateway(), "chmod it to 0600");
    fs::write(&file, "short").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert_misfit(&text, &gateway(), "fewer than 16");
    fs::remove_file(&file).unwrap();
    assert_misfit(&text, &gateway(), "does not exist");
}
