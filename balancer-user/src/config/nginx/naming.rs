//! Names that balancer takes, from names that nginx takes, which may be anything.

use std::collections::BTreeSet;

use super::super::limits::NAME_BYTES;

/// `wanted`, or as near as a name may be, not in `taken` yet; it is then.
pub(super) fn unique(wanted: &str, taken: &mut BTreeSet<String>) -> String {
    let plain = plain(wanted);
    let mut name = plain.clone();
    let mut number = 2_u32;
    while !taken.insert(name.clone()) {
        let suffix = format!("-{number}");
        let room = NAME_BYTES - suffix.len();
        name = format!("{}{suffix}", &plain[..plain.len().min(room)]);
        number += 1;
    }
    name
}

/// With `-` in place of what a name can't contain.
fn plain(wanted: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name: String = wanted.chars().map(|c| if allowed(c) { c } else { '-' }).take(NAME_BYTES).collect();
    let name = name.trim_start_matches(['-', '.']);
    if name.is_empty() { "unnamed".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::names;
    use super::*;

    #[test]
    fn names_stay_as_near_as_they_may() {
        let mut taken = BTreeSet::new();
        for (wanted, name) in [
            ("pw_web", "pw_web"),
            ("pw_web", "pw_web-2"),
            ("a b/c", "a-b-c"),
            ("[2001:db8::1]", "2001-db8--1-"),
            ("..x", "x"),
            ("ä", "unnamed"),
        ] {
            assert_eq!(unique(wanted, &mut taken), name);
        }
    }

    proptest! {
        #[test]
        fn every_name_is_one_that_balancer_takes(wanted in prop::collection::vec("\\PC{0,80}|[a-z]{63}|x{70}", 1..20)) {
            let mut taken = BTreeSet::new();
            let given: Vec<String> = wanted.iter().map(|wanted| unique(wanted, &mut taken)).collect();
            prop_assert_eq!(taken.len(), given.len());
            for name in given {
                prop_assert!(names::name(&name).is_ok(), "{}", name);
            }
        }
    }
}
