//! The store's file and folder: created whole, locked, and refused with a sentence of advice.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, TableDefinition};
use roomcast::store::redb::{OpenError, Redb};
use roomcast::store::{Append, Store};
use roomcast_core::room::id::Key;
use roomcast_core::room::message::{Message, Payload};

use super::{AT_MS, AtThatTime, EPOCH, append, at, message, offsets, room};

/// A folder that is removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("roomcast-store-{}-{name}", std::process::id()));
        fs::remove_dir_all(&path).ok();
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

#[track_caller]
fn refused(folder: &Path) -> (OpenError, String) {
    let error = Redb::open(folder).expect_err("it is refused");
    let sentence = error.to_string();
    (error, sentence)
}

#[test]
fn a_folder_is_made_for_its_owner_alone_and_its_store_is_found_again() {
    let folder = Folder::new("made");
    let inner = folder.join("data/of/node");
    let mut store = Redb::open(&inner).unwrap();
    store.put(&[append("a", 1..=2)]).unwrap();
    assert_eq!(fs::metadata(&inner).unwrap().permissions().mode() & 0o777, 0o700);
    store.reopen().unwrap();
    assert_eq!(offsets(&mut store, "a"), [1, 2]);
    drop(store);
    assert_eq!(offsets(&mut Redb::open(&inner).unwrap(), "a"), [1, 2]);
    let names: Vec<_> = fs::read_dir(&inner).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["store.redb"]);
}

#[test]
fn a_second_opening_is_refused_while_the_first_lasts() {
    let folder = Folder::new("locked");
    let store = Redb::open(&folder.0).unwrap();
    let (error, sentence) = refused(&folder.0);
    assert!(matches!(error, OpenError::Locked(_)), "{error:?}");
    assert!(sentence.contains("in use by another process"), "{sentence}");
    drop(store);
    Redb::open(&folder.0).unwrap();
}

#[test]
fn what_a_crash_left_half_made_is_made_again() {
    let folder = Folder::new("half");
    fs::write(folder.join("store.redb.new"), "half of a file").unwrap();
    Redb::open(&folder.0).unwrap();
    assert!(!folder.join("store.redb.new").exists());
}

#[test]
fn a_file_of_somebody_else_is_refused_and_kept() {
    let folder = Folder::new("foreign");
    fs::write(folder.join("store.redb"), "somebody's letters").unwrap();
    let (error, sentence) = refused(&folder.0);
    assert!(matches!(error, OpenError::Foreign(_)), "{error:?}");
    assert!(sentence.contains("move it away"), "{sentence}");
    assert_eq!(fs::read_to_string(folder.join("store.redb")).unwrap(), "somebody's letters");

    fs::remove_file(folder.join("store.redb")).unwrap();
    let database = Database::create(folder.join("store.redb")).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(TableDefinition::<u64, u64>::new("somebody's")).unwrap();
    write.commit().unwrap();
    drop(database);
    assert!(matches!(refused(&folder.0).0, OpenError::Foreign(_)));
}

#[test]
fn a_file_that_is_cut_off_or_damaged_at_its_start_says_so() {
    let folder = Folder::new("cut-off");
    drop(Redb::open(&folder.0).unwrap());
    let whole = fs::read(folder.join("store.redb")).unwrap();
    let mut damaged = 0;
    for len in [0, 1, 8, 9, 100, 319, 320, 4095, 4096, whole.len() / 2, whole.len() - 1] {
        fs::write(folder.join("store.redb"), &whole[..len]).unwrap();
        let (error, sentence) = refused(&folder.0);
        assert!(matches!(error, OpenError::Damaged(_)), "{len} bytes: {error:?}");
        assert!(sentence.contains("is damaged"), "{sentence}");
    }
    // Each bit behind the magic number may turn: the file then opens as it was, or is called damaged.
    for bit in (9 * 8..320 * 8).step_by(11) {
        let mut turned = whole.clone();
        turned[bit / 8] ^= 1 << (bit % 8);
        fs::write(folder.join("store.redb"), turned).unwrap();
        if let Err(error) = Redb::open(&folder.0) {
            assert!(matches!(error, OpenError::Damaged(_)), "bit {bit}: {error:?}");
            damaged += 1;
        }
    }
    assert!(damaged > 10, "{damaged}");
}

/// A file of form 1, written by the last version before form 2 (commit 40f99d4) as runs: the length of a part in
/// four bytes, the part, the length of a run, and the byte of the run.
///
/// Room a has messages 1 to 5 and a recall of 2 as 6, room gone two messages, a room with the longest name one,
/// room json one with a key and no id, room large one of 16 KiB, and room short had one message, which expired.
fn file_of_form_1() -> Vec<u8> {
    let mut rest = &include_bytes!("form-1.runs")[..];
    let number = |rest: &mut &[u8]| {
        let (number, behind) = rest.split_first_chunk().unwrap();
        *rest = behind;
        usize::try_from(u32::from_le_bytes(*number)).unwrap()
    };
    let mut file = Vec::new();
    while !rest.is_empty() {
        let len = number(&mut rest);
        file.extend_from_slice(&rest[..len]);
        rest = &rest[len..];
        let len = number(&mut rest);
        file.resize(file.len() + len, rest[0]);
        rest = &rest[1..];
    }
    file
}

#[test]
fn a_file_of_form_1_gets_form_2_and_keeps_its_messages() {
    let folder = Folder::new("form-1");
    fs::write(folder.join("store.redb"), file_of_form_1()).unwrap();
    let mut store = Redb::open(&folder.0).unwrap();
    assert_eq!((store.stamp(), store.newest_ms()), (None, Some(AT_MS)), "no clock before the newest message");
    let long = "n".repeat(128);
    let held = store.holdings();
    for _ in 0..2 {
        assert_eq!(offsets(&mut store, "gone"), [1, 2]);
        assert_eq!(offsets(&mut store, &long), [1]);
        let a = store.whole(&room("a")).unwrap().unwrap();
        assert_eq!((a.epoch, a.head, a.records.len()), (EPOCH, 6, 6));
        let expected: Vec<Message> =
            (1..=6).map(|offset| Message::clone(&message(&room("a"), offset, 600))).collect();
        for (read, mut expected) in a.tail.iter().zip(expected) {
            expected.recall = if expected.offset == 6 { 2 } else { 0 };
            assert_eq!(**read, expected);
        }
        let json = store.whole(&room("json")).unwrap().unwrap();
        let read = &json.tail[0];
        assert_eq!((&read.id, read.key.as_ref().map(Key::as_str)), (&None, Some("shop 7")));
        assert_eq!(read.payload, Payload::Json(Bytes::from_static(b"{\"off\":10}")));
        assert!(read.policy.urgent);
        let large = store.whole(&room("large")).unwrap().unwrap();
        assert_eq!(large.tail[0].payload, Payload::Opaque(Bytes::from(vec![b'x'; 16 * 1024])));
        let short = store.whole(&room("short")).unwrap().unwrap();
        assert_eq!((short.head, short.records.len()), (1, 0), "the head outlives the last message");
        assert_eq!(store.holdings(), held);
        store.reopen().unwrap();
    }
    assert_eq!(store.holdings().quarantined, 0);
    // The stream goes on, and a recall marks a row of form 1.
    let recall = Message { recall: 3, ..Message::clone(&message(&room("a"), 7, 600)) };
    store.put(&[Append { messages: vec![Arc::new(recall)], ..append("a", 7..=7) }]).unwrap();
    drop(store);
    let mut store = Redb::open(&folder.0).unwrap();
    let a = store.whole(&room("a")).unwrap().unwrap();
    assert_eq!((a.head, a.records[2].recalled_by), (7, 7));
    let gone = store.purge(at(AT_MS + 700_000), 100).unwrap();
    assert_eq!((gone.rows, store.holdings().bytes), (12, 0), "each row is found by its expiry");
}

#[test]
fn a_file_of_another_form_is_refused_with_what_to_do() {
    let folder = Folder::new("form");
    drop(Redb::open(&folder.0).unwrap());
    let database = Database::open(folder.join("store.redb")).unwrap();
    let write = database.begin_write().unwrap();
    let header = TableDefinition::<&str, &[u8]>::new("header");
    write.open_table(header).unwrap().insert("form", 3_u32.to_le_bytes().as_slice()).unwrap();
    write.commit().unwrap();
    drop(database);
    let (error, sentence) = refused(&folder.0);
    assert!(matches!(error, OpenError::UnknownForm { found: 3, .. }), "{error:?}");
    assert!(
        sentence.contains("form 3") && sentence.contains("start the version that wrote it"),
        "{sentence}"
    );
}

#[test]
fn a_folder_that_can_not_be_made_is_told() {
    let folder = Folder::new("no-folder");
    fs::write(folder.join("data"), "a file").unwrap();
    let (error, sentence) = refused(&folder.join("data"));
    assert!(matches!(error, OpenError::Folder { .. }), "{error:?}");
    assert!(sentence.contains("can't be used as the data directory"), "{sentence}");
}

#[test]
fn a_file_that_went_away_is_waited_for_and_never_replaced_by_an_empty_one() {
    let folder = Folder::new("away");
    let mut store = Redb::open(&folder.0).unwrap();
    store.put(&[append("a", 1..=2)]).unwrap();
    fs::rename(folder.join("store.redb"), folder.join("away")).unwrap();
    assert!(store.reopen().is_err());
    assert!(store.trouble().contains("No such file"), "{}", store.trouble());
    assert!(!folder.join("store.redb").exists());
    fs::rename(folder.join("away"), folder.join("store.redb")).unwrap();
    store.reopen().unwrap();
    assert_eq!(offsets(&mut store, "a"), [1, 2]);
}
