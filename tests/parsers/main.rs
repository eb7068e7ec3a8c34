//! T14: no payload can spoil another message's delivery, in any client language. Five independent parsers
//! read each JSON frame: Python, Go, Java (Jackson), JavaScript and Rust.
//!
//! The frames are those of the golden inputs, and of random payloads that the publisher door takes. Each
//! refused payload is shown as well: one of the five parsers refuses the frame that it would have made.
//!
//! A missing tool is told as `skipped`. Java needs the jar of jackson-core: `ROOMCAST_JACKSON=FILE`, or the
//! local repository of Maven (`mvn dependency:get -Dartifact=com.fasterxml.jackson.core:jackson-core:2.20.0`).
#![expect(clippy::unwrap_used, reason = "clippy sees only #[test] functions as tests, and these serve them")]

#[path = "../wire_golden/inputs.rs"]
#[allow(dead_code, reason = "the frames here are a part of the golden ones")]
mod inputs;
mod texts;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use inputs::Inputs;
use roomcast_core::room::Batch;
use roomcast_core::room::history::{History, Past};
use roomcast_core::room::id::{Encoding, RoomName, Run, Seq};
use roomcast_core::room::message::{Message, Payload, sample};
use roomcast_core::room::policy::Types;
use roomcast_core::wire::frame::{self, Head};
use roomcast_core::wire::publish;
use texts::Texts;

const AT_MS: u64 = 1_700_000_000_000;
/// Random payloads of a run. Nearly half of them are refused.
const TEXTS: u64 = 4_000;
/// Random golden frames of each kind.
const FRAMES: u64 = 150;

fn print(line: &str) {
    writeln!(std::io::stderr(), "{line}").ok();
}

fn message(name: &str, payload: Payload) -> Message {
    Message { payload, at_ms: AT_MS, ..sample(name, "") }
}

fn past(messages: impl IntoIterator<Item = (u64, Message)>) -> Vec<Past> {
    let mut history = History::default();
    let now = roomcast::clock::now().instant;
    for (seq, message) in messages {
        history.push(Seq(seq), Arc::new(message), now);
    }
    history.since(Seq(0)).cloned().collect()
}

/// The text of a server's frame, without the WebSocket header.
fn text_of(frame: &[u8]) -> Vec<u8> {
    let header_bytes = match frame[1] {
        127 => 10,
        126 => 4,
        _ => 2,
    };
    frame[header_bytes..].to_vec()
}

/// A level frame with this message between two others.
fn frame_with(message: Message) -> Vec<u8> {
    let plain = || Arc::new(self::message("chat", Payload::Json("\"plain\"".into())));
    let batch = Batch {
        seq: Seq(7),
        messages: vec![plain(), Arc::new(message), plain()],
        skipped: Vec::new(),
        merged: Vec::new(),
        counters: Vec::new(),
        oldest: roomcast::clock::now().instant,
        span: None,
    };
    let room = RoomName::parse("r1").unwrap();
    text_of(&frame::level(Head { room: &room, run: Run(31), seq: batch.seq }, &batch, Encoding::Json))
}

/// Random frames of the kinds with messages.
fn golden_frames() -> Vec<Vec<u8>> {
    let room = RoomName::parse("r1").unwrap();
    let head = Head { room: &room, run: Run(31), seq: Seq(42) };
    let of_seed = |seed| {
        let mut inputs = Inputs(fastrand::Rng::with_seed(seed));
        [
            text_of(&frame::level(head, &inputs.batch(), Encoding::Json)),
            text_of(&frame::refresh(head, &inputs.refresh(), Encoding::Json)),
            text_of(&frame::carry(head, &inputs.carried(), Encoding::Json)),
            frame::reliable_page(&room, &inputs.opening(), None).to_vec(),
        ]
    };
    (0..FRAMES).flat_map(of_seed).collect()
}

/// Payloads, sorted by the word of the publisher door.
#[derive(Default)]
struct Judged {
    accepted: Vec<Vec<u8>>,
    /// The frames that the refused payloads would have made, with the reason for the refusal.
    refused: Vec<(Vec<u8>, String)>,
}

impl Judged {
    fn judge(&mut self, text: &[u8]) {
        let body = [br#"{"type":"chat","payload":"#, text, b"}"].concat();
        match publish::parse_json(&body, &Types::new([])) {
            Ok(messages) => self.accepted.extend(messages.into_iter().map(frame_with)),
            Err(error) => {
                assert_eq!(error.code, "payload_not_json", "{}", text.escape_ascii());
                let frame = frame_with(message("chat", Payload::Json(text.to_vec().into())));
                let detail = error.detail.expect("the place is told");
                let reason = detail.rsplit(": ").next().unwrap_or_default().to_owned();
                self.refused.push((frame, reason));
            }
        }
    }
}

/// Verdict of a parser on each text, in order.
type Verdicts = Vec<bool>;

/// A parser: its name, and its verdicts on texts. `Err`: the tool that is missing.
struct Parser {
    name: &'static str,
    judge: fn(&[Vec<u8>]) -> Result<Verdicts, String>,
}

const PARSERS: [Parser; 5] = [
    Parser { name: "Python", judge: |texts| ask(Command::new("python3").arg(program("parse.py")), texts) },
    Parser { name: "Go", judge: |texts| ask(Command::new("go").arg("run").arg(program("parse.go")), texts) },
    Parser { name: "Java", judge: java },
    Parser { name: "JavaScript", judge: |texts| ask(Command::new("node").arg(program("parse.mjs")), texts) },
    Parser { name: "Rust", judge: rust },
];

fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parsers").join(name)
}

fn rust(texts: &[Vec<u8>]) -> Result<Verdicts, String> {
    Ok(texts.iter().map(|text| serde_json::from_slice::<serde_json::Value>(text).is_ok()).collect())
}

fn java(texts: &[Vec<u8>]) -> Result<Verdicts, String> {
    let jar = jackson().ok_or("the jar of jackson-core is missing (ROOMCAST_JACKSON=FILE)")?;
    ask(Command::new("java").arg("-cp").arg(jar).arg(program("Parse.java")), texts)
}

fn jackson() -> Option<PathBuf> {
    if let Some(jar) = std::env::var_os("ROOMCAST_JACKSON") {
        return Some(jar.into());
    }
    let home = PathBuf::from(std::env::var_os("HOME")?);
    let versions = home.join(".m2/repository/com/fasterxml/jackson/core/jackson-core");
    let jars = std::fs::read_dir(versions).ok()?.flatten().filter_map(|version| {
        let name = format!("jackson-core-{}.jar", version.file_name().to_str()?);
        Some(version.path().join(name)).filter(|jar| jar.is_file())
    });
    jars.max()
}

/// Runs a parser: a text in base64 a line goes in, a `1` (taken) or `0` (refused) a line comes out.
fn ask(command: &mut Command, texts: &[Vec<u8>]) -> Result<Verdicts, String> {
    let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = started.map_err(|error| format!("{program} is missing ({error})"))?;
    let mut stdin = child.stdin.take().unwrap();
    let lines: String = texts.iter().map(|text| BASE64.encode(text) + "\n").collect();
    let feeder = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap().unwrap();
    assert!(output.status.success(), "{program} failed");
    let said = String::from_utf8(output.stdout).unwrap();
    let verdicts: Verdicts = said.lines().map(|line| line == "1").collect();
    assert_eq!(verdicts.len(), texts.len(), "{program} judges each text");
    Ok(verdicts)
}

#[test]
fn five_parsers_take_every_frame_that_the_engine_makes() {
    let seed = std::env::var("ROOMCAST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    let mut judged = Judged::default();
    let mut random = Texts(fastrand::Rng::with_seed(seed));
    for text in texts::KNOWN {
        judged.judge(text);
    }
    for _ in 0..TEXTS {
        judged.judge(random.value().as_bytes());
    }
    let mut reasons = BTreeMap::<&str, usize>::new();
    for (_, reason) in &judged.refused {
        *reasons.entry(reason).or_default() += 1;
    }
    assert!(judged.accepted.len() > 1_000, "seed {seed}: {} accepted", judged.accepted.len());
    assert!(reasons.len() >= 5, "seed {seed}: each sort of refusal came up: {reasons:?}");

    let mut frames = golden_frames();
    frames.append(&mut judged.accepted);
    let refused: Vec<Vec<u8>> = judged.refused.iter().map(|(frame, _)| frame.clone()).collect();
    let mut is_refused_by_one = vec![false; refused.len()];
    let mut missing = 0;
    for Parser { name, judge } in PARSERS {
        match judge(&frames) {
            Ok(verdicts) => {
                let at = verdicts.iter().position(|is_taken| !is_taken);
                let text = at.map(|at| frames[at].escape_ascii().to_string());
                assert_eq!(text, None, "seed {seed}: {name} refuses a frame");
            }
            Err(why) => {
                missing += 1;
                print(&format!("skipped: T14 the parser of {name}: NOT RUN: {why}"));
                continue;
            }
        }
        for (is_refused, is_taken) in is_refused_by_one.iter_mut().zip(judge(&refused).unwrap()) {
            *is_refused |= !is_taken;
        }
    }
    // No refusal is for nothing. Noncharacters are RFC 7493's own rule; none of these parsers holds it.
    if missing == 0 {
        for ((text, reason), is_refused) in judged.refused.iter().zip(&is_refused_by_one) {
            let by_rfc = reason.starts_with("a noncharacter");
            assert!(*is_refused || by_rfc, "seed {seed}: {reason}: all take {}", text.escape_ascii());
        }
    }
}
