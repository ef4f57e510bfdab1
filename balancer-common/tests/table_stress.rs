//! Two CPUs and a controller on one table, as fast as they can, on whatever memory this machine has.
//!
//! The CPUs make, find, touch and forget flows of two lines that name each other, as the packet path does; the controller
//! sweeps what was silent, dies in the middle of it now and then, and goes on with what it left. `TABLE_OPERATIONS` says
//! how many operations the CPUs do together, 1,000,000 without; `TABLE_SEED` which ones. What the threads do follows from
//! the seed, not how they meet.

#[path = "table/cells.rs"]
mod cells;

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;

use balancer_common::abi::{Address4, Port};
use balancer_common::table::{
    Kind, Lines, Locks, Place, Refused, State, Table, Taker, WAYS, WINDOWS, buckets_for, find, give_up,
    insert, lock, lock_since, mark, met, oldest, remove, remove_as_met,
};
use cells::{Cells, Dying, Key, Random, Sequences, value};

/// The mark of lines whose packets come from the backend.
const FROM_BACKEND: u8 = 16;

/// No line: of a backend's side whose client's side is not there yet.
const NO_TWIN: u32 = u32::MAX;

/// Operations of a CPU for which it keeps its time.
const OPERATIONS_PER_TICK: u64 = 64;

/// So many flows are asked for, and so many there is place for.
#[derive(Clone, Copy, Debug)]
struct Size {
    flows: u32,
    buckets: u32,
}

struct Machine {
    size: Size,
    table: Cells,
    locks: Sequences,
    clock: AtomicU32,
    /// The table's counters: as the ABI has them.
    begun: AtomicU64,
    ended: AtomicU64,
    swept: AtomicU64,
    /// What came to pass, so that a run that tests nothing shows.
    found: AtomicU64,
    changed: AtomicU64,
    full: AtomicU64,
    /// Somebody had a key's lock after it was looked for.
    overtaken: AtomicU64,
    contended: AtomicU64,
    deaths: AtomicU64,
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The client's side of a flow.
fn client_side(flow: u32) -> Key {
    let [_, a, b, c] = flow.to_be_bytes();
    Key {
        source: Address4::from_wire([10, a, b, c]),
        destination: Address4::from_wire([192, 0, 2, 1]),
        source_port: Port::new(40_000),
        destination_port: Port::new(443),
    }
}

/// Its backend's side.
fn backend_side(flow: u32) -> Key {
    Key {
        source: Address4::from_wire([192, 0, 2, 2]),
        destination: client_side(flow).source,
        ..client_side(flow).reversed()
    }
}

/// The other side of a side.
fn other_side(key: &Key) -> Key {
    let is_client = key.destination_port == Port::new(443);
    let [_, a, b, c] = if is_client { key.source.to_wire() } else { key.destination.to_wire() };
    let flow = u32::from_be_bytes([0, a, b, c]);
    if is_client { backend_side(flow) } else { client_side(flow) }
}

impl Machine {
    fn new(size: Size, seed: u64) -> Self {
        let number = || AtomicU64::new(0);
        Self {
            size,
            table: Cells::new(size.buckets, seed),
            locks: Sequences::new(),
            clock: AtomicU32::new(0),
            begun: number(),
            ended: number(),
            swept: number(),
            found: number(),
            changed: number(),
            full: number(),
            overtaken: number(),
            contended: number(),
            deaths: number(),
        }
    }

    /// Finds a key, and copies what a packet needs of its line.
    fn look_up(&self, key: &Key) -> Option<(Place<u32>, u32)> {
        let place = find(&self.table, self.table.hash(key), key)?;
        let (copied, twin, values) = self.table.read(place.line);
        if !self.table.state(place.line).is_same_life(place.state) {
            add(&self.changed);
            return None;
        }
        assert_eq!(copied, *key, "another key's line");
        assert_eq!(values, value(key), "a line of two flows");
        let is_client = *key == client_side(u32::from_be_bytes(key.source.to_wire()) & 0xff_ffff);
        assert_eq!(place.state.marks() & FROM_BACKEND == 0, is_client, "marks of another flow");
        add(&self.found);
        Some((place, twin))
    }

    /// Where a key is live, by looking at all lines that it may be in: with its lock held, once at the most.
    fn assert_once(&self, key: &Key) {
        let bucket = self.table.hash(key).bucket(self.table.buckets());
        let lines = bucket * WAYS..(bucket + 1) * WAYS;
        // Who is met, is removed and then met again elsewhere can't be: nobody inserts without the lock.
        let lives = lines.filter(|&index| met(&self.table, index, key).is_some()).count();
        assert!(lives <= 1, "{key:?} is live in {lives} lines");
    }

    /// Makes one side of a flow, under its lock.
    fn add_side(&self, key: &Key, marks: u8, now: u32, twin: Option<u32>) -> Result<Place<u32>, Refused> {
        let hash = self.table.hash(key);
        // As the packet path does it: one look, if nobody has had the lock since.
        let sequence = self.locks.sequence(hash.lock());
        let is_there = || find(&self.table, hash, key).is_some();
        if is_there() {
            return Err(Refused::Taken);
        }
        let was_had = !lock_since(&self.locks, hash.lock(), sequence);
        if was_had {
            add(&self.overtaken);
            lock(&self.locks, hash.lock()).inspect_err(|_| add(&self.contended))?;
        }
        let made = if was_had && is_there() {
            Err(Refused::Taken)
        } else {
            insert(&self.table, hash, (marks, now), |line, index| {
                self.table.fill(line, key, twin.unwrap_or(NO_TWIN));
                if let Some(twin) = twin {
                    self.table.set_twin(twin, index);
                }
            })
        };
        self.assert_once(key);
        self.locks.unlock(hash.lock());
        made.inspect_err(|refused| {
            if *refused == Refused::Full {
                add(&self.full);
            }
        })
    }

    /// Makes a flow, its backend's side first.
    fn begin(&self, flow: u32, now: u32) -> bool {
        let Ok(backend) = self.add_side(&backend_side(flow), FROM_BACKEND, now, None) else { return false };
        if self.add_side(&client_side(flow), 0, now, Some(backend.line)).is_err() {
            remove(&self.table, backend, Taker::PacketPath);
            return false;
        }
        add(&self.begun);
        true
    }

    /// Forgets a flow, if its client's side is there; whoever takes that one counts.
    fn end(&self, flow: u32) {
        let Some((client, twin)) = self.look_up(&client_side(flow)) else { return };
        self.take_out(client, met(&self.table, twin, &backend_side(flow)));
    }

    fn take_out(&self, client: Place<u32>, backend: Option<Place<u32>>) {
        if remove(&self.table, client, Taker::PacketPath) {
            add(&self.ended);
            if let Some(backend) = backend {
                remove(&self.table, backend, Taker::PacketPath);
            }
        }
    }

    /// Makes room where this flow would go.
    fn evict(&self, flow: u32, now: u32) {
        let hash = self.table.hash(&client_side(flow));
        let in_window = |window| oldest(&self.table, hash, window, now, |_| true);
        let Some(place) = (0..WINDOWS).find_map(in_window) else { return };
        let (key, twin, _) = self.table.read(place.line);
        let twin = met(&self.table, twin, &other_side(&key));
        if !self.table.state(place.line).is_same_life(place.state) {
            return;
        }
        if place.state.marks() & FROM_BACKEND == 0 {
            self.take_out(place, twin);
        } else if let Some(client) = twin {
            self.take_out(client, Some(place));
        }
    }

    fn cpu(&self, seed: u64, operations: u64) {
        let mut random = Random(seed);
        for operation in 0..operations {
            if operation % OPERATIONS_PER_TICK == 0 {
                self.clock.fetch_add(1, Ordering::Relaxed);
            }
            let now = self.clock.load(Ordering::Relaxed);
            let flow = random.below(self.size.flows);
            match random.below(16) {
                0..5 => {
                    if !self.begin(flow, now) && random.below(8) == 0 {
                        self.evict(flow, now);
                    }
                }
                5..7 => self.end(flow),
                7 => {
                    if let Some((place, _)) = self.look_up(&client_side(flow)) {
                        mark(&self.table, place, 1 << random.below(3));
                    }
                }
                way => {
                    let key = if way % 2 == 0 { client_side(flow) } else { backend_side(flow) };
                    if let Some((place, _)) = self.look_up(&key) {
                        self.table.touch(place, now);
                    }
                }
            }
        }
    }

    /// One look at all lines, by a controller that dies before so many of its stores.
    fn sweep(&self, stores: u32, idle: u32) {
        let controller = Dying::new(&self.table, stores);
        for index in 0..self.table.lines() {
            let state = self.table.state(index);
            let place = Place { line: index, index, state };
            match state.kind() {
                Kind::Leaving => {
                    // Nobody else touches what a controller before this one left.
                    let (key, _, values) = self.table.read(index);
                    assert_eq!(values, value(&key), "left half");
                    give_up(&controller, place);
                    if controller.is_dead() {
                        return;
                    }
                    self.count_swept(state);
                }
                Kind::Live => {
                    let now = self.clock.load(Ordering::Relaxed);
                    if state.silent(now) < idle || !remove_as_met(&controller, place, Taker::Controller) {
                        continue;
                    }
                    if controller.is_dead() {
                        return;
                    }
                    self.count_swept(state);
                }
                Kind::Free | Kind::Claimed => {}
            }
        }
    }

    fn count_swept(&self, state: State) {
        if state.marks() & FROM_BACKEND == 0 {
            add(&self.swept);
        }
    }

    fn controller(&self, seed: u64, is_over: &AtomicBool) {
        let mut random = Random(seed);
        while !is_over.load(Ordering::Relaxed) {
            // Two stores take a line out.
            let dies = random.below(4) == 0;
            let stores = if dies { random.below(16) } else { u32::MAX };
            if dies {
                add(&self.deaths);
            }
            // Each flow is asked for once in `flows / 64` ticks, so some of them have been silent for so long.
            self.sweep(stores, random.below(8 + self.size.flows / 32));
        }
    }

    /// All laws, when nobody changes anything.
    fn check(&self) {
        let mut clients = 0;
        for index in 0..self.table.lines() {
            let state = self.table.state(index);
            match state.kind() {
                Kind::Free => assert_eq!(self.table.tag_of(index), 0, "line {index} is free"),
                Kind::Live => {
                    let (key, _, values) = self.table.read(index);
                    assert_eq!(values, value(&key), "line {index} is of two flows");
                    assert_eq!(self.table.tag_of(index), self.table.hash(&key).tag(), "line {index}");
                    let found =
                        find(&self.table, self.table.hash(&key), &key).expect("what is live is found");
                    assert_eq!(found.index, index, "{key:?} is there twice");
                    clients += u64::from(state.marks() & FROM_BACKEND == 0);
                }
                Kind::Claimed | Kind::Leaving => panic!("line {index} is left {state:?}"),
            }
        }
        let [begun, ended, swept] =
            [&self.begun, &self.ended, &self.swept].map(|count| count.load(Ordering::Relaxed));
        assert_eq!(begun - ended - swept, clients, "{begun} begun, {ended} ended, {swept} swept");
    }

    fn run(&self, seed: u64, operations: u64) {
        let (is_over, start) = (AtomicBool::new(false), Barrier::new(3));
        thread::scope(|scope| {
            let cpus = [1, 2].map(|cpu| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    self.cpu(seed ^ cpu << 32, operations / 2);
                })
            });
            let controller = scope.spawn(|| {
                start.wait();
                self.controller(seed ^ 3 << 32, &is_over);
            });
            let ends = cpus.map(thread::ScopedJoinHandle::join);
            is_over.store(true, Ordering::Relaxed);
            for end in ends.into_iter().chain([controller.join()]) {
                end.expect("a law is broken");
            }
        });
        // The last controller finds what the one before it left.
        self.sweep(u32::MAX, u32::MAX);
        self.check();
        // And takes out all there is.
        self.sweep(u32::MAX, 0);
        self.check();
        let used =
            (0..self.table.lines()).filter(|&index| self.table.state(index).kind() != Kind::Free).count();
        assert_eq!(used, 0, "lines that can't be taken out");
    }
}

fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |number| number.parse().expect(variable))
}

#[test]
fn no_flow_is_lost_or_doubled_or_mixed() {
    let (operations, seed) = (number_from("TABLE_OPERATIONS", 1_000_000), number_from("TABLE_SEED", 1));
    let sizes = [
        // All meet in one bucket, which is full.
        Size { flows: 96, buckets: 1 },
        Size { flows: 64, buckets: buckets_for(32) },
        Size { flows: 8192, buckets: buckets_for(4096) },
    ];
    for size in sizes {
        let machine = Machine::new(size, seed);
        machine.run(seed, operations / sizes.len() as u64);
        let counts =
            ["begun", "ended", "swept", "found", "changed", "full", "overtaken", "contended", "deaths"]
                .into_iter()
                .zip([
                    &machine.begun,
                    &machine.ended,
                    &machine.swept,
                    &machine.found,
                    &machine.changed,
                    &machine.full,
                    &machine.overtaken,
                    &machine.contended,
                    &machine.deaths,
                ]);
        let counts: Vec<_> = counts.map(|(name, count)| (name, count.load(Ordering::Relaxed))).collect();
        println!("{size:?}: {counts:?}");
        for (name, count) in &counts[..4] {
            assert!(*count > 0, "nothing was {name}: {counts:?}");
        }
    }
}
