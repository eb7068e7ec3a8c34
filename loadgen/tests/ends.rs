//! Runs end in time whatever the node does, and say what they saw: a node that hangs, is stopped or killed; a
//! signal to the generator; doors that accept and never answer.

#[expect(dead_code, reason = "most misdeeds are for other tests")]
mod support;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;
use support::{FakeNode, Misdeed};

/// One second of publishing and one of settling.
const FLAGS: &str =
    "--devices 6 --rooms 2 --rate 200 --seconds 1 --settle-seconds 1 --payload-bytes 80 --no-floor";
/// The promise: seconds + settle + 10 s, here with the time of this machine for processes.
const WITHIN: Duration = Duration::from_secs(1 + 1 + 10 + 3);

/// A command under way. It is killed with the test, however that ends.
struct Running {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

/// A command that ended.
#[derive(Debug)]
struct Done {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Running {
    fn start(line: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roomcast-loadgen"));
        command.args(line.split_whitespace()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut out = child.stdout.take().expect("piped");
        let err = child.stderr.take().expect("piped");
        let (said, stdout) = channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            drop(out.read_to_string(&mut text));
            drop(said.send(text));
        });
        let (said, stderr) = channel();
        std::thread::spawn(move || {
            BufReader::new(err).lines().map_while(Result::ok).try_for_each(|line| said.send(line))
        });
        Self { child, stdout, stderr }
    }

    /// Waits for a line of stderr.
    fn says(&self, words: &str) {
        let line = || self.stderr.recv_timeout(Duration::from_secs(30)).expect("says it in time");
        // A run of minutes has a line each second, and would hold the test for as long.
        assert!((0..30).any(|_| line().contains(words)), "not among 30 lines: {words}");
    }

    fn signal(&self, signal: &str) {
        send_signal(self.child.id(), signal);
    }

    /// The end of the command, which must come within the limit.
    fn ends_within(mut self, limit: Duration) -> Done {
        let stdout = self.stdout.recv_timeout(limit).expect("the command ends in time");
        let stderr = self.stderr.iter().collect::<Vec<_>>().join("\n");
        Done { code: self.child.wait().expect("it ended").code(), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn send_signal(process: u32, signal: &str) {
    // The shell's own: a bare machine may have no program for it.
    let sent = Command::new("sh").args(["-c", &format!("kill -{signal} {process}")]).status();
    assert!(sent.expect("a shell").success());
}

/// A file that is gone with the test.
struct Json(PathBuf);

impl Json {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("roomcast-ends-{name}-{}.json", std::process::id())))
    }

    fn read(&self) -> Value {
        serde_json::from_slice(&std::fs::read(&self.0).expect("the file is there")).expect("JSON")
    }
}

impl Drop for Json {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

/// The doors of a selftest as a node in a process of its own: it accepts every publish.
struct NodeProcess {
    child: Child,
    /// The process ends with its stdin.
    _orders: ChildStdin,
    flags: String,
}

impl NodeProcess {
    fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roomcast-loadgen"));
        command.arg("source").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let orders = child.stdin.take().expect("piped");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("says its doors");
        let doors: Value = serde_json::from_str(&line).expect("JSON");
        let door = |name: &str| doors[name].as_str().expect("an address").to_owned();
        let flags = format!(
            "--viewer-door ws://{} --publisher-door http://{} --ops-door http://{}",
            door("viewer"),
            door("publisher"),
            door("ops")
        );
        Self { child, _orders: orders, flags }
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_node_that_hangs_with_everything_delivered_fails_the_run_in_time_and_is_named() {
    let node = FakeNode::start(Misdeed::Hang);
    let json = Json::new("hangs");
    let doors = node.doors().join(" ");
    let done =
        Running::start(&format!("run {FLAGS} {doors} --json {}", json.0.display())).ends_within(WITHIN);
    assert_eq!(done.code, Some(99), "{done:?}");
    for words in [
        "node_silent 1 times",
        "the node does not answer: operator door http://",
        "publisher door http://",
        "viewer door ws://",
        "no answer in 2 s",
        "the last answer to a publish came 0.",
        "gave up 4 s after the end",
    ] {
        assert!(done.stdout.contains(words), "{words}: {done:?}");
    }
    let report = json.read();
    let published = &report["published"];
    let number = |name: &str| published[name].as_u64().expect("a number");
    // Those in flight at the end are unknown, and those that never left were refused by nobody but failed.
    assert!(number("ok") >= 30 && number("unknown") >= 60 && number("failed") >= 50, "{published}");
    assert_eq!((number("sent"), &report["verdict"]), (200, &Value::from("violations")));
}

#[test]
fn reliable_messages_of_a_node_that_hangs_hold_up_no_run_either() {
    let node = FakeNode::start(Misdeed::Hang);
    let doors = node.doors().join(" ");
    let done = Running::start(&format!("run {FLAGS} --reliable-rate 20 {doors}")).ends_within(WITHIN);
    assert_eq!(done.code, Some(99), "{done:?}");
    assert!(done.stdout.contains("node_silent") && done.stdout.contains("i1_not_stored"), "{done:?}");
    assert!(done.stdout.contains("the store could not be read after the run"), "{done:?}");
}

#[test]
fn a_node_that_is_stopped_or_killed_during_the_run_ends_it_in_time_with_a_verdict() {
    for signal in ["STOP", "KILL"] {
        let node = NodeProcess::start();
        let flags = &node.flags;
        let run = Running::start(&format!(
            "run --devices 0 --rate 100 --seconds 8 --settle-seconds 1 --no-floor {flags}"
        ));
        run.says("of 8 s: ");
        send_signal(node.child.id(), signal);
        let done = run.ends_within(WITHIN + Duration::from_secs(8 - 5));
        assert_eq!(done.code, Some(99), "{signal}: {done:?}");
        let how = if signal == "STOP" { "no answer in 2 s" } else { "Connection refused" };
        assert!(done.stdout.contains("node_silent") && done.stdout.contains(how), "{signal}: {done:?}");
    }
}

#[test]
fn a_signal_ends_a_run_with_the_figures_so_far_and_says_that_they_are_partial() {
    let node = FakeNode::start(Misdeed::None);
    let json = Json::new("stopped");
    let doors = node.doors().join(" ");
    let line = FLAGS.replace("--seconds 1 ", "--seconds 600 ");
    let run = Running::start(&format!("run {line} {doors} --json {}", json.0.display()));
    run.says("of 600 s: 6 devices");
    assert!(!json.0.exists(), "no empty file while the run lasts");
    run.signal("INT");
    let done = run.ends_within(Duration::from_secs(10));
    assert_eq!(done.code, Some(130), "{done:?}");
    assert!(done.stderr.contains("the figures so far follow; once more ends at once"), "{done:?}");
    assert!(done.stdout.contains("PARTIAL      stopped by a signal after "), "{done:?}");
    assert!(done.stdout.contains("no promise was broken until then"), "{done:?}");
    let report = json.read();
    let seconds = report["seconds"].as_f64().expect("a number");
    assert!((4.0..30.0).contains(&seconds), "{report}");
    assert_eq!(report["verdict"], "partial");
    assert!(report["partial"].as_str().is_some_and(|why| why.ends_with("of 600 s")), "{report}");
    let ok = report["published"]["ok"].as_u64();
    assert!(ok > Some(500) && ok == report["published"]["sent"].as_u64(), "{report}");
    assert_eq!(report["seen"]["deliveries"].as_u64(), ok.map(|ok| ok * 3), "{report}");
}

#[test]
fn a_signal_while_devices_connect_or_a_second_one_ends_at_once() {
    let node = FakeNode::start(Misdeed::Hang);
    let mut mute = FakeNode::start(Misdeed::None);
    // A door whose connections wait in the kernel for ever.
    let door = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    mute.viewer = door.local_addr().expect("bound");
    let doors = mute.doors().join(" ");
    let json = Json::new("connecting");
    let run = Running::start(&format!("run {FLAGS} {doors} --json {}", json.0.display()));
    let (_first, _) = door.accept().expect("a device");
    run.signal("TERM");
    let done = run.ends_within(Duration::from_secs(10));
    assert_eq!(done.code, Some(130), "{done:?}");
    assert_eq!(json.read()["reason"], "stopped by a signal before the first publish");
    drop(mute);
    let line = FLAGS.replace("--seconds 1 ", "--seconds 600 ");
    let run = Running::start(&format!("run {line} {}", node.doors().join(" ")));
    run.says("of 600 s: ");
    run.signal("INT");
    run.says("once more ends at once");
    run.signal("INT");
    assert_eq!(run.ends_within(Duration::from_secs(5)).code, Some(130));
}

#[test]
fn a_door_that_accepts_and_never_answers_is_named_and_leaves_a_reason_in_the_file() {
    let door = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mute = door.local_addr().expect("bound");
    for (which, code, named) in [
        ("ops", 2, "no answer in 5 s"),
        ("publisher", 2, "no answer in 5 s"),
        ("viewer", 2, "not every device was in its room after 1 s"),
    ] {
        let mut node = FakeNode::start(Misdeed::None);
        match which {
            "ops" => node.ops = mute,
            "publisher" => node.publisher = mute,
            _ => node.viewer = mute,
        }
        let doors = node.doors().join(" ");
        let json = Json::new(which);
        std::fs::write(&json.0, r#"{"verdict":"ok"}"#).expect("an older report");
        let line = format!("run {FLAGS} --connect-seconds 1 {doors} --json {}", json.0.display());
        let done = Running::start(&line).ends_within(Duration::from_secs(15));
        assert_eq!(done.code, Some(code), "{which}: {done:?}");
        assert!(done.stderr.contains(named) && done.stderr.contains(&mute.to_string()), "{which}: {done:?}");
        let left = json.read();
        assert!(left["verdict"].is_null(), "{which}: {left}");
        assert!(left["reason"].as_str().is_some_and(|why| why.contains(named)), "{which}: {left}");
    }
}

#[test]
fn a_search_and_a_sweep_of_a_node_that_hangs_end_and_keep_what_they_have() {
    let json = Json::new("search");
    let node = FakeNode::start(Misdeed::Hang);
    let doors = node.doors().join(" ");
    let line = format!(
        "find-max --axis rate --from 100 --to 100000 --devices 4 --probe-seconds 1 --warm-up-seconds 0 \
         --settle-seconds 1 --cores 1 {doors} --json {}",
        json.0.display()
    );
    let done = Running::start(&line).ends_within(Duration::from_secs(45));
    assert_eq!(done.code, Some(2), "{done:?}");
    assert!(done.stdout.contains("knee         PARTIAL"), "{done:?}");
    assert!(done.stderr.contains("the node does not come back: operator door"), "{done:?}");
    let found = json.read();
    assert!(found["partial"].is_string() && found["probes"].as_array().is_some(), "{found}");
    let json = Json::new("sweep");
    let door = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mut node = FakeNode::start(Misdeed::None);
    node.ops = door.local_addr().expect("bound");
    let doors = node.doors().join(" ");
    let done = Running::start(&format!("sweep {doors} --json {}", json.0.display()));
    let done = done.ends_within(Duration::from_secs(15));
    assert_eq!(done.code, Some(2), "{done:?}");
    assert!(json.read()["reason"].as_str().is_some_and(|why| why.contains("no answer in 5 s")), "{done:?}");
}

#[test]
fn a_selftest_whose_signal_comes_early_leaves_no_empty_file() {
    let json = Json::new("selftest");
    let run = Running::start(&format!("selftest --devices 5 --seconds 5 --json {}", json.0.display()));
    run.says("verifying, 16 frames");
    // A shell in the background has its children ignore SIGINT, so the tests would as well.
    run.signal("TERM");
    drop(run.ends_within(Duration::from_secs(10)));
    assert!(!json.0.exists());
}

#[test]
fn a_node_that_a_fault_stops_and_resumes_costs_the_run_of_two_nodes_nothing() {
    let nodes = [NodeProcess::start(), NodeProcess::start()];
    let json = Json::new("faults");
    // The name of a node is any word that its commands can use, here its process.
    let [first, second] = nodes.each_ref().map(|node| node.child.id());
    let line = format!(
        "run --devices 0 --rate 100 --seconds 2 --settle-seconds 1 --no-floor {} {} --json {} \
         --set doors.names=[\"{first}\",\"{second}\"] --set commands.node.stop=kill${{IFS}}-STOP${{IFS}}{{name}} \
         --set commands.node.resume=kill${{IFS}}-CONT${{IFS}}{{name}} \
         --set faults=[{{at=0.5,do=\"stop\",node=\"{second}\"}},{{at=1,do=\"resume\",node=\"{second}\"}}]",
        nodes[0].flags,
        nodes[1].flags,
        json.0.display()
    );
    let done = Running::start(&line).ends_within(WITHIN);
    // A machine that stood still for a moment makes the generator late.
    assert!(matches!(done.code, Some(0 | 3)), "{done:?}");
    for words in [format!(": stop {second}: exit status: 0"), "200 ok, 0 failed, 0 unknown".to_owned()] {
        assert!(done.stdout.contains(&words), "{words}: {done:?}");
    }
    let faults = &json.read()["faults"];
    let at = |fault: usize| faults[fault]["at_ms"].as_u64().expect("a time");
    assert!(at(0) >= 500 && at(1) >= 1_000, "{faults}");
}
