//! JSON schemas, and what they say of documents.
//!
//! Here and not in the test that needs it, so that tests and benchmarks are built with the same features of what they share:
//! otherwise each of them would have all of it built once more.

use anyhow::{Result, ensure};
use serde_json::Value;

/// A schema that is one.
pub struct Schema(jsonschema::Validator);

impl Schema {
    /// # Errors
    /// When it is no schema.
    pub fn new(schema: &Value) -> Result<Self> {
        ensure!(jsonschema::meta::is_valid(schema), "it is no schema: {schema}");
        Ok(Self(jsonschema::validator_for(schema)?))
    }

    /// One that refuses what it doesn't name, which it otherwise leaves to newer versions.
    ///
    /// # Errors
    /// As [`Schema::new`].
    pub fn closed(schema: &Value) -> Result<Self> {
        let mut schema = schema.clone();
        close(&mut schema);
        Self::new(&schema)
    }

    /// What is wrong with a document, and where.
    #[must_use]
    pub fn errors(&self, document: &Value) -> Vec<String> {
        self.0.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect()
    }

    /// Whether nothing is.
    #[must_use]
    pub fn is_valid(&self, document: &Value) -> bool {
        self.0.is_valid(document)
    }
}

fn close(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if object.contains_key("properties") {
                object.insert("additionalProperties".to_owned(), false.into());
            }
            object.values_mut().for_each(close);
        }
        Value::Array(values) => values.iter_mut().for_each(close),
        _ => {}
    }
}

/// A document in TOML, as a schema has it.
///
/// # Errors
/// When it is none.
pub fn of_toml(text: &str) -> Result<Value> {
    let table: toml::Table = text.parse()?;
    Ok(serde_json::to_value(table)?)
}
