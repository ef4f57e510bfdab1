//! `balancer status`: one screen that answers who is active, since when and why, and what is wrong.
//!
//! Ages are counted to the moment of the answer, not of the reading, so a table is true as a whole.

use std::fmt::Write as _;
use std::time::Duration;

use super::layout::{self, Cell, Colour, Columns, Palette};
use super::remains::{self, Remains};
use super::{Output, Paths, StatusArgs, ask};
use crate::control::client::Client;
use crate::control::protocol::{
    Admin, Attachment, Backend, Health, LastFailover, LastProbe, Pool, PoolState, Status, Timestamp,
};
use crate::exit::{self, Exit, Failure};

/// An answer older than this says so.
const FRESH: Duration = Duration::from_secs(1);
/// A certificate that runs out sooner is mentioned: renewal by then has failed once or twice.
const CERTIFICATE_NOTICE: Duration = Duration::from_secs(14 * 86_400);

/// Asks, prints, and tells the exit code.
///
/// # Errors
/// No answer and nothing left of a daemon, or no such pool.
pub fn run(paths: &Paths, arguments: &StatusArgs, output: Output, remains: Remains) -> Result<Exit, Failure> {
    let client = Client::new(&paths.socket);
    let look = async || look(&client, paths, arguments.pool.as_deref(), remains).await;
    if arguments.watch.watch {
        return ask::wait(arguments.watch.repeat(output, async || match output {
            Output::Json => ask::json_line(&look().await?),
            Output::Table => Ok(table(&look().await?, ask::now(), Palette::of_stdout())),
        }));
    }
    let status = ask::wait(look())?;
    let text = match output {
        Output::Json => ask::json(&status)?,
        Output::Table => table(&status, ask::now(), Palette::of_stdout()),
    };
    exit::print(&text)?;
    Ok(if arguments.exit_code { verdict(&status.pools) } else { Exit::Ok })
}

async fn look(
    client: &Client,
    paths: &Paths,
    pool: Option<&str>,
    remains: Remains,
) -> Result<Status, Failure> {
    let of = paths.clone();
    let answer = remains::or_else(client.get().await, move || (remains.status)(&of)).await?;
    let mut status = answer.document;
    if let Some(pool) = pool {
        only(pool, &mut status)?;
    }
    Ok(status)
}

pub(super) fn only(name: &str, status: &mut Status) -> Result<(), Failure> {
    if status.pools.iter().any(|pool| pool.name == name) {
        status.pools.retain(|pool| pool.name == name);
        return Ok(());
    }
    let known: Vec<_> = status.pools.iter().map(|pool| layout::printable(&pool.name)).collect();
    let known =
        if known.is_empty() { "there is none".to_owned() } else { format!("there is {}", known.join(", ")) };
    Err(Failure::new(Exit::Failed, format_args!("no pool is named {name:?}: {known}")))
}

/// Good is a pool that is on an up backend and gives new flows to it; while a hook runs or has failed it doesn't.
pub(super) fn verdict(pools: &[Pool]) -> Exit {
    let good = |pool: &Pool| {
        let active = pool.backends.iter().find(|backend| Some(&backend.name) == pool.active.as_ref());
        matches!(pool.state, PoolState::Serving | PoolState::Waiting)
            && active.is_some_and(|backend| backend.health == Health::Up)
    };
    if pools.iter().all(good) { Exit::Ok } else { Exit::Degraded }
}

/// `now` is the reader's clock.
pub(super) fn table(status: &Status, now: Timestamp, palette: Palette) -> String {
    let mut text = String::new();
    headline(status, now, &mut text);
    for problem in &status.degraded {
        palette.paint("degraded", Some(Colour::Bad), &mut text);
        let _infallible = writeln!(text, ": {}", layout::printable(problem));
    }
    for pending in &status.pending {
        palette.paint("pending", Some(Colour::Doubtful), &mut text);
        let _infallible = writeln!(text, ": {}", layout::printable(pending));
    }
    for pool in &status.pools {
        text.push('\n');
        pool_header(pool, status.as_of, palette, &mut text);
        backends(pool, status.as_of).render("  ", palette, &mut text);
        services(pool).render("     ", palette, &mut text);
    }
    let interfaces = attachments(&status.attachments);
    if !interfaces.is_empty() {
        text.push_str("\ninterfaces\n");
        interfaces.render("     ", palette, &mut text);
    }
    let mut drops = Columns::default();
    for (reason, count) in status.drops.iter().filter(|(_, count)| **count > 0) {
        drops.row(vec![Cell::text(reason), Cell::number(*count)]);
    }
    if !drops.is_empty() {
        text.push_str("\ndropped packets\n");
        drops.render("     ", palette, &mut text);
    }
    text
}

// Writing into a String cannot fail: the results of `write!` below mean nothing.

fn headline(status: &Status, now: Timestamp, text: &mut String) {
    let _infallible = match &status.daemon {
        Some(daemon) => write!(
            text,
            "balancer {}, pid {}, up {}, configuration generation {}",
            layout::printable(&daemon.version),
            daemon.pid,
            layout::age(Duration::from_secs(daemon.uptime_s)),
            daemon.config_generation
        ),
        None => write!(text, "no daemon is running: this is from the pinned maps and the state file"),
    };
    let age = status.as_of.age_at(now);
    if age > FRESH {
        let _infallible = write!(text, "; {} old, as of {}", layout::age(age), status.as_of);
    }
    text.push('\n');
}

fn pool_header(pool: &Pool, as_of: Timestamp, palette: Palette, text: &mut String) {
    let colour = match pool.state {
        PoolState::Serving => Colour::Good,
        PoolState::Switching => Colour::Doubtful,
        PoolState::Held | PoolState::Waiting | PoolState::AllDown => Colour::Bad,
    };
    let name = layout::printable(&pool.name);
    let active = layout::printable(pool.active.as_deref().unwrap_or("no backend"));
    let _infallible = write!(text, "{name}  ");
    palette.paint(&pool.state.to_string(), Some(colour), text);
    let age = layout::age(pool.since.age_at(as_of));
    let _infallible = writeln!(
        text,
        " on {active} since {age} ago ({}), reason {}, failback {}",
        pool.since, pool.reason, pool.failback
    );
    let _infallible = match (pool.state, &pool.active) {
        (PoolState::AllDown, Some(_)) => {
            writeln!(text, "     no backend is eligible: new flows still go to {active}")
        }
        (PoolState::AllDown, None) => writeln!(text, "     no backend is eligible: new flows are rejected"),
        (PoolState::Waiting, _) => {
            writeln!(text, "     failover is manual: decide with `balancer failover {name}`")
        }
        (PoolState::Held, _) if pool.transition.is_none() => writeln!(
            text,
            "     who was active is not known: `balancer failover {name} --to BACKEND --force` says who it shall be"
        ),
        (PoolState::Held, _) => writeln!(
            text,
            "     the change stands still: `balancer resume {name} --retry` or `--skip` goes on, `balancer events --pool {name}` \
             tells what stopped it"
        ),
        (PoolState::Serving | PoolState::Switching, _) => Ok(()),
    };
    if let Some(change) = &pool.transition {
        let from = layout::printable(change.from.as_deref().unwrap_or("no backend"));
        let to = layout::printable(&change.to);
        let _infallible = write!(
            text,
            "     change {} from {from} to {to}, reason {}, started {} ago",
            change.id,
            change.reason,
            layout::age(change.started.age_at(as_of))
        );
        if let Some(hook) = &change.hook {
            let _infallible = write!(text, ", at hook \"{}\"", layout::printable(hook));
        }
        text.push('\n');
    }
    if let Some(failover) = &pool.last_failover {
        last_failover(failover, as_of, text);
    }
}

fn last_failover(failover: &LastFailover, as_of: Timestamp, text: &mut String) {
    let from = layout::printable(&failover.from);
    let to = layout::printable(&failover.to);
    let age = layout::age(failover.at.age_at(as_of));
    let _infallible = write!(text, "     last failover {age} ago from {from} to {to}");
    if let Some(ms) = failover.detection_ms {
        let _infallible = write!(text, ", {ms} ms after the last good answer");
    }
    let _infallible = match failover.recovery_ms {
        Some(ms) => writeln!(text, ", first answer {ms} ms later"),
        None => writeln!(text, ", no client answered since"),
    };
}

fn backends(pool: &Pool, as_of: Timestamp) -> Columns {
    let mut columns = Columns::default();
    let mut heading: Vec<_> =
        ["", "BACKEND", "ADDRESS", "HEALTH", "ADMIN", "SINCE"].into_iter().map(Cell::text).collect();
    heading.extend([Cell::right("FLOWS"), Cell::text("LAST PROBE"), Cell::text("REASON")]);
    columns.row(heading);
    for backend in &pool.backends {
        let active = pool.active.as_ref() == Some(&backend.name);
        columns.row(vec![
            Cell::text(if active { "●" } else { " " }),
            Cell::text(if backend.backup {
                format!("{} (backup)", backend.name)
            } else {
                backend.name.clone()
            }),
            Cell::text(&backend.address),
            health(backend),
            Cell::text(backend.admin.to_string())
                .coloured((backend.admin != Admin::Ready).then_some(Colour::Doubtful)),
            Cell::text(layout::age(backend.since.age_at(as_of))),
            Cell::number(backend.flows),
            Cell::text(backend.last_probe.as_ref().map_or("-".to_owned(), |probe| last_probe(probe, as_of))),
            Cell::text(backend.reason.as_deref().unwrap_or("-")),
        ]);
    }
    columns
}

fn health(backend: &Backend) -> Cell {
    let colour = match backend.health {
        Health::Up => Colour::Good,
        Health::Down => Colour::Bad,
        Health::Probation | Health::Unknown => Colour::Doubtful,
    };
    let word = backend.health.to_string();
    // Failures that have not made it down yet are the first sign of trouble.
    let text = match backend.fails {
        fails if fails > 0 && backend.health != Health::Down => format!("{word} ({fails} failed)"),
        _ => word,
    };
    Cell::text(text).coloured(Some(colour))
}

fn last_probe(probe: &LastProbe, as_of: Timestamp) -> String {
    let age = layout::age(probe.at.age_at(as_of));
    let mut text = match (&probe.reason, probe.ok) {
        (_, true) => format!("{} ok in {:.1} ms, {age} ago", probe.service, probe.took_ms),
        (Some(reason), false) => format!("{} failed {age} ago: {reason}", probe.service),
        (None, false) => format!("{} failed {age} ago", probe.service),
    };
    if let Some(expires) = probe.certificate_expires {
        let left = as_of.age_at(expires);
        let _infallible = if left.is_zero() {
            write!(text, "; certificate expired")
        } else if left < CERTIFICATE_NOTICE {
            write!(text, "; certificate expires in {}", layout::age(left))
        } else {
            Ok(())
        };
    }
    text
}

fn services(pool: &Pool) -> Columns {
    let mut columns = Columns::default();
    let mut heading: Vec<_> = ["SERVICE", "LISTEN", "BACKEND PORT"].into_iter().map(Cell::text).collect();
    heading.extend(["NEW FLOWS", "PACKETS", "BYTES"].map(Cell::right));
    columns.row(heading);
    for service in &pool.services {
        columns.row(vec![
            Cell::text(&service.name),
            Cell::text(service.listen.to_string()),
            Cell::text(service.backend_port.to_string()),
            Cell::number(service.new_flows),
            Cell::number(service.packets),
            Cell::right(&layout::bytes(service.bytes)),
        ]);
    }
    columns
}

fn attachments(attachments: &[Attachment]) -> Columns {
    let mut columns = Columns::default();
    for attachment in attachments {
        let id = |name, id: Option<u32>| id.map(|id| format!("{name} {id}"));
        let ids = [id("program", attachment.program_id), id("link", attachment.link_id)];
        let mut told: Vec<_> = ids.into_iter().flatten().collect();
        told.extend(attachment.error.clone());
        let mode = attachment.mode.map_or("not attached".to_owned(), |mode| mode.to_string());
        let wrong = attachment.error.is_some() || attachment.mode.is_none();
        columns.row(vec![
            Cell::text(&attachment.interface),
            Cell::text(mode).coloured(wrong.then_some(Colour::Bad)),
            Cell::text(told.join(", ")),
        ]);
    }
    columns
}
