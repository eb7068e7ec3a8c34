//! Devices that are sent to the home node of their room.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use roomcast::auth::Grant;
use roomcast::seat::Seats;
use roomcast::shard::lane::{LaneBounds, mesh};
use roomcast::shard::{Plan, Shard};
use roomcast_core::limits::ELSEWHERE_INTERVAL;
use roomcast_core::now::Now;
use roomcast_core::room::id::{Encoding, RoomName};
use roomcast_core::room::pace::RoomRules;

use crate::socket::{Pipe, SimSocket};
use crate::world::name;

/// A shard, and the pipes of its devices in the order of their coming.
struct Stage {
    shard: Shard<SimSocket>,
    now: Now,
    seats: Seats,
    pipes: Vec<Rc<RefCell<Pipe>>>,
}

impl Stage {
    fn new() -> Self {
        let now = roomcast::clock::now();
        // So slow a heartbeat that silence closes nobody.
        let plan = Plan::new(0, 1, RoomRules::default(), Duration::from_secs(36_000), 1);
        let shard = Shard::new(plan, mesh(1, LaneBounds::default()).remove(0), now.instant);
        Self { shard, now, seats: Seats::new(100), pipes: Vec::new() }
    }

    /// A device in these rooms, as far as its home has answered.
    fn join(&mut self, rooms: &[&str]) {
        let (socket, pipe) = SimSocket::new(usize::MAX);
        let seat = self.seats.take().unwrap();
        let key = self.shard.residents.connect(socket, Encoding::Json, Grant::Any, seat, self.now);
        for room in rooms {
            self.shard.residents.join(key, &name(room), None, None, self.now);
            self.turn();
            while let Some(request) = self.shard.homes.poll_store() {
                let roomcast::store::StoreRequest::Load { room, life, .. } = request else {
                    panic!("a load")
                };
                let answer = roomcast::store::StoreAnswer::Loaded { room, life, stream: None };
                self.shard.homes.take_stored(answer, self.now);
            }
            self.turn();
        }
        self.pipes.push(pipe);
    }

    fn turn(&mut self) {
        while self.shard.turn(self.now) {}
    }

    fn wait(&mut self, by: Duration) {
        let until = self.now.later(by);
        while self.now.instant < until.instant {
            self.now = self.now.later(Duration::from_millis(500));
            self.turn();
        }
    }

    /// Sends devices of `r` away, and tells which devices were closed so far.
    fn send_away(&mut self, most: u32) -> (u32, Vec<bool>) {
        let url_of = |room: &RoomName| (room.as_str() == "r").then(|| Arc::from("wss://node-2.example"));
        let sent = self.shard.residents.send_elsewhere(&url_of, most, self.now);
        self.turn();
        (sent, self.pipes.iter().map(|pipe| pipe.borrow().ended).collect())
    }
}

#[test]
fn a_device_hears_the_url_of_its_home_once_it_is_a_minute_old() {
    let mut stage = Stage::new();
    stage.join(&["r"]);
    stage.join(&["s"]);
    stage.join(&["r", "s"]);
    assert_eq!(stage.send_away(10), (0, vec![false; 3]), "they have just come");
    stage.wait(ELSEWHERE_INTERVAL * 2);
    stage.join(&["r"]);
    assert_eq!(stage.send_away(10), (1, vec![true, false, false, false]));
    let heard = String::from_utf8_lossy(&stage.pipes[0].borrow().in_flight).into_owned();
    assert!(heard.ends_with("\u{f}\u{fffd}wss://node-2.example"), "4005 and the URL: {heard:?}");
    assert_eq!(stage.send_away(10).0, 0, "nobody else is in that room alone, and old enough");
    stage.wait(ELSEWHERE_INTERVAL * 2);
    assert_eq!(stage.send_away(10), (1, vec![true, false, false, true]));
}

#[test]
fn no_more_go_at_once_than_may() {
    let mut stage = Stage::new();
    for _ in 0..5 {
        stage.join(&["r"]);
    }
    stage.wait(ELSEWHERE_INTERVAL * 2);
    assert_eq!(stage.send_away(2).0, 2);
    assert_eq!(stage.send_away(2).0, 2);
    assert_eq!(stage.send_away(2).0, 1);
    stage.shard.check_invariants();
}
