//! The configuration: whether it is there and right, and what it says even if it isn't right in everything.

use std::time::Duration;

use super::finding::about;
use super::host_names::HostNames;
use super::{Places, quoted};
use crate::config::{self, Config, ConfigErrors, Known, Missing, Names, Parsed, Surroundings};
use crate::control::protocol::{Finding, Severity};
use crate::daemon;
use crate::dataplane::pins::PinDirectory;
use crate::resolver::{Answers, Resolver};

/// For an answer to each host name: resolvers ask another server after 5 s.
const NAMES_LIMIT: Duration = Duration::from_secs(10);

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Configuration {
    /// As far as it could be understood, without backends of which nobody knows where they are.
    pub(super) config: Option<Config>,
    /// What `balancer check` would say first, and what to write instead.
    pub(super) problem: Option<(String, String)>,
    /// Backends that are given by name, if it is right.
    pub(super) host_names: HostNames,
}

impl Configuration {
    pub(super) fn look(places: &Places) -> Self {
        let parsed = match config::load(&places.config) {
            Ok(parsed) => parsed,
            Err(errors) => return Self { problem: Some(in_one(&errors)), ..Self::default() },
        };
        let answers = Resolver::system().look_up(&parsed.hosts(), |_| NAMES_LIMIT);
        let known = daemon::last_good(Some(&parsed), &places.state_dir, &places.pin_dir);
        Self::held(parsed, &answers, &known, PinDirectory::could_be_adopted(&places.pin_dir))
    }

    /// Holds it against this machine as a start would that `adopts` what is pinned.
    fn held(parsed: Parsed, answers: &Answers, known: &Known, adopts: bool) -> Self {
        let as_written = parsed.as_written();
        let nowhere = if adopts { Missing::Warn } else { Missing::Refuse };
        let names = Names::Asked { answers, known, stay: adopts, nowhere };
        let machine = match Surroundings::read() {
            Ok(machine) => machine,
            Err(error) => {
                let problem = Some((error.to_string(), "mount /proc".to_owned()));
                return Self { config: Some(as_written), problem, ..Self::default() };
            }
        };
        // Interfaces have findings of their own.
        match parsed.check(&machine, Missing::Warn, &names) {
            Ok(config) => {
                let host_names = HostNames::of(&config, answers, &machine.addresses, adopts);
                Self { config: Some(config.settled()), problem: None, host_names }
            }
            Err(errors) => {
                Self { config: Some(as_written), problem: Some(in_one(&errors)), ..Self::default() }
            }
        }
    }

    pub(super) fn judge(&self, places: &Places) -> Finding {
        let path = places.config.display().to_string();
        let about = about("configuration", Severity::Error, path);
        match (&self.problem, &self.config) {
            (None, _) => about.well("it is valid"),
            (Some((problem, instead)), config) => {
                let unseen = if config.is_some() {
                    ""
                } else {
                    " (so interfaces, addresses and programs were not looked at)"
                };
                about.ask(
                    format!("{problem}{unseen}"),
                    format!(
                        "{instead}; all that is wrong: balancer check --config {}",
                        quoted(&places.config)
                    ),
                )
            }
        }
    }
}

/// The first error, and how many more there are: `check` shows all with their places.
fn in_one(errors: &ConfigErrors) -> (String, String) {
    let Some(first) = errors.errors().first() else {
        return (errors.to_string(), "write a configuration".to_owned());
    };
    let place = first.position().map(|(line, column)| format!("line {line}, column {column}: "));
    let key = if first.key().is_empty() { String::new() } else { format!("{}: ", first.key()) };
    let more = match errors.count() {
        1 => String::new(),
        count => format!("; and {} more", count - 1),
    };
    let problem = format!("{}{key}{}{more}", place.unwrap_or_default(), first.message());
    (problem, first.instead().to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{TEXT, places};
    use super::*;

    fn look(text: &str) -> (Configuration, Finding) {
        let directory = tempfile::tempdir().expect("a directory");
        let places = Places { config: directory.path().join("balancer.toml"), ..places() };
        std::fs::write(&places.config, text).expect("a file");
        let found = Configuration::look(&places);
        let finding = found.judge(&places);
        (found, finding)
    }

    #[test]
    fn a_good_one_is_well() {
        let (found, finding) = look(TEXT);
        assert!(finding.ok && found.config.is_some(), "{finding:?}");
    }

    #[test]
    fn a_missing_one_is_an_error_and_says_what_is_not_seen_for_it() {
        let found = Configuration::look(&Places { config: "/nonexistent/balancer.toml".into(), ..places() });
        let finding = found.judge(&places());
        assert!(!finding.ok && finding.severity == Severity::Error && found.config.is_none());
        assert!(
            finding.cause.contains("can't read") && finding.cause.contains("not looked at"),
            "{finding:?}"
        );
        let fix = finding.fix.unwrap_or_default();
        assert!(fix.starts_with("# write the configuration there, or"), "{fix}");
        assert!(fix.ends_with("balancer check --config /etc/balancer/balancer.toml"), "{fix}");
    }

    #[test]
    fn a_wrong_one_has_its_place_told_and_how_many_more_there_are() {
        let (found, finding) = look(&TEXT.replace("listen = ", "lissten = "));
        assert!(found.config.is_none());
        for words in ["line 6, ", "pool.service.listen", "is missing", "; and 3 more"] {
            assert!(finding.cause.contains(words), "{words}: {finding:?}");
        }
    }

    #[test]
    fn one_that_this_machine_cannot_carry_out_is_looked_at_as_it_is_written() {
        let (found, finding) = look(&TEXT.replace("10.0.2.11", "127.0.0.1"));
        assert!(!finding.ok, "{finding:?}");
        let (with_program, finding) =
            look(&TEXT.replace("[[pool]]", "notify = [\"/nonexistent/notify\"]\n[[pool]]"));
        assert!(!finding.ok && finding.cause.contains("/nonexistent"), "{finding:?}");
        assert!(with_program.config.is_some() && found.config.is_none());
    }

    #[test]
    fn a_name_that_nobody_resolves_is_an_error_where_a_start_would_fail_for_it_and_nowhere_else() {
        let named = TEXT.replace("10.0.2.11", "db1.example.org");
        let other = format!("{named}[[pool.backend]]\nname = \"c\"\naddress = \"10.0.2.12\"\n");
        let name = || "db1.example.org".to_owned();
        let silence = Answers::from([(name(), Err("no answer within 10s".to_owned()))]);
        let last = Known::from([(name(), vec![[10, 0, 2, 11].into()])]);
        for (text, known, adopts, valid, backends) in [
            (&named, &last, false, true, &["b"][..]),
            (&named, &last, true, true, &["b"]),
            (&named, &Known::new(), false, false, &[]),
            (&named, &Known::new(), true, false, &[]),
            (&other, &Known::new(), false, false, &["c"]),
            (&other, &Known::new(), true, true, &["c"]),
        ] {
            let parsed = config::parse("test", text).expect("a configuration");
            let found = Configuration::held(parsed, &silence, known, adopts);
            let finding = found.judge(&places());
            assert_eq!(finding.ok, valid, "{finding:?}");
            assert!(valid || finding.cause.contains("`db1.example.org` can't be resolved"), "{finding:?}");
            let config = found.config.as_ref().expect("what could be understood");
            let names: Vec<_> = config.pools[0].backends.iter().map(|backend| &backend.name).collect();
            assert_eq!(names, backends);
            let told: Vec<_> = found.host_names.judge().map(|finding| (finding.id, finding.ok)).collect();
            assert_eq!(told, if valid { vec![("host_name", false)] } else { vec![] });
        }
    }
}
