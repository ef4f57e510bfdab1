//! Each finding about interfaces, well and ill.

use super::super::tests::{find, ills};
use super::*;
use crate::dataplane::features::XdpFeatures;

/// A veth whose other end polls, and one whose other end doesn't.
const WHOLE: u64 = 0b110_0111;
const DEAF: u64 = 0b010_0011;

fn abilities(xdp: u64, offloads: &[&str]) -> Abilities {
    Abilities {
        xdp: Some(XdpFeatures::of(xdp)),
        offloads: offloads.iter().map(|&name| name.to_owned()).collect(),
    }
}

fn veth(name: &str) -> Interface {
    Interface {
        name: name.to_owned(),
        device: Some(Device {
            name: name.to_owned(),
            ifindex: 2,
            kind: Some("veth".to_owned()),
            is_up: true,
            has_carrier: true,
            mtu: 1500,
            below: Some(3),
            ..Device::default()
        }),
        abilities: abilities(WHOLE, &["rx-gro"]),
        driver: Some("veth".to_owned()),
        master: None,
        peer: None,
        is_trunk: false,
        is_ours: Some(false),
        owner: Owner::default(),
    }
}

fn change(interface: Interface, change: impl FnOnce(&mut Device)) -> Interface {
    let mut device = interface.device.clone().unwrap_or_default();
    change(&mut device);
    Interface { device: Some(device), ..interface }
}

fn judge(mode: XdpMode, wanted: impl Into<Vec<Interface>>) -> Vec<Finding> {
    Interfaces { mode, wanted: wanted.into(), known: vec!["lo".to_owned(), "wan0".to_owned()] }.judge()
}

/// The only one that isn't well.
#[track_caller]
fn only(mode: XdpMode, interface: Interface) -> Finding {
    let findings = judge(mode, [interface]);
    let ills = ills(&findings);
    assert_eq!(ills.len(), 1, "{findings:?}");
    find(&findings, ills[0]).clone()
}

#[test]
fn nothing_is_ill_with_good_interfaces_and_every_topic_is_told() {
    let findings = judge(XdpMode::Auto, [veth("wan0"), Interface { is_trunk: true, ..veth("lan0") }]);
    assert_eq!(ills(&findings), Vec::<&str>::new());
    for id in [
        "interface_exists",
        "interface_up",
        "interface_master",
        "foreign_program",
        "xdp_native",
        "xdp_transmit",
        "xdp_frags",
        "lro",
        "vlan_tags",
        "mtu",
    ] {
        assert!(find(&findings, id).ok, "{id}");
    }
}

#[test]
fn an_interface_that_is_missing_is_named_with_those_that_are_there() {
    let finding = only(XdpMode::Auto, Interface { device: None, ..veth("wan1") });
    assert_eq!(
        (finding.id, finding.severity, finding.subject.as_str()),
        ("interface_exists", Severity::Error, "wan1")
    );
    assert!(finding.fix.is_some_and(|fix| fix.ends_with("lo, wan0")));
}

#[test]
fn down_is_an_error_and_no_carrier_a_warning() {
    let down = only(
        XdpMode::Auto,
        change(veth("wan0"), |device| (device.is_up, device.has_carrier) = (false, false)),
    );
    assert_eq!((down.id, down.severity), ("interface_up", Severity::Error));
    assert_eq!(down.fix.as_deref(), Some("ip link set dev wan0 up"));
    let unplugged = only(XdpMode::Auto, change(veth("wan0"), |device| device.has_carrier = false));
    assert_eq!((unplugged.id, unplugged.severity), ("interface_up", Severity::Warning));
}

#[test]
fn a_part_of_a_bridge_is_told_and_one_of_a_vrf_is_not() {
    let master = |kind: &str| Some(("br0".to_owned(), kind.to_owned()));
    let finding = only(XdpMode::Auto, Interface { master: master("bridge"), ..veth("wan0") });
    assert_eq!(finding.id, "interface_master");
    assert!(finding.cause.contains("br0 (bridge)"), "{finding:?}");
    assert_eq!(
        ills(&judge(XdpMode::Auto, [Interface { master: master("vrf"), ..veth("wan0") }])),
        Vec::<&str>::new()
    );
}

#[test]
fn a_foreign_program_is_named_and_taken_off_by_what_holds_it() {
    let with = |mode, link, is_ours| {
        let name = Some("theirs".to_owned());
        let interface = Interface { owner: Owner { name, link }, is_ours, ..veth("wan0") };
        change(interface, |device| device.program = Some((7, mode)))
    };
    for (mode, link, fix) in [
        (Mode::Native, None, "ip link set dev wan0 xdp off"),
        (Mode::Generic, None, "ip link set dev wan0 xdpgeneric off"),
        (Mode::Native, Some(9), "bpftool link detach id 9"),
    ] {
        let finding = only(XdpMode::Auto, with(mode, link, Some(false)));
        assert_eq!(
            (finding.id, finding.severity, finding.fix.as_deref()),
            ("foreign_program", Severity::Error, Some(fix))
        );
        assert!(finding.cause.contains("(id 7)") && finding.cause.contains("theirs"), "{finding:?}");
    }
    assert_eq!(ills(&judge(XdpMode::Auto, [with(Mode::Native, None, Some(true))])), Vec::<&str>::new());
    let unseen = judge(XdpMode::Auto, [with(Mode::Native, None, None)]);
    assert!(unseen.iter().all(|finding| finding.id != "foreign_program"), "{unseen:?}");
}

#[test]
fn what_only_native_mode_needs_is_as_bad_as_native_mode_is_wanted() {
    let without = Interface { abilities: abilities(0, &[]), ..veth("wan0") };
    for (mode, severity) in [(XdpMode::Auto, Severity::Warning), (XdpMode::Native, Severity::Error)] {
        let finding = only(mode, without.clone());
        assert_eq!((finding.id, finding.severity), ("xdp_native", severity));
    }
    assert_eq!(ills(&judge(XdpMode::Generic, [without])), Vec::<&str>::new());
    let finding = only(XdpMode::Auto, Interface { abilities: abilities(WHOLE & !2, &[]), ..veth("wan0") });
    assert!(finding.cause.contains("redirect"), "{finding:?}");
}

#[test]
fn a_veth_without_transmit_has_its_other_end_named() {
    let deaf = Interface { abilities: abilities(DEAF, &[]), ..veth("wan0") };
    let finding = only(XdpMode::Auto, Interface { peer: Some("eth7".to_owned()), ..deaf.clone() });
    assert_eq!((finding.id, finding.fix.as_deref()), ("xdp_transmit", Some("ethtool -K eth7 gro on")));
    let elsewhere = change(deaf.clone(), |device| device.below_is_in = Some(4));
    let fix = only(XdpMode::Auto, elsewhere).fix.unwrap_or_default();
    assert!(fix.starts_with("# in the network namespace 4 ") && fix.contains("index 3"), "{fix}");
    // Where it runs already, packets are lost.
    let runs = Interface { is_ours: Some(true), ..deaf };
    let runs = change(runs, |device| device.program = Some((7, Mode::Native)));
    assert_eq!(only(XdpMode::Auto, runs).severity, Severity::Error);
}

#[test]
fn a_driver_that_transmits_only_with_a_program_is_not_blamed_before() {
    let physical = |interface| change(interface, |device| device.kind = None);
    let deaf = physical(Interface { abilities: abilities(DEAF, &[]), ..veth("eth0") });
    assert_eq!(ills(&judge(XdpMode::Native, [deaf])), Vec::<&str>::new());
}

#[test]
fn a_large_mtu_needs_a_driver_that_takes_it() {
    let jumbo = |xdp| {
        change(Interface { abilities: abilities(xdp, &[]), ..veth("wan0") }, |device| device.mtu = 9000)
    };
    assert_eq!(ills(&judge(XdpMode::Auto, [jumbo(WHOLE)])), Vec::<&str>::new());
    let finding = only(XdpMode::Auto, jumbo(WHOLE & !(1 << 5)));
    assert_eq!(
        (finding.id, finding.fix.as_deref()),
        ("xdp_frags", Some("# if that is right here: ip link set dev wan0 mtu 3498"))
    );
    let finding = only(XdpMode::Auto, jumbo(WHOLE & !(1 << 6)));
    assert_eq!(finding.id, "xdp_transmit");
    assert!(finding.fix.is_some_and(|fix| fix.contains("mtu 3498")));
}

#[test]
fn joined_packets_and_hidden_tags_are_switched_off_by_a_command() {
    for (offload, fix) in
        [("rx-lro", "ethtool -K wan0 lro off"), ("rx-gro-hw", "ethtool -K wan0 rx-gro-hw off")]
    {
        let finding =
            only(XdpMode::Auto, Interface { abilities: abilities(WHOLE, &[offload]), ..veth("wan0") });
        assert_eq!((finding.id, finding.fix.as_deref()), ("lro", Some(fix)));
    }
    let stripping = abilities(WHOLE, &[TAGS_ARE_STRIPPED]);
    let trunk = Interface { abilities: stripping, is_trunk: true, ..veth("wan0") };
    let finding = only(XdpMode::Auto, trunk.clone());
    assert_eq!((finding.id, finding.fix.as_deref()), ("vlan_tags", Some("ethtool -K wan0 rxvlan off")));
    assert_eq!(ills(&judge(XdpMode::Auto, [Interface { is_trunk: false, ..trunk }])), Vec::<&str>::new());
}

#[test]
fn sides_of_different_sizes_are_told_with_the_narrow_one() {
    let narrow = change(veth("lan0"), |device| device.mtu = 1400);
    let findings = judge(XdpMode::Auto, [veth("wan0"), narrow]);
    assert_eq!(ills(&findings), ["mtu"]);
    let ill: Vec<_> = findings.iter().filter(|finding| !finding.ok).collect();
    assert_eq!(
        (ill[0].subject.as_str(), ill[0].fix.as_deref()),
        ("lan0", Some("# if that is right here: ip link set dev lan0 mtu 1500"))
    );
}
