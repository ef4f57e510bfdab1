//! TCP segments without data, as frames that the wire could have brought: what is sent in somebody's name.

use balancer_common::abi::{Address4, Address6, FlowKey, WireAddress};
use balancer_common::checksum::Sum;

const PROTOCOL_TCP: u8 = 6;
const TCP_BYTES: usize = 20;
/// Where a TCP header has its checksum.
const CHECK: usize = 16;
/// What an IP header has beside addresses and lengths, as the kernel's own packets have it.
const HOPS: u8 = 64;

/// A segment, from a tuple's source to its destination.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a, A> {
    /// Who sends to whom.
    pub(super) key: FlowKey<A>,
    /// The frame's addresses.
    pub(super) source_mac: [u8; 6],
    pub(super) destination_mac: [u8; 6],
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    pub(super) flags: u8,
    /// As it stands in the header.
    pub(super) window: [u8; 2],
    /// Whole words.
    pub(super) options: &'a [u8],
    /// TTL or hop limit.
    pub(super) hops: u8,
    /// Type of service or traffic class.
    pub(super) traffic_class: u8,
}

impl<A: Header> Segment<'_, A> {
    /// With nothing in it but who sends to whom.
    pub(super) const fn new(key: FlowKey<A>, source_mac: [u8; 6], destination_mac: [u8; 6]) -> Self {
        Self {
            key,
            source_mac,
            destination_mac,
            sequence: 0,
            acknowledgement: 0,
            flags: 0,
            window: [0; 2],
            options: &[],
            hops: HOPS,
            traffic_class: 0,
        }
    }

    /// Writes the frame into a buffer, instead of what is in it.
    pub(super) fn write(&self, frame: &mut Vec<u8>) {
        frame.clear();
        frame.extend(self.destination_mac);
        frame.extend(self.source_mac);
        frame.extend(A::ETHER_TYPE.to_be_bytes());
        let length = TCP_BYTES + self.options.len();
        A::push_header(frame, self, length as u16);
        let tcp = frame.len();
        frame.extend(self.key.ports().to_ne_bytes());
        frame.extend(self.sequence.to_be_bytes());
        frame.extend(self.acknowledgement.to_be_bytes());
        frame.extend([((length / 4) << 4) as u8, self.flags]);
        frame.extend(self.window);
        frame.extend([0; 4]);
        frame.extend(self.options);
        let pseudo_header = self.key.destination.sum(self.key.source.sum(Sum::from(0)));
        let pseudo_header = pseudo_header.number(PROTOCOL_TCP.into()).number(length as u16);
        let [a, b] = pseudo_header.and(sum(&frame[tcp..])).checksum();
        (frame[tcp + CHECK], frame[tcp + CHECK + 1]) = (a, b);
    }

    /// The checksum that it has in a frame.
    pub(super) fn checksum(&self) -> [u8; 2] {
        let mut frame = Vec::new();
        self.write(&mut frame);
        let check = frame.len() - self.options.len() - TCP_BYTES + CHECK;
        [frame[check], frame[check + 1]]
    }
}

/// The sum of whole words.
fn sum(bytes: &[u8]) -> Sum {
    bytes.as_chunks::<2>().0.iter().fold(Sum::from(0), |sum, pair| sum.word(u16::from_ne_bytes(*pair)))
}

/// What differs between the families.
pub(super) trait Header: WireAddress {
    /// What a frame says that it brings.
    const ETHER_TYPE: u16;

    /// The IP header before so many bytes of TCP.
    fn push_header(frame: &mut Vec<u8>, segment: &Segment<'_, Self>, length: u16);
}

impl Header for Address4 {
    const ETHER_TYPE: u16 = 0x0800;

    fn push_header(frame: &mut Vec<u8>, segment: &Segment<'_, Self>, length: u16) {
        const BYTES: u16 = 20;
        let at = frame.len();
        frame.extend([0x45, segment.traffic_class]);
        frame.extend((BYTES + length).to_be_bytes());
        // No number, as it may not be fragmented.
        frame.extend([0, 0, 0x40, 0, segment.hops, PROTOCOL_TCP, 0, 0]);
        frame.extend(segment.key.source.to_wire());
        frame.extend(segment.key.destination.to_wire());
        let [a, b] = sum(&frame[at..]).checksum();
        (frame[at + 10], frame[at + 11]) = (a, b);
    }
}

impl Header for Address6 {
    const ETHER_TYPE: u16 = 0x86dd;

    fn push_header(frame: &mut Vec<u8>, segment: &Segment<'_, Self>, length: u16) {
        frame.extend([0x60 | segment.traffic_class >> 4, segment.traffic_class << 4, 0, 0]);
        frame.extend(length.to_be_bytes());
        frame.extend([PROTOCOL_TCP, segment.hops]);
        frame.extend(segment.key.source.to_wire());
        frame.extend(segment.key.destination.to_wire());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use balancer_common::abi::Port;

    use super::*;

    /// The sum over these bytes as a receiver makes it, which is right when it is all ones.
    fn received(bytes: impl IntoIterator<Item = u8>) -> u16 {
        let bytes: Vec<u8> = bytes.into_iter().collect();
        let words = bytes.chunks(2).map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]])));
        let mut sum: u64 = words.sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    fn segment<A: Header>(source: A, destination: A, options: &[u8]) -> Segment<'_, A> {
        let key =
            FlowKey { source, destination, source_port: Port::new(40_000), destination_port: Port::new(443) };
        Segment {
            sequence: 0x0102_0304,
            acknowledgement: 0x0506_0708,
            flags: 0x14,
            window: [0x12, 0x34],
            options,
            hops: 33,
            traffic_class: 0xb8,
            ..Segment::new(key, [2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        }
    }

    const TCP: [u8; 16] = [0x9c, 0x40, 0x01, 0xbb, 1, 2, 3, 4, 5, 6, 7, 8, 0x60, 0x14, 0x12, 0x34];

    #[test]
    fn every_field_of_ipv4_is_in_its_place() {
        let [source, destination] = [[192, 0, 2, 7], [203, 0, 113, 10]].map(Address4::from_wire);
        let mut frame = vec![1, 2, 3];
        segment(source, destination, &[2, 4, 5, 0xb4]).write(&mut frame);
        assert_eq!(frame[..14], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
        assert_eq!(frame[14..24], [0x45, 0xb8, 0, 44, 0, 0, 0x40, 0, 33, 6]);
        assert_eq!(frame[26..34], [192, 0, 2, 7, 203, 0, 113, 10]);
        assert_eq!(frame[34..50], TCP);
        assert_eq!(frame[52..], [0, 0, 2, 4, 5, 0xb4]);
    }

    #[test]
    fn every_field_of_ipv6_is_in_its_place() {
        let [source, destination] = [1, 2]
            .map(|last| Address6::from_wire([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]));
        let mut frame = Vec::new();
        segment(source, destination, &[2, 4, 5, 0xb4]).write(&mut frame);
        assert_eq!(frame[12..22], [0x86, 0xdd, 0x6b, 0x80, 0, 0, 0, 24, 6, 33]);
        assert_eq!((frame[37], frame[53]), (1, 2));
        assert_eq!(frame[54..70], TCP);
        assert_eq!(frame[72..], [0, 0, 2, 4, 5, 0xb4]);
    }

    proptest! {
        #[test]
        fn checksums_are_right(
            v4 in any::<[[u8; 4]; 2]>(),
            v6 in any::<[[u8; 16]; 2]>(),
            options in proptest::collection::vec(any::<[u8; 4]>(), 0..=10),
        ) {
            let options = options.as_flattened();
            let length = [0, 20 + options.len() as u8];
            let mut frame = Vec::new();
            let [source, destination] = v4.map(Address4::from_wire);
            segment(source, destination, options).write(&mut frame);
            prop_assert_eq!(received(frame[14..34].to_vec()), 0xffff);
            let pseudo = v4.concat().into_iter().chain([0, 6]).chain(length);
            prop_assert_eq!(received(pseudo.chain(frame[34..].to_vec())), 0xffff);
            let [source, destination] = v6.map(Address6::from_wire);
            segment(source, destination, options).write(&mut frame);
            let pseudo = v6.concat().into_iter().chain([0, 6]).chain(length);
            prop_assert_eq!(received(pseudo.chain(frame[54..].to_vec())), 0xffff);
        }
    }
}
