//! The viewer doors of a worker's devices: the doors of the flags in turn, or the doors that the nodes name for
//! a room (`GET /v1/route`).
//!
//! One thread asks for routes, one room after the other, because a door that does not answer must not hold up
//! the devices. A device without a route waits; a room without an answer is served by the asked door.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::wire::doors::Door;
use crate::wire::route::{Route, read_route, route_path};

/// Doors known to a worker. Above: a door that a node names is left out.
const DOORS_MAX: usize = 1_024;
/// Longest wait for a route.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(2);
/// Life of a route that could not be asked for again.
const STALE_NS: u64 = 1_000_000_000;

/// The place of a door among the known doors.
pub(crate) type DoorPlace = u16;

#[derive(Debug)]
pub(crate) struct ViewerDoors {
    /// The doors of the flags, and behind them the doors that nodes named.
    doors: Vec<Door>,
    flags: usize,
    routes: Option<Routes>,
}

#[derive(Debug)]
struct Routes {
    questions: Sender<String>,
    answers: Receiver<(String, Result<Route, String>)>,
    /// Rooms with a question under way, each once in the channel.
    asked: BTreeSet<String>,
    known: BTreeMap<String, KnownRoute>,
}

#[derive(Debug)]
struct KnownRoute {
    /// Doors and weights.
    nodes: Vec<(DoorPlace, u64)>,
    until_ns: u64,
}

impl ViewerDoors {
    /// The `doors` of the flags, and the door to ask for routes, if any.
    pub(crate) fn new(doors: Vec<Door>, route: Option<Door>, device_token: Option<String>) -> Self {
        Self { flags: doors.len(), doors, routes: route.map(|door| Routes::ask_at(door, device_token)) }
    }

    pub(crate) fn door(&self, place: DoorPlace) -> &Door {
        &self.doors[usize::from(place)]
    }

    /// A door of the flags other than `place`, for the next connection of a device. `draw` gives a number below its
    /// argument.
    pub(crate) fn another(&self, place: DoorPlace, draw: impl FnOnce(u64) -> u64) -> DoorPlace {
        let place = usize::from(place);
        let others = self.flags - usize::from(place < self.flags);
        if others == 0 {
            return 0;
        }
        // By lot: the next door in turn would get all devices of a node that ends, and rooms would have no other.
        let drawn = usize::try_from(draw(others as u64)).unwrap_or(0);
        place_of(if drawn < place { drawn } else { drawn + 1 })
    }

    /// The place of a door that a node named; `None` past [`DOORS_MAX`].
    pub(crate) fn learn(&mut self, door: &Door) -> Option<DoorPlace> {
        if let Some(place) = self.doors.iter().position(|known| known == door) {
            return Some(place_of(place));
        }
        (self.doors.len() < DOORS_MAX).then(|| {
            self.doors.push(door.clone());
            place_of(self.doors.len() - 1)
        })
    }

    /// The door for a connection to `room`: `turn`, the device's own, unless nodes are asked. `draw` gives a
    /// number below its argument. `None`: the answer is not there yet.
    pub(crate) fn choose(
        &mut self,
        room: &str,
        turn: DoorPlace,
        now_ns: u64,
        draw: impl FnOnce(u64) -> u64,
    ) -> Option<DoorPlace> {
        let Some(mut routes) = self.routes.take() else { return Some(turn) };
        while let Ok((room, answer)) = routes.answers.try_recv() {
            routes.asked.remove(&room);
            self.take_answer(&mut routes, room, answer, now_ns);
        }
        let known = routes.known.get(room).filter(|known| now_ns < known.until_ns);
        let chosen = known.map(|known| by_weight(&known.nodes, draw));
        if chosen.is_none() && routes.asked.insert(room.to_owned()) {
            // The thread ends with this sender, and never before.
            drop(routes.questions.send(room.to_owned()));
        }
        self.routes = Some(routes);
        chosen
    }

    fn take_answer(&mut self, routes: &mut Routes, room: String, answer: Result<Route, String>, now_ns: u64) {
        let Ok(Route { nodes, ttl_ms }) = answer else {
            // The asked door is a viewer door as well, and serves any room.
            let stale = || KnownRoute { nodes: vec![(0, 1)], until_ns: 0 };
            routes.known.entry(room).or_insert_with(stale).until_ns = now_ns + STALE_NS;
            return;
        };
        let nodes = nodes.iter().filter_map(|(door, weight)| Some((self.learn(door)?, *weight)));
        let until_ns = now_ns + ttl_ms.saturating_mul(1_000_000).min(u64::MAX / 4);
        routes.known.insert(room, KnownRoute { nodes: nodes.collect(), until_ns });
    }

    /// Has the nodes for `room` asked for anew, because a door named for the room failed.
    pub(crate) fn forget(&mut self, room: &str) {
        if let Some(known) = self.routes.as_mut().and_then(|routes| routes.known.get_mut(room)) {
            known.until_ns = 0;
        }
    }
}

impl Routes {
    fn ask_at(door: Door, device_token: Option<String>) -> Self {
        let (questions, asked) = channel::<String>();
        let (said, answers) = channel();
        std::thread::spawn(move || {
            for room in asked {
                let answer =
                    door.exchange(&route_path(&room), device_token.as_deref(), ANSWER_AGE_MAX, read_route);
                if said.send((room, answer)).is_err() {
                    return;
                }
            }
        });
        Self { questions, answers, asked: BTreeSet::new(), known: BTreeMap::new() }
    }
}

fn place_of(place: usize) -> DoorPlace {
    DoorPlace::try_from(place).unwrap_or(0)
}

/// A place by its weight. Without any weight all places are equal; without a place the first door.
fn by_weight(nodes: &[(DoorPlace, u64)], draw: impl FnOnce(u64) -> u64) -> DoorPlace {
    let total = nodes.iter().fold(0_u64, |sum, (_, weight)| sum.saturating_add(*weight));
    if total == 0 {
        let drawn = usize::try_from(draw((nodes.len() as u64).max(1))).unwrap_or(0);
        return nodes.get(drawn).map_or(0, |(place, _)| *place);
    }
    let mut left = draw(total);
    for (place, weight) in nodes {
        if left < *weight {
            return *place;
        }
        left -= weight;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(port: u16) -> Door {
        format!("ws://127.0.0.1:{port}").parse().unwrap()
    }

    #[test]
    fn another_door_is_any_of_the_flags_but_the_last_one() {
        let drawn = |doors: u16, place: DoorPlace| {
            let doors = ViewerDoors::new((0..doors).map(door).collect(), None, None);
            let mut others: Vec<DoorPlace> =
                (0..8_u64).map(|number| doors.another(place, |below| number % below)).collect();
            others.sort_unstable();
            others.dedup();
            others
        };
        assert_eq!([drawn(3, 0), drawn(3, 1), drawn(3, 2)], [[1, 2], [0, 2], [0, 1]]);
        assert_eq!((drawn(1, 0), drawn(2, 0), drawn(2, 7)), (vec![0], vec![1], vec![0, 1]));
    }

    #[test]
    fn a_learned_door_has_a_place_of_its_own() {
        let mut doors = ViewerDoors::new(vec![door(1), door(2)], None, None);
        assert_eq!(
            (doors.learn(&door(2)), doors.learn(&door(3)), doors.learn(&door(3))),
            (Some(1), Some(2), Some(2))
        );
        assert_eq!(doors.door(2), &door(3));
        assert_eq!(doors.choose("r", 1, 0, |_| 0), Some(1));
    }

    #[test]
    fn weights_are_obeyed_and_without_weights_all_are_equal() {
        let drawn = |nodes: &[(DoorPlace, u64)], at: u64| by_weight(nodes, |_| at);
        let nodes = [(4, 0), (5, 30), (6, 70)];
        assert_eq!([0, 29, 30, 99].map(|at| drawn(&nodes, at)), [5, 5, 6, 6]);
        assert_eq!([0, 1].map(|at| drawn(&[(4, 0), (5, 0)], at)), [4, 5]);
        assert_eq!(drawn(&[], 0), 0);
        assert_eq!(drawn(&[(7, u64::MAX), (8, 1)], u64::MAX - 1), 7);
    }

    #[test]
    fn a_route_holds_for_its_life_and_a_lost_answer_leaves_the_asked_door() {
        let mut doors = ViewerDoors::new(vec![door(1)], Some(door(1)), None);
        let mut routes = doors.routes.take().unwrap();
        let route = Route { nodes: vec![(door(9), 1)], ttl_ms: 10 };
        doors.take_answer(&mut routes, "a".into(), Ok(route), 1_000);
        doors.take_answer(&mut routes, "b".into(), Err("HTTP 503".into()), 1_000);
        doors.routes = Some(routes);
        assert_eq!(doors.choose("a", 0, 10_000_999, |_| 0), Some(1));
        assert_eq!(doors.choose("b", 0, 1_000, |_| 0), Some(0));
        assert_eq!(doors.choose("a", 0, 10_001_000, |_| 0), None, "it is asked for again");
        doors.forget("b");
        assert_eq!(doors.choose("b", 0, 1_000, |_| 0), None);
    }
}
