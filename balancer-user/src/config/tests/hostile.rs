//! No text makes it panic, hang or grow; and every file that isn't a configuration is refused with its reason.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::{KernelPorts, Missing, Names, Surroundings, load};
use super::*;

fn machine() -> Surroundings {
    Surroundings {
        interfaces: ["wan0".to_owned()].into(),
        headless: BTreeSet::new(),
        addresses: [].into(),
        ports: KernelPorts { ephemeral: 32768..=60999, reserved: Vec::new() },
    }
}

/// Reads a text to the end, whatever it is; errors are few and short.
fn survives(text: &str) {
    match parse("f.toml", text) {
        Ok(parsed) => {
            let pools = parsed.config.pools.len();
            if let Ok(config) = parsed.check(&machine(), Missing::Warn, &Names::LeftAlone) {
                assert_eq!(config.pools.len(), pools);
            }
        }
        Err(errors) => {
            assert!((1..=50).contains(&errors.errors().len()), "{} errors", errors.errors().len());
            assert!(errors.to_string().len() < 200_000, "{} bytes of errors", errors.to_string().len());
            assert!(!errors.render(true).is_empty());
        }
    }
}

#[test]
fn large_and_deep_texts_end_soon_with_few_errors() {
    let size = 1 << 20;
    for (name, text) in [
        ("brackets", "[".repeat(size)),
        ("equals", "=\n".repeat(size / 2)),
        ("zeros", "\0".repeat(size)),
        ("one long key", "a".repeat(size)),
        ("one long unknown key", format!("{} = 1", "a".repeat(size))),
        ("one long value", format!("[gateway]\ninterfaces = [\"{}\"]", "w".repeat(size))),
        ("dotted keys", format!("{}a = 1", "a.".repeat(size / 2))),
        ("dotted headers", format!("[{}a]", "a.".repeat(size / 2))),
        ("nested arrays", format!("a = {}", "[".repeat(size))),
        ("nested tables", format!("a = {}", "{a = ".repeat(size / 5))),
        ("bad escapes", format!("a = \"{}\"", "\\q".repeat(size / 2))),
        ("unknown keys", (0..size / 12).map(|n| format!("k{n} = 1\n")).collect()),
        ("pools", "[[pool]]\n".repeat(size / 9)),
        ("hooks", format!("{BASE}{}", "[[pool.hook]]\n".repeat(size / 14))),
        ("interfaces", replaced(INTERFACES, &format!("interfaces = [{}]", "\"a\",".repeat(size / 4)))),
        ("ranges", behind(POOL, &format!("snat_ports = \"{}\"", "1,".repeat(size / 2)))),
    ] {
        let start = Instant::now();
        survives(&text);
        let took = start.elapsed();
        assert!(took < Duration::from_secs(20), "{name} took {took:?}");
    }
}

#[test]
fn a_file_that_is_no_configuration_is_refused_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    fs::write(path("large"), vec![b'#'; (1 << 20) + 1]).unwrap();
    for (path, words) in [
        (path("missing"), "No such file or directory"),
        (folder.path().to_owned(), "is a directory"),
        (path("fifo"), "is a FIFO"),
        (path("large"), "is larger than 1024 KiB"),
        (Path::new("/dev/zero").to_owned(), "is a device"),
    ] {
        let shown = load(&path).expect_err("accepted").to_string();
        assert!(shown.starts_with(&path.display().to_string()) && shown.contains(words), "{words}: {shown}");
    }
}

#[test]
fn a_byte_that_is_not_utf_8_is_an_error_at_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.toml");
    fs::write(&path, b"[gateway]\n# caf\xe9 au lait\n").unwrap();
    let errors = load(&path).expect_err("accepted");
    assert_eq!(errors.errors()[0].position(), Some((2, 6)), "{errors}");
    assert!(errors.to_string().contains("byte 0xe9"), "{errors}");
}

#[test]
fn a_file_on_disk_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.toml");
    fs::write(&path, BASE).unwrap();
    assert_eq!(load(&path).unwrap().config, accepted(BASE).config);
}

/// Pieces that are nearly right where they land.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("[[pool]]\n".to_owned()),
        Just("[[pool.service]]\n".to_owned()),
        Just("[pool.probe]\n".to_owned()),
        Just("kind = \"exec\"\n".to_owned()),
        Just("= [{}]\n".to_owned()),
        Just("\"".to_owned()),
        "[a-z_]{1,16} = (\"[0-9a-z:.,-]{0,12}\"|[0-9]{1,22}|true|\\[\\]|\\{\\})\n",
        "\\PC{0,8}",
    ]
}

proptest! {
    #[test]
    fn random_text_is_survived(text in "(\\PC|[\n\r\t\"'\\[\\]{}=.#]){0,200}") {
        survives(&text);
    }

    #[test]
    fn a_damaged_configuration_is_survived(
        damages in prop::collection::vec((0..BASE.len() + 1, 0..40_usize, piece()), 1..5),
    ) {
        let mut text = format!("{BASE}{SECOND_POOL}");
        for (at, removed, piece) in damages {
            let end = (at + removed).min(text.len());
            let (at, end) = (text.floor_char_boundary(at), text.floor_char_boundary(end));
            text.replace_range(at..end.max(at), &piece);
        }
        survives(&text);
    }
}
