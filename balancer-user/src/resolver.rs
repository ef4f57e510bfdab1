//! Asks the system's resolver where hosts are: `/etc/hosts`, DNS, and whatever else `nsswitch.conf` names.
//!
//! By `getaddrinfo`, so that a name means here what it means to everything else on the gateway. That may take as long as it
//! likes, or never end, so each question has a thread of its own: one for each name and a few over all, whoever asks. Names
//! take turns: whoever was asked for last comes last, and a question that takes long makes place for another one, as long as
//! there are not too many of these. Who asks waits for a bounded time; an answer that comes later is nobody's. Deliberately
//! not here: which address is used and what can't be one (`config::hosts`), and when to ask (`daemon::names`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::privileges;

/// Questions that were just asked: enough for a round of hundreds of names in a moment.
const AT_ONCE: usize = 16;
/// All that have no answer yet, a thread each: little memory when all hang.
const MOST: usize = 64;
/// After so long a question makes place for another one: most answers take some milliseconds.
const LONG: Duration = Duration::from_secs(1);
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
    /// Questions that have a thread, by name.
    under_way: BTreeMap<String, Question>,
    /// The name that was asked for last: the next in turn are those behind it.
    last: String,
    /// Those who ask, and what they haven't taken yet.
    askers: BTreeMap<u64, Answers>,
}

/// A question without an answer yet.
struct Question {
    begun: Instant,
    /// Who waits for it.
    waiting: BTreeSet<u64>,
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
            let mut until: Option<Instant> = None;
            for name in state.in_turn(names).into_iter().filter(is_open) {
                let end = begun + limit(name);
                let next = match self.begin(&mut state, name, asker.number, now) {
                    Ok(()) => end,
                    Err(NotBegun::NoPlace(more)) => more.map_or(end, |more| more.min(end)),
                    Err(NotBegun::NoThread(error)) => {
                        let failed = Err(format!("no thread could be started to ask: {error}"));
                        state.told(asker.number, name, failed);
                        now
                    }
                };
                until = Some(until.map_or(next, |until| until.min(next)));
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

    /// Has somebody wait for the answer, and asks if nobody does.
    fn begin(&self, state: &mut State, name: &str, asker: u64, now: Instant) -> Result<(), NotBegun> {
        if let Some(question) = state.under_way.get_mut(name) {
            question.waiting.insert(asker);
            return Ok(());
        }
        state.has_place(now).map_err(NotBegun::NoPlace)?;
        let (ask, lookups, asked) = (self.ask.clone(), self.lookups.clone(), name.to_owned());
        let begun = thread::Builder::new().name("resolver".to_owned()).spawn(move || {
            // It may be older than the moment in which the daemon drops what it doesn't need, and needs nothing itself.
            let answer = privileges::drop_all().and_then(|()| ask(&asked));
            lookups.lock().land(&asked, answer);
            lookups.landed.notify_all();
        });
        begun.map_err(NotBegun::NoThread)?;
        name.clone_into(&mut state.last);
        state.under_way.insert(name.to_owned(), Question { begun: now, waiting: BTreeSet::from([asker]) });
        Ok(())
    }
}

/// Why nobody was asked.
enum NotBegun {
    /// Too many questions have no answer yet; if some of them are new, until then.
    NoPlace(Option<Instant>),
    NoThread(io::Error),
}

fn none_in(limit: Duration, is_asked: bool) -> String {
    if is_asked {
        format!("no answer within {limit:?}")
    } else {
        format!("not asked for within {limit:?}, as too many other questions have no answer yet")
    }
}

impl Lookups {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Names, beginning with those behind the one that was asked for last.
    fn in_turn<'n>(&self, names: &'n BTreeSet<String>) -> Vec<&'n String> {
        let (behind, before): (Vec<_>, Vec<_>) = names.iter().partition(|name| **name > self.last);
        [behind, before].concat()
    }

    /// Whether one more may be asked; if not, since some have only just been asked, until when.
    fn has_place(&self, now: Instant) -> Result<(), Option<Instant>> {
        let new = self.under_way.values().map(|question| question.begun + LONG).filter(|end| *end > now);
        if self.under_way.len() >= MOST {
            Err(None)
        } else if new.clone().count() >= AT_ONCE {
            Err(new.min())
        } else {
            Ok(())
        }
    }

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
        let waiting = self.under_way.remove(name).map(|question| question.waiting);
        for asker in waiting.unwrap_or_default() {
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
        for question in state.under_way.values_mut() {
            question.waiting.remove(&self.number);
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
        assert!(resolver.lookups.lock().under_way["hang"].waiting.is_empty());
        drop(release);
        assert!(resolver.look_up(&names(&["hang"]), |_| LATE)["hang"].is_ok());
    }

    fn hanging(number: usize) -> BTreeSet<String> {
        (0..number).map(|number| format!("hang{number:02}")).collect()
    }

    #[test]
    fn as_many_as_have_places_hang_and_those_behind_them_are_asked_for_all_the_same() {
        let (resolver, asked, _release) = resolver();
        let mut all = hanging(AT_ONCE);
        // Behind them, and in turn after them.
        all.insert("last".to_owned());
        for _ in 0..2 {
            let answers = resolver.look_up(&all, |name| if name == "last" { LATE } else { SOON });
            assert!(answers["last"].is_ok(), "{answers:?}");
        }
        assert_eq!(asked.load(Ordering::SeqCst), AT_ONCE + 2);
    }

    #[test]
    fn those_that_hang_are_bounded_and_others_wait_for_their_places() {
        let (resolver, asked, release) = resolver();
        let rounds = u32::try_from(MOST / AT_ONCE).unwrap();
        let _ = resolver.look_up(&hanging(2 * MOST), |_| LONG * rounds);
        assert_eq!(asked.load(Ordering::SeqCst), MOST);
        let answers = resolver.look_up(&names(&["db1"]), |_| SOON);
        assert!(answers["db1"].as_ref().is_err_and(|why| why.starts_with("not asked for")), "{answers:?}");
        assert_eq!(asked.load(Ordering::SeqCst), MOST);
        drop(release);
        assert!(resolver.look_up(&names(&["db1"]), |_| LATE)["db1"].is_ok());
        let many: BTreeSet<String> = (0..100).map(|number| format!("db{number}")).collect();
        assert!(resolver.look_up(&many, |_| LATE).values().all(Result::is_ok));
    }

    #[test]
    fn each_name_has_its_turn_however_early_others_are_in_the_alphabet() {
        let (resolver, asked, release) = resolver();
        let all = hanging(2 * AT_ONCE + 1);
        for turn in 1..=2 {
            let _ = resolver.look_up(&all, |_| SOON);
            let deadline = Instant::now() + LATE;
            while asked.load(Ordering::SeqCst) < turn * AT_ONCE {
                assert!(Instant::now() < deadline, "only {} were asked for", asked.load(Ordering::SeqCst));
                thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(asked.load(Ordering::SeqCst), turn * AT_ONCE);
            let first = format!("hang{:02}", (turn - 1) * AT_ONCE);
            assert!(resolver.lookups.lock().under_way.contains_key(&first), "turn {turn}");
            (0..AT_ONCE).for_each(|_| release.send(()).unwrap());
            let deadline = Instant::now() + LATE;
            while !resolver.lookups.lock().under_way.is_empty() {
                assert!(Instant::now() < deadline, "they hang on");
                thread::sleep(Duration::from_millis(5));
            }
        }
        assert_eq!(resolver.lookups.lock().in_turn(&all)[..2], ["hang32", "hang00"]);
    }
}
