//! nginx's times, as its `ngx_parse_time` reads them: `30`, `10s`, `1m30s`, `1m 30`, `1w2d`.
//!
//! `ms` is taken, too: nginx itself knows it only where it counts milliseconds.

use std::time::Duration;

/// The units, largest first, with their milliseconds.
const UNITS: [(&str, u64); 8] = [
    ("y", 365 * 86_400_000),
    ("M", 30 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];
const SECOND_MS: u64 = 1_000;

/// A time; what has no unit are seconds. None: nginx refuses it.
pub(super) fn parse(written: &str) -> Option<Duration> {
    let mut rest = written;
    let mut total_ms: u64 = 0;
    // Units go from large to small, each at most once.
    let mut next = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, behind) = rest.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let letters = behind.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, behind) = behind.split_at(letters);
        let unit_ms = if unit.is_empty() && behind.is_empty() && next < UNITS.len() {
            SECOND_MS
        } else {
            let at = UNITS.iter().position(|(name, _)| *name == unit).filter(|at| *at >= next)?;
            next = at + 1;
            UNITS[at].1
        };
        total_ms = total_ms.checked_add(number.checked_mul(unit_ms)?)?;
        rest = behind.trim_start_matches(' ');
    }
    (!written.is_empty()).then_some(Duration::from_millis(total_ms))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_as_nginx_reads_them() {
        for (written, ms) in [
            ("30", 30_000),
            ("0", 0),
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("1m 30s", 90_000),
            ("1m30", 90_000),
            ("1s5", 6_000),
            ("1h1m", 3_660_000),
            ("1d", 86_400_000),
            ("1M", 30 * 86_400_000),
            ("1y", 365 * 86_400_000),
            ("500ms", 500),
            ("1s 500ms", 1_500),
        ] {
            assert_eq!(parse(written), Some(Duration::from_millis(ms)), "{written}");
        }
        for bad in
            ["", "s", "-1", "1.5s", "30s1m", "1s1s", "1x", " 1", "1 2", "1ms1s", "99999999999999999999"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[0-9yMwdhms ]{0,30}|\\PC{0,20}") {
            let _ = parse(&text);
        }
    }
}
