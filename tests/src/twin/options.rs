//! Options of TCP and IP as they are met on the internet, and a few that nobody knows.

use super::{frame::Envelope, seed::Seed};

/// TCP options of a SYN or SYN-ACK.
pub(super) fn of_syn(seed: &mut Seed) -> Vec<u8> {
    let stamp = seed.bytes(4);
    let linux = [&[2, 4, 5, 0xb4, 4, 2, 8, 10], stamp.as_slice(), &[0, 0, 0, 0, 1, 3, 3, 7]].concat();
    let choices = [
        Vec::new(),
        // Maximum segment size, alone.
        vec![2, 4, 5, 0xb4],
        // Linux: size, SACK permitted, timestamps, window scale.
        linux.clone(),
        linux,
        // Windows: size, scale, SACK permitted.
        vec![2, 4, 5, 0xa0, 1, 3, 3, 8, 1, 1, 4, 2],
        // Multipath TCP's capable, and fast open's empty cookie.
        vec![2, 4, 2, 0x18, 30, 4, 0, 1, 34, 2],
        // An experiment (RFC 4727), which nobody knows.
        vec![253, 6, 0xca, 0xfe, 1, 2, 1, 1],
    ];
    seed.pick(&choices)
}

/// TCP options of any other segment.
pub(super) fn of_segment(seed: &mut Seed) -> Vec<u8> {
    let (stamps, block) = (seed.bytes(8), seed.bytes(8));
    let timestamps = [&[1, 1, 8, 10], stamps.as_slice()].concat();
    let selective = [timestamps.as_slice(), &[1, 1, 5, 10], block.as_slice()].concat();
    let choices = [
        Vec::new(),
        Vec::new(),
        timestamps.clone(),
        timestamps,
        selective,
        vec![254, 4, 0xbe, 0xef],
        // A length that reaches beyond the header: the receiver's business.
        vec![8, 40, 1, 1],
        vec![1; 40],
    ];
    seed.pick(&choices)
}

/// What a host puts around all its segments of one conversation.
pub(super) fn envelope(seed: &mut Seed) -> Envelope {
    let options: [&[u8]; 9] = [
        &[],
        &[],
        &[],
        &[],
        // Router alert.
        &[148, 4, 0, 0],
        // Stream identifier.
        &[136, 4, 0, 7],
        // Basic security (RFC 1108), end of list.
        &[130, 11, 0xab, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        // One of no meaning.
        &[1, 158, 6, 1, 2, 3, 4, 0],
        &[1; 40],
    ];
    // Six bytes are the least: padding, and an option that is skipped when it is unknown.
    let padding = vec![1, 4, 0, 0, 0, 0];
    let unknown = vec![0x1e, 4, 9, 9, 9, 9];
    let extensions = [None, None, None, None, Some(padding), Some(unknown)];
    Envelope {
        tos: if seed.one_in(3) { seed.byte() } else { 0 },
        ttl: if seed.one_in(4) { 2 + seed.byte() % 254 } else { seed.pick(&[64, 128, 255]) },
        id: seed.short(),
        dont_fragment: !seed.one_in(4),
        options: seed.pick(&options).to_vec(),
        flow_label: if seed.one_in(2) { seed.long() & 0xf_ffff } else { 0 },
        hop_by_hop: seed.pick(&extensions),
        destination: seed.pick(&extensions),
    }
}
