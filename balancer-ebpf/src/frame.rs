//! A frame with nothing unusual about it: in one buffer, no options or extensions of IP, TCP right behind. All places in it
//! are known beforehand, one comparison shows that they are there, and each is reached from the frame's beginning: a pointer
//! to each header would be one more that has to be kept somewhere while a table is looked at. For the same reason what is
//! in it is read again where it is needed again.
//!
//! Deliberately absent: every other frame, which is `parse`'s.
#![expect(unsafe_code, reason = "fields of a frame that was found to be long enough")]

use core::marker::PhantomData;
use core::ptr::from_ref;

use aya_ebpf::programs::XdpContext;
use balancer_common::abi::{Address4, Address6, FlowKey, Port, WireAddress};
use balancer_common::checksum;
use balancer_common::flow::Kind;
use network_types::eth::EthHdr;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use network_types::tcp::TcpHdr;

use crate::memory::ports;
use crate::parse::{FRAGMENT_BITS, PROTOCOL_TCP, data, data_end};
use crate::words::{load_from, store_to};

/// A family's header in such a frame, field by field.
pub(crate) trait Framed: WireAddress {
    /// Where TCP begins.
    const TCP: usize;

    /// Whether TCP follows at once, and all of it: no options, extensions or fragments.
    fn is_plain(frame: &Frame<Self>) -> bool;

    fn source_of(frame: &Frame<Self>) -> Self;
    fn destination_of(frame: &Frame<Self>) -> Self;

    /// The bits in which its addresses differ from a key's, one over the other. No jump for each word: nobody could foresee
    /// what none of them tells alone.
    fn difference(frame: &Frame<Self>, key: &FlowKey<Self>) -> u64;

    /// TTL or hop limit.
    fn hops_left_of(frame: &Frame<Self>) -> u8;

    /// The whole IP packet.
    fn ip_length_of(frame: &Frame<Self>) -> usize;

    /// One hop further, with a key's addresses; `delta` is what that does to the header's checksum, if it has one.
    fn forward_frame(frame: &Frame<Self>, becomes: &FlowKey<Self>, delta: u16);
}

/// Where a frame begins that is long enough for all headers.
pub(crate) struct Frame<A> {
    at: *mut u8,
    family: PhantomData<A>,
}

impl<A: Framed> Frame<A> {
    /// Where TCP ends, without options.
    const HEADERS: usize = A::TCP + TcpHdr::LEN;

    /// A segment that lies within its frame, if there is nothing unusual about it.
    #[inline(always)]
    pub(crate) fn plain(ctx: &XdpContext) -> Option<Self> {
        let at = data(ctx);
        if at + Self::HEADERS > data_end(ctx) {
            return None;
        }
        let frame = Self { at: at as *mut u8, family: PhantomData };
        let end = EthHdr::LEN + A::ip_length_of(&frame);
        let header_length = usize::from(frame.byte_of_tcp::<12>() >> 4) * 4;
        let is_plain = A::is_plain(&frame)
            && end <= frame_length(ctx)
            && header_length >= TcpHdr::LEN
            && A::TCP + header_length <= end;
        is_plain.then_some(frame)
    }

    #[inline(always)]
    pub(crate) fn key(&self) -> FlowKey<A> {
        let [source_port, destination_port] = Port::both_from_word(self.word_of_tcp::<0>());
        FlowKey {
            source: A::source_of(self),
            destination: A::destination_of(self),
            source_port,
            destination_port,
        }
    }

    /// Whether this is its tuple.
    #[inline(always)]
    pub(crate) fn has_key(&self, key: &FlowKey<A>) -> bool {
        let ports = u64::from(self.word_of_tcp::<0>()) ^ u64::from(ports(key));
        A::difference(self, key) | ports == 0
    }

    #[inline(always)]
    pub(crate) fn kind(&self) -> Kind {
        Kind::of(self.byte_of_tcp::<13>())
    }

    #[inline(always)]
    pub(crate) fn acknowledgement(&self) -> u32 {
        u32::from_be(self.word_of_tcp::<8>())
    }

    #[inline(always)]
    pub(crate) fn tcp_check(&self) -> u16 {
        // SAFETY: `plain` made sure that there are as many bytes.
        unsafe { load_from!(u16, self.at, A::TCP + 16) }
    }

    #[inline(always)]
    pub(crate) fn set_tcp_check(&self, check: u16) {
        // SAFETY: as above.
        unsafe { store_to!(u16, self.at, A::TCP + 16, check) }
    }

    /// Both ports, as the word that they are in the header.
    #[inline(always)]
    pub(crate) fn set_ports(&self, ports: u32) {
        // SAFETY: as above.
        unsafe { store_to!(u32, self.at, A::TCP, ports) }
    }

    /// The frame's source address in the lower six bytes; what is above says nothing about it.
    #[inline(always)]
    pub(crate) fn sender(&self) -> u64 {
        // SAFETY: as above.
        unsafe { load_from!(u64, self.at, 6) }
    }

    /// The frame's addresses, six bytes of each word.
    #[inline(always)]
    pub(crate) fn set_addresses(&self, destination: u64, source: u64) {
        const BITS: u32 = 48;
        // SAFETY: as above.
        unsafe {
            store_to!(u64, self.at, 0, destination << (64 - BITS) >> (64 - BITS) | source << BITS);
            store_to!(u32, self.at, 8, (source >> (64 - BITS)) as u32);
        }
    }

    /// The word at this place, as it stands in memory.
    #[inline(always)]
    pub(crate) fn word<const AT: usize>(&self) -> u32 {
        const { assert!(AT + size_of::<u32>() <= Self::HEADERS) };
        // SAFETY: as above.
        unsafe { load_from!(u32, self.at, AT) }
    }

    #[inline(always)]
    pub(crate) fn set_word<const AT: usize>(&self, word: u32) {
        const { assert!(AT + size_of::<u32>() <= Self::HEADERS) };
        // SAFETY: as above.
        unsafe { store_to!(u32, self.at, AT, word) }
    }

    /// Two words at this place, as they stand in memory.
    #[inline(always)]
    fn words<const AT: usize>(&self) -> u64 {
        const { assert!(AT + size_of::<u64>() <= Self::HEADERS) };
        // SAFETY: as above.
        unsafe { load_from!(u64, self.at, AT) }
    }

    #[inline(always)]
    fn set_words<const AT: usize>(&self, words: u64) {
        const { assert!(AT + size_of::<u64>() <= Self::HEADERS) };
        // SAFETY: as above.
        unsafe { store_to!(u64, self.at, AT, words) }
    }

    /// The half of a word at this place, as it stands in memory.
    #[inline(always)]
    pub(crate) fn half<const AT: usize>(&self) -> u16 {
        const { assert!(AT + size_of::<u16>() <= Self::HEADERS) };
        // SAFETY: as above.
        unsafe { load_from!(u16, self.at, AT) }
    }

    #[inline(always)]
    pub(crate) fn set_half<const AT: usize>(&self, half: u16) {
        const { assert!(AT + size_of::<u16>() <= Self::HEADERS) };
        // SAFETY: as above.
        unsafe { store_to!(u16, self.at, AT, half) }
    }

    #[inline(always)]
    pub(crate) fn byte<const AT: usize>(&self) -> u8 {
        const { assert!(AT < Self::HEADERS) };
        // SAFETY: as above.
        unsafe { load_from!(u8, self.at, AT) }
    }

    #[inline(always)]
    pub(crate) fn set_byte<const AT: usize>(&self, byte: u8) {
        const { assert!(AT < Self::HEADERS) };
        // SAFETY: as above.
        unsafe { store_to!(u8, self.at, AT, byte) }
    }

    #[inline(always)]
    fn word_of_tcp<const AT: usize>(&self) -> u32 {
        const { assert!(AT + size_of::<u32>() <= TcpHdr::LEN) };
        // SAFETY: as above.
        unsafe { load_from!(u32, self.at, A::TCP + AT) }
    }

    #[inline(always)]
    fn byte_of_tcp<const AT: usize>(&self) -> u8 {
        const { assert!(AT < TcpHdr::LEN) };
        // SAFETY: as above.
        unsafe { load_from!(u8, self.at, A::TCP + AT) }
    }
}

/// Bytes of the frame's first buffer.
#[inline(always)]
pub(crate) fn frame_length(ctx: &XdpContext) -> usize {
    data_end(ctx) - data(ctx)
}

impl Framed for Address4 {
    const TCP: usize = EthHdr::LEN + Ipv4Hdr::LEN;

    #[inline(always)]
    fn is_plain(frame: &Frame<Self>) -> bool {
        let is_fragment = frame.half::<20>() & FRAGMENT_BITS.to_be() != 0;
        frame.byte::<14>() == 0x45 && frame.byte::<23>() == PROTOCOL_TCP && !is_fragment
    }

    #[inline(always)]
    fn source_of(frame: &Frame<Self>) -> Self {
        Self::from_words([frame.word::<26>()])
    }

    #[inline(always)]
    fn destination_of(frame: &Frame<Self>) -> Self {
        Self::from_words([frame.word::<30>()])
    }

    #[inline(always)]
    fn hops_left_of(frame: &Frame<Self>) -> u8 {
        frame.byte::<22>()
    }

    #[inline(always)]
    fn ip_length_of(frame: &Frame<Self>) -> usize {
        u16::from_be(frame.half::<16>()).into()
    }

    #[inline(always)]
    fn difference(frame: &Frame<Self>, key: &FlowKey<Self>) -> u64 {
        let ([source], [destination]) = (key.source.to_words(), key.destination.to_words());
        (u64::from(frame.word::<26>()) ^ u64::from(source))
            | (u64::from(frame.word::<30>()) ^ u64::from(destination))
    }

    #[inline(always)]
    fn forward_frame(frame: &Frame<Self>, becomes: &FlowKey<Self>, delta: u16) {
        let ([source], [destination]) = (becomes.source.to_words(), becomes.destination.to_words());
        frame.set_byte::<22>(frame.byte::<22>() - 1);
        frame.set_half::<24>(checksum::apply_word(frame.half::<24>(), delta));
        frame.set_word::<26>(source);
        frame.set_word::<30>(destination);
    }
}

impl Framed for Address6 {
    const TCP: usize = EthHdr::LEN + Ipv6Hdr::LEN;

    #[inline(always)]
    fn is_plain(frame: &Frame<Self>) -> bool {
        frame.byte::<14>() >> 4 == 6 && frame.byte::<20>() == PROTOCOL_TCP
    }

    #[inline(always)]
    fn source_of(frame: &Frame<Self>) -> Self {
        Self::from_words([frame.word::<22>(), frame.word::<26>(), frame.word::<30>(), frame.word::<34>()])
    }

    #[inline(always)]
    fn destination_of(frame: &Frame<Self>) -> Self {
        Self::from_words([frame.word::<38>(), frame.word::<42>(), frame.word::<46>(), frame.word::<50>()])
    }

    #[inline(always)]
    fn hops_left_of(frame: &Frame<Self>) -> u8 {
        frame.byte::<21>()
    }

    #[inline(always)]
    fn ip_length_of(frame: &Frame<Self>) -> usize {
        Ipv6Hdr::LEN + usize::from(u16::from_be(frame.half::<18>()))
    }

    #[inline(always)]
    fn difference(frame: &Frame<Self>, key: &FlowKey<Self>) -> u64 {
        (frame.words::<22>() ^ words_of::<0, _>(key))
            | (frame.words::<30>() ^ words_of::<8, _>(key))
            | (frame.words::<38>() ^ words_of::<16, _>(key))
            | (frame.words::<46>() ^ words_of::<24, _>(key))
    }

    #[inline(always)]
    fn forward_frame(frame: &Frame<Self>, becomes: &FlowKey<Self>, _: u16) {
        frame.set_byte::<21>(frame.byte::<21>() - 1);
        frame.set_words::<22>(words_of::<0, _>(becomes));
        frame.set_words::<30>(words_of::<8, _>(becomes));
        frame.set_words::<38>(words_of::<16, _>(becomes));
        frame.set_words::<46>(words_of::<24, _>(becomes));
    }
}

/// Two words of a key, which has its addresses in the order of the header.
#[inline(always)]
fn words_of<const AT: usize, A>(key: &FlowKey<A>) -> u64 {
    const { assert!(AT + size_of::<u64>() <= size_of::<FlowKey<A>>()) };
    // SAFETY: within the key.
    unsafe { load_from!(u64, from_ref(key), AT) }
}
