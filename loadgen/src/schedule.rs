//! The one schedule of a run: which message is published when, and to which room.
//!
//! Open loop: the time of the n-th message depends on n alone, never on how earlier ones fared. Latency counts from
//! this time, so a server that stalls can't hide the messages it delayed. Pure.

use serde::{Deserialize, Serialize};

/// When and where each message of a run is due. Messages are numbered from 0; `messages_per_request` consecutive ones
/// travel in one request, are due together, and go to one room; requests go round the rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Schedule {
    /// `CLOCK_MONOTONIC` nanoseconds at which message 0 is due.
    pub(crate) start_ns: u64,
    /// Messages of the whole run.
    pub(crate) messages: u64,
    /// Messages in 1 000 seconds, over all rooms.
    pub(crate) rate_milli: u64,
    /// Rooms of the run.
    pub(crate) rooms: u32,
    /// Messages of one publish request.
    pub(crate) messages_per_request: u32,
}

impl Schedule {
    /// Requests of the whole run; the last may be short.
    #[must_use]
    pub(crate) fn requests(&self) -> u64 {
        self.messages.div_ceil(u64::from(self.messages_per_request))
    }

    /// The request that message `number` travels in.
    #[must_use]
    pub(crate) fn request_of(&self, number: u64) -> u64 {
        number / u64::from(self.messages_per_request)
    }

    /// The numbers that request `request` holds.
    #[must_use]
    pub(crate) fn numbers_of(&self, request: u64) -> std::ops::Range<u64> {
        let first = request * u64::from(self.messages_per_request);
        first..(first + u64::from(self.messages_per_request)).min(self.messages)
    }

    /// When request `request` is due, in `CLOCK_MONOTONIC` nanoseconds.
    #[must_use]
    pub(crate) fn request_due_ns(&self, request: u64) -> u64 {
        let first = u128::from(request) * u128::from(self.messages_per_request);
        let after = first * 1_000_000_000_000 / u128::from(self.rate_milli.max(1));
        self.start_ns + u64::try_from(after).unwrap_or(u64::MAX / 2)
    }

    /// When message `number` is due, in `CLOCK_MONOTONIC` nanoseconds.
    #[must_use]
    pub(crate) fn due_ns(&self, number: u64) -> u64 {
        self.request_due_ns(self.request_of(number))
    }

    /// The room that request `request` goes to.
    #[must_use]
    pub(crate) fn room_of_request(&self, request: u64) -> u32 {
        u32::try_from(request % u64::from(self.rooms)).unwrap_or(0)
    }

    /// The room that message `number` goes to.
    #[must_use]
    pub(crate) fn room_of(&self, number: u64) -> u32 {
        self.room_of_request(self.request_of(number))
    }

    /// How many messages the same room is given before message `number`: its place there.
    #[must_use]
    pub(crate) fn place_of(&self, number: u64) -> u32 {
        let per_request = u64::from(self.messages_per_request);
        let place = number / per_request / u64::from(self.rooms) * per_request + number % per_request;
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    /// The message at `place` of `room`; the inverse of [`Self::room_of`] and [`Self::place_of`].
    #[must_use]
    pub(crate) fn number_at(&self, room: u32, place: u32) -> u64 {
        let per_request = u64::from(self.messages_per_request);
        let request = u64::from(place) / per_request * u64::from(self.rooms) + u64::from(room);
        request * per_request + u64::from(place) % per_request
    }

    /// How many messages `room` is given in the whole run.
    #[must_use]
    pub(crate) fn messages_of(&self, room: u32) -> u32 {
        let (requests, rooms) = (self.requests(), u64::from(self.rooms));
        if u64::from(room) >= requests {
            return 0;
        }
        let last = (requests - 1 - u64::from(room)) / rooms * rooms + u64::from(room);
        let last_number = self.numbers_of(last).end - 1;
        self.place_of(last_number) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(messages: u64, rooms: u32, messages_per_request: u32) -> Schedule {
        Schedule { start_ns: 1_000, messages, rate_milli: 200_000, rooms, messages_per_request }
    }

    #[test]
    fn the_time_of_a_message_depends_on_its_number_alone() {
        let schedule = schedule(6_000, 1, 1);
        assert_eq!(schedule.due_ns(0), 1_000);
        assert_eq!(schedule.due_ns(1), 1_000 + 5_000_000);
        assert_eq!(schedule.due_ns(5_999), 1_000 + 5_999 * 5_000_000);
    }

    #[test]
    fn rates_that_divide_no_second_do_not_drift() {
        let schedule = Schedule { rate_milli: 3_000, ..schedule(1_000_000, 1, 1) };
        assert_eq!(schedule.due_ns(3_000), 1_000 + 1_000 * 1_000_000_000);
    }

    #[test]
    fn messages_of_one_request_are_due_together_in_one_room() {
        let schedule = schedule(1_000, 7, 10);
        assert_eq!(schedule.due_ns(10), schedule.due_ns(19));
        assert_eq!(schedule.room_of(10), schedule.room_of(19));
        assert_ne!(schedule.room_of(9), schedule.room_of(10));
    }

    #[test]
    fn room_and_place_name_exactly_one_message() {
        for (messages, rooms, per_request) in [(100, 1, 1), (101, 7, 1), (103, 7, 10), (5, 9, 2)] {
            let schedule = schedule(messages, rooms, per_request);
            let mut counts = vec![0_u32; rooms as usize];
            for number in 0..messages {
                let (room, place) = (schedule.room_of(number), schedule.place_of(number));
                assert_eq!(schedule.number_at(room, place), number);
                assert_eq!(counts[room as usize], place, "places of a room count up without a hole");
                counts[room as usize] += 1;
            }
            for room in 0..rooms {
                assert_eq!(schedule.messages_of(room), counts[room as usize]);
            }
        }
    }
}
