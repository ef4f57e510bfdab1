//! Looks for clients that nobody answers: handshakes whose SYN has been with its backend for too long, and those that
//! were refused and could not go on at once.
//!
//! A look only finds them. What it says of backends is for the policy; the SYNs come in once more, like a client's own
//! repetition, only earlier, and the packet path finds them another backend. Each attempt is found once: one that went on
//! is a line's new life, and one that could not is its client's business, until there is somebody else to go to.
//!
//! A look reads the words of handshakes that it has not settled yet, a few milliseconds for a full table of them, and
//! nothing at all without handshakes. Deliberately not here: where an attempt goes on, and when the next look is.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use balancer_common::abi::{Address4, Address6, Line, WireAddress};
use balancer_common::flow::Seen;
use balancer_common::table::{State, since};

use super::clock::{FlowClock, monotonic_ns};
use super::failures::{Attempt, What};
use super::flows::{Both, FamilyTables, FlowTable, both};
use super::held::{Syn, Syns};
use super::lines::{Met, seen};
use super::repeats::Repeats;
use super::segment::Header;
use super::slots::Retry;

/// So many SYNs of each family come in once more after a look, which takes some milliseconds; the others after the next.
const AT_ONCE: usize = 512;
/// So many attempts of a backend are told after a look: more say no more.
const TOLD: usize = 8;

/// What is to be done about a service's clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Only what [goes on at once](Retry::Instant) comes in once more.
    pub retry: Retry,
    /// For how long a SYN may be unanswered.
    pub connect_timeout: Duration,
    /// Whether anybody wants to know of it.
    pub is_told: bool,
}

impl Rule {
    /// Whether there is anything to look for.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.retry != Retry::Instant && !self.is_told
    }

    /// What of an attempt that has not been answered since `age`; nothing, if it isn't time yet.
    fn on(&self, age: Duration, is_refused: bool) -> Option<Step> {
        let is_late = age >= self.connect_timeout;
        let step = Step {
            goes_on: self.retry == Retry::Instant && (is_refused || is_late),
            // The packet path has told of a refusal.
            is_told: self.is_told && is_late && !is_refused,
        };
        (step.goes_on || step.is_told).then_some(step)
    }
}

/// What is to be done about an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    goes_on: bool,
    is_told: bool,
}

/// What a look has found.
#[derive(Debug, Default)]
pub struct Found {
    /// Attempts that are to be told, a few of each backend.
    pub unanswered: Vec<Attempt>,
    /// SYNs that are to come in once more, those first that have waited for longest.
    pub waiting: Syns,
}

/// Looks, and remembers what it has settled.
pub struct Rescuer {
    flows: Arc<FlowTable>,
    repeats: Repeats,
    /// By service's slot.
    rules: BTreeMap<u16, Rule>,
    settled_4: Settled,
    settled_6: Settled,
    /// Those who could not go on may be able to now.
    is_anew: bool,
}

impl Rescuer {
    /// The rules of services, by slot.
    #[must_use]
    pub fn new(flows: Arc<FlowTable>, repeats: Repeats, rules: BTreeMap<u16, Rule>) -> Self {
        Self {
            flows,
            repeats,
            rules,
            settled_4: Settled::default(),
            settled_6: Settled::default(),
            is_anew: false,
        }
    }

    /// Other rules from the next look on.
    pub fn set_rules(&mut self, rules: BTreeMap<u16, Rule>) {
        self.rules = rules;
    }

    /// How long a look may be put off when there was no handshake at the last one: what came just after it isn't late
    /// before. `None`: there is nothing to look for.
    #[must_use]
    pub fn patience(&self) -> Option<Duration> {
        self.rules.values().filter(|rule| !rule.is_idle()).map(|rule| rule.connect_timeout).min()
    }

    /// Whether handshakes are under way.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.flows.fill().half_open > 0
    }

    /// Somebody may take attempts that nobody could before: the next look has them come in once more, and tells
    /// nothing of them again.
    pub const fn begin_anew(&mut self) {
        self.is_anew = true;
    }

    /// Looks over all handshakes once.
    pub fn look(&mut self) -> Found {
        self.look_at(monotonic_ns())
    }

    /// As [`Rescuer::look`], when the clock of the packet path (`CLOCK_MONOTONIC`) says `now_ns`.
    pub fn look_at(&mut self, now_ns: u64) -> Found {
        let clock = &self.flows.clock;
        let (now, into_tick) = (clock.tick_at(now_ns), clock.elapsed_of_tick_at(now_ns));
        let is_anew = std::mem::take(&mut self.is_anew);
        let look = Look { repeats: &self.repeats, rules: &self.rules, clock, now, into_tick, is_anew };
        let mut told = Told::default();
        let waiting = Syns {
            v4: look.over::<Address4>(&self.flows.v4, &mut self.settled_4, &mut told),
            v6: look.over::<Address6>(&self.flows.v6, &mut self.settled_6, &mut told),
        };
        Found { unanswered: told.attempts, waiting }
    }
}

/// One look.
struct Look<'a> {
    repeats: &'a Repeats,
    rules: &'a BTreeMap<u16, Rule>,
    clock: &'a FlowClock,
    now: u32,
    into_tick: Duration,
    /// What is settled may go on nevertheless.
    is_anew: bool,
}

/// An attempt whose time has come.
#[derive(Clone, Copy, Debug)]
struct Due {
    met: Met,
    age: u32,
    step: Step,
    attempt: Attempt,
}

impl Look<'_> {
    fn over<A: Header>(
        &self,
        tables: &FamilyTables<A>,
        settled: &mut Settled,
        told: &mut Told,
    ) -> Vec<Syn<A>> {
        let table = &tables.half_open.table;
        settled.make_room(table.len());
        let mut waiting = Vec::new();
        for met in table.live() {
            // A refusal is marked where it came from.
            let is_refused = seen(met).has(Seen::FROM_BACKEND.and(Seen::RST));
            let client = if is_refused { table.met(table.twin_of(met.index)) } else { Some(met) };
            let Some(client) = client.filter(|client| seen(*client).is_from_client()) else { continue };
            let is_settled = settled.has(client);
            if is_settled && !self.is_anew {
                continue;
            }
            let began = table.past(client).began;
            let Some((age, step)) = self.due(table.slots(client), began, is_refused) else { continue };
            let step = Step { is_told: step.is_told && !is_settled, ..step };
            // Half a flow: in the making, or left over.
            let Some(both) = both(table, client) else { continue };
            if both.is_answered() {
                settled.add(client);
                continue;
            }
            if both.is_refused() != is_refused {
                // It is met at its other line.
                continue;
            }
            let syn = Syn::of(table, client);
            if !is_refused && !syn.as_ref().is_some_and(Syn::deserves_an_answer) {
                // It says nothing about its backend, and gets no better chance at another.
                settled.add(client);
                continue;
            }
            let is_again = syn.is_some_and(|syn| syn.is_again(self.repeats));
            let due = Due { met: client, age, step, attempt: attempt(&both, is_again) };
            if step.goes_on {
                waiting.push(due);
            } else {
                settled.add(client);
                told.add(due);
            }
        }
        oldest(&mut waiting, AT_ONCE);
        let syn = |due: Due| {
            settled.add(due.met);
            told.add(due);
            Syn::of(table, due.met)
        };
        waiting.into_iter().filter_map(syn).collect()
    }

    /// Whether it is time for something to be done about an attempt with these slots of service and backend, and its age.
    fn due(&self, (service, backend): (u16, u16), began: u32, is_refused: bool) -> Option<(u32, Step)> {
        // It has no backend yet, which could have answered.
        if backend == 0 {
            return None;
        }
        let age = since(began, self.now);
        // It may have begun at the end of its tick. The packet path, which has no finer time, takes it for older.
        let certain = (self.clock.duration(age) + self.into_tick).saturating_sub(self.clock.duration(1));
        Some((age, self.rules.get(&service)?.on(certain, is_refused)?))
    }
}

/// Keeps the oldest ones, and has them in that order.
fn oldest(due: &mut Vec<Due>, most: usize) {
    let oldest_first = |due: &Due| Reverse(due.age);
    if due.len() > most {
        due.select_nth_unstable_by_key(most, oldest_first);
        due.truncate(most);
    }
    due.sort_by_key(oldest_first);
}

/// Lives of lines that nothing is to be done about any more, by the lines' index.
#[derive(Debug, Default)]
struct Settled(Vec<State>);

impl Settled {
    fn make_room(&mut self, lines: u32) {
        self.0.resize(lines as usize, State::default());
    }

    fn has(&self, met: Met) -> bool {
        self.0[met.index as usize].is_same_life(met.state)
    }

    fn add(&mut self, met: Met) {
        self.0[met.index as usize] = met.state;
    }
}

/// What is told of backends.
#[derive(Debug, Default)]
struct Told {
    attempts: Vec<Attempt>,
    /// How many of each backend.
    of: BTreeMap<u16, usize>,
}

impl Told {
    fn add(&mut self, Due { step, attempt, .. }: Due) {
        let of_backend = self.of.entry(attempt.backend).or_default();
        if step.is_told && *of_backend < TOLD {
            *of_backend += 1;
            self.attempts.push(attempt);
        }
    }
}

/// As it is told.
fn attempt<A: WireAddress>(both: &Both<A>, is_again: bool) -> Attempt {
    let Line { key, service, backend, .. } = both.client;
    let what = if is_again { What::UnansweredAgain } else { What::Unanswered };
    Attempt { flow: key.number(), what, service, backend }
}

#[cfg(test)]
mod tests {
    use balancer_common::table::Place;

    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(300);
    const EARLY: Duration = Duration::from_millis(299);
    const RETRIES: [Retry; 4] = [Retry::Off, Retry::Instant, Retry::Repeated, Retry::Held];

    fn rule(retry: Retry, is_told: bool) -> Rule {
        Rule { retry, connect_timeout: TIMEOUT, is_told }
    }

    fn met(index: u32, lives: u32) -> Met {
        let live = |state: State, _| state.born(0, 7);
        Place { line: index, index, state: (0..lives).fold(State::default(), live) }
    }

    fn due(index: u32, age: u32, backend: u16) -> Due {
        Due {
            met: met(index, 1),
            age,
            step: Step { goes_on: true, is_told: true },
            attempt: Attempt { flow: index.into(), what: What::Unanswered, service: 1, backend },
        }
    }

    #[test]
    fn only_what_goes_on_at_once_goes_on_when_it_is_late_or_refused() {
        for retry in RETRIES {
            for is_told in [false, true] {
                let on = |age, is_refused| rule(retry, is_told).on(age, is_refused);
                let goes_on = retry == Retry::Instant;
                let late = Step { goes_on, is_told };
                let refused = Step { goes_on, is_told: false };
                assert_eq!(on(EARLY, false), None, "{retry:?}");
                assert_eq!(on(TIMEOUT, false), (goes_on || is_told).then_some(late), "{retry:?}");
                for age in [EARLY, TIMEOUT] {
                    assert_eq!(on(age, true), goes_on.then_some(refused), "{retry:?}");
                }
            }
        }
    }

    #[test]
    fn there_is_nothing_to_look_for_when_nothing_would_come_of_it() {
        let idle: Vec<Rule> = RETRIES
            .into_iter()
            .flat_map(|retry| [rule(retry, false), rule(retry, true)])
            .filter(Rule::is_idle)
            .collect();
        assert_eq!(idle, [Retry::Off, Retry::Repeated, Retry::Held].map(|retry| rule(retry, false)));
    }

    #[test]
    fn those_that_have_waited_for_longest_are_first() {
        let mut some: Vec<Due> = (0..1000).map(|index| due(index, index * 7919 % 1000, 1)).collect();
        let mut all = some.clone();
        oldest(&mut some, 100);
        let ages: Vec<u32> = some.iter().map(|due| due.age).collect();
        assert_eq!(ages, (900..1000).rev().collect::<Vec<u32>>());
        oldest(&mut all, 1000);
        assert!(all.len() == 1000 && all.is_sorted_by_key(|due| Reverse(due.age)));
    }

    #[test]
    fn an_attempt_is_settled_until_its_line_is_anothers() {
        let mut settled = Settled::default();
        settled.make_room(4);
        assert!(!settled.has(met(2, 1)));
        settled.add(met(2, 1));
        settled.make_room(4);
        let packets = Place { state: met(2, 1).state.marked(Seen::RST.0), ..met(2, 1) };
        assert!(settled.has(met(2, 1)) && settled.has(packets), "the same life");
        assert!(!settled.has(met(2, 2)) && !settled.has(met(3, 1)), "another life, another line");
    }

    #[test]
    fn few_of_each_backend_are_told() {
        let mut told = Told::default();
        for index in 0..100 {
            told.add(due(index, 1, 1 + (index % 2) as u16));
        }
        told.add(Due { step: Step { goes_on: true, is_told: false }, ..due(7, 1, 3) });
        let flows: Vec<u64> = told.attempts.iter().map(|attempt| attempt.flow).collect();
        assert_eq!(flows, (0..2 * TOLD as u64).collect::<Vec<u64>>());
    }
}
