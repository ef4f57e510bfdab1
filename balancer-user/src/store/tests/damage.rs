//! `state.json`: what is written is read back, and what can't be trusted is never used and never stops anything.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::Duration;

use super::*;
use crate::store::{Store, Unreadable};

const NAME: &str = "state.json";

fn written(place: &Place) -> String {
    file::write(place.open(), state()).unwrap();
    fs::read_to_string(place.path().join(NAME)).unwrap()
}

/// What is wrong with this text in place of a state.
fn problem(text: impl AsRef<[u8]>) -> Option<Unreadable> {
    let place = Place::new();
    fs::write(place.path().join(NAME), text).unwrap();
    read_state(place.open()).err()
}

#[test]
fn a_state_is_read_as_it_was_written() {
    let place = Place::new();
    assert!(read_state(place.open()).unwrap().is_none());
    let text = written(&place);
    let read = read_state(place.open()).unwrap().unwrap();
    assert_eq!(State { checksum: String::new(), ..read.clone() }, state());
    assert_eq!(place.names(), [NAME]);
    let mode = fs::metadata(place.path().join(NAME)).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    // Anybody can check it: the same text with an empty checksum.
    let unsealed = text.replace(&read.checksum, "");
    assert!(unsealed.contains("\"checksum\": \"\"\n}\n"), "{unsealed}");
    assert_eq!(digest(unsealed.as_bytes()), read.checksum);
}

#[test]
fn the_document_has_these_keys_in_this_order() {
    let keys = "\
format written boot_id boottime_ms last_transition last_event pools name active active_at since reason wish backends name \
address admin drain_ends_in_ms services name down_for_ms last_down_ms relapse_until_ms transition id from to to_at reason evidence \
started forced switched hooks reached held stop failed why doubtful leaving is_service slot pool ends_in_ms departed \
ago_ms pool name active active_at since reason wish backends name address admin drain_ends_in_ms services name \
down_for_ms last_down_ms relapse_until_ms transition id from to to_at reason evidence started forced switched hooks reached held stop \
failed why doubtful confirmation ends_in_ms of before taken_back no_start hosts name addresses checksum";
    let text = written(&Place::new());
    let found: Vec<_> = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix('"')?.split_once("\": ").map(|(key, _)| key))
        .collect();
    assert_eq!(found.join(" "), keys);
    for words in ["\"wish\": \"stay\"", "\"admin\": \"drain\"", "\"failed\": 1", "\"reason\": \"operator\""] {
        assert!(text.contains(words), "{words} in {text}");
    }
}

#[test]
fn each_kind_of_damage_has_its_name() {
    let text = written(&Place::new());
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "it is no state document"),
        (text[..text.len() / 2].into(), "it is no state document"),
        (vec![0; 4096], "it is no state document"),
        (b"\xff\xfe".into(), "it is no state document"),
        ("[".repeat(100_000).into(), "it is no state document"),
        (text.replace("\"wish\"", "\"wisch\"").into(), "missing field `wish`"),
        (text.replace("balancer.state/1", "balancer.state/2").into(), "another version of balancer wrote it"),
        (text.replace("\"active\": \"server1\"", "\"active\": \"server2\"").into(), "its checksum is wrong"),
        (text.replace("\"last_transition\": 7", "\"last_transition\": 6").into(), "its checksum is wrong"),
    ];
    for (damaged, words) in cases {
        let problem = problem(&damaged).map(|problem| problem.to_string()).unwrap_or_default();
        assert!(problem.contains(words), "{words:?} in {problem:?}");
    }
    assert!(problem(text).is_none());
}

/// Replaced in a state, as another version could have written it.
fn of_another_version(from: &str, to: &str) -> Place {
    let place = Place::new();
    let text = written(&place);
    let (head, _) = text.rsplit_once("\"checksum\": \"").unwrap();
    assert_eq!(head.matches(from).count(), 1, "{from} in {head}");
    let unsealed = format!("{}\"checksum\": \"\"\n}}\n", head.replace(from, to));
    let sum = digest(unsealed.as_bytes());
    let sealed = unsealed.replace("\"checksum\": \"\"", &format!("\"checksum\": \"{sum}\""));
    fs::write(place.path().join(NAME), sealed).unwrap();
    place
}

#[test]
fn of_what_another_version_has_written_only_that_is_lost_which_can_not_be_read() {
    type Without = fn(&mut State);
    let first_pool = "\"pools\": [\n    {\n      \"name\"";
    // Those of pools that have left it stand further in.
    let in_drain = "\n          \"admin\": \"drain\",";
    let cases: [(&str, &str, Without); 8] = [
        ("\"ends_in_ms\": 30000,", "\"until\": \"2026-01-02T03:04:35.678Z\",", |_| {}),
        ("\"last_event\": 41,", "\"last_event\": 41,\n  \"novelty\": [1],", |_| {}),
        (in_drain, "\n          \"admin\": \"drain\",\n          \"novelty\": {\"a\": 1},", |_| {}),
        (in_drain, "\n          \"admin\": \"novelty\",", |state| state.pools.clear()),
        ("\"of\": \"2c26\"", "\"off\": \"2c26\"", |state| state.confirmation = None),
        ("\"name\": \"db1.example.org\"", "\"names\": []", |state| state.hosts.clear()),
        ("\"is_service\": true", "\"is_service\": 1", |state| state.leaving.clear()),
        (first_pool, "\"pools\": [\n    {\n      \"called\"", |state| state.pools.clear()),
    ];
    for (from, to, without) in cases {
        let place = of_another_version(from, to);
        let text = fs::read(place.path().join(NAME)).unwrap();
        let file::Found::State { state: found, lacks_pools } = file::take(&place.open()) else {
            panic!("{to}: nothing of it is used")
        };
        let mut wanted = state();
        without(&mut wanted);
        assert_eq!(lacks_pools, wanted.pools.is_empty(), "{to}");
        assert_eq!(State { checksum: String::new(), ..*found }, wanted, "{to}");
        if wanted == state() {
            assert_eq!(place.names(), [NAME], "{to}");
            continue;
        }
        // Whoever starts it twice has one, and the next state leaves it there.
        file::take(&place.open());
        assert_eq!(place.names(), [NAME, "state.json.damaged"], "{to}");
        file::write(place.open(), wanted).unwrap();
        assert!(matches!(file::take(&place.open()), file::Found::State { lacks_pools: false, .. }), "{to}");
        assert!(fs::read(place.path().join("state.json.damaged")).unwrap() == text, "{to}");
    }
    let place = of_another_version("\"last_event\"", "\"latest_event\"");
    assert!(matches!(read_state(place.open()), Err(Unreadable::Malformed(_))));
}

#[test]
fn no_cut_and_no_flipped_bit_is_taken_for_another_state() {
    let text = written(&Place::new()).into_bytes();
    let place = Place::new();
    let read = |text: &[u8]| {
        fs::write(place.path().join(NAME), text).unwrap();
        read_state(place.open())
    };
    let whole = read(&text).unwrap();
    for at in 0..text.len() {
        let mut flipped = text.clone();
        flipped[at] ^= 1 << (at % 8);
        for damaged in [&flipped, &text[..at]] {
            if let Ok(read) = read(damaged) {
                // White space between tokens says nothing.
                assert_eq!(read, whole, "byte {at}");
            }
        }
    }
}

#[test]
fn a_state_that_is_too_long_or_has_too_much_is_refused() {
    assert!(matches!(problem(vec![b' '; 25 * 1024 * 1024]), Some(Unreadable::TooLong)));
    let place = Place::new();
    let mut large = state();
    large.pools = vec![large.pools[0].clone(); 1025];
    file::write(place.open(), large).unwrap();
    assert!(matches!(read_state(place.open()), Err(Unreadable::TooMany("pools"))));
    let mut large = state();
    large.pools[0].backends = vec![large.pools[0].backends[0].clone(); 65];
    file::write(place.open(), large).unwrap();
    assert!(matches!(read_state(place.open()), Err(Unreadable::TooMany("backends of a pool"))));
}

#[test]
fn what_is_no_file_is_never_opened_as_one() {
    for kind in ["symlink", "directory", "fifo"] {
        let place = Place::new();
        let path = place.path().join(NAME);
        match kind {
            "symlink" => symlink("/etc/passwd", &path).unwrap(),
            "directory" => fs::create_dir(&path).unwrap(),
            _ => {
                let status = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
                assert!(status.success());
            }
        }
        assert!(matches!(read_state(place.open()), Err(Unreadable::NoFile)), "{kind}");
        assert!(matches!(file::take(&place.open()), file::Found::Damaged), "{kind}");
        assert_eq!(place.names(), ["state.json.damaged"], "{kind}");
    }
}

#[test]
fn damaged_states_are_set_aside_and_three_of_them_are_kept() {
    let place = Place::new();
    for round in 0..5 {
        fs::write(place.path().join(NAME), format!("damaged {round}")).unwrap();
        assert!(matches!(file::take(&place.open()), file::Found::Damaged));
    }
    assert!(matches!(file::take(&place.open()), file::Found::Nothing));
    let names = ["state.json.damaged", "state.json.damaged.1", "state.json.damaged.2"];
    assert_eq!(place.names(), names);
    let kept = names.map(|name| fs::read_to_string(place.path().join(name)).unwrap());
    assert_eq!(kept, ["damaged 4", "damaged 3", "damaged 2"]);
}

#[test]
fn what_a_killed_daemon_left_half_written_is_replaced_and_never_followed() {
    let place = Place::new();
    let elsewhere = place.path().join("precious");
    fs::write(&elsewhere, "precious").unwrap();
    let temporary = place.path().join("state.json.new");
    fs::write(&temporary, "half").unwrap();
    file::write(place.open(), state()).unwrap();
    symlink(&elsewhere, &temporary).unwrap();
    file::write(place.open(), state()).unwrap();
    assert_eq!(place.names(), ["precious", NAME]);
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "precious");
}

#[test]
fn time_goes_on_within_a_boot_and_stands_still_over_another() {
    let now = |boot_id: &str, seconds| BootMoment {
        boot_id: boot_id.to_owned(),
        boottime: Duration::from_secs(seconds),
    };
    assert_eq!(state().age_at(&now("6b2c", 25)), Duration::from_secs(15));
    assert_eq!(state().age_at(&now("6b2c", 9)), Duration::ZERO, "a clock that went back");
    assert_eq!(state().age_at(&now("77aa", 25)), Duration::ZERO);
    let unknown = State { boot_id: String::new(), ..state() };
    assert_eq!(unknown.age_at(&now("", 25)), Duration::ZERO, "nothing tells which boot");
}

#[test]
fn a_start_goes_on_without_a_state_that_is_damaged() {
    let place = Place::new();
    fs::write(place.path().join(NAME), "{").unwrap();
    let (store, remembered) = Store::open(place.open()).unwrap();
    assert!(remembered.state.is_none() && remembered.was_damaged);
    store.finish(Duration::from_secs(10));

    file::write(place.open(), state()).unwrap();
    let (_store, remembered) = Store::open(place.open()).unwrap();
    assert_eq!(remembered.state.map(|state| state.last_transition), Some(7));
    assert_eq!((remembered.was_damaged, remembered.last_event), (false, 41));
}
