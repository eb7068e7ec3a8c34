//! The spellings of codes that cross nodes as numbers.

use super::{BadWord, pb};

/// The codes of refused joins, each with its number.
const REFUSALS: [(pb::Refusal, &str); 5] = [
    (pb::Refusal::Draining, "draining"),
    (pb::Refusal::JoinsRefused, "joins_refused"),
    (pb::Refusal::RoomsFull, "rooms_full"),
    (pb::Refusal::NoHome, "no_home"),
    (pb::Refusal::Overloaded, "overloaded"),
];

/// The number of a refusal's code. A code without a number becomes `overloaded`, and the device comes back.
pub(super) fn refusal_number(code: &str) -> i32 {
    let refusal = REFUSALS.iter().find(|(_, spelling)| *spelling == code);
    debug_assert!(refusal.is_some(), "{code} has no number between nodes");
    refusal.map_or(pb::Refusal::Overloaded, |(refusal, _)| *refusal).into()
}

/// The code of a refusal.
pub(super) fn refusal(number: i32) -> Result<&'static str, BadWord> {
    let refusal = REFUSALS.iter().find(|(refusal, _)| *refusal as i32 == number);
    refusal.map(|(_, code)| *code).ok_or(BadWord)
}
