//! Rooms without a home, on one shard of a cluster.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::device::{Device, Known, SimSocket};
use crate::auth::Grant;
use crate::clock;
use crate::seat::Seats;
use crate::shard::lane::{Delivery, HomeSaid, JoinRefusal, JoinRefused, LaneBounds, mesh};
use crate::shard::slots::Slots;
use crate::shard::ways::{FromNode, NodeWord, ToNode, Way, WayOut};
use crate::shard::{Plan, Shard};
use crate::store::memory::Memory;
use crate::store::time::{Stamp, StoreNow};
use crate::store::{Store as _, StoreAnswer, StoreRequest};
use roomcast_core::cluster::{NodeKey, Slot, SlotHome, SlotStanding, Term};
use roomcast_core::limits::NO_HOME_AGE_MAX;
use roomcast_core::now::Now;
use roomcast_core::room::Join;
use roomcast_core::room::id::{Encoding, NameKey, RoomName};
use roomcast_core::room::pace::RoomRules;

const KEY: NameKey = NameKey([9, 9]);

/// A node of one shard, and a device in rooms `r1` and `r2`.
struct Solo {
    shard: Shard<SimSocket>,
    slots: Arc<Slots>,
    memory: Memory,
    way: Arc<Way>,
    device: Device,
    now: Now,
}

impl Solo {
    /// `homes`: of the two rooms. The device joins `r1` first.
    fn new(homes: [SlotHome; 2]) -> Self {
        let now = clock::now();
        let slots = Arc::new(Slots::new(KEY));
        let plan = Plan::new(0, 1, RoomRules::default(), Duration::from_secs(36_000), 1);
        let lanes = mesh(1, LaneBounds::default()).remove(0);
        let way = Way::new();
        let out = WayOut { way: Arc::clone(&way), wake: Arc::new(|| ()) };
        let shard = Shard::new(plan, lanes, now.instant).in_cluster(Arc::clone(&slots), out);
        let device = Device::new(0, "r1", None, 1 << 20);
        let mut solo = Self { shard, slots, memory: Memory::default(), way, device, now };
        solo.stand("r1", homes[0]);
        solo.stand("r2", homes[1]);
        solo.turn();
        let seat = Seats::new(1).take().expect("a seat");
        let socket = SimSocket(Rc::clone(&solo.device.pipe));
        let residents = &mut solo.shard.residents;
        solo.device.key = residents.connect(socket, Encoding::Json, Grant::Any, seat, now);
        residents.join(solo.device.key, &name("r1"), None, None, now);
        solo.device.rooms.insert("r2".into(), Known::default());
        residents.join(solo.device.key, &name("r2"), None, None, now);
        solo.turn();
        solo
    }

    fn stand(&mut self, room: &str, home: SlotHome) {
        let term = Term { generation: 0, sequence: 1 };
        self.slots.set(Slot::of(&name(room), KEY), SlotStanding { home, term });
    }

    /// Turns until nothing more happens. No stream is stored.
    fn turn(&mut self) {
        for _ in 0..10 {
            self.shard.turn(self.now);
            self.shard.check_invariants();
            while let Some(request) = self.shard.homes.poll_store() {
                let StoreRequest::Load { room, life, whole_after } = request else {
                    panic!("nothing is published")
                };
                let instant = self.now.instant;
                let now = StoreNow { instant, stamp: Stamp::default(), noted: Stamp::default() };
                let stream = self.memory.load(&room, whole_after, now).unwrap();
                self.shard.homes.take_stored(StoreAnswer::Loaded { room, life, stream }, self.now);
            }
        }
    }

    /// Times that the device was welcomed in each room, after a turn.
    fn welcomes(&mut self) -> [u64; 2] {
        self.turn();
        self.device.read();
        ["r1", "r2"].map(|room| {
            let known = &self.device.rooms[room];
            u64::from(known.stands.is_some()) + known.rewelcomed + known.rewelcomed_in_run
        })
    }
}

fn name(room: &str) -> RoomName {
    RoomName::parse(room).unwrap()
}

#[test]
fn a_room_without_a_home_holds_up_no_other_room_of_a_newcomer() {
    let mut solo = Solo::new([SlotHome::Nobody, SlotHome::Here]);
    assert_eq!(solo.welcomes(), [0, 1]);
    solo.stand("r1", SlotHome::Here);
    assert_eq!(solo.welcomes(), [1, 1]);
}

#[test]
fn a_room_without_a_home_holds_up_no_other_room_of_a_member() {
    let mut solo = Solo::new([SlotHome::Here, SlotHome::Here]);
    assert_eq!(solo.welcomes(), [1, 1]);
    // The node loses both rooms, and orders the second one again.
    solo.stand("r1", SlotHome::Nobody);
    solo.stand("r2", SlotHome::Nobody);
    solo.stand("r2", SlotHome::Here);
    assert_eq!(solo.welcomes(), [1, 2]);
    solo.now = solo.now.later(NO_HOME_AGE_MAX * 2);
    assert_eq!(solo.welcomes(), [1, 2], "a member waits on");
    solo.stand("r1", SlotHome::Here);
    assert_eq!(solo.welcomes(), [2, 2]);
}

#[test]
fn a_newcomer_is_refused_where_no_home_comes_in_time_and_may_ask_again() {
    let mut solo = Solo::new([SlotHome::Frozen, SlotHome::Here]);
    assert_eq!(solo.welcomes(), [0, 1]);
    solo.now = solo.now.later(NO_HOME_AGE_MAX);
    solo.turn();
    let frames = std::mem::take(&mut solo.device.pipe.borrow_mut().bytes);
    assert!(String::from_utf8_lossy(&frames).contains("no_home"));
    solo.shard.residents.join(solo.device.key, &name("r1"), None, None, solo.now);
    solo.stand("r1", SlotHome::Here);
    assert_eq!(solo.welcomes(), [1, 1]);
}

#[test]
fn each_join_of_a_word_of_another_node_has_its_own_answer() {
    const OTHER: NodeKey = NodeKey(7);
    let mut solo = Solo::new([SlotHome::Here, SlotHome::Nobody]);
    let mut answers = |room: &str| {
        let join = |ticket| Join {
            shard: 2,
            connection: u64::from(ticket),
            join: ticket,
            encoding: Encoding::Json,
            seen: None,
            cursor: None,
            device: u64::from(10 * ticket),
            moved: ticket == 2,
        };
        let word = NodeWord::Joins { room: name(room), joins: (1..=3).map(join).collect() };
        solo.way.back.push(FromNode::Word { node: OTHER, word }).unwrap();
        solo.turn();
        let mut answered = Vec::new();
        while let Some(ToNode { node: OTHER, word }) = solo.way.out.pop() {
            match word {
                NodeWord::ToBranch(Delivery { said: HomeSaid::Welcome(welcome), .. }) => {
                    let members = welcome.apart();
                    let shown = members.iter().map(|of| (of.shard, of.connection, of.join, of.place.device));
                    answered.push(format!("{:?}", shown.collect::<Vec<_>>()));
                }
                NodeWord::ToBranch(Delivery { said: HomeSaid::Refused(refused), .. }) => {
                    let JoinRefused { shard, connection, join, code } = refused;
                    assert_eq!(code, JoinRefusal::NotHome);
                    answered.push(format!("{:?}", (shard, connection, join)));
                }
                word => panic!("{word:?}"),
            }
        }
        answered
    };
    assert_eq!(answers("r1"), ["[(2, 1, 1, 10), (2, 2, 2, 20), (2, 3, 3, 30)]"], "one word");
    assert_eq!(answers("r2"), ["(2, 1, 1)", "(2, 2, 2)", "(2, 3, 3)"]);
}
