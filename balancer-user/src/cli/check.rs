//! `balancer check`: what is wrong with a configuration, and what it comes to.
//!
//! Deliberately not here: looking at it; whoever knows how hands in what was found, also in words.

use super::{Output, ask};
use crate::control::protocol::{Checked, Severity};
use crate::exit::{self, Exit, Failure};

/// Prints what was found. `words`: for people, what a valid configuration comes to, or every error of another one.
///
/// # Errors
/// When it is not valid, with the words; in JSON only when it can't be printed.
pub fn run(found: &Checked, words: &str, output: Output) -> Result<Exit, Failure> {
    match output {
        Output::Json => {
            exit::print(&ask::json(found)?)?;
            Ok(if found.valid { Exit::Ok } else { Exit::Config })
        }
        Output::Table if found.valid => {
            for warning in found.findings.iter().filter(|finding| finding.severity == Severity::Warning) {
                let line = warning.line.map(|line| format!(":{line}")).unwrap_or_default();
                exit::say(&format!("{}{line}: warning: {}", warning.file, warning.message));
            }
            exit::print(words)?;
            Ok(Exit::Ok)
        }
        Output::Table => Err(Failure::new(Exit::Config, words)),
    }
}
