//! A small file system in a file, mounted by a loop device. It can fill up, and it can be cut off as by a
//! loss of power. Needs root and loop devices; a test that goes on without them has to say so.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "clippy sees only #[test] functions as tests, and these serve them")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An ext4 file system, unmounted and removed on drop.
#[derive(Debug)]
pub(crate) struct LoopFs {
    /// Holds the image and the mount point.
    folder: PathBuf,
    mounted: bool,
}

/// The unsynced writes that a cut off file system keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CutOff {
    /// Nothing more is written, the journal neither: a loss of power.
    AtOnce,
    /// The journal is written first.
    AfterTheJournal,
}

impl LoopFs {
    /// Makes and mounts a file system of this size.
    ///
    /// # Errors
    ///
    /// A sentence that says what is missing here: root, loop devices, or a program.
    pub(crate) fn new(name: &str, mebibytes: u64) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("a loop mount needs root".into());
        }
        let folder = std::env::temp_dir().join(format!("roomcast-loopfs-{}-{name}", std::process::id()));
        fs::create_dir_all(folder.join("mnt")).map_err(|error| error.to_string())?;
        let mut made = Self { folder, mounted: false };
        let image = made.image();
        File::create(&image)
            .and_then(|file| file.set_len(mebibytes * 1024 * 1024))
            .map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), "-m0".as_ref(), image.as_os_str()])?;
        made.mount()?;
        Ok(made)
    }

    fn image(&self) -> PathBuf {
        self.folder.join("image")
    }

    /// The mount point.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join("mnt")
    }

    fn mount(&mut self) -> Result<(), String> {
        let image = self.image();
        let path = self.path();
        run("mount", &["-o".as_ref(), "loop".as_ref(), image.as_os_str(), path.as_os_str()])?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), String> {
        run("umount", &[self.path().as_os_str()])?;
        self.mounted = false;
        Ok(())
    }

    /// Cuts the file system off: every call on its files fails, until [`LoopFs::remount`].
    ///
    /// # Errors
    ///
    /// The kernel refused.
    pub(crate) fn cut_off(&self, how: CutOff) -> io::Result<()> {
        let flags: u32 = if how == CutOff::AtOnce { 2 } else { 1 };
        shutdown(&self.path(), flags)
    }

    /// Mounts the file system anew, as after a restart: the journal is played back. No file on it may be
    /// open.
    ///
    /// # Errors
    ///
    /// The file system is in use, or can't be mounted.
    pub(crate) fn remount(&mut self) -> Result<(), String> {
        self.unmount()?;
        self.mount()
    }
}

impl Drop for LoopFs {
    fn drop(&mut self) {
        // A test that fails may still hold files open: the mount then goes when they are closed.
        if self.mounted && self.unmount().is_err() {
            run("umount", &["-l".as_ref(), self.path().as_os_str()]).ok();
        }
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// `EXT4_IOC_SHUTDOWN`, which is `FS_IOC_SHUTDOWN` and `XFS_IOC_GOINGDOWN` as well.
#[allow(unsafe_code, reason = "the ioctl has no safe name; it is for tests alone")]
fn shutdown(path: &Path, flags: u32) -> io::Result<()> {
    use rustix::ioctl::{Setter, ioctl, opcode};
    let folder = File::open(path)?;
    // SAFETY: the kernel reads one u32 through this request, and writes nothing.
    unsafe { Ok(ioctl(&folder, Setter::<{ opcode::read::<u32>(b'X', 125) }, u32>::new(flags))?) }
}

fn run(program: &str, args: &[&OsStr]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
