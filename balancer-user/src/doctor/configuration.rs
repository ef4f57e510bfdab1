//! The configuration: whether it is there and right, and what it says even if it isn't right in everything.

use std::path::Path;
use std::time::Duration;

use super::finding::about;
use super::{Places, quoted};
use crate::config::{self, Config, ConfigErrors, Known, Missing, Names, Surroundings};
use crate::control::protocol::{Finding, Severity};
use crate::resolver::Resolver;

/// For an answer to each host name: resolvers ask another server after 5 s.
const NAMES_LIMIT: Duration = Duration::from_secs(10);

/// What was read.
#[derive(Debug)]
pub(super) struct Configuration {
    /// As far as it could be understood.
    pub(super) config: Option<Config>,
    /// What `balancer check` would say first, and what to write instead.
    pub(super) problem: Option<(String, String)>,
}

impl Configuration {
    pub(super) fn look(path: &Path) -> Self {
        let parsed = match config::load(path) {
            Ok(parsed) => parsed,
            Err(errors) => return Self { config: None, problem: Some(in_one(&errors)) },
        };
        let as_written = parsed.as_written();
        let answers = Resolver::system().look_up(&parsed.hosts(), |_| NAMES_LIMIT);
        let known = Known::new();
        let names = Names::Asked { answers: &answers, known: &known, stay: false, nowhere: Missing::Refuse };
        // Interfaces have findings of their own.
        let checked = match Surroundings::read() {
            Ok(machine) => parsed.check(&machine, Missing::Warn, &names).map_err(|errors| in_one(&errors)),
            Err(error) => Err((error.to_string(), "mount /proc".to_owned())),
        };
        match checked {
            Ok(config) => Self { config: Some(config), problem: None },
            Err(problem) => Self { config: Some(as_written), problem: Some(problem) },
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
        let path = directory.path().join("balancer.toml");
        std::fs::write(&path, text).expect("a file");
        let found = Configuration::look(&path);
        let finding = found.judge(&Places { config: path, ..places() });
        (found, finding)
    }

    #[test]
    fn a_good_one_is_well() {
        let (found, finding) = look(TEXT);
        assert!(finding.ok && found.config.is_some(), "{finding:?}");
    }

    #[test]
    fn a_missing_one_is_an_error_and_says_what_is_not_seen_for_it() {
        let found = Configuration::look(Path::new("/nonexistent/balancer.toml"));
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
}
