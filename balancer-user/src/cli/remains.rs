//! What answers in a dead daemon's place, for verbs that tell of now: the kernel's maps still do what they were told.
//!
//! Deliberately not here: how maps are read. The command line knows none; whoever calls it hands in what does. For the past
//! there is `left_behind`.

use serde::Serialize;

use super::Paths;
use crate::control::client::ClientError;
use crate::control::protocol::{Flow, FlowsQuery, Stats, Status};
use crate::exit::{Exit, Failure, say};

/// Reads what a daemon has left; `None` where there is nothing.
#[derive(Clone, Copy, Debug)]
pub struct Remains {
    /// For `status`.
    pub status: fn(&Paths) -> Result<Option<Status>, Failure>,
    /// For `stats`.
    pub stats: fn(&Paths) -> Result<Option<Stats>, Failure>,
    /// For `flows`: each that is wanted, as long as more are; returns whether there is anything.
    pub flows: fn(&Paths, &FlowsQuery, &mut VisitFlow<'_>) -> Result<bool, Failure>,
}

/// Takes a flow; returns whether more are wanted.
pub type VisitFlow<'a> = dyn FnMut(Flow<'_>) -> bool + 'a;

/// A document that no daemon has answered with: `"daemon": null` stands behind the rest.
#[derive(Serialize)]
pub(super) struct WithoutDaemon<'a, T> {
    #[serde(flatten)]
    document: &'a T,
    daemon: (),
}

impl<'a, T> WithoutDaemon<'a, T> {
    pub(super) const fn new(document: &'a T) -> Self {
        Self { document, daemon: () }
    }
}

/// A document, and whether a daemon has answered.
pub(super) struct Answer<T> {
    pub(super) document: T,
    pub(super) is_alive: bool,
}

/// The daemon's answer, or else what `look` finds.
///
/// # Errors
/// The daemon's own; without one, what `look` says, and that there is none where it finds nothing.
pub(super) async fn or_else<T: Send + 'static>(
    answer: Result<T, ClientError>,
    look: impl FnOnce() -> Result<Option<T>, Failure> + Send + 'static,
) -> Result<Answer<T>, Failure> {
    let error = match answer {
        Ok(document) => return Ok(Answer { document, is_alive: true }),
        Err(error) => error,
    };
    let ClientError::NoDaemon { .. } = &error else { return Err(error.into()) };
    // It may wait for the kernel, with a runtime of its own.
    let found = tokio::task::spawn_blocking(look).await;
    let found = found.map_err(|error| Failure::new(Exit::Failed, format!("reading the maps: {error}")))??;
    found.map(|document| Answer { document, is_alive: false }).ok_or_else(|| error.into())
}

/// Tells on stderr whose answer it is.
pub(super) fn say_whose(is_alive: bool, paths: &Paths) {
    if !is_alive {
        let (socket, pins) = (paths.socket.display(), paths.pin_dir.display());
        say(&format!("no daemon answers at {socket}: this is from the pinned maps in {pins}"));
    }
}
