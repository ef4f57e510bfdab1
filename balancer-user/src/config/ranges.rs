//! Lists of number ranges, `1024-32767,61000-65535`: source ports and HTTP statuses.

use std::ops::RangeInclusive;

use super::problem::{Fault, quoted};

/// The ranges written, sorted, disjoint and merged where they touch; each within `bounds`.
pub(super) fn parse(written: &str, bounds: &RangeInclusive<u16>) -> Result<Vec<RangeInclusive<u16>>, Fault> {
    let instead = || {
        format!(
            "write ranges of numbers from {} to {}, as in \"{}-{}\", with commas between them",
            bounds.start(),
            bounds.end(),
            bounds.start(),
            bounds.end()
        )
    };
    if written.trim().is_empty() {
        return Err(Fault::new("holds no range", instead()));
    }
    let mut ranges = Vec::new();
    for piece in written.split(',').map(str::trim) {
        let (first, last) = piece.split_once('-').unwrap_or((piece, piece));
        let (Some(first), Some(last)) = (number(first), number(last)) else {
            return Err(Fault::new(format!("{} is not a range", quoted(piece)), instead()));
        };
        if !bounds.contains(&first) || !bounds.contains(&last) {
            return Err(Fault::new(format!("{} is out of bounds", quoted(piece)), instead()));
        }
        if first > last {
            return Err(Fault::new(
                format!("{} runs backwards", quoted(piece)),
                format!("write \"{last}-{first}\""),
            ));
        }
        ranges.push(first..=last);
    }
    Ok(merged(ranges))
}

/// Digits only: `from_str` would take a sign.
fn number(written: &str) -> Option<u16> {
    let written = written.trim();
    written.bytes().all(|byte| byte.is_ascii_digit()).then(|| written.parse().ok()).flatten()
}

fn merged(mut ranges: Vec<RangeInclusive<u16>>) -> Vec<RangeInclusive<u16>> {
    ranges.sort_by_key(|range| *range.start());
    let mut merged: Vec<RangeInclusive<u16>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if *range.start() <= last.end().saturating_add(1) => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            Some(_) | None => merged.push(range),
        }
    }
    merged
}

/// As they are written.
pub fn shown(ranges: &[RangeInclusive<u16>]) -> String {
    let shown = ranges.iter().map(|range| {
        if range.start() == range.end() {
            range.start().to_string()
        } else {
            format!("{}-{}", range.start(), range.end())
        }
    });
    shown.collect::<Vec<_>>().join(",")
}

/// The ports in both; `ports` sorted and disjoint, `others` in any order.
pub fn common(ports: &[RangeInclusive<u16>], others: &[RangeInclusive<u16>]) -> Vec<RangeInclusive<u16>> {
    without(ports, without(ports, others.iter().cloned()))
}

/// What is left of `ranges` (sorted and disjoint) without `taken` (in any order).
pub fn without(
    ranges: &[RangeInclusive<u16>],
    taken: impl IntoIterator<Item = RangeInclusive<u16>>,
) -> Vec<RangeInclusive<u16>> {
    let taken = merged(taken.into_iter().filter(|range| !range.is_empty()).collect());
    let mut left = Vec::new();
    for range in ranges {
        // Wider than a port, so that the one behind 65535 has a number.
        let mut from = u32::from(*range.start());
        let end = u32::from(*range.end());
        for hole in taken.iter().filter(|hole| hole.start() <= range.end() && hole.end() >= range.start()) {
            if from < u32::from(*hole.start()) {
                left.push(from..=u32::from(*hole.start()) - 1);
            }
            from = u32::from(*hole.end()) + 1;
        }
        if from <= end {
            left.push(from..=end);
        }
    }
    let port = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    left.into_iter().map(|range| port(*range.start())..=port(*range.end())).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PORTS: RangeInclusive<u16> = 1..=65535;

    #[test]
    fn ranges_come_out_sorted_and_disjoint() {
        assert_eq!(parse("61000-65535, 1024-32767", &PORTS), Ok(vec![1024..=32767, 61000..=65535]));
        assert_eq!(parse("5", &PORTS), Ok(vec![5..=5]));
        assert_eq!(parse("10-20,15-30,31-40,50", &PORTS), Ok(vec![10..=40, 50..=50]));
        assert_eq!(parse("65535,1-65535", &PORTS), Ok(vec![1..=65535]));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for bad in ["", " ", "0-5", "5-65536", "20-10", "a", "1-2-3", "-5", "5-", "1,,2", "1,", "+1"] {
            assert!(parse(bad, &PORTS).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_taken_is_cut_out() {
        let all = [1..=65535];
        assert_eq!(without(&all, [32768..=60999]), [1..=32767, 61000..=65535]);
        assert_eq!(without(&all, [1..=65535]), []);
        assert_eq!(without(&[10..=20], [5..=12, 20..=30]), [13..=19]);
        assert_eq!(without(&[10..=20, 30..=40], [15..=35]), [10..=14, 36..=40]);
        assert_eq!(without(&[10..=20], []), [10..=20]);
    }

    fn any_ranges() -> impl Strategy<Value = Vec<RangeInclusive<u16>>> {
        let range = (1..=u16::MAX, 1..=u16::MAX).prop_map(|(one, other)| one.min(other)..=one.max(other));
        prop::collection::vec(range, 0..6)
    }

    proptest! {
        #[test]
        fn a_port_is_left_exactly_when_it_was_there_and_is_not_taken(
            ranges in any_ranges(), taken in any_ranges(), ports in prop::collection::vec(any::<u16>(), 32),
        ) {
            let ranges = merged(ranges);
            let left = without(&ranges, taken.clone());
            prop_assert!(left.windows(2).all(|pair| pair[0].end() < pair[1].start()));
            let edges = ranges.iter().chain(&taken).chain(&left).flat_map(|range| [*range.start(), *range.end()]);
            for port in ports.into_iter().chain(edges) {
                let expected = ranges.iter().any(|range| range.contains(&port))
                    && !taken.iter().any(|range| range.contains(&port));
                prop_assert_eq!(left.iter().any(|range| range.contains(&port)), expected, "port {}", port);
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9,\\- +]{0,40}|\\PC{0,20}") {
            let _ = parse(&text, &PORTS);
        }
    }
}
