//! The schedule of one type: due time and room of every message. Pure.
//!
//! Open loop: the due time of message n depends on n alone, never on the fate of earlier messages. Latency
//! counts from the due time, so a stalled server can't hide the messages it delayed.

mod listed;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::scenario::seating::Sizes;
use crate::scenario::units::Span;
pub(crate) use listed::LISTED_REQUESTS_MAX;
use listed::Listed;

/// Due time and room of each message of a type. Messages are numbered from 0. `messages_per_request`
/// consecutive messages travel in one request, are due together, and go to one room.
///
/// A plain schedule follows from the number by arithmetic. Any other is drawn from its seed and listed in
/// every process of the run; only the [`Recipe`] crosses between processes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Recipe")]
pub(crate) struct Schedule {
    /// Start of the run, in `CLOCK_MONOTONIC` nanoseconds.
    pub(crate) start_ns: u64,
    pub(crate) messages: u64,
    /// Messages in 1 000 seconds, over all rooms.
    pub(crate) rate_milli: u64,
    pub(crate) rooms: u32,
    pub(crate) messages_per_request: u32,
    pattern: Pattern,
    #[serde(skip)]
    listed: Option<Arc<Listed>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Arrivals {
    #[default]
    Constant,
    /// A Poisson process with a fixed number of arrivals: times are drawn evenly over the run, then sorted.
    Poisson,
    /// All messages due within `every` come at the beginning of this time.
    Burst { every: Span },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RoomChoice {
    #[default]
    Even,
    /// Rooms are drawn in proportion to their devices, with devices seated as [`Sizes`] says.
    BySize { sizes: Sizes, devices: u32, seed: u64 },
}

/// The difference between a schedule and the plain one: constant arrivals, rooms in turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pattern {
    pub(crate) arrivals: Arrivals,
    pub(crate) share: RoomChoice,
    /// Earliest due time after the start.
    pub(crate) from_ms: u64,
    /// Publishing time after `from_ms`; 0: as long as all messages take at their rate.
    pub(crate) within_ms: u64,
    pub(crate) seed: u64,
}

impl Pattern {
    /// A plain pattern needs no list.
    pub(crate) fn is_plain(&self) -> bool {
        self.arrivals == Arrivals::Constant && self.share == RoomChoice::Even && self.from_ms == 0
    }
}

/// All a process needs to draw the same schedule again.
#[derive(Deserialize)]
struct Recipe {
    start_ns: u64,
    messages: u64,
    rate_milli: u64,
    rooms: u32,
    messages_per_request: u32,
    pattern: Pattern,
}

impl From<Recipe> for Schedule {
    fn from(recipe: Recipe) -> Self {
        let Recipe { start_ns, messages, rate_milli, rooms, messages_per_request, pattern } = recipe;
        Self::even(messages, rate_milli, rooms, messages_per_request).patterned(pattern).starting(start_ns)
    }
}

impl Schedule {
    /// Constant arrivals to rooms in turn. The start is 0 until [`Self::starting`].
    pub(crate) fn even(messages: u64, rate_milli: u64, rooms: u32, messages_per_request: u32) -> Self {
        let pattern = Pattern::default();
        Self { start_ns: 0, messages, rate_milli, rooms, messages_per_request, pattern, listed: None }
    }

    pub(crate) fn starting(mut self, start_ns: u64) -> Self {
        self.start_ns = start_ns;
        self
    }

    pub(crate) fn patterned(mut self, pattern: Pattern) -> Self {
        self.pattern = pattern;
        self.listed = (!pattern.is_plain()).then(|| Arc::new(Listed::new(&self, &pattern)));
        self
    }

    /// Requests of the whole run; the last may be short.
    pub(crate) fn requests(&self) -> u64 {
        self.messages.div_ceil(u64::from(self.messages_per_request))
    }

    pub(crate) fn request_of(&self, number: u64) -> u64 {
        number / u64::from(self.messages_per_request)
    }

    pub(crate) fn numbers_of(&self, request: u64) -> std::ops::Range<u64> {
        let first = request * u64::from(self.messages_per_request);
        first..(first + u64::from(self.messages_per_request)).min(self.messages)
    }

    /// Due time of a request, in `CLOCK_MONOTONIC` nanoseconds.
    pub(crate) fn request_due_ns(&self, request: u64) -> u64 {
        let after_ns = match &self.listed {
            Some(listed) => listed.due_ns(request),
            None => self.evenly_ns(request),
        };
        self.start_ns + after_ns
    }

    /// Due time after the start under constant arrivals: request × messages per request / rate.
    fn evenly_ns(&self, request: u64) -> u64 {
        let first = u128::from(request) * u128::from(self.messages_per_request);
        let after = first * 1_000_000_000_000 / u128::from(self.rate_milli.max(1));
        u64::try_from(after).unwrap_or(u64::MAX / 2)
    }

    pub(crate) fn due_ns(&self, number: u64) -> u64 {
        self.request_due_ns(self.request_of(number))
    }

    /// Messages due up to `now_ns`. A binary search works because due times never fall.
    pub(crate) fn due_by(&self, now_ns: u64) -> u64 {
        let mut due = 0;
        let mut not_due = self.requests();
        while due < not_due {
            let middle = due.midpoint(not_due);
            if self.request_due_ns(middle) <= now_ns { due = middle + 1 } else { not_due = middle }
        }
        (due * u64::from(self.messages_per_request)).min(self.messages)
    }

    pub(crate) fn room_of_request(&self, request: u64) -> u32 {
        match &self.listed {
            Some(listed) => listed.room(request),
            None => u32::try_from(request % u64::from(self.rooms)).unwrap_or(0),
        }
    }

    pub(crate) fn room_of(&self, number: u64) -> u32 {
        self.room_of_request(self.request_of(number))
    }

    /// The place of a message in its room: the number of the room's earlier messages.
    pub(crate) fn place_of(&self, number: u64) -> u32 {
        let per_request = u64::from(self.messages_per_request);
        let request = self.request_of(number);
        let before = match &self.listed {
            Some(listed) => listed.requests_before(request),
            None => request / u64::from(self.rooms),
        };
        u32::try_from(before * per_request + number % per_request).unwrap_or(u32::MAX)
    }

    /// The message at `place` of `room`; the inverse of [`Self::room_of`] and [`Self::place_of`].
    pub(crate) fn number_at(&self, room: u32, place: u32) -> u64 {
        let per_request = u64::from(self.messages_per_request);
        let before = u64::from(place) / per_request;
        let request = match &self.listed {
            Some(listed) => listed.request_at(room, before),
            None => before * u64::from(self.rooms) + u64::from(room),
        };
        request * per_request + u64::from(place) % per_request
    }

    /// Messages of `room` in the whole run.
    pub(crate) fn messages_of(&self, room: u32) -> u32 {
        let requests = self.requests();
        let rooms = u64::from(self.rooms);
        let last = match &self.listed {
            Some(listed) => listed.last_of(room),
            // The last request of the room, at most a whole turn before the end.
            None if u64::from(room) < requests => {
                Some((requests - 1 - u64::from(room)) / rooms * rooms + u64::from(room))
            }
            None => None,
        };
        last.map_or(0, |last| self.place_of(self.numbers_of(last).end - 1) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::units::Share;

    #[test]
    fn the_time_of_a_message_depends_on_its_number_alone() {
        let schedule = Schedule::even(6_000, 200_000, 1, 1).starting(1_000);
        assert_eq!(schedule.due_ns(0), 1_000);
        assert_eq!(schedule.due_ns(1), 1_000 + 5_000_000);
        assert_eq!(schedule.due_ns(5_999), 1_000 + 5_999 * 5_000_000);
    }

    #[test]
    fn rates_that_divide_no_second_do_not_drift() {
        let schedule = Schedule::even(1_000_000, 3_000, 1, 1);
        assert_eq!(schedule.due_ns(3_000), 1_000 * 1_000_000_000);
    }

    #[test]
    fn messages_of_one_request_are_due_together_in_one_room() {
        let schedule = Schedule::even(1_000, 200_000, 7, 10);
        assert_eq!(schedule.due_ns(10), schedule.due_ns(19));
        assert_eq!(schedule.room_of(10), schedule.room_of(19));
        assert_ne!(schedule.room_of(9), schedule.room_of(10));
    }

    fn patterns(rooms: u32) -> [Pattern; 5] {
        let plain = Pattern { seed: 5, ..Pattern::default() };
        let devices = rooms * 9;
        let by_size = |sizes| RoomChoice::BySize { sizes, devices, seed: 1 };
        [
            plain,
            Pattern { arrivals: Arrivals::Poisson, ..plain },
            Pattern { arrivals: Arrivals::Burst { every: Span::of_ms(50) }, from_ms: 20, ..plain },
            Pattern { share: by_size(Sizes::Giant { share: Share::of_millionths(800_000) }), ..plain },
            Pattern { arrivals: Arrivals::Poisson, share: by_size(Sizes::Zipf { exponent: 1.0 }), ..plain },
        ]
    }

    #[test]
    fn room_and_place_name_exactly_one_message_in_any_pattern() {
        for (messages, rooms, per_request) in [(100, 1, 1), (101, 7, 1), (103, 7, 10), (5, 9, 2)] {
            for pattern in patterns(rooms) {
                let schedule = Schedule::even(messages, 200_000, rooms, per_request).patterned(pattern);
                let mut counts = vec![0_u32; rooms as usize];
                let mut before_ns = 0;
                for number in 0..messages {
                    let room = schedule.room_of(number);
                    let place = schedule.place_of(number);
                    assert_eq!(schedule.number_at(room, place), number, "{pattern:?}");
                    assert_eq!(counts[room as usize], place, "places of a room count up without a hole");
                    counts[room as usize] += 1;
                    assert!(schedule.due_ns(number) >= before_ns, "{pattern:?}");
                    before_ns = schedule.due_ns(number);
                }
                for room in 0..rooms {
                    assert_eq!(schedule.messages_of(room), counts[room as usize]);
                }
                let due_ns = schedule.due_ns(messages / 2);
                let due = (0..messages).filter(|number| schedule.due_ns(*number) <= due_ns).count();
                assert_eq!(schedule.due_by(due_ns), due as u64, "{pattern:?}");
            }
        }
    }

    #[test]
    fn another_process_draws_the_same() {
        for pattern in patterns(11) {
            let schedule = Schedule::even(500, 200_000, 11, 1).patterned(pattern);
            let text = serde_json::to_string(&schedule).unwrap();
            assert!(text.len() < 400, "{text}");
            assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule);
        }
    }

    #[test]
    fn random_arrivals_keep_the_rate_and_bursts_come_at_once() {
        let poisson = Pattern { arrivals: Arrivals::Poisson, from_ms: 1_000, seed: 3, ..Pattern::default() };
        let schedule = Schedule::even(10_000, 1_000_000, 1, 1).patterned(poisson);
        let half = (0..10_000).filter(|number| schedule.due_ns(*number) < 6_000_000_000).count();
        assert!((4_800..5_200).contains(&half), "{half} of 10000 in the first half");
        assert!(schedule.due_ns(0) >= 1_000_000_000 && schedule.due_ns(9_999) < 11_000_000_000);
        let gaps = (1..10_000).map(|number| schedule.due_ns(number) - schedule.due_ns(number - 1));
        let long = gaps.filter(|gap_ns| *gap_ns > 1_000_000).count();
        assert!(
            (3_400..3_950).contains(&long),
            "{long} gaps past the mean: e⁻¹ of them in a Poisson process"
        );
        let rare = Pattern { within_ms: 10_000, ..poisson };
        let one = Schedule::even(1, 10, 1, 1).patterned(rare);
        assert!(one.due_ns(0) < 11_000_000_000, "one in 100 s, of which 10 s are asked");
        let burst =
            Pattern { arrivals: Arrivals::Burst { every: Span::of_seconds(2) }, ..Pattern::default() };
        let schedule = Schedule::even(40, 10_000, 1, 1).patterned(burst);
        let due: Vec<u64> = [0, 19, 20, 39].map(|number| schedule.due_ns(number) / 1_000_000_000).to_vec();
        assert_eq!(due, [0, 0, 2, 2]);
    }

    #[test]
    fn a_large_room_is_given_its_part() {
        let share = RoomChoice::BySize {
            sizes: Sizes::Giant { share: Share::of_millionths(900_000) },
            devices: 1_000,
            seed: 1,
        };
        let schedule = Schedule::even(10_000, 1_000_000, 11, 1).patterned(Pattern {
            share,
            seed: 1,
            ..Pattern::default()
        });
        assert!((8_800..9_200).contains(&schedule.messages_of(0)), "{}", schedule.messages_of(0));
        assert!((1..11).all(|room| schedule.messages_of(room) > 50));
    }
}
