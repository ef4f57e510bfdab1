//! Backends that are given by a host name, while the daemon runs: where they are is asked again and again, beside the loop, and
//! what has changed is taken over as a reload would take it: the old address drains, the new one is somebody new.
//!
//! A name without an answer keeps its last good address, over restarts too; so does one that leads nowhere that a backend can
//! be. Deliberately not here: which of several addresses it is (`config`), when one in use is left (`elsewhere`), and how to ask
//! (`resolver`).

mod elsewhere;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::config::{Backend, Config, Known, LEFT_OUT, Parsed, Surroundings, Unsettled, Why};
use crate::dataplane::layout_version;
use crate::dataplane::maps::Pins;
use crate::dataplane::pins::PinDirectory;
use crate::dataplane::slots::Occupied;
use crate::dataplane::tables::Tables;
use crate::policy::Moment;
use crate::resolver::{Answers, Resolver};
use crate::store::state::Host;

use self::elsewhere::Elsewhere;
use super::accepted::Accepted;
use super::reload::Cause;
use super::steps::Done;
use super::{Daemon, Entry, memory};

/// From one round of questions to the next; long enough for a cache to have forgotten a wrong answer, mostly.
const EVERY: Duration = Duration::from_secs(30);
/// After a configuration was read, or a name had no answer for the first time: most often it has one then.
const AGAIN: Duration = Duration::from_secs(5);
/// For an answer in a round: shorter than a round, and longer than the 5 s after which resolvers ask another server.
const ROUND_LIMIT: Duration = Duration::from_secs(20);
/// For an answer without which there is no start or reload.
const NEEDED_LIMIT: Duration = Duration::from_secs(15);
/// For one without which there is the last good address.
const KNOWN_LIMIT: Duration = Duration::from_secs(3);
/// Rounds without an answer before a person has to know: one packet may be lost.
const PATIENCE: u32 = 2;

/// Names that one sentence holds.
const TOLD: usize = 8;

/// What is known of names.
pub(super) struct Names {
    pub(super) resolver: Resolver,
    next: Moment,
    is_asking: bool,
    /// Backends whose names led elsewhere in the last round that had an answer; by pool and name.
    elsewhere: BTreeMap<(String, String), Elsewhere>,
    /// Names without an answer: for how many rounds, and why.
    silent: BTreeMap<String, (u32, String)>,
    /// Why a backend stays where it was though its name has an answer, or is left out; by pool and backend.
    unusable: BTreeMap<(String, String), String>,
    /// Why what has changed could not be taken over.
    refused: Option<String>,
}

/// What a round has found out.
pub(super) struct Round {
    answers: Answers,
    /// This machine's addresses, or why they aren't known.
    own: Result<BTreeSet<IpAddr>, String>,
}

/// A backend whose name leads elsewhere now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Moved {
    pool: String,
    backend: String,
    host: String,
    /// `None`: nobody knew.
    from: Option<IpAddr>,
    to: IpAddr,
}

impl Names {
    /// `config`: with those that are left out, for which nobody will have to wait to be told.
    pub(super) fn new(resolver: Resolver, config: &Config, now: Moment) -> Self {
        let mut unusable = BTreeMap::new();
        for pool in &config.pools {
            for backend in pool.backends.iter().filter(|backend| !backend.is_settled()) {
                let words = left_out(backend, "has led nowhere yet");
                unusable.insert((pool.name.clone(), backend.name.clone()), words);
            }
        }
        Self {
            resolver,
            next: now + AGAIN,
            is_asking: false,
            elsewhere: BTreeMap::new(),
            silent: BTreeMap::new(),
            unusable,
            refused: None,
        }
    }

    /// When to ask next.
    pub(super) fn next(&self) -> Option<Moment> {
        (!self.is_asking).then_some(self.next)
    }

    /// A configuration was read, and its names asked for; not all may have had an answer.
    pub(super) fn was_read(&mut self, now: Moment) {
        self.next = now + AGAIN;
        // It went where they led then.
        self.elsewhere.clear();
    }

    /// What has changed could not be taken over; it is tried again with the next round.
    pub(super) fn refuse(&mut self, reason: String) {
        self.refused = Some(reason);
    }

    /// What a round has found out; handed back is what is to take the place of what is `wanted`, if anything is. `is_busy`: a
    /// reload is under way; only if it asks by itself, and is accepted, is what was heard forgotten ([`Names::was_read`]).
    fn take(
        &mut self,
        wanted: &Config,
        answers: &Answers,
        own: &BTreeSet<IpAddr>,
        is_busy: bool,
        now: Moment,
    ) -> Option<Config> {
        let mut config = wanted.clone();
        self.hear(&mut config, answers, own, now);
        if config == *wanted {
            self.refused = None;
            return None;
        }
        if is_busy {
            // One at a time: it is as true in the next round.
            self.next = now + AGAIN;
            return None;
        }
        Some(config)
    }

    /// What a round has found out is put into the configuration, as far as it is believed.
    fn hear(&mut self, config: &mut Config, answers: &Answers, own: &BTreeSet<IpAddr>, now: Moment) {
        let mut elsewhere = BTreeMap::new();
        let unsettled = config.settle(answers, own, |pool, backend, to| {
            let key = (pool.to_owned(), backend.name.clone());
            let seen = Elsewhere::seen(self.elsewhere.get(&key), backend.address, to);
            seen.tell(pool, &backend.name);
            elsewhere.insert(key, seen);
            seen.is_believed()
        });
        for Unsettled { pool, backend, why } in &unsettled {
            let pool = &config.pools[*pool];
            let key = (pool.name.clone(), pool.backends[*backend].name.clone());
            // Silence says nothing for or against it.
            if let (Why::NoAnswer(_), Some(seen)) = (why, self.elsewhere.get(&key)) {
                elsewhere.insert(key, *seen);
            }
        }
        self.elsewhere = elsewhere;
        self.judge(&unsettled, config, now);
    }

    /// What a round has left open.
    fn judge(&mut self, unsettled: &[Unsettled], config: &Config, now: Moment) {
        let mut silent = BTreeMap::new();
        self.unusable.clear();
        for Unsettled { pool, backend, why } in unsettled {
            let pool = &config.pools[*pool];
            let backend = &pool.backends[*backend];
            let host = backend.host.clone().unwrap_or_default();
            match why {
                why if !backend.is_settled() => {
                    let words = left_out(backend, &why.to_string());
                    self.unusable.insert((pool.name.clone(), backend.name.clone()), words);
                }
                Why::NoAnswer(why) => {
                    let rounds = self.silent.get(&host).map_or(0, |(rounds, _)| *rounds);
                    silent.insert(host, (rounds.saturating_add(1), why.clone()));
                }
                Why::Unusable(_) => {
                    let words = format!("{}: {host} {why}: it stays at {}", backend.name, backend.address);
                    self.unusable.insert((pool.name.clone(), backend.name.clone()), words);
                }
            }
        }
        let is_new = silent.values().any(|(rounds, _)| *rounds == 1);
        self.silent = silent;
        // Asked again at once, a cache would only repeat itself.
        self.next = now + if is_new && self.elsewhere.is_empty() { AGAIN } else { EVERY };
    }

    /// What a person has to know, by a name for each trouble.
    pub(super) fn troubles(&self) -> impl Iterator<Item = (String, String)> {
        let silent = self.silent.iter().filter(|(_, (rounds, _))| *rounds >= PATIENCE);
        let silent: Vec<String> = silent.map(|(host, (_, why))| format!("{host} ({why})")).collect();
        let silent = (!silent.is_empty()).then(|| {
            let more = silent.len().saturating_sub(TOLD);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let words = format!(
                "host names can't be resolved: {}{more}; their backends stay at the last good addresses, and they are asked \
                 for again every {EVERY:?}",
                silent[..silent.len().min(TOLD)].join(", ")
            );
            ("host names".to_owned(), words)
        });
        let refused = self.refused.iter().map(|reason| {
            let words = format!("new addresses of backends can't be taken over: {reason}; it is tried again");
            ("addresses".to_owned(), words)
        });
        let unusable = self.unusable.iter().map(|((pool, backend), words)| {
            (format!("host name of {backend} of {pool}"), format!("pool {pool}: {words}"))
        });
        silent.into_iter().chain(refused).chain(unusable)
    }
}

/// Why a backend isn't there.
fn left_out(backend: &Backend, why: &str) -> String {
    let host = backend.host.as_deref().unwrap_or_default();
    format!("{}: {host} {why}: it {LEFT_OUT}, and is asked for every {EVERY:?}", backend.name)
}

/// Asks for what a configuration names before it is taken; `known`: last good addresses. Waits.
pub(super) fn ask(resolver: &Resolver, hosts: &BTreeSet<String>, known: &Known) -> Answers {
    resolver.look_up(hosts, |host| if known.contains_key(host) { KNOWN_LIMIT } else { NEEDED_LIMIT })
}

/// What a start would know of the names of a configuration, from what an earlier life has left in these directories.
pub(crate) fn last_good(parsed: Option<&Parsed>, state_dir: &Path, pin_dir: &Path) -> Known {
    let hosts = memory::earlier(state_dir).map(|state| state.hosts).unwrap_or_default();
    remembered(parsed, &hosts, pin_dir)
}

/// What an earlier life knew of the names of a configuration: by what it remembered (`hosts`), or else by its maps.
pub(super) fn remembered(parsed: Option<&Parsed>, hosts: &[Host], pin_dir: &Path) -> Known {
    let mut known = known(hosts);
    let Some(parsed) = parsed.filter(|parsed| parsed.hosts().iter().any(|host| !known.contains_key(host)))
    else {
        return known;
    };
    let Some(occupied) = pinned(pin_dir) else { return known };
    for (pool, backend, host) in parsed.named() {
        if let Some(place) = place(&occupied, pool, backend) {
            known.entry(host.to_owned()).or_insert(vec![place]);
        }
    }
    known
}

/// Where a backend is by the maps. They may know two places, while one is left: then it is where new flows go, if they go to it.
fn place(occupied: &Occupied, pool: &str, backend: &str) -> Option<IpAddr> {
    let is_it = |(_, (slot, name, _)): &(&u16, &(u16, String, IpAddr))| {
        name == backend && occupied.pools.get(slot).is_some_and(|name| name == pool)
    };
    let places: Vec<_> = occupied.backends.iter().filter(is_it).collect();
    let place = match places[..] {
        [one] => Some(one),
        _ => places.into_iter().find(|(slot, _)| occupied.active.contains(slot)),
    };
    place.map(|(_, (.., address))| *address)
}

/// Who is in the maps that a daemon would take over.
fn pinned(pin_dir: &Path) -> Option<Occupied> {
    PinDirectory::could_be_adopted(pin_dir).then_some(())?;
    let pins = pin_dir.join(layout_version());
    Tables::take(&mut Pins(&pins)).and_then(|tables| tables.occupied()).ok()
}

/// What is to be remembered.
pub(super) fn written(known: Known) -> Vec<Host> {
    known.into_iter().map(|(name, addresses)| Host { name, addresses }).collect()
}

/// What was.
pub(super) fn known(hosts: &[Host]) -> Known {
    hosts.iter().map(|Host { name, addresses }| (name.clone(), addresses.clone())).collect()
}

/// Backends whose names lead elsewhere now.
pub(super) fn moved(before: &Config, now: &Config) -> Vec<Moved> {
    let mut all = Vec::new();
    for pool in &now.pools {
        let Some(earlier) = before.pools.iter().find(|known| known.name == pool.name) else { continue };
        for backend in &pool.backends {
            let is_it = |known: &&Backend| {
                known.name == backend.name && known.host == backend.host && known.address != backend.address
            };
            let Some(host) = backend.host.clone() else { continue };
            if let Some(was) = earlier.backends.iter().find(is_it) {
                all.push(Moved {
                    pool: pool.name.clone(),
                    backend: backend.name.clone(),
                    host,
                    from: was.is_settled().then_some(was.address),
                    to: backend.address,
                });
            }
        }
    }
    all
}

impl Daemon {
    /// It is time to ask.
    pub(super) fn ask_names(&mut self) {
        let (hosts, now) = (self.reloads.wanted().hosts(), self.clock.now());
        self.names.next = now + EVERY;
        if hosts.is_empty() {
            (self.names.silent, self.names.unusable) = (BTreeMap::new(), BTreeMap::new());
            self.names.refused = None;
            return;
        }
        self.names.is_asking = true;
        let (resolver, done) = (self.names.resolver.clone(), self.done.0.clone());
        spawn_blocking(move || {
            let answers = resolver.look_up(&hosts, |_| ROUND_LIMIT);
            let own =
                Surroundings::read().map(|machine| machine.addresses).map_err(|error| error.to_string());
            // The loop has ended: nobody wants to know.
            let _ = done.blocking_send(Done::Asked(Box::new(Round { answers, own })));
        });
    }

    /// A round of questions has ended.
    pub(super) fn asked(&mut self, round: Round) {
        self.names.is_asking = false;
        let Round { answers, own } = round;
        let own = match own {
            Ok(own) => own,
            Err(problem) => {
                warn!(
                    event = "address",
                    problem, "host names were asked for, and can't be held against this machine"
                );
                return;
            }
        };
        let (wanted, is_busy) = (self.reloads.wanted(), self.reloads.is_under_way());
        if let Some(config) = self.names.take(wanted, &answers, &own, is_busy, self.clock.now()) {
            self.take_addresses(config);
        }
    }

    /// For those of whom nobody has heard since: where they are now.
    pub(super) fn with_addresses_of_now(&self, accepted: &Accepted) -> Accepted {
        let known = self.reloads.wanted().known();
        let answers = known.into_iter().map(|(host, addresses)| (host, Ok(addresses))).collect();
        let mut accepted = accepted.clone();
        // Whose name is not among the present ones stays where it was.
        accepted.config.settle(&answers, &BTreeSet::new(), |_, _, _| true);
        accepted
    }

    /// Backends are elsewhere now: for the log and the journal.
    pub(super) fn tell_moved(&mut self, moved: &[Moved], cause: &Cause) {
        if matches!(cause, Cause::Resolved) {
            self.names.refused = None;
        }
        for Moved { pool, backend, host, from, to } in moved {
            let from = from.as_ref().map(ToString::to_string);
            let was = from.as_deref().unwrap_or("-");
            info!(event = "address", pool, backend, host, from = was, %to, "a new backend; one that was elsewhere drains");
            self.note(Entry::address(pool, backend, (from, to.to_string()), host));
        }
    }
}
