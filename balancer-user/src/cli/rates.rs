//! What counters come to in a second, from two answers. Pure.
//!
//! Deliberately not here: averages over more than two answers; whoever wants a smoother number asks less often.

use std::time::Duration;

use crate::control::protocol::Timestamp;

/// The time between two answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span {
    seconds: f64,
}

impl Span {
    /// `None` where it is no time: the same answer twice, or a clock that was set back.
    pub(super) fn between(before: Timestamp, now: Timestamp) -> Option<Self> {
        let span = before.age_at(now);
        (span > Duration::ZERO).then_some(Self { seconds: span.as_secs_f64() })
    }

    /// `None` where the counter began anew meanwhile.
    pub(super) fn rate(self, before: u64, now: u64) -> Option<f64> {
        Some(now.checked_sub(before)? as f64 / self.seconds)
    }
}

/// `0`, `0.5`, `12.3`, `1234`: as exact as anybody wants it; `-` where it isn't known.
pub(super) fn shown(rate: Option<f64>) -> String {
    match rate {
        None => "-".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(rate) if rate < 100.0 => format!("{rate:.1}"),
        Some(rate) => format!("{rate:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn a_rate_is_what_came_in_between_by_the_time_in_between() {
        let span = Span::between(at("2026-01-02T03:04:05.000Z"), at("2026-01-02T03:04:07.500Z")).unwrap();
        assert_eq!(span.rate(10, 15), Some(2.0));
        assert_eq!(span.rate(10, 10), Some(0.0));
    }

    #[test]
    fn where_there_was_no_time_or_another_counter_there_is_no_rate() {
        let (early, late) = (at("2026-01-02T03:04:05.000Z"), at("2026-01-02T03:04:06.000Z"));
        assert_eq!(Span::between(early, early), None);
        assert_eq!(Span::between(late, early), None);
        assert_eq!(Span::between(early, late).unwrap().rate(10, 3), None);
    }

    #[test]
    fn a_rate_is_shown_as_exactly_as_it_is_of_use() {
        let rates = [
            (None, "-"),
            (Some(0.0), "0"),
            (Some(0.25), "0.2"),
            (Some(99.94), "99.9"),
            (Some(1234.4), "1234"),
        ];
        for (rate, text) in rates {
            assert_eq!(shown(rate), text);
        }
    }
}
