//! The commands from the outside: scenarios, thresholds and what they write; input that is wrong.

#[expect(dead_code, reason = "a few misdeeds are enough here")]
mod support;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use support::{FakeNode, Misdeed};

const SCENARIO: &str = r#"
name = "small"
about = "Six devices in two rooms, two of which come while messages are published."
seconds = "600ms"
payload = 80
thresholds = ["loss=0", "p99<10s"]

[viewers]
devices = 6
shape = { ramp = { over = "300ms", from = 0.6 } }

[rooms]
count = 2

[types.chat]
rate = 200
arrivals = "poisson"
"#;

fn loadgen(line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roomcast-loadgen"));
    command.args(line.split_whitespace()).env_remove("ROOMCAST_WORKER_KEY");
    command.output().expect("the program starts")
}

/// A run of a scenario against a server, with what else is said.
fn run(misdeed: Misdeed, scenario: &Path, flags: &str) -> Output {
    let fake = FakeNode::start(misdeed);
    let doors = fake.doors().join(" ");
    loadgen(&format!("run --no-floor --scenario {} {doors} {flags}", scenario.display()))
}

/// A file of this test's own, gone with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("roomcast-{}-{name}", std::process::id()));
        std::fs::write(&path, text).expect("a file can be made");
        Self(path)
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.0).expect("it was made")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_scenario_runs_and_its_reports_say_all_of_it() {
    let scenario = Scratch::new("small.toml", SCENARIO);
    let [json, html, junit] = ["small.json", "small.html", "small.xml"].map(|name| Scratch::new(name, ""));
    let files =
        format!("--json {} --html {} --junit {}", json.0.display(), html.0.display(), junit.0.display());
    let output = run(Misdeed::None, &scenario.0, &files);
    let said = said(&output);
    // 3: this machine stood still for a moment.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
    assert!(said.contains("holds  loss=0") && said.contains("120 ok, 0 failed"), "{said}");
    assert!(said.contains("moves        3 joins"), "{said}");
    let report: serde_json::Value = serde_json::from_str(&json.text()).unwrap();
    assert!(report["scenario"].as_str().unwrap().contains("arrivals = \"poisson\""), "{report}");
    assert_eq!(
        (report["join"]["count"].as_u64(), report["spread"]["last"]["count"].as_u64()),
        (Some(3), Some(120))
    );
    let page = html.text();
    assert!(page.contains("name = &quot;small&quot;") || page.contains("name = \"small\""), "{page}");
    assert!(
        !page.contains("<script") && !page.contains("<link") && !page.contains("src="),
        "nothing from elsewhere"
    );
    assert!(junit.text().contains("<testcase"), "{}", junit.text());
}

#[test]
fn a_threshold_that_fails_fails_the_run_and_the_build() {
    let scenario = Scratch::new("held.toml", SCENARIO);
    let junit = Scratch::new("held.xml", "");
    let flags = format!("--threshold chat.p50<1us --junit {}", junit.0.display());
    let output = run(Misdeed::None, &scenario.0, &flags);
    let said = said(&output);
    assert!(matches!(output.status.code(), Some(99 | 3)), "{said}");
    assert!(said.contains("FAILED chat.p50<1us"), "{said}");
    assert!(junit.text().contains("<failure"), "{}", junit.text());
}

#[test]
fn what_devices_that_come_late_are_given_is_judged_too() {
    let scenario = Scratch::new("late.toml", SCENARIO);
    for (misdeed, names) in [
        (Misdeed::SendTwice, "twice "),
        (Misdeed::LoseOneForAll, "lost "),
        (Misdeed::AlterOneByte, "altered "),
    ] {
        let output = run(misdeed, &scenario.0, "");
        assert_eq!(output.status.code(), Some(99), "{misdeed:?}\n{}", said(&output));
        assert!(said(&output).contains(names), "{misdeed:?}\n{}", said(&output));
    }
}

/// The children of a process, as the kernel lists them.
fn children(process: u32) -> String {
    std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default()
}

#[test]
fn a_worker_that_ends_ends_the_run_at_once_and_is_named() {
    let fake = FakeNode::start(Misdeed::None);
    let doors = fake.doors().join(" ");
    let mut command = Command::new(env!("CARGO_BIN_EXE_roomcast-loadgen"));
    let line = format!("run --no-floor --devices 5 --seconds 600 {doors}");
    command.args(line.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut run = command.spawn().unwrap();
    let mut said = BufReader::new(run.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.any(|line| line.contains("connected 5 of 5")));
    let worker = children(run.id());
    // The shell's own: a bare machine may have no program for it.
    assert!(Command::new("sh").args(["-c", &format!("kill -9 {worker}")]).status().unwrap().success());
    assert!(said.any(|line| line.contains("worker 1 of 1") && line.contains("ended")));
    assert_eq!(run.wait().unwrap().code(), Some(2), "and not after 600 s");
}

#[test]
fn a_report_compared_with_itself_is_not_worse() {
    let scenario = Scratch::new("same.toml", SCENARIO);
    let json = Scratch::new("same.json", "");
    run(Misdeed::None, &scenario.0, &format!("--json {}", json.0.display()));
    let path = json.0.display();
    let output = loadgen(&format!("compare {path} {path} --anyway"));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(!said(&output).contains("worse  "), "{}", said(&output));
}

#[test]
fn wrong_input_is_one_line_that_names_it_and_nothing_is_loaded() {
    for (line, code, named) in [
        ("run --set speed=3", 1, "speed"),
        ("run --scenario nowhere.toml", 1, "nowhere.toml"),
        ("run --rooms 0", 1, "rooms"),
        ("run --seconds soon", 1, "is no time"),
        ("run --set viewers.shape={ramp={over=99}}", 1, "viewers.shape"),
        ("run --threshold speed<3", 1, "speed"),
        ("run --threshold gift.p99<1s", 1, "gift"),
        ("run --html /nowhere/at/all.html", 1, "--html /nowhere/at/all.html"),
        ("run --junit /nowhere/at/all.xml", 1, "--junit /nowhere/at/all.xml"),
        (
            "run --viewer-door ws://127.0.0.1:1 --publisher-door http://127.0.0.1:1 --ops-door http://127.0.0.1:1",
            2,
            "127.0.0.1:1",
        ),
        ("run --worker 127.0.0.1", 1, "--worker 127.0.0.1"),
        ("find-max --axis devices --slo speed<3", 1, "--slo"),
        ("find-max --axis speed", 1, "--axis"),
        ("find-max", 1, "--axis <AXIS>"),
        ("find-max --axis rooms --seconds 5", 1, "--probe-seconds"),
        ("find-max --axis devices --slo gift.p99<1s", 1, "gift"),
        ("find-max --axis devices --to 5000 --scenario raid", 1, "--probe-seconds"),
        ("sweep --json /nowhere/at/all.json --scenario quick", 1, "--scenario"),
        ("sweep", 1, "--json"),
        ("plan --from nowhere.json --rooms 3 --node 16c,64g,10gbit", 1, "nowhere.json"),
        ("plan --from nowhere.json --rooms 3 --node 16c", 1, "--node"),
        ("compare nowhere.json neither.json", 1, "nowhere.json"),
        ("selftest --devices 0", 1, "--devices"),
        ("worker --listen 0.0.0.0:0", 1, "ROOMCAST_WORKER_KEY"),
        ("dance", 1, "dance"),
    ] {
        let output = loadgen(line);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(code), "{line}: {said}");
        assert!(said.contains(named) && said.lines().count() == 1, "{line}: {said}");
    }
}
