//! What the generator publishes: payloads that say which message they are, and can be rebuilt to the byte.
//!
//! A payload is one JSON string, `"NUMBER.DUE.ROOM.TAG.FILLER"` with fixed-width hexadecimal fields, so that a device can
//! find its number without a parser and compare everything else with what that number must look like. The tag follows
//! from the seed: another run's messages in the same room have another. Pure.

use std::io::Write as _;

use serde::{Deserialize, Serialize};

use crate::scenario::schedule::Schedule;

/// Shortest payload: the two quotes, 16 + 16 + 8 + 8 digits and four dots.
pub(crate) const PAYLOAD_BYTES_MIN: usize = 54;
/// Longest payload: what the publisher door takes.
pub(crate) const PAYLOAD_BYTES_MAX: usize = roomcast_core::limits::PAYLOAD_BYTES_MAX;
/// Where the tag stands.
const TAG: std::ops::Range<usize> = 44..52;
/// Where the dots stand.
const DOTS: [usize; 4] = [17, 34, 43, 52];

/// What the payloads of reliable messages are seeded with, so that chat's can't be taken for them.
#[must_use]
pub(crate) fn reliable_seed(seed: u64) -> u64 {
    !seed
}

/// How long payloads are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Length {
    /// All so many bytes.
    Fixed(usize),
    /// Drawn from a lognormal distribution: half are at most `median` bytes, and the logarithm has the standard deviation
    /// `sigma`. What lies outside the limits of a payload has the limit's length.
    Lognormal { median: usize, sigma: f64 },
}

impl Length {
    /// The length of message `number`'s payload.
    fn of(self, number: u64) -> usize {
        match self {
            Self::Fixed(bytes) => bytes,
            Self::Lognormal { median, sigma } => {
                let mut random = fastrand::Rng::with_seed(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                // Box and Muller: two even draws give a normal one.
                let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
                let normal = radius * (std::f64::consts::TAU * random.f64()).cos();
                #[expect(clippy::cast_precision_loss, reason = "a payload's length")]
                let bytes = median as f64 * (sigma * normal).exp();
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

    /// The longest there may be.
    #[must_use]
    pub(crate) fn most(self) -> usize {
        match self {
            Self::Fixed(bytes) => bytes,
            Self::Lognormal { .. } => PAYLOAD_BYTES_MAX,
        }
    }

    /// The length of the one in the middle.
    #[must_use]
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
    /// Seeded letters, twice the longest filler; each message's filler starts somewhere else in them.
    letters: Vec<u8>,
}

/// Why a payload is not what was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forgery {
    /// Nothing this run publishes looks like it.
    Foreign,
    /// It looks like what a run with another seed publishes.
    OtherRun,
    /// It names one of the run's messages but its bytes are not that message's.
    Altered {
        /// The message it claims to be.
        number: u64,
    },
}

impl Payloads {
    /// Payloads of this length, at least [`PAYLOAD_BYTES_MIN`]; equal seeds give equal bytes.
    #[must_use]
    pub(crate) fn new(length: Length, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let tag = random.u32(..);
        let letters = (0..LETTERS_BYTES + length.most()).map(|_| random.alphanumeric() as u8).collect();
        Self { length, tag, letters }
    }

    /// The `id` of reliable message `number`: what makes trying again safe, and is no other run's.
    #[must_use]
    pub(crate) fn id(&self, number: u64) -> String {
        format!("lg-{:08x}-{number:x}", self.tag)
    }

    /// Appends the payload of message `number` to `out`.
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

    /// The number of the message whose payload these bytes are, all of them.
    ///
    /// # Errors
    /// [`Forgery`] when they are nobody's, or not exactly those of the message they name.
    pub(crate) fn check(
        &self,
        schedule: &Schedule,
        payload: &[u8],
        scratch: &mut Vec<u8>,
    ) -> Result<u64, Forgery> {
        if self.is_other_run(payload) {
            return Err(Forgery::OtherRun);
        }
        let number = payload
            .get(1..17)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .filter(|number| *number < schedule.messages)
            .ok_or(Forgery::Foreign)?;
        scratch.clear();
        self.write(schedule, number, scratch);
        if scratch == payload { Ok(number) } else { Err(Forgery::Altered { number }) }
    }

    fn is_other_run(&self, payload: &[u8]) -> bool {
        let tag = payload.get(TAG).and_then(|digits| std::str::from_utf8(digits).ok());
        let tag = tag.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        tag.is_some_and(|tag| tag != self.tag) && DOTS.iter().all(|dot| payload[*dot] == b'.')
    }
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
