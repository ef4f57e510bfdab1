//! `balancer flows`: who is connected to what, how long, and how much has passed.
//!
//! The daemon leaves out what isn't wanted, so that a few flows of a million are a short answer.

use std::time::Duration;

use super::layout::{self, Cell, Colour, Columns, Palette};
use super::remains::{self, Answer, Remains, WithoutDaemon};
use super::{FlowsArgs, Output, Paths, ask};
use crate::control::client::Client;
use crate::control::protocol::{Flow, FlowState, Flows, FlowsQuery};
use crate::exit::{self, Exit, Failure};

/// For what isn't configured any more.
const NOBODY: &str = "-";

/// Asks and prints.
///
/// # Errors
/// No answer and nothing left of a daemon, or refused: no such pool or backend, or more flows than an answer may hold.
pub fn run(paths: &Paths, arguments: &FlowsArgs, output: Output, remains: Remains) -> Result<Exit, Failure> {
    let FlowsArgs { pool, backend, client, limit } = arguments.clone();
    let query = FlowsQuery { pool, backend, client, limit };
    let (of, wanted) = (paths.clone(), query.clone());
    let Answer { document: flows, is_alive } = ask::wait(async {
        let answer = Client::new(&paths.socket).flows(&query).await;
        remains::or_else(answer, move || (remains.flows)(&of, &wanted)).await
    })?;
    remains::say_whose(is_alive, paths);
    let text = match output {
        Output::Json if is_alive => ask::json(&flows)?,
        Output::Json => ask::json(&WithoutDaemon::new(&flows))?,
        Output::Table => table(&flows, limit, Palette::of_stdout()),
    };
    exit::print(&text)?;
    Ok(Exit::Ok)
}

/// `limit` is what was asked for.
pub(super) fn table(flows: &Flows, limit: Option<u64>, palette: Palette) -> String {
    let count = flows.flows.len();
    let plural = if count == 1 { "" } else { "s" };
    let more = if limit == Some(count as u64) { " (there may be more: --limit)" } else { "" };
    let mut text = format!("as of {}: {count} flow{plural}{more}\n", flows.as_of);
    if !flows.flows.is_empty() {
        text.push('\n');
        rows(&flows.flows).render("  ", palette, &mut text);
    }
    text
}

fn rows(flows: &[Flow<'_>]) -> Columns {
    let mut columns = Columns::default();
    let mut heading: Vec<_> = ["CLIENT", "SERVICE", "BACKEND", "STATE"].into_iter().map(Cell::text).collect();
    heading.extend(["AGE", "IDLE", "PACKETS", "BYTES"].map(Cell::right));
    columns.row(heading);
    for flow in flows {
        let age = |seconds| Cell::right(&layout::age(Duration::from_secs(seconds)));
        let is_odd = flow.state != FlowState::Established;
        columns.row(vec![
            Cell::text(flow.client.to_string()),
            Cell::text(format!("{}/{}", flow.pool.as_deref().unwrap_or(NOBODY), flow.service)),
            Cell::text(flow.backend.as_deref().unwrap_or(NOBODY)),
            Cell::text(flow.state.to_string()).coloured(is_odd.then_some(Colour::Doubtful)),
            age(flow.age_s),
            age(flow.idle_s),
            Cell::number(flow.packets),
            Cell::right(&layout::bytes(flow.bytes)),
        ]);
    }
    columns
}
