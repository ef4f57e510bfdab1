//! Packets for people who want to see them (`balancer trace`): who wants to see which, and what they are called.
//!
//! A trace lasts as long as its client reads, which is looked at every second; the packet path stops by itself soon after
//! a daemon that is gone. Bounded: so many traces at once, so many packets a second (the packet path), so many that wait for
//! a reader; what is left out is counted, and told. Deliberately not here: what each reader is told (`readers`), and how a packet
//! is shown.

mod readers;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use balancer_common::abi::{self, Address, Port};
use balancer_common::flow::flags;
use balancer_common::limits::MAX_TRACES;
use balancer_common::verdict::Reason;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::control::protocol::{Ends, TraceLine, TraceQuery, Traced, Verdict};
use crate::dataplane::DataplaneError;
use crate::dataplane::clock::monotonic_ns;
use crate::dataplane::ring::{self, Ring};
use crate::dataplane::traces::{Tracer, Wish};
use crate::policy::{BackendIndex, PoolIndex, ServiceIndex};

use self::readers::{Reader, Readers, ServiceName};
use super::Daemon;
use super::parts::Parts;

/// How often it is looked whether anybody still reads.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// For how long the packet path goes on by itself: some looks that come late.
const LASTS: Duration = Duration::from_secs(5);

/// The way to whoever wants to see packets.
pub(super) type Reply = oneshot::Sender<Result<mpsc::Receiver<TraceLine>, String>>;

/// Who sees packets.
pub(super) struct Traces {
    tracer: Tracer,
    told: AsyncFd<Ring<abi::Traced>>,
    readers: Readers,
    next_look: Option<Instant>,
}

impl Traces {
    pub(super) fn new(tracer: Tracer, told: AsyncFd<Ring<abi::Traced>>) -> Self {
        Self { tracer, told, readers: Readers::default(), next_look: None }
    }

    /// What the packet path tells next; waits until there is something.
    pub(super) async fn heard(&mut self) -> Vec<abi::Traced> {
        ring::heard(&mut self.told).await
    }

    /// When it is time to look; `None`: nobody reads.
    pub(super) const fn next_look(&self) -> Option<Instant> {
        self.next_look
    }

    /// `service`: only its packets are wanted, and it is in this slot.
    fn begin(
        &mut self,
        client: Option<IpAddr>,
        service: Option<(ServiceName, u16)>,
    ) -> Result<mpsc::Receiver<TraceLine>, String> {
        self.look();
        let (service, slot) = service.unzip();
        let since_ns = monotonic_ns();
        let tracer = &mut self.tracer;
        let missed = tracer.missed().map_err(|error| error.to_string())?;
        let wish = Wish { client, service: slot };
        let place = tracer.begin(wish, LASTS).map_err(|error| error.to_string())?;
        let place = place.ok_or_else(|| {
            format!("{MAX_TRACES} traces are under way, as many as there may be at once: end one of them")
        })?;
        let (reader, lines) = Reader::new(service, since_ns, missed[place]);
        self.readers.put(place, reader);
        self.next_look.get_or_insert_with(|| Instant::now() + LOOK_EVERY);
        Ok(lines)
    }

    /// Who is gone is forgotten, and for all others it goes on.
    fn look(&mut self) {
        let Self { tracer, readers, .. } = self;
        let mut outcome = Ok(());
        for place in readers.forget_gone() {
            outcome = outcome.and(tracer.end(place, LASTS));
        }
        let is_any_left = !readers.is_empty();
        if is_any_left {
            let missed = tracer.extend(LASTS).and_then(|()| tracer.missed());
            outcome = outcome.and(missed.map(|missed| readers.count(missed, SystemTime::now().into())));
        }
        self.next_look = is_any_left.then(|| Instant::now() + LOOK_EVERY);
        warn_of(outcome);
    }

    /// Services are in these slots now.
    fn follow(&mut self, slots: &BTreeMap<ServiceName, u16>) {
        for (place, slot) in self.readers.follow(slots, SystemTime::now().into()) {
            warn_of(match slot {
                Some(slot) => self.tracer.lead(place, slot, LASTS),
                None => self.tracer.end(place, LASTS),
            });
        }
    }
}

fn warn_of(outcome: Result<(), DataplaneError>) {
    if let Err(error) = outcome {
        warn!(event = "trace", error = %error, "traces may show less than there is");
    }
}

impl Daemon {
    /// Somebody wants to see packets.
    pub(super) fn begin_trace(&mut self, query: &TraceQuery, reply: Reply) {
        let service = query.service.as_ref().map(|service| named(&slots(&self.parts), service)).transpose();
        let begun = service.and_then(|service| self.traces.begin(query.client, service));
        if begun.is_ok() {
            let client = query.client.map(|client| client.to_string());
            info!(
                event = "trace",
                client = client.as_deref().unwrap_or("-"),
                service = query.service.as_deref().unwrap_or("-"),
                "packets are shown to somebody"
            );
        }
        // Who asked may be gone.
        let _ = reply.send(begun);
    }

    /// Time to look whether anybody still wants to.
    pub(super) fn look_after_traces(&mut self) {
        self.traces.look();
    }

    /// Services may be in other slots, or not be there any more.
    pub(super) fn lead_traces(&mut self) {
        self.traces.follow(&slots(&self.parts));
    }

    /// Packets came for those who want to see them.
    pub(super) fn traced(&mut self, packets: &[abi::Traced]) {
        let (now, now_ns) = (SystemTime::now(), monotonic_ns());
        for packet in packets {
            if !self.traces.readers.want(packet) {
                continue;
            }
            let age = Duration::from_nanos(now_ns.saturating_sub(packet.at_ns));
            let shown = self.shown(packet, now.checked_sub(age).unwrap_or(now));
            self.traces.readers.show(packet, &shown);
        }
    }

    /// A packet by the names of what it met.
    fn shown(&self, packet: &abi::Traced, at: SystemTime) -> Traced {
        let of_service = self.live.service(packet.service);
        let of_pool = self.backend_of(packet, of_service.map(|(pool, _)| pool));
        let is_tcp = packet.protocol == TCP;
        let has_ports = is_tcp && packet.is_fragment == 0;
        let before = ends(&packet.before, has_ports);
        let (verdict, reason) = fate(packet);
        Traced {
            at: at.into(),
            interface: self.interfaces.name_of(packet.ifindex).map(ToOwned::to_owned),
            protocol: protocol(packet.protocol),
            flags: flags_of(packet),
            sequence: has_ports.then_some(packet.sequence),
            acknowledgement: (has_ports && packet.flags & flags::ACK != 0).then_some(packet.acknowledgement),
            bytes: packet.length,
            verdict,
            reason: reason.map(|reason| reason.name().to_owned()),
            became: (verdict == Verdict::Forwarded).then(|| ends(&packet.after, has_ports)).flatten(),
            pool: of_service
                .map(|(pool, _)| pool)
                .or(of_pool.map(|(pool, _)| pool))
                .map(|pool| self.pool_name(pool).to_owned()),
            service: of_service.map(|(PoolIndex(pool), ServiceIndex(service))| {
                self.parts.config.pools[pool].services[service].name.clone()
            }),
            backend: of_pool.map(|(pool, backend)| self.backend_name(pool, backend).to_owned()),
            from: before.as_ref().map(|ends| ends.from.clone()),
            to: before.map(|ends| ends.to),
            missed: 0,
        }
    }

    /// Pool and backend at one of the packet's ends: of this pool, if that is known.
    fn backend_of(&self, packet: &abi::Traced, pool: Option<PoolIndex>) -> Option<(PoolIndex, BackendIndex)> {
        let ends = [packet.before.source, packet.after.destination].map(IpAddr::from);
        let pools = self.parts.config.pools.iter().enumerate().map(|(index, pool)| (PoolIndex(index), pool));
        pools.filter(|(index, _)| pool.is_none_or(|pool| pool == *index)).find_map(|(index, pool)| {
            let backend = pool.backends.iter().position(|backend| ends.contains(&backend.address))?;
            Some((index, BackendIndex(backend)))
        })
    }
}

/// Where services are.
fn slots(parts: &Parts) -> BTreeMap<ServiceName, u16> {
    let pools = parts.config.pools.iter().zip(&parts.slots);
    let all = pools.flat_map(|(pool, slots)| {
        let services = pool.services.iter().zip(&slots.services);
        services.map(|(service, slot)| ((pool.name.clone(), service.name.clone()), slot.index))
    });
    all.collect()
}

/// The service with this name, or this pool's and this name.
fn named(slots: &BTreeMap<ServiceName, u16>, wanted: &str) -> Result<(ServiceName, u16), String> {
    let full = |(pool, service): &ServiceName| format!("{pool}/{service}");
    let found: Vec<_> = slots.iter().filter(|(name, _)| name.1 == wanted || full(name) == wanted).collect();
    match &found[..] {
        [] => Err(format!("there is no service {wanted:?}; `balancer status` lists them")),
        [(name, slot)] => Ok(((*name).clone(), **slot)),
        several => {
            let names: Vec<_> = several.iter().map(|(name, _)| full(name)).collect();
            Err(format!("several services are called {wanted:?}: name one of {}", names.join(", ")))
        }
    }
}

const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

fn protocol(number: u8) -> Option<String> {
    Some(match number {
        0 => return None,
        TCP => "tcp".to_owned(),
        ICMP => "icmp".to_owned(),
        ICMPV6 => "icmpv6".to_owned(),
        other => other.to_string(),
    })
}

/// `None`: it isn't IP.
fn ends(ends: &abi::Ends, has_ports: bool) -> Option<Ends> {
    if ends.source == Address::NONE && ends.destination == Address::NONE {
        return None;
    }
    let text = |address: Address, port: Port| {
        if has_ports { abi::socket(address, port).to_string() } else { IpAddr::from(address).to_string() }
    };
    Some(Ends {
        from: text(ends.source, ends.source_port),
        to: text(ends.destination, ends.destination_port),
    })
}

/// What tells packets of a protocol apart.
fn flags_of(packet: &abi::Traced) -> Option<String> {
    const NAMES: [(u8, &str); 6] = [
        (flags::SYN, "syn"),
        (flags::FIN, "fin"),
        (flags::RST, "rst"),
        (flags::PSH, "psh"),
        (flags::ACK, "ack"),
        (flags::URG, "urg"),
    ];
    match packet.protocol {
        _ if packet.is_fragment != 0 => Some("fragment".to_owned()),
        TCP => {
            let set = NAMES.iter().filter(|(bit, _)| packet.flags & bit != 0).map(|(_, name)| *name);
            Some(set.collect::<Vec<_>>().join(","))
        }
        ICMP | ICMPV6 => {
            let [kind, code] = packet.before.source_port.to_wire();
            Some(format!("type {kind} code {code}"))
        }
        _ => None,
    }
}

fn fate(packet: &abi::Traced) -> (Verdict, Option<Reason>) {
    let reason = Reason::from_number(packet.reason);
    match packet.fate {
        abi::Traced::FORWARDED => (Verdict::Forwarded, None),
        abi::Traced::PASSED_COUNTED => (Verdict::Passed, reason),
        abi::Traced::DROPPED => (Verdict::Dropped, reason),
        abi::Traced::ANSWERED => (Verdict::Answered, reason),
        _ => (Verdict::Passed, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(protocol: u8, flags: u8) -> abi::Traced {
        abi::Traced { protocol, flags, ..abi::Traced::default() }
    }

    #[test]
    fn what_tells_packets_apart_is_told_by_its_name() {
        let icmp = abi::Traced {
            before: abi::Ends { source_port: Port::from_wire([3, 4]), ..abi::Ends::NONE },
            ..packet(ICMP, 0)
        };
        let fragment = abi::Traced { is_fragment: 1, ..packet(TCP, flags::SYN) };
        for (packet, of, told) in [
            (packet(TCP, flags::SYN), Some("tcp"), Some("syn")),
            (packet(TCP, 0xff), Some("tcp"), Some("syn,fin,rst,psh,ack,urg")),
            (packet(TCP, 0), Some("tcp"), Some("")),
            (icmp, Some("icmp"), Some("type 3 code 4")),
            (fragment, Some("tcp"), Some("fragment")),
            (packet(17, 0), Some("17"), None),
            (packet(0, 0), None, None),
        ] {
            assert_eq!((protocol(packet.protocol).as_deref(), flags_of(&packet).as_deref()), (of, told));
        }
    }

    #[test]
    fn addresses_have_ports_where_their_protocol_has_some() {
        let of = |address: &str| Address::from(address.parse::<IpAddr>().unwrap());
        let ends_of = |source, destination| abi::Ends {
            source: of(source),
            destination: of(destination),
            source_port: Port::new(40_000),
            destination_port: Port::new(443),
            padding: 0,
        };
        let four = ends_of("192.0.2.7", "203.0.113.10");
        let told = |from: &str, to: &str| Some(Ends { from: from.to_owned(), to: to.to_owned() });
        assert_eq!(ends(&four, true), told("192.0.2.7:40000", "203.0.113.10:443"));
        assert_eq!(ends(&four, false), told("192.0.2.7", "203.0.113.10"));
        let six = ends_of("2001:db8::7", "2001:db8::10");
        assert_eq!(ends(&six, true), told("[2001:db8::7]:40000", "[2001:db8::10]:443"));
        assert_eq!(ends(&abi::Ends::NONE, true), None);
    }

    #[test]
    fn a_packets_fate_comes_with_its_reason_if_it_has_one() {
        let of = |fate| abi::Traced { fate, reason: Reason::NoBackend as u8, ..abi::Traced::default() };
        let reason = Some(Reason::NoBackend);
        for (number, wanted) in [
            (abi::Traced::FORWARDED, (Verdict::Forwarded, None)),
            (abi::Traced::PASSED, (Verdict::Passed, None)),
            (abi::Traced::PASSED_COUNTED, (Verdict::Passed, reason)),
            (abi::Traced::DROPPED, (Verdict::Dropped, reason)),
            (abi::Traced::ANSWERED, (Verdict::Answered, reason)),
        ] {
            assert_eq!(fate(&of(number)), wanted);
        }
    }

    #[test]
    fn a_service_is_named_by_its_own_name_if_there_is_one_of_it_or_with_its_pools() {
        let slots = [("passwords", "web", 1), ("passwords", "api", 2), ("mails", "web", 3)];
        let name = |pool: &str, service: &str| (pool.to_owned(), service.to_owned());
        let slots = slots.map(|(pool, service, slot)| (name(pool, service), slot)).into();
        assert_eq!(named(&slots, "api"), Ok((name("passwords", "api"), 2)));
        assert_eq!(named(&slots, "mails/web"), Ok((name("mails", "web"), 3)));
        let several = named(&slots, "web").unwrap_err();
        assert!(several.ends_with("name one of mails/web, passwords/web"), "{several}");
        assert!(named(&slots, "smtp").unwrap_err().starts_with("there is no service \"smtp\""));
    }
}
