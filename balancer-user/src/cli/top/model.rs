//! What `top` knows: the last answers, what counters came to between them, what is selected, what is asked. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::action::Action;
use crate::cli::rates::Span;
use crate::control::protocol::{Backend, BackendStats, Pool, Stats, Status, Timestamp};

/// As wide as a plot can be of use.
const REMEMBERED: usize = 240;
/// An answer that is older says so.
pub(super) const FRESH: Duration = Duration::from_secs(3);

/// Two answers of one moment.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) status: Status,
    pub(super) stats: Stats,
}

/// What is to be done after a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Stay,
    Quit,
    Do(Action),
}

/// What stands over everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Dialog {
    Help,
    Confirm(Action),
}

/// A line that can be selected: a pool, or a backend of it. By name, as positions change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) pool: String,
    pub(super) backend: Option<String>,
}

/// Rates in tenths, the newest last.
pub(super) type Series = VecDeque<u64>;

/// What came of the last action: good, or refused.
pub(super) type Told = Result<String, String>;

#[derive(Default)]
pub(super) struct Model {
    seen: Option<Seen>,
    before: Option<Stats>,
    now: Option<Timestamp>,
    /// Why the last question was not answered.
    missed: Option<String>,
    selected: Option<Row>,
    pub(super) dialog: Option<Dialog>,
    pub(super) told: Option<Told>,
    /// By pool: new flows, packets.
    plots: BTreeMap<String, [Series; 2]>,
    pub(super) drops: Series,
}

impl Model {
    /// A new answer.
    pub(super) fn see(&mut self, seen: Seen, now: Timestamp) {
        self.before = self.seen.take().map(|seen| seen.stats);
        (self.missed, self.now) = (None, Some(now));
        let pools: Vec<String> = seen.status.pools.iter().map(|pool| pool.name.clone()).collect();
        self.seen = Some(seen);
        self.plots.retain(|pool, _| pools.contains(pool));
        for pool in &pools {
            let rates = self.pool_rates(pool);
            let plots = self.plots.entry(pool.clone()).or_default();
            plots.iter_mut().zip(rates).for_each(|(series, rate)| remember(series, rate));
        }
        let rate = self.drop_rate();
        remember(&mut self.drops, rate);
    }

    /// No answer.
    pub(super) fn miss(&mut self, why: String) {
        self.missed = Some(why);
    }

    /// What came of an action.
    pub(super) fn tell(&mut self, told: Told) {
        self.told = Some(told);
    }

    pub(super) fn set_now(&mut self, now: Timestamp) {
        self.now = Some(now);
    }

    pub(super) fn seen(&self) -> Option<&Seen> {
        self.seen.as_ref()
    }

    pub(super) fn missed(&self) -> Option<&str> {
        self.missed.as_deref()
    }

    /// How old the answer is.
    pub(super) fn age(&self) -> Duration {
        let seen = self.seen.as_ref().map(|seen| seen.status.as_of);
        seen.zip(self.now).map_or(Duration::ZERO, |(seen, now)| seen.age_at(now))
    }

    /// All lines that can be selected, in their order.
    pub(super) fn rows(&self) -> Vec<Row> {
        let pools = self.seen.iter().flat_map(|seen| &seen.status.pools);
        let of_pool = |pool: &Pool| {
            let row = |backend: Option<&Backend>| Row {
                pool: pool.name.clone(),
                backend: backend.map(|backend| backend.name.clone()),
            };
            std::iter::once(row(None))
                .chain(pool.backends.iter().map(|one| row(Some(one))))
                .collect::<Vec<_>>()
        };
        pools.flat_map(of_pool).collect()
    }

    /// Which of the rows is selected: the first one, if what was selected is gone.
    pub(super) fn selected(&self) -> usize {
        let selected = self.selected.as_ref();
        selected.and_then(|row| self.rows().iter().position(|known| known == row)).unwrap_or(0)
    }

    /// The selected pool, and its backend if one is selected.
    pub(super) fn chosen(&self) -> Option<(&Pool, Option<&Backend>)> {
        let row = self.rows().into_iter().nth(self.selected())?;
        let pool = self.seen.as_ref()?.status.pools.iter().find(|pool| pool.name == row.pool)?;
        Some((pool, pool.backends.iter().find(|backend| Some(&backend.name) == row.backend.as_ref())))
    }

    /// A key was pressed.
    pub(super) fn press(&mut self, key: KeyEvent) -> Step {
        if key.kind != KeyEventKind::Press {
            return Step::Stay;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Step::Quit;
        }
        match self.dialog.take() {
            Some(Dialog::Confirm(action)) if key.code == KeyCode::Char('y') => {
                self.told = Some(Ok(format!("`{}` …", action.typed())));
                return Step::Do(action);
            }
            // Whatever else closes it.
            Some(_) => return Step::Stay,
            None => {}
        }
        self.told = None;
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Step::Quit,
            KeyCode::Char('?' | 'h') => self.dialog = Some(Dialog::Help),
            KeyCode::Up | KeyCode::Char('k') => self.select(self.selected().saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.select(self.selected() + 1),
            KeyCode::Home => self.select(0),
            KeyCode::End => self.select(usize::MAX),
            KeyCode::Char(key) => self.ask(key),
            _ => {}
        }
        Step::Stay
    }

    fn select(&mut self, index: usize) {
        let mut rows = self.rows();
        let last = rows.len().saturating_sub(1);
        self.selected = (!rows.is_empty()).then(|| rows.swap_remove(index.min(last)));
    }

    /// A key that changes something is confirmed first; what can't be done is said.
    fn ask(&mut self, key: char) {
        if !"dmrfb".contains(key) {
            return;
        }
        let is_alive = self.seen.as_ref().is_some_and(|seen| seen.status.daemon.is_some());
        if !is_alive || self.missed.is_some() {
            self.told = Some(Err("no daemon answers: nobody would carry that out".to_owned()));
            return;
        }
        let Some((pool, backend)) = self.chosen() else { return };
        match Action::of_key(key, pool, backend) {
            Some(action) => self.dialog = Some(Dialog::Confirm(action)),
            None => self.told = Some(Err("select a backend for that, with the arrows".to_owned())),
        }
    }

    /// New flows and packets of a pool in a second; `None` where that isn't known.
    pub(super) fn pool_rates(&self, pool: &str) -> [Option<f64>; 2] {
        let sum = |stats: &Stats| {
            let services = stats.services.iter().filter(|service| service.pool == pool);
            services.fold([0, 0], |[flows, packets], service| {
                [flows + service.new_flows, packets + service.packets]
            })
        };
        self.rates(|stats| Some(sum(stats)))
    }

    /// Of a backend.
    pub(super) fn backend_rates(&self, pool: &str, backend: &str) -> [Option<f64>; 2] {
        let is_it = |stats: &&BackendStats| stats.pool == pool && stats.backend == backend;
        self.rates(|stats| stats.backends.iter().find(is_it).map(|one| [one.new_flows, one.packets]))
    }

    /// Packets dropped in a second.
    pub(super) fn drop_rate(&self) -> Option<f64> {
        self.rates(|stats| Some([stats.drops.values().sum()]))[0]
    }

    fn rates<const N: usize>(&self, of: impl Fn(&Stats) -> Option<[u64; N]>) -> [Option<f64>; N] {
        let known = || {
            let (before, now) = (self.before.as_ref()?, &self.seen.as_ref()?.stats);
            Some((Span::between(before.as_of, now.as_of)?, of(before)?, of(now)?))
        };
        let Some((span, before, now)) = known() else { return [None; N] };
        std::array::from_fn(|index| span.rate(before[index], now[index]))
    }

    /// What was remembered of the rates of a pool.
    pub(super) fn plots(&self, pool: &str) -> Option<&[Series; 2]> {
        self.plots.get(pool)
    }
}

/// What isn't known leaves no mark.
fn remember(series: &mut Series, rate: Option<f64>) {
    let Some(rate) = rate else { return };
    if series.len() == REMEMBERED {
        series.pop_front();
    }
    series.push_back((rate * 10.0).round() as u64);
}
