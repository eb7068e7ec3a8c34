//! The readable rate: messages of a type per device, in any second and over the run. Pure.
//!
//! The rate is measured by arrival, the time at which a device would show a message. The network may hold up
//! one frame and not the next, so a second by arrival may hold more messages than the node sent in any
//! second. Three bounds, for a rate of 40 messages a second:
//!
//! - one frame: at most the rate, 40. No network holds up a part of a frame.
//! - one second: at most the rate, a quarter more, and the largest frame: 40 + 10 + 2 with frames of two messages.
//! - the whole run: at most rate × (time + 1 s): 2 440 in 60 s. Over a run the network's delays cancel out.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::scenario::mix::{LIMITS_MAX, Limit};

/// Messages above the rate allowed within a second by arrival, in percent of the rate.
const WINDOW_TOLERANCE_PERCENT: u64 = 25;
const SECOND_NS: u64 = 1_000_000_000;

/// Messages of each type with a limit.
pub(crate) type Counts = [u32; LIMITS_MAX];

#[derive(Debug, Default)]
struct Reader {
    /// Time and content of each frame of the last second.
    lately: VecDeque<(u64, Counts)>,
    /// The sum over `lately`.
    held: Counts,
    most: Counts,
    /// The largest frame.
    largest: Counts,
    /// Since the last join.
    total: [u64; LIMITS_MAX],
    most_in_all: [u64; LIMITS_MAX],
}

/// The devices of a worker as readers.
#[derive(Debug)]
pub(crate) struct Readers {
    limits: usize,
    /// Devices `first_device`, `first_device + apart`, and so on.
    readers: Vec<Reader>,
    first_device: u32,
    apart: u32,
    first_ns: u64,
    last_ns: u64,
}

/// The messages of a type given to the devices of a worker, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reading {
    /// The most for a device in a second.
    pub(crate) most_in_a_second: u64,
    /// The most in a frame.
    pub(crate) most_in_a_frame: u64,
    /// The most for a device over the run.
    pub(crate) most_in_all: u64,
    /// Time from the first of the messages to the last.
    pub(crate) took_ms: u64,
    /// The device with the most in a second.
    pub(crate) device: u32,
}

impl Readers {
    /// Readers for `devices` whose numbers begin at `first_device` and lie `apart`.
    pub(crate) fn new(limits: usize, devices: u32, first_device: u32, apart: u32) -> Self {
        let readers = (0..devices).map(|_| Reader::default()).collect();
        Self { limits, readers, first_device, apart, first_ns: 0, last_ns: 0 }
    }

    fn reader(&mut self, device: u32) -> Option<&mut Reader> {
        self.readers.get_mut((device.checked_sub(self.first_device)? / self.apart) as usize)
    }

    /// Begins a device's second and total anew, at a join.
    pub(crate) fn arrive(&mut self, device: u32) {
        if let Some(reader) = self.reader(device) {
            reader.lately.clear();
            reader.held = Counts::default();
            reader.total = [0; LIMITS_MAX];
        }
    }

    /// Counts the messages of a frame for a device.
    #[inline]
    pub(crate) fn take(&mut self, device: u32, counts: Counts, now_ns: u64) {
        // Most frames of a mix hold no message of a type with a limit.
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
        // 0: no message of a type with a limit came so far.
        self.first_ns = if self.first_ns == 0 { now_ns } else { self.first_ns.min(now_ns) };
        self.last_ns = self.last_ns.max(now_ns);
    }

    /// The readings by limit.
    pub(crate) fn readings(&self) -> Vec<Reading> {
        let took_ms = (self.last_ns - self.first_ns) / 1_000_000;
        let read = |limit: usize| {
            let mut reading = Reading { took_ms, ..Reading::default() };
            for (device, reader) in (self.first_device..).step_by(self.apart as usize).zip(&self.readers) {
                reading.join(Reading {
                    most_in_a_second: reader.most[limit].into(),
                    most_in_a_frame: reader.largest[limit].into(),
                    most_in_all: reader.most_in_all[limit],
                    took_ms,
                    device,
                });
            }
            reading
        };
        (0..self.limits).map(read).collect()
    }
}

impl Reading {
    /// Takes in the reading of other devices.
    pub(crate) fn join(&mut self, other: Self) {
        if other.most_in_a_second > self.most_in_a_second {
            self.most_in_a_second = other.most_in_a_second;
            self.device = other.device;
        }
        self.most_in_a_frame = self.most_in_a_frame.max(other.most_in_a_frame);
        self.most_in_all = self.most_in_all.max(other.most_in_all);
        self.took_ms = self.took_ms.max(other.took_ms);
    }

    /// The broken bound, in words; `None` while all bounds are kept.
    pub(crate) fn excess(&self, limit: &Limit) -> Option<String> {
        let Limit { type_name, per_second } = limit;
        let Self { most_in_a_second, most_in_a_frame, most_in_all, took_ms, device } = self;
        let rate = u64::from(*per_second);
        let in_a_second = rate + rate * WINDOW_TOLERANCE_PERCENT / 100 + (*most_in_a_frame).min(rate);
        let in_all = rate * (took_ms + 1_000) / 1_000;
        let shown = format!("{rate} a second were to be shown");
        // The strictest bound first: its example says most.
        if *most_in_a_frame > rate {
            Some(format!("a device was given {most_in_a_frame} {type_name} in one frame; {shown}"))
        } else if *most_in_a_second > in_a_second {
            let given = format!("device {device} was given {most_in_a_second} {type_name} within a second");
            Some(format!("{given}; {shown} ({in_a_second} let pass)"))
        } else if *most_in_all > in_all {
            let given = format!("a device was given {most_in_all} {type_name} in {took_ms} ms");
            Some(format!("{given}; {shown} ({in_all} let pass)"))
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
