//! JSON schemas (draft 2020-12) of what verbs print with `-o json`: made from the types that are printed.
//!
//! They name what is there, and don't refuse what a newer version adds. Deliberately not here: the configuration's.

use clap::ValueEnum;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::{Checked, Doctor, Events, Flows, Outcome, Record, Reloaded, Stats, Status, TraceLine, Why};

/// What verbs print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shown {
    /// Of `status`
    Status,
    /// Of `flows`
    Flows,
    /// Of `stats`
    Stats,
    /// Of `events`
    Events,
    /// Of each line of `events --follow`
    Event,
    /// Of each line of `trace`
    Trace,
    /// Of `why`
    Why,
    /// Of `doctor`
    Doctor,
    /// Of `check`
    Check,
    /// Of `failover`, `failback`, `drain`, `maint`, `ready` and `resume`
    Outcome,
    /// Of `reload`
    Reload,
}

impl Shown {
    /// Its schema.
    #[must_use]
    pub fn schema(self) -> Value {
        match self {
            Self::Status => of::<Status>(),
            Self::Flows => of::<Flows>(),
            Self::Stats => of::<Stats>(),
            Self::Events => of::<Events>(),
            Self::Event => of::<Record>(),
            Self::Trace => of::<TraceLine>(),
            Self::Why => of::<Why>(),
            Self::Doctor => of::<Doctor>(),
            Self::Check => of::<Checked>(),
            Self::Outcome => of::<Outcome>(),
            Self::Reload => of::<Reloaded>(),
        }
    }
}

/// Of what is written: there a field that readers may miss is never left out.
fn of<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>().to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_that_is_printed_must_be_there_null_or_not() {
        let schema = Shown::Status.schema();
        let required = |pointer: &str| schema.pointer(pointer).map(ToString::to_string).unwrap_or_default();
        let of_status = required("/required");
        for key in ["schema", "as_of", "daemon", "attachments", "pools", "drops", "degraded", "pending"] {
            assert!(of_status.contains(&format!("\"{key}\"")), "{key}: {schema:#}");
        }
        assert!(required("/$defs/Pool/required").contains("\"last_failover\""), "{schema:#}");
    }

    #[test]
    fn words_are_listed() {
        for word in ["serving", "all_down", "probation", "maint", "backend_down", "generic"] {
            let schema = Shown::Status.schema().to_string();
            assert!(schema.contains(&format!("\"{word}\"")), "{word} in {schema}");
        }
    }
}
