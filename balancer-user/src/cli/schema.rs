//! `balancer schema`: what a configuration, and what each answer in JSON, looks like, for programs.
//!
//! Deliberately not here: how a configuration is read; whoever knows that hands in its schema.

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::ask;
use crate::control::protocol::Shown;
use crate::exit::{self, Exit, Failure};

/// `balancer schema`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub struct SchemaArgs {
    /// What to describe [default: configuration]
    #[arg(value_name = "DOCUMENT")]
    pub document: Option<Document>,
}

/// What has a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    /// What `run` and `check` read.
    Configuration,
    /// What a verb prints.
    Shown(Shown),
}

impl ValueEnum for Document {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [Document; 12] = [
            Document::Configuration,
            Document::Shown(Shown::Status),
            Document::Shown(Shown::Flows),
            Document::Shown(Shown::Stats),
            Document::Shown(Shown::Events),
            Document::Shown(Shown::Event),
            Document::Shown(Shown::Trace),
            Document::Shown(Shown::Why),
            Document::Shown(Shown::Doctor),
            Document::Shown(Shown::Check),
            Document::Shown(Shown::Outcome),
            Document::Shown(Shown::Reload),
        ];
        &ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        match self {
            Self::Configuration => Some(
                clap::builder::PossibleValue::new("configuration")
                    .help("Of the configuration, as TOML or JSON"),
            ),
            Self::Shown(shown) => shown.to_possible_value(),
        }
    }
}

/// Prints a schema.
///
/// # Errors
/// When it can't be printed.
pub fn run(arguments: SchemaArgs, configuration: fn() -> Value) -> Result<Exit, Failure> {
    let schema = match arguments.document.unwrap_or(Document::Configuration) {
        Document::Configuration => configuration(),
        Document::Shown(shown) => shown.schema(),
    };
    exit::print(&ask::json(&schema)?)?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_document_can_be_asked_for() {
        let all = Document::value_variants();
        let shown = Shown::value_variants().iter().map(|shown| Document::Shown(*shown));
        let wanted: Vec<Document> = std::iter::once(Document::Configuration).chain(shown).collect();
        assert_eq!(all, wanted);
    }
}
