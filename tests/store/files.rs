//! The store's file and folder: created whole, locked, and refused with a sentence of advice.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use redb::{Database, TableDefinition};
use roomcast::store::Store;
use roomcast::store::redb::{OpenError, Redb};

use super::{AtThatTime, append, offsets};

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

#[test]
fn a_file_of_form_1_gets_form_2_and_keeps_its_messages() {
    let folder = Folder::new("form-1");
    let mut store = Redb::open(&folder.0).unwrap();
    store.put(&[append("a", 1..=2)]).unwrap();
    drop(store);
    let database = Database::open(folder.join("store.redb")).unwrap();
    let write = database.begin_write().unwrap();
    let bytes = TableDefinition::<&[u8], &[u8]>::new("payloads");
    write.delete_table(bytes).unwrap();
    let header = TableDefinition::<&str, &[u8]>::new("header");
    write.open_table(header).unwrap().insert("form", 1_u32.to_le_bytes().as_slice()).unwrap();
    write.open_table(header).unwrap().remove("clock").unwrap();
    write.commit().unwrap();
    drop(database);
    let mut store = Redb::open(&folder.0).unwrap();
    assert_eq!(store.stamp(), None, "the wall clock counts");
    assert_eq!(offsets(&mut store, "a"), [1, 2]);
    store.put(&[append("a", 3..=3)]).unwrap();
    drop(store);
    assert_eq!(offsets(&mut Redb::open(&folder.0).unwrap(), "a"), [1, 2, 3]);
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
