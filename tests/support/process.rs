//! The real binary as a process of its own: for signals, for its memory, and for limits of a whole process.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::{Doors, comes, until};

/// A running `roomcast`, killed on drop.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pub(crate) doors: Doors,
}

impl Process {
    /// Starts a node on free ports.
    pub(crate) async fn start(shards: usize) -> Self {
        Self::run(Command::new(env!("CARGO_BIN_EXE_roomcast")), shards).await
    }

    /// Starts a node with its store in this folder. A write past [`Self::limit_files`] is an error for the
    /// node, not its end.
    pub(crate) async fn storing_in(folder: &Path, shards: usize) -> Self {
        let mut shell = Command::new("sh");
        let script = "trap '' XFSZ; exec \"$0\" \"$@\"";
        shell.args(["-c", script, env!("CARGO_BIN_EXE_roomcast")]);
        Self::launch(shell, shards, Some(folder), None).await
    }

    /// Limits the size of the node's files from now on. `None`: no limit.
    pub(crate) fn limit_files(&self, bytes_max: Option<u64>) {
        let limit = Rlimit { current: bytes_max, maximum: None };
        prlimit(Some(Pid::from_child(&self.child)), Resource::Fsize, limit).unwrap();
    }

    /// Starts a node with at most so many descriptors.
    pub(crate) async fn with_descriptors(shards: usize, descriptors: u32) -> Self {
        let mut shell = Command::new("sh");
        let script = format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_roomcast")]);
        Self::run(shell, shards).await
    }

    /// Starts a node on these doors, with its reliable messages in this folder.
    pub(crate) async fn keeping(shards: usize, data: &Path, doors: Option<Doors>) -> Self {
        Self::launch(Command::new(env!("CARGO_BIN_EXE_roomcast")), shards, Some(data), doors).await
    }

    /// Starts a node by a command that ends in the node's own, with its reliable messages in this folder.
    pub(crate) async fn under(command: Command, shards: usize, data: &Path) -> Self {
        Self::launch(command, shards, Some(data), None).await
    }

    async fn run(command: Command, shards: usize) -> Self {
        Self::launch(command, shards, None, None).await
    }

    async fn launch(mut command: Command, shards: usize, data: Option<&Path>, on: Option<Doors>) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let on = on.unwrap_or(Doors { viewer: free, publisher: free, ops: free });
        command
            .args([
                "--viewer-listen",
                &on.viewer.to_string(),
                "--publisher-listen",
                &on.publisher.to_string(),
            ])
            .args(["--ops-listen", &on.ops.to_string(), "--shards", &shards.to_string()])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        match data {
            Some(data) => command.arg("--data-dir").arg(data),
            None => command.arg("--ephemeral"),
        };
        Self::as_typed(command).await
    }

    /// Starts a node by this command alone.
    pub(crate) async fn as_typed(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let doors = tokio::task::spawn_blocking(move || doors(stdout));
        let doors = comes("the doors' addresses", doors).await.unwrap();
        Self { child, doors }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// The exit code. `None`: a signal ended the node.
    pub(crate) async fn exit_code(&mut self) -> Option<i32> {
        until("its exit", async || self.child.try_wait().unwrap()).await.code()
    }

    /// Ends the node as a crash would, and waits until all of it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The open descriptors of the process.
    pub(crate) fn descriptors(&self) -> u64 {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count() as u64
    }

    /// A line of `/proc/…/status` in KiB: `VmRSS` is the memory now, `VmHWM` the most so far.
    pub(crate) fn memory_kib(&self, line: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let value = status.lines().find_map(|it| it.strip_prefix(line)?.strip_prefix(':')).unwrap();
        value.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A process that has ended already can't be killed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Reads the addresses of the doors from the node's first lines.
fn doors(stdout: ChildStdout) -> Doors {
    let mut found: Vec<SocketAddr> = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let line = line.unwrap();
        let address = line.split("://").nth(1).and_then(|rest| rest.split('/').next());
        found.extend(address.and_then(|address| address.parse::<SocketAddr>().ok()));
        if let [viewer, publisher, ops] = found[..] {
            return Doors { viewer, publisher, ops };
        }
    }
    panic!("it ended before it named its doors")
}
