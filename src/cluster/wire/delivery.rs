//! Words of a home to the branches of its rooms.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::codes::{refusal, refusal_number};
use super::frames::{FramesSent, FramesTaken};
use super::numbers::{
    age_number, carry, carry_message, counts_from, counts_from_number, encoding, encoding_number,
    epoch_number, integer, latest, latest_message, moment, reach, reach_message, refresh, refresh_message,
    room, seq, shard, within, within_number,
};
use super::{BadWord, pb};
use crate::shard::lane::{AlsoWelcomed, Delivery, HomeSaid, JoinRefused, Welcome};
use pb::delivery::Said;
use roomcast_core::fanout::segment::{Level, RefreshFrame, Refreshed, StreamPlace};
use roomcast_core::limits::{NODE_PIECES_MAX, NODE_WORD_JOINS_MAX};
use roomcast_core::room::id::{Epoch, Run};

pub(super) fn encode(delivery: &Delivery, frames: &mut FramesSent, now: Instant) -> pb::Delivery {
    let Delivery { room, run, said } = delivery;
    pb::Delivery { room: room.as_str().into(), run: run.0, said: Some(encode_said(said, frames, now)) }
}

fn encode_said(said: &HomeSaid, frames: &mut FramesSent, now: Instant) -> Said {
    match said {
        HomeSaid::Level(level) => Said::Level(encode_level(level, now)),
        HomeSaid::Welcome(welcome) => Said::Welcome(encode_welcome(welcome, frames)),
        HomeSaid::Refused(refused) => Said::Refused(pb::JoinRefused {
            shard: refused.shard.into(),
            connection: refused.connection,
            join: refused.join,
            code: refusal_number(refused.code),
        }),
        HomeSaid::GaveBack(_) => unreachable!("a branch says this to its own node"),
        HomeSaid::Refresh { want, frame } => Said::Refresh(pb::Refresh {
            want: Some(refresh_message(*want)),
            frame: frame.as_ref().map(|frame| encode_refresh(frame, frames)),
        }),
        HomeSaid::Carry { want, seq, frame, floor } => Said::Carry(pb::Carry {
            want: Some(carry_message(*want)),
            seq: seq.0,
            frame: frame.as_ref().map(|frame| frames.encode(frame)),
            floor: *floor,
        }),
        HomeSaid::StreamChanged => Said::StreamChanged(pb::Nothing {}),
        HomeSaid::Gap { seq } => Said::Gap(pb::Gap { seq: seq.0 }),
        HomeSaid::Closed => Said::Closed(pb::Nothing {}),
        HomeSaid::Moved => Said::Moved(pb::Nothing {}),
        HomeSaid::Pause { attempt } => Said::Pause(pb::Pause { attempt: *attempt }),
        HomeSaid::Resumed => Said::Resumed(pb::Nothing {}),
        HomeSaid::Adopted { seq } => Said::Adopted(pb::Gap { seq: seq.0 }),
    }
}

/// Batches are never repeated, so their frames have no numbers.
fn encode_level(level: &Level, now: Instant) -> pb::Level {
    let [json, proto] = level.frames.clone();
    pb::Level {
        seq: level.seq.0,
        json,
        proto,
        reach: Some(reach_message(level.reach)),
        ack_within_ms: within_number(level.ack_within),
        oldest_us: age_number(level.oldest, now),
        skipped: level.skipped,
    }
}

fn encode_welcome(welcome: &Welcome, frames: &mut FramesSent) -> pb::Welcome {
    let place = welcome.place;
    pb::Welcome {
        seq: welcome.seq.0,
        shard: welcome.shard.into(),
        connection: welcome.connection,
        join: welcome.join,
        encoding: encoding_number(welcome.encoding),
        epoch: epoch_number(welcome.epoch),
        place: Some(pb::StreamPlace {
            sent: place.sent,
            head: place.head,
            acked: place.acked,
            counts_from: counts_from_number(place.counts_from),
            device: place.device,
            ack_within_ms: within_number(place.ack_within),
        }),
        latest: welcome.latest.map(latest_message),
        frame: Some(frames.encode(&welcome.frame)),
        pieces: frames.encode_all(&welcome.pieces),
        also: welcome.also.iter().map(encode_also).collect(),
    }
}

fn encode_also(member: &AlsoWelcomed) -> pb::AlsoWelcomed {
    pb::AlsoWelcomed {
        shard: member.shard.into(),
        connection: member.connection,
        join: member.join,
        counts_from: counts_from_number(member.counts_from),
        device: member.device,
    }
}

fn encode_refresh(refresh: &RefreshFrame, frames: &mut FramesSent) -> pb::RefreshFrame {
    let to = refresh.to;
    pb::RefreshFrame {
        frame: Some(frames.encode(&refresh.frame)),
        seq: to.seq.0,
        sent: to.sent,
        head: to.head,
        latest: to.latest.map(latest_message),
        ack_within_ms: within_number(to.ack_within),
        skipped: to.skipped,
        history: frames.encode_all(&refresh.history),
    }
}

pub(super) fn decode(
    delivery: pb::Delivery,
    frames: &mut FramesTaken,
    now: Instant,
) -> Result<Delivery, BadWord> {
    let pb::Delivery { room: name, run, said } = delivery;
    // First: frames of a word that is refused for its room have their numbers all the same.
    let said = decode_said(said.ok_or(BadWord)?, frames, now)?;
    Ok(Delivery { room: room(&name)?, run: Run(run), said })
}

fn decode_said(said: Said, frames: &mut FramesTaken, now: Instant) -> Result<HomeSaid, BadWord> {
    Ok(match said {
        Said::Level(level) => HomeSaid::Level(Arc::new(decode_level(level, frames, now)?)),
        Said::Welcome(welcome) => HomeSaid::Welcome(Box::new(decode_welcome(welcome, frames)?)),
        Said::Refused(refused) => HomeSaid::Refused(JoinRefused {
            shard: shard(refused.shard)?,
            connection: refused.connection,
            join: refused.join,
            code: refusal(refused.code)?,
        }),
        Said::Refresh(pb::Refresh { want, frame }) => {
            let frame = frame.map(|frame| decode_refresh(frame, frames)).transpose()?;
            HomeSaid::Refresh { want: refresh(want.ok_or(BadWord)?)?, frame: frame.map(Box::new) }
        }
        Said::Carry(pb::Carry { want, seq: at, frame, floor }) => {
            let frame = frame.map(|frame| frames.decode(frame)).transpose()?;
            let want = carry(want.ok_or(BadWord)?)?;
            HomeSaid::Carry { want, seq: seq(at)?, frame, floor: integer(floor)? }
        }
        Said::StreamChanged(pb::Nothing {}) => HomeSaid::StreamChanged,
        Said::Gap(pb::Gap { seq: through }) => HomeSaid::Gap { seq: seq(through)? },
        Said::Closed(pb::Nothing {}) => HomeSaid::Closed,
        Said::Moved(pb::Nothing {}) => HomeSaid::Moved,
        Said::Pause(pb::Pause { attempt }) => HomeSaid::Pause { attempt },
        Said::Resumed(pb::Nothing {}) => HomeSaid::Resumed,
        Said::Adopted(gap) => HomeSaid::Adopted { seq: seq(gap.seq)? },
    })
}

fn decode_level(level: pb::Level, frames: &FramesTaken, now: Instant) -> Result<Level, BadWord> {
    Ok(Level {
        seq: seq(level.seq)?,
        frames: [frames.own(level.json), frames.own(level.proto)],
        reach: reach(level.reach)?,
        ack_within: within(level.ack_within_ms)?,
        oldest: moment(level.oldest_us, now)?,
        skipped: integer(level.skipped)?,
    })
}

fn decode_pieces(pieces: Vec<pb::Frame>, frames: &mut FramesTaken) -> Result<Arc<[Bytes]>, BadWord> {
    let pieces = frames.decode_all(pieces)?;
    if pieces.len() <= NODE_PIECES_MAX { Ok(pieces.into()) } else { Err(BadWord) }
}

fn decode_welcome(welcome: pb::Welcome, frames: &mut FramesTaken) -> Result<Welcome, BadWord> {
    let frame = frames.decode(welcome.frame.unwrap_or_default());
    let pieces = decode_pieces(welcome.pieces, frames)?;
    let place = welcome.place.ok_or(BadWord)?;
    if welcome.also.len() >= NODE_WORD_JOINS_MAX {
        return Err(BadWord);
    }
    Ok(Welcome {
        seq: seq(welcome.seq)?,
        shard: shard(welcome.shard)?,
        connection: welcome.connection,
        join: welcome.join,
        encoding: encoding(welcome.encoding)?,
        epoch: welcome.epoch.map(Epoch),
        place: StreamPlace {
            sent: integer(place.sent)?,
            head: integer(place.head)?,
            acked: integer(place.acked)?,
            counts_from: counts_from(place.counts_from)?,
            device: place.device,
            ack_within: within(place.ack_within_ms)?,
        },
        latest: latest(welcome.latest)?,
        frame: frame?,
        pieces,
        also: welcome.also.iter().map(decode_also).collect::<Result<_, _>>()?,
    })
}

fn decode_also(member: &pb::AlsoWelcomed) -> Result<AlsoWelcomed, BadWord> {
    Ok(AlsoWelcomed {
        shard: shard(member.shard)?,
        connection: member.connection,
        join: member.join,
        counts_from: counts_from(member.counts_from)?,
        device: member.device,
    })
}

fn decode_refresh(refresh: pb::RefreshFrame, frames: &mut FramesTaken) -> Result<RefreshFrame, BadWord> {
    let frame = frames.decode(refresh.frame.unwrap_or_default());
    let history = decode_pieces(refresh.history, frames)?;
    Ok(RefreshFrame {
        frame: frame?,
        to: Refreshed {
            seq: seq(refresh.seq)?,
            sent: integer(refresh.sent)?,
            head: integer(refresh.head)?,
            latest: latest(refresh.latest)?,
            ack_within: within(refresh.ack_within_ms)?,
            skipped: integer(refresh.skipped)?,
        },
        history,
    })
}
