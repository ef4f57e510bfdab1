//! The daemon: waits for an event or a deadline, lets the policy think, carries out what it decided.
//!
//! The only module that knows policy, data plane, probes and control at once, and, with the packet path's entry, the
//! only one that reads a clock. Deliberately absent: decisions. They are the policy's.

mod accepted;
mod alarm;
mod carry_out;
mod census;
mod certificates;
mod check;
mod choice;
mod clock;
mod confirmation;
mod cuts;
mod dashboard;
mod degraded;
mod departed;
mod difference;
#[cfg(test)]
mod example;
mod exits;
mod failovers;
mod filling;
mod first_ways;
mod hop;
mod interfaces;
mod journal;
mod kin;
mod leaving;
mod life;
mod listing;
mod live;
mod memory;
mod names;
mod orders;
mod pace;
mod parts;
mod pending;
mod plan;
mod ports;
mod prepare;
mod probe_log;
mod redirects;
mod relapses;
mod reload;
pub mod remains;
mod replace;
mod start;
mod steps;
mod story;
mod syns;
mod telling;
mod traces;
mod trials;
mod view;
mod watchdog;
mod watcher;
mod ways;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tracing::info;

use crate::control::server::Request;
use crate::dataplane::attach::Attachment;
use crate::dataplane::failures::Attempt;
use crate::dataplane::flows::FlowTable;
use crate::dataplane::pins::PinDirectory;
use crate::dataplane::ring::Ring;
use crate::descriptors;
use crate::exit::{Exit, Failure, say};
use crate::notify::Notifier;
use crate::policy::{Policy, PoolIndex, ProbeTicket};
use crate::probe::{LocalFault, Outcome};
use crate::program;
use crate::redirect::Redirects;
use crate::resolver::Resolver;
use crate::store::{Remembered, State, Store};

use self::accepted::Accepted;
use self::census::{Counter, Walked};
use self::certificates::Certificates;
use self::clock::Clock;
use self::cuts::Cuts;
use self::dashboard::Dashboard;
use self::degraded::Told;
use self::departed::Departed;
use self::exits::failed;
use self::failovers::Failovers;
use self::filling::Filling;
use self::interfaces::Interfaces;
use self::journal::{Entry, Journal};
use self::leaving::Leaving;
use self::life::Signals;
use self::live::Live;
use self::names::Names;
use self::orders::Waiting;
use self::parts::Parts;
use self::ports::Ports;
use self::probe_log::ProbeLog;
use self::relapses::Relapses;
use self::reload::{Cause, Reloads};
use self::steps::Done;
use self::traces::Traces;
use self::trials::Trials;
use self::watchdog::Watchdog;
use self::ways::Ways;

pub use self::check::{Checking, Checkup, check};
pub(crate) use self::kin::for_a_restart;
pub(crate) use self::names::last_good;
pub(crate) use self::plan::wanted;

/// Outcomes of probes that wait for the loop: as many as can be in flight.
const OUTCOMES: usize = crate::policy::MAX_IN_FLIGHT;
/// How often flows are looked at for those whose time is over: a third of the shortest lifetime.
const SWEEP_EVERY: Duration = Duration::from_secs(3);
/// When there is nothing to wait for: it isn't never, as that has no moment.
const LONG: Duration = Duration::from_secs(3600);
/// Threads for what isn't a program: a walk over the flows, a look at handshakes, cuts and replays of several pools at once.
const SPARE_THREADS: usize = 64;

/// What the packet path tells, and where to tell of it.
type Packets = (Arc<FlowTable>, mpsc::Sender<Walked>, AsyncFd<Ring<Attempt>>, Traces);

/// What came of one probe.
type Probed = (ProbeTicket, SystemTime, Result<Outcome, LocalFault>);

/// What a daemon is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The configuration; `-` is stdin.
    pub config: PathBuf,
    /// Where clients find it.
    pub socket: PathBuf,
    /// Locked, so that there is one daemon for it.
    pub state_dir: PathBuf,
    /// Where maps and links outlive it.
    pub pin_dir: PathBuf,
    /// Give up what is pinned.
    pub replace: bool,
    /// At the end, take programs and maps along.
    pub detach_on_exit: bool,
    /// As `status` tells it.
    pub version: &'static str,
}

/// Runs the daemon until it is told to stop.
pub fn run(options: &Options) -> Result<Exit, Failure> {
    descriptors::provide().map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Programs on a file system that hangs hold a thread each: those that cut and count flows are beside them.
        .max_blocking_threads(program::AT_ONCE + SPARE_THREADS)
        .build()
        .map_err(|error| Failure::new(Exit::Failed, format!("starting the runtime: {error}")))?;
    let result = runtime.block_on(life::live(options));
    // A sweep that is under way only reads and removes; nobody has to wait for it.
    runtime.shutdown_background();
    result
}

/// Everything that the loop owns.
struct Daemon {
    parts: Parts,
    policy: Policy,
    clock: Clock,
    version: &'static str,
    interfaces: Interfaces,
    ways: Ways,
    /// Why there is no way to a backend, by its slot.
    no_ways: BTreeMap<u16, String>,
    probes: ProbeLog,
    flows: Arc<FlowTable>,
    certificates: Certificates,
    counter: Counter,
    filling: Filling,
    ports: Ports,
    cuts: Cuts,
    live: Live,
    failovers: Failovers,
    trials: Trials,
    traces: Traces,
    degraded_told: Told,
    relapses: Relapses,
    redirects: Redirects,
    /// Why too few file descriptors are left.
    descriptors: Option<String>,
    /// What was done beside the loop.
    done: (mpsc::Sender<Done>, mpsc::Receiver<Done>),
    /// Who waits for the end of a change.
    waiting: Vec<Waiting>,
    /// Clients that were told that their flow has ended, by the backend's slot.
    resets_sent: BTreeMap<u16, u64>,
    /// Who has left the configuration.
    leaving: Leaving,
    departed: Departed,
    reloads: Reloads,
    names: Names,
    notifier: Option<Notifier>,
    dashboard: Dashboard,
    store: Store,
    journal: Journal,
    /// What the store was last given.
    saved: Option<State>,
    outcomes: (mpsc::Sender<Probed>, mpsc::Receiver<Probed>),
    /// Everything has been looked at once, in the kernel.
    ways_known: bool,
    /// Programs are attached, and READY was said.
    ready: bool,
}

impl Daemon {
    fn new(
        parts: Parts,
        (interfaces, ways): (Interfaces, Ways),
        (flows, walked, failures, traces): Packets,
        (store, remembered): (Store, Remembered),
        (resolver, accepted): (Resolver, Accepted),
        dashboard: Dashboard,
        options: &Options,
    ) -> Self {
        let version = options.version;
        let clock = Clock::start();
        let settings = plan::for_policy(&parts.config);
        let gateway = &parts.config.gateway;
        let filling = Filling::new(gateway.max_flows, gateway.max_half_open);
        let seed = std::process::id().into();
        let state = remembered.state.as_ref();
        let passed = state.map_or(Duration::ZERO, |state| state.age_at(&memory::boot_moment()));
        let gone = state.map(|state| &state.departed[..]).unwrap_or_default();
        let mut departed = Departed::remembered(gone, passed, clock.now());
        let (history, gone) = memory::history(&parts, &remembered, &mut departed, &clock);
        let policy = Policy::new(settings, seed, history, clock.now());
        let mut journal = Journal::after(remembered.last_event);
        journal.note(Entry::started(version, parts.fresh, &remembered), &store);
        Self {
            probes: ProbeLog::new(&parts.config),
            certificates: Certificates::default(),
            counter: Counter::new(flows.clone(), walked),
            live: Live::new(failures, flows.clone(), plan::rescue_rules(&parts), &parts.slots),
            flows,
            filling,
            ports: Ports::default(),
            cuts: Cuts::default(),
            failovers: Failovers::default(),
            trials: Trials::default(),
            traces,
            degraded_told: Told::default(),
            relapses: Relapses::default(),
            redirects: Redirects::default(),
            descriptors: None,
            done: mpsc::channel(steps::RESULTS),
            waiting: Vec::new(),
            resets_sent: BTreeMap::new(),
            leaving: Leaving::default(),
            departed,
            names: Names::new(resolver, &accepted.config, clock.now()),
            reloads: Reloads::new(options, accepted, gone),
            notifier: gateway.notify.clone().map(Notifier::new),
            dashboard,
            parts,
            policy,
            clock,
            version,
            interfaces,
            ways,
            no_ways: BTreeMap::new(),
            store,
            journal,
            saved: remembered.state,
            outcomes: mpsc::channel(OUTCOMES),
            ways_known: false,
            ready: false,
        }
    }

    /// The loop.
    async fn serve(
        &mut self,
        signals: &mut Signals,
        requests: &mut mpsc::Receiver<Request>,
        mut walked: mpsc::Receiver<Walked>,
    ) -> Result<(), Failure> {
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut written = self.store.written();
        let mut watchdog = Watchdog::expected();
        loop {
            self.carry_out();
            self.tell_troubles();
            self.catch_up();
            if !self.ready && self.ways_known && self.policy.first_round_done() {
                self.open_for_traffic().await?;
            }
            let deadline = self.policy.poll_timeout().map(|moment| self.clock.instant(moment));
            let deadline = deadline.unwrap_or_else(|| Instant::now() + LONG);
            let look = self.live.next_look().unwrap_or_else(|| Instant::now() + LONG);
            let answer = self.failovers.next_look().into_iter().chain(self.trials.next_look()).min();
            let answer = answer.map_or_else(|| Instant::now() + LONG, |moment| self.clock.instant(moment));
            let cut = self.leaving.next().map(|moment| self.clock.instant(moment));
            let cut = cut.unwrap_or_else(|| Instant::now() + LONG);
            let expiry = self.reloads.expiry().map(|moment| self.clock.instant(moment));
            let expiry = expiry.unwrap_or_else(|| Instant::now() + LONG);
            let reader = self.traces.next_look().unwrap_or_else(|| Instant::now() + LONG);
            let names = self.names.next().map(|moment| self.clock.instant(moment));
            let names = names.unwrap_or_else(|| Instant::now() + LONG);
            tokio::select! {
                Some(probed) = self.outcomes.1.recv() => self.probed(probed),
                Some(done) = self.done.1.recv() => self.done(done),
                attempts = self.live.heard() => self.failed(&attempts),
                packets = self.traces.heard() => self.traced(&packets),
                () = sleep_until(reader.into()) => self.look_after_traces(),
                () = sleep_until(look.into()) => self.look(),
                () = sleep_until(answer.into()) => {
                    self.watch_failovers();
                    self.watch_trials();
                }
                Some(change) = self.ways.change() => self.changed(change),
                () = sleep_until(cut.into()) => self.end_leaving(),
                () = sleep_until(expiry.into()), if self.ready => self.expire(),
                () = sleep_until(names.into()), if self.ready => self.ask_names(),
                // Before the first decision there is nothing true to tell; the server bounds the wait.
                Some(request) = requests.recv(), if self.ready => self.answer(request),
                () = sleep_until(deadline.into()) => self.policy.handle_timeout(self.clock.now()),
                Some((census, fill)) = walked.recv() => {
                    self.filled(fill);
                    self.seen_leaving(&census.busy);
                    self.counter.walked(&census);
                }
                // What the disk says now is told above.
                Ok(()) = written.changed() => {}
                _ = sweep.tick() => {
                    self.counter.age();
                    self.descriptors = descriptors::trouble();
                    self.look_at_ports();
                    self.redirects.try_again();
                    self.dashboard.try_again();
                }
                what = watchdog.turn(!self.ready) => watchdog.tell(what),
                _ = signals.terminate.recv() => return Ok(()),
                _ = signals.interrupt.recv() => return Ok(()),
                // One that comes before the first decision waits for it.
                _ = signals.hang_up.recv(), if self.ready => self.reload(Cause::Unwaited("SIGHUP".to_owned())),
            }
        }
    }

    /// The first decision is in the kernel: services become reachable, programs go onto their interfaces.
    async fn open_for_traffic(&mut self) -> Result<(), Failure> {
        let attachments = self.parts.open_for_traffic().await?;
        attachments.iter().for_each(Attachment::log);
        // Those of an earlier configuration are nobody's any more.
        self.ports_are_accepted();
        self.interfaces.opened(attachments);
        self.ready = true;
        self.settle_all();
        self.watch();
        (0..self.parts.slots.len()).for_each(|pool| self.replay_all(PoolIndex(pool)));
        // Without systemd there is nobody to tell.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        info!(event = "ready", pid = std::process::id());
        self.tell_taken_back();
        Ok(())
    }
}

/// Removes every program, link, map and pin of an instance whose daemon is not running.
pub fn detach(pin_dir: &Path) -> Result<Exit, Failure> {
    // What may not be looked at may be there.
    if let Ok(false) = pin_dir.try_exists() {
        say(&format!("nothing is pinned in {}", pin_dir.display()));
        return Ok(Exit::Ok);
    }
    let pins = PinDirectory::open_existing(pin_dir)?;
    let removed = pins.remove()?;
    say(&format!("removed {removed} pins of programs and maps from {}", pin_dir.display()));
    Ok(Exit::Ok)
}
