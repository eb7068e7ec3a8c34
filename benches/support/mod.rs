//! A real node for benches that measure from outside: started on free ports, pinned to a core where asked
//! for, and measured by the kernel.
#![allow(dead_code, reason = "each bench uses a part of it")]

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The kernel's unit of CPU time in `/proc`; programs see no finer one.
const TICK: Duration = Duration::from_millis(10);

/// Prints one line of figures, with the machine's load average.
pub(crate) fn print(line: &str) {
    let load_average = fs::read_to_string("/proc/loadavg").expect("this is Linux");
    let minute = load_average.split(' ').next().expect("its first field");
    writeln!(io::stdout(), "{line} [load average {minute}]").expect("the terminal is there");
}

/// A free port, for this machine alone.
const LOOPBACK: &str = "127.0.0.1:0";

fn core(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|core| !core.is_empty())
}

/// Pins this thread. Threads that it starts inherit the core.
pub(crate) fn pin_the_load() {
    let load_core = core("BENCH_LOAD_CORE");
    assert_eq!(
        load_core.is_some(),
        core("BENCH_SERVER_CORE").is_some(),
        "the node would inherit the load's core: pin both or none"
    );
    if let Some(core) = load_core {
        let id = std::process::id().to_string();
        let pinned = Command::new("taskset").args(["-cp", &core, &id]).stdout(Stdio::null()).status();
        assert!(pinned.expect("taskset is there").success(), "core {core} is not to be had");
    }
}

/// A running node, killed on drop.
pub(crate) struct Node {
    process: Child,
    pub(crate) viewer_door: SocketAddr,
    pub(crate) publisher_door: SocketAddr,
    pub(crate) ops_door: SocketAddr,
}

impl Node {
    /// Starts a node with these arguments, and returns once it has named its doors. Its log goes to the file
    /// in `BENCH_SERVER_LOG`, or nowhere.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    /// Starts a node with these arguments and with these environment variables alone.
    pub(crate) fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_on(LOOPBACK, arguments, variables)
    }

    /// Starts a node likewise whose viewer door listens on this address.
    pub(crate) fn start_on(viewer: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_pinned(viewer, core("BENCH_SERVER_CORE").as_deref(), arguments, variables)
    }

    /// Starts a node likewise on this core; `None`: on any.
    pub(crate) fn start_pinned(
        viewer: &str,
        core: Option<&str>,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let program = env!("CARGO_BIN_EXE_roomcast");
        let mut command = core.map_or_else(
            || Command::new(program),
            |core| {
                let mut pinned = Command::new("taskset");
                pinned.args(["-c", core, program]);
                pinned
            },
        );
        command.args(["--viewer-listen", viewer]);
        for door in ["--publisher-listen", "--ops-listen"] {
            command.args([door, LOOPBACK]);
        }
        let log = std::env::var_os("BENCH_SERVER_LOG").map(fs::File::create);
        let log = log.map_or_else(Stdio::null, |file| file.expect("the log can be made").into());
        command
            .args(arguments)
            .env_clear()
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut process = command.spawn().expect("the program can be started");
        let lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let mut doors = lines
            .map_while(Result::ok)
            .filter_map(|line| line.split("://").nth(1)?.split('/').next()?.parse::<SocketAddr>().ok());
        let mut door = || doors.next().expect("it names its doors");
        let viewer_door = door();
        let publisher_door = door();
        let ops_door = door();
        Self { process, viewer_door, publisher_door, ops_door }
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// CPU time that the node has used, the kernel's work for it included.
    pub(crate) fn cpu(&self) -> Duration {
        cpu(&self.id().to_string())
    }

    /// Kills the node at once.
    pub(crate) fn kill(&mut self) {
        self.process.kill().ok();
        self.process.wait().expect("it was killed");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// CPU time that a process has used. `process` is `self` or an id.
pub(crate) fn cpu(process: &str) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    // The program's name may hold spaces, so the fields count from its last bracket: `utime` and `stime` are
    // the 12th and 13th.
    let (_, fields) = stat.rsplit_once(") ").expect("its format");
    let ticks = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u32>().expect("a number"));
    TICK * ticks.sum::<u32>()
}

/// One answer of a door.
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: String,
}

impl Answer {
    /// The answer at the start of `bytes`, once it is whole.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        let head_bytes = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&bytes[..head_bytes]).expect("ASCII");
        let body_bytes: usize = head.split_once("content-length: ")?.1.split("\r\n").next()?.parse().ok()?;
        let body = bytes.get(head_bytes..head_bytes + body_bytes)?;
        let code = head.split(' ').nth(1)?.parse().ok()?;
        Some(Self { code, body: String::from_utf8(body.to_vec()).expect("text") })
    }
}

/// The value that `per_mille` of a thousand values do not exceed.
pub(crate) fn percentile(sorted: &[Duration], per_mille: usize) -> Duration {
    sorted[(sorted.len() - 1) * per_mille / 1000]
}
