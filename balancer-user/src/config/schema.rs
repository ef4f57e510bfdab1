//! The JSON schema (draft 2020-12) of the configuration, for editors and for whoever generates one: made from what the readers
//! ask for, so that it can't say something else.
//!
//! It knows tables, keys, types, words and bounds. Deliberately not what texts hold, and what must hold between keys: a
//! configuration that it refuses `check` refuses too, but not the other way round.

use serde_json::{Map, Value, json};

use super::keys::{self, Otherwise};
use super::limits::TEXT_BYTES;
use super::shape::{Shape, Shapes};

/// Units from large to small, each at most once, and at least one.
const DURATION: &str = "^(?=.)([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$";

/// Of a whole configuration.
#[must_use]
pub fn schema() -> Value {
    let mut schema = table(&Shapes::of_all(), "");
    let about = [
        ("$schema", "https://json-schema.org/draft/2020-12/schema"),
        ("title", "balancer.toml"),
        ("description", "The configuration of balancer, as TOML"),
    ];
    for (key, value) in about {
        schema.insert(key.to_owned(), value.into());
    }
    Value::Object(schema)
}

fn table(shapes: &Shapes, path: &str) -> Map<String, Value> {
    let full = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (key, shape) in shapes.table(path) {
        let name = full(key);
        let is_filled = matches!(shape, Shape::Tables(bounds) if *bounds.start() > 0);
        if shapes.is_required(&name) || is_filled {
            required.push((*key).to_owned());
        }
        properties.insert((*key).to_owned(), Value::Object(described(shapes, &name, shape)));
    }
    let mut table = Map::new();
    table.insert("type".to_owned(), "object".into());
    table.insert("additionalProperties".to_owned(), false.into());
    if !required.is_empty() {
        table.insert("required".to_owned(), required.into());
    }
    table.insert("properties".to_owned(), properties.into());
    table
}

/// What may be written there, what it means, and what holds without.
fn described(shapes: &Shapes, name: &str, shape: &Shape) -> Map<String, Value> {
    let mut schema = of(shapes, name, shape);
    let Some(key) = keys::find(name) else { return schema };
    let mut about = key.about.to_owned();
    match key.default {
        Otherwise::Value(text) => {
            // A service's probe says what its pool's says.
            if !name.starts_with("pool.service.probe.")
                && let Some(value) = literal(text)
            {
                schema.insert("default".to_owned(), value);
            }
        }
        Otherwise::Words(words) => about.push_str(&format!(" (default: {words})")),
        Otherwise::Required => {}
    }
    schema.insert("description".to_owned(), about.into());
    schema
}

fn of(shapes: &Shapes, name: &str, shape: &Shape) -> Map<String, Value> {
    let schema = match shape {
        Shape::Text => json!({ "type": "string", "maxLength": TEXT_BYTES }),
        Shape::Number(bounds) => {
            json!({ "type": "integer", "minimum": bounds.start(), "maximum": bounds.end() })
        }
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Choice(words) => json!({ "type": "string", "enum": words }),
        Shape::Duration => json!({ "type": "string", "pattern": DURATION }),
        Shape::Texts(limit) => {
            json!({ "type": "array", "maxItems": limit, "items": { "type": "string", "maxLength": TEXT_BYTES } })
        }
        Shape::Table => Value::Object(table(shapes, name)),
        Shape::Tables(bounds) => json!({
            "type": "array", "minItems": bounds.start(), "maxItems": bounds.end(), "items": table(shapes, name),
        }),
    };
    match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}

/// A default of the list as JSON: numbers, words, flags and empty arrays are the same there.
fn literal(toml: &str) -> Option<Value> {
    serde_json::from_str(toml).ok()
}
