//! The pass over a million members with an in-memory sink: the engine's cost beside each device's write. One
//! iteration is one member, so the time shown is the time per member.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Bencher, Criterion};
use roomcast_core::fanout::segment::{
    Entrant, Level, Member, PassFrames, PassTally, Segment, StreamPlace, pass,
};
use roomcast_core::fanout::{Offer, Sink};
use roomcast_core::limits::PASS_TURN_MEMBERS;
use roomcast_core::room::Reach;
use roomcast_core::room::id::{Encoding, RoomName, Run, Seq};

const MEMBERS: u32 = 1_000_000;

/// Connections whose sockets take everything.
#[derive(Default)]
struct Memory {
    frames: u64,
    bytes: u64,
}

impl Sink for Memory {
    fn offer(&mut self, connection: u32, frames: &[Bytes], _: Instant) -> Offer {
        black_box(connection);
        self.frames += frames.len() as u64;
        self.bytes += frames.iter().map(|frame| frame.len() as u64).sum::<u64>();
        Offer::Written
    }

    fn is_waiting(&self, _: u32) -> bool {
        false
    }

    fn is_fast(&self, _: u32) -> bool {
        true
    }

    fn room_for(&mut self, _: u32, _: Instant) -> usize {
        usize::MAX
    }
}

/// Members of a room use both encodings.
fn encoding(member: u32) -> Encoding {
    if member.is_multiple_of(2) { Encoding::Json } else { Encoding::Proto }
}

/// Times whole passes over at least `visits` members, and returns the share of `visits`.
fn per_member(bencher: &mut Bencher<'_>, mut one_pass: impl FnMut()) {
    bencher.iter_custom(|visits| {
        let passes = visits.div_ceil(u64::from(MEMBERS));
        let before = roomcast::clock::now().instant;
        for _ in 0..passes {
            one_pass();
        }
        let took = roomcast::clock::now().instant.duration_since(before).as_nanos();
        let of_visits = took * u128::from(visits) / u128::from(passes * u64::from(MEMBERS));
        Duration::from_nanos(u64::try_from(of_visits).expect("less than 500 years"))
    });
}

/// The loop alone, over all members at once.
fn the_pass(criterion: &mut Criterion, frame: &Bytes, now: Instant) {
    let mut members: Vec<Member> =
        (0..MEMBERS).map(|member| Member::new(member, encoding(member), Seq(0))).collect();
    let mut sink = Memory::default();
    let mut seq = Seq(0);
    criterion.bench_function("segment/pass_per_member", |bencher| {
        per_member(bencher, || {
            let frames = PassFrames::new(seq, [vec![frame.clone()], vec![frame.clone()]]);
            let mut tally = PassTally::default();
            pass(&mut members, &frames, &mut sink, &mut tally, now);
            black_box(tally);
            seq = seq.next();
        });
    });
    assert_eq!(sink.frames, seq.0 * u64::from(MEMBERS), "each pass reached every member");
    assert_eq!(sink.bytes, sink.frames * frame.len() as u64);
}

/// The loop as in a shard: in turns, with joins, acks and publishes between them.
fn the_turns(criterion: &mut Criterion, frame: &Bytes, now: Instant) {
    let room = RoomName::parse("r1").expect("a constant");
    let mut segment = Segment::new(room, Run(1), Seq(0), None);
    for member in 0..MEMBERS {
        let entrant = Entrant {
            connection: member,
            encoding: encoding(member),
            seq: Seq(0),
            place: StreamPlace::default(),
            latest: None,
        };
        segment.join(entrant, now);
    }
    let mut sink = Memory::default();
    let mut seq = Seq(0);
    criterion.bench_function("segment/turns_per_member", |bencher| {
        per_member(bencher, || {
            seq = seq.next();
            let frames = [frame.clone(), frame.clone()];
            let level = Level {
                seq,
                frames,
                reach: Reach::default(),
                ack_within: Duration::ZERO,
                oldest: now,
                skipped: 0,
            };
            assert!(segment.arrive(Arc::new(level)));
            while segment.is_busy() {
                black_box(segment.turn(PASS_TURN_MEMBERS, &mut sink, now));
            }
        });
    });
    assert_eq!(sink.frames, seq.0 * u64::from(MEMBERS), "each pass reached every member");
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let frame = Bytes::from(vec![b'x'; 1_700]);
    let now = roomcast::clock::now().instant;
    the_pass(&mut criterion, &frame, now);
    the_turns(&mut criterion, &frame, now);
    criterion.final_summary();
}
