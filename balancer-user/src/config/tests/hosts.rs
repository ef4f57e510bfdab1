//! Backends that are given by name: what is asked, which answer is taken, and what is refused and with which words.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::{Check, Config, KernelPorts, Known, Missing, Names, Surroundings, Verify};
use super::*;
use crate::resolver::{Answer, Answers};

/// BASE with a second backend, both by name.
fn named() -> String {
    let second = "[[pool.backend]]\nname = \"server2\"\naddress = \"db2.example.org\"";
    replaced(ADDRESS, &format!("address = \"db1.example.org\"\n{second}"))
}

fn machine() -> Surroundings {
    Surroundings {
        interfaces: ["lan0", "wan0"].map(String::from).into(),
        headless: BTreeSet::new(),
        addresses: [[203, 0, 113, 10], [10, 0, 2, 1]].map(IpAddr::from).into(),
        ports: KernelPorts { ephemeral: 32768..=60999, reserved: Vec::new() },
    }
}

fn addresses(written: &[&str]) -> Vec<IpAddr> {
    written.iter().map(|address| address.parse().unwrap()).collect()
}

fn some(written: &[&str]) -> Answer {
    Ok(addresses(written))
}

fn answers(db1: Answer, db2: Answer) -> Answers {
    [("db1.example.org", db1), ("db2.example.org", db2)]
        .map(|(name, answer)| (name.to_owned(), answer))
        .into()
}

fn check(text: &str, answers: &Answers, known: &Known) -> Result<Config, ConfigErrors> {
    let names = Names::Asked { answers, known, stay: false, nowhere: Missing::Refuse };
    accepted(text).check(&machine(), Missing::Refuse, &names)
}

fn places(config: &Config) -> Vec<String> {
    config.pools[0].backends.iter().map(|backend| backend.address.to_string()).collect()
}

#[test]
fn each_name_is_asked_for_once_and_leads_to_its_lowest_usable_address() {
    let parsed = accepted(&named().replace("db2", "db1"));
    assert_eq!(parsed.hosts(), BTreeSet::from(["db1.example.org".to_owned()]));
    assert_eq!(parsed.as_written().pools[0].backends, [], "nobody knows where they are");
    let answers =
        answers(some(&["10.0.2.13", "127.0.0.1", "10.0.2.11", "2001:db8::1"]), some(&["10.0.2.12"]));
    let config = check(&named(), &answers, &Known::new()).unwrap();
    assert_eq!(places(&config), ["10.0.2.11", "10.0.2.12"]);
    assert_eq!(config.pools[0].backends[0].host.as_deref(), Some("db1.example.org"));
    assert_eq!(config.warnings, []);
}

#[test]
fn an_address_stays_as_long_as_the_name_has_it() {
    let (first, none) = (answers(some(&["10.0.2.12"]), some(&["10.0.2.22"])), BTreeSet::new());
    let mut config = check(&named(), &first, &Known::new()).unwrap();
    let more = answers(some(&["10.0.2.11", "10.0.2.12"]), some(&["10.0.2.22"]));
    assert_eq!(config.settle(&more, &none, |_, _, _| true), []);
    assert_eq!(places(&config), ["10.0.2.12", "10.0.2.22"]);
    // A reload knows where they were.
    let config = check(&named(), &more, &config.known()).unwrap();
    assert_eq!(places(&config), ["10.0.2.12", "10.0.2.22"]);
    let mut config = config;
    assert_eq!(
        config.settle(&answers(some(&["10.0.2.11"]), some(&["10.0.2.22"])), &none, |_, _, _| true),
        []
    );
    assert_eq!(places(&config), ["10.0.2.11", "10.0.2.22"]);
}

#[test]
fn who_is_to_stay_where_he_was_does_and_who_was_nowhere_goes_where_the_name_leads() {
    let known = Known::from([("db1.example.org".to_owned(), addresses(&["10.0.2.11"]))]);
    let answers = answers(some(&["10.0.2.13"]), some(&["10.0.2.12"]));
    let names = Names::Asked { answers: &answers, known: &known, stay: true, nowhere: Missing::Refuse };
    let config = accepted(&named()).check(&machine(), Missing::Refuse, &names).unwrap();
    assert_eq!(places(&config), ["10.0.2.11", "10.0.2.12"]);
    let config = check(&named(), &answers, &known).unwrap();
    assert_eq!(places(&config), ["10.0.2.13", "10.0.2.12"]);
}

#[test]
fn a_name_that_leads_nowhere_is_an_error_where_it_stands_and_says_why() {
    let text = named().replace("\"db1.", "«\"db1.");
    let cases = [
        (Err("Name or service not known".to_owned()), "`db1.example.org` can't be resolved: Name or service"),
        (some(&[]), "has no address"),
        (some(&["2001:db8::1"]), "has no IPv4 address as the pool's services have, only 2001:db8::1"),
        (some(&["127.0.1.1"]), "leads to 127.0.1.1, which is a loopback address"),
        (some(&["224.0.0.1"]), "which is a multicast address"),
        (some(&["203.0.113.10"]), "which is the address that clients connect to"),
        (some(&["10.0.2.1"]), "which is an address of this gateway"),
    ];
    for (answer, words) in cases {
        let (text, position) = marked(&text);
        let errors = check(&text, &answers(answer, some(&["10.0.2.12"])), &Known::new()).unwrap_err();
        assert_error(&errors, position, words, &text);
    }
}

#[test]
fn the_last_good_address_takes_its_place_and_is_told() {
    let known = Known::from([("db1.example.org".to_owned(), addresses(&["10.0.2.11"]))]);
    for answer in [Err("no answer within 3s".to_owned()), some(&["127.0.0.1"])] {
        let config = check(&named(), &answers(answer, some(&["10.0.2.12"])), &known).unwrap();
        assert_eq!(places(&config), ["10.0.2.11", "10.0.2.12"]);
        let [warning] = &config.warnings[..] else { panic!("{:?}", config.warnings) };
        assert!(warning.message.contains("its last good address 10.0.2.11 is used"), "{warning:?}");
    }
    // One that could not be a backend any more is none.
    let known = Known::from([("db1.example.org".to_owned(), addresses(&["10.0.2.1"]))]);
    let silent = answers(Err("no answer within 3s".to_owned()), some(&["10.0.2.12"]));
    assert!(check(&named(), &silent, &known).is_err());
}

#[test]
fn beside_traffic_that_goes_on_who_is_nowhere_is_left_out_but_not_a_whole_pool() {
    let check = |text: &str, db1: Answer, db2: Answer| {
        let (answers, known) = (answers(db1, db2), Known::new());
        let names = Names::Asked { answers: &answers, known: &known, stay: false, nowhere: Missing::Warn };
        accepted(text).check(&machine(), Missing::Refuse, &names)
    };
    let silent = || Err("no answer within 15s".to_owned());
    for nowhere in [silent(), some(&["127.0.0.1"])] {
        let config = check(&named(), nowhere, some(&["10.0.2.12"])).unwrap();
        assert_eq!(config.pools[0].backends.len(), 2);
        let settled = config.settled();
        assert_eq!(places(&settled), ["10.0.2.12"]);
        let [warning] = &config.warnings[..] else { panic!("{:?}", config.warnings) };
        assert!(
            warning.message.contains("server1 is left out until its name leads where it can be"),
            "{warning:?}"
        );
    }
    assert_eq!(check(&named(), silent(), silent()).unwrap_err().count(), 2);
    let only_a_disabled_one = format!("{}\ndisabled = true", named());
    assert_eq!(check(&only_a_disabled_one, silent(), some(&["10.0.2.12"])).unwrap_err().count(), 1);
}

#[test]
fn two_backends_at_one_address_are_refused_at_first_and_kept_apart_later() {
    let same = answers(some(&["10.0.2.12"]), some(&["10.0.2.12"]));
    let (text, position) = marked(&named().replace("\"db2.", "«\"db2."));
    let errors = check(&text, &same, &Known::new()).unwrap_err();
    assert_error(&errors, position, "leads to 10.0.2.12, where server1 is already", &text);

    let mut config =
        check(&named(), &answers(some(&["10.0.2.11"]), some(&["10.0.2.12"])), &Known::new()).unwrap();
    let unsettled = config.settle(&same, &BTreeSet::new(), |_, _, _| true);
    assert_eq!((unsettled.len(), unsettled[0].backend), (1, 0), "who has come there goes back");
    assert_eq!(places(&config), ["10.0.2.11", "10.0.2.12"]);
    let turned = answers(some(&["10.0.2.12"]), some(&["10.0.2.11"]));
    assert_eq!(config.settle(&turned, &BTreeSet::new(), |_, _, _| true), []);
    assert_eq!(places(&config), ["10.0.2.12", "10.0.2.11"], "they may change places");
}

#[test]
fn an_address_that_is_written_is_nobody_elses() {
    let text = named().replace("db2.example.org", "10.0.2.12").replace("\"db1.", "«\"db1.");
    let (text, position) = marked(&text);
    let errors = check(&text, &answers(some(&["10.0.2.12"]), some(&[])), &Known::new()).unwrap_err();
    assert_error(&errors, position, "where server2 is already", &text);
}

#[test]
fn names_that_are_left_alone_lead_nowhere_and_are_no_error() {
    let config = accepted(&named()).check(&machine(), Missing::Warn, &Names::LeftAlone).unwrap();
    assert_eq!(places(&config), ["0.0.0.0", "0.0.0.0"]);
    assert!(config.known().is_empty());
}

#[test]
fn a_name_is_what_the_certificate_is_for_unless_one_is_written() {
    let text = named().replace(PROBE, "interval = \"2s\"");
    let check = accepted(&text).config.pools[0].services[0].probe.check.clone();
    assert_eq!(check, Check::Tls { server_name: None, verify: Verify::SystemRoots });
    let mixed = text.replace("db2.example.org", "10.0.2.12").replace("[pool.probe]", "«[pool.probe]");
    assert_refused(&mixed, "is missing: a TLS probe verifies the certificate");
}
