//! The packet path: parse -> flow -> (service -> backend -> new flow) -> forward.
//!
//! An established flow's packet takes one lookup and leaves, as a rule by the `express`. Only a SYN, or what belongs to no
//! flow, asks for a service.
//! The iron rule: what is for a service is translated, or answered or dropped with a reason, and never reaches the
//! kernel's own stack; everything else passes byte-identical.
//!
//! Each stage is a subprogram that reads the packet anew, and is called from here: the stacks of all that are under way
//! together have 512 bytes, and the verifier walks a subprogram once for every state that it is called in, of which there
//! are few here. What a stage would call from one place alone is part of it: where the kernel keeps returns from being
//! predicted ("Safe RET", on AMD), a call costs 10 ns, which is more than most of what is done here.

use aya_ebpf::programs::XdpContext;
use balancer_common::abi::{Address4, Address6, FlowKey};
use balancer_common::flow::Kind;
use balancer_common::table::Hash;
use balancer_common::verdict::{Outcome, Reason, Stage, Verdict};
use network_types::eth::EthHdr;

use crate::craft::Craft;
use crate::draft;
use crate::established::established;
use crate::express::express;
use crate::family::Family;
use crate::fetch;
use crate::flow_table;
use crate::handshake::handshake;
use crate::hold::hold;
use crate::icmp::{Icmp, icmp, unreachable};
use crate::parse::{Look, Network, Packet, Upper, header, network};
use crate::retry::retry;
use crate::service;
use crate::subprograms::Met;
use crate::unknown::{foresee, opened, unknown};

/// A packet's fate.
#[inline(always)]
pub(crate) fn decide(ctx: &XdpContext) -> Verdict {
    match network(ctx) {
        Network::Ipv4 => of_family::<Address4>(ctx),
        Network::Ipv6 => of_family::<Address6>(ctx),
        Network::Tagged => Verdict::pass_counted(Reason::Tagged),
        Network::Other => Verdict::PASS,
    }
}

#[inline(always)]
fn of_family<A: Icmp + Craft>(ctx: &XdpContext) -> Verdict {
    match express::<A>(ctx) {
        Some(verdict) => verdict,
        None => through_stages::<A>(ctx),
    }
}

#[inline(always)]
fn through_stages<A: Icmp + Craft>(ctx: &XdpContext) -> Verdict {
    let mut verdict = by_flow::<A>(ctx);
    if let Outcome::Next(Stage::Handshake(line)) = verdict.outcome() {
        verdict = handshake::<A>(ctx, line);
    }
    if verdict.outcome() == Outcome::Next(Stage::Flow) {
        verdict = by_flow::<A>(ctx);
    }
    if let Outcome::Next(Stage::Established(line)) = verdict.outcome() {
        verdict = established::<A>(ctx, line);
    }
    if verdict.outcome() == Outcome::Next(Stage::Icmp) {
        verdict = unreachable::<A>(ctx);
    }
    if verdict.outcome() == Outcome::Next(Stage::Icmp) {
        verdict = icmp::<A>(ctx);
    }
    if verdict.outcome() == Outcome::Next(Stage::Retry) {
        verdict = retry::<A>(ctx);
    }
    if let Outcome::Next(Stage::Unknown(sequence)) = verdict.outcome() {
        draft::afresh::<A>(sequence);
        verdict = Verdict::next(Stage::Again);
    }
    if verdict.outcome() == Outcome::Next(Stage::Again) {
        verdict = unknown::<A>(ctx);
    }
    if verdict.outcome() == Outcome::Next(Stage::Open) {
        verdict = opened::<A>(ctx);
    }
    if verdict.outcome() == Outcome::Next(Stage::Hold) { hold::<A>(ctx) } else { verdict }
}

/// Looks for a packet's flow.
#[inline(never)]
fn by_flow<A: Icmp>(ctx: &XdpContext) -> Verdict {
    let layout = A::layout(ctx, Look::First);
    match layout.upper {
        Upper::Tcp => match Packet::<A>::at(ctx, &layout) {
            Some(packet) => segment(&packet),
            None => Verdict::PASS,
        },
        Upper::Icmp => Verdict::next(Stage::Icmp),
        Upper::Other => Verdict::PASS,
        Upper::Wrong(reason) => match header::<A::Header>(ctx, EthHdr::LEN) {
            Some(ip) if service::may_be_ours(A::source(ip).into(), A::destination(ip).into()) => {
                Verdict::drop(reason)
            }
            _ => Verdict::PASS,
        },
    }
}

#[inline(always)]
fn segment<A: Icmp>(packet: &Packet<'_, A>) -> Verdict {
    let key: FlowKey<A> = packet.key();
    let hash = A::hash_of(&key);
    match (packet.kind(), draft::draft::<A>()) {
        // Before its flow is looked for: what a new one needs is fetched meanwhile.
        (Kind::Syn, Some(draft)) => {
            draft.set_client(key, hash);
            foresee(draft);
        }
        _ => fetch_handshake(packet, &key, hash),
    }
    let sequence = flow_table::sequence(hash);
    match flow_table::met(&key, hash) {
        Some(Met::Established(index)) => Verdict::next(Stage::Established(index.0)),
        Some(Met::HalfOpen(index)) => Verdict::next(Stage::Handshake(index.0)),
        None => Verdict::next(Stage::Unknown(sequence)),
    }
}

/// Has a segment's handshake fetched. Most of a service that come here are of one, and all others cost next to nothing.
#[inline(always)]
fn fetch_handshake<A: Family>(packet: &Packet<'_, A>, key: &FlowKey<A>, hash: Hash) {
    // With dnat a backend answers to the client itself.
    let is_answer = matches!(packet.kind(), Kind::SynAck) && service::is_known(key.source.into());
    if is_answer || service::is_known(key.destination.into()) {
        fetch::handshake::<A>(hash);
    }
}
