//! `balancer events`: what happened, and, with `--follow`, what happens.

use super::layout::{self, Cell, Colour, Columns, Palette};
use super::left_behind::LeftBehind;
use super::{EventsArgs, Output, Paths, ask};
use crate::control::client::{Client, ClientError};
use crate::control::protocol::{Events, EventsQuery, EventsSchema, Record, Timestamp};
use crate::exit::{self, Exit, Failure, say};

/// Asks and prints.
///
/// # Errors
/// No answer and no journal, or refused: no such pool, or too many follow already.
pub fn run(paths: &Paths, arguments: &EventsArgs, output: Output) -> Result<Exit, Failure> {
    let EventsArgs { limit, follow, pool } = arguments.clone();
    let query = EventsQuery { pool, limit, follow };
    if follow {
        return ask::wait(print_as_they_happen(&Client::new(&paths.socket), &query, output));
    }
    let answer: Result<Events, ClientError> =
        ask::wait(async { Ok::<_, Failure>(Client::new(&paths.socket).events(&query).await) })?;
    let events = answer.or_else(|error| left_behind(error, paths, &query))?;
    let text = match output {
        Output::Json => ask::json(&events)?,
        Output::Table => table(&events, limit, Palette::of_stdout()),
    };
    exit::print(&text)?;
    Ok(Exit::Ok)
}

fn left_behind(error: ClientError, paths: &Paths, query: &EventsQuery) -> Result<Events, Failure> {
    let found = LeftBehind::instead_of(error, paths)?;
    let events = found.past().newest(query.pool.as_deref(), query.limit);
    let events = events.map_err(|error| found.failed(&error))?;
    Ok(Events { schema: EventsSchema::V1, as_of: ask::now(), events })
}

/// Until the daemon has ended, or nobody reads any more.
async fn print_as_they_happen(client: &Client, query: &EventsQuery, output: Output) -> Result<Exit, Failure> {
    let palette = Palette::of_stdout();
    let mut following = client.follow(query).await?;
    while let Some(record) = following.next().await? {
        let text = match output {
            Output::Json => ask::json_line(&record)?,
            Output::Table => {
                let mut text = String::new();
                let mut columns = Columns::default();
                columns.row(row(&record, ask::now()));
                columns.render("", palette, &mut text);
                text
            }
        };
        if !exit::offer(&text)? {
            return Ok(Exit::Ok);
        }
    }
    say("the daemon has ended, and with it its events");
    Ok(Exit::Ok)
}

/// `limit` is what was asked for.
pub(super) fn table(events: &Events, limit: u64, palette: Palette) -> String {
    let count = events.events.len();
    let plural = if count == 1 { "" } else { "s" };
    let more = if limit == count as u64 { " (there may be more: --limit)" } else { "" };
    let mut text = format!("as of {}: {count} event{plural}{more}\n", events.as_of);
    if !events.events.is_empty() {
        text.push('\n');
        let mut columns = Columns::default();
        let heading = ["TIME", "AGE", "EVENT", "POOL/BACKEND", "CHANGE", "REASON", "EVIDENCE"];
        columns.row(heading.into_iter().map(Cell::text).collect());
        for record in &events.events {
            columns.row(row(record, events.as_of));
        }
        columns.render("  ", palette, &mut text);
    }
    text
}

fn row(record: &Record, as_of: Timestamp) -> Vec<Cell> {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let about = match (&record.pool, &record.backend) {
        (Some(pool), Some(backend)) => format!("{pool}/{backend}"),
        (pool, _) => or_dash(pool),
    };
    let change = match (&record.from, &record.to) {
        (None, None) => "-".to_owned(),
        (from, to) => format!("{} -> {}", or_dash(from), or_dash(to)),
    };
    vec![
        Cell::text(record.at.to_string()),
        Cell::text(format!("{} ago", layout::age(record.at.age_at(as_of)))),
        Cell::text(&record.event).coloured(colour(record)),
        Cell::text(about),
        Cell::text(change),
        Cell::text(or_dash(&record.reason)),
        Cell::text(or_dash(&record.evidence)),
    ]
}

/// What a person's eye should stop at.
fn colour(record: &Record) -> Option<Colour> {
    match (record.event.as_str(), record.to.as_deref()) {
        ("all_down" | "degraded", _) | ("health", Some("down")) => Some(Colour::Bad),
        ("transition" | "stalled" | "probe_lost" | "certificate", _) | ("health", Some("probation")) => {
            Some(Colour::Doubtful)
        }
        ("all_down_over" | "degraded_over", _) | ("health", Some("up")) => Some(Colour::Good),
        _ => None,
    }
}
