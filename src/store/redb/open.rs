//! Opening the store's file: a new file is made whole or not at all, and a file of another program is
//! refused.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ::redb::{Builder, Database, DatabaseError, ReadableDatabase, StorageError, TableError, TableHandle};

use roomcast_core::limits::STORE_CACHE_BYTES_MAX;

use super::{
    EXPIRY, FORM, HEADER, HEADER_BYTES, HEADER_FORM, MESSAGES, PAYLOADS, QUARANTINE, ROOMS, begin, seal_bytes,
};

/// The store's file within the data directory.
const FILE: &str = "store.redb";
/// The name of the file before all tables are made.
const FILE_UNFINISHED: &str = "store.redb.new";

/// The reason not to open the store's file. Each text names the path and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the file open.
    #[error("{0} is in use by another process: stop that one, or give this node a data directory of its own")]
    Locked(PathBuf),
    /// The file belongs to another program.
    #[error("{0} is no store of roomcast: move it away, or give this node another data directory")]
    Foreign(PathBuf),
    /// Another version of roomcast wrote the file in another form.
    #[error(
        "{path} has form {found}, and this roomcast reads only forms 1 and {FORM}: start the version that wrote it, or \
         give this node another data directory, without the messages in this one"
    )]
    UnknownForm {
        /// The path of the file.
        path: PathBuf,
        /// The form in the file.
        found: u32,
    },
    /// The directory cannot be made or used.
    #[error("{path} can't be used as the data directory: {source}")]
    Folder {
        /// The path of the directory.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A part of the file with redb's own structure is damaged, or the file is cut off.
    #[error(
        "{0} is damaged: move it away, or give this node another data directory; the messages in it can't be carried on"
    )]
    Damaged(PathBuf),
    /// Reading or writing the file failed.
    #[error("{path} can't be opened: {source}")]
    Failed {
        /// The path of the file.
        path: PathBuf,
        /// The error of redb.
        source: Box<::redb::Error>,
    },
}

/// The location of a store: a folder, or a backend of the caller.
pub(super) enum StoreLocation {
    /// `store.redb` in this directory.
    Folder(PathBuf),
    /// A database opened by a function.
    Backend(OpenBackend),
}

/// A function that opens a database on a backend of the caller.
pub type OpenBackend = Box<dyn FnMut(&Builder) -> Result<Database, DatabaseError> + Send>;

/// The reaction to a missing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// Make the file: the node may start for the first time.
    Make,
    /// Refuse: the file was there before. The disk may be away, and an empty store would forget every stream.
    Refuse,
}

impl StoreLocation {
    pub(super) fn path(&self) -> PathBuf {
        match self {
            Self::Folder(folder) => folder.join(FILE),
            Self::Backend(_) => PathBuf::from("the store"),
        }
    }

    /// Opens the database, and checks the form.
    pub(super) fn open(&mut self, missing: Missing) -> Result<Database, OpenError> {
        let path = self.path();
        let mut builder = Builder::new();
        builder.set_cache_size(STORE_CACHE_BYTES_MAX);
        builder.set_repair_callback(|repair| {
            // Quick repair makes this unnecessary. If it comes all the same, an operator waits for it.
            tracing::warn!(progress = repair.progress(), "the store's file is being repaired");
        });
        let database = match self {
            Self::Backend(open) => open(&builder),
            Self::Folder(folder) => {
                let unusable = |source| OpenError::Folder { path: folder.clone(), source };
                if missing == Missing::Make {
                    make_folder(folder).map_err(unusable)?;
                    if !path.try_exists().map_err(unusable)? {
                        make_file(folder, &builder)?;
                    }
                }
                builder.open(&path)
            }
        };
        let database = database.map_err(|error| refusal(&path, error))?;
        check_form(&database, &path)?;
        Ok(database)
    }

    /// Drops the file's pages from the kernel's cache. After a failed sync the pages count as clean, and may
    /// differ from the disk.
    pub(super) fn forget_cached(&self) {
        let Self::Folder(folder) = self else { return };
        let Ok(file) = File::open(folder.join(FILE)) else { return };
        // Best effort: commits in two phases hold without it.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).ok();
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // The folder's name has to be on disk as well, or a power loss takes the store along. A parent that
    // cannot be opened (or is "") is left to the kernel.
    if let Some(Ok(parent)) = folder.parent().map(File::open) {
        parent.sync_all()?;
    }
    Ok(())
}

/// Makes the file under another name, and renames the whole file.
fn make_file(folder: &Path, builder: &Builder) -> Result<(), OpenError> {
    let path = folder.join(FILE);
    let unfinished = folder.join(FILE_UNFINISHED);
    let io_error = |source| OpenError::Folder { path: folder.to_owned(), source };
    // A crash before the rename leaves the unfinished file. The next start begins again.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(error)),
        _ => {}
    }
    let database = builder.create(&unfinished).map_err(|error| refusal(&unfinished, error))?;
    make_tables(&database).map_err(|error| failed(&unfinished, error))?;
    drop(database);
    fs::rename(&unfinished, &path).map_err(io_error)?;
    // Without this sync a power loss may take the new name, and every message with it.
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error)
}

fn make_tables(database: &Database) -> Result<(), ::redb::Error> {
    let write = begin(database)?;
    {
        let mut header = write.open_table(HEADER)?;
        header.insert(HEADER_FORM, FORM.to_le_bytes().as_slice())?;
        header.insert(HEADER_BYTES, seal_bytes(0).as_slice())?;
        write.open_table(ROOMS)?;
        write.open_table(MESSAGES)?;
        write.open_table(PAYLOADS)?;
        write.open_table(EXPIRY)?;
        write.open_table(QUARANTINE)?;
    }
    Ok(write.commit()?)
}

/// Makes a file of form 1 one of form 2: rows stay as they are, and new rows have marks.
fn make_form_2(database: &Database) -> Result<(), ::redb::Error> {
    let write = begin(database)?;
    write.open_table(PAYLOADS)?;
    write.open_table(HEADER)?.insert(HEADER_FORM, FORM.to_le_bytes().as_slice())?;
    Ok(write.commit()?)
}

fn check_form(database: &Database, path: &Path) -> Result<(), OpenError> {
    let found = form_of(database).map_err(|error| failed(path, error))?;
    match found {
        Form::Empty => make_tables(database).map_err(|error| failed(path, error)),
        Form::Foreign => Err(OpenError::Foreign(path.to_owned())),
        Form::Number(FORM) => Ok(()),
        Form::Number(1) => make_form_2(database).map_err(|error| failed(path, error)),
        Form::Number(found) => Err(OpenError::UnknownForm { path: path.to_owned(), found }),
    }
}

enum Form {
    /// A database without tables.
    Empty,
    Foreign,
    Number(u32),
}

fn form_of(database: &Database) -> Result<Form, ::redb::Error> {
    let read = database.begin_read()?;
    let header = match read.open_table(HEADER) {
        Ok(header) => header,
        Err(TableError::Storage(error)) => return Err(error.into()),
        Err(_) => {
            let foreign = read.list_tables()?.any(|table| !table.name().is_empty());
            return Ok(if foreign { Form::Foreign } else { Form::Empty });
        }
    };
    let form = header.get(HEADER_FORM)?;
    let number = form.and_then(|form| form.value().try_into().ok()).map(u32::from_le_bytes);
    Ok(number.map_or(Form::Foreign, Form::Number))
}

fn refusal(path: &Path, error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::Locked(path.to_owned()),
        // The error of redb for a file without its magic number, or for an empty file.
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
            let is_cut_off = path.metadata().is_ok_and(|file| file.len() < MAGIC_BYTES);
            if is_cut_off { OpenError::Damaged(path.to_owned()) } else { OpenError::Foreign(path.to_owned()) }
        }
        // The magic number is redb's, and the number of redb's own form is not that of any file of ours.
        DatabaseError::UpgradeRequired(_) | DatabaseError::RepairAborted => {
            OpenError::Damaged(path.to_owned())
        }
        error => failed(path, error.into()),
    }
}

/// Bytes of the magic number at the start of a file of redb.
const MAGIC_BYTES: u64 = 9;

pub(super) fn failed(path: &Path, source: ::redb::Error) -> OpenError {
    match source {
        // A read past the end: the file is shorter than its header says.
        ::redb::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            OpenError::Damaged(path.to_owned())
        }
        // A table of ours with other types has turned bits in its description.
        ::redb::Error::Corrupted(_)
        | ::redb::Error::RepairAborted
        | ::redb::Error::TableTypeMismatch { .. }
        | ::redb::Error::TypeDefinitionChanged { .. }
        | ::redb::Error::TableIsMultimap(_)
        | ::redb::Error::TableDoesNotExist(_) => OpenError::Damaged(path.to_owned()),
        source => OpenError::Failed { path: path.to_owned(), source: Box::new(source) },
    }
}
