//! The differences between balancer and the kernel's NAT that are meant, and why. There are no others.

use std::{collections::BTreeMap, fmt};

use super::{frame::ETHERNET_BYTES, icmp, scene::End, side::Emerged};
use crate::packet::flags::RST;

macro_rules! differences {
    ($($name:ident: $claim:literal, $explains:expr;)+) => {
        /// A meant difference.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Listed {
            $(#[doc = $claim] $name,)+
        }

        impl Listed {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// What differs, and why that is right.
            #[must_use]
            pub fn claim(self) -> &'static str {
                match self { $(Self::$name => $claim),+ }
            }

            /// Whether it is this difference, and nothing beside it, that the two sides have here.
            pub(super) fn explains(self, case: Case<'_>) -> bool {
                let explains: fn(Case<'_>) -> bool = match self { $(Self::$name => $explains),+ };
                case.ours != case.kernels && explains(case)
            }
        }
    };
}

differences! {
    Padding: "What follows the IP packet in a frame is cut off by the kernel and kept by us: no receiver reads it, and \
        cutting it off would cost every packet a look.",
        is_padding;
    StacksReset: "What no TCP sends, a stray SYN-ACK and an ACK before the SYN-ACK pass the kernel's NAT by, and its own \
        stack answers with a RST, which gives scanners and forgers an answer; we drop them, with a reason each.",
        |case| case.ours_is_silent() && case.kernels_own_reset();
    ResetsTos: "The kernel's RST to a segment of no connection repeats the segment's DSCP; ours has none, so that nobody \
        chooses how our own packets are queued.",
        |case| {
            let answer = |side: &Emerged| side.only_at(case.from).and_then(without_tos);
            let ours = answer(case.ours);
            ours.is_some() && ours == answer(case.kernels)
        };
    HandshakeChecked: "The kernel, told to be liberal, lets a handshake be completed by who doesn't know its sequence \
        numbers; with us only who has seen the SYN-ACK makes an established flow.",
        |case| case.ours_is_silent() && case.only_kernel_forwards();
    GatewaysError: "Errors of the gateway's own say the same, about the same packet, to and from the same addresses; \
        identification, don't-fragment and TOS are what each makes them, and we quote at most 512 bytes.",
        is_gateways_error;
    OptionsKept: "The kernel acts on record route, timestamp and source routes, and objects to options that are cut; we \
        leave options alone: the packet is not forwarded by the host that they ask.",
        keeps_options;
    NotFragmented: "A packet that is too long for the way out, and may be fragmented, is fragmented by the kernel and \
        dropped with a reason by us: TCP hosts have not sent such packets for decades.",
        |case| case.ours_is_silent() && case.kernels.at(case.from.other()).len() > 1;
    NotReassembled: "The kernel reassembles fragments before it translates; we drop fragments of TCP for a service, with a \
        reason: to keep them is to hold memory for whoever sends first fragments only.",
        |case| case.ours_is_silent() && !case.kernels.at(case.from.other()).is_empty();
    IpChecksum: "A wrong IP checksum is a drop for the kernel; we change it by what we change, so that it stays wrong, and \
        the next hop drops the packet.",
        |case| case.only_we_forward(|packet| packet.get(..20).is_some_and(|header| icmp::checksum(header) != 0));
    IcmpChecksum: "A wrong ICMP checksum is a drop for the kernel's NAT; we change it by what we change, so that it stays \
        wrong, and the receiver drops the message.",
        |case| case.only_we_forward(|_| icmp::Seen::read(&case.ours.at(case.from.other())[0]).is_none());
    SpoofedSource: "The kernel, which doesn't filter by reverse path here, takes SYNs from addresses that no client has: the \
        backend's, 240.0.0.0/4, and in IPv6 the gateway's own; we drop them as spoofed.",
        |case| case.ours_is_silent() && case.only_kernel_forwards();
    ObsoleteIcmp: "The kernel translates source quench, which has been obsolete since 2012 (RFC 6633); we leave it to the \
        gateway's stack, which ignores it.",
        |case| case.ours_is_silent() && case.only_kernel_forwards();
    SnatPort: "Masquerade takes any free port; we take only ports of snat_ports, so that the gateway's own connections never \
        meet a flow's: a client's port that isn't one of them, or that is taken, becomes another one of ours.",
        is_another_port;
    ExtensionHeaders: "The kernel looks for TCP behind any number of extension headers, and doesn't mind a route that isn't at \
        its end; we look behind six, and drop what asks for more work than any client does.",
        |case| case.ours_is_silent() && case.only_kernel_forwards();
    NotRouted: "A segment of no connection from a backend to a client's address is no business of the kernel's NAT, and \
        routed as it is; our gateway routes nothing, and a connection has to come from the client.",
        |case| case.ours_is_silent() && case.kernel_routes();
}

const TCP: u8 = 6;

/// A frame and what became of it on both sides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) from: End,
    pub(super) frame: &'a [u8],
    pub(super) ours: &'a Emerged,
    pub(super) kernels: &'a Emerged,
}

impl Case<'_> {
    fn ours_is_silent(&self) -> bool {
        *self.ours == Emerged::default()
    }

    fn only_kernel_forwards(&self) -> bool {
        self.kernels.only_at(self.from.other()).is_some()
    }

    /// From the same address to the same address on the kernel's side.
    fn kernel_routes(&self) -> bool {
        let routed = self.kernels.only_at(self.from.other()).and_then(addresses);
        routed.is_some() && routed == addresses(self.frame)
    }

    /// One packet comes out on our side, of which this holds, and nothing on the kernel's.
    fn only_we_forward(&self, is_so: impl Fn(&[u8]) -> bool) -> bool {
        let forwarded = self.ours.only_at(self.from.other());
        *self.kernels == Emerged::default() && forwarded.is_some_and(|frame| is_so(&frame[ETHERNET_BYTES..]))
    }

    /// A RST goes back to the sender, and nothing on.
    fn kernels_own_reset(&self) -> bool {
        self.kernels.only_at(self.from).and_then(tcp_flags).is_some_and(|flags| flags & RST != 0)
    }
}

/// Source and destination of an IP packet.
fn addresses(frame: &[u8]) -> Option<&[u8]> {
    let packet = frame.get(ETHERNET_BYTES..)?;
    if packet.first()? >> 4 == 4 { packet.get(12..20) } else { packet.get(8..40) }
}

/// The flag byte of a TCP segment behind an IP header without options.
fn tcp_flags(frame: &[u8]) -> Option<u8> {
    let packet = frame.get(ETHERNET_BYTES..)?;
    let (protocol, header) =
        if packet.first()? >> 4 == 4 { (packet.get(9)?, 20) } else { (packet.get(6)?, 40) };
    (*protocol == TCP).then(|| packet.get(header + 13).copied()).flatten()
}

/// Each end has the same frames, but for the padding that went in.
fn is_padding(case: Case<'_>) -> bool {
    let Some(padding) = padding(case.frame) else { return false };
    [End::Client, End::Backend].into_iter().all(|end| {
        let (ours, kernels) = (case.ours.at(end), case.kernels.at(end));
        let is_padded = |(ours, kernels): (&Vec<u8>, &Vec<u8>)| {
            ours.strip_suffix(padding).is_some_and(|packet| packet == kernels)
        };
        ours.len() == kernels.len() && ours.iter().zip(kernels).all(is_padded)
    })
}

/// What follows the IP packet of a frame; `None` when nothing does.
fn padding(frame: &[u8]) -> Option<&[u8]> {
    let packet = frame.get(ETHERNET_BYTES..)?;
    let word = |at| Some(usize::from(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?])));
    let length = if packet.first()? >> 4 == 4 { word(2)? } else { 40 + word(4)? };
    packet.get(length..).filter(|padding| !padding.is_empty())
}

/// Bytes of a packet that we quote at most.
const QUOTE_MAX: usize = 512;

fn is_gateways_error(case: Case<'_>) -> bool {
    // Whole words of it.
    let quoted = (case.frame.len() - ETHERNET_BYTES).min(QUOTE_MAX) / 4 * 4;
    let read = |side: &Emerged| side.only_at(case.from).and_then(icmp::Seen::read);
    let (Some(ours), Some(kernels)) = (read(case.ours), read(case.kernels)) else { return false };
    ours.error.quote.len() == quoted && ours.agrees_with(&kernels)
}

/// An IP packet with a right checksum, without DSCP and ECN.
fn without_tos(frame: &[u8]) -> Option<Vec<u8>> {
    let mut packet = frame.get(ETHERNET_BYTES..)?.to_vec();
    if packet.first()? >> 4 == 6 {
        packet[0] &= 0xf0;
        packet[1] &= 0x0f;
        return Some(packet);
    }
    let is_right = icmp::checksum(packet.get(..20)?) == 0;
    packet[1] = 0;
    packet[10..12].fill(0);
    is_right.then_some(packet)
}

/// We forward, with the options as they came; whatever the kernel does.
fn keeps_options(case: Case<'_>) -> bool {
    let options = |frame: &[u8]| {
        let end = ETHERNET_BYTES + usize::from(frame.get(ETHERNET_BYTES)? & 0xf) * 4;
        frame.get(ETHERNET_BYTES + 20..end).map(<[u8]>::to_vec)
    };
    let kept = case.ours.only_at(case.from.other()).and_then(options);
    kept.is_some_and(|kept| !kept.is_empty() && Some(kept) == options(case.frame))
}

/// The same segment but for its source port, which is one of balancer's, and its checksum, which is right.
fn is_another_port(case: Case<'_>) -> bool {
    let at_other_end = |side: &Emerged| side.only_at(case.from.other()).and_then(anonymous);
    let (Some(ours), Some(kernels)) = (at_other_end(case.ours), at_other_end(case.kernels)) else {
        return false;
    };
    ours.is_right && matches!(ours.port, 1024..=32767 | 61000..=65535) && ours.rest == kernels.rest
}

/// A TCP frame without its source port and checksum.
struct Anonymous {
    port: u16,
    is_right: bool,
    rest: Vec<u8>,
}

fn anonymous(frame: &[u8]) -> Option<Anonymous> {
    let mut rest = frame.to_vec();
    let header = if *frame.get(ETHERNET_BYTES)? >> 4 == 4 { 20 } else { 40 };
    let segment = frame.get(ETHERNET_BYTES + header..)?;
    let length = (segment.len() as u16).to_be_bytes();
    let summed = [addresses(frame)?, &[0, TCP], &length, segment].concat();
    let tcp = rest.get_mut(ETHERNET_BYTES + header..ETHERNET_BYTES + header + 18)?;
    tcp[..2].fill(0);
    tcp[16..].fill(0);
    let port = u16::from_be_bytes([segment[0], segment[1]]);
    Some(Anonymous { port, is_right: icmp::checksum(&summed) == 0, rest })
}

/// How many frames came out alike, and how many differed as listed.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// The same bytes, or the same silence, on both sides.
    pub same: u64,
    /// Meant differences.
    pub listed: BTreeMap<Listed, u64>,
}

impl Tally {
    /// One more frame.
    pub(super) fn count(&mut self, difference: Option<Listed>) {
        match difference {
            None => self.same += 1,
            Some(listed) => *self.listed.entry(listed).or_default() += 1,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} frames alike", self.same)?;
        self.listed.iter().try_for_each(|(listed, count)| write!(f, ", {count} {listed:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 packet of 20 bytes with padding of three.
    const PADDED: [u8; ETHERNET_BYTES + 23] = {
        let mut frame = [0; ETHERNET_BYTES + 23];
        frame[ETHERNET_BYTES] = 0x45;
        frame[ETHERNET_BYTES + 3] = 20;
        frame
    };

    fn at_backend(frames: &[&[u8]]) -> Emerged {
        let mut emerged = Emerged::default();
        emerged.at_mut(End::Backend).extend(frames.iter().map(|frame| frame.to_vec()));
        emerged
    }

    fn is_explained(listed: Listed, ours: &[&[u8]], kernels: &[&[u8]]) -> bool {
        let (ours, kernels) = (at_backend(ours), at_backend(kernels));
        listed.explains(Case { from: End::Client, frame: &PADDED, ours: &ours, kernels: &kernels })
    }

    #[test]
    fn padding_explains_no_other_bit() {
        let cut = &PADDED[..PADDED.len() - 3];
        assert!(is_explained(Listed::Padding, &[&PADDED], &[cut]));
        for bit in 0..PADDED.len() * 8 {
            let mut other = PADDED;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_explained(Listed::Padding, &[&other], &[cut]), "bit {bit}");
        }
    }

    #[test]
    fn padding_explains_no_frame_too_few_or_too_many() {
        let cut = &PADDED[..PADDED.len() - 3];
        for (ours, kernels) in
            [(&[] as &[&[u8]], &[cut] as &[&[u8]]), (&[&PADDED], &[]), (&[&PADDED, &PADDED], &[cut])]
        {
            assert!(!is_explained(Listed::Padding, ours, kernels), "{ours:02x?} {kernels:02x?}");
        }
    }

    #[test]
    fn silence_on_both_sides_is_no_difference() {
        for listed in Listed::ALL {
            assert!(!is_explained(*listed, &[], &[]), "{listed:?}");
        }
    }
}
