//! Ten times the messages that a room is made for, for half a minute: what does the node leave out, how soon
//! does it answer publishers meanwhile, and how soon is everything as before (T13)?
//!
//! One `roomcast-loadgen` has a thousand devices in one room and publishes the usual messages of such a room.
//! From `OVERLOAD_AFTER` (15) seconds on, a second one publishes nine times as much of everything to the same
//! room, for `OVERLOAD_SECONDS` (30). Build both first: `cargo build --release --workspace && cargo bench
//! --bench overload`.
//!
//! The first generator checks its own messages as ever. A skipped message may be the other generator's, so
//! for chat the account has a lower bound only.
//!
//! `BENCH_SERVER_CORE` and `BENCH_LOAD_CORE`, both or none, pin the node and the load to a core each. Both
//! generators share the second core, so look at how late they were. `OVERLOAD_READABLE` (40) is the node's
//! readable rate, 0: none. `OVERLOAD_TIMES` (9) is the factor of the second generator. `OVERLOAD_TOTAL` (60)
//! is the time of the first one, in seconds.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::park_timeout;
use std::time::Duration;

use serde_json::Value;
use support::{Answer, Node, pin_the_load, print};

/// The time between two looks at the node.
const EVERY: Duration = Duration::from_millis(250);
/// Longest wait for an answer of the operator door.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(2);
const DEVICES: u64 = 1000;
/// The usual messages of the room: type, messages a second, and the count of each message.
const MIX: [(&str, u64, &str); 3] = [("chat", 10_000, ""), ("gift", 20, ""), ("like", 1000, "x50")];
/// Red packets a second, in thousandths.
const RED_PACKETS_MILLI: u64 = 500;
/// Bound of the publish answers' 99th percentile, whatever the answers say.
const ANSWER_MAX_MS: f64 = 50.0;
/// A quarter of a second is as before if its p99 is at most this much above the worst p99 before the
/// overload.
const NORMAL_MS: f64 = 60.0;

fn main() {
    pin_the_load();
    let after = number("OVERLOAD_AFTER", 15);
    let seconds = number("OVERLOAD_SECONDS", 30);
    let total = number("OVERLOAD_TOTAL", 60);
    let times = number("OVERLOAD_TIMES", 9);
    let readable = number("OVERLOAD_READABLE", 40);
    let node = Node::start_with(
        &["--ephemeral"],
        &[("ROOMCAST__READABLE__NORMAL_PER_SECOND", &readable.to_string())],
    );
    let folder = std::env::temp_dir().join(format!("roomcast-overload-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("the folder can be made");
    let mut trace = Trace::new(node.ops_door);

    let calm = Load { times: 1, seconds: total, devices: DEVICES, seed: 1, report: folder.join("calm.json") };
    let mut first = calm.start(&node, readable);
    while trace.look().members < DEVICES {
        park_timeout(Duration::from_millis(20));
    }
    let began_ms = roomcast::clock::now().unix_ms;
    trace.follow(|| roomcast::clock::now().unix_ms >= began_ms + after * 1000);
    let flood = Load { times, seconds, devices: 0, seed: 2, report: folder.join("flood.json") };
    let mut second = flood.start(&node, 0);
    trace.follow(|| second.try_wait().expect("it is ours").is_some());
    trace.follow(|| first.try_wait().expect("it is ours").is_some());

    let reports = [calm.read(), flood.read()];
    fs::remove_dir_all(&folder).ok();
    trace.print(&reports);
    judge(&reports, &trace);
}

/// A number from the environment.
fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |value| value.parse().expect("a whole number"))
}

/// One generator.
struct Load {
    /// The factor on the usual messages of the room.
    times: u64,
    seconds: u64,
    devices: u64,
    seed: u64,
    report: PathBuf,
}

impl Load {
    fn start(&self, node: &Node, readable: u64) -> Child {
        let program = Path::new(env!("CARGO_BIN_EXE_roomcast")).with_file_name("roomcast-loadgen");
        let mut command = Command::new(&program);
        command.args(["run", "--others", "--no-floor", "--encoding", "proto", "--payload-bytes", "100"]);
        command.args(["--messages-per-request", "100", "--room-stem", "overload"]);
        let doors = [
            format!("--viewer-door=ws://{}", node.viewer_door),
            format!("--publisher-door=http://{}", node.publisher_door),
            format!("--ops-door=http://{}", node.ops_door),
        ];
        command.args(doors).arg("--json").arg(&self.report);
        for (flag, value) in [("--devices", self.devices), ("--seconds", self.seconds), ("--seed", self.seed)]
        {
            command.arg(flag).arg(value.to_string());
        }
        for (name, rate, count) in MIX {
            command.arg("--type").arg(format!("{name}={}{count}", rate * self.times));
        }
        let red_packets = RED_PACKETS_MILLI * self.times;
        command.arg("--type").arg(format!("red_packet={}.{:03}", red_packets / 1000, red_packets % 1000));
        if readable > 0 {
            command.arg("--readable-max").arg(format!("chat={readable}"));
        }
        let log = fs::File::create(self.report.with_extension("txt")).expect("the log can be made");
        command.stdout(log).stderr(Stdio::null());
        let missing = |error| panic!("{}: {error}: cargo build --release --workspace", program.display());
        command.spawn().unwrap_or_else(missing)
    }

    /// The generator's JSON report. Its report for people is printed first.
    fn read(&self) -> Value {
        let said = fs::read_to_string(self.report.with_extension("txt")).expect("it was written");
        print(&format!("{} times what the room is made for:\n{said}", self.times));
        let report = fs::read(&self.report).unwrap_or_default();
        serde_json::from_slice(&report).expect("it ended with a report: what it said is above")
    }
}

/// The state of the node at one moment.
#[derive(Debug, Clone, Default)]
struct Sample {
    unix_ms: u64,
    members: u64,
    /// `None`: the node does not show a step.
    step: Option<u64>,
    owed_bytes: Option<u64>,
    resident_bytes: u64,
    shed: BTreeMap<String, u64>,
    /// The body of `/readyz`.
    readiness: String,
    /// The time of the operator door's two answers.
    took: Duration,
}

struct Trace {
    door: SocketAddr,
    samples: Vec<Sample>,
}

impl Trace {
    fn new(door: SocketAddr) -> Self {
        Self { door, samples: Vec::new() }
    }

    /// Looks every quarter of a second until `is_over`.
    fn follow(&mut self, mut is_over: impl FnMut() -> bool) {
        while !is_over() {
            let sample = self.look();
            self.samples.push(sample);
            park_timeout(EVERY);
        }
    }

    /// Looks at the node. A missing figure is 0, also if the door does not answer in time.
    fn look(&self) -> Sample {
        let now = roomcast::clock::now();
        let metrics = ask(self.door, "/metrics").unwrap_or_default();
        let readiness = ask(self.door, "/readyz").unwrap_or_else(|| "no answer".to_owned());
        let mut sample = Sample {
            unix_ms: now.unix_ms,
            readiness,
            took: roomcast::clock::now().instant - now.instant,
            ..Sample::default()
        };
        for line in metrics.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<u64>() else { continue };
            match name.split_once('{').unwrap_or((name, "")) {
                ("roomcast_members", _) => sample.members += value,
                ("roomcast_ladder_step", _) => sample.step = sample.step.max(Some(value)),
                ("roomcast_outbound_owed_bytes", _) => {
                    sample.owed_bytes = Some(sample.owed_bytes.unwrap_or(0) + value);
                }
                ("roomcast_resident_bytes", _) => sample.resident_bytes = value,
                ("roomcast_messages_shed_total", labels) => {
                    let reason = labels.split("reason=\"").nth(1).and_then(|rest| rest.split('"').next());
                    *sample.shed.entry(reason.unwrap_or_default().to_owned()).or_default() += value;
                }
                _ => {}
            }
        }
        sample
    }

    /// Prints a line for each second: the node, and what the generators saw.
    fn print(&self, reports: &[Value; 2]) {
        let start_ms = started_ms(&reports[0]);
        let mut shed_before = BTreeMap::new();
        print(
            "second | step, owed MiB, RSS MiB | answers p99: first, second | given p99: chat, gift | \
             shed since, readiness",
        );
        for second in 0..=number("OVERLOAD_TOTAL", 60) + 8 {
            let from_ms = start_ms + second * 1000;
            let to_ms = start_ms + (second + 1) * 1000;
            let within = || self.samples.iter().filter(|sample| (from_ms..to_ms).contains(&sample.unix_ms));
            let Some(last) = within().next_back() else { continue };
            let most = |figure: fn(&Sample) -> Option<u64>| {
                let most = within().filter_map(figure).max();
                most.map_or_else(|| "-".to_owned(), |most| most.to_string())
            };
            let answers =
                [0, 1].map(|index| worst(&reports[index], "answer_over_time", &ALL, from_ms, to_ms));
            let given =
                ["chat", "gift"].map(|name| worst(&reports[0], "latency_over_time", &[name], from_ms, to_ms));
            let shed = last.shed.iter().filter_map(|(reason, count)| {
                let more = count - shed_before.get(reason).copied().unwrap_or(0).min(*count);
                (more > 0).then(|| format!("{reason} {more}"))
            });
            let shed: Vec<String> = shed.collect();
            print(&format!(
                "{second:>6} | {} {:>6} {:>5} | {} {} | {} {} | {} {}",
                most(|sample| sample.step),
                most(|sample| sample.owed_bytes.map(|bytes| bytes >> 20)),
                most(|sample| Some(sample.resident_bytes >> 20)),
                milliseconds(answers[0]),
                milliseconds(answers[1]),
                milliseconds(given[0]),
                milliseconds(given[1]),
                shed.join(", "),
                if last.readiness == r#"{"status":"ready"}"# { "" } else { &last.readiness },
            ));
            shed_before.clone_from(&last.shed);
        }
    }
}

/// The types whose answers count.
const ALL: [&str; 3] = [MIX[0].0, MIX[1].0, MIX[2].0];

fn milliseconds(figure: Option<f64>) -> String {
    figure.map_or_else(|| format!("{:>7}", "-"), |ms| format!("{ms:>7.1}"))
}

fn started_ms(report: &Value) -> u64 {
    report["started_unix_ms"].as_u64().expect("the report has it")
}

/// Quarters of a second in a report: the start of each, and its p99.
fn moments<'a>(report: &'a Value, what: &'a str, types: &'a [&str]) -> impl Iterator<Item = (u64, f64)> + 'a {
    let start_ms = started_ms(report);
    let rows = report["types"].as_array().into_iter().flatten();
    let rows = rows.filter(|row| types.iter().any(|name| row["type"] == **name));
    let moments = rows.flat_map(move |row| row[what].as_array().into_iter().flatten());
    moments.filter_map(move |moment| Some((start_ms + moment["at_ms"].as_u64()?, moment["p99_ms"].as_f64()?)))
}

/// The worst p99 among the quarters of a second that began between the two moments.
fn worst(report: &Value, what: &str, types: &[&str], from_ms: u64, to_ms: u64) -> Option<f64> {
    let within = moments(report, what, types).filter(|(at_ms, _)| (from_ms..to_ms).contains(at_ms));
    within.map(|(_, p99_ms)| p99_ms).reduce(f64::max)
}

/// Prints the verdicts, each figure beside its target.
fn judge(reports: &[Value; 2], trace: &Trace) {
    let [calm, flood] = reports;
    let begun_ms = started_ms(flood);
    // By the schedule: refused messages are tried again later, which is not part of the overload.
    let ended_ms = begun_ms + number("OVERLOAD_SECONDS", 30) * 1000;
    for (name, report) in [("first", calm), ("second", flood)] {
        let codes: Vec<String> =
            ALL.iter().map(|name| format!("{name} {}", row(report, name)["answers"])).collect();
        let all = &report["answer"];
        let late = &report["lateness"]["p99_ms"];
        let unknown: u64 = ALL.iter().filter_map(|name| row(report, name)["unknown"].as_u64()).sum();
        let met = unknown == 0 && all["p99_ms"].as_f64().is_some_and(|p99_ms| p99_ms <= ANSWER_MAX_MS);
        print(&format!(
            "{name}: answers p99 {} ms, max {} ms, {unknown} messages without one \
             (p99 at most {ANSWER_MAX_MS}: {}); by status: {}; published late by p99 {late} ms",
            all["p99_ms"],
            all["max_ms"],
            yes(met),
            codes.join(", ")
        ));
        let reliable = &report["reliable"];
        let met = reliable["durable"].as_u64().is_some_and(|durable| durable > 0)
            && reliable["durable"] == reliable["sent"];
        print(&format!(
            "{name}: {} of {} red packets durable (all: {}), applied p99 {} ms, max {} ms; verdict {}",
            reliable["durable"],
            reliable["sent"],
            yes(met),
            reliable["apply"]["p99_ms"],
            reliable["apply"]["max_ms"],
            report["verdict"]
        ));
    }
    for name in ["chat", "gift"] {
        let what = "latency_over_time";
        let only = [name];
        let before = worst(calm, what, &[name], started_ms(calm) + 5000, begun_ms).unwrap_or(0.0);
        let during = worst(calm, what, &[name], begun_ms, ended_ms).unwrap_or(0.0);
        let slow = moments(calm, what, &only)
            .filter(|(at_ms, p99_ms)| *at_ms >= ended_ms && *p99_ms > before + NORMAL_MS);
        let last_ms = slow.map(|(at_ms, _)| at_ms + 250 - ended_ms).max().unwrap_or(0);
        let is_known = moments(calm, what, &only).any(|(at_ms, _)| at_ms >= ended_ms + 4000);
        print(&format!(
            "{name}: p99 of the worst quarter of a second: {before:.1} ms before, {during:.1} ms during; \
             as before {last_ms} ms after the end (at most 5000: {})",
            yes(is_known && last_ms <= 5000)
        ));
    }
    if let Some(highest) = trace.samples.iter().filter_map(|sample| sample.step).max() {
        let up = trace.samples.iter().filter(|sample| sample.step > Some(0));
        let down_ms = up.map(|sample| (sample.unix_ms + 250).saturating_sub(ended_ms)).max().unwrap_or(0);
        print(&format!(
            "ladder: step {highest} at most, step 0 {down_ms} ms after the end (at most 5000: {})",
            yes(down_ms <= 5000 && trace.samples.last().is_some_and(|sample| sample.step == Some(0)))
        ));
    } else {
        print("ladder: the node has no roomcast_ladder_step");
    }
    let resident = |from_ms: u64, to_ms: u64| {
        let within = trace.samples.iter().filter(|sample| (from_ms..to_ms).contains(&sample.unix_ms));
        within.map(|sample| sample.resident_bytes >> 20).max().unwrap_or(0)
    };
    print(&format!(
        "memory: at most {} MiB before, {} MiB during, {} MiB from 5 s after the end on; operator door: at most {:.1?}",
        resident(0, begun_ms),
        resident(begun_ms, ended_ms),
        resident(ended_ms + 5000, u64::MAX),
        trace.samples.iter().map(|sample| sample.took).max().unwrap_or_default()
    ));
    account(reports);
}

/// Both runs' accepted messages are the sum of the account of the first run's devices, unless an outcome is
/// unknown.
fn account(reports: &[Value; 2]) {
    for name in ALL {
        let sum =
            |field: &str| reports.iter().filter_map(|report| row(report, name)[field].as_u64()).sum::<u64>();
        let accepted = sum("accepted");
        let unknown = sum("unknown");
        let account = &row(&reports[0], name)["account"];
        let seen = |field: &str| account[field].as_u64().unwrap_or(0);
        let others = seen("others");
        let told = seen("given") + others + seen("merged") + seen("skipped");
        print(&format!(
            "{name}: accepted of both {accepted}, unknown {unknown}; a device's account: {} given, \
             {others} of the other's given, {} merged, {} skipped: {told} (exact: {})",
            account["given"],
            account["merged"],
            account["skipped"],
            yes((accepted..=accepted + unknown).contains(&told))
        ));
    }
}

fn row<'a>(report: &'a Value, type_name: &str) -> &'a Value {
    let mut rows = report["types"].as_array().into_iter().flatten();
    rows.find(|row| row["type"] == type_name).unwrap_or(&Value::Null)
}

fn yes(met: bool) -> &'static str {
    if met { "yes" } else { "NO" }
}

/// The body of an answer of the operator door.
fn ask(door: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&door, ANSWER_AGE_MAX).ok()?;
    stream.set_read_timeout(Some(ANSWER_AGE_MAX)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    Answer::of(&bytes).map(|answer| answer.body)
}
