//! Holds the documents to the code: a shown example is what the node does, and every part of the node is
//! documented.

#![expect(clippy::unwrap_used, reason = "clippy allows it in test functions alone, not in what they share")]

#[path = "documents/deploy.rs"]
mod deploy;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use roomcast::config::Config;
use roomcast::config::args::Args;
use roomcast::config::policy::PolicyField;
use roomcast::metrics::{DEFINITIONS, Kind};
use roomcast::server::Server;
use roomcast_core::room::account::Missed;
use roomcast_core::room::counters::CounterChange;
use roomcast_core::room::history::History;
use roomcast_core::room::id::{Encoding, Epoch, Key, MessageId, RoomName, Run, Seq, TypeName};
use roomcast_core::room::message::{self, Class, Message, Payload, ShedReason, Unavailable};
use roomcast_core::room::policy::TypePolicy;
use roomcast_core::room::{Batch, Carried, Opening, Refresh, Snapshot, Span};
use roomcast_core::wire::close::CloseReason;
use roomcast_core::wire::frame::{self, Greeting, Head, Notice};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;

fn read(document: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of the table whose heading row starts with `heading`, without heading and rule.
fn table(document: &str, heading: &str) -> Vec<String> {
    let text = read(document);
    let mut lines = text.lines().skip_while(|line| !line.starts_with(heading));
    assert!(lines.next().is_some(), "{document} has no table that starts with {heading}");
    lines.skip(1).take_while(|line| line.starts_with('|')).map(str::to_owned).collect()
}

/// The fenced blocks of a document whose first line is "```" and `label`.
fn blocks(document: &str, label: &str) -> Vec<String> {
    let text = read(document);
    let fence = format!("```{label}\n");
    text.split(&fence).skip(1).filter_map(|rest| Some(rest.split_once("\n```")?.0.to_owned())).collect()
}

/// Prints the right table if the rows differ, ready to be pasted.
fn assert_rows(document: &str, heading: &str, wanted: &[String]) {
    let found = table(document, heading);
    assert!(found == wanted, "{document} should have under {heading}\n{}\n", wanted.join("\n"));
}

#[test]
fn the_close_codes_of_the_protocol_are_those_of_the_code() {
    let rows: Vec<String> = CloseReason::ALL.into_iter().map(CloseReason::markdown_row).collect();
    assert_rows("docs/protocol.md", "| code | name | cause | advice |", &rows);
}

#[test]
fn the_metrics_of_the_operations_guide_are_those_of_the_code() {
    let row = |metric: &roomcast::metrics::Definition| {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = if labels.is_empty() { "–".to_owned() } else { labels.join(", ") };
        format!("| `{}` | {kind} | {labels} | {} |", metric.name, metric.help)
    };
    let rows: Vec<String> = DEFINITIONS.iter().map(row).collect();
    assert_rows("docs/operations.md", "| metric | kind | labels | counts |", &rows);
}

#[test]
fn every_configuration_key_is_in_the_operations_guide() {
    let defaults: toml::Table = read("config/default.toml").parse().unwrap();
    let guide = read("docs/operations.md");
    for (section, value) in &defaults {
        let toml::Value::Table(keys) = value else {
            assert!(guide.contains(&format!("| `{section}` |")), "{section}");
            continue;
        };
        for key in keys.keys().filter(|_| section != "types") {
            assert!(guide.contains(&format!("| `{section}.{key}` |")), "{section}.{key}");
        }
    }
    for key in ["class"].into_iter().chain(PolicyField::ALL.map(PolicyField::name)) {
        assert!(guide.contains(&format!("| `types.NAME.{key}` |")), "types.NAME.{key}");
    }
}

/// A place of a page, such as `core/src/room/pace.rs` `due`: the file is there, and has the function named behind it.
#[test]
fn the_architecture_names_files_and_functions_that_are_there() {
    let page = read("docs/architecture.md");
    let quoted: Vec<&str> = page.split('`').skip(1).step_by(2).collect();
    let gaps: Vec<&str> = page.split('`').skip(2).step_by(2).collect();
    let mut functions = 0;
    for (at, path) in quoted.iter().enumerate().filter(|(_, quoted)| quoted.ends_with(".rs")) {
        let source = read(path);
        let Some(name) = quoted.get(at + 1).filter(|_| gaps[at] == " ") else { continue };
        assert!(
            source.contains(&format!("fn {name}(")) || source.contains(&format!("fn {name}<")),
            "{path} {name}"
        );
        functions += 1;
    }
    assert!(functions > 10, "{functions}");
}

#[test]
fn every_dependency_has_its_reason() {
    let reasons = read("CONTRIBUTING.md");
    for manifest in ["Cargo.toml", "core/Cargo.toml", "loadgen/Cargo.toml"] {
        let manifest: toml::Table = read(manifest).parse().unwrap();
        for section in ["dependencies", "build-dependencies", "dev-dependencies"] {
            let dependencies = manifest.get(section).and_then(toml::Value::as_table);
            let names = dependencies.into_iter().flat_map(toml::Table::keys);
            for name in names.filter(|name| !name.starts_with("roomcast")) {
                let lines = reasons.lines().filter(|line| line.starts_with(&format!("- **{name}**"))).count();
                assert_eq!(lines, 1, "CONTRIBUTING.md has one line that starts with - **{name}**");
            }
        }
    }
}

#[test]
fn every_problem_code_is_in_the_protocol() {
    let protocol = read("docs/protocol.md");
    let mut codes = 0;
    for file in [
        "core/src/wire/publish.rs",
        "core/src/wire/publish/json.rs",
        "src/http/cluster/answers.rs",
        "src/http/cluster/mod.rs",
        "src/http/cluster/parts.rs",
        "src/http/cluster/route.rs",
        "src/http/cluster/status.rs",
        "src/http/mod.rs",
        "src/http/ops/ladder.rs",
        "src/http/ops/mod.rs",
        "src/http/problem.rs",
        "src/http/publisher/mod.rs",
        "src/http/publisher/publish.rs",
        "src/http/publisher/reliable.rs",
        "src/http/publisher/rooms.rs",
        "src/http/publisher/settings.rs",
        "src/http/request.rs",
        "src/http/routes.rs",
        "src/http/viewer/mod.rs",
        "src/http/viewer/pull.rs",
        "src/http/viewer/upgrade.rs",
    ] {
        for code in problem_codes(&read(file)) {
            assert!(protocol.contains(&format!("`{code}`")), "{code} of {file}");
            codes += 1;
        }
    }
    assert!(codes > 30, "the codes were found: {codes}");
    let reasons = ShedReason::ALL.map(ShedReason::name).into_iter();
    for reason in reasons.chain(Unavailable::ALL.map(Unavailable::name)) {
        assert!(protocol.contains(&format!("`{reason}`")), "{reason}");
    }
    for refused in roomcast::auth::Refused::ALL {
        assert!(protocol.contains(&format!("`{}`", refused.name())), "{refused}");
    }
}

/// The first text within each call that makes a problem. The problems of unit tests do not count.
fn problem_codes(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let makers = ["Problem::bad(", "Problem::new(", "Self::new(", "unavailable(", "refusal(", "unsupported("];
    let calls = makers.into_iter().flat_map(|maker| source.split(maker).skip(1));
    let quoted = calls.filter_map(|call| {
        let statement = call.split(';').next().unwrap_or_default();
        statement.split('"').nth(1).map(str::to_owned)
    });
    let is_code = |text: &String| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    quoted.filter(is_code).collect()
}

const AT_MS: u64 = 1_795_243_015_617;
const RUN: Run = Run(0x2d01_a85a_8403_0262);
const EPOCH: Epoch = Epoch(0x9c40_71e2_55f0_1b38);

fn message(type_name: &str, payload: Payload) -> Message {
    Message { payload, at_ms: AT_MS, ..message::sample(type_name, "") }
}

fn json(text: &'static str) -> Payload {
    Payload::Json(Bytes::from_static(text.as_bytes()))
}

fn chat() -> Arc<Message> {
    Arc::new(Message { id: MessageId::parse("m-1").ok(), ..message("chat", json(r#""hi""#)) })
}

fn online() -> Arc<Message> {
    Arc::new(Message {
        policy: TypePolicy::of(Class::Latest),
        key: Key::parse("online").ok(),
        ..message("online", json("3"))
    })
}

fn coupon() -> Arc<Message> {
    Arc::new(Message { policy: TypePolicy::of(Class::Reliable), offset: 8, ..message("coupon", json("5")) })
}

/// The recall of an earlier coupon.
fn recall() -> Arc<Message> {
    let one = Message {
        policy: TypePolicy::of(Class::Reliable),
        offset: 9,
        recall: 5,
        ..message("coupon", json("null"))
    };
    Arc::new(one)
}

/// Label of a block in docs/protocol.md -> the frame that the block shows.
fn shown_frames() -> BTreeMap<String, Bytes> {
    let room = RoomName::parse("r1").unwrap();
    let head = Head { room: &room, run: RUN, seq: Seq(42) };
    let type_name = |name| TypeName::parse(name).unwrap();
    let counter = |add, total| vec![CounterChange { type_name: type_name("like"), add, total }];
    let batch = Batch {
        seq: Seq(42),
        messages: vec![
            chat(),
            Arc::new(message("chat", Payload::Opaque(Bytes::from_static(&[0, 1, 2, 255])))),
        ],
        skipped: vec![],
        merged: vec![(type_name("enter"), 41)],
        counters: counter(17, 1251),
        oldest: roomcast::clock::now().instant,
        span: None,
    };
    let span = Span { after: 7, through: 8, ack_within_ms: 200 };
    let reliable = Batch {
        messages: vec![coupon()],
        merged: vec![],
        counters: vec![],
        span: Some(span),
        ..batch.clone()
    };
    let carried = Carried { span: Span { through: 9, ..span }, messages: vec![coupon(), recall()] };
    let missed = Missed { skipped: vec![(type_name("chat"), 300)], merged: vec![(type_name("enter"), 2)] };
    let latest = vec![online()];
    let counters = counter(40, 1291);
    let refresh = Refresh { missed, latest, latest_rest: None, counters, carried: None, history: Vec::new() };
    let mut past = History::default();
    past.push(Seq(41), chat(), roomcast::clock::now().instant);
    let snapshot = Snapshot {
        seq: Seq(42),
        history: past.since(Seq(0)).cloned().collect(),
        cut_short: false,
        latest: vec![online()],
        latest_rest: None,
        counters: vec![(type_name("like"), 1251)],
        stream: Some(Opening {
            epoch: EPOCH,
            offset: 8,
            carried: Carried { span, messages: vec![coupon()] },
        }),
    };
    let greeting = Greeting { heartbeat_ms: 25_000, resumed: true, reset: None };
    let error = Notice::Error { code: "already_joined", room: Some(&room), field: Some("room") };
    let mut frames = BTreeMap::new();
    for encoding in Encoding::ALL {
        let name = encoding.subprotocol().trim_start_matches("roomcast.v1.");
        for (kind, frame) in [
            ("batch", frame::level(head, &batch, encoding)),
            ("reliable", frame::level(head, &reliable, encoding)),
            ("carry", frame::carry(head, &carried, encoding)),
            ("refresh", frame::refresh(head, &refresh, encoding)),
            ("welcome", frame::welcome(head, greeting, &snapshot, encoding)),
            ("history", frame::history(head, &snapshot.history, encoding)),
            ("pong", frame::notice(Notice::Pong, encoding)),
            ("joined", frame::notice(Notice::Joined(&room), encoding)),
            ("left", frame::notice(Notice::Left(&room), encoding)),
            ("closed", frame::notice(Notice::Closed(&room), encoding)),
            ("error", frame::notice(error, encoding)),
            ("bye", frame::notice(Notice::Bye, encoding)),
            ("token", frame::notice(Notice::TokenTaken { expires_s: Some(1_795_250_000) }, encoding)),
        ] {
            frames.insert(format!("{kind}-{name}"), frame);
        }
    }
    frames.insert("close".to_owned(), frame::close(CloseReason::Draining).unwrap());
    frames
}

/// The bytes of a dump: pairs of hexadecimal digits up to two spaces, then a comment.
fn dumped(block: &str) -> Vec<u8> {
    let bytes = block.lines().map(|line| line.split("  ").next().unwrap_or_default());
    bytes.flat_map(|line| line.split(' ').filter_map(|pair| u8::from_str_radix(pair, 16).ok())).collect()
}

fn dump(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x} ").expect("a string takes every write");
        text
    })
}

#[test]
fn the_bytes_of_the_protocol_are_those_of_the_encoders() {
    let mut wrong = String::new();
    for (name, frame) in shown_frames() {
        let is_shown = if name.ends_with("-json") {
            // As one line of text, without the header: two bytes, or four if the second is 126.
            let header = if frame[1] == 126 { 4 } else { 2 };
            let text = std::str::from_utf8(&frame[header..]).unwrap();
            blocks("docs/protocol.md", "json").iter().any(|block| block.lines().any(|line| line == text))
        } else {
            blocks("docs/protocol.md", &format!("text {name}")).iter().any(|block| dumped(block) == frame)
        };
        if !is_shown {
            let spelt = if name.ends_with("-json") {
                String::from_utf8_lossy(&frame).into_owned()
            } else {
                dump(&frame)
            };
            writeln!(wrong, "{name}: {spelt}").expect("a string takes every write");
        }
    }
    assert!(wrong.is_empty(), "docs/protocol.md lacks:\n{wrong}");
}

/// A node on free ports.
fn node() -> Server {
    let mut args = Args::default();
    let free = Some("127.0.0.1:0".to_owned());
    args.flags.viewer_listen.clone_from(&free);
    args.flags.publisher_listen.clone_from(&free);
    args.flags.ops_listen = free;
    args.flags.ephemeral = true;
    args.flags.shards = Some("1".to_owned());
    Server::start(Config::load(&args, std::iter::empty()).unwrap()).unwrap()
}

/// The request of the README's curl line.
struct CurlLine {
    path: String,
    content_type: String,
    body: String,
}

impl CurlLine {
    fn of(readme: &str) -> Self {
        let line = readme.lines().find(|line| line.starts_with("curl ")).expect("README.md has a curl line");
        let url = line.split(' ').nth(1).unwrap();
        let path =
            url.strip_prefix("http://127.0.0.1:7601").expect("the publisher door's default").to_owned();
        let quoted: Vec<&str> = line.split('\'').collect();
        let content_type = quoted[1].strip_prefix("content-type: ").unwrap().to_owned();
        assert!(quoted[2].ends_with(" -d "), "{line}");
        Self { path, content_type, body: quoted[3].to_owned() }
    }

    /// Sends the request as curl would, and returns the whole answer.
    async fn send(&self, server: &Server) -> String {
        let Self { path, content_type, body } = self;
        let mut stream = TcpStream::connect(server.publisher_addr).await.unwrap();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1:7601\r\nConnection: close\r\nContent-Type: {content_type}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

/// The output of the README's curl line, pasted into a shell. `None` on a machine without curl.
fn pasted(readme: &str, server: &Server) -> Option<String> {
    Command::new("curl").arg("--version").output().ok()?;
    let line = readme.lines().find(|line| line.starts_with("curl "))?;
    let line = line.replace("127.0.0.1:7601", &server.publisher_addr.to_string());
    let said = Command::new("sh").args(["-c", &line]).output().unwrap();
    assert!(said.status.success(), "{said:?}");
    Some(String::from_utf8(said.stdout).unwrap())
}

#[tokio::test]
async fn the_readmes_curl_line_and_snippet_work() {
    let server = node();
    let readme = read("README.md");
    let snippet = blocks("README.md", "js").remove(0);
    assert!(snippet.lines().count() < 15, "the snippet stays short");
    let quoted: Vec<&str> = snippet.split('"').collect();
    let url = quoted[1].replace("127.0.0.1:7600", &server.viewer_addr.to_string());
    let subprotocol = quoted[3];
    let mut handshake = url.into_client_request().unwrap();
    // The origin of a page of the node's own.
    handshake.headers_mut().insert("origin", HeaderValue::from_static("http://127.0.0.1:7600"));
    handshake.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_str(subprotocol).unwrap());
    let (mut device, answer) = Box::pin(tokio_tungstenite::connect_async(handshake)).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], subprotocol);
    let ping = snippet.split('\'').find(|text| text.contains("ping")).expect("the snippet pings");
    device.send(ping.into()).await.unwrap();

    // The page whose console the README names.
    assert!(readme.contains("`http://127.0.0.1:7600/`"));
    let mut stream = TcpStream::connect(server.viewer_addr).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:7600\r\n\r\n").await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(page.contains("content-type: text/html; charset=utf-8\r\n"), "{page}");
    assert!(page.contains("<body>") && !page.contains("<script") && !page.contains("://"), "{page}");

    let curl = CurlLine::of(&readme);
    let answer = curl.send(&server).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    if let Some(said) = pasted(&readme, &server) {
        assert!(said.contains(r#""result":"accepted""#), "{said}");
    }
    let payload = serde_json::from_str::<serde_json::Value>(&curl.body).unwrap()["payload"].clone();
    let mut has_pong = false;
    let mut has_message = false;
    let heard = tokio::time::timeout(Duration::from_secs(30), async {
        while !(has_pong && has_message) {
            let text = device.next().await.unwrap().unwrap().into_text().unwrap();
            let frame: serde_json::Value = serde_json::from_str(&text).unwrap();
            has_pong |= frame["kind"] == "pong";
            // The snippet looks in both places: it may have joined after the message.
            let messages =
                frame.get("history").or_else(|| frame.get("messages")).and_then(serde_json::Value::as_array);
            has_message |= messages.into_iter().flatten().any(|message| message["payload"] == payload);
        }
    });
    heard.await.expect("the message and the pong arrive");
    server.drain().await;
}

#[test]
fn the_line_the_node_prints_is_the_readmes() {
    let server = tokio::runtime::Runtime::new().unwrap().block_on(async { node() });
    let printed = server.doors().replace(&server.publisher_addr.to_string(), "127.0.0.1:7601");
    let printed = printed.lines().find(|line| line.starts_with("curl ")).unwrap();
    assert!(read("README.md").contains(printed), "{printed}");
}
