//! Quantities as people write them: `90`, `"90s"`, `"2m"`; shares from 0 to 1; rates with up to three
//! decimals. Pure.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// A week.
const SPAN_MS_MAX: f64 = 7.0 * 86_400_000.0;

/// A time, in whole milliseconds: a number of seconds, or a number with a unit (`ms`, `s`, `m`, `h`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(u64);

impl Span {
    pub(crate) const fn of_seconds(seconds: u64) -> Self {
        Self(seconds * 1_000)
    }

    pub(crate) const fn of_ms(ms: u64) -> Self {
        Self(ms)
    }

    pub(crate) fn ms(self) -> u64 {
        self.0
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text:?} is no time: a number of seconds, or a number and ms, s, m or h, up to a week")
        };
        let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
        let ms_each = match &text[digits.len()..] {
            "ms" => 1.0,
            "" | "s" => 1_000.0,
            "m" => 60_000.0,
            "h" => 3_600_000.0,
            _ => return Err(wrong()),
        };
        let number: f64 = digits.trim().parse().map_err(|_| wrong())?;
        let ms = (number * ms_each).round();
        if !(0.0..=SPAN_MS_MAX).contains(&ms) {
            return Err(wrong());
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and a week")]
        let ms = ms as u64;
        Ok(Self(ms))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1_000) {
            write!(f, "{}s", self.0 / 1_000)
        } else {
            write!(f, "{}ms", self.0)
        }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer, "a time")
    }
}

/// A part of a whole, from 0 to 1, in millionths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Share(u32);

impl Share {
    pub(crate) const fn of_millionths(millionths: u32) -> Self {
        Self(millionths)
    }

    pub(crate) fn millionths(self) -> u32 {
        self.0
    }

    pub(crate) fn fraction(self) -> f64 {
        f64::from(self.0) / 1_000_000.0
    }

    /// This part of `whole`, rounded down.
    pub(crate) fn of(self, whole: u32) -> u32 {
        u32::try_from(u64::from(whole) * u64::from(self.0) / 1_000_000).unwrap_or(whole)
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let share: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
        if !(0.0..=1.0).contains(&share) {
            return Err(format!("{text} is not between 0 and 1"));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and a million"
        )]
        let millionths = (share * 1_000_000.0).round() as u32;
        Ok(Self(millionths))
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.fraction())
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer, "a share from 0 to 1")
    }
}

/// Messages a second, in thousandths for exact sums. 0: a flag turned the type off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rate(u64);

impl Rate {
    pub(crate) const fn of_milli(milli: u64) -> Self {
        Self(milli)
    }

    pub(crate) fn milli(self) -> u64 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        thousandths(text).map(Self)
    }
}

impl Serialize for Rate {
    #[expect(clippy::cast_precision_loss, reason = "a rate that makes sense is far below 2^53")]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0 as f64 / 1_000.0)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer, "a rate")
    }
}

/// Parses a decimal with up to three places into exact thousandths; a float would round.
pub(crate) fn thousandths(text: &str) -> Result<u64, String> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let wrong = || format!("{text:?} is no number with at most three decimals");
    if part.len() > 3 || !part.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(wrong());
    }
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let part: u64 = format!("{part:0<3}").parse().map_err(|_| wrong())?;
    whole.checked_mul(1_000).and_then(|whole| whole.checked_add(part)).ok_or_else(wrong)
}

fn read<'de, T: FromStr<Err = String>, D: Deserializer<'de>>(
    deserializer: D,
    what: &str,
) -> Result<T, D::Error> {
    // A TOML number or text; both parse alike.
    let text = match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        other => return Err(D::Error::custom(format!("invalid type: {other}, expected {what}"))),
    };
    text.parse().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_seconds_or_has_a_unit() {
        let times = [
            ("90", 90_000),
            ("90s", 90_000),
            ("1.5m", 90_000),
            ("250ms", 250),
            ("0.5", 500),
            ("2h", 7_200_000),
        ];
        for (text, ms) in times {
            assert_eq!(text.parse::<Span>().map(Span::ms), Ok(ms), "{text}");
        }
        for wrong in ["", "s", "ten", "-1", "5 days", "1e9h", "nan"] {
            assert!(wrong.parse::<Span>().unwrap_err().contains("is no time"), "{wrong}");
        }
        assert_eq!(Span::of_ms(1_500).to_string(), "1500ms");
        assert_eq!(Span::of_seconds(3).to_string(), "3s");
    }

    #[test]
    fn shares_have_limits() {
        assert_eq!("0.25".parse::<Share>().map(|share| share.of(1_000)), Ok(250));
        assert!("1.01".parse::<Share>().is_err() && "x".parse::<Share>().is_err());
    }

    #[test]
    fn decimals_are_exact() {
        assert_eq!(thousandths("0.1"), Ok(100));
        assert_eq!(thousandths("1000"), Ok(1_000_000));
        for wrong in ["", ".", "1.2345", "-1", "1e3", "1.+2", "x"] {
            assert!(thousandths(wrong).is_err(), "{wrong}");
        }
    }
}
