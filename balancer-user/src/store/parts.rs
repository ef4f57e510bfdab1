//! What another version's `state.json` says that this one can read: part by part.
//!
//! Only of a document that is as it was written (`file` looks at that before): what is damaged says nothing. Each pool, and each
//! member of the other lists, is read by itself; one that this version doesn't know how to read is left out and named, and the rest
//! is as good as ever. Deliberately not here: what becomes of a pool without its part (`daemon::memory`).

use std::fmt;
use std::time::SystemTime;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::state::{Confirmation, Departed, Host, Leaver, Pool, State};
use crate::control::protocol::Timestamp;

/// The list of pools.
const POOLS: &str = "pools";

/// A part of which something, or all, can't be read.
#[derive(Debug)]
pub(super) struct Lost {
    part: &'static str,
    /// How many of it.
    members: usize,
    /// Of the first.
    problem: serde_json::Error,
}

impl Lost {
    /// Whether it is known no more of some pool how it was.
    pub(super) fn is_of_pools(&self) -> bool {
        self.part == POOLS
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { part, members, problem } = self;
        write!(f, "{members} of `{part}`: {problem}")
    }
}

/// Everything that can be read, and the rest by name.
pub(super) fn readable(text: &[u8]) -> serde_json::Result<(State, Vec<Lost>)> {
    let mut document: Map<String, Value> = serde_json::from_slice(text)?;
    give_time_left(&mut document);
    let lists = [
        keep::<Pool>(&mut document, POOLS),
        keep::<Leaver>(&mut document, "leaving"),
        keep::<Departed>(&mut document, "departed"),
        keep::<Host>(&mut document, "hosts"),
    ];
    let confirmation = keep_confirmation(&mut document);
    let lost = lists.into_iter().chain([confirmation]).flatten().collect();
    Ok((State::deserialize(&Value::Object(document))?, lost))
}

/// The members of a list that can be read.
fn keep<T: DeserializeOwned>(document: &mut Map<String, Value>, part: &'static str) -> Option<Lost> {
    let members = document.get_mut(part)?.as_array_mut()?;
    let before = members.len();
    let mut first = None;
    members.retain(|member| match T::deserialize(member) {
        Ok(_) => true,
        Err(problem) => {
            first.get_or_insert(problem);
            false
        }
    });
    Some(Lost { part, members: before - members.len(), problem: first? })
}

fn keep_confirmation(document: &mut Map<String, Value>) -> Option<Lost> {
    const PART: &str = "confirmation";
    let problem = Confirmation::deserialize(document.get(PART)?).err()?;
    document.remove(PART);
    Some(Lost { part: PART, members: 1, problem })
}

/// Instead of how much is left until a confirmation is too late, a document may say `until` when it is in time, by the clock on
/// the wall, as `written` is.
fn give_time_left(document: &mut Map<String, Value>) {
    let moment = |value: Option<&Value>| Timestamp::deserialize(value?).ok().map(SystemTime::from);
    let written = moment(document.get("written"));
    let Some(confirmation) = document.get_mut("confirmation").and_then(Value::as_object_mut) else { return };
    if let (Some(written), Some(until)) = (written, moment(confirmation.get("until"))) {
        let left = until.duration_since(written).unwrap_or_default();
        confirmation.remove("until");
        let ends_in_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        confirmation.insert("ends_in_ms".to_owned(), ends_in_ms.into());
    }
}
