//! Golden bytes of each word, random words there and back, and bytes that are no words.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fastrand::Rng;
use hyper::{Method, StatusCode};

use super::*;
use crate::cluster::calls::{CallFailed, NodeAnswer};
use crate::shard::lane::{AlsoWelcomed, Control, Delivery, HomeSaid, JoinRefusal, JoinRefused, Welcome};
use roomcast_core::cluster::Term;
use roomcast_core::fanout::segment::{Level, RefreshFrame, Refreshed, StreamPlace};
use roomcast_core::limits::{
    INTEGER_MAX, KEEP_WORD_ROOMS_MAX, LINK_FRAMES_KEPT_BYTES_MAX, LINK_FRAMES_KEPT_MAX, NODE_WORD_JOINS_MAX,
    ROOM_STATE_BYTES_MAX, SHARDS_MAX, TERM_PART_MAX,
};
use roomcast_core::room::id::{Cursor, Encoding, Epoch, RoomName, Run, Seen, Seq};
use roomcast_core::room::receipt::Acks;
use roomcast_core::room::{
    CarryWant, Counts, Departure, EarlyAck, Join, LatestPlace, Reach, RefreshWant, SegmentSaid, WriteCost,
};

/// A word as its maker has it.
#[derive(Debug)]
enum Made {
    Node(NodeWord),
    Call(u64, NodeRequest),
    Answer(u64, CallOutcome),
    HandOver(Slot, u64, u8),
    Keep(Box<pb::Keep>),
}

fn bytes_of(made: &Made, frames: &mut FramesSent, now: Instant) -> Bytes {
    match made {
        Made::Node(word) => said(word, frames, now),
        Made::Call(number, request) => call(*number, request),
        Made::Answer(number, outcome) => answer(*number, outcome),
        Made::HandOver(slot, attempt, sort) => hand_over(*slot, *attempt, of_hand_over(*sort)),
        Made::Keep(said) => keep(pb::Keep::clone(said)),
    }
}

fn shown(word: &Word) -> String {
    match word {
        Word::Node(word) => format!("{word:?}"),
        Word::Call { number, request } => format!("{number} {request:?}"),
        Word::Answer { number, outcome } => format!("{number} {outcome:?}"),
        Word::HandOver { slot, attempt, said } => format!("{slot:?} {attempt} {said:?}"),
        Word::Keep { slot, term, rooms } => format!("{slot:?} {term:?} {:?}", rooms[0].1),
    }
}

fn shown_made(made: &Made) -> String {
    match made {
        Made::Node(word) => format!("{word:?}"),
        Made::Call(number, request) => format!("{number} {request:?}"),
        Made::Answer(number, outcome) => format!("{number} {outcome:?}"),
        Made::HandOver(slot, attempt, sort) => format!("{slot:?} {attempt} {:?}", of_hand_over(*sort)),
        Made::Keep(said) => {
            let pb::Term { generation, sequence } = said.term.unwrap();
            let slot = Slot(u8::try_from(said.slot).unwrap());
            format!("{slot:?} {:?} {:?}", Term { generation, sequence }, said.rooms[0])
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "there is no other way to an instant")]
fn made_up() -> Instant {
    Instant::now() + Duration::from_secs(7200)
}

/// Draws words.
struct Drawn {
    rng: Rng,
    now: Instant,
    /// Frames of earlier words.
    frames: Vec<Bytes>,
}

impl Drawn {
    /// A room with a total and a value.
    fn keep(&mut self) -> pb::Keep {
        let value = pb::ShownMessage {
            seq: 4,
            r#type: "price".into(),
            key: "k".into(),
            payload: self.integer().to_string().into(),
            has_value: true,
            ..pb::ShownMessage::default()
        };
        let room = pb::KeptRoom {
            room: self.room().to_string(),
            run: self.rng.u64(..),
            seq: self.integer(),
            since: 3,
            totals: vec![pb::KeptTotal { r#type: "like".into(), total: self.integer() }],
            latest: vec![value],
        };
        let term = Some(pb::Term { generation: 1, sequence: 99 });
        pb::Keep { slot: self.rng.u8(..).into(), term, rooms: vec![room] }
    }

    fn integer(&mut self) -> u64 {
        let bits = self.rng.u32(1..=53);
        self.rng.u64(..1 << bits)
    }

    fn seq(&mut self) -> Seq {
        Seq(self.integer())
    }

    fn encoding(&mut self) -> Encoding {
        Encoding::ALL[self.rng.usize(..2)]
    }

    fn epoch(&mut self) -> Option<Epoch> {
        self.rng.bool().then(|| Epoch(self.rng.u64(..)))
    }

    fn reach(&mut self) -> Reach {
        let through = self.integer();
        Reach { after: self.rng.u64(..=through), through }
    }

    fn counts_from(&mut self) -> u64 {
        if self.rng.bool() { u64::MAX } else { self.integer() }
    }

    fn latest(&mut self) -> Option<LatestPlace> {
        let next = self.rng.u32(..200);
        let place = LatestPlace::at(next, self.seq(), self.seq());
        self.rng.bool().then_some(place)
    }

    fn within(&mut self) -> Duration {
        Duration::from_millis(self.rng.u64(..5000))
    }

    fn fresh_frame(&mut self) -> Bytes {
        let length = [1, 63, 64, 900, 20_000][self.rng.usize(..5)];
        let first = self.rng.u8(..);
        (0..length).map(|n: usize| first.wrapping_add(n.to_le_bytes()[0])).collect()
    }

    /// A frame, often one of before.
    fn frame(&mut self) -> Bytes {
        if !self.frames.is_empty() && self.rng.bool() {
            let at = self.rng.usize(..self.frames.len());
            return self.frames[at].clone();
        }
        let frame = self.fresh_frame();
        self.frames.push(frame.clone());
        frame
    }

    fn pieces(&mut self) -> Arc<[Bytes]> {
        (0..self.rng.usize(..4)).map(|_| self.frame()).collect()
    }

    fn room(&mut self) -> RoomName {
        RoomName::parse(&format!("room-{}", self.rng.u16(..))).unwrap()
    }

    fn refresh(&mut self) -> RefreshWant {
        RefreshWant {
            encoding: self.encoding(),
            since: self.seq(),
            sent: self.integer(),
            small: self.rng.bool(),
            latest: self.latest(),
        }
    }

    fn carry(&mut self) -> CarryWant {
        CarryWant { encoding: self.encoding(), reach: self.reach() }
    }

    fn acks(&mut self) -> Acks {
        let mut acks = Acks::default();
        for _ in 0..self.rng.usize(..6) {
            acks.add(Duration::from_millis(self.rng.u64(..4_000_000)), self.rng.bool());
        }
        acks
    }

    fn join(&mut self) -> Join {
        Join {
            shard: self.rng.u16(..256),
            connection: self.rng.u64(..),
            join: self.rng.u32(..),
            encoding: self.encoding(),
            seen: self.rng.bool().then(|| Seen { run: Run(self.rng.u64(..)), seq: Seq(7) }),
            cursor: self.rng.bool().then(|| Cursor { epoch: Epoch(self.rng.u64(..)), offset: 9 }),
            device: self.rng.u64(..),
            moved: self.rng.bool(),
        }
    }

    fn welcome(&mut self, also: usize) -> Welcome {
        Welcome {
            seq: self.seq(),
            shard: self.rng.u16(..256),
            connection: self.rng.u64(..),
            join: self.rng.u32(..),
            encoding: self.encoding(),
            epoch: self.epoch(),
            place: StreamPlace {
                sent: self.integer(),
                head: self.integer(),
                acked: self.integer(),
                counts_from: self.counts_from(),
                device: self.rng.u64(..),
                ack_within: self.within(),
            },
            latest: self.latest(),
            frame: self.frame(),
            pieces: self.pieces(),
            also: (0..also).map(|_| self.also()).collect(),
        }
    }

    fn also(&mut self) -> AlsoWelcomed {
        AlsoWelcomed {
            shard: self.rng.u16(..256),
            connection: self.rng.u64(..),
            join: self.rng.u32(..),
            counts_from: self.counts_from(),
            device: self.rng.u64(..),
        }
    }

    fn segment_said(&mut self, sort: u8) -> SegmentSaid {
        match sort {
            1 => SegmentSaid::Left(Departure {
                encoding: self.encoding(),
                epoch: self.epoch(),
                acked: self.integer(),
                counts_from: self.counts_from(),
                device: self.rng.u64(..),
            }),
            2 => SegmentSaid::TakenThrough {
                seq: self.seq(),
                cost: self.rng.bool().then(|| WriteCost {
                    per_member: Duration::from_nanos(self.rng.u64(..1_000_000)),
                    stretch_permille: self.rng.u32(1000..=20_000),
                }),
            },
            3 => SegmentSaid::Counted(Counts {
                written: self.integer(),
                queued: self.integer(),
                skipped: self.integer(),
                acked: self.integer(),
            }),
            4 => SegmentSaid::Refresh(self.refresh()),
            5 => SegmentSaid::Carry(self.carry()),
            6 => {
                let acks = (0..self.rng.usize(..4)).map(|_| (self.integer(), self.acks())).collect();
                SegmentSaid::Acked { epoch: self.epoch(), acks }
            }
            _ => SegmentSaid::AckedEarly {
                epoch: self.epoch(),
                early: EarlyAck { reach: self.reach(), is_named: self.rng.bool() },
            },
        }
    }

    fn home_said(&mut self, sort: u8) -> HomeSaid {
        match sort {
            0 => HomeSaid::Level(Arc::new(Level {
                seq: self.seq(),
                frames: [self.fresh_frame(), if self.rng.bool() { Bytes::new() } else { self.fresh_frame() }],
                reach: self.reach(),
                ack_within: self.within(),
                oldest: self.now - Duration::from_micros(self.rng.u64(..10_000_000)),
                skipped: self.integer(),
            })),
            1 => HomeSaid::Welcome(Box::new(self.welcome(0))),
            2 => HomeSaid::Refused(JoinRefused {
                shard: self.rng.u16(..256),
                connection: self.rng.u64(..),
                join: self.rng.u32(..),
                code: JoinRefusal::ALL[self.rng.usize(..JoinRefusal::ALL.len())],
            }),
            3 => HomeSaid::Refresh {
                want: self.refresh(),
                frame: self.rng.bool().then(|| {
                    Box::new(RefreshFrame {
                        frame: self.frame(),
                        to: Refreshed {
                            seq: self.seq(),
                            sent: self.integer(),
                            head: self.integer(),
                            latest: self.latest(),
                            ack_within: self.within(),
                            skipped: self.integer(),
                        },
                        history: self.pieces(),
                    })
                }),
            },
            4 => HomeSaid::Carry {
                want: self.carry(),
                seq: self.seq(),
                frame: self.rng.bool().then(|| self.frame()),
                floor: self.integer(),
            },
            5 => HomeSaid::StreamChanged,
            6 => HomeSaid::Gap { seq: self.seq() },
            7 => HomeSaid::Closed,
            _ => HomeSaid::Moved,
        }
    }

    fn request(&mut self) -> NodeRequest {
        NodeRequest {
            method: [Method::GET, Method::PUT, Method::POST, Method::DELETE][self.rng.usize(..4)].clone(),
            target: format!("/v1/rooms/{}?n={}", self.room(), self.rng.u8(..)),
            content_type: self.rng.bool().then(|| "application/json".into()),
            body: self.fresh_frame(),
            shed: (0..self.rng.u32(..4)).map(|n| 3 * n).collect(),
        }
    }

    fn outcome(&mut self) -> CallOutcome {
        match self.rng.u8(..4) {
            0 => Err(CallFailed::Busy),
            1 => Err(CallFailed::Unknown),
            _ => Ok(NodeAnswer {
                status: StatusCode::from_u16(self.rng.u16(100..600)).unwrap(),
                content_type: "application/problem+json".into(),
                retry_after: self.rng.bool().then_some(1),
                body: self.fresh_frame(),
            }),
        }
    }

    /// A word of each sort, by number.
    fn word(&mut self, sort: u8) -> Made {
        match sort {
            0 => {
                let room = self.room();
                let joins = (0..self.rng.usize(1..5)).map(|_| self.join()).collect();
                Made::Node(NodeWord::Joins { room, joins })
            }
            1..8 => Made::Node(NodeWord::ToHome(Control {
                room: self.room(),
                run: Some(Run(self.rng.u64(..))),
                said: self.segment_said(sort),
            })),
            8..17 => Made::Node(NodeWord::ToBranch(Delivery {
                room: self.room(),
                run: Run(self.rng.u64(..)),
                said: self.home_said(sort - 8),
            })),
            17 => Made::Call(self.rng.u64(..), self.request()),
            18 => Made::Answer(self.rng.u64(..), self.outcome()),
            19 => {
                let also = self.rng.usize(1..5);
                let said = HomeSaid::Welcome(Box::new(self.welcome(also)));
                Made::Node(NodeWord::ToBranch(Delivery {
                    room: self.room(),
                    run: Run(self.rng.u64(..)),
                    said,
                }))
            }
            20 => Made::Node(NodeWord::ToHome(Control {
                room: self.room(),
                run: Some(Run(self.rng.u64(..))),
                said: SegmentSaid::Paused { attempt: 5 },
            })),
            21..24 => Made::Node(NodeWord::ToBranch(Delivery {
                room: self.room(),
                run: Run(self.rng.u64(..)),
                said: match sort {
                    21 => HomeSaid::Pause { attempt: 6 },
                    22 => HomeSaid::Resumed,
                    _ => HomeSaid::Adopted { seq: self.seq() },
                },
            })),
            24..27 => Made::HandOver(Slot(self.rng.u8(..)), self.rng.u64(..), sort),
            _ => Made::Keep(Box::new(self.keep())),
        }
    }
}

const SORTS: u8 = 28;

/// A word about a hand-over: of a room, an offer, or a refusal.
fn of_hand_over(sort: u8) -> HandOverSaid {
    match sort {
        24 => HandOverSaid::Room(Box::new(pb::RoomState {
            room: "r1".into(),
            run: 7,
            seq: 9,
            places: vec![pb::RoomPlace { incarnation: 3, members: Vec::new() }],
            ..pb::RoomState::default()
        })),
        25 => HandOverSaid::Offer(Term { generation: 1, sequence: 99 }),
        _ => HandOverSaid::Declined,
    }
}

fn drawn(seed: u64) -> Drawn {
    Drawn { rng: Rng::with_seed(seed), now: made_up(), frames: Vec::new() }
}

/// The words between nodes of one version are these bytes. The seed of each word is its sort.
#[test]
fn the_bytes_of_each_word_stay() {
    let mut lines = Vec::new();
    for sort in 0..SORTS {
        let mut drawn = drawn(sort.into());
        let mut frames = FramesSent::default();
        let made = drawn.word(sort);
        let bytes = bytes_of(&made, &mut frames, drawn.now);
        let digest = xxhash_rust::xxh3::xxh3_64(&bytes);
        let head: String = bytes.iter().take(32).map(|byte| format!("{byte:02x}")).collect();
        lines.push(format!("{sort} {} {digest:016x} {head}", bytes.len()));
    }
    assert_eq!(lines.join("\n"), GOLDEN.trim());
}

#[test]
fn random_words_come_out_as_they_went_in() {
    for seed in 0..60 {
        let mut drawn = drawn(seed);
        let mut sent = FramesSent::default();
        let mut taken = FramesTaken::default();
        let mut by_number = 0;
        for _ in 0..60 {
            let sort = drawn.rng.u8(..SORTS);
            let made = drawn.word(sort);
            let bytes = bytes_of(&made, &mut sent, drawn.now);
            by_number += usize::from(bytes.len() < 300);
            let word = Word::decode(bytes, &mut taken, drawn.now);
            let word = word.unwrap_or_else(|BadWord| panic!("seed {seed}: {}", shown_made(&made)));
            assert_eq!(shown(&word), shown_made(&made), "seed {seed}");
        }
        assert!(by_number > 0, "frames go by number");
    }
}

/// A word of another node may be anything. Whatever is read, can be said again.
#[test]
fn bytes_that_are_no_word_are_refused_and_never_panic() {
    let mut refused = 0;
    let mut read = 0;
    for seed in 0..3_000 {
        let mut drawn = drawn(seed);
        let mut sent = FramesSent::default();
        let mut taken = FramesTaken::default();
        let sort = drawn.rng.u8(..SORTS);
        let made = drawn.word(sort);
        let mut bytes = bytes_of(&made, &mut sent, drawn.now).to_vec();
        match drawn.rng.u8(..3) {
            0 => bytes.truncate(drawn.rng.usize(..bytes.len())),
            1 => {
                for _ in 0..drawn.rng.usize(1..4) {
                    let at = drawn.rng.usize(..bytes.len().min(80));
                    bytes[at] = drawn.rng.u8(..);
                }
            }
            _ => bytes = (0..drawn.rng.usize(..200)).map(|_| drawn.rng.u8(..)).collect(),
        }
        match Word::decode(bytes.into(), &mut taken, drawn.now) {
            Err(BadWord) => refused += 1,
            Ok(word) => {
                read += 1;
                let again = match word {
                    Word::Node(word) => Made::Node(word),
                    Word::Call { number, request } => Made::Call(number, request),
                    Word::Answer { number, outcome } => Made::Answer(number, outcome),
                    Word::HandOver { slot, attempt, said } => {
                        hand_over(slot, attempt, said);
                        continue;
                    }
                    Word::Keep { .. } => continue,
                };
                bytes_of(&again, &mut FramesSent::default(), drawn.now);
            }
        }
    }
    assert!(refused > 500 && read > 100, "{refused} refused, {read} read");
}

#[test]
fn impossible_words_are_refused() {
    let room = || "r1".to_owned();
    let said = |said| pb::word::Word::Control(pb::Control { room: room(), run: Some(1), said: Some(said) });
    let join = |shard| pb::Join { shard, encoding: 1, ..pb::Join::default() };
    let joins = |joins| pb::word::Word::Joins(pb::Joins { room: room(), joins });
    let welcome = |shard, also| {
        let place = Some(pb::StreamPlace::default());
        let frame = Some(pb::Frame { number: 0, frame: Some("{}".into()) });
        let also = vec![pb::AlsoWelcomed { shard, ..pb::AlsoWelcomed::default() }; also];
        let welcome = pb::Welcome { encoding: 1, place, frame, also, ..pb::Welcome::default() };
        let said = Some(pb::delivery::Said::Welcome(welcome));
        pb::word::Word::Delivery(pb::Delivery { room: room(), run: 1, said })
    };
    let reach = |after, through| Some(pb::Reach { after, through });
    let cost = |stretch_permille| Some(pb::WriteCost { per_member_ns: 1, stretch_permille });
    let carry = |reach| pb::control::Said::Carry(pb::CarryWant { encoding: 1, reach });
    let possible = [
        joins(vec![join(255); NODE_WORD_JOINS_MAX]),
        welcome(255, NODE_WORD_JOINS_MAX - 1),
        said(carry(reach(3, 4))),
        said(pb::control::Said::TakenThrough(pb::TakenThrough { seq: INTEGER_MAX, cost: cost(1000) })),
    ];
    let times = vec![0; 500];
    let acks = pb::OffsetAcks { offset: 1, count: 0, times, longest_ms: 1 };
    let impossible = [
        joins(vec![join(0), join(u32::try_from(SHARDS_MAX).unwrap())]),
        joins(vec![join(0), pb::Join { encoding: 3, ..join(0) }]),
        joins(vec![join(0); NODE_WORD_JOINS_MAX + 1]),
        joins(Vec::new()),
        welcome(u32::try_from(SHARDS_MAX).unwrap(), 1),
        welcome(0, NODE_WORD_JOINS_MAX),
        said(carry(reach(5, 4))),
        said(carry(reach(0, INTEGER_MAX + 1))),
        said(pb::control::Said::TakenThrough(pb::TakenThrough { seq: INTEGER_MAX + 1, cost: None })),
        said(pb::control::Said::TakenThrough(pb::TakenThrough { seq: 1, cost: cost(999) })),
        said(pb::control::Said::Acked(pb::Acked { epoch: None, acks: vec![acks] })),
        pb::word::Word::Control(pb::Control { room: room(), run: None, said: Some(carry(None)) }),
        pb::word::Word::Control(pb::Control { room: "a/b".into(), run: None, said: None }),
        pb::word::Word::Call(pb::Call { method: 1, target: "//a b".into(), ..pb::Call::default() }),
        pb::word::Word::Answer(pb::CallAnswer { number: 1, outcome: None }),
        pb::word::Word::HandOver(pb::HandOver { slot: 3, attempt: 1, said: None }),
        pb::word::Word::HandOver(pb::HandOver {
            slot: 256,
            attempt: 1,
            said: Some(pb::hand_over::Said::Declined(pb::Nothing {})),
        }),
        pb::word::Word::HandOver(pb::HandOver {
            slot: 3,
            attempt: 1,
            said: Some(pb::hand_over::Said::Offer(pb::Term { generation: 0, sequence: u64::MAX })),
        }),
        pb::word::Word::HandOver(pb::HandOver {
            slot: 3,
            attempt: 1,
            said: Some(pb::hand_over::Said::Room(Box::new(pb::RoomState {
                ids: vec![pb::UsedId { id: "x".repeat(ROOM_STATE_BYTES_MAX), ..pb::UsedId::default() }],
                ..pb::RoomState::default()
            }))),
        }),
    ];
    let read = |word| Word::decode(encode(word), &mut FramesTaken::default(), made_up());
    assert!(possible.into_iter().all(|word| read(word).is_ok()));
    for word in impossible {
        assert!(read(word.clone()).is_err(), "{word:?}");
    }
}

#[test]
fn impossible_words_about_kept_rooms_are_refused() {
    let room = || pb::KeptRoom { room: "r1".into(), seq: 1, ..pb::KeptRoom::default() };
    let kept = |slot, sequence, rooms| {
        let term = Some(pb::Term { generation: 0, sequence });
        pb::Keep { slot, term, rooms }
    };
    let is_read = |word: pb::Keep| {
        let bytes = encode(pb::word::Word::Keep(word));
        Word::decode(bytes, &mut FramesTaken::default(), made_up()).is_ok()
    };
    assert!(is_read(kept(255, TERM_PART_MAX, vec![room(); KEEP_WORD_ROOMS_MAX])));
    assert!(!is_read(kept(256, 1, vec![room()])));
    assert!(!is_read(kept(3, TERM_PART_MAX + 1, vec![room()])));
    assert!(!is_read(kept(3, 1, Vec::new())));
    assert!(!is_read(kept(3, 1, vec![room(); KEEP_WORD_ROOMS_MAX + 1])));
    assert!(!is_read(kept(3, 1, vec![pb::KeptRoom { room: "a/b".into(), ..room() }])));
    assert!(!is_read(kept(3, 1, vec![pb::KeptRoom { seq: INTEGER_MAX + 1, ..room() }])));
    assert!(!is_read(pb::Keep { term: None, ..kept(3, 1, vec![room()]) }));
}

#[test]
fn a_number_names_the_same_frame_at_both_ends_or_none() {
    let mut sent = FramesSent::default();
    let mut taken = FramesTaken::default();
    let frames: Vec<Bytes> =
        (0..2 * LINK_FRAMES_KEPT_MAX).map(|n| Bytes::from(vec![n.to_le_bytes()[0]; 100])).collect();
    for frame in frames.iter().chain(frames.iter().rev()) {
        let word = sent.encode(frame);
        assert_eq!(taken.decode(word), Ok(frame.clone()));
    }
    // The newest were in use last, so the way back found half of them.
    let large = Bytes::from(vec![1; LINK_FRAMES_KEPT_BYTES_MAX / 2]);
    let other = Bytes::from(vec![2; LINK_FRAMES_KEPT_BYTES_MAX / 2]);
    for frame in [&large, &other, &large, &frames[0], &large] {
        assert_eq!(taken.decode(sent.encode(frame)), Ok(frame.clone()));
    }
    // A word with a frame was lost to the reader: its number finds nothing.
    let lost = sent.encode(&Bytes::from(vec![3; 70]));
    let kept = Bytes::from(vec![4; 70]);
    assert_eq!(taken.decode(sent.encode(&kept)), Ok(kept.clone()));
    assert_eq!(taken.decode(pb::Frame { frame: None, ..lost }), Err(BadWord));
    assert_eq!(taken.decode(sent.encode(&kept)), Ok(kept.clone()), "later frames keep their numbers");
    taken.begin(2);
    assert_eq!(taken.decode(sent.encode(&kept)), Err(BadWord), "a reset empties");
}

/// `SORT BYTES XXH3 HEAD`.
const GOLDEN: &str = "
0 59 06744372932d4ab2 2a390a0a726f6f6d2d3631363534122b08970110f9abe9bbf2f886ed4d18b4d9
1 49 51e047b12a2278e4 0a2f0a0a726f6f6d2d3438383137113dfeb5aae597dc882218080111c9a63722
2 38 f7866eb08d0d922f 0a240a0a726f6f6d2d32333138321151c13468d232c9e92a0d08a0a865120708
3 44 488cd73442ba7d60 0a2a0a0a726f6f6d2d3434373730119a5dd2fa2d4f2151321308fdbab1849f3e
4 39 de6c2b9ed9a4176d 0a250a0a726f6f6d2d3138393837110daf55b81aea4db63a0e080210fedbee8a
5 35 612961866c0dcb26 0a210a09726f6f6d2d32323930116a3b73ca9526a639420b0802120708bb0210
6 25 f954406bafea475d 0a170a0a726f6f6d2d343631333811e771633bf89a9cb14a00
7 39 94b5eff6c2bb5d87 0a250a0a726f6f6d2d323933323911208c1e454bd7f438520e120c089cf7f4bb
8 122 3289b056fcb5beba 12780a09726f6f6d2d37383938119cdf81042072e1191a620884bac880e7c809
9 1001 9a0f9865fd75d254 12e6070a0a726f6f6d2d353731363511d46bbf96b38e798122ce0708a8361005
10 47 cb8d96d8de8f1f0d 122d0a0a726f6f6d2d333039363511b8bd3e54682966e62a1608b8011089abb0
11 42 1c37d3712e55714a 12280a0a726f6f6d2d343536363711f1c9dde6fb65fe6932110a0f0802108095
12 59 f82e44719d8fb8f9 12390a0a726f6f6d2d323434393211551b5fa4d000eb4e3a220a0a0801120608
13 24 89a027b05b0e1190 12160a09726f6f6d2d37333739118db77a36225d43364200
14 29 d2a8a090aea1948d 121b0a0a726f6f6d2d343731323811e3934c4a6d26defc4a0408868324
15 25 632552e1cb7883d5 12170a0a726f6f6d2d3334343833112c2e6ad4fc7236645200
16 24 6dccbe204f65bee6 12160a09726f6f6d2d38393535119071ed9bd51d23455a00
17 50 0fa018b7e4b10562 1a300892c6fbdec2c180f3ec0110041a1a2f76312f726f6f6d732f726f6f6d2d
18 950 eabc24cefc15cb3b 22b30708cb9e92afabae8ec77712a60708970412186170706c69636174696f6e
19 20371 0a8a6c34eb743387 128f9f010a0a726f6f6d2d35313839361120df1eb1411e243422f69e0108e9ca
20 27 5abeb02f35433887 0a190a0a726f6f6d2d33323136381130bda83444ac248a62020805
21 27 a07c1a4a2cb7f70c 12190a0a726f6f6d2d313530363311e9c94745d7f8bc7d62020806
22 25 4e6325c9ffec465b 12170a0a726f6f6d2d3538393131112a0176b63b5d7bf56a00
23 33 5ebb0ef4f91f2403 121f0a0a726f6f6d2d343231363711e39d15c08a69d37c720808f6b7a1ddffc3
24 43 e77d722bb629f384 322908ff0110bbded3bcb88c8dfc5d1a1a0a0272311107000000000000001809
25 21 896eb1359c51ab60 3213080e10f3f7c98dd19f90a8c501220408011063
26 16 3f2fa51ca720b8b8 320e085710db9bd5b9bdf5b8be3a2a00
27 93 ac24ee5608dc187f 3a5b084d1204080110631a510a0a726f6f6d2d333238353411f0914c729d2d8d
";
