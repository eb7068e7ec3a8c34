//! Names and numbers within words, and their bounds.

use std::time::{Duration, Instant};

use super::{BadWord, pb};
use roomcast_core::limits::{INTEGER_MAX, NODE_AGE_MAX, SHARDS_MAX};
use roomcast_core::now::millis;
use roomcast_core::room::id::{Encoding, Epoch, RoomName, Seq};
use roomcast_core::room::{CarryWant, LatestPlace, Reach, RefreshWant};

/// `None` on the wire: no receipt counts the member.
const COUNTS_NEVER: u64 = u64::MAX;

pub(super) fn room(name: &str) -> Result<RoomName, BadWord> {
    RoomName::parse(name).map_err(|_| BadWord)
}

pub(super) fn integer(value: u64) -> Result<u64, BadWord> {
    if value <= INTEGER_MAX { Ok(value) } else { Err(BadWord) }
}

pub(super) fn seq(value: u64) -> Result<Seq, BadWord> {
    integer(value).map(Seq)
}

pub(super) fn shard(value: u32) -> Result<u16, BadWord> {
    u16::try_from(value).ok().filter(|shard| usize::from(*shard) < SHARDS_MAX).ok_or(BadWord)
}

pub(super) fn encoding_number(encoding: Encoding) -> i32 {
    let encoding = match encoding {
        Encoding::Json => pb::Encoding::Json,
        Encoding::Proto => pb::Encoding::Proto,
    };
    encoding.into()
}

pub(super) fn encoding(value: i32) -> Result<Encoding, BadWord> {
    match pb::Encoding::try_from(value) {
        Ok(pb::Encoding::Json) => Ok(Encoding::Json),
        Ok(pb::Encoding::Proto) => Ok(Encoding::Proto),
        Ok(pb::Encoding::Unspecified) | Err(_) => Err(BadWord),
    }
}

pub(super) fn epoch_number(epoch: Option<Epoch>) -> Option<u64> {
    epoch.map(|epoch| epoch.0)
}

pub(super) fn counts_from_number(counts_from: u64) -> Option<u64> {
    (counts_from != COUNTS_NEVER).then_some(counts_from)
}

pub(super) fn counts_from(value: Option<u64>) -> Result<u64, BadWord> {
    value.map_or(Ok(COUNTS_NEVER), integer)
}

/// Whole milliseconds: all times for acknowledgements are.
pub(super) fn within_number(within: Duration) -> u32 {
    u32::try_from(millis(within)).unwrap_or(u32::MAX)
}

pub(super) fn within(ms: u32) -> Result<Duration, BadWord> {
    Some(Duration::from_millis(ms.into())).filter(|within| *within <= NODE_AGE_MAX).ok_or(BadWord)
}

/// The age of a moment, in microseconds.
pub(super) fn age_number(moment: Instant, now: Instant) -> u64 {
    let age = now.saturating_duration_since(moment).min(NODE_AGE_MAX);
    u64::try_from(age.as_micros()).expect("an hour has fewer than 2^64 microseconds")
}

/// The moment of an age. The way of the word counts as nothing.
pub(super) fn moment(age_us: u64, now: Instant) -> Result<Instant, BadWord> {
    let age = Some(Duration::from_micros(age_us)).filter(|age| *age <= NODE_AGE_MAX).ok_or(BadWord)?;
    // A machine that has just started has no moment an hour ago.
    Ok(now.checked_sub(age).unwrap_or(now))
}

pub(super) fn reach_message(reach: Reach) -> pb::Reach {
    pb::Reach { after: reach.after, through: reach.through }
}

pub(super) fn reach(reach: Option<pb::Reach>) -> Result<Reach, BadWord> {
    let pb::Reach { after, through } = reach.unwrap_or_default();
    if after <= through { Ok(Reach { after, through: integer(through)? }) } else { Err(BadWord) }
}

pub(super) fn latest_message(place: LatestPlace) -> pb::LatestPlace {
    pb::LatestPlace { next: place.next(), ahead: place.ahead().0, behind: place.behind().0 }
}

pub(super) fn latest(place: Option<pb::LatestPlace>) -> Result<Option<LatestPlace>, BadWord> {
    let read =
        |place: pb::LatestPlace| Ok(LatestPlace::at(place.next, seq(place.ahead)?, seq(place.behind)?));
    place.map(read).transpose()
}

pub(super) fn refresh_message(want: RefreshWant) -> pb::RefreshWant {
    pb::RefreshWant {
        encoding: encoding_number(want.encoding),
        since: want.since.0,
        sent: want.sent,
        small: want.small,
        latest: want.latest.map(latest_message),
    }
}

pub(super) fn refresh(want: pb::RefreshWant) -> Result<RefreshWant, BadWord> {
    Ok(RefreshWant {
        encoding: encoding(want.encoding)?,
        since: seq(want.since)?,
        sent: integer(want.sent)?,
        small: want.small,
        latest: latest(want.latest)?,
    })
}

pub(super) fn carry_message(want: CarryWant) -> pb::CarryWant {
    pb::CarryWant { encoding: encoding_number(want.encoding), reach: Some(reach_message(want.reach)) }
}

pub(super) fn carry(want: pb::CarryWant) -> Result<CarryWant, BadWord> {
    Ok(CarryWant { encoding: encoding(want.encoding)?, reach: reach(want.reach)? })
}
