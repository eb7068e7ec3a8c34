//! T5: every state of a disk after a loss of power. Between two syncs any subset of the writes may have
//! reached the disk, in any order, each whole or cut at a sector. Every message reported durable must be
//! there afterwards.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use roomcast::store::redb::Redb;
use roomcast::store::{Append, Store};

use super::disk::{Disk, Op, apply};
use super::{AT_MS, AtThatTime, append, at, offsets, print, room};

const SECTOR: usize = 512;
/// The most writes between two syncs with every subset tried.
const EXHAUSTIVE_MAX: usize = 12;
/// Subsets drawn at random for more writes.
const DRAWN: usize = 400;

/// A deed of a store: one commit.
#[derive(Debug, Clone)]
enum Deed {
    Append(Vec<Append>),
    Purge(u64),
}

/// A possible content of a store: the offsets of each room.
type Content = BTreeMap<&'static str, Vec<u64>>;

const ROOMS: [&str; 3] = ["a", "b", "c"];

fn content(store: &mut Redb) -> Content {
    ROOMS.map(|name| (name, offsets(store, name))).into_iter().collect()
}

/// Opens a disk after a loss of power. Its content must be one of `allowed`.
#[track_caller]
fn check(bytes: Vec<u8>, allowed: &[Content; 2], state: &str) {
    let disk = Disk::holding(bytes);
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let mut store = disk.store().unwrap();
        let found = content(&mut store);
        assert!(allowed.contains(&found), "{found:?} is neither of {allowed:?}");
        assert_eq!(store.holdings().quarantined, 0);
        // The store goes on from the recovered state.
        let head = store.whole(&room("a")).unwrap().map_or(0, |stream| stream.head);
        assert_eq!(store.put(&[append("a", head + 1..=head + 1)]).unwrap(), [Ok(())]);
    }));
    if let Err(panic) = opened {
        print(&format!("the state of the disk: {state}"));
        std::panic::resume_unwind(panic);
    }
}

/// The disk with the `writes` of the bits in `holds`.
fn with(base: &[u8], writes: &[Op], holds: impl Fn(usize) -> bool) -> Vec<u8> {
    let mut bytes = base.to_vec();
    for (_, write) in writes.iter().enumerate().filter(|(index, _)| holds(*index)) {
        apply(&mut bytes, write);
    }
    bytes
}

/// Writes cut at each sector: the first part reached the disk, or the last part.
fn torn(write: &Op) -> Vec<Op> {
    let Op::Write { offset, bytes } = write else { return Vec::new() };
    let cuts = (1..bytes.len().div_ceil(SECTOR)).map(|sector| sector * SECTOR);
    let halves = |cut: usize| {
        let first = Op::Write { offset: *offset, bytes: bytes[..cut].to_vec() };
        [first, Op::Write { offset: offset + cut, bytes: bytes[cut..].to_vec() }]
    };
    cuts.flat_map(halves).collect()
}

/// Tries every state between two syncs, and returns their number.
fn try_states(base: &[u8], writes: &[Op], allowed: &[Content; 2], random: &mut fastrand::Rng) -> usize {
    let count = writes.len();
    let mut states = 0;
    let mut subset = |holds: &dyn Fn(usize) -> bool| {
        let held: Vec<usize> = (0..count).filter(|index| holds(*index)).collect();
        check(with(base, writes, holds), allowed, &format!("{held:?} of {count} writes"));
        states += 1;
    };
    if count <= EXHAUSTIVE_MAX {
        (0_usize..1 << count).for_each(|mask| subset(&|index| mask >> index & 1 == 1));
    } else {
        (0..=count).for_each(|len| subset(&|index| index < len));
        (0..count).for_each(|lost| subset(&|index| index != lost));
        (0..count).for_each(|only| subset(&|index| index == only));
        for _ in 0..DRAWN {
            let mask: Vec<bool> = (0..count).map(|_| random.bool()).collect();
            subset(&|index| mask[index]);
        }
    }
    for (index, write) in writes.iter().enumerate() {
        for part in torn(write) {
            let mut alone = base.to_vec();
            apply(&mut alone, &part);
            check(alone, allowed, &format!("a part of write {index} alone"));
            let mut rest = with(base, writes, |other| other < index);
            apply(&mut rest, &part);
            check(with(&rest, writes, |other| other > index), allowed, &format!("write {index} torn"));
            states += 2;
        }
    }
    states
}

/// Does a deed, then loses power at every moment of the deed.
fn lose_power_during(disk: &Disk, store: &mut Redb, deed: &Deed, random: &mut fastrand::Rng) -> Vec<usize> {
    let before = content(store);
    let mut platters = disk.bytes();
    disk.record();
    match deed {
        Deed::Append(appends) => {
            assert!(store.put(appends).unwrap().iter().all(Result::is_ok));
        }
        Deed::Purge(now_ms) => assert!(store.purge(at(*now_ms), 100).unwrap().rows > 0),
    }
    let recorded = disk.recorded();
    let after = content(store);
    let syncs = recorded.iter().filter(|op| matches!(op, Op::Sync)).count();
    let mut states = Vec::new();
    for (synced, part) in recorded.split_inclusive(|op| matches!(op, Op::Sync)).enumerate() {
        let writes: Vec<Op> = part.iter().filter(|op| !matches!(op, Op::Sync)).cloned().collect();
        // Behind the last sync the deed is reported, so its messages must be there.
        let allowed =
            if synced == syncs { [after.clone(), after.clone()] } else { [before.clone(), after.clone()] };
        states.push(try_states(&platters, &writes, &allowed, random));
        platters = with(&platters, &writes, |_| true);
    }
    check(platters, &[after.clone(), after], "all of it, reported");
    states
}

#[test]
fn whatever_was_reported_durable_survives_every_loss_of_power() {
    let seed = std::env::var("ROOMCAST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    print(&format!("ROOMCAST_SEED={seed}"));
    let mut random = fastrand::Rng::with_seed(seed);
    let disk = Disk::default();
    let mut store = disk.store().unwrap();
    let deeds = [
        Deed::Append(vec![append("a", 1..=1)]),
        Deed::Append(vec![append("a", 2..=20), append("b", 1..=30), append("c", 1..=1)]),
        Deed::Append(vec![append("c", 2..=2)]),
        Deed::Purge(AT_MS + 600_000),
        Deed::Append(vec![append("a", 21..=21), append("b", 31..=31)]),
    ];
    for deed in &deeds {
        let states = lose_power_during(&disk, &mut store, deed, &mut random);
        print(&format!("states tried between syncs: {states:?}"));
    }
}

#[test]
fn a_loss_of_power_after_a_failed_sync_loses_nothing_that_was_reported() {
    // A kernel counts the pages of a failed sync as clean: reads see them, and no later sync writes them.
    // Commits in one phase would build upon such pages.
    use super::disk::{Fault, FaultKind};
    for after in 0..40 {
        let disk = Disk::default();
        let mut store = disk.store().unwrap();
        store.put(&[append("a", 1..=5)]).unwrap();
        disk.fail(Some(Fault { after, times: 1, kind: FaultKind::Io }));
        let mut head = 5;
        let mut failed = store.put(&[append("a", 6..=6)]).is_err();
        disk.fail(None);
        for _ in 0..3 {
            if failed {
                store.reopen().unwrap();
                head = store.whole(&room("a")).unwrap().unwrap().head;
                assert!(head >= 5, "fault at step {after}");
            } else {
                head = store.whole(&room("a")).unwrap().unwrap().head;
            }
            failed = store.put(&[append("a", head + 1..=head + 1)]).is_err();
            assert!(!failed, "fault at step {after}");
            head += 1;
            let mut survived = disk.after_power_loss().store().unwrap();
            assert_eq!(offsets(&mut survived, "a"), (1..=head).collect::<Vec<_>>(), "fault at step {after}");
        }
        assert!(head >= 8);
    }
}
