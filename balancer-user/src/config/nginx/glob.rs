//! The files that a pattern of `include` names, as glob(3) has it: `*`, `?` and `[…]`, in every part of the path.
//!
//! Bounded: a pattern is not a reason to walk through a whole disk.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

/// Files that one pattern may name, and folders on the way to them.
const MATCHES: usize = 256;

/// Entries of folders that are looked at for one pattern.
const ENTRIES: usize = 20_000;

/// Whether it names files by a pattern, so that none may be there.
pub(super) fn is_pattern(path: &Path) -> bool {
    path.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b'*' | b'?' | b'['))
}

/// The files, in the order of their names; and whether there are more than are looked at.
pub(super) fn files(pattern: &Path) -> (Vec<PathBuf>, bool) {
    let mut left = ENTRIES;
    let mut found = vec![PathBuf::new()];
    let mut is_cut = false;
    for component in pattern.components() {
        let Component::Normal(name) = component else {
            found.iter_mut().for_each(|path| path.push(component));
            continue;
        };
        if !is_pattern(Path::new(name)) {
            found.iter_mut().for_each(|path| path.push(name));
            found.retain(|path| path.exists());
            continue;
        }
        let mut next = Vec::new();
        for folder in found {
            let here = if folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
            let Ok(entries) = fs::read_dir(here) else { continue };
            for entry in entries.flatten() {
                if left == 0 {
                    is_cut = true;
                    break;
                }
                left -= 1;
                if matches(name, &entry.file_name()) {
                    next.push(folder.join(entry.file_name()));
                }
            }
        }
        next.sort();
        is_cut |= next.len() > MATCHES;
        next.truncate(MATCHES);
        found = next;
    }
    (found, is_cut)
}

fn matches(pattern: &OsStr, name: &OsStr) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    // A hidden file is named by its dot only.
    if name.first() == Some(&b'.') && pattern.first() != Some(&b'.') {
        return false;
    }
    let (mut p, mut n) = (0, 0);
    // Where the last `*` stands, and how far it reaches.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, n));
            p += 1;
        } else if let Some(length) = single(&pattern[p..], name[n]) {
            p += length;
            n += 1;
        } else if let Some((at, reach)) = star {
            star = Some((at, reach + 1));
            (p, n) = (at + 1, reach + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// The length of what stands at the pattern's beginning for one byte, if it stands for this one.
fn single(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [b'[', class @ ..] => match in_class(class, byte) {
            Some((true, length)) => Some(length + 1),
            Some((false, _)) => None,
            None => (byte == b'[').then_some(1),
        },
        [plain, ..] => (*plain == byte).then_some(1),
        [] => None,
    }
}

/// Whether a class, which begins behind its `[`, holds the byte; and its length. None: it has no end.
fn in_class(class: &[u8], byte: u8) -> Option<(bool, usize)> {
    let negated = matches!(class.first(), Some(b'!' | b'^'));
    let start = usize::from(negated);
    // A `]` at the beginning is a member.
    let end = start + 1 + class.get(start + 1..)?.iter().position(|byte| *byte == b']')?;
    let mut members = &class[start..end];
    let mut holds = false;
    while let Some((&first, rest)) = members.split_first() {
        members = rest;
        if let [b'-', last, behind @ ..] = rest {
            holds |= (first..=*last).contains(&byte);
            members = behind;
        } else {
            holds |= first == byte;
        }
    }
    Some((holds != negated, end + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_match(pattern: &str, name: &str) -> bool {
        matches(OsStr::new(pattern), OsStr::new(name))
    }

    #[test]
    fn a_pattern_names_what_glob_names() {
        for (pattern, name) in [
            ("*.conf", "a.conf"),
            ("*", "a"),
            ("a*b*c", "aXbbYc"),
            ("?.conf", "a.conf"),
            ("[0-9]*-x", "10-x"),
            ("[!a]b", "xb"),
            ("[]]", "]"),
            ("a[", "a["),
            ("\\*", "*"),
            (".*", ".a"),
        ] {
            assert!(is_match(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("*.conf", "a.conf~"), ("*", ".hidden"), ("?", ""), ("[!a]b", "ab"), ("[0-9]", "a"), ("a", "ab")]
        {
            assert!(!is_match(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn every_part_of_a_path_may_be_a_pattern() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b/2.conf", "a/1.conf", "a/1.txt", "c/x/3.conf"] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let (found, is_cut) = files(&folder.path().join("[a-z]/*.conf"));
        let names: Vec<_> = found.iter().map(|path| path.strip_prefix(folder.path()).unwrap()).collect();
        assert_eq!(names, [Path::new("a/1.conf"), Path::new("b/2.conf")]);
        assert!(!is_cut);
        assert_eq!(files(&folder.path().join("*/none/*")), (vec![], false));
    }

    proptest! {
        #[test]
        fn no_pattern_makes_it_panic(pattern in "[a*?\\[\\]!\\\\-]{0,20}", name in "[a.\\]-]{0,20}") {
            is_match(&pattern, &name);
        }
    }
}
