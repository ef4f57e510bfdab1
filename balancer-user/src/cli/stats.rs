//! `balancer stats`: exact counters, and every reason for a drop or an answer with what it means. With `--watch` also what
//! they come to in a second.

use std::collections::BTreeMap;

use super::layout::{Cell, Columns, Palette};
use super::rates::{self, Span};
use super::remains::{self, Answer, Remains, WithoutDaemon};
use super::{Output, Paths, StatsArgs, ask};
use crate::control::client::Client;
use crate::control::protocol::{BackendStats, ServiceStats, Stats};
use crate::exit::{self, Exit, Failure};

/// What a reason means, in one line; `None` for one that a newer daemon counts.
pub type Meaning = fn(reason: &str) -> Option<&'static str>;

/// Asks and prints.
///
/// # Errors
/// No answer and nothing left of a daemon.
pub fn run(
    paths: &Paths,
    arguments: &StatsArgs,
    output: Output,
    (remains, meaning): (Remains, Meaning),
) -> Result<Exit, Failure> {
    let client = Client::new(&paths.socket);
    let look = async || {
        let of = paths.clone();
        remains::or_else(client.get().await, move || (remains.stats)(&of)).await
    };
    if arguments.watch.watch {
        let mut before: Option<Stats> = None;
        return ask::wait(arguments.watch.repeat(output, async || {
            let Answer { document: stats, is_alive } = look().await?;
            let text = match output {
                Output::Json if is_alive => ask::json_line(&stats)?,
                Output::Json => ask::json_line(&WithoutDaemon::new(&stats))?,
                Output::Table => watched(&stats, before.as_ref(), is_alive, meaning, Palette::of_stdout()),
            };
            before = Some(stats);
            Ok(text)
        }));
    }
    let Answer { document: stats, is_alive } = ask::wait(look())?;
    remains::say_whose(is_alive, paths);
    let text = match output {
        Output::Json if is_alive => ask::json(&stats)?,
        Output::Json => ask::json(&WithoutDaemon::new(&stats))?,
        Output::Table => table(&stats, meaning, Palette::of_stdout()),
    };
    exit::print(&text)?;
    Ok(Exit::Ok)
}

pub(super) fn table(stats: &Stats, meaning: Meaning, palette: Palette) -> String {
    let text = format!("as of {}\n", stats.as_of);
    render(text, &Rated { stats, rates: None }, meaning, palette)
}

/// With rates since the answer before.
pub(super) fn watched(
    stats: &Stats,
    before: Option<&Stats>,
    is_alive: bool,
    meaning: Meaning,
    palette: Palette,
) -> String {
    let whose = if is_alive { "" } else { "; no daemon is running: this is from the pinned maps" };
    let text = format!("as of {}{whose}\n", stats.as_of);
    let span = before.and_then(|before| Some((before, Span::between(before.as_of, stats.as_of)?)));
    render(text, &Rated { stats, rates: Some(span) }, meaning, palette)
}

/// A title, and what stands below it.
type Counter<T> = (&'static str, fn(&T) -> u64);

/// Counters, and what they are compared with.
struct Rated<'a> {
    stats: &'a Stats,
    /// `None`: no rates are wanted. Without an answer before, they are not known yet.
    rates: Option<Option<(&'a Stats, Span)>>,
}

impl Rated<'_> {
    /// A counter, and behind it its rate if that is wanted; `before` finds the same counter in the answer before.
    fn cells(&self, now: u64, before: impl FnOnce(&Stats) -> Option<u64>) -> Vec<Cell> {
        let mut cells = vec![Cell::number(now)];
        if let Some(rates) = &self.rates {
            let rate = rates.as_ref().and_then(|(stats, span)| span.rate(before(stats)?, now));
            cells.push(Cell::right(&rates::shown(rate)));
        }
        cells
    }

    /// The headings of what [`Rated::cells`] gives.
    fn titles(&self, title: &str) -> Vec<Cell> {
        let mut cells = vec![Cell::right(title)];
        cells.extend(self.rates.map(|_| Cell::right("/s")));
        cells
    }
}

fn render(mut text: String, rated: &Rated<'_>, meaning: Meaning, palette: Palette) -> String {
    let blocks = [
        ("services", services(rated)),
        ("backends", backends(rated)),
        ("dropped packets", reasons(rated, |stats| &stats.drops, meaning)),
        ("answered packets", reasons(rated, |stats| &stats.answers, meaning)),
        ("passed packets", reasons(rated, |stats| &stats.passed, meaning)),
    ];
    for (title, columns) in blocks.iter().filter(|(_, columns)| !columns.is_empty()) {
        text.push('\n');
        text.push_str(title);
        text.push('\n');
        columns.render("  ", palette, &mut text);
    }
    text
}

fn services(rated: &Rated<'_>) -> Columns {
    const COUNTERS: [Counter<ServiceStats>; 3] = [
        ("NEW FLOWS", |service| service.new_flows),
        ("PACKETS", |service| service.packets),
        ("BYTES", |service| service.bytes),
    ];
    let mut columns = Columns::default();
    let mut heading = vec![Cell::text("POOL"), Cell::text("SERVICE")];
    heading.extend(COUNTERS.iter().flat_map(|(title, _)| rated.titles(title)));
    columns.row(heading);
    for service in &rated.stats.services {
        let is_same =
            |other: &&ServiceStats| (&other.pool, &other.service) == (&service.pool, &service.service);
        let mut row = vec![Cell::text(&service.pool), Cell::text(&service.service)];
        for (_, counter) in COUNTERS {
            let before = |stats: &Stats| stats.services.iter().find(is_same).map(counter);
            row.extend(rated.cells(counter(service), before));
        }
        columns.row(row);
    }
    columns
}

fn backends(rated: &Rated<'_>) -> Columns {
    const COUNTERS: [Counter<BackendStats>; 7] = [
        ("NEW FLOWS", |backend| backend.new_flows),
        ("PACKETS", |backend| backend.packets),
        ("BYTES", |backend| backend.bytes),
        ("REFUSED", |backend| backend.retried_refused),
        ("UNANSWERED", |backend| backend.retried_unanswered),
        ("RESCUED", |backend| backend.rescued),
        ("RESETS", |backend| backend.resets_sent),
    ];
    let mut columns = Columns::default();
    let mut heading = vec![Cell::text("POOL"), Cell::text("BACKEND"), Cell::right("FLOWS")];
    heading.extend(COUNTERS.iter().flat_map(|(title, _)| rated.titles(title)));
    columns.row(heading);
    for backend in &rated.stats.backends {
        let is_same =
            |other: &&BackendStats| (&other.pool, &other.backend) == (&backend.pool, &backend.backend);
        let mut row =
            vec![Cell::text(&backend.pool), Cell::text(&backend.backend), Cell::number(backend.flows)];
        for (_, counter) in COUNTERS {
            let before = |stats: &Stats| stats.backends.iter().find(is_same).map(counter);
            row.extend(rated.cells(counter(backend), before));
        }
        columns.row(row);
    }
    columns
}

fn reasons(rated: &Rated<'_>, of: fn(&Stats) -> &BTreeMap<String, u64>, meaning: Meaning) -> Columns {
    let mut columns = Columns::default();
    for (reason, count) in of(rated.stats) {
        let mut row = vec![Cell::text(reason)];
        row.extend(rated.cells(*count, |stats| of(stats).get(reason).copied()));
        row.push(Cell::text(meaning(reason).unwrap_or_default()));
        columns.row(row);
    }
    columns
}
