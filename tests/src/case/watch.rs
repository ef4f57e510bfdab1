//! What the program tells of each packet while somebody traces: with every packet of every case somebody does.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::{Array, Map, MapData, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use balancer_common::abi::{Ends, TraceState, Traced, Tracing, socket};
use balancer_common::limits::MAX_TRACES;
use balancer_common::verdict::Reason;
use balancer_user::dataplane::ring::Ring;
use balancer_user::dataplane::traces::{self, Tracer, Wish};

use super::expect::{Expect, Fate};
use super::model::{Arrival, Input};
use super::tables::second_handle;
use crate::packet::{Ethernet, Ip, Packet, WrongIp};

/// Longer than any test: nobody puts it off.
const LASTS: Duration = Duration::from_secs(24 * 3600);

/// Somebody who wants to see all packets.
pub(super) struct Watch {
    tracer: Tracer,
    told: Ring<Traced>,
    state: PerCpuArray<MapData, TraceState>,
    variables: Array<MapData, Tracing>,
}

impl Watch {
    pub(super) fn begin(ebpf: &mut Ebpf) -> Result<Self> {
        let state = PerCpuArray::try_from(Map::PerCpuArray(second_handle(ebpf, "TRACE_STATE")?))?;
        let variables = Array::try_from(Map::Array(second_handle(ebpf, ".bss")?))?;
        let mut watch =
            Self { told: traces::take_told(ebpf)?, tracer: Tracer::take(ebpf)?, state, variables };
        watch.want_all()?;
        Ok(watch)
    }

    /// Whatever was wanted before.
    pub(super) fn want_all(&mut self) -> Result<()> {
        self.want(&[Wish::default()], LASTS)
    }

    /// This, and nothing else, so long.
    pub(super) fn want(&mut self, wishes: &[Wish], lasts: Duration) -> Result<()> {
        (0..MAX_TRACES).try_for_each(|place| self.tracer.end(place, lasts))?;
        for wish in wishes {
            self.tracer.begin(*wish, lasts)?.context("a place for a trace")?;
        }
        Ok(())
    }

    /// Whether the program looks at packets for anybody.
    pub(super) fn is_on(&self) -> Result<bool> {
        Ok(self.variables.get(&0, 0)?.is_on != 0)
    }

    /// How many packets each wish has missed.
    pub(super) fn missed(&self) -> Result<[u64; MAX_TRACES]> {
        Ok(self.tracer.missed()?)
    }

    /// As if nothing had been told.
    pub(super) fn allow_anew(&mut self) -> Result<()> {
        let cpus = nr_cpus().map_err(|(what, error)| anyhow::anyhow!("{what}: {error}"))?;
        self.state.set(0, PerCpuValues::try_from(vec![TraceState::default(); cpus])?, 0)?;
        while self.told.read().1 {}
        Ok(())
    }

    /// What was told since then.
    pub(super) fn told(&mut self) -> Vec<Traced> {
        self.told.read().0
    }
}

/// Everything that isn't told as it was, one a line.
pub(super) fn differences(expected: &Expect, arrival: Arrival<'_>, told: &[Traced]) -> Vec<String> {
    let fate = expected.fate;
    let packet = match told {
        [] if matches!(fate, Fate::Passed(None)) => return Vec::new(),
        [packet] => packet,
        other => return vec![format!("one packet to be told of expected, {other:?} seen")],
    };
    let (verdict, reason) = match fate {
        Fate::ToBackend(..) | Fate::ToClient(_) => (Traced::FORWARDED, None),
        Fate::Passed(None) => (Traced::PASSED, None),
        Fate::Passed(reason) => (Traced::PASSED_COUNTED, reason),
        Fate::Answered(reason) => (Traced::ANSWERED, Some(reason)),
        Fate::Dropped(reason) => (Traced::DROPPED, Some(reason)),
    };
    let mut differences = Vec::new();
    let mut expect = |what: &str, wanted: String, seen: String| {
        if wanted != seen {
            differences.push(format!("traced {what}: {wanted} expected, {seen} seen"));
        }
    };
    let seen = reason.and(Reason::from_number(packet.reason));
    expect("fate", format!("{verdict} {reason:?}"), format!("{} {seen:?}", packet.fate));
    if let Input::Tcp(input) = arrival.input
        && is_plain(input)
    {
        let (from, to) = (canonical(input.source), canonical(input.destination));
        let wanted = (from, to, input.sequence, input.acknowledgement, input.flags);
        let (source, destination) = both(&packet.before);
        let seen = (source, destination, packet.sequence, packet.acknowledgement, packet.flags);
        expect("segment", format!("{wanted:?}"), format!("{seen:?}"));
        let after = both(&packet.after);
        match fate {
            Fate::ToBackend(member, _) => {
                expect("backend", member.address.to_string(), after.1.ip().to_string());
            }
            Fate::ToClient(client) => expect("client", client.to_string(), after.1.to_string()),
            Fate::Answered(_) => expect("asker", from.ip().to_string(), after.1.ip().to_string()),
            Fate::Passed(_) | Fate::Dropped(_) => {
                let wanted = match expected.instead_of(arrival.input) {
                    Some(packet) => (packet.source, packet.destination),
                    None => both(&packet.before),
                };
                expect("segment afterwards", format!("{wanted:?}"), format!("{after:?}"));
            }
        }
    }
    differences
}

/// Whether its TCP header is where it is looked for.
fn is_plain(packet: &Packet) -> bool {
    const FRAGMENT_BITS: u16 = 0x3fff;
    let Ethernet { tags, ether_type, cut_to, .. } = &packet.ethernet;
    let Ip { fragment, extensions, protocol, wrong, .. } = &packet.ip;
    let is_plain_frame = tags.is_empty() && ether_type.is_none() && cut_to.is_none();
    let is_plain_packet = fragment & FRAGMENT_BITS == 0 && extensions.is_empty() && protocol.is_none();
    is_plain_frame && is_plain_packet && *wrong == WrongIp::default()
}

/// An IPv4 address that an IPv6 packet has in its mapped form is told as what it is.
fn canonical(socket: SocketAddr) -> SocketAddr {
    SocketAddr::new(socket.ip().to_canonical(), socket.port())
}

fn both(ends: &Ends) -> (SocketAddr, SocketAddr) {
    (socket(ends.source, ends.source_port), socket(ends.destination, ends.destination_port))
}
