//! Payloads: each names its message and can be rebuilt to the byte. Pure.
//!
//! A payload is one JSON string, `"NUMBER.DUE.ROOM.TAG.FILLER"`, with hexadecimal fields of fixed width. A
//! device reads the number without a parser and compares all other bytes with a rebuilt payload. The tag
//! follows from the seed, so another run's messages in the same room have another tag.

use std::io::Write as _;

use serde::{Deserialize, Serialize};

use crate::scenario::schedule::Schedule;
use crate::scenario::seating::normal;

/// Shortest payload: two quotes, 16 + 16 + 8 + 8 digits and four dots.
pub(crate) const PAYLOAD_BYTES_MIN: usize = 54;
/// Longest payload the publisher door takes.
pub(crate) const PAYLOAD_BYTES_MAX: usize = roomcast_core::limits::PAYLOAD_BYTES_MAX;
const NUMBER: std::ops::Range<usize> = 1..17;
const TAG: std::ops::Range<usize> = 44..52;
const DOTS: [usize; 4] = [17, 34, 43, 52];

/// The seed of reliable payloads, so chat payloads never match.
pub(crate) fn reliable_seed(seed: u64) -> u64 {
    !seed
}

/// Payload length, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Length {
    Fixed(usize),
    /// Drawn from a lognormal distribution with this median; the logarithm has the standard deviation
    /// `sigma`. Lengths outside the limits of a payload are clamped.
    Lognormal {
        median: usize,
        sigma: f64,
    },
}

impl Length {
    fn of(self, number: u64) -> usize {
        match self {
            Self::Fixed(bytes) => bytes,
            Self::Lognormal { median, sigma } => {
                // The golden ratio spreads consecutive numbers over the seeds.
                let mut random = fastrand::Rng::with_seed(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                #[expect(clippy::cast_precision_loss, reason = "a payload's length")]
                let bytes = median as f64 * (sigma * normal(&mut random)).exp();
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "clamped to a payload's length"
                )]
                let bytes = bytes.round().min(1e9) as usize;
                bytes.clamp(PAYLOAD_BYTES_MIN, PAYLOAD_BYTES_MAX)
            }
        }
    }

    pub(crate) fn most(self) -> usize {
        match self {
            Self::Fixed(bytes) => bytes,
            Self::Lognormal { .. } => PAYLOAD_BYTES_MAX,
        }
    }

    pub(crate) fn median(self) -> usize {
        match self {
            Self::Fixed(bytes) | Self::Lognormal { median: bytes, .. } => bytes,
        }
    }
}

const LETTERS_BYTES: usize = 16 * 1024;

/// Writes and checks the payloads of one run.
#[derive(Debug)]
pub(crate) struct Payloads {
    length: Length,
    tag: u32,
    /// Seeded letters. Each message's filler starts at another place, so fillers differ.
    letters: Vec<u8>,
}

/// The reason why a payload is not a published one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forgery {
    /// No payload of this run looks like these bytes.
    Foreign,
    /// The payload carries another run's tag.
    OtherRun,
    /// The payload names a message of this run, but has other bytes.
    Altered { number: u64 },
}

impl Payloads {
    /// Equal seeds give equal bytes.
    pub(crate) fn new(length: Length, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let tag = random.u32(..);
        let letters = (0..LETTERS_BYTES + length.most()).map(|_| random.alphanumeric() as u8).collect();
        Self { length, tag, letters }
    }

    /// The `id` of reliable message `number`. Retries repeat the id, and no other run uses the same.
    pub(crate) fn id(&self, number: u64) -> String {
        format!("lg-{:08x}-{number:x}", self.tag)
    }

    pub(crate) fn write(&self, schedule: &Schedule, number: u64, out: &mut Vec<u8>) {
        let due_ns = schedule.due_ns(number);
        let room = schedule.room_of(number);
        write!(out, "\"{number:016x}.{due_ns:016x}.{room:08x}.{:08x}.", self.tag)
            .expect("writing to memory can't fail");
        let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let from = usize::try_from(spread).unwrap_or(0) % LETTERS_BYTES;
        out.extend_from_slice(&self.letters[from..][..self.length.of(number) - PAYLOAD_BYTES_MIN]);
        out.push(b'"');
    }

    /// Checks a whole payload and returns its message's number.
    ///
    /// # Errors
    /// [`Forgery`] when the bytes are not exactly those of a message of this run.
    pub(crate) fn check(
        &self,
        schedule: &Schedule,
        payload: &[u8],
        scratch: &mut Vec<u8>,
    ) -> Result<u64, Forgery> {
        // First, since the number of another run's payload may be valid here as well.
        if self.is_other_run(payload) {
            return Err(Forgery::OtherRun);
        }
        let number =
            field(payload, NUMBER).filter(|number| *number < schedule.messages).ok_or(Forgery::Foreign)?;
        scratch.clear();
        self.write(schedule, number, scratch);
        if scratch == payload { Ok(number) } else { Err(Forgery::Altered { number }) }
    }

    fn is_other_run(&self, payload: &[u8]) -> bool {
        let tag = field(payload, TAG);
        // The dots tell a payload of the generator from other publishers' bytes.
        tag.is_some_and(|tag| tag != u64::from(self.tag)) && DOTS.iter().all(|dot| payload[*dot] == b'.')
    }
}

/// The hexadecimal number in these bytes of a payload.
fn field(payload: &[u8], place: std::ops::Range<usize>) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(payload.get(place)?).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_as_long_as_asked_and_names_its_message() {
        let schedule = Schedule::even(1_000, 1_000, 3, 1).starting(5);
        let mut scratch = Vec::new();
        for payload_bytes in [PAYLOAD_BYTES_MIN, 300, 16 * 1024] {
            let payloads = Payloads::new(Length::Fixed(payload_bytes), 7);
            for number in [0, 1, 999] {
                let mut payload = Vec::new();
                payloads.write(&schedule, number, &mut payload);
                assert_eq!(payload.len(), payload_bytes);
                assert!(serde_json::from_slice::<String>(&payload).is_ok());
                assert_eq!(payloads.check(&schedule, &payload, &mut scratch), Ok(number));
            }
        }
    }

    #[test]
    fn lengths_are_drawn_around_their_median_and_repeat() {
        let schedule = Schedule::even(10_000, 1_000, 3, 1);
        let length = Length::Lognormal { median: 300, sigma: 0.5 };
        let mut scratch = Vec::new();
        let payloads = Payloads::new(length, 7);
        let mut lengths: Vec<usize> = (0..10_000)
            .map(|number| {
                let mut payload = Vec::new();
                payloads.write(&schedule, number, &mut payload);
                assert_eq!(payloads.check(&schedule, &payload, &mut scratch), Ok(number));
                payload.len()
            })
            .collect();
        lengths.sort_unstable();
        assert!((290..310).contains(&lengths[5_000]), "{}", lengths[5_000]);
        // One standard deviation up: 300 e^½ = 495.
        assert!((470..520).contains(&lengths[8_413]), "{}", lengths[8_413]);
    }

    #[test]
    fn one_changed_byte_anywhere_is_seen() {
        let schedule = Schedule::even(1_000, 1_000, 3, 1).starting(5);
        let payloads = Payloads::new(Length::Fixed(100), 7);
        let mut payload = Vec::new();
        let mut scratch = Vec::new();
        payloads.write(&schedule, 321, &mut payload);
        for at in 0..payload.len() {
            let mut altered = payload.clone();
            altered[at] ^= 1;
            assert!(payloads.check(&schedule, &altered, &mut scratch).is_err(), "byte {at}");
        }
        assert_eq!(payloads.check(&schedule, b"\"hello\"", &mut scratch), Err(Forgery::Foreign));
        payload.clear();
        Payloads::new(Length::Fixed(100), 8).write(&schedule, 321, &mut payload);
        assert_eq!(payloads.check(&schedule, &payload, &mut scratch), Err(Forgery::OtherRun));
        assert_ne!(payloads.id(1), Payloads::new(Length::Fixed(100), 8).id(1));
    }
}
