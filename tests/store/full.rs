//! T9: a real file system that fills up or is cut off, and a kernel with failing writes and syncs (by libfiu,
//! if installed). A part that can't be tried on this machine prints `skipped: T9 …`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use roomcast::store::redb::Redb;
use roomcast::store::{Append, Store};
use roomcast_core::room::message::{Message, Payload};

use super::loopfs::{CutOff, LoopFs};
use super::{AtThatTime, append, message, offsets, print, room};

const MEBIBYTES: u64 = 24;
const PAYLOAD_BYTES: usize = 16 * 1024;

/// A loop file system. `None`, with a printed reason, on machines without loop devices.
fn file_system(name: &str) -> Option<LoopFs> {
    LoopFs::new(name, MEBIBYTES).map_err(|why| print(&format!("skipped: T9 {name}: {why}"))).ok()
}

fn large(offset: u64) -> Append {
    let room = room("large");
    let payload = Payload::Opaque(Bytes::from(vec![u8::try_from(offset % 251).unwrap(); PAYLOAD_BYTES]));
    let message = Message { payload, ..Message::clone(&message(&room, offset, 600)) };
    Append { messages: vec![Arc::new(message)], ..append("large", 1..=1) }
}

/// Offsets of the large messages, each checked to be whole.
fn large_offsets(store: &mut Redb) -> Vec<u64> {
    let stream = store.whole(&room("large")).unwrap().unwrap();
    for message in &stream.tail {
        let filled = u8::try_from(message.offset % 251).unwrap();
        let whole = message.payload.bytes().iter().all(|byte| *byte == filled);
        assert!(whole && message.payload.bytes().len() == PAYLOAD_BYTES);
    }
    stream.tail.iter().map(|message| message.offset).collect()
}

#[test]
fn a_full_disk_refuses_keeps_what_it_has_and_heals() {
    let Some(mut disk) = file_system("full") else { return };
    let mut store = Redb::open(&disk.path().join("data")).unwrap();
    // A foreign file takes the space beyond a few messages.
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![1; 12 * 1024 * 1024]).unwrap();
    let mut durable = 0;
    while store.put(&[large(durable + 1)]).is_ok() {
        durable += 1;
        assert!(durable < 2000, "{MEBIBYTES} MiB are full by now");
    }
    print(&format!("T9: full after {durable} messages: {}", store.trouble()));
    assert!(durable > 10, "{durable}");
    assert!(store.trouble().contains("No space left"), "{}", store.trouble());
    assert!(store.put(&[large(durable + 1)]).is_err(), "it does not go on by itself");
    // An open on a full disk may succeed or fail. No durable message may go.
    if store.reopen().is_ok() {
        let found = large_offsets(&mut store);
        assert!(found.len() as u64 >= durable, "{durable}: {found:?}");
    }
    fs::remove_file(&ballast).unwrap();
    store.reopen().unwrap();
    let found = large_offsets(&mut store);
    let head = found.len() as u64;
    assert!(head >= durable);
    assert_eq!(found, (1..=head).collect::<Vec<_>>());
    assert_eq!(store.put(&[large(head + 1)]).unwrap(), [Ok(())], "it heals");
    drop(store);
    disk.remount().unwrap();
    let mut store = Redb::open(&disk.path().join("data")).unwrap();
    assert_eq!(large_offsets(&mut store).len() as u64, head + 1);
}

#[test]
fn a_file_system_that_is_cut_off_has_what_was_reported_durable() {
    let Some(mut disk) = file_system("cut-off") else { return };
    let mut head = 0;
    for how in [CutOff::AtOnce, CutOff::AfterTheJournal, CutOff::AtOnce] {
        let mut store = Redb::open(&disk.path().join("data")).unwrap();
        assert_eq!(offsets(&mut store, "a"), (1..=head).collect::<Vec<_>>());
        for _ in 0..20 {
            store.put(&[append("a", head + 1..=head + 1)]).unwrap()[0].unwrap();
            head += 1;
        }
        disk.cut_off(how).unwrap();
        assert!(store.put(&[append("a", head + 1..=head + 1)]).is_err(), "nothing is durable any more");
        assert!(store.reopen().is_err());
        drop(store);
        disk.remount().unwrap();
    }
    let mut store = Redb::open(&disk.path().join("data")).unwrap();
    let found = offsets(&mut store, "a").len() as u64;
    // The failed append may or may not have reached the disk before the disk was cut off.
    assert!((head..=head + 1).contains(&found), "{found} of {head}");
    print(&format!("T9: {found} messages after three cuts"));
}

/// No test by itself. The next test runs it under `fiu-run`, which makes some calls fail at random.
#[test]
fn a_life_under_failing_calls() {
    let Some(folder) = std::env::var_os("ROOMCAST_FAILING_FOLDER") else { return };
    let mut store =
        (0..1000).find_map(|_| Redb::open(Path::new(&folder)).ok()).expect("one opening in a thousand works");
    let mut head = 0;
    let mut failed = 0;
    while head < 300 {
        if store.put(&[append("a", head + 1..=head + 1)]).is_ok_and(|outcomes| outcomes[0].is_ok()) {
            head += 1;
            print(&format!("durable {head}"));
            continue;
        }
        failed += 1;
        // Reads can't fail here: only writes and syncs do.
        let loaded = (0..1000).find_map(|_| {
            store.reopen().ok()?;
            store.whole(&room("a")).ok()
        });
        let found = loaded.expect("one opening in a thousand works").map_or(0, |stream| stream.head);
        assert!(found >= head, "{head} was durable, {found} is there");
        head = found;
    }
    print(&format!("failed {failed}"));
    assert!(failed > 0);
}

#[test]
fn failing_writes_and_syncs_of_the_kernel_lose_nothing() {
    if Command::new("fiu-run").arg("-h").output().is_err() {
        return print("skipped: T9 failing calls: fiu-run is not installed");
    }
    let folder = std::env::temp_dir().join(format!("roomcast-store-{}-fiu", std::process::id()));
    let faults =
        ["posix/io/rw/pwrite", "posix/io/rw/pwrite64", "posix/io/sync/fdatasync", "posix/io/sync/fsync"];
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new("fiu-run");
    command.arg("-x");
    for fault in faults {
        command.args(["-c", &format!("enable_random name={fault},probability=0.02,failinfo=5")]);
    }
    let output = command
        .arg(program)
        .args(["--exact", "full::a_life_under_failing_calls", "--nocapture"])
        .env("ROOMCAST_FAILING_FOLDER", &folder)
        .output()
        .unwrap();
    let heard = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{heard}");
    let durable = heard.lines().filter(|line| line.starts_with("durable ")).count();
    let found = offsets(&mut Redb::open(&folder).unwrap(), "a").len();
    assert!(found >= durable, "{found} of {durable}");
    let failed = heard.lines().find(|line| line.starts_with("failed ")).unwrap_or_default();
    print(&format!("T9: {durable} durable, {failed}, {found} there"));
    fs::remove_dir_all(&folder).ok();
}
