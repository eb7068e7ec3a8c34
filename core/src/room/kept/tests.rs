//! Facts about a room whose next run begins with what was said of the former one.

use std::time::Duration;

use super::*;
use crate::cluster::kept::KeptRooms;
use crate::cluster::{Slot, Term};
use crate::limits::{KEPT_BYTES_MAX, SHARDS_MAX};
use crate::room::exchange::{Input, Join, Output, SegmentSaid, Welcomed};
use crate::room::id::{Encoding, Key, Seen, TypeName};
use crate::room::message::{Message, sample};
use crate::room::policy::TypePolicy;
use crate::room::tally::RoomTally;
use prost::Message as _;

const TERM: Term = Term { generation: 0, sequence: 7 };

fn rules() -> RoomRules {
    RoomRules::default()
}

fn name() -> RoomName {
    RoomName::parse("r1").unwrap()
}

struct Home {
    room: Room,
    now: Now,
    tally: RoomTally,
    welcomed: Vec<Welcomed>,
    /// Batches that change the words for an heir.
    kept_batches: usize,
}

impl Home {
    fn of(room: Room, now: Now) -> Self {
        Self { room, now, tally: RoomTally::default(), welcomed: Vec::new(), kept_batches: 0 }
    }

    fn first() -> Self {
        let now = Now::made_up();
        Self::of(Room::new(name(), Run(7), rules(), now.instant), now)
    }

    fn tell(&mut self, input: Input) {
        self.room.handle(input, self.now, &mut self.tally);
        while let Some(output) = self.room.poll_output() {
            match output {
                Output::Load { life, .. } => {
                    self.room.handle(Input::Loaded { life, stored: None }, self.now, &mut self.tally);
                }
                Output::Welcomed(welcomed) => self.welcomed.push(welcomed),
                Output::Batch { batch, .. } => self.kept_batches += usize::from(batch.changes_kept()),
                _ => {}
            }
        }
    }

    fn publish(&mut self, message: Message) {
        self.now = self.now.later(Duration::from_millis(200));
        self.tell(Input::Publish { ticket: 1, messages: vec![message] });
        self.tell(Input::Flush);
    }

    fn likes(&mut self, count: u64) {
        self.publish(Message { count, ..of_class(Class::Counter, "like", "1") });
    }

    fn price(&mut self, key: &str, value: u64) {
        let key = Some(Key::parse(key).unwrap());
        self.publish(Message { key, ..of_class(Class::Latest, "price", &value.to_string()) });
    }

    fn join(&mut self, seen: Option<Seen>) -> Welcomed {
        let join = Join {
            shard: 0,
            connection: 1,
            join: 1,
            encoding: Encoding::Json,
            seen,
            cursor: None,
            device: 0,
            moved: true,
        };
        self.tell(Input::Segment { shard: SHARDS_MAX, said: SegmentSaid::Join(join) });
        self.welcomed.pop().expect("a welcome")
    }

    fn shown(&mut self) -> Shown {
        let snapshot = self.room.snapshot(Seq(0), None, self.now);
        let totals: Vec<(String, u64)> =
            snapshot.counters.iter().map(|(name, total)| (name.to_string(), *total)).collect();
        let value = |message: &std::sync::Arc<Message>| {
            let key = message.key.as_ref().map_or_else(String::new, |key| key.as_str().into());
            (key, String::from_utf8(message.payload.bytes().to_vec()).unwrap())
        };
        let mut latest: Vec<(String, String)> = snapshot.latest.iter().map(value).collect();
        latest.sort();
        Shown { totals, latest }
    }

    /// The next run, of these words.
    fn next(&self, said: pb::KeptRoom) -> Self {
        Self::of(Room::of_kept(said, Run(8), rules(), self.now).unwrap(), self.now)
    }
}

/// Totals, and latest values by key, as a device is shown them.
#[derive(Debug, PartialEq)]
struct Shown {
    totals: Vec<(String, u64)>,
    latest: Vec<(String, String)>,
}

fn of_class(class: Class, type_name: &str, payload: &str) -> Message {
    let policy = TypePolicy::of(class);
    Message { policy, ttl: policy.ttl, ..sample(type_name, payload) }
}

#[test]
fn another_run_begins_with_the_totals_and_values_at_the_same_seq_and_counts_on() {
    let mut home = Home::first();
    home.likes(3);
    home.price("a", 5);
    home.publish(sample("chat", "1"));
    home.price("a", 6);
    assert_eq!(home.kept_batches, 3, "chat changes nothing");
    let mut next = home.next(home.room.kept(Seq(0)));
    assert_eq!((next.room.run(), next.room.seq()), (Run(8), home.room.seq()));
    assert_eq!(next.shown(), home.shown());
    assert!(next.room.has_to_keep());
    next.likes(2);
    assert_eq!(next.shown().totals, [("like".to_owned(), 5)]);
    let account = &next.room.view(0, next.now.instant).account["like"];
    assert_eq!((account.accepted, account.delivered), (1, 1), "the account is that of the new run");
    assert_eq!(next.room.seq(), home.room.seq().next());
}

#[test]
fn the_number_of_members_is_not_kept() {
    let mut home = Home::first();
    home.join(None);
    home.now = home.now.later(Duration::from_secs(5));
    home.tell(Input::Due);
    home.tell(Input::Flush);
    assert_eq!(home.shown().latest, [("online".to_owned(), "1".to_owned())]);
    assert_eq!((home.kept_batches, home.room.has_to_keep()), (0, false));
    assert_eq!(home.room.kept(Seq(0)).latest, []);
}

#[test]
fn a_device_of_the_former_run_gets_the_chat_of_the_new_one_and_is_told_of_a_gap() {
    let mut home = Home::first();
    home.likes(1);
    let kept = home.room.kept(Seq(0));
    // The heir does not know of this.
    home.publish(sample("chat", "\"lost\""));
    let seen = Some(Seen { run: home.room.run(), seq: home.room.seq() });
    let mut next = home.next(kept);
    next.publish(sample("chat", "\"new\""));
    let welcomed = next.join(seen);
    assert!(!welcomed.resumed);
    let history = next.room.snapshot(welcomed.history_after, None, next.now).history;
    assert_eq!(history.len(), 1, "the seq of a batch that is gone hides nothing");
}

#[test]
fn changes_on_top_of_what_was_said_are_the_whole_state() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut home = Home::first();
        let mut heir = KeptRooms::new(KEPT_BYTES_MAX);
        let mut said = Seq(0);
        for _ in 0..60 {
            match rng.u8(..10) {
                0..4 => home.likes(rng.u64(1..9)),
                4..7 => home.price(["a", "b", "c"][rng.usize(..3)], rng.u64(..99)),
                7 => home.publish(sample("chat", "1")),
                _ => {
                    let word = pb::KeptRoom::decode(&home.room.kept(said).encode_to_vec()[..]).unwrap();
                    heir.keep(Slot(3), TERM, &name(), word, home.now.instant);
                    said = home.room.seq();
                }
            }
        }
        let word = home.room.kept(said);
        if home.room.seq() > said {
            heir.keep(Slot(3), TERM, &name(), word, home.now.instant);
        }
        let kept = heir.take(Slot(3), home.now.instant).pop().expect("the room");
        assert_eq!(home.next(kept).shown(), home.shown(), "seed {seed}");
    }
}

#[test]
fn growth_before_the_reach_of_the_totals_is_said_whole() {
    let mut home = Home::first();
    home.likes(1);
    let said = home.room.seq();
    home.likes(1);
    for n in 0..crate::limits::ACCOUNT_SEQS_MAX * 2 {
        home.publish(sample("chat", &n.to_string()));
    }
    let word = home.room.kept(said);
    assert_eq!((word.since, word.totals.len()), (0, 1));
}

#[test]
fn words_of_a_stranger_make_a_room_or_none_and_never_panic() {
    let mut home = Home::first();
    home.likes(3);
    home.price("a", 5);
    let whole = home.room.kept(Seq(0)).encode_to_vec();
    let mut refused = 0;
    for seed in 0..3_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bytes = whole.clone();
        for _ in 0..rng.usize(1..6) {
            let at = rng.usize(..bytes.len());
            bytes[at] = rng.u8(..);
        }
        let Ok(said) = pb::KeptRoom::decode(&bytes[..]) else { continue };
        match Room::of_kept(said, Run(8), rules(), home.now) {
            Ok(room) => {
                let mut next = Home::of(room, home.now);
                next.likes(1);
                next.join(None);
                assert!(next.room.kept(Seq(0)).since == 0);
            }
            Err(NotHanded) => refused += 1,
        }
    }
    assert!(refused > 100, "{refused} refused");
    let total = |total| pb::KeptTotal { r#type: TypeName::parse("like").unwrap().to_string(), total };
    let said = pb::KeptRoom { totals: vec![total(INTEGER_MAX + 1)], ..home.room.kept(Seq(0)) };
    assert!(Room::of_kept(said, Run(8), rules(), home.now).is_err());
}
