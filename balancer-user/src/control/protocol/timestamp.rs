//! A point of wall time as the documents show it: RFC 3339, UTC, milliseconds.
//!
//! Wall time is for people to read; nothing is decided by it.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// 9999-12-31T23:59:59.999Z: RFC 3339 has four digits for the year.
const LATEST_UNIX_MS: u64 = 253_402_300_799_999;

/// Milliseconds since 1970, never before it and never after the year 9999 (a clock that says so is shown as the
/// nearest of the two), so that it can always be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    unix_ms: u64,
}

impl Timestamp {
    /// How long before `later` this was; nothing when it was after it.
    #[must_use]
    pub fn age_at(self, later: Self) -> Duration {
        Duration::from_millis(later.unix_ms.saturating_sub(self.unix_ms))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Self { unix_ms: u64::try_from(since_1970).unwrap_or(u64::MAX).min(LATEST_UNIX_MS) }
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        UNIX_EPOCH + Duration::from_millis(time.unix_ms)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_millis(SystemTime::from(*self)).fmt(f)
    }
}

impl FromStr for Timestamp {
    type Err = humantime::TimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_rfc3339(text).map(Self::from)
    }
}

impl JsonSchema for Timestamp {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map_err(|error| de::Error::custom(format_args!("{text:?} is not an RFC 3339 time: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_written_with_milliseconds_and_read_back() {
        let text = "2026-01-02T03:04:05.678Z";
        let time: Timestamp = text.parse().unwrap();
        assert_eq!(time.to_string(), text);
        assert_eq!(serde_json::to_string(&time).unwrap(), format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<Timestamp>(&format!("\"{text}\"")).unwrap(), time);
    }

    #[test]
    fn whole_seconds_keep_their_three_zeros() {
        assert_eq!(Timestamp::from(UNIX_EPOCH).to_string(), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn a_clock_out_of_range_is_clamped_and_never_panics() {
        let before = UNIX_EPOCH - Duration::from_secs(1);
        let after = UNIX_EPOCH + Duration::from_secs(400_000_000_000);
        assert_eq!(Timestamp::from(before).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp::from(after).to_string(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn text_that_is_no_time_is_refused_with_itself() {
        let error = serde_json::from_str::<Timestamp>("\"yesterday\"").unwrap_err().to_string();
        assert!(error.contains("\"yesterday\" is not an RFC 3339 time"), "{error}");
    }

    #[test]
    fn an_age_never_goes_below_zero() {
        let early: Timestamp = "2026-01-02T03:04:05.000Z".parse().unwrap();
        let late: Timestamp = "2026-01-02T03:04:06.500Z".parse().unwrap();
        assert_eq!(early.age_at(late), Duration::from_millis(1500));
        assert_eq!(late.age_at(early), Duration::ZERO);
    }
}
