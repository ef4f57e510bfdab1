//! What is believed of answers, told of those that are missing or odd, and remembered.

use super::*;
use crate::daemon::Clock;
use crate::daemon::example::{config, replaced};

const NOW: Moment = Clock::START;

fn answered(answers: &[(&str, Result<[u8; 4], &str>)]) -> Answers {
    let answer = |(host, answer): &(&str, Result<[u8; 4], &str>)| {
        let answer = answer.map(|address| vec![address.into()]).map_err(ToOwned::to_owned);
        ((*host).to_owned(), answer)
    };
    answers.iter().map(answer).collect()
}

fn names() -> Names {
    Names::new(Resolver::system(), &named(), NOW)
}

/// The example, with one backend by name.
fn named() -> Config {
    let mut config = replaced(&[]);
    config.pools[0].backends[0].host = Some("db1.example.org".to_owned());
    config
}

/// Where the first backend is, once a round has had this answer.
fn heard(names: &mut Names, config: &mut Config, answer: Result<[u8; 4], &str>) -> IpAddr {
    names.hear(config, &answered(&[("db1.example.org", answer)]), &BTreeSet::new(), NOW);
    config.pools[0].backends[0].address
}

#[test]
fn an_address_in_use_is_left_only_when_two_rounds_in_a_row_lead_to_the_same_other_one() {
    let (present, one, other) = ([10, 0, 2, 11], [10, 0, 2, 13], [10, 0, 2, 14]);
    for (rounds, last) in [
        (&[Ok(one)][..], present),
        (&[Ok(one), Ok(one)], one),
        (&[Ok(one), Ok(present), Ok(one)], present),
        (&[Ok(one), Ok(other), Ok(one)], present),
        (&[Ok(one), Ok(other), Ok(other)], other),
        (&[Ok(one), Ok([127, 0, 0, 1]), Ok(one)], present),
        (&[Ok(one), Err("no answer within 20s"), Ok(one)], one),
        (&[Ok(one), Err("no answer within 20s"), Ok(other)], present),
    ] {
        let (mut names, mut config) = (names(), named());
        let places: Vec<_> = rounds.iter().map(|answer| heard(&mut names, &mut config, *answer)).collect();
        let (at, before) = places.split_last().unwrap();
        assert_eq!(*at, IpAddr::from(last), "{rounds:?}");
        assert!(before.iter().all(|place| *place == IpAddr::from(present)), "{rounds:?}: {places:?}");
    }
}

#[test]
fn an_address_that_is_in_no_answer_any_more_is_left_even_if_each_leads_to_another_one() {
    let present = [10, 0, 2, 11];
    let other = |last: u8| Ok([10, 0, 2, last]);
    let silence = Err("no answer within 20s");
    let (mut names, mut config) = (names(), named());
    for round in [other(13), other(14), silence, other(15), Ok(present), other(16), other(13), other(14)] {
        assert_eq!(heard(&mut names, &mut config, round), IpAddr::from(present), "{round:?}");
    }
    assert_eq!(heard(&mut names, &mut config, other(15)), IpAddr::from([10, 0, 2, 15]));
    // Of the new one it is known anew.
    for last in [13, 14, 16] {
        assert_eq!(heard(&mut names, &mut config, other(last)), IpAddr::from([10, 0, 2, 15]));
    }
    assert_eq!(heard(&mut names, &mut config, other(13)), IpAddr::from([10, 0, 2, 13]));
}

#[test]
fn what_could_not_be_taken_over_is_believed_in_the_next_round_whatever_that_leads_to() {
    let (mut names, config) = (names(), named());
    for (last, is_moved) in [(13, false), (14, false), (15, false), (16, true), (13, true)] {
        // Nothing of it is carried out.
        let mut wanted = config.clone();
        let at = heard(&mut names, &mut wanted, Ok([10, 0, 2, last]));
        assert_eq!(at == IpAddr::from([10, 0, 2, last]), is_moved, "{last}");
    }
}

#[test]
fn a_reload_between_two_rounds_makes_the_second_one_the_first() {
    let (mut names, mut config) = (names(), named());
    heard(&mut names, &mut config, Ok([10, 0, 2, 13]));
    names.was_read(NOW);
    assert_eq!(heard(&mut names, &mut config, Ok([10, 0, 2, 13])), IpAddr::from([10, 0, 2, 11]));
    assert_eq!(names.next(), Some(NOW + EVERY));
    assert_eq!(heard(&mut names, &mut config, Ok([10, 0, 2, 13])), IpAddr::from([10, 0, 2, 13]));
}

#[test]
fn a_round_beside_a_reload_counts_and_what_it_moves_is_moved_by_the_next_one() {
    let (mut names, wanted) = (names(), named());
    let answers = answered(&[("db1.example.org", Ok([10, 0, 2, 13]))]);
    let mut round = |is_busy| {
        let config = names.take(&wanted, &answers, &BTreeSet::new(), is_busy, NOW);
        (config.map(|config| config.pools[0].backends[0].address), names.next())
    };
    assert_eq!(round(true), (None, Some(NOW + EVERY)), "the first says so");
    assert_eq!(round(true), (None, Some(NOW + AGAIN)), "the second does, and has to wait");
    assert_eq!(round(false).0, Some([10, 0, 2, 13].into()));
    // One that has asked by itself, and was accepted.
    names.was_read(NOW);
    assert_eq!(names.take(&wanted, &answers, &BTreeSet::new(), false, NOW), None);
}

#[test]
fn one_that_must_not_go_there_yet_keeps_its_own_place_from_others() {
    let (mut names, mut config) = (names(), named());
    config.pools[0].backends[1].host = Some("db2.example.org".to_owned());
    let mut round = |first: [u8; 4], second: [u8; 4]| {
        let answers = answered(&[("db1.example.org", Ok(first)), ("db2.example.org", Ok(second))]);
        names.hear(&mut config, &answers, &BTreeSet::new(), NOW);
        let places = config.pools[0].backends.iter().map(|backend| backend.address.to_string());
        places.take(2).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(round([10, 0, 2, 12], [10, 0, 2, 13]), "10.0.2.11 10.0.2.12");
    assert_eq!(round([10, 0, 2, 12], [10, 0, 2, 14]), "10.0.2.11 10.0.2.12");
    assert_eq!(round([10, 0, 2, 12], [10, 0, 2, 14]), "10.0.2.12 10.0.2.14");
}

#[test]
fn one_that_leads_to_anothers_place_stays_is_told_when_it_would_go_and_until_it_leads_elsewhere() {
    let (mut names, mut config) = (names(), named());
    for (answer, is_told) in [(12, false), (12, true), (12, true), (11, false)] {
        assert_eq!(heard(&mut names, &mut config, Ok([10, 0, 2, answer])), IpAddr::from([10, 0, 2, 11]));
        let told: Vec<String> = names.troubles().map(|(_, words)| words).collect();
        assert_eq!(told.len(), usize::from(is_told), "{told:?}");
        assert!(told.iter().all(|words| words.contains("where server2 is already: it stays at 10.0.2.11")));
    }
}

#[test]
fn one_round_without_an_answer_is_asked_again_soon_and_told_to_nobody() {
    let (mut names, mut config) = (names(), named());
    let silent = answered(&[("db1.example.org", Err("no answer within 20s"))]);
    let unsettled = config.settle(&silent, &BTreeSet::new(), |_, _, _| true);
    names.judge(&unsettled, &config, NOW);
    assert_eq!((names.troubles().count(), names.next()), (0, Some(NOW + AGAIN)));
    names.judge(&unsettled, &config, NOW);
    let (name, words) = names.troubles().next().unwrap();
    assert_eq!((name.as_str(), names.next()), ("host names", Some(NOW + EVERY)));
    assert!(words.contains("db1.example.org (no answer within 20s)"), "{words}");
    assert_eq!(config, named(), "it stays where it was");
    names.judge(&[], &config, NOW);
    assert_eq!(names.troubles().count(), 0);
}

#[test]
fn a_resolver_that_is_gone_is_one_trouble_with_a_few_of_the_names() {
    let mut names = names();
    let silent = (0..100).map(|n| (format!("db{n:02}.example.org"), (PATIENCE, "gone".to_owned())));
    names.silent = silent.collect();
    let troubles: Vec<_> = names.troubles().collect();
    let [(_, words)] = &troubles[..] else { panic!("{troubles:?}") };
    assert!(words.contains("db07.example.org (gone) and 92 more") && words.len() < 500, "{words}");
}

#[test]
fn an_answer_that_is_no_backend_is_told_at_once_and_changes_nothing() {
    let (mut names, mut config) = (names(), named());
    for (address, words) in [
        ([127, 0, 0, 1], "a loopback address"),
        ([203, 0, 113, 10], "the address that clients connect to"),
        ([10, 0, 2, 12], "where server2 is already"),
    ] {
        let answers = answered(&[("db1.example.org", Ok(address))]);
        let unsettled = config.settle(&answers, &BTreeSet::new(), |_, _, _| true);
        names.judge(&unsettled, &config, NOW);
        let (name, said) = names.troubles().next().unwrap();
        assert_eq!(name, "host name of server1 of passwords");
        assert!(said.contains(words) && said.ends_with("it stays at 10.0.2.11"), "{said}");
        assert_eq!(config, named());
    }
}

#[test]
fn who_is_left_out_is_told_at_once_and_until_it_is_known_where_it_is() {
    let mut config = named();
    config.pools[0].backends[0].address = [0, 0, 0, 0].into();
    let mut names = Names::new(Resolver::system(), &config, NOW);
    let told = |names: &Names| -> Vec<String> { names.troubles().map(|(_, words)| words).collect() };
    let [words] = &told(&names)[..] else { panic!("{:?}", told(&names)) };
    assert!(
        words.starts_with("pool passwords: server1: db1.example.org has led nowhere yet: it is left out"),
        "{words}"
    );
    let before = config.clone();
    let unsettled =
        config.settle(&answered(&[("db1.example.org", Err("gone"))]), &BTreeSet::new(), |_, _, _| true);
    names.judge(&unsettled, &config, NOW);
    let [words] = &told(&names)[..] else { panic!("{:?}", told(&names)) };
    assert!(words.contains("db1.example.org can't be resolved: gone: it is left out"), "{words}");
    assert_eq!(
        config
            .settle(&answered(&[("db1.example.org", Ok([10, 0, 2, 11]))]), &BTreeSet::new(), |_, _, _| false),
        []
    );
    let [one] = &moved(&before, &config)[..] else { panic!("{config:?}") };
    assert_eq!((one.from, one.to), (None, [10, 0, 2, 11].into()));
    names.judge(&[], &config, NOW);
    assert_eq!(names.troubles().count(), 0);
}

#[test]
fn who_is_elsewhere_now_is_told_with_both_addresses() {
    let (before, mut now) = (named(), named());
    assert_eq!(moved(&before, &now), []);
    let answers = answered(&[("db1.example.org", Ok([10, 0, 2, 13]))]);
    assert_eq!(now.settle(&answers, &BTreeSet::new(), |_, _, _| true), []);
    let [one] = &moved(&before, &now)[..] else { panic!("{now:?}") };
    assert_eq!((one.from, one.to), (Some([10, 0, 2, 11].into()), [10, 0, 2, 13].into()));
    assert_eq!((one.pool.as_str(), one.backend.as_str()), ("passwords", "server1"));
    assert_eq!(moved(&config(crate::daemon::example::BASE), &now), [], "by its address it was another one");
}

#[test]
fn of_two_places_that_the_maps_know_it_is_the_one_where_new_flows_go() {
    let [first, second] = [11, 12].map(|host| IpAddr::from([10, 0, 2, host]));
    let server1 = |address| (0, "server1".to_owned(), address);
    let mut occupied = Occupied {
        pools: [(0, "passwords".to_owned()), (1, "mails".to_owned())].into(),
        backends: [(1, server1(first)), (2, (1, "server1".to_owned(), second))].into(),
        ..Occupied::default()
    };
    assert_eq!(place(&occupied, "passwords", "server1"), Some(first));
    assert_eq!(place(&occupied, "passwords", "server2"), None);
    occupied.backends.insert(3, server1(second));
    assert_eq!(place(&occupied, "passwords", "server1"), None, "nobody can tell");
    occupied.active.insert(3);
    assert_eq!(place(&occupied, "passwords", "server1"), Some(second));
}

#[test]
fn what_is_remembered_is_where_each_name_led() {
    let hosts = written(named().known());
    let addresses = vec![[10, 0, 2, 11].into()];
    assert_eq!(hosts, [Host { name: "db1.example.org".to_owned(), addresses }]);
    assert_eq!(known(&hosts), named().known());
}
