//! What a reload has to know before anything is changed, and what takes long to find out: the file and all that it names, a
//! walk over the flows, ways to new backends. Beside the loop; nothing here changes anything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::config::{self, Config, ConfigErrors, Known, Missing, Parsed};
use crate::control::server::NotReloaded;
use crate::dataplane::DataplaneError;
use crate::dataplane::attach;
use crate::dataplane::flows::FlowTable;
use crate::dataplane::links;
use crate::dataplane::neighbours::Neighbours;
use crate::dataplane::slots::Busy;
use crate::exit::Exit;
use crate::resolver::Resolver;

use super::accepted::{Accepted, Asking, accepted};
use super::choice::BEFORE;
use super::first_ways::{FirstWay, first_ways};
use super::reload::Cause;
use super::{dashboard, redirects};

/// For neighbours of new backends to answer; those who don't are led to when they do.
const WAYS_LIMIT: Duration = Duration::from_millis(300);

/// For the file and all that it names, host names included. A file system that doesn't answer must not be waited for: whoever
/// asked is told, and a configuration that nobody confirmed has to be taken back.
const READING_LIMIT: Duration = Duration::from_secs(30);

/// Whoever hangs in reading has a thread, and as many may as leave enough for everything else.
const READINGS: usize = 8;
static READING: Semaphore = Semaphore::const_new(READINGS);
static KNOWN: Semaphore = Semaphore::const_new(READINGS);

/// Where what is wanted comes from.
pub(super) enum Source {
    /// It was accepted before.
    Known(Box<Accepted>),
    /// An earlier life had accepted it.
    Text(Arc<str>),
    File,
}

/// What is known before anything is changed.
pub(super) struct Prepared {
    pub(super) cause: Cause,
    pub(super) wanted: Result<Accepted, NotReloaded>,
    /// Slots that live flows refer to.
    pub(super) busy: Busy,
    /// To backends that are new.
    pub(super) ways: BTreeMap<IpAddr, FirstWay>,
    /// For what is new.
    pub(super) listeners: Listeners,
}

/// Bound before anything is changed.
#[derive(Default)]
pub(super) struct Listeners {
    /// For redirects.
    pub(super) redirects: BTreeMap<SocketAddr, TcpListener>,
    /// For the dashboard.
    pub(super) http: Option<TcpListener>,
}

/// A backend as it is known, with its pool: names and address.
pub(super) type Member = (String, String, IpAddr);

/// Where what is to be read is, and what is known of interfaces.
pub(super) struct Places {
    /// The configuration.
    pub(super) path: PathBuf,
    pub(super) pin_dir: PathBuf,
    /// The folder in it that is used.
    pub(super) pins: PathBuf,
    /// Who is asked for host names.
    pub(super) resolver: Resolver,
    /// Where they have led last.
    pub(super) hosts: Known,
    /// Those that are used.
    pub(super) interfaces: Vec<String>,
    /// Where plain HTTP is answered.
    pub(super) redirects: BTreeSet<SocketAddr>,
    /// Where the dashboard is.
    pub(super) http: Option<SocketAddr>,
}

/// All that takes long.
pub(super) async fn prepare(
    cause: Cause,
    source: Source,
    places: Places,
    led_to: BTreeSet<Member>,
    flows: Arc<FlowTable>,
) -> Prepared {
    let Places { path, pin_dir, pins, resolver, hosts, interfaces, redirects, http } = places;
    // What was accepted before is not read.
    let places = if matches!(source, Source::Known(_)) { &KNOWN } else { &READING };
    let read = within(READING_LIMIT, places, move || {
        let wanted = match source {
            Source::Known(accepted) => Ok(*accepted),
            // What was accepted once comes back without those of which nobody knows any more where they are.
            Source::Text(text) => {
                read(config::parse(BEFORE, &text), &pin_dir, (&resolver, &hosts), Missing::Warn)
            }
            // Nothing is lost by what runs going on, and whoever has mistyped a name is told at once.
            Source::File => read(config::load(&path), &pin_dir, (&resolver, &hosts), Missing::Refuse),
        };
        (wanted, flows.busy())
    });
    let (mut wanted, busy) = match read.await {
        Ok(read) => read,
        Err(problem) => (Err(NotReloaded::Refused(problem)), Busy::default()),
    };
    if let Ok(Accepted { config, .. }) = &wanted
        && let Err(error) = refuse_foreign_programs(config, &interfaces, &pins).await
    {
        wanted = Err(NotReloaded::Refused(error.to_string()));
    }
    let listeners = wanted.as_ref().map(|wanted| listen(&wanted.config, (&redirects, http), &cause));
    let listeners = match listeners {
        Ok(Ok(listeners)) => listeners,
        Ok(Err(problem)) => {
            wanted = Err(problem);
            Listeners::default()
        }
        Err(_) => Listeners::default(),
    };
    let mut new: Vec<IpAddr> = Vec::new();
    if let Ok(Accepted { config, .. }) = &wanted {
        for pool in &config.pools {
            let is_new = |backend: &&config::Backend| {
                let member = (pool.name.clone(), backend.name.clone(), backend.address);
                backend.is_settled() && !led_to.contains(&member)
            };
            new.extend(pool.backends.iter().filter(is_new).map(|backend| backend.address));
        }
        new.sort_unstable();
        new.dedup();
    }
    let ways = first_ways(&new, WAYS_LIMIT).await;
    Prepared { cause, wanted, busy, ways, listeners }
}

/// Has something read that may never end, in a thread of its own.
async fn within<T: Send + 'static>(
    limit: Duration,
    places: &'static Semaphore,
    read: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let hangs = "the configuration, or a file that it names, is on a file system that does not answer";
    let Ok(place) = places.try_acquire() else {
        return Err(format!("{hangs}: {READINGS} attempts to read it have not ended"));
    };
    let reading = spawn_blocking(move || {
        let _place = place;
        read()
    });
    match timeout(limit, reading).await {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(problem)) => Err(format!("the configuration could not be read: {problem}")),
        Err(_) => Err(format!("{hangs}: it was not read in {limit:?}")),
    }
}

/// Where nobody of ours listens yet.
fn listen(
    config: &Config,
    (redirects, http): (&BTreeSet<SocketAddr>, Option<SocketAddr>),
    cause: &Cause,
) -> Result<Listeners, NotReloaded> {
    let redirects = redirects::listen(config, redirects, cause)?;
    Ok(Listeners { redirects, http: dashboard::listen_for(config, http, cause)? })
}

/// On interfaces that are not used yet.
async fn refuse_foreign_programs(
    config: &Config,
    used: &[String],
    pins: &Path,
) -> Result<(), DataplaneError> {
    let links = links::pinned(pins)?;
    for name in config.gateway.interfaces.iter().filter(|name| !used.contains(name)) {
        match Neighbours::connect()?.interface(name).await {
            Ok((target, _)) => drop(attach::refuse_foreign(&target, &links, &[])?),
            Err(DataplaneError::NoInterface(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn read(
    parsed: Result<Parsed, ConfigErrors>,
    pin_dir: &Path,
    (resolver, known): (&Resolver, &Known),
    nowhere: Missing,
) -> Result<Accepted, NotReloaded> {
    // Who reloads stands by, and is told.
    let asking = Asking { resolver, known, stay: false, nowhere };
    accepted(parsed, pin_dir, &asking).map_err(|failure| match failure.exit {
        Exit::Config => NotReloaded::Invalid(failure.to_string()),
        _ => NotReloaded::Refused(failure.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn who_never_ends_is_not_waited_for_and_takes_one_place() {
        static PLACES: Semaphore = Semaphore::const_new(1);
        let (release, hanging) = channel::<()>();
        let hangs = within(SHORT, &PLACES, move || hanging.recv().is_err());
        assert!(hangs.await.unwrap_err().ends_with("it was not read in 20ms"));
        assert!(within(SHORT, &PLACES, || 7).await.unwrap_err().ends_with("have not ended"));
        drop(release);
        // Its place is free again.
        let _place = timeout(READING_LIMIT, PLACES.acquire()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn who_ends_in_time_gives_his_place_back() {
        static PLACES: Semaphore = Semaphore::const_new(1);
        for n in 0..2 {
            assert_eq!(within(READING_LIMIT, &PLACES, move || n).await, Ok(n));
        }
    }
}
