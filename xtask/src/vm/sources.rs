//! The machine's own package sources: which mirror it has Debian from, and with which keys. Other suites are on the
//! same mirror, signed with the same keys; so this project names neither.

use std::path::{Path, PathBuf};

/// One entry of the sources, in either of apt's formats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Source {
    uris: String,
    suites: String,
    components: String,
    /// As it is written there: a file, fingerprints, or a whole key over many lines.
    signed_by: Option<String>,
}

impl Source {
    /// What to write into a `.sources` file to have another suite from the same mirror.
    pub(super) fn with_suite(&self, suite: &str) -> String {
        let mut text = format!("Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n", self.uris);
        if let Some(signed_by) = &self.signed_by {
            text.push_str(&format!("Signed-By: {signed_by}\n"));
        }
        text
    }

    fn has(&self, suites: &[&str]) -> bool {
        self.suites.split_whitespace().any(|suite| suites.contains(&suite))
            && self.components.split_whitespace().any(|component| component == "main")
    }

    /// Others offer packages for Debian's suites too; its own mirrors have its name and its keys.
    fn looks_official(&self) -> bool {
        let keyring = self.signed_by.as_deref().unwrap_or("debian-archive-keyring");
        keyring.contains("debian-archive") && self.uris.trim_end_matches('/').ends_with("/debian")
    }
}

/// The mirror that has these suites of Debian; `None`: the machine has no such source.
pub(super) fn mirror(sources: &[Source], suites: &[&str]) -> Option<Source> {
    let candidates = || sources.iter().filter(|source| source.has(suites));
    candidates().find(|source| source.looks_official()).or_else(|| candidates().next()).cloned()
}

/// All of the machine's sources. What can't be read is not there, as for apt.
pub(super) fn of_this_machine() -> Vec<Source> {
    let mut files: Vec<PathBuf> = std::fs::read_dir("/etc/apt/sources.list.d")
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    files.push("/etc/apt/sources.list".into());
    files.sort();
    files.iter().flat_map(|file| in_file(file)).collect()
}

fn in_file(file: &Path) -> Vec<Source> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("sources") => in_stanzas(&text),
        Some("list") => in_lines(&text),
        _ => Vec::new(),
    }
}

/// `deb [options] URI SUITE COMPONENT…`
fn in_lines(text: &str) -> Vec<Source> {
    text.lines().filter_map(in_line).collect()
}

fn in_line(line: &str) -> Option<Source> {
    let rest = line.split('#').next()?.trim().strip_prefix("deb")?;
    let rest = rest.strip_prefix(char::is_whitespace)?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
    Some(Source {
        uris: words.next()?.to_owned(),
        suites: words.next()?.to_owned(),
        components: words.collect::<Vec<_>>().join(" "),
        signed_by: signed_by.map(str::to_owned),
    })
}

/// `Name: value`, a further line of a value begins with a blank, an empty line ends the entry.
fn in_stanzas(text: &str) -> Vec<Source> {
    let mut stanzas: Vec<Vec<(String, String)>> = vec![Vec::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some(fields) = stanzas.last_mut() else { continue };
        if line.trim().is_empty() {
            stanzas.push(Vec::new());
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    stanzas.iter().filter_map(|fields| in_stanza(fields)).collect()
}

fn in_stanza(fields: &[(String, String)]) -> Option<Source> {
    let field =
        |wanted: &str| fields.iter().find_map(|(name, value)| (name == wanted).then(|| value.clone()));
    let has_packages = field("types")?.split_whitespace().any(|kind| kind == "deb");
    let is_off = field("enabled").is_some_and(|value| value == "no");
    (has_packages && !is_off).then_some(())?;
    Some(Source {
        uris: field("uris")?,
        suites: field("suites")?,
        components: field("components").unwrap_or_default(),
        signed_by: field("signed-by"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(uris: &str, suites: &str, components: &str, signed_by: Option<&str>) -> Source {
        let signed_by = signed_by.map(str::to_owned);
        Source { uris: uris.into(), suites: suites.into(), components: components.into(), signed_by }
    }

    #[test]
    fn one_line_entries_are_understood_with_and_without_options() {
        let text = "# a comment\n\
            deb http://a.example/debian bookworm main contrib # and why\n\
            deb [arch=amd64 signed-by=/k.gpg] https://b.example/apt stable main\n\
            deb-src http://a.example/debian bookworm main\n\
            #deb http://off.example/debian bookworm main\n";
        let expected = [
            source("http://a.example/debian", "bookworm", "main contrib", None),
            source("https://b.example/apt", "stable", "main", Some("/k.gpg")),
        ];
        assert_eq!(in_lines(text), expected);
    }

    #[test]
    fn stanzas_are_understood_with_comments_and_keys_of_many_lines() {
        let text = "Types: deb deb-src\n# from a snapshot\nURIs: http://a.example/debian\nsuites: trixie \
            trixie-updates\nComponents: main\nSigned-By:\n -----BEGIN\n .\n xyz\n\n\n\
            Types: deb\nURIs: http://off.example/debian\nSuites: trixie\nComponents: main\nEnabled: no\n\n\
            Types: deb-src\nURIs: http://src.example/debian\nSuites: trixie\nComponents: main\n";
        let key = "\n -----BEGIN\n .\n xyz";
        let expected = source("http://a.example/debian", "trixie trixie-updates", "main", Some(key));
        assert_eq!(in_stanzas(text), std::slice::from_ref(&expected));
        let written = "Types: deb\nURIs: http://a.example/debian\nSuites: sid\nComponents: main\n\
            Signed-By: \n -----BEGIN\n .\n xyz\n";
        assert_eq!(expected.with_suite("sid"), written);
        assert_eq!(in_stanzas(written)[0].signed_by.as_deref(), Some(key));
    }

    #[test]
    fn the_mirror_is_debians_own_and_not_another_ones_for_the_same_suite() {
        let other = source("https://b.example/debian/12/prod", "bookworm", "main", Some("/other.gpg"));
        let docker = source("https://c.example/linux/debian", "bookworm", "stable", None);
        let security = source("http://a.example/debian-security", "bookworm-security", "main", None);
        let debian = source("http://a.example/debian/", "bookworm bookworm-updates", "main", None);
        let all = [other.clone(), docker.clone(), security.clone(), debian.clone()];
        assert_eq!(mirror(&all, &["bookworm", "trixie"]), Some(debian));
        assert_eq!(mirror(&[docker.clone(), other.clone()], &["bookworm"]), Some(other));
        assert_eq!(mirror(&[docker, security], &["bookworm"]), None);
    }
}
