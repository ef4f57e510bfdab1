//! Asks the system's resolver where hosts are: `/etc/hosts`, DNS, and whatever else `nsswitch.conf` names.
//!
//! By `getaddrinfo`, so that a name means here what it means to everything else on the gateway. That may take as long as it
//! likes, or never end, so each question has a thread of its own: one for each name and a few over all, whoever asks. Who
//! asks waits for a bounded time; an answer that comes later is nobody's. Deliberately not here: which address is used and
//! what can't be one (`config::hosts`), and when to ask (`daemon::names`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::privileges;

/// Questions without an answer yet: enough for a round of hundreds of names in a moment, and little memory when all hang.
const AT_ONCE: usize = 16;
/// Addresses of one name; nobody reaches more.
const MOST_ADDRESSES: usize = 64;
/// What `std` puts before the resolver's own words.
const PREFIX: &str = "failed to lookup address information: ";

/// Addresses without order, or why there are none.
pub type Answer = Result<Vec<IpAddr>, String>;
/// Answers by name.
pub type Answers = BTreeMap<String, Answer>;
/// Asks for one name, for as long as that takes.
type Ask = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// Whoever has a clone of it shares its threads.
#[derive(Clone)]
pub struct Resolver {
    ask: Arc<Ask>,
    lookups: Arc<Lookups>,
}

#[derive(Default)]
struct Lookups {
    state: Mutex<State>,
    /// An answer has come.
    landed: Condvar,
}

#[derive(Default)]
struct State {
    last_asker: u64,
    /// Who waits for each question that has a thread.
    under_way: BTreeMap<String, BTreeSet<u64>>,
    /// Those who ask, and what they haven't taken yet.
    askers: BTreeMap<u64, Answers>,
}

impl Resolver {
    /// The system's.
    #[must_use]
    pub fn system() -> Self {
        Self::new(|name| Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
    }

    fn new(ask: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        Self { ask: Arc::new(ask), lookups: Arc::default() }
    }

    /// One answer for each name, by `limit` of it at the latest. Waits: not on the loop's thread.
    #[must_use]
    pub fn look_up(&self, names: &BTreeSet<String>, limit: impl Fn(&str) -> Duration) -> Answers {
        let begun = Instant::now();
        let asker = Asker::new(&self.lookups);
        let mut answers = Answers::new();
        let mut state = self.lookups.lock();
        loop {
            answers.append(&mut state.taken(asker.number));
            let now = Instant::now();
            let is_open = |name: &&String| !answers.contains_key(*name) && now < begun + limit(name);
            let mut until = None;
            for name in names.iter().filter(is_open) {
                match self.begin(&mut state, name, asker.number) {
                    Ok(()) => {
                        let end = begun + limit(name);
                        until = Some(until.map_or(end, |until: Instant| until.min(end)));
                    }
                    Err(error) => {
                        let failed = Err(format!("no thread could be started to ask: {error}"));
                        state.told(asker.number, name, failed);
                        until = Some(now);
                    }
                }
            }
            let Some(until) = until else { break };
            let waited = self.lookups.landed.wait_timeout(state, until.saturating_duration_since(now));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        for name in names {
            let is_asked = state.under_way.contains_key(name);
            answers.entry(name.clone()).or_insert_with(|| Err(none_in(limit(name), is_asked)));
        }
        answers
    }

    /// Has somebody wait for the answer, and asks if nobody does; later if too many questions have no answer yet.
    fn begin(&self, state: &mut State, name: &str, asker: u64) -> io::Result<()> {
        if let Some(waiting) = state.under_way.get_mut(name) {
            waiting.insert(asker);
            return Ok(());
        }
        if state.under_way.len() >= AT_ONCE {
            return Ok(());
        }
        let (ask, lookups, asked) = (self.ask.clone(), self.lookups.clone(), name.to_owned());
        thread::Builder::new().name("resolver".to_owned()).spawn(move || {
            // It may be older than the moment in which the daemon drops what it doesn't need, and needs nothing itself.
            let answer = privileges::drop_all().and_then(|()| ask(&asked));
            lookups.lock().land(&asked, answer);
            lookups.landed.notify_all();
        })?;
        state.under_way.insert(name.to_owned(), BTreeSet::from([asker]));
        Ok(())
    }
}

fn none_in(limit: Duration, is_asked: bool) -> String {
    if is_asked {
        format!("no answer within {limit:?}")
    } else {
        format!("not asked for within {limit:?}, as {AT_ONCE} other questions have no answer yet")
    }
}

impl Lookups {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn taken(&mut self, asker: u64) -> Answers {
        self.askers.get_mut(&asker).map(std::mem::take).unwrap_or_default()
    }

    fn told(&mut self, asker: u64, name: &str, answer: Answer) {
        if let Some(answers) = self.askers.get_mut(&asker) {
            answers.insert(name.to_owned(), answer);
        }
    }

    fn land(&mut self, name: &str, answer: io::Result<Vec<IpAddr>>) {
        let answer = answer.map_err(|error| {
            let words = error.to_string();
            words.strip_prefix(PREFIX).unwrap_or(&words).to_owned()
        });
        let answer = answer.map(|addresses| {
            let addresses: BTreeSet<IpAddr> = addresses.into_iter().collect();
            addresses.into_iter().take(MOST_ADDRESSES).collect::<Vec<_>>()
        });
        for asker in self.under_way.remove(name).unwrap_or_default() {
            self.told(asker, name, answer.clone());
        }
    }
}

/// Somebody who asks; forgotten when it is dropped.
struct Asker<'a> {
    lookups: &'a Lookups,
    number: u64,
}

impl<'a> Asker<'a> {
    fn new(lookups: &'a Lookups) -> Self {
        let mut state = lookups.lock();
        state.last_asker += 1;
        let number = state.last_asker;
        state.askers.insert(number, Answers::new());
        Self { lookups, number }
    }
}

impl Drop for Asker<'_> {
    fn drop(&mut self) {
        let mut state = self.lookups.lock();
        state.askers.remove(&self.number);
        for waiting in state.under_way.values_mut() {
            waiting.remove(&self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    const SOON: Duration = Duration::from_millis(50);
    const LATE: Duration = Duration::from_secs(20);

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// Knows all names but those that begin with `hang`: those have no answer before this is dropped.
    fn resolver() -> (Resolver, Arc<AtomicUsize>, mpsc::Sender<()>) {
        let (release, held) = mpsc::channel::<()>();
        let (held, asked) = (Mutex::new(held), Arc::new(AtomicUsize::new(0)));
        let count = asked.clone();
        let resolver = Resolver::new(move |name| {
            count.fetch_add(1, Ordering::SeqCst);
            if name.starts_with("hang") {
                let _ = held.lock().unwrap_or_else(PoisonError::into_inner).recv();
            }
            if name.starts_with("no") {
                return Err(io::Error::other(format!("{PREFIX}Name or service not known")));
            }
            Ok(vec![[10, 0, 2, 12].into(), [10, 0, 2, 11].into(), [10, 0, 2, 12].into()])
        });
        (resolver, asked, release)
    }

    #[test]
    fn an_answer_is_sorted_and_a_failure_is_told_in_the_resolvers_words() {
        let (resolver, ..) = resolver();
        let answers = resolver.look_up(&names(&["db1", "none"]), |_| LATE);
        assert_eq!(answers["db1"], Ok(vec![[10, 0, 2, 11].into(), [10, 0, 2, 12].into()]));
        assert_eq!(answers["none"], Err("Name or service not known".to_owned()));
    }

    #[test]
    fn one_that_hangs_keeps_nobody_longer_than_its_limit_and_is_asked_once() {
        let (resolver, asked, release) = resolver();
        for _ in 0..3 {
            let answers =
                resolver.look_up(&names(&["hang", "db1"]), |name| if name == "db1" { LATE } else { SOON });
            assert!(answers["db1"].is_ok());
            assert_eq!(answers["hang"], Err("no answer within 50ms".to_owned()));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 4);
        assert!(resolver.lookups.lock().askers.is_empty(), "nobody waits any more");
        assert!(resolver.lookups.lock().under_way["hang"].is_empty());
        drop(release);
        assert!(resolver.look_up(&names(&["hang"]), |_| LATE)["hang"].is_ok());
    }

    #[test]
    fn those_that_hang_are_bounded_and_others_wait_for_their_places() {
        let (resolver, asked, release) = resolver();
        let hang: Vec<String> = (0..AT_ONCE).map(|number| format!("hang{number:02}")).collect();
        let hang: BTreeSet<String> = hang.into_iter().collect();
        let _ = resolver.look_up(&hang, |_| SOON);
        let answers = resolver.look_up(&names(&["db1"]), |_| SOON);
        assert!(answers["db1"].as_ref().is_err_and(|why| why.starts_with("not asked for")), "{answers:?}");
        assert_eq!(asked.load(Ordering::SeqCst), AT_ONCE);
        drop(release);
        assert!(resolver.look_up(&names(&["db1"]), |_| LATE)["db1"].is_ok());
        let many: BTreeSet<String> = (0..100).map(|number| format!("db{number}")).collect();
        assert!(resolver.look_up(&many, |_| LATE).values().all(Result::is_ok));
    }
}
