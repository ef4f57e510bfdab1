//! Who sees packets, and what each of them is shown: lines that wait to be read, bounded.
//!
//! What there is no room for is counted, as is what the packet path left out: the next packet tells of it, or a line of its own
//! where none comes. A reader of one service's packets follows it by its name. Deliberately not here: the packet path's filters,
//! and what packets are called (`traces`).

use std::collections::BTreeMap;

use balancer_common::abi;
use balancer_common::limits::MAX_TRACES;
use tokio::sync::mpsc;

use crate::control::protocol::{Timestamp, TraceLine, TraceNote, Traced};

/// Lines that wait for one reader.
const WAITING: usize = 512;
/// Of them for what is told at the end.
const LAST: usize = 1;

/// A service by its pool's name and its own.
pub(super) type ServiceName = (String, String);

/// Those who see packets, each in the place of its filter.
#[derive(Default)]
pub(super) struct Readers([Option<Reader>; MAX_TRACES]);

/// One of them.
pub(super) struct Reader {
    lines: mpsc::Sender<TraceLine>,
    /// Of this service only.
    service: Option<ServiceName>,
    /// What came before was for somebody else in this place.
    since_ns: u64,
    /// As the packet path counted up to the last look.
    missed_there: u64,
    /// What the next line says of those before it.
    missed: u64,
}

impl Reader {
    /// With what it reads. `missed_there`: as the packet path counts in its place.
    pub(super) fn new(
        service: Option<ServiceName>,
        since_ns: u64,
        missed_there: u64,
    ) -> (Self, mpsc::Receiver<TraceLine>) {
        let (lines, waiting) = mpsc::channel(WAITING);
        (Self { lines, service, since_ns, missed_there, missed: 0 }, waiting)
    }

    fn is_gone(&self) -> bool {
        self.lines.is_closed()
    }

    fn wants(&self, place: usize, packet: &abi::Traced) -> bool {
        packet.filters >> place & 1 != 0 && packet.at_ns >= self.since_ns && !self.is_gone()
    }

    fn show(&mut self, packet: &Traced) {
        let line = || TraceLine::Packet(Box::new(Traced { missed: self.missed, ..packet.clone() }));
        if self.lines.capacity() > LAST && self.lines.try_send(line()).is_ok() {
            self.missed = 0;
        } else {
            self.missed += 1;
        }
    }

    /// What the packet path has counted by now. What was counted by the last look and no packet has told is told by itself.
    fn count(&mut self, missed_there: u64, at: Timestamp) {
        if self.missed > 0 && self.lines.capacity() > LAST && self.note(at, None) {
            self.missed = 0;
        }
        self.missed += missed_there.saturating_sub(self.missed_there);
        self.missed_there = missed_there;
    }

    /// Whether there was room for it.
    fn note(&self, at: Timestamp, ended: Option<String>) -> bool {
        self.lines.try_send(TraceLine::Note(TraceNote { at, missed: self.missed, ended })).is_ok()
    }
}

impl Readers {
    pub(super) fn put(&mut self, place: usize, reader: Reader) {
        self.0[place] = Some(reader);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// The places of those who are gone.
    pub(super) fn forget_gone(&mut self) -> Vec<usize> {
        let gone = self.0.iter_mut().enumerate();
        let gone =
            gone.filter_map(|(place, reader)| reader.take_if(|reader| reader.is_gone()).map(|_| place));
        gone.collect()
    }

    /// As [`Reader::count`], of all.
    pub(super) fn count(&mut self, missed_there: [u64; MAX_TRACES], at: Timestamp) {
        for (reader, missed_there) in self.0.iter_mut().zip(missed_there) {
            if let Some(reader) = reader {
                reader.count(missed_there, at);
            }
        }
    }

    /// Whether anybody wants to see a packet.
    pub(super) fn want(&self, packet: &abi::Traced) -> bool {
        let mut readers = self.0.iter().enumerate();
        readers.any(|(place, reader)| reader.as_ref().is_some_and(|reader| reader.wants(place, packet)))
    }

    /// Shows a packet to those who want to see it.
    pub(super) fn show(&mut self, packet: &abi::Traced, shown: &Traced) {
        for (place, reader) in self.0.iter_mut().enumerate() {
            if let Some(reader) = reader.as_mut().filter(|reader| reader.wants(place, packet)) {
                reader.show(shown);
            }
        }
    }

    /// Services are in these slots now. Where their readers' are, by place; `None`: that one is told that it is over.
    pub(super) fn follow(
        &mut self,
        slots: &BTreeMap<ServiceName, u16>,
        at: Timestamp,
    ) -> Vec<(usize, Option<u16>)> {
        let mut all = Vec::new();
        for (place, reader) in self.0.iter_mut().enumerate() {
            let Some(service) = reader.as_ref().and_then(|reader| reader.service.as_ref()) else { continue };
            let slot = slots.get(service).copied();
            if slot.is_none() {
                let why = format!("service {}/{} is not in the configuration any more", service.0, service.1);
                // Who has no room even for that sees the end.
                let _ = reader.take().map(|reader| reader.note(at, Some(why)));
            }
            all.push((place, slot));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::control::protocol::example;

    fn now() -> Timestamp {
        SystemTime::UNIX_EPOCH.into()
    }

    /// One who reads in the first place.
    fn reader(service: Option<ServiceName>) -> (Readers, mpsc::Receiver<TraceLine>) {
        let (reader, lines) = Reader::new(service, 7, 0);
        let mut readers = Readers::default();
        readers.put(0, reader);
        (readers, lines)
    }

    fn packet(filters: u8, at_ns: u64) -> abi::Traced {
        abi::Traced { filters, at_ns, ..abi::Traced::default() }
    }

    fn note(missed: u64, ended: Option<&str>) -> TraceLine {
        TraceLine::Note(TraceNote { at: now(), missed, ended: ended.map(ToOwned::to_owned) })
    }

    fn shown(missed: u64) -> TraceLine {
        TraceLine::Packet(Box::new(Traced { missed, ..example::traced() }))
    }

    #[test]
    fn a_packet_is_wanted_by_who_is_in_a_place_that_it_is_for_and_was_there_before_it() {
        let (mut readers, lines) = reader(None);
        for (filters, at_ns, is_wanted) in [(1, 7, true), (1, 6, false), (2, 7, false), (3, 8, true)] {
            assert_eq!(readers.want(&packet(filters, at_ns)), is_wanted, "{filters} at {at_ns}");
        }
        drop(lines);
        assert!(!readers.want(&packet(1, 7)), "nobody is left");
        assert_eq!(readers.forget_gone(), [0]);
        assert!(readers.is_empty());
    }

    #[test]
    fn a_reader_that_is_slow_is_told_how_much_it_missed() {
        let (mut readers, mut lines) = reader(None);
        let most = WAITING - LAST;
        (0..most + 3).for_each(|_| readers.show(&packet(1, 7), &example::traced()));
        for _ in 0..most {
            assert_eq!(lines.try_recv(), Ok(shown(0)));
        }
        readers.show(&packet(1, 7), &example::traced());
        assert_eq!(lines.try_recv(), Ok(shown(3)));
    }

    #[test]
    fn what_was_left_out_is_told_by_the_next_packet_or_by_itself_where_none_comes() {
        let (mut readers, mut lines) = reader(None);
        readers.count([5, 0, 0, 0], now());
        assert!(lines.try_recv().is_err(), "the next packet may come at once");
        readers.show(&packet(1, 7), &example::traced());
        assert_eq!(lines.try_recv(), Ok(shown(5)));
        readers.count([7, 0, 0, 0], now());
        readers.count([10, 0, 0, 0], now());
        assert_eq!(lines.try_recv(), Ok(note(2, None)));
        readers.count([10, 0, 0, 0], now());
        assert_eq!(lines.try_recv(), Ok(note(3, None)));
        readers.count([10, 0, 0, 0], now());
        assert!(lines.try_recv().is_err(), "nothing is told twice");
    }

    #[test]
    fn a_service_is_followed_by_its_name_and_its_trace_ends_with_it() {
        let name = |service: &str| ("passwords".to_owned(), service.to_owned());
        let (mut readers, mut lines) = reader(Some(name("web")));
        let (all, mut of_all) = Reader::new(None, 0, 0);
        readers.put(1, all);
        let moved = BTreeMap::from([(name("web"), 3), (name("api"), 1)]);
        assert_eq!(readers.follow(&moved, now()), [(0, Some(3))]);
        assert!(lines.try_recv().is_err());
        // However slow it is.
        (0..2 * WAITING).for_each(|_| readers.show(&packet(1, 7), &example::traced()));
        let gone = BTreeMap::from([(name("api"), 3)]);
        assert_eq!(readers.follow(&gone, now()), [(0, None)], "whoever else is in its slot now");
        let mut told = Vec::new();
        while let Ok(line) = lines.try_recv() {
            told.push(line);
        }
        let missed = (WAITING + LAST) as u64;
        let why = "service passwords/web is not in the configuration any more";
        assert_eq!(told.last(), Some(&note(missed, Some(why))));
        assert!(lines.is_closed() && !readers.is_empty());
        assert!(of_all.try_recv().is_err() && !of_all.is_closed());
        assert_eq!(readers.follow(&gone, now()), []);
    }
}
