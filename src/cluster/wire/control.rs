//! Words of a segment to the home of its room.

use std::time::Duration;

use super::numbers::{
    carry, carry_message, counts_from, counts_from_number, encoding, encoding_number, epoch_number, integer,
    reach, reach_message, refresh, refresh_message, room, seq, shard,
};
use super::{BadWord, pb};
use crate::shard::lane::Control;
use crate::shard::ways::NodeWord;
use pb::control::Said;
use roomcast_core::limits::{NODE_WORD_JOINS_MAX, RECEIPTS_MAX, STRETCH_MAX_PERMILLE};
use roomcast_core::room::id::{Cursor, Epoch, RoomName, Run, Seen};
use roomcast_core::room::pace::STRETCH_NONE;
use roomcast_core::room::receipt::Acks;
use roomcast_core::room::{Counts, Departure, EarlyAck, Join, SegmentSaid, WriteCost};

/// Longest processor time of a pass for a member.
const PER_MEMBER_MAX: Duration = Duration::from_secs(1);

pub(super) fn encode(control: &Control) -> pb::Control {
    let Control { room, run, said } = control;
    pb::Control { room: room.as_str().into(), run: run.map(|run| run.0), said: Some(encode_said(said)) }
}

fn encode_said(said: &SegmentSaid) -> Said {
    match said {
        SegmentSaid::Join(_) => unreachable!("joins are a word of their own"),
        SegmentSaid::Left(left) => Said::Left(pb::Departure {
            encoding: encoding_number(left.encoding),
            epoch: epoch_number(left.epoch),
            acked: left.acked,
            counts_from: counts_from_number(left.counts_from),
            device: left.device,
        }),
        SegmentSaid::TakenThrough { seq, cost } => Said::TakenThrough(pb::TakenThrough {
            seq: seq.0,
            cost: cost.map(|cost| pb::WriteCost {
                per_member_ns: u64::try_from(cost.per_member.min(PER_MEMBER_MAX).as_nanos())
                    .expect("a second has fewer than 2^64 nanoseconds"),
                stretch_permille: cost.stretch_permille,
            }),
        }),
        SegmentSaid::Taken { .. } => unreachable!("a branch names the batch"),
        SegmentSaid::Counted(counts) => Said::Counted(pb::Counts {
            written: counts.written,
            queued: counts.queued,
            skipped: counts.skipped,
            acked: counts.acked,
        }),
        SegmentSaid::Moved => Said::Moved(pb::Nothing {}),
        SegmentSaid::Enrolled { .. } => unreachable!("a word to a home of the same node"),
        SegmentSaid::Paused { attempt } => Said::Paused(pb::Pause { attempt: *attempt }),
        SegmentSaid::Refresh(want) => Said::Refresh(refresh_message(*want)),
        SegmentSaid::Carry(want) => Said::Carry(carry_message(*want)),
        SegmentSaid::Acked { epoch, acks } => {
            let acks = acks.iter().map(|(offset, acks)| pb::OffsetAcks {
                offset: *offset,
                count: acks.count,
                times: acks.in_buckets().to_vec(),
                longest_ms: u32::try_from(acks.longest_ms()).unwrap_or(u32::MAX),
            });
            Said::Acked(pb::Acked { epoch: epoch_number(*epoch), acks: acks.collect() })
        }
        SegmentSaid::AckedEarly { epoch, early } => Said::AckedEarly(pb::AckedEarly {
            epoch: epoch_number(*epoch),
            reach: Some(reach_message(early.reach)),
            is_named: early.is_named,
        }),
    }
}

pub(super) fn encode_joins(room: &RoomName, joins: &[Join]) -> pb::Joins {
    pb::Joins { room: room.as_str().into(), joins: joins.iter().map(encode_join).collect() }
}

pub(super) fn decode_joins(said: &pb::Joins) -> Result<NodeWord, BadWord> {
    if !(1..=NODE_WORD_JOINS_MAX).contains(&said.joins.len()) {
        return Err(BadWord);
    }
    let joins = said.joins.iter().map(decode_join).collect::<Result<_, _>>()?;
    Ok(NodeWord::Joins { room: room(&said.room)?, joins })
}

fn encode_join(join: &Join) -> pb::Join {
    pb::Join {
        shard: join.shard.into(),
        connection: join.connection,
        join: join.join,
        encoding: encoding_number(join.encoding),
        seen: join.seen.map(|seen| pb::Seen { run: seen.run.0, seq: seen.seq.0 }),
        cursor: join.cursor.map(|cursor| pb::Cursor { epoch: cursor.epoch.0, offset: cursor.offset }),
        device: join.device,
        moved: join.moved,
    }
}

pub(super) fn decode(control: pb::Control) -> Result<Control, BadWord> {
    let pb::Control { room: name, run, said } = control;
    let said = decode_said(said.ok_or(BadWord)?)?;
    // Only joins know no life of the room.
    let run = Run(run.ok_or(BadWord)?);
    Ok(Control { room: room(&name)?, run: Some(run), said })
}

fn decode_said(said: Said) -> Result<SegmentSaid, BadWord> {
    Ok(match said {
        Said::Left(left) => SegmentSaid::Left(Departure {
            encoding: encoding(left.encoding)?,
            epoch: left.epoch.map(Epoch),
            acked: integer(left.acked)?,
            counts_from: counts_from(left.counts_from)?,
            device: left.device,
        }),
        Said::TakenThrough(taken) => decode_taken(taken)?,
        Said::Counted(counts) => SegmentSaid::Counted(Counts {
            written: integer(counts.written)?,
            queued: integer(counts.queued)?,
            skipped: integer(counts.skipped)?,
            acked: integer(counts.acked)?,
        }),
        Said::Moved(pb::Nothing {}) => SegmentSaid::Moved,
        Said::Paused(pb::Pause { attempt }) => SegmentSaid::Paused { attempt },
        Said::Refresh(want) => SegmentSaid::Refresh(refresh(want)?),
        Said::Carry(want) => SegmentSaid::Carry(carry(want)?),
        Said::Acked(acked) => decode_acked(acked)?,
        Said::AckedEarly(early) => SegmentSaid::AckedEarly {
            epoch: early.epoch.map(Epoch),
            early: EarlyAck { reach: reach(early.reach)?, is_named: early.is_named },
        },
    })
}

fn decode_join(join: &pb::Join) -> Result<Join, BadWord> {
    let seen = |seen: &pb::Seen| Ok(Seen { run: Run(seen.run), seq: seq(seen.seq)? });
    let cursor =
        |cursor: &pb::Cursor| Ok(Cursor { epoch: Epoch(cursor.epoch), offset: integer(cursor.offset)? });
    Ok(Join {
        shard: shard(join.shard)?,
        connection: join.connection,
        join: join.join,
        encoding: encoding(join.encoding)?,
        seen: join.seen.as_ref().map(seen).transpose()?,
        cursor: join.cursor.as_ref().map(cursor).transpose()?,
        device: join.device,
        moved: join.moved,
    })
}

fn decode_taken(taken: pb::TakenThrough) -> Result<SegmentSaid, BadWord> {
    let cost = |cost: pb::WriteCost| {
        let per_member = Duration::from_nanos(cost.per_member_ns);
        let stretches = STRETCH_NONE..=STRETCH_MAX_PERMILLE;
        let is_possible = per_member <= PER_MEMBER_MAX && stretches.contains(&cost.stretch_permille);
        let cost = WriteCost { per_member, stretch_permille: cost.stretch_permille };
        if is_possible { Ok(cost) } else { Err(BadWord) }
    };
    Ok(SegmentSaid::TakenThrough { seq: seq(taken.seq)?, cost: taken.cost.map(cost).transpose()? })
}

fn decode_acked(acked: pb::Acked) -> Result<SegmentSaid, BadWord> {
    if acked.acks.len() > RECEIPTS_MAX {
        return Err(BadWord);
    }
    let acks = acked.acks.into_iter().map(|acks| {
        let counts = Acks::of_parts(acks.count, acks.times, acks.longest_ms.into());
        Ok((integer(acks.offset)?, counts.ok_or(BadWord)?))
    });
    Ok(SegmentSaid::Acked { epoch: acked.epoch.map(Epoch), acks: acks.collect::<Result<_, _>>()? })
}
