//! `balancer.doctor/1`: what of the gateway's surroundings balancing depends on, whether it is as it must be, and what
//! mends it. Filled in by `balancer doctor` itself, not by the daemon: it is of most use where none runs.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use super::Timestamp;

/// The `schema` field of [`Doctor`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize)]
pub enum DoctorSchema {
    /// The only one so far.
    #[default]
    #[serde(rename = "balancer.doctor/1")]
    V1,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Doctor {
    /// Name and version of this document.
    pub schema: DoctorSchema,
    /// When it was looked at.
    pub as_of: Timestamp,
    /// By topic; also what is well.
    pub findings: Vec<Finding>,
}

impl Doctor {
    /// Something would not work.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        self.findings.iter().any(|finding| !finding.ok && finding.severity == Severity::Error)
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Finding {
    /// What was looked at: a stable word.
    pub id: &'static str,
    /// All is well.
    pub ok: bool,
    /// How bad it is, or would be.
    pub severity: Severity,
    /// Whose: an interface, a path, an address, a pool.
    pub subject: String,
    /// What is the case, and what follows from it.
    pub cause: String,
    /// What to type; where a person has to decide, a comment (`# …`) that says what. Null when all is well.
    pub fix: Option<String>,
}

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// It works, but less well, or not always.
    Warning,
    /// It doesn't work.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doctor(ok: bool, severity: Severity) -> Doctor {
        let finding = Finding {
            id: "lro",
            ok,
            severity,
            subject: "wan0".to_owned(),
            cause: "it joins".to_owned(),
            fix: None,
        };
        let as_of = "2026-01-02T03:04:05.678Z".parse().expect("a time");
        Doctor { schema: DoctorSchema::V1, as_of, findings: vec![finding] }
    }

    #[test]
    fn the_document_has_the_contracts_keys_in_its_order_and_nothing_else() {
        let text = serde_json::to_string(&doctor(true, Severity::Warning)).expect("JSON");
        let wanted = r#"{"schema":"balancer.doctor/1","as_of":"2026-01-02T03:04:05.678Z","findings":[{"id":"lro","ok":true,"severity":"warning","subject":"wan0","cause":"it joins","fix":null}]}"#;
        assert_eq!(text, wanted);
    }

    #[test]
    fn only_an_error_that_is_one_is_bad() {
        assert!(doctor(false, Severity::Error).is_bad());
        assert!(!doctor(true, Severity::Error).is_bad());
        assert!(!doctor(false, Severity::Warning).is_bad());
    }
}
