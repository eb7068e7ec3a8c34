//! A real node for benches that measure it from outside: started on free ports, each side pinned to a core of its own where
//! asked for, and how the figures are printed.
#![allow(dead_code, reason = "each bench uses a part of it")]

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What `/proc` counts CPU in; the kernel shows no other unit to programs.
const TICK: Duration = Duration::from_millis(10);

/// One line of figures, with how busy the machine was.
pub(crate) fn print(line: &str) {
    let load_average = fs::read_to_string("/proc/loadavg").expect("this is Linux");
    let minute = load_average.split(' ').next().expect("its first field");
    writeln!(io::stdout(), "{line} [load average {minute}]").expect("the terminal is there");
}

fn core(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|core| !core.is_empty())
}

/// Pins this thread, so that those it starts inherit the core.
pub(crate) fn pin_the_load() {
    let cores = (core("BENCH_LOAD_CORE"), core("BENCH_SERVER_CORE"));
    assert_eq!(
        cores.0.is_some(),
        cores.1.is_some(),
        "the node would inherit the load's core: pin both or none"
    );
    if let Some(core) = cores.0 {
        let id = std::process::id().to_string();
        let pinned = Command::new("taskset").args(["-cp", &core, &id]).stdout(Stdio::null()).status();
        assert!(pinned.expect("taskset is there").success(), "core {core} is not to be had");
    }
}

/// A running node. Killed when dropped.
pub(crate) struct Node {
    process: Child,
    pub(crate) viewer_door: SocketAddr,
    pub(crate) publisher_door: SocketAddr,
    pub(crate) ops_door: SocketAddr,
}

impl Node {
    /// Starts it with these further arguments, and returns when it has said where its doors are. Its log goes to the file
    /// that `BENCH_SERVER_LOG` names, or nowhere.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    /// The same with these variables in its environment, and no others.
    pub(crate) fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let program = env!("CARGO_BIN_EXE_roomcast");
        let mut command = core("BENCH_SERVER_CORE").map_or_else(
            || Command::new(program),
            |core| {
                let mut pinned = Command::new("taskset");
                pinned.args(["-c", &core, program]);
                pinned
            },
        );
        for door in ["--viewer-listen", "--publisher-listen", "--ops-listen"] {
            command.args([door, "127.0.0.1:0"]);
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
        let (viewer_door, publisher_door, ops_door) = (door(), door(), door());
        Self { process, viewer_door, publisher_door, ops_door }
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// CPU that it has used, in the kernel's name as well.
    pub(crate) fn cpu(&self) -> Duration {
        cpu(&self.id().to_string())
    }

    /// Ends it at once.
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

/// CPU that a process has used: `self`, or its number.
pub(crate) fn cpu(process: &str) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    // Behind the name, which may hold anything, come the state and so on: `utime` and `stime` are the 12th and 13th.
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
    /// The answer that `bytes` begin with, once it is whole.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        let head_bytes = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&bytes[..head_bytes]).expect("ASCII");
        let body_bytes: usize = head.split_once("content-length: ")?.1.split("\r\n").next()?.parse().ok()?;
        let body = bytes.get(head_bytes..head_bytes + body_bytes)?;
        let code = head.split(' ').nth(1)?.parse().ok()?;
        Some(Self { code, body: String::from_utf8(body.to_vec()).expect("text") })
    }
}

/// The value that so many of a thousand don't exceed.
pub(crate) fn percentile(sorted: &[Duration], per_mille: usize) -> Duration {
    sorted[(sorted.len() - 1) * per_mille / 1000]
}
