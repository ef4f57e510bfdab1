//! `balancer why POOL`: the story of the active backend, in sentences, newest first.

use super::layout::{self, Cell, Columns, Palette};
use super::left_behind::LeftBehind;
use super::{Output, Paths, WhyArgs, ask};
use crate::control::client::{Client, ClientError};
use crate::control::protocol::{Record, Why, WhyQuery, WhySchema};
use crate::exit::{self, Exit, Failure};

/// Asks and prints.
///
/// # Errors
/// No answer and no journal, or no such pool.
pub fn run(paths: &Paths, arguments: &WhyArgs, output: Output) -> Result<Exit, Failure> {
    let query = WhyQuery { pool: arguments.pool.clone() };
    let answer: Result<Why, ClientError> =
        ask::wait(async { Ok::<_, Failure>(Client::new(&paths.socket).why(&query).await) })?;
    let why = answer.or_else(|error| left_behind(error, paths, &query.pool))?;
    let text = match output {
        Output::Json => ask::json(&why)?,
        Output::Table => table(&why, Palette::of_stdout()),
    };
    exit::print(&text)?;
    Ok(Exit::Ok)
}

/// The state tells which backend was active, the journal why.
fn left_behind(error: ClientError, paths: &Paths, name: &str) -> Result<Why, Failure> {
    let found = LeftBehind::instead_of(error, paths)?;
    let state = found.state()?;
    let Some(pool) = state.pools.iter().find(|pool| pool.name == name) else {
        let known: Vec<_> = state.pools.iter().map(|pool| layout::printable(&pool.name)).collect();
        let known = known.join(", ");
        return Err(Failure::new(Exit::Failed, format_args!("there is no pool {name:?}; there is {known}")));
    };
    let chain = pool.active.as_ref().map(|active| found.past().why(name, active));
    let chain = chain.transpose().map_err(|error| found.failed(&error))?.unwrap_or_default();
    let (pool, active) = (pool.name.clone(), pool.active.clone());
    Ok(Why { schema: WhySchema::V1, as_of: ask::now(), pool, active, chain })
}

pub(super) fn table(why: &Why, palette: Palette) -> String {
    let pool = layout::printable(&why.pool);
    let active = layout::printable(why.active.as_deref().unwrap_or("no backend"));
    let mut text = format!("as of {}: {pool} is on {active}\n", why.as_of);
    if why.chain.is_empty() {
        text.push_str("the journal does not tell how that came\n");
        return text;
    }
    text.push('\n');
    let mut columns = Columns::default();
    for record in &why.chain {
        columns.row(vec![
            Cell::text(record.at.to_string()),
            Cell::text(format!("{} ago", layout::age(record.at.age_at(why.as_of)))),
            Cell::text(sentence(record)),
        ]);
    }
    columns.render("  ", palette, &mut text);
    text
}

fn sentence(record: &Record) -> String {
    let word = |text: &Option<String>, none: &str| text.clone().unwrap_or_else(|| none.to_owned());
    let because = |text: &Option<String>| text.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
    let backend = word(&record.backend, "a backend");
    let evidence = because(&record.evidence);
    match record.event.as_str() {
        "transition" => format!(
            "new flows went from {} to {}, reason {}{evidence}",
            word(&record.from, "no backend"),
            word(&record.to, "no backend"),
            word(&record.reason, "unknown"),
        ),
        "health" => {
            let (from, to) = (word(&record.from, "unknown"), word(&record.to, "unknown"));
            format!("{backend} was {from} and then {to}{}", because(&record.reason))
        }
        "command" => format!("the operator's command was {}{evidence}", word(&record.reason, "given")),
        "all_down" => format!("no backend was up{evidence}"),
        "all_down_over" => "a backend was up again".to_owned(),
        "switching" => format!(
            "new flows were held for a change from {} to {}{evidence}",
            word(&record.from, "no backend"),
            word(&record.to, "no backend"),
        ),
        "hook" => format!("a hook was {}{evidence}", word(&record.reason, "run")),
        "held" => format!("the change stood still{evidence}"),
        "resumed" => format!("the operator let it go on with {}{evidence}", word(&record.reason, "it")),
        "abandoned" => format!("a change was given up{evidence}"),
        "waiting" => format!(
            "the operator was asked to move from {} to {}{evidence}",
            word(&record.from, "a backend"),
            word(&record.to, "another"),
        ),
        "answered" => format!("clients were answered again{evidence}"),
        "admin" => {
            let (from, to) = (word(&record.from, "ready"), word(&record.to, "ready"));
            format!("{backend} was {from} and then {to} by the operator's will")
        }
        event => format!("{event} {}{evidence}", word(&record.backend, "")),
    }
}
