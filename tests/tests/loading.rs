//! The program loads with every feature on and off, on every kernel that the project is tested on.

use balancer_user::dataplane::object::{self, Wanted};

fn wanted(ipv4: bool, ipv6: bool, frags: bool) -> Wanted {
    Wanted { max_flows: 16, max_half_open: 16, ipv4, ipv6, frags }
}

#[test]
fn the_program_loads_with_every_feature_on_and_off() {
    for (ipv4, ipv6) in [(true, false), (false, true), (true, true)] {
        for frags in [true, false] {
            let wanted = wanted(ipv4, ipv6, frags);
            let loaded = object::load(wanted, None).unwrap_or_else(|error| panic!("{wanted:?}: {error:?}"));
            assert_eq!(loaded.frags.is_ok(), frags, "{wanted:?}: {:?}", loaded.frags);
            assert_eq!(loaded.live_frames, Ok(()), "{wanted:?}");
        }
    }
}

#[test]
fn what_is_off_is_not_there() {
    let size = |ipv6| {
        let mut loaded = object::load(wanted(true, ipv6, true), None).unwrap();
        let program = loaded.program().unwrap();
        program.info().unwrap().size_translated().unwrap()
    };
    let (without, with) = (size(false), size(true));
    assert!(without < with * 3 / 4, "{without} bytes without IPv6, {with} with it");
}
