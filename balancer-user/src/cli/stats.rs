//! `balancer stats`: exact counters, and every reason for a drop or an answer with what it means.

use std::collections::BTreeMap;

use super::layout::{Cell, Columns, Palette};
use super::{Output, Paths, ask};
use crate::control::client::Client;
use crate::control::protocol::Stats;
use crate::exit::{self, Exit, Failure};

/// What a reason means, in one line; `None` for one that a newer daemon counts.
pub type Meaning = fn(reason: &str) -> Option<&'static str>;

/// Asks and prints.
///
/// # Errors
/// No answer.
pub fn run(paths: &Paths, output: Output, meaning: Meaning) -> Result<Exit, Failure> {
    let stats: Stats = ask::wait(Client::new(&paths.socket).get())?;
    let text = match output {
        Output::Json => ask::json(&stats)?,
        Output::Table => table(&stats, meaning, Palette::of_stdout()),
    };
    exit::print(&text)?;
    Ok(Exit::Ok)
}

pub(super) fn table(stats: &Stats, meaning: Meaning, palette: Palette) -> String {
    let blocks = [
        ("services", services(stats)),
        ("backends", backends(stats)),
        ("dropped packets", reasons(&stats.drops, meaning)),
        ("answered packets", reasons(&stats.answers, meaning)),
        ("passed packets", reasons(&stats.passed, meaning)),
    ];
    let mut text = format!("as of {}\n", stats.as_of);
    for (title, columns) in blocks.iter().filter(|(_, columns)| !columns.is_empty()) {
        text.push('\n');
        text.push_str(title);
        text.push('\n');
        columns.render("  ", palette, &mut text);
    }
    text
}

fn heading(left: &[&str], right: &[&str]) -> Vec<Cell> {
    let left = left.iter().map(Cell::text);
    left.chain(right.iter().map(|title| Cell::right(title))).collect()
}

fn services(stats: &Stats) -> Columns {
    let mut columns = Columns::default();
    columns.row(heading(&["POOL", "SERVICE"], &["NEW FLOWS", "PACKETS", "BYTES"]));
    for service in &stats.services {
        let mut row = vec![Cell::text(&service.pool), Cell::text(&service.service)];
        row.extend([service.new_flows, service.packets, service.bytes].map(Cell::number));
        columns.row(row);
    }
    columns
}

fn backends(stats: &Stats) -> Columns {
    let mut columns = Columns::default();
    columns.row(heading(
        &["POOL", "BACKEND"],
        &["NEW FLOWS", "FLOWS", "PACKETS", "BYTES", "REFUSED", "UNANSWERED", "RESCUED", "RESETS"],
    ));
    for backend in &stats.backends {
        let mut row = vec![Cell::text(&backend.pool), Cell::text(&backend.backend)];
        row.extend(
            [
                backend.new_flows,
                backend.flows,
                backend.packets,
                backend.bytes,
                backend.retried_refused,
                backend.retried_unanswered,
                backend.rescued,
                backend.resets_sent,
            ]
            .map(Cell::number),
        );
        columns.row(row);
    }
    columns
}

fn reasons(counts: &BTreeMap<String, u64>, meaning: Meaning) -> Columns {
    let mut columns = Columns::default();
    for (reason, count) in counts {
        let meaning = meaning(reason).unwrap_or_default();
        columns.row(vec![Cell::text(reason), Cell::number(*count), Cell::text(meaning)]);
    }
    columns
}
