//! A drawn schedule, listed request by request. With random arrivals and rooms, the lists still find any
//! message by its number, its room or its place. Pure.

use super::{Arrivals, Pattern, RoomChoice, Schedule};
use crate::scenario::seating::Seating;

/// Most listed requests of one type: 20 bytes each, in every process of the run.
pub(crate) const LISTED_REQUESTS_MAX: u64 = 5_000_000;

#[derive(Debug, PartialEq)]
pub(super) struct Listed {
    /// Request -> due time after the start. Invariant: times never fall.
    due_ns: Box<[u64]>,
    /// Request -> room.
    room: Box<[u32]>,
    /// Request -> earlier requests of the same room.
    before: Box<[u32]>,
    /// Requests in order, room after room. `first[room]` is the place of a room's first request.
    requests: Box<[u32]>,
    first: Box<[u32]>,
}

impl Listed {
    pub(super) fn new(schedule: &Schedule, pattern: &Pattern) -> Self {
        let mut random = fastrand::Rng::with_seed(pattern.seed);
        let requests = u32::try_from(schedule.requests().min(LISTED_REQUESTS_MAX)).unwrap_or(0);
        let due_ns = due_ns(schedule, pattern, requests, &mut random);
        let room = rooms(schedule, pattern, requests, &mut random);
        let mut counts = vec![0_u32; schedule.rooms as usize];
        let before: Box<[u32]> = room
            .iter()
            .map(|room| {
                let count = &mut counts[*room as usize];
                *count += 1;
                *count - 1
            })
            .collect();
        let mut first = vec![0];
        for count in counts {
            first.push(first.last().copied().unwrap_or(0) + count);
        }
        let mut of_rooms = vec![0; requests as usize];
        for ((request, room), before) in (0..requests).zip(&room).zip(&before) {
            of_rooms[(first[*room as usize] + before) as usize] = request;
        }
        Self { due_ns, room, before, requests: of_rooms.into(), first: first.into() }
    }

    pub(super) fn due_ns(&self, request: u64) -> u64 {
        self.due_ns[index(request)]
    }

    pub(super) fn room(&self, request: u64) -> u32 {
        self.room[index(request)]
    }

    pub(super) fn requests_before(&self, request: u64) -> u64 {
        u64::from(self.before[index(request)])
    }

    /// The request of `room` with `before` earlier requests in the room.
    pub(super) fn request_at(&self, room: u32, before: u64) -> u64 {
        u64::from(self.requests[self.first[room as usize] as usize + index(before)])
    }

    pub(super) fn last_of(&self, room: u32) -> Option<u64> {
        let [first, end] = [room, room + 1].map(|room| self.first[room as usize] as usize);
        self.requests[first..end].last().map(|request| u64::from(*request))
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("what is listed fits memory")
}

fn due_ns(schedule: &Schedule, pattern: &Pattern, requests: u32, random: &mut fastrand::Rng) -> Box<[u64]> {
    let from_ns = pattern.from_ms * 1_000_000;
    let evenly = |request: u32| schedule.evenly_ns(u64::from(request));
    match pattern.arrivals {
        Arrivals::Constant => (0..requests).map(|request| from_ns + evenly(request)).collect(),
        Arrivals::Poisson => {
            // Given the number of arrivals of a Poisson process, each arrival time is uniform and
            // independent. A slow type's single message takes longer at its rate than the type is published.
            let asked_ns = if pattern.within_ms == 0 { u64::MAX } else { pattern.within_ms * 1_000_000 };
            let within_ns = evenly(requests).min(asked_ns).max(1);
            let mut times: Vec<u64> = (0..requests).map(|_| from_ns + random.u64(..within_ns)).collect();
            times.sort_unstable();
            times.into()
        }
        Arrivals::Burst { every } => {
            let every_ns = every.ms().max(1) * 1_000_000;
            (0..requests).map(|request| from_ns + evenly(request) / every_ns * every_ns).collect()
        }
    }
}

fn rooms(schedule: &Schedule, pattern: &Pattern, requests: u32, random: &mut fastrand::Rng) -> Box<[u32]> {
    let RoomChoice::BySize { sizes, devices, seed } = pattern.share else {
        return (0..requests).map(|request| request % schedule.rooms).collect();
    };
    let seating = Seating::new(sizes, devices, schedule.rooms, seed);
    let mut up_to = 0;
    let ends: Vec<u64> = (0..schedule.rooms)
        .map(|room| {
            up_to += u64::from(seating.devices_of(room));
            up_to
        })
        .collect();
    let room_of = |device: u64| u32::try_from(ends.partition_point(|end| *end <= device)).unwrap_or(0);
    // Clamped for an audience of 0 devices.
    (0..requests).map(|_| room_of(random.u64(..up_to.max(1))).min(schedule.rooms - 1)).collect()
}
