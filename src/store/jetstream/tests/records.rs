//! The bytes of entries.

use std::time::Duration;

use bytes::Bytes;

use super::{EPOCH, SLOT, message, node, room};
use crate::store::jetstream::record::{Content, HEAD_BYTES, HeadRow, LogRecord, LogRow};
use crate::store::row::{self, Marks};
use roomcast_core::cluster::node::NODE_VERSION;
use roomcast_core::cluster::{Slot, Term};
use roomcast_core::room::id::RoomName;

fn row_of(name: &RoomName, offset: u64, text: &[u8]) -> LogRow {
    let message = message(offset, Duration::from_secs(600), text);
    let marks = Marks { is_apart: false, ..Marks::of(EPOCH, 1_700_000_000_000, &message) };
    LogRow { room: name.clone(), marks, message }
}

/// An entry of each kind.
fn all_kinds() -> Vec<LogRecord> {
    let head =
        |name: &str, has_rows| HeadRow { room: room(name), epoch: EPOCH, head: 9, has_rows, forget_ms: 77 };
    let rows = vec![row_of(&room("a"), 1, b"{}"), row_of(&room("live:b"), 2, &[0xff; 3000])];
    let contents = [
        Content::Rows(rows),
        Content::Claim(node("node-1", 5)),
        Content::Renewal(node("", u64::MAX)),
        Content::Forget(room("a")),
        Content::Heads(vec![head("a", true), head("b", false)]),
    ];
    let term = Term { generation: 3, sequence: 1 << 40 };
    contents.into_iter().map(|content| LogRecord { term, number: 8, content }).collect()
}

#[test]
fn an_entry_comes_back_as_it_was() {
    for record in all_kinds() {
        let newer = record.encode(SLOT, NODE_VERSION + 1);
        assert!(LogRecord::parse(SLOT, &newer).is_none() && LogRecord::is_newer(SLOT, &newer));
        let bytes = record.encode(SLOT, 1);
        assert_eq!(LogRecord::parse(SLOT, &bytes), Some(record.clone()));
        assert!(!LogRecord::is_newer(SLOT, &bytes) && !LogRecord::is_newer(SLOT, &newer[1..]));
        assert_eq!(LogRecord::parse(Slot(8), &bytes), None, "an entry of another slot");
        if let Content::Rows(rows) = &record.content {
            let bound: usize = rows.iter().map(|row| LogRow::bytes(&row.room, &row.message)).sum();
            assert!(bytes.len() <= HEAD_BYTES + bound);
        }
    }
}

#[test]
fn the_term_of_a_claim_has_the_sequence_that_the_log_gave() {
    let terms: Vec<_> = all_kinds().iter().map(|record| record.term_at(12).sequence).collect();
    assert_eq!(terms, [1 << 40, 12, 1 << 40, 1 << 40, 1 << 40]);
}

#[test]
fn an_entry_with_one_bit_turned_or_cut_is_damaged() {
    for record in all_kinds() {
        let bytes = record.encode(SLOT, 1);
        for bit in (0..bytes.len() * 8).step_by(if bytes.len() > 1000 { 13 } else { 1 }) {
            let mut turned = bytes.to_vec();
            turned[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(LogRecord::parse(SLOT, &turned), None, "bit {bit}");
        }
        assert!((0..bytes.len()).all(|len| LogRecord::parse(SLOT, &bytes[..len]).is_none()));
    }
}

#[test]
fn an_entry_under_a_correct_checksum_is_still_parsed_strictly() {
    let sealed = |rest: &[u8]| row::sealed(&[SLOT.0], rest);
    let mut random = fastrand::Rng::with_seed(11);
    for record in all_kinds() {
        let bytes = record.encode(SLOT, 1);
        let rest = &bytes[8..];
        let longer = sealed(&[rest, &[0]].concat());
        assert_eq!(LogRecord::parse(SLOT, &longer), None, "{record:?}");
        for (at, byte) in [(0, 0), (0, 9), (1, 0), (1, 6), (9, 0xff)] {
            let mut other = rest.to_vec();
            other[at] = byte;
            assert_eq!(LogRecord::parse(SLOT, &sealed(&other)), None, "byte {at} of {record:?}");
        }
        // Nothing panics, and a parsed entry is encoded as it came.
        for _ in 0..2000 {
            let mut other = rest[..random.usize(..=rest.len())].to_vec();
            for _ in 0..random.usize(..4) {
                let at = random.usize(..other.len().max(1));
                other.get_mut(at).into_iter().for_each(|byte| *byte = random.u8(..));
            }
            let bytes = Bytes::from(sealed(&other));
            if let Some(record) = LogRecord::parse(SLOT, &bytes) {
                assert_eq!(record.encode(SLOT, 1), bytes);
            }
        }
    }
}

#[test]
fn a_long_name_of_a_node_is_cut_at_a_letter() {
    let term = Term::default();
    let record = LogRecord { term, number: 1, content: Content::Claim(node(&"é".repeat(200), 1)) };
    let read = LogRecord::parse(SLOT, &record.encode(SLOT, 1)).unwrap();
    assert_eq!(read.content.claimant().unwrap().node, "é".repeat(127));
}
