//! The readable rate: how many messages of a type each device was given in any second, and over the run. Pure.
//!
//! Measured where a device would show them: by arrival. A frame may be held up on its way and the next one not, so in a
//! second by arrival there may be more than the node sent in any: a quarter more, and one frame of at most a second's
//! worth, is let pass. No frame alone may bring more than a second's worth: nothing holds up a part of it. Over the whole run nothing of that is left: there a device may have the rate times the time, and one second's worth besides.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::scenario::mix::{LIMITS_MAX, Limit};

/// How much more than the rate may arrive within a second, in hundredths.
const WINDOW_TOLERANCE_PERCENT: u64 = 25;
const SECOND_NS: u64 = 1_000_000_000;

/// Messages of each type that has a limit.
pub(crate) type Counts = [u32; LIMITS_MAX];

/// One device.
#[derive(Debug, Default)]
struct Reader {
    /// Frames of the last second: when, and what they brought. As many as frames come in a second.
    lately: VecDeque<(u64, Counts)>,
    held: Counts,
    most: Counts,
    largest: Counts,
    /// Since it joined its room the last time.
    total: [u64; LIMITS_MAX],
    most_in_all: [u64; LIMITS_MAX],
}

/// The readers of one worker.
#[derive(Debug)]
pub(crate) struct Readers {
    limits: usize,
    /// The first is of the worker's first device, and each next one of the device `apart` on.
    readers: Vec<Reader>,
    first_device: u32,
    apart: u32,
    first_ns: u64,
    last_ns: u64,
}

/// What the devices of one worker, or of all, were given of one type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reading {
    /// The most that a device was given in a second.
    pub(crate) most_in_a_second: u64,
    /// The most messages of one frame.
    pub(crate) most_in_a_frame: u64,
    /// The most that a device was given over the run.
    pub(crate) most_in_all: u64,
    /// From the first of them to the last.
    pub(crate) took_ms: u64,
    /// The device that was given most in a second.
    pub(crate) device: u32,
}

impl Readers {
    /// So many devices from this number on, that number `apart`, watched for so many types.
    #[must_use]
    pub(crate) fn new(limits: usize, devices: u32, first_device: u32, apart: u32) -> Self {
        let readers = (0..devices).map(|_| Reader::default()).collect();
        Self { limits, readers, first_device, apart, first_ns: 0, last_ns: 0 }
    }

    fn reader(&mut self, device: u32) -> Option<&mut Reader> {
        self.readers.get_mut((device.checked_sub(self.first_device)? / self.apart) as usize)
    }

    /// A device joined a room: what it was given before, there or in another, is no part of what it is given from here on.
    pub(crate) fn arrive(&mut self, device: u32) {
        if let Some(reader) = self.reader(device) {
            reader.lately.clear();
            (reader.held, reader.total) = Default::default();
        }
    }

    /// A device was given these.
    #[inline]
    pub(crate) fn take(&mut self, device: u32, counts: Counts, now_ns: u64) {
        if counts == [0; LIMITS_MAX] {
            return;
        }
        let Some(reader) = self.reader(device) else { return };
        while let Some((_, gone)) = reader.lately.pop_front_if(|(then_ns, _)| *then_ns + SECOND_NS <= now_ns)
        {
            for (held, gone) in reader.held.iter_mut().zip(gone) {
                *held -= gone;
            }
        }
        reader.lately.push_back((now_ns, counts));
        for (limit, count) in counts.into_iter().enumerate() {
            reader.held[limit] += count;
            reader.most[limit] = reader.most[limit].max(reader.held[limit]);
            reader.largest[limit] = reader.largest[limit].max(count);
            reader.total[limit] += u64::from(count);
            reader.most_in_all[limit] = reader.most_in_all[limit].max(reader.total[limit]);
        }
        self.first_ns = if self.first_ns == 0 { now_ns } else { self.first_ns.min(now_ns) };
        self.last_ns = self.last_ns.max(now_ns);
    }

    /// What it came to, by limit.
    #[must_use]
    pub(crate) fn readings(&self) -> Vec<Reading> {
        let read = |limit: usize| {
            let mut reading =
                Reading { took_ms: (self.last_ns - self.first_ns) / 1_000_000, ..Reading::default() };
            for (device, reader) in (self.first_device..).step_by(self.apart as usize).zip(&self.readers) {
                reading.join(Reading {
                    most_in_a_second: reader.most[limit].into(),
                    most_in_a_frame: reader.largest[limit].into(),
                    most_in_all: reader.most_in_all[limit],
                    took_ms: reading.took_ms,
                    device,
                });
            }
            reading
        };
        (0..self.limits).map(read).collect()
    }
}

impl Reading {
    /// Takes in what others were given.
    pub(crate) fn join(&mut self, other: Self) {
        if other.most_in_a_second > self.most_in_a_second {
            (self.most_in_a_second, self.device) = (other.most_in_a_second, other.device);
        }
        self.most_in_a_frame = self.most_in_a_frame.max(other.most_in_a_frame);
        self.most_in_all = self.most_in_all.max(other.most_in_all);
        self.took_ms = self.took_ms.max(other.took_ms);
    }

    /// What breaks the limit, in words; `None` while it is kept.
    #[must_use]
    pub(crate) fn excess(&self, limit: &Limit) -> Option<String> {
        let Limit { type_name, per_second } = limit;
        let rate = u64::from(*per_second);
        let in_a_second = rate + rate * WINDOW_TOLERANCE_PERCENT / 100 + self.most_in_a_frame.min(rate);
        let in_all = rate * (self.took_ms + 1_000) / 1_000;
        if self.most_in_a_frame > rate {
            let Self { most_in_a_frame, .. } = self;
            Some(format!(
                "a device was given {most_in_a_frame} {type_name} in one frame; {rate} a second were to be shown"
            ))
        } else if self.most_in_a_second > in_a_second {
            let Self { most_in_a_second, device, .. } = self;
            Some(format!(
                "device {device} was given {most_in_a_second} {type_name} within a second; {rate} a second were to be shown \
                 ({in_a_second} let pass)"
            ))
        } else if self.most_in_all > in_all {
            let Self { most_in_all, took_ms, .. } = self;
            Some(format!(
                "a device was given {most_in_all} {type_name} in {took_ms} ms; {rate} a second were to be shown ({in_all} let \
                 pass)"
            ))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(frames: u64, each: u32, apart_ms: u64) -> Reading {
        let mut readers = Readers::new(1, 2, 7, 1);
        for frame in 0..frames {
            let counts = [each, 0, 0, 0];
            readers.take(8, counts, SECOND_NS + frame * apart_ms * 1_000_000);
        }
        readers.readings()[0]
    }

    #[test]
    fn a_device_that_is_sent_the_rate_is_let_pass_and_one_that_is_sent_more_is_not() {
        let limit = Limit { type_name: "chat".into(), per_second: 40 };
        let kept = reading(1_200, 2, 50);
        assert_eq!((kept.most_in_a_second, kept.most_in_a_frame, kept.device), (40, 2, 8));
        assert_eq!(kept.excess(&limit), None);
        assert_eq!(reading(60, 40, 1_000).excess(&limit), None, "a wide window");
        let at_once = reading(12, 41, 5_000).excess(&limit).unwrap();
        assert!(at_once.contains("given 41 chat in one frame"), "{at_once}");
        let often = reading(1_200, 3, 50).excess(&limit).unwrap();
        assert!(often.contains("device 8 was given 60 chat within a second"), "{often}");
        // A little too much all the time hides in no second.
        let always = reading(1_300, 2, 46).excess(&limit).unwrap();
        assert!(always.contains("a device was given 2600 chat in 59754 ms"), "{always}");
    }

    #[test]
    fn who_joins_another_room_begins_anew() {
        let mut readers = Readers::new(1, 2, 1, 3);
        readers.take(4, [30, 0, 0, 0], SECOND_NS);
        readers.arrive(4);
        readers.take(4, [20, 0, 0, 0], SECOND_NS + 1);
        let reading = readers.readings()[0];
        assert_eq!((reading.most_in_a_second, reading.most_in_all, reading.device), (30, 30, 4));
    }

    #[test]
    fn a_second_is_a_second() {
        let mut readers = Readers::new(1, 1, 0, 1);
        for (at_ms, expected) in [(1_000, 1), (1_999, 2), (2_000, 2), (2_998, 3), (2_999, 3), (4_500, 3)] {
            readers.take(0, [1, 0, 0, 0], at_ms * 1_000_000);
            assert_eq!(readers.readings()[0].most_in_a_second, expected, "{at_ms}");
        }
    }
}
