//! The reasons of refused joins, which cross nodes as numbers.

use super::{BadWord, pb};
use crate::shard::lane::JoinRefusal;

/// The number of a refusal.
pub(super) fn refusal_number(refusal: JoinRefusal) -> i32 {
    let number = match refusal {
        JoinRefusal::Draining => pb::Refusal::Draining,
        JoinRefusal::JoinsRefused => pb::Refusal::JoinsRefused,
        JoinRefusal::RoomsFull => pb::Refusal::RoomsFull,
        JoinRefusal::NoHome => pb::Refusal::NoHome,
        JoinRefusal::NotHome => pb::Refusal::NotHome,
        JoinRefusal::Overloaded => pb::Refusal::Overloaded,
    };
    number.into()
}

/// The refusal of a number.
pub(super) fn refusal(number: i32) -> Result<JoinRefusal, BadWord> {
    JoinRefusal::ALL.into_iter().find(|refusal| refusal_number(*refusal) == number).ok_or(BadWord)
}
