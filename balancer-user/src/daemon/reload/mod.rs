//! The configuration once more, while everything goes on: asked for by `reload`, by SIGHUP, by a confirmation that did not
//! come, by a pool that could not take its part of it before, and by host names that lead elsewhere now.
//!
//! One at a time. What takes long (files, names of programs, host names, a walk over the flows, ways to new backends) is prepared
//! beside the loop; then it is carried out at once, or refused and nothing is another way. Deliberately not here: how it is taken
//! over (`taking`) and told (`told`), what differs (`difference`), what waits for a confirmation (`confirmation`), what is prepared
//! (`prepare`), what can be carried out now (`kin`) and how (`replace`), and what is still to come (`pending`).

mod taking;
mod told;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::config::{self, Config};
use crate::control::protocol::{ReloadCommand, Reloaded};
use crate::control::server::NotReloaded;
use crate::policy::{BackendIndex, Moment, PoolIndex};

use super::accepted::Accepted;
use super::choice::TakenBack;
use super::confirmation::Confirmation;
use super::kin::{Delay, is_same_backend};
use super::prepare::{Listeners, Member, Places, Source, prepare};
use super::steps::Done;
use super::{Daemon, Options, confirmation};

/// Reloads that wait for the one that is under way.
const WAITING: usize = 16;
/// After so long a configuration that could not be taken back is tried to be once more.
pub(super) const ROLL_BACK_AGAIN: Duration = Duration::from_secs(10);
/// More addresses of backends that are gone than there can be backends.
const MOST_GONE: usize = 1 << 16;

/// The way back to whoever asked.
type Reply = oneshot::Sender<Result<Reloaded, NotReloaded>>;

/// Who wants it.
pub(super) enum Cause {
    /// The verb, typed by this user.
    Verb(ReloadCommand, u32, Reply),
    /// A signal, or the verb of who doesn't wait for it: by whom.
    Unwaited(String),
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
            Self::Verb(..) | Self::Unwaited(_) | Self::Expired => true,
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
    /// The file's, by a start or when its time was over.
    pub(super) taken_back: Option<TakenBack>,
    /// Bound for what is being carried out.
    pub(super) listeners: Listeners,
    /// Addresses of backends of pools that are gone.
    gone: BTreeSet<IpAddr>,
    /// By pool: who had a role that it is not known any more who has.
    bereft: BTreeMap<String, (String, IpAddr)>,
    /// Not all of what runs is in the kernel: it is written once more, also if it is the same.
    pub(super) is_behind: bool,
}

impl Reloads {
    /// `wanted`: what the daemon starts with. `gone`: where the backends are of pools that an earlier life had.
    pub(super) fn new(options: &Options, wanted: Accepted, gone: BTreeSet<IpAddr>) -> Self {
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
            gone,
            bereft: BTreeMap::new(),
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

    /// A pool goes on, of which this backend has the role, if anybody; `heir`: where that is now. Who had it before that was lost
    /// out of sight, as long as nobody was given it, or is on the way to it.
    pub(super) fn bereave(
        &mut self,
        pool: &str,
        holder: Option<&config::Backend>,
        heir: Option<BackendIndex>,
        is_changing: bool,
    ) -> Option<&(String, IpAddr)> {
        if holder.is_some() || is_changing {
            self.bereft.remove(pool);
        }
        if let Some(holder) = holder.filter(|_| heir.is_none() && !is_changing) {
            self.bereft.insert(pool.to_owned(), (holder.name.clone(), holder.address));
        }
        self.bereft.get(pool)
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
        if self.reloads.is_under_way && self.reloads.waiting.len() >= WAITING {
            self.refuse(cause, NotReloaded::Refused("too many reloads wait for another one".to_owned()));
            return;
        }
        let cause = match self.unwaited(cause) {
            Ok(cause) => cause,
            Err((cause, reason)) => return self.refuse(cause, NotReloaded::Refused(reason)),
        };
        if self.reloads.is_under_way {
            self.reloads.waiting.push_back(cause);
        } else {
            self.begin(cause);
        }
    }

    /// Whoever doesn't wait has his answer as soon as nothing can be said against it without a look at the file.
    fn unwaited(&self, cause: Cause) -> Result<Cause, (Cause, String)> {
        if !matches!(cause, Cause::Verb(ReloadCommand { no_wait: true, .. }, ..)) {
            return Ok(cause);
        }
        if let Err(reason) = self.admit(&cause) {
            return Err((cause, reason));
        }
        let Cause::Verb(asked, uid, reply) = cause else { return Ok(cause) };
        // Who asked may be gone.
        let _ = reply.send(Ok(self.begun()));
        Ok(Cause::Unwaited(format!("`{}` by uid {uid}", asked.typed())))
    }

    fn begin(&mut self, cause: Cause) {
        if let Err(reason) = self.admit(&cause) {
            self.refuse(cause, NotReloaded::Refused(reason));
            return;
        }
        let source = match &cause {
            Cause::Verb(..) | Cause::Unwaited(_) => Source::File,
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
            Cause::Verb(ReloadCommand { no_wait: true, confirm_ms: Some(_), .. }, ..) => {
                return Err(
                    "who has a reload taken back unless it is confirmed has to wait for it".to_owned()
                );
            }
            Cause::Verb(asked, ..) => asked.confirm(),
            Cause::Unwaited(_) => None,
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
                let holder = self.policy.snapshot(PoolIndex(pool), self.clock.now()).holder;
                let holder = holder.map(|holder| &self.parts.config.pools[pool].backends[holder.0]);
                !self.policy.is_busy(PoolIndex(pool))
                    && holder.is_none_or(|holder| !is_same_backend(holder, backend))
            }),
        }
    }
}
