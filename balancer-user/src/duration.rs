//! Durations as nginx writes them: `500ms`, `60s`, `1m30s`, `2h`.
//!
//! Units go from large to small, each at most once, and each number has one: nginx reads a bare `60` as seconds in
//! one place and as milliseconds in another, so here it is an error. Deliberately absent: fractions, spaces, weeks,
//! months and years.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

/// Longer than anything that is waited for here, and short enough to be added to any moment.
const LONGEST_DURATION: Duration = Duration::from_secs(365 * 86_400);

/// The units, largest first, with their milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Why a text isn't a duration. The messages say what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// There is no text at all.
    #[error("a duration is empty; write for example \"10s\"")]
    Empty,
    /// A sign stands in front.
    #[error("a duration can't have a sign; write for example \"10s\"")]
    Signed,
    /// A number has no unit behind it.
    #[error("a duration needs a unit behind each number; write \"{0}s\" for seconds (units: d, h, m, s, ms)")]
    NoUnit(String),
    /// A unit has no number before it, or something else stands there.
    #[error("a duration starts with a number; write for example \"10s\" or \"1m30s\"")]
    NoNumber,
    /// A number is not whole.
    #[error("a duration is made of whole numbers; write \"1500ms\" for one and a half seconds")]
    Fraction,
    /// Not one of d, h, m, s, ms.
    #[error("unknown unit of time `{0}`; write d, h, m, s or ms")]
    UnknownUnit(String),
    /// A unit stands twice.
    #[error("the unit `{0}` stands twice; write it once")]
    Repeated(&'static str),
    /// A larger unit stands behind a smaller one.
    #[error("`{0}` stands behind a smaller unit; write the larger unit first, as in \"1m30s\"")]
    Order(&'static str),
    /// More than a year.
    #[error("a duration can't be longer than {}", Shown(LONGEST_DURATION))]
    TooLong,
}

/// Reads a duration, at most a year long; `0s` is one.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    if text.is_empty() {
        return Err(DurationError::Empty);
    }
    if text.starts_with(['-', '+']) {
        return Err(DurationError::Signed);
    }
    let mut rest = text;
    let mut total_ms: u64 = 0;
    let mut previous: Option<usize> = None;
    while !rest.is_empty() {
        let (digits, behind) = split(rest, |c| c.is_ascii_digit());
        if digits.is_empty() {
            return Err(DurationError::NoNumber);
        }
        if behind.starts_with(['.', ',']) {
            return Err(DurationError::Fraction);
        }
        let (unit, behind) = split(behind, |c| !c.is_ascii_digit());
        let at = unit_index(unit, digits)?;
        match previous {
            Some(before) if before == at => return Err(DurationError::Repeated(UNITS[at].0)),
            Some(before) if before > at => return Err(DurationError::Order(UNITS[at].0)),
            Some(_) | None => {}
        }
        total_ms = digits
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(UNITS[at].1))
            .and_then(|ms| total_ms.checked_add(ms))
            .ok_or(DurationError::TooLong)?;
        previous = Some(at);
        rest = behind;
    }
    let duration = Duration::from_millis(total_ms);
    if duration > LONGEST_DURATION { Err(DurationError::TooLong) } else { Ok(duration) }
}

fn unit_index(unit: &str, digits: &str) -> Result<usize, DurationError> {
    if unit.is_empty() {
        return Err(DurationError::NoUnit(excerpt(digits)));
    }
    UNITS.iter().position(|(name, _)| *name == unit).ok_or_else(|| DurationError::UnknownUnit(excerpt(unit)))
}

/// The longest prefix whose characters satisfy `wanted`, and the rest.
fn split(text: &str, wanted: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !wanted(c)).unwrap_or(text.len());
    text.split_at(end)
}

/// A message repeats at most this much of what was written.
fn excerpt(text: &str) -> String {
    text.chars().take(20).collect()
}

/// A duration in the same notation, to the millisecond: `1m30s`, and `0s` for none.
#[derive(Debug, Clone, Copy)]
pub struct Shown(pub Duration);

impl Display for Shown {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let mut left = self.0.as_millis();
        if left == 0 {
            return out.write_str("0s");
        }
        for (unit, ms) in UNITS {
            let ms = u128::from(ms);
            if left >= ms {
                write!(out, "{}{unit}", left / ms)?;
                left %= ms;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_notation_of_nginx_is_read() {
        for (text, ms) in [
            ("500ms", 500),
            ("60s", 60_000),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
            ("2h5m", 7_500_000),
            ("1d", 86_400_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("90s", 90_000),
            ("0s", 0),
            ("007s", 7_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_its_own_reason() {
        use DurationError::*;
        for (text, error) in [
            ("", Empty),
            ("-1s", Signed),
            ("+1s", Signed),
            ("10", NoUnit("10".into())),
            ("1m30", NoUnit("30".into())),
            ("s", NoNumber),
            (" 1s", NoNumber),
            ("1.5s", Fraction),
            ("1w", UnknownUnit("w".into())),
            ("1s ", UnknownUnit("s ".into())),
            ("1S", UnknownUnit("S".into())),
            ("1s1s", Repeated("s")),
            ("30s1m", Order("m")),
            ("1ms1s", Order("s")),
            ("366d", TooLong),
            ("18446744073709551616ms", TooLong),
            ("213503982335d", TooLong),
        ] {
            assert_eq!(parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_message_repeats_only_an_excerpt_of_what_was_written() {
        let message = parse(&"9".repeat(1 << 20)).unwrap_err().to_string();
        assert!(message.len() < 200, "{message}");
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(ms in 0..=365 * 86_400_000_u64) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse(&Shown(duration).to_string()), Ok(duration));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9dhms. +-]{0,40}|\\PC{0,40}") {
            let read = parse(&text);
            prop_assert!(read.is_err() || read.is_ok_and(|duration| duration <= LONGEST_DURATION));
        }
    }
}
