//! Which of several links is an interface's.

use std::path::PathBuf;

use super::*;

#[test]
fn of_links_to_devices_of_one_index_the_one_with_the_interfaces_name_is_it() {
    let link = |name: &str, ifindex, program_id| Pinned {
        path: PathBuf::from("/pins/v1").join(format!("link-{name}")),
        id: 1,
        program_id,
        ifindex: Some(ifindex),
    };
    let target = Target {
        interface: "eth1.5".to_owned(),
        ifindex: 3,
        mtu: 1500,
        program: Some((7, Mode::Native)),
        carrier: Carrier::Up,
    };
    let found = |links: &[Pinned]| on(links, &target).map(|link| link.path.clone());
    // The first one's device is in another network namespace.
    let both = [link("eth0", 3, 7), link("eth1%2e5", 3, 7)];
    assert_eq!(found(&both), Some(both[1].path.clone()));
    assert_eq!(found(&both[..1]), Some(both[0].path.clone()), "it was called otherwise");
    assert_eq!(found(&[link("eth1%2e5", 3, 8), link("eth1%2e5", 4, 7)]), None);
}
