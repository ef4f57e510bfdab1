//! The configuration once more, while everything goes on: asked for by `reload`, by SIGHUP, by a confirmation that did not
//! come, by a pool that could not take its part of it before, and by host names that lead elsewhere now.
//!
//! One at a time. What takes long (files, names of programs, host names, a walk over the flows, ways to new backends) is prepared
//! beside the loop; then it is carried out at once, or refused and nothing is another way. Deliberately not here: what differs
//! (`difference`), what waits for a confirmation (`confirmation`), what is prepared (`prepare`), what can be carried out now
//! (`kin`) and how (`replace`), and what is still to come (`pending`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::config::{self, Config};
use crate::control::protocol::{ReloadCommand, Reloaded, Timestamp};
use crate::control::server::NotReloaded;
use crate::dataplane::slots::Busy;
use crate::policy::{Moment, PoolIndex};
use crate::store::state;

use super::accepted::Accepted;
use super::choice::{TakenBack, Why};
use super::confirmation::Confirmation;
use super::difference::difference;
use super::first_ways::FirstWay;
use super::kin::{self, Delay, Standing, is_same_backend};
use super::names::moved;
use super::prepare::{Listeners, Member, Places, Prepared, Source, prepare};
use super::replace::Probers;
use super::steps::Done;
use super::{Daemon, Entry, Options, confirmation};

/// Reloads that wait for the one that is under way.
const WAITING: usize = 16;
/// After so long a configuration that could not be taken back is tried to be once more.
const ROLL_BACK_AGAIN: Duration = Duration::from_secs(10);
/// More addresses of backends that are gone than there can be backends.
const MOST_GONE: usize = 1 << 16;
/// For the disk to have it that a confirmation is waited for, or has come.
const DISK_LIMIT: Duration = Duration::from_secs(5);
/// Differences that are logged, a line each.
const LOGGED: usize = 100;

/// The way back to whoever asked.
type Reply = oneshot::Sender<Result<Reloaded, NotReloaded>>;

/// Who wants it.
pub(super) enum Cause {
    /// The verb, typed by this user.
    Verb(ReloadCommand, u32, Reply),
    Signal,
    /// Nobody confirmed the last one.
    Expired,
    /// What had to wait for a pool may be carried out now.
    Delayed,
    /// Host names of backends lead elsewhere now; the rest is the same.
    Resolved,
}

impl Cause {
    /// Whether it brings a configuration that somebody wrote.
    const fn is_new(&self) -> bool {
        match self {
            Self::Verb(..) | Self::Signal | Self::Expired => true,
            Self::Delayed | Self::Resolved => false,
        }
    }
}

/// All that is remembered of reloads.
pub(super) struct Reloads {
    path: PathBuf,
    pin_dir: PathBuf,
    generation: u64,
    /// What was accepted last; not all of it may be carried out yet.
    wanted: Accepted,
    delays: Vec<Delay>,
    is_under_way: bool,
    is_rolling_back: bool,
    waiting: VecDeque<Cause>,
    pub(super) confirmation: Option<Confirmation>,
    /// The file's, by the start or when its time was over.
    pub(super) taken_back: Option<TakenBack>,
    /// Bound for what is being carried out.
    pub(super) listeners: Listeners,
    /// Addresses of backends of pools that are gone.
    gone: BTreeSet<IpAddr>,
    /// Not all of what runs is in the kernel: it is written once more, also if it is the same.
    pub(super) is_behind: bool,
}

impl Reloads {
    /// `wanted`: what the daemon starts with.
    pub(super) fn new(options: &Options, wanted: Accepted) -> Self {
        Self {
            path: options.config.clone(),
            pin_dir: options.pin_dir.clone(),
            generation: 1,
            wanted,
            delays: Vec::new(),
            is_under_way: false,
            is_rolling_back: false,
            waiting: VecDeque::new(),
            confirmation: None,
            taken_back: None,
            listeners: Listeners::default(),
            gone: BTreeSet::new(),
            is_behind: false,
        }
    }

    /// Pools go: of one that comes back, or has another name now, it is not known any more who has its role.
    pub(super) fn note_gone(&mut self, before: &Config, now: &Config) {
        let gone = before.pools.iter().filter(|pool| now.pools.iter().all(|known| known.name != pool.name));
        let gone = gone.flat_map(|pool| &pool.backends).map(|backend| backend.address);
        let room = MOST_GONE.saturating_sub(self.gone.len());
        self.gone.extend(gone.take(room));
    }

    pub(super) const fn gone(&self) -> &BTreeSet<IpAddr> {
        &self.gone
    }

    /// What was accepted last.
    pub(super) const fn wanted(&self) -> &Config {
        &self.wanted.config
    }

    /// Why not all of it is carried out yet.
    pub(super) fn delays(&self) -> &[Delay] {
        &self.delays
    }

    /// Until when a confirmation is waited for.
    pub(super) fn confirmed_until(&self) -> Option<Moment> {
        self.confirmation.as_ref().map(|confirmation| confirmation.until)
    }

    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }

    /// The text of what was accepted last.
    pub(super) const fn text(&self) -> &Arc<str> {
        &self.wanted.text
    }

    /// Whether the last one is being taken back.
    pub(super) const fn is_rolling_back(&self) -> bool {
        self.is_rolling_back
    }

    /// Whether one is being prepared.
    pub(super) const fn is_under_way(&self) -> bool {
        self.is_under_way
    }

    /// When the last one is taken back if nobody confirms it.
    pub(super) fn expiry(&self) -> Option<Moment> {
        self.confirmed_until().filter(|_| !self.is_under_way)
    }
}

impl Daemon {
    /// Somebody wants the configuration read once more, or what was read confirmed.
    pub(super) fn reload(&mut self, cause: Cause) {
        if let Cause::Verb(ReloadCommand { confirmed: true, .. }, uid, reply) = cause {
            match self.confirm(uid) {
                Ok(confirmed) => self.reply(reply, confirmed),
                // Who asked may be gone.
                Err(refused) => drop(reply.send(Err(refused))),
            }
            return;
        }
        if !self.reloads.is_under_way {
            self.begin(cause);
        } else if self.reloads.waiting.len() < WAITING {
            self.reloads.waiting.push_back(cause);
        } else {
            self.refuse(cause, NotReloaded::Refused("too many reloads wait for another one".to_owned()));
        }
    }

    fn begin(&mut self, cause: Cause) {
        if let Err(reason) = self.admit(&cause) {
            self.refuse(cause, NotReloaded::Refused(reason));
            return;
        }
        let source = match &cause {
            Cause::Verb(..) | Cause::Signal => Source::File,
            // It stays until it is taken back.
            Cause::Expired => {
                let again = self.clock.now() + ROLL_BACK_AGAIN;
                let Some(before) = self.before() else { return };
                self.reloads.confirmation.iter_mut().for_each(|confirmation| confirmation.until = again);
                before
            }
            Cause::Delayed | Cause::Resolved => Source::Known(Box::new(self.reloads.wanted.clone())),
        };
        self.prepare(cause, source);
    }

    /// Host names lead elsewhere now. None is under way.
    pub(super) fn take_addresses(&mut self, config: Config) {
        let accepted = Accepted { config, ..self.reloads.wanted.clone() };
        self.prepare(Cause::Resolved, Source::Known(Box::new(accepted)));
    }

    /// Finds out what has to be known before.
    fn prepare(&mut self, cause: Cause, source: Source) {
        let places = Places {
            path: self.reloads.path.clone(),
            pin_dir: self.reloads.pin_dir.clone(),
            pins: self.parts.pins.versioned().to_owned(),
            resolver: self.names.resolver.clone(),
            hosts: self.reloads.known(),
            interfaces: self.parts.config.gateway.interfaces.clone(),
            redirects: self.redirects.addresses().collect(),
            http: self.dashboard.address(),
        };
        let led_to = self.parts.config.pools.iter().flat_map(|pool| {
            let name = |backend: &config::Backend| (pool.name.clone(), backend.name.clone(), backend.address);
            pool.backends.iter().map(name)
        });
        let led_to: BTreeSet<Member> = led_to.collect();
        let (flows, done) = (self.flows.clone(), self.done.0.clone());
        self.reloads.is_under_way = true;
        self.reloads.is_rolling_back = matches!(cause, Cause::Expired);
        tokio::spawn(async move {
            let prepared = prepare(cause, source, places, led_to, flows).await;
            // The loop has ended: nobody reloads any more.
            let _ = done.send(Done::Prepared(Box::new(prepared))).await;
        });
    }

    /// What can be refused without a look at the file.
    fn admit(&self, cause: &Cause) -> Result<(), String> {
        let confirm = match cause {
            Cause::Verb(asked, ..) => asked.confirm(),
            Cause::Signal => None,
            Cause::Expired | Cause::Delayed | Cause::Resolved => return Ok(()),
        };
        if self.reloads.path == Path::new("-") {
            return Err("the configuration came from stdin, which can't be read once more: start the daemon with a file \
                        to be able to reload"
                .to_owned());
        }
        if confirm.is_some_and(|within| within.is_zero() || within > confirmation::LONGEST) {
            return Err(format!(
                "the time for a confirmation is more than nothing, and {:?} at the most",
                confirmation::LONGEST
            ));
        }
        match &self.reloads.confirmation {
            Some(confirmation) if confirm.is_none() => Err(format!(
                "the last reload waits for its confirmation until {}: `balancer reload --confirmed` keeps it, `balancer reload \
                 --confirm D` reads the file once more and begins a new time",
                self.written(confirmation.until)
            )),
            _ => Ok(()),
        }
    }

    /// Everything is known that has to be: it is carried out, or refused.
    pub(super) fn prepared(&mut self, prepared: Prepared) {
        let Prepared { cause, wanted, busy, ways, listeners } = prepared;
        self.reloads.listeners = listeners;
        // What the policy has said is to be said of what was there.
        self.carry_out();
        match wanted {
            Ok(accepted) => self.take_over(cause, accepted, &busy, &ways),
            Err(problem) => self.refuse(cause, problem),
        }
        self.carry_out();
        self.reloads.listeners = Listeners::default();
        (self.reloads.is_under_way, self.reloads.is_rolling_back) = (false, false);
        // One that can be refused at once makes way for the next.
        while !self.reloads.is_under_way
            && let Some(next) = self.reloads.waiting.pop_front()
        {
            self.begin(next);
        }
    }

    fn take_over(
        &mut self,
        cause: Cause,
        accepted: Accepted,
        busy: &Busy,
        ways: &BTreeMap<IpAddr, FirstWay>,
    ) {
        let changes = difference(&self.reloads.wanted.config, &accepted.config);
        let moved = moved(&self.reloads.wanted.config, &accepted.config);
        let before = std::mem::replace(&mut self.reloads.wanted, accepted);
        let is_new = cause.is_new();
        let mut told = false;
        // The second time for who has handed over the role meanwhile.
        for _ in 0..2 {
            let carried_out = self.carry_out_what_can_be(busy, ways, |daemon| {
                if std::mem::replace(&mut told, true) {
                    return;
                }
                if is_new {
                    daemon.reloads.generation += 1;
                    daemon.tell_reload(&cause, &changes);
                }
                daemon.tell_moved(&moved, &cause);
                let bound = daemon.reloads.listeners.http.take();
                daemon.show(bound);
            });
            if let Err(reason) = carried_out {
                if told {
                    // It is accepted, and most of it runs.
                    error!(event = "reload", reason, "not all of it could be carried out; reload once more");
                    self.reloads.is_behind = true;
                    break;
                }
                self.reloads.wanted = before;
                self.refuse(cause, NotReloaded::Refused(reason));
                return;
            }
            // What it says of who is where is said before anybody stands elsewhere again.
            self.carry_out();
            if !self.reloads.delays.iter().any(|delay| self.is_over(delay)) {
                break;
            }
        }
        for warning in self.reloads.wanted.config.warnings.iter().filter(|_| is_new) {
            warn!(event = "configuration", line = warning.line, "{}", warning.message);
        }
        if is_new {
            self.names.was_read(self.clock.now());
            self.reloads.taken_back = None;
        }
        if matches!(cause, Cause::Expired) {
            self.reloads.confirmation = None;
            // The file still holds it: the next start leaves it there.
            if before.text != self.reloads.wanted.text {
                let of = state::digest(before.text.as_bytes());
                self.reloads.taken_back = Some(TakenBack { of, why: Why::Late });
            }
        }
        if let Cause::Verb(asked, ..) = &cause
            && let Some(within) = asked.confirm()
        {
            self.await_confirmation(within, before);
        }
        self.remember();
        if let Cause::Verb(_, _, reply) = cause {
            self.reply(reply, self.reloaded(changes));
        }
    }

    /// Whoever relies on its being taken back, or on its staying, may rely on that over a power cut, too, unless it says that a
    /// restart may not know of it.
    fn reply(&self, reply: Reply, mut reloaded: Reloaded) {
        let saved = self.store.saved(DISK_LIMIT);
        tokio::spawn(async move {
            if let Err(problem) = saved.await {
                reloaded.message.push_str(&format!("; a restart may not know of it: {problem}"));
            }
            let _ = reply.send(Ok(reloaded));
        });
    }

    /// Carries out what can be of what is wanted, or nothing. `accepted` is called once nothing can fail any more.
    fn carry_out_what_can_be(
        &mut self,
        busy: &Busy,
        ways: &BTreeMap<IpAddr, FirstWay>,
        accepted: impl FnOnce(&mut Self),
    ) -> Result<(), String> {
        let standing = |pool: PoolIndex| {
            if self.policy.is_busy(pool) {
                Standing::Busy
            } else {
                Standing::Free(self.policy.snapshot(pool, self.clock.now()).active)
            }
        };
        let wanted = &self.reloads.wanted;
        let (config, delays) = kin::feasible(&wanted.config, &self.parts.config, standing)?;
        let probers = config.pools.iter().map(|pool| {
            let is_left_alone = delays.contains(&Delay::Busy(pool.name.clone()));
            let (of, probers) = if is_left_alone {
                (&self.parts.config, &self.parts.probers)
            } else {
                (&wanted.config, &wanted.probers)
            };
            let at = of.pools.iter().position(|known| known.name == pool.name);
            at.map(|at| probers[at].clone()).unwrap_or_default()
        });
        let probers: Probers = probers.collect();
        let is_same = config.gateway == self.parts.config.gateway && config.pools == self.parts.config.pools;
        if is_same && !std::mem::take(&mut self.reloads.is_behind) {
            // Files that the configuration names may be others all the same.
            self.parts.probers = probers;
            self.reloads.delays = delays;
            accepted(self);
            return Ok(());
        }
        let written = self.write(config, probers, busy, ways)?;
        self.reloads.delays = delays;
        accepted(self);
        self.put_in_place(written);
        Ok(())
    }

    fn tell_reload(&mut self, cause: &Cause, changes: &[String]) {
        let generation = self.reloads.generation;
        let said = if changes.is_empty() { "nothing changed".to_owned() } else { changes.join("; ") };
        for change in changes.iter().take(LOGGED) {
            info!(event = "reload", generation, change);
        }
        info!(event = "reload", generation, changes = changes.len(), by = by(cause), "accepted");
        let reason = if matches!(cause, Cause::Expired) { "rolled_back" } else { "accepted" };
        let evidence = format!("generation {generation}, {}: {said}", by(cause));
        let entry = Entry::reload(reason, evidence);
        if matches!(cause, Cause::Expired) {
            warn!(
                event = "reload",
                generation,
                "the configuration before is back, as nobody confirmed the new one; the file still holds that one"
            );
            self.alarm(entry);
        } else {
            self.note(entry);
        }
    }

    /// Nothing is another way.
    fn refuse(&mut self, cause: Cause, problem: NotReloaded) {
        let (NotReloaded::Invalid(words) | NotReloaded::Refused(words)) = &problem;
        let by = by(&cause);
        for line in words.lines().take(LOGGED) {
            error!(event = "reload", by, "{line}");
        }
        error!(event = "reload", by, "refused: everything stays as it is");
        let entry = Entry::reload("refused", format!("{by}: {words}"));
        match cause {
            Cause::Verb(_, _, reply) => {
                self.note(entry);
                let _ = reply.send(Err(problem));
            }
            Cause::Expired => {
                let confirmation = self.reloads.confirmation.as_mut();
                // It is tried again and again, and told once.
                if confirmation
                    .is_none_or(|confirmation| !std::mem::replace(&mut confirmation.has_failed, true))
                {
                    self.alarm(entry);
                }
            }
            // Nobody reads an answer.
            Cause::Signal => self.alarm(entry),
            Cause::Delayed => {
                // Not again and again: the next reload is the operator's.
                self.reloads.delays.clear();
                self.alarm(entry);
            }
            // A trouble that is told when it comes.
            Cause::Resolved => self.names.refuse(words.clone()),
        }
    }

    /// The time for a confirmation is over.
    pub(super) fn expire(&mut self) {
        self.reload(Cause::Expired);
    }

    /// A pool may be free by now for what it could not take before.
    pub(super) fn catch_up(&mut self) {
        if !self.reloads.is_under_way && self.reloads.delays.iter().any(|delay| self.is_over(delay)) {
            self.begin(Cause::Delayed);
        }
    }

    fn is_over(&self, delay: &Delay) -> bool {
        let at = |name: &String| self.parts.config.pools.iter().position(|pool| pool.name == *name);
        match delay {
            Delay::Busy(pool) => at(pool).is_none_or(|pool| !self.policy.is_busy(PoolIndex(pool))),
            Delay::HandsOver { pool, backend } => at(pool).is_none_or(|pool| {
                let active = self.policy.snapshot(PoolIndex(pool), self.clock.now()).active;
                let active = active.map(|active| &self.parts.config.pools[pool].backends[active.0]);
                !self.policy.is_busy(PoolIndex(pool))
                    && active.is_none_or(|active| !is_same_backend(active, backend))
            }),
        }
    }

    pub(super) fn reloaded(&self, changes: Vec<String>) -> Reloaded {
        let generation = self.reloads.generation;
        Reloaded {
            config_generation: generation,
            message: format!("configuration generation {generation} is accepted"),
            changes,
            pending: self.pending(),
            confirm_until: self.reloads.confirmed_until().map(|until| self.written(until)),
        }
    }

    /// As people write it.
    pub(super) fn written(&self, moment: Moment) -> Timestamp {
        self.clock.wall(moment).into()
    }
}

fn by(cause: &Cause) -> String {
    match cause {
        Cause::Verb(asked, uid, _) => format!("`{}` by uid {uid}", asked.typed()),
        Cause::Signal => "SIGHUP".to_owned(),
        Cause::Expired => "the last reload was not confirmed in time".to_owned(),
        Cause::Delayed => "what had to wait before".to_owned(),
        Cause::Resolved => "host names that lead elsewhere now".to_owned(),
    }
}
