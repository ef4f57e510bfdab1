//! `balancer flows`: who is connected to what, how long, and how much has passed.
//!
//! The daemon leaves out what isn't wanted, so that a few flows of a million are a short answer. JSON is printed flow by
//! flow while they arrive, so that a million need no memory; a table has all of them, as its columns are as wide as the
//! widest of all.

use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use super::layout::{self, Cell, Colour, Columns, Palette};
use super::remains::{self, Remains};
use super::{FlowsArgs, Output, Paths, ask};
use crate::control::arriving;
use crate::control::client::{Client, ClientError};
use crate::control::protocol::{Flow, FlowState, Flows, FlowsQuery, FlowsSchema, Timestamp};
use crate::exit::{self, Exit, Failure};

/// For what isn't configured any more.
const NOBODY: &str = "-";
/// More than a daemon's answer holds (256 MiB), so only what a dead one has left can be more.
const MAX_ROWS: usize = 2_000_000;
/// So much is printed at a time.
const PRINTED_BYTES: usize = 64 * 1024;

/// Takes a flow of this moment; returns whether more are wanted.
type Visit<'a> = dyn FnMut(Timestamp, Flow<'_>) -> Result<bool, Failure> + 'a;

/// Whose listing it was.
struct Source {
    as_of: Timestamp,
    is_alive: bool,
}

/// Asks and prints.
///
/// # Errors
/// No answer and nothing left of a daemon, or refused: no such pool or backend, or more flows than an answer may hold. Part
/// of them may have been printed, when it is an answer that breaks off.
pub fn run(paths: &Paths, arguments: &FlowsArgs, output: Output, remains: Remains) -> Result<Exit, Failure> {
    let FlowsArgs { pool, backend, client, limit } = arguments.clone();
    let query = FlowsQuery { pool, backend, client, limit };
    let source = match output {
        Output::Json => {
            let mut document = Document::new(exit::offer);
            let source = each_flow(paths, &query, remains, &mut |as_of, flow| document.push(as_of, &flow))?;
            document.finish(&source)?;
            source
        }
        Output::Table => {
            let mut flows = Vec::new();
            let source = each_flow(paths, &query, remains, &mut |_, flow| keep(flow, &mut flows))?;
            let flows = Flows { schema: FlowsSchema::V1, as_of: source.as_of, flows };
            exit::print(&table(&flows, limit, Palette::of_stdout()))?;
            source
        }
    };
    remains::say_whose(source.is_alive, paths);
    Ok(Exit::Ok)
}

/// Has every flow visited that the daemon lists, or, without one, that the maps hold.
fn each_flow(
    paths: &Paths,
    query: &FlowsQuery,
    remains: Remains,
    visit: &mut Visit<'_>,
) -> Result<Source, Failure> {
    let mut failed = None;
    let mut visit = |as_of, flow: Flow<'_>| {
        visit(as_of, flow).unwrap_or_else(|failure| {
            failed = Some(failure);
            false
        })
    };
    let source = match of_a_daemon(paths, query, &mut |as_of, flow| visit(as_of, flow))? {
        Ok(as_of) => Source { as_of, is_alive: true },
        Err(error) if matches!(error, ClientError::NoDaemon { .. }) => {
            let as_of = ask::now();
            if !(remains.flows)(paths, query, &mut |flow| visit(as_of, flow))? {
                return Err(error.into());
            }
            Source { as_of, is_alive: false }
        }
        Err(error) => return Err(error.into()),
    };
    failed.map_or(Ok(source), Err)
}

/// The daemon's listing is read here while it arrives on a thread of its own.
fn of_a_daemon(
    paths: &Paths,
    query: &FlowsQuery,
    visit: &mut arriving::Visit<'_>,
) -> Result<Result<Timestamp, ClientError>, Failure> {
    let client = Client::new(&paths.socket);
    let (pieces, text) = arriving::pair();
    let (received, read) = thread::scope(|scope| {
        let receiver =
            scope.spawn(|| ask::wait(async { Ok::<_, Failure>(client.flows(query, pieces).await) }));
        let read = arriving::each_flow(text, visit);
        (receiver.join().unwrap_or_else(|panic| resume_unwind(panic)), read)
    });
    // What was read of an answer that broke off tells nothing.
    Ok(received?.and_then(|()| read.map_err(|error| client.misread(error))))
}

fn keep(flow: Flow<'_>, flows: &mut Vec<Flow<'static>>) -> Result<bool, Failure> {
    if flows.len() >= MAX_ROWS {
        let text = format!(
            "more than {MAX_ROWS} flows are too many for a table: narrow it down with --pool, --backend or --client, take \
             some with --limit, or all with -o json"
        );
        return Err(Failure::new(Exit::Failed, text));
    }
    flows.push(flow.into_owned());
    Ok(true)
}

/// The document as [`ask::json`] would make it, written flow by flow.
struct Document<W> {
    text: String,
    has_flows: bool,
    write: W,
}

impl<W: FnMut(&str) -> Result<bool, Failure>> Document<W> {
    /// What stands behind the flows: here when there are none, and before whom no daemon has answered with.
    const END: &'static str = "]\n}\n";

    /// `write` returns whether somebody still reads.
    const fn new(write: W) -> Self {
        Self { text: String::new(), has_flows: false, write }
    }

    /// Returns whether somebody wants more.
    fn push(&mut self, as_of: Timestamp, flow: &Flow<'_>) -> Result<bool, Failure> {
        if self.has_flows {
            self.text.push(',');
        } else {
            self.begin(as_of)?;
        }
        self.has_flows = true;
        for line in ask::json(flow)?.lines() {
            self.text.push_str("\n    ");
            self.text.push_str(line);
        }
        if self.text.len() < PRINTED_BYTES {
            return Ok(true);
        }
        let is_read = (self.write)(&self.text)?;
        self.text.clear();
        Ok(is_read)
    }

    fn finish(mut self, source: &Source) -> Result<(), Failure> {
        if self.has_flows {
            self.text.push_str("\n  ");
        } else {
            self.begin(source.as_of)?;
        }
        self.text.push_str(if source.is_alive { Self::END } else { "],\n  \"daemon\": null\n}\n" });
        (self.write)(&self.text).map(drop)
    }

    fn begin(&mut self, as_of: Timestamp) -> Result<(), Failure> {
        let empty = ask::json(&Flows { schema: FlowsSchema::V1, as_of, flows: Vec::new() })?;
        self.text.push_str(empty.trim_end_matches(Self::END));
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::remains::WithoutDaemon;
    use crate::control::protocol::example;

    /// What is printed of these flows, and in how many pieces.
    fn printed(document: &Flows, is_alive: bool) -> (String, usize) {
        let (mut text, mut pieces) = (String::new(), 0);
        let mut printer = Document::new(|piece: &str| {
            text.push_str(piece);
            pieces += 1;
            Ok(true)
        });
        for flow in &document.flows {
            assert!(printer.push(document.as_of, flow).unwrap());
        }
        printer.finish(&Source { as_of: document.as_of, is_alive }).unwrap();
        (text, pieces)
    }

    #[test]
    fn what_is_printed_flow_by_flow_is_the_document() {
        let mut document = example::flows();
        let flows = std::mem::take(&mut document.flows);
        for count in [0, 1, 2, 5000] {
            document.flows = flows.iter().cloned().cycle().take(count).collect();
            let (with, without) = (ask::json(&document), ask::json(&WithoutDaemon::new(&document)));
            assert_eq!(printed(&document, true).0, with.unwrap(), "{count} flows");
            assert_eq!(printed(&document, false).0, without.unwrap(), "{count} flows without a daemon");
        }
        let (text, pieces) = printed(&document, true);
        assert!(pieces > text.len() / (2 * PRINTED_BYTES), "{pieces} pieces of {} bytes", text.len());
    }

    #[test]
    fn nothing_is_asked_for_that_nobody_reads() {
        let flow = &example::flows().flows[0];
        let as_of = example::flows().as_of;
        let mut printer = Document::new(|_: &str| Ok(false));
        let taken = (0..5000).take_while(|_| printer.push(as_of, flow).unwrap()).count();
        assert!(taken < 5000);
    }
}
