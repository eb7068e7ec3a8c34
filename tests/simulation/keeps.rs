//! A device's memory of reliable messages, as docs/protocol.md asks for, and the checks of each frame against
//! this memory.

use std::collections::{BTreeMap, BTreeSet};

use crate::device::{Opened, Part, Told};
use crate::disk::Disk;

/// A cursor: epoch and offset.
pub(crate) type Cursor = (String, u64);

/// A device's memory of one room, which outlives the connection.
#[derive(Debug, Default, Clone)]
pub(crate) struct Kept {
    pub(crate) cursor: Option<Cursor>,
    /// Epoch -> applied offsets.
    pub(crate) applied: BTreeMap<String, BTreeSet<u64>>,
    /// The last offset below a made-up cursor. The device need not have applied the messages up to here.
    pub(crate) made_up: u64,
}

/// A device's knowledge of one room on one connection.
#[derive(Debug, Default, Clone)]
pub(crate) struct Link {
    /// The cursor in the request to join.
    pub(crate) asked: Option<Cursor>,
    /// True: the cursor in `asked` was made up.
    pub(crate) forged: bool,
    /// The epoch in the welcome.
    pub(crate) epoch: Option<String>,
    /// The last offset that was heard on this connection.
    pub(crate) sent: u64,
    /// The last acknowledged offset.
    pub(crate) acked: u64,
    /// The last offset acknowledged with an empty pipe.
    pub(crate) acked_level: u64,
    /// True: an acknowledgement is due.
    pub(crate) owes_ack: bool,
}

/// The effect of a frame on a device.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Effect {
    pub(crate) applied: u64,
    /// Messages that the device had applied before.
    pub(crate) repeated: u64,
    pub(crate) recalls: u64,
    /// Offsets without a message because the message had expired.
    pub(crate) expired: u64,
}

impl Kept {
    /// Takes in the place in the stream from a welcome or a page. Checks the reason if the cursor was not
    /// honoured.
    pub(crate) fn open(&mut self, link: &mut Link, opened: &Opened, disk: &Disk, room: &str) -> Effect {
        let why = format!("{room}: {:?} was answered with {} {opened:?}", link.asked, link.forged);
        let honoured = match &link.asked {
            None => 0,
            Some((_, 0)) => 0,
            Some((epoch, _)) if *epoch != opened.epoch => {
                assert_eq!(opened.reset, "epoch_changed", "{why}");
                0
            }
            Some((_, offset)) if *offset > opened.offset => {
                assert_eq!(opened.reset, "ahead", "{why}");
                assert!(link.forged, "a cursor that the engine gave is never ahead: {why}");
                0
            }
            Some((_, offset)) => {
                assert_eq!(opened.reset, "", "{why}");
                *offset
            }
        };
        assert_eq!(opened.part.after, honoured, "{why}");
        assert!(
            honoured > 0
                || link.asked.as_ref().is_some_and(|(_, offset)| *offset > 0)
                || opened.reset.is_empty(),
            "{why}"
        );
        let is_other = self.cursor.as_ref().is_none_or(|(epoch, _)| *epoch != opened.epoch);
        if !opened.reset.is_empty() {
            // The stream begins anew, so messages pulled with the refused cursor count no more.
            self.applied.remove(&opened.epoch);
        }
        if !opened.reset.is_empty() || is_other {
            self.cursor = Some((opened.epoch.clone(), opened.part.after));
            self.made_up = 0;
        }
        link.epoch = Some(opened.epoch.clone());
        self.take(link, &opened.part, disk, room)
    }

    /// Takes in a frame's part of the stream.
    pub(crate) fn take(&mut self, link: &mut Link, part: &Part, disk: &Disk, room: &str) -> Effect {
        let epoch = link.epoch.clone().unwrap_or_else(|| panic!("{room}: {part:?} without an epoch"));
        let cursor = match &mut self.cursor {
            Some((of, cursor)) if *of == epoch => cursor,
            other => panic!("{room}: a cursor {other:?} in epoch {epoch}"),
        };
        assert!(part.after <= *cursor, "{room}: a device at {cursor} would have to pull: {part:?}");
        check_part(part, &epoch, disk, room);
        let mut effect = Effect::default();
        let written = disk.of(room, number_of(&epoch));
        let applied = self.applied.entry(epoch).or_default();
        for told in &part.messages {
            if told.offset <= *cursor {
                effect.repeated += 1;
                continue;
            }
            assert!(
                applied.insert(told.offset),
                "{room}: {} is applied once: {part:?} at {cursor}",
                told.offset
            );
            effect.applied += 1;
            effect.recalls += u64::from(told.recall > 0);
        }
        let among = |offset| part.messages.iter().any(|told| told.offset == offset);
        let holes = (part.after.max(*cursor) + 1..=part.through).filter(|offset| !among(*offset));
        effect.expired += holes.filter(|offset| at(written, *offset).recalled_by == 0).count() as u64;
        *cursor = (*cursor).max(part.through);
        link.sent = link.sent.max(part.through);
        link.owes_ack = true;
        effect
    }
}

/// Checks a part of a stream for any reader.
pub(crate) fn check_part(part: &Part, epoch: &str, disk: &Disk, room: &str) {
    let why = || format!("{room}: {part:?} of {epoch}");
    let written = disk.of(room, number_of(epoch));
    assert!(part.through <= written.len() as u64, "only what is durable is told: {}", why());
    assert!(part.after <= part.through, "{}", why());
    let mut before = part.after;
    for told in &part.messages {
        assert!(told.offset > before && told.offset <= part.through, "offsets rise: {}", why());
        before = told.offset;
        check_told(told, written, &why());
    }
    let among: BTreeSet<u64> = part.messages.iter().map(|told| told.offset).collect();
    for offset in part.after + 1..=part.through {
        let lacking = !among.contains(&offset) && disk.is_surely_alive(at(written, offset));
        assert!(!lacking, "{offset} is alive and missing: {}", why());
    }
}

fn check_told(told: &Told, written: &[crate::disk::Written], why: &str) {
    let message = &at(written, told.offset).message;
    let payload = std::str::from_utf8(message.payload.bytes()).unwrap();
    let id = message.id.as_ref().map_or("", |id| id.as_str());
    assert_eq!(
        (told.type_name.as_str(), told.payload.as_str(), told.id.as_str(), told.recall),
        (message.type_name.as_str(), payload, id, message.recall),
        "what was published is what arrives: {why}"
    );
}

pub(crate) fn at(written: &[crate::disk::Written], offset: u64) -> &crate::disk::Written {
    &written[usize::try_from(offset - 1).unwrap()]
}

pub(crate) fn number_of(epoch: &str) -> u64 {
    u64::from_str_radix(epoch, 16).expect("sixteen hexadecimal digits")
}
