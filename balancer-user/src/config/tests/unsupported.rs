//! What isn't carried out yet is refused, never ignored; and a mistake in it is that mistake first.

use super::super::not_yet;
use super::*;

const HOOK: &str = "[[pool.hook]]\nname = \"promote\"\nwhen = \"before\"\nrun = [\"/hook\"]";

/// What is written in the place of a line of BASE.
type Line = (&'static str, &'static str);

/// The refused key; what writes it; and a mistake in the same place, with words of its error.
const CASES: &[(&str, Line, Line, &str)] = &[
    (
        "pool.service.redirect_http",
        (SERVICE, "name = \"s\"\nredirect_http = «\"203.0.113.10:80\""),
        (SERVICE, "name = \"s\"\nredirect_http = «\"203.0.113.10\""),
        "has no port",
    ),
    (
        "pool.service.redirect_hosts",
        (SERVICE, "name = \"s\"\nredirect_hosts = «[\"a.example\"]"),
        (SERVICE, "name = \"s\"\nredirect_hosts = [«\"a b\"]"),
        "neither a host name nor an IP address",
    ),
];

#[test]
fn what_is_not_supported_yet_is_refused_where_it_stands() {
    for (key, (line, by), ..) in CASES {
        let (text, position) = marked(&replaced(line, by));
        let errors = refused(&text);
        let found = errors.errors().iter().any(|error| {
            error.key() == *key
                && error.position() == Some(position)
                && error.message().ends_with("is not supported yet")
                && !error.instead().is_empty()
        });
        assert!(found, "wanted {key} to be refused at {position:?}, got:\n{errors}\nin:\n{text}");
    }
}

#[test]
fn a_mistake_in_it_is_that_mistake() {
    for (_, _, (line, by), words) in CASES {
        let (text, position) = marked(&replaced(line, by));
        let errors = refused(&text);
        let at_place: Vec<_> =
            errors.errors().iter().filter(|error| error.position() == Some(position)).collect();
        let [error] = at_place[..] else {
            panic!("wanted one error at {position:?}, got:\n{errors}\nin:\n{text}")
        };
        let found = error.message().contains(words) || error.instead().contains(words);
        assert!(found, "wanted {words:?}, got:\n{errors}\nin:\n{text}");
    }
}

#[test]
fn every_refusal_has_a_case() {
    for key in not_yet::refused_keys() {
        assert!(CASES.iter().any(|(tried, ..)| *tried == key), "{key} has no case here");
    }
}

#[test]
fn only_a_value_that_asks_for_it_is_refused() {
    accepted(&behind(
        POOL,
        "forwarding = \"snat\"\nfailover = \"auto\"\nwhen_all_down = \"last\"\nsnat_addresses = []",
    ));
    accepted(&behind(BACKEND, "cold = false\nfail_timeout = \"1m\"\nfail_timeout_max = \"60s\""));
}

#[test]
fn a_hook_is_checked_like_everything_else() {
    for (from, to, words) in [
        ("\"promote\"", "«\"\"", "can't name a hook"),
        ("\"before\"", "«\"during\"", "unknown value `during`"),
        ("\"/hook\"", "«\"hook\"", "is not an absolute path"),
        ("run =", "timeout = «\"0s\"\nrun =", "too short"),
        ("run =", "on_error = «\"ignore\"\nrun =", "write \"hold\" or \"continue\""),
        ("run =", "«runs =", "unknown key `runs`"),
    ] {
        let (text, (line, column)) = marked(&format!("{BASE}{}", HOOK.replace(from, to)));
        let shown = refused(&text).to_string();
        assert!(
            shown.contains(&format!("f.toml:{line}:{column}: ")) && shown.contains(words),
            "{words}:\n{shown}"
        );
    }
    let (text, (line, column)) =
        marked(&format!("{BASE}{HOOK}\n{}", HOOK.replace("\"promote", "«\"promote")));
    let shown = refused(&text).to_string();
    assert!(
        shown.contains(&format!("f.toml:{line}:{column}: pool.hook.name: `promote` is already a hook")),
        "{shown}"
    );
    let shown = refused(&format!("{BASE}{HOOK}")).to_string();
    assert!(shown.contains("\"keep\" can't stand in a pool with `before` hooks"), "{shown}");
}
