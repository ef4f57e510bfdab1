//! How findings are made: what was looked at first, then how it is.

use std::path::Path;

use crate::control::protocol::{Finding, Severity};
use crate::dataplane::advice::{Advice, Fix};

/// Something that was looked at.
#[derive(Debug)]
pub(super) struct About {
    id: &'static str,
    severity: Severity,
    subject: String,
}

/// `severity`: how bad it is when it isn't well.
pub(super) fn about(id: &'static str, severity: Severity, subject: impl Into<String>) -> About {
    About { id, severity, subject: subject.into() }
}

impl About {
    /// It is as it must be.
    pub(super) fn well(self, cause: impl Into<String>) -> Finding {
        self.finding(true, cause.into(), None)
    }

    /// It isn't, and this command mends it.
    pub(super) fn ill(self, cause: impl Into<String>, command: impl Into<String>) -> Finding {
        self.finding(false, cause.into(), Some(command.into()))
    }

    /// It isn't, and a person has to decide what to do.
    pub(super) fn ask(self, cause: impl Into<String>, what: impl AsRef<str>) -> Finding {
        // One line: whoever pastes it into a shell shall run nothing.
        let what = what.as_ref().replace('\n', " ");
        self.finding(false, cause.into(), Some(format!("# {what}")))
    }

    /// It isn't, and this command mends it; whether it is right here a person has to decide.
    pub(super) fn suggest(self, cause: impl Into<String>, command: &str) -> Finding {
        self.ask(cause, format!("if that is right here: {command}"))
    }

    /// It isn't, and this is known of it.
    pub(super) fn advised(self, advice: Advice) -> Finding {
        match advice.fix {
            Fix::Command(command) => self.ill(advice.cause, command),
            Fix::ByHand(what) => self.ask(advice.cause, what),
        }
    }

    fn finding(self, ok: bool, cause: String, fix: Option<String>) -> Finding {
        Finding { id: self.id, ok, severity: self.severity, subject: self.subject, cause, fix }
    }
}

/// A path as a shell takes it.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |character: char| character.is_alphanumeric() || "/._-+:@%,=".contains(character);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_has_to_do_is_a_comment_of_one_line() {
        let finding = about("x", Severity::Error, "y").ask("z", "look\nrm -r /");
        assert_eq!(finding.fix.as_deref(), Some("# look rm -r /"));
    }

    #[test]
    fn paths_are_quoted_where_a_shell_would_take_them_apart() {
        assert_eq!(quoted(Path::new("/etc/balancer/b-1.toml")), "/etc/balancer/b-1.toml");
        assert_eq!(quoted(Path::new("/a b/$(c)'d")), r"'/a b/$(c)'\''d'");
    }
}
