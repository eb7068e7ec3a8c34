//! Bits that turn on the disk. No wrong payload is ever read, damage that was found is put aside and counted,
//! and no offset is given twice.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Arc;

use roomcast::store::{Append, Store, StoreError, Stored};
use roomcast_core::room::message::Message;

use super::disk::{Disk, Fault, FaultKind};
use super::{AT_MS, AtThatTime, EPOCH, append, message, offsets, print, room};

/// Bits turned anywhere in the file.
const DRAWN: usize = 4000;
const ROOMS: [&str; 2] = ["a", "b"];

/// A disk with five messages in each room.
fn disk() -> Disk {
    let disk = Disk::default();
    let mut store = disk.store().unwrap();
    store.put(&[append("a", 1..=5), append("b", 1..=5)]).unwrap();
    drop(store);
    disk
}

fn with_turned(bytes: &[u8], bit: usize) -> Disk {
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    Disk::holding(bytes)
}

/// The place of `wanted` in the file.
fn find(bytes: &[u8], wanted: &[u8]) -> Vec<usize> {
    (0..bytes.len() - wanted.len()).filter(|at| bytes[*at..].starts_with(wanted)).collect()
}

/// The loads of both rooms. `None` for a failed load.
fn read(disk: &Disk) -> Option<(Vec<Option<Stored>>, u64)> {
    // redb trusts the structure of its pages. A turned bit in the structure may end in an error or a panic,
    // and the writer takes both alike.
    catch_unwind(AssertUnwindSafe(|| {
        let mut store = disk.store().ok()?;
        let streams = ROOMS.map(|name| store.whole(&room(name)).ok().flatten()).to_vec();
        Some((streams, store.holdings().quarantined))
    }))
    .ok()
    .flatten()
}

#[track_caller]
fn assert_true_payloads(streams: &[Option<Stored>]) {
    for (name, stream) in ROOMS.iter().zip(streams) {
        for read in stream.iter().flat_map(|stream| &stream.tail) {
            let written = message(&room(name), read.offset, 600);
            assert_eq!(format!("{read:?}"), format!("{written:?}"));
        }
    }
}

#[test]
fn one_turned_bit_in_a_row_takes_that_row_alone() {
    let bytes = disk().bytes();
    let payload = message(&room("a"), 3, 600).payload.bytes().clone();
    // The fixed part of a row stands before its type, key and id.
    let ends: Vec<usize> = find(&bytes, &payload).iter().map(|at| at + payload.len()).collect();
    let row_bytes = payload.len() + 69 + 3 + "coupon".len() + "id-3".len();
    let mut hits = 0;
    for end in ends {
        for bit in (end - row_bytes) * 8..end * 8 {
            let disk = with_turned(&bytes, bit);
            let (streams, quarantined) = read(&disk).expect("the structure is whole");
            assert_true_payloads(&streams);
            let found: Vec<u64> =
                streams[0].as_ref().unwrap().tail.iter().map(|message| message.offset).collect();
            if found == [1, 2, 3, 4, 5] {
                continue; // A copy of the page that is no longer in use.
            }
            assert_eq!((found, quarantined), (vec![1, 2, 4, 5], 1));
            assert_eq!(streams[1].as_ref().unwrap().tail.len(), 5);
            let (again, quarantined) = read(&disk).unwrap();
            assert_eq!((again[0].as_ref().unwrap().head, quarantined), (5, 0), "it was put aside for good");
            hits += 1;
        }
    }
    assert_eq!(hits, row_bytes * 8);
}

#[test]
fn a_damaged_row_is_left_out_of_a_page_and_of_the_count() {
    let bytes = disk().bytes();
    let payload = message(&room("a"), 2, 600).payload.bytes().clone();
    for at in find(&bytes, &payload) {
        let mut store = with_turned(&bytes, at * 8).store().unwrap();
        let before = store.holdings().bytes;
        let page = store.page(&room("a"), 0, 250).unwrap();
        let read: Vec<u64> = page.messages.iter().map(|message| message.offset).collect();
        if read == [1, 3] {
            assert_eq!(page.through, 3);
            assert_eq!(store.holdings().quarantined, 1);
            assert!(store.holdings().bytes < before);
            let purged = store.purge(super::at(AT_MS + 1_000_000), 100).unwrap();
            assert_eq!((purged.rows, store.holdings().bytes), (9, 0));
            return;
        }
    }
    panic!("no copy of the row was the one in use");
}

#[test]
fn a_damaged_entry_begins_a_new_epoch_behind_all_rows() {
    let bytes = disk().bytes();
    let entry = [EPOCH.0.to_le_bytes(), 5_u64.to_le_bytes(), [0; 8]].concat();
    let mut hits = 0;
    for at in find(&bytes, &entry) {
        for bit in (at - 8) * 8..(at + entry.len()) * 8 {
            let disk = with_turned(&bytes, bit);
            let mut store = disk.store().unwrap();
            let blind = store.put(&[append("a", 6..=6), append("b", 6..=6)]).unwrap();
            let Some(index) = blind.iter().position(Result::is_err) else { continue };
            assert_eq!(blind[index], Err(StoreError::Moved), "the room has to load first");
            hits += 1;
            let name = ROOMS[index];
            let stream = store.whole(&room(name)).unwrap().unwrap();
            assert_ne!(stream.epoch, EPOCH);
            assert_eq!(stream.head, 5);
            assert_eq!(offsets(&mut store, name), [1, 2, 3, 4, 5]);
            assert_eq!(store.holdings().quarantined, 1);
            let old = store.put(&[append(name, 6..=6)]).unwrap();
            assert_eq!(old, [Err(StoreError::Moved)]);
            let new = Append { epoch: stream.epoch, ..append(name, 6..=6) };
            assert_eq!(store.put(&[new]).unwrap(), [Ok(())]);
            drop(store);
            let mut store = disk.store().unwrap();
            assert_eq!(store.whole(&room(name)).unwrap().unwrap().epoch, stream.epoch);
            assert_eq!(offsets(&mut store, name), [1, 2, 3, 4, 5, 6]);
            store.purge(super::at(AT_MS + 1_000_000), 100).unwrap();
            assert_eq!(store.holdings().bytes, 0, "what was made anew expires as well");
        }
    }
    assert_eq!(hits, 2 * 32 * 8);
}

#[test]
fn a_damaged_count_of_bytes_is_counted_anew() {
    let (bytes, held) = {
        let disk = disk();
        (disk.bytes(), disk.store().unwrap().holdings().bytes)
    };
    let places = find(&bytes, &held.to_le_bytes());
    assert!(!places.is_empty());
    for at in places {
        let store = with_turned(&bytes, at * 8 + 62).store().unwrap();
        assert_eq!(store.holdings().bytes, held);
    }
}

#[test]
fn a_damaged_recall_does_not_revive_what_it_recalled() {
    let recall = |offset| {
        let recall = Message { recall: 2, ..Message::clone(&message(&room("a"), offset, 600)) };
        Append { messages: vec![Arc::new(recall)], ..append("a", offset..=offset) }
    };
    let disk = disk();
    disk.store().unwrap().put(&[recall(6)]).unwrap();
    let bytes = disk.bytes();
    let payload = message(&room("a"), 6, 600).payload.bytes().clone();
    let mut hits = 0;
    for at in find(&bytes, &payload) {
        let (streams, quarantined) = read(&with_turned(&bytes, at * 8)).unwrap();
        let stream = streams[0].as_ref().unwrap();
        assert_eq!(stream.records[1].recalled_by, 6);
        hits += quarantined;
    }
    assert_eq!(hits, 1, "the recall's row in use");
}

#[test]
fn an_empty_room_whose_end_was_put_off_is_forgotten_all_the_same() {
    let days = |days: u64| super::at(AT_MS + days * 86_400_000);
    let disk = Disk::default();
    let mut store = disk.store().unwrap();
    store.put(&[append("a", 1..=1)]).unwrap();
    assert_eq!(store.purge(days(1), 1).unwrap().rows, 1);
    // A purge that fails at its one key puts the key off.
    disk.fail(Some(Fault { after: 0, times: 1000, kind: FaultKind::Io }));
    store.purge(days(9), 1).unwrap_err();
    disk.fail(None);
    store.reopen().unwrap();
    // The disk is well, so the error was of the rows.
    store.prove(days(9), 1).unwrap();
    assert_eq!(store.purge(days(9), 1).unwrap().rooms, 0, "put off");
    assert_eq!(store.purge(days(10), 1).unwrap().rooms, 1);
    assert!(store.whole(&room("a")).unwrap().is_none());
}

#[test]
fn a_full_disk_puts_off_no_row_of_a_purge() {
    let disk = Disk::default();
    let mut store = disk.store().unwrap();
    store.put(&[append("a", 1..=10)]).unwrap();
    let later = super::at(AT_MS + 700_000);
    for kind in [FaultKind::Full, FaultKind::Io].repeat(5) {
        disk.fail(Some(Fault { after: 0, times: 1000, kind }));
        store.purge(later, 10).unwrap_err();
        disk.fail(None);
        store.reopen().unwrap();
        // A full disk stays one; an I/O error is of the disk as long as the proof fails as well.
        if kind == FaultKind::Io {
            disk.fail(Some(Fault { after: 0, times: 1000, kind }));
            store.prove(later, 1).unwrap_err();
            disk.fail(None);
            store.reopen().unwrap();
        }
    }
    assert_eq!(store.purge(later, 10).unwrap().rows, 10);
}

/// Turns drawn bits from the `first` on, and prints the number of each survived bit.
fn turn_drawn_bits(seed: u64, first: usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let bytes = disk().bytes();
    let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    for number in 0..DRAWN {
        let bit = used[random.usize(..used.len())] * 8 + random.usize(..8);
        if number < first {
            continue;
        }
        if let Some((streams, _)) = read(&with_turned(&bytes, bit)) {
            assert_true_payloads(&streams);
            for stream in streams.iter().flatten().filter(|stream| stream.epoch == EPOCH) {
                assert_eq!(stream.head, 5, "an offset would be given twice: bit {bit}");
            }
        }
        print(&format!("survived {number}"));
    }
}

/// No test by itself. The next test runs it in a process of its own, since redb aborts at some damage.
#[test]
fn drawn_bits_of_a_child() {
    let Ok(first) = std::env::var("ROOMCAST_FIRST_BIT") else { return };
    turn_drawn_bits(number("ROOMCAST_SEED"), first.parse().unwrap());
}

fn number(variable: &str) -> u64 {
    std::env::var(variable).ok().and_then(|number| number.parse().ok()).unwrap_or(7)
}

#[test]
fn no_turned_bit_anywhere_makes_a_wrong_payload() {
    let seed = number("ROOMCAST_SEED");
    print(&format!("ROOMCAST_SEED={seed}"));
    let mut first = 0;
    let mut aborted = 0;
    while first < DRAWN {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "damage::drawn_bits_of_a_child", "--nocapture"])
            .env("ROOMCAST_SEED", seed.to_string())
            .env("ROOMCAST_FIRST_BIT", first.to_string())
            .env("RUST_BACKTRACE", "0")
            .output()
            .unwrap();
        let heard = String::from_utf8_lossy(&child.stderr);
        let survived = heard.lines().rev().find_map(|line| line.strip_prefix("survived ")?.parse().ok());
        let next = survived.map_or(first, |survived: usize| survived + 1);
        assert_ne!(child.status.code(), Some(101), "bit number {next} of seed {seed}: {heard}");
        if child.status.success() {
            break;
        }
        first = next + 1;
        aborted += 1;
    }
    print(&format!("{aborted} of {DRAWN} ended the process"));
    assert!(aborted < DRAWN / 20, "{aborted}");
}
