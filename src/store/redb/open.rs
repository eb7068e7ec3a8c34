//! Opening the store's file: making it whole at once, knowing it again, and refusing what is no store of ours.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ::redb::{Builder, Database, DatabaseError, ReadableDatabase, StorageError, TableError, TableHandle};

use roomcast_core::limits::STORE_CACHE_BYTES_MAX;

use super::{
    EXPIRY, FORM, HEADER, HEADER_BYTES, HEADER_FORM, MESSAGES, QUARANTINE, ROOMS, begin, seal_bytes,
};

/// The store's file within the data directory.
const FILE: &str = "store.redb";
/// What the file is called until it is whole.
const FILE_UNFINISHED: &str = "store.redb.new";

/// Why the store's file was refused, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{0} is in use by another process: stop that one, or give this node a data directory of its own")]
    Locked(PathBuf),
    /// It holds something else.
    #[error("{0} is no store of roomcast: move it away, or give this node another data directory")]
    Foreign(PathBuf),
    /// A later or earlier roomcast wrote it in another form.
    #[error(
        "{path} has form {found}, and this roomcast reads form {FORM} alone: start the version that wrote it, or give \
         this node another data directory, without the messages in this one"
    )]
    UnknownForm {
        /// The file.
        path: PathBuf,
        /// Its form.
        found: u32,
    },
    /// The directory can't be made or used.
    #[error("{path} can't be used as the data directory: {source}")]
    Folder {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Bits have turned where redb keeps its own structure.
    #[error(
        "{0} is damaged: move it away, or give this node another data directory; the messages in it can't be carried on"
    )]
    Damaged(PathBuf),
    /// Reading or writing it failed.
    #[error("{path} can't be opened: {source}")]
    Failed {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<::redb::Error>,
    },
}

/// Where a store lives: how to get at its database, again and again.
pub(super) enum Place {
    /// `store.redb` in this directory.
    Folder(PathBuf),
    /// Wherever this says.
    Backend(OpenBackend),
}

/// Opens a database over a backend of its own.
pub type OpenBackend = Box<dyn FnMut(&Builder) -> Result<Database, DatabaseError> + Send>;

/// What to do where there is no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// The node's first start.
    Make,
    /// It was there before: its disk may be away, and an empty store in its place would forget every stream.
    Refuse,
}

impl Place {
    pub(super) fn path(&self) -> PathBuf {
        match self {
            Self::Folder(folder) => folder.join(FILE),
            Self::Backend(_) => PathBuf::from("the store"),
        }
    }

    /// Opens the database, and checks it to be ours.
    pub(super) fn open(&mut self, missing: Missing) -> Result<Database, OpenError> {
        let path = self.path();
        let mut builder = Builder::new();
        builder.set_cache_size(STORE_CACHE_BYTES_MAX);
        builder.set_repair_callback(|repair| {
            // Commits are made so that this is never needed; if it is, somebody waits for it.
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

    /// Makes the kernel forget what it has read of the file or could not write: after a failed sync its pages count as
    /// clean, and may hold what the disk does not.
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
    // Its name has to be on disk as well; a parent that can't be synced (or is "") is left to the kernel.
    if let Some(Ok(parent)) = folder.parent().map(File::open) {
        parent.sync_all()?;
    }
    Ok(())
}

/// Makes the file under another name, and names it once it is whole: a crash in between leaves no file that can't be opened.
fn make_file(folder: &Path, builder: &Builder) -> Result<(), OpenError> {
    let (path, unfinished) = (folder.join(FILE), folder.join(FILE_UNFINISHED));
    let io_error = |source| OpenError::Folder { path: folder.to_owned(), source };
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(error)),
        _ => {}
    }
    let database = builder.create(&unfinished).map_err(|error| refusal(&unfinished, error))?;
    make_tables(&database).map_err(|error| failed(&unfinished, error))?;
    drop(database);
    fs::rename(&unfinished, &path).map_err(io_error)?;
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
        write.open_table(EXPIRY)?;
        write.open_table(QUARANTINE)?;
    }
    Ok(write.commit()?)
}

fn check_form(database: &Database, path: &Path) -> Result<(), OpenError> {
    let found = form_of(database).map_err(|error| failed(path, error))?;
    match found {
        Form::Empty => make_tables(database).map_err(|error| failed(path, error)),
        Form::Foreign => Err(OpenError::Foreign(path.to_owned())),
        Form::Number(FORM) => Ok(()),
        Form::Number(found) => Err(OpenError::UnknownForm { path: path.to_owned(), found }),
    }
}

enum Form {
    /// A database without tables: nobody's yet.
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
        // What redb says of a file that does not begin as its files do.
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
            OpenError::Foreign(path.to_owned())
        }
        DatabaseError::UpgradeRequired(_) => OpenError::Foreign(path.to_owned()),
        error => failed(path, error.into()),
    }
}

pub(super) fn failed(path: &Path, source: ::redb::Error) -> OpenError {
    OpenError::Failed { path: path.to_owned(), source: Box::new(source) }
}
