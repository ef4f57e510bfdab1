//! Each finding about addresses and ways, well and ill.

use super::super::tests::{find, ills};
use super::*;

const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 10));
const BACKEND: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 2, 11));
const OURS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 2, 1));

fn way() -> Way {
    Way {
        pool: "p".to_owned(),
        backend: "b".to_owned(),
        address: BACKEND,
        is_dnat: false,
        route: Some(Route { ifindex: 3, next_hop: BACKEND, source: Some(OURS) }),
        leaves_by: Some("lan0".to_owned()),
        answers: Some(true),
    }
}

fn good() -> Addresses {
    Addresses {
        attached: ["wan0", "lan0"].map(str::to_owned).into(),
        inner: ["lo".to_owned()].into(),
        own: vec![("wan0".to_owned(), VIP), ("lan0".to_owned(), OURS)],
        listens: [VIP].into(),
        backends: vec![way()],
        rooms: vec![Room { pool: "p".to_owned(), flows: 36_279, max_flows: 16_384 }],
        strict: BTreeSet::new(),
    }
}

fn with(way: Way) -> Addresses {
    Addresses { backends: vec![way], ..good() }
}

/// The only one that isn't well.
#[track_caller]
fn only(addresses: &Addresses) -> Finding {
    let findings = addresses.judge();
    let ills = ills(&findings);
    assert_eq!(ills.len(), 1, "{findings:?}");
    find(&findings, ills[0]).clone()
}

#[test]
fn nothing_is_ill_on_a_good_gateway_and_every_topic_is_told() {
    let findings = good().judge();
    assert_eq!(ills(&findings), Vec::<&str>::new());
    for id in ["vip_present", "vip_interface", "route", "source_address", "neighbour", "snat_ports"] {
        assert!(find(&findings, id).ok, "{id}");
    }
}

#[test]
fn a_vip_that_is_missing_is_added_where_clients_are() {
    let missing = Addresses { own: vec![("lan0".to_owned(), OURS)], ..good() };
    let finding = only(&missing);
    assert_eq!((finding.id, finding.severity), ("vip_present", Severity::Error));
    assert_eq!(
        finding.fix.as_deref(),
        Some("# if that is right here: ip address add 203.0.113.10/32 dev wan0")
    );
    let one_armed = Addresses { attached: vec!["lan0".to_owned()], ..missing };
    assert_eq!(
        only(&one_armed).fix.as_deref(),
        Some("# if that is right here: ip address add 203.0.113.10/32 dev lan0")
    );
}

#[test]
fn a_vip_may_be_on_loopback_but_not_where_the_program_is_not() {
    let on = |interface: &str| Addresses { own: vec![(interface.to_owned(), VIP)], ..good() };
    assert_eq!(ills(&on("lo").judge()), Vec::<&str>::new());
    let finding = only(&on("mgmt0"));
    assert_eq!((finding.id, finding.severity), ("vip_interface", Severity::Warning));
    assert!(finding.cause.contains("mgmt0"), "{finding:?}");
}

#[test]
fn a_backend_without_a_way_or_with_one_that_leaves_elsewhere_is_an_error() {
    let finding = only(&with(Way { route: None, leaves_by: None, answers: None, ..way() }));
    assert_eq!((finding.id, finding.severity, finding.subject.as_str()), ("route", Severity::Error, "p/b"));
    let finding = only(&with(Way { leaves_by: Some("br0".to_owned()), ..way() }));
    assert_eq!((finding.id, finding.severity), ("route", Severity::Error));
    assert!(finding.fix.is_some_and(|fix| fix.contains("write \"br0\" into [gateway] interfaces")));
}

#[test]
fn a_backend_that_nobody_can_answer_is_an_error_and_a_silent_one_a_warning() {
    let route = Route { ifindex: 3, next_hop: BACKEND, source: None };
    let finding = only(&with(Way { route: Some(route), ..way() }));
    assert_eq!((finding.id, finding.severity), ("source_address", Severity::Error));
    let finding = only(&with(Way { answers: Some(false), ..way() }));
    assert_eq!((finding.id, finding.severity), ("neighbour", Severity::Warning));
    assert!(with(Way { answers: None, ..way() }).judge().iter().all(|finding| finding.id != "neighbour"));
}

#[test]
fn in_dnat_the_way_back_is_told_and_a_strict_filter_loosened_by_a_command() {
    let dnat = with(Way { is_dnat: true, ..way() });
    let finding = only(&dnat);
    assert_eq!((finding.id, finding.severity), ("dnat_return", Severity::Info));
    assert!(
        finding
            .fix
            .is_some_and(|fix| fix.contains("on b: `ip route get CLIENT`") && fix.ends_with("via 10.0.2.1"))
    );
    assert!(find(&dnat.judge(), "rp_filter").ok);
    let strict = Addresses { strict: ["lan0".to_owned()].into(), ..dnat };
    let findings = strict.judge();
    assert_eq!(find(&findings, "rp_filter").fix.as_deref(), Some("sysctl -w net.ipv4.conf.lan0.rp_filter=2"));
}

#[test]
fn few_source_ports_are_a_warning_and_fewer_than_max_flows_worth_knowing() {
    for (flows, severity) in [(FEW_FLOWS - 1, Severity::Warning), (FEW_FLOWS, Severity::Info)] {
        let rooms = vec![Room { pool: "p".to_owned(), flows, max_flows: 262_144 }];
        let finding = only(&Addresses { rooms, ..good() });
        assert_eq!((finding.id, finding.severity), ("snat_ports", severity));
    }
}
