//! A run whose devices are held by workers that listen, as if they were on other machines.

#[expect(dead_code, reason = "one misdeed is enough here")]
mod support;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};

use support::{FakeNode, Misdeed};

const PROGRAM: &str = env!("CARGO_BIN_EXE_roomcast-loadgen");
const KEY: &str = "ROOMCAST_WORKER_KEY";

/// A `worker --listen`. It is ended with this.
struct Listening {
    child: Child,
    address: String,
}

impl Listening {
    fn start(key: &str) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(["worker", "--listen", "127.0.0.1:0"]).env(KEY, key).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut said = BufReader::new(child.stderr.take().expect("piped")).lines();
        let said = said.next().expect("a line").expect("text");
        let address = said.rsplit(' ').next().expect("a word").to_owned();
        Self { child, address }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn run(server: &FakeNode, workers: &[&Listening], key: &str) -> Output {
    let mut command = Command::new(PROGRAM);
    command.env(KEY, key).args(["run", "--devices", "20", "--rooms", "3", "--rate", "50", "--seconds", "1"]);
    command.args(server.doors());
    for worker in workers {
        command.args(["--worker", &worker.address]);
    }
    command.output().expect("the program starts")
}

#[test]
fn two_workers_that_listen_hold_the_devices_of_a_run_and_then_of_another() {
    let server = FakeNode::start(Misdeed::None);
    let one = Listening::start("k");
    let other = Listening::start("k");
    for _ in 0..2 {
        let ran = run(&server, &[&one, &other], "k");
        let said = String::from_utf8_lossy(&ran.stdout);
        // 3: this machine stood still for a moment.
        let code = ran.status.code();
        assert!(matches!(code, Some(0 | 3)), "{said}{}", String::from_utf8_lossy(&ran.stderr));
        assert!(said.contains("20 in 3 rooms, 2 workers"), "{said}");
        assert!(said.contains("workers on other machines are at most"), "{said}");
    }
}

#[test]
fn what_a_worker_elsewhere_saw_is_judged_as_ever() {
    let server = FakeNode::start(Misdeed::LoseOne);
    let worker = Listening::start("");
    let ran = run(&server, &[&worker], "");
    assert_eq!(ran.status.code(), Some(99), "{}", String::from_utf8_lossy(&ran.stdout));
}

#[test]
fn another_key_is_refused_before_any_load() {
    let server = FakeNode::start(Misdeed::None);
    let worker = Listening::start("right");
    let ran = run(&server, &[&worker], "wrong");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert_eq!((ran.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains(&worker.address) && said.contains(KEY) && !said.contains("right"), "{said}");
}

#[test]
fn nobody_listens_to_the_world_without_a_key() {
    let ran = Command::new(PROGRAM).args(["worker", "--listen", "0.0.0.0:0"]).env_remove(KEY).output();
    let ran = ran.expect("the program starts");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(!ran.status.success() && said.contains("--listen 0.0.0.0:0") && said.contains(KEY), "{said}");
}
