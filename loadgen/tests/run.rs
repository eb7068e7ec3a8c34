//! `roomcast-loadgen run` from the outside, against a server that breaks one promise at a time.

#[expect(dead_code, reason = "misdeeds of the stream are for other tests")]
mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::{FakeNode, Misdeed, PROCESSOR_US, ends};

/// Six devices in two rooms, 200 messages a second for half a second.
const FLAGS: &str = "--devices 6 --rooms 2 --rate 200 --seconds 0.5 --payload-bytes 80";

#[test]
fn a_faultless_server_passes_in_both_encodings_and_over_several_workers() {
    ends(Misdeed::None, FLAGS, 0, &["verdict      ok"]);
    ends(Misdeed::None, &format!("{FLAGS} --encoding proto"), 0, &["100 ok, 0 failed, 0 unknown"]);
    ends(Misdeed::None, &format!("{FLAGS} --workers 3"), 0, &["delivered    300 messages"]);
    ends(Misdeed::None, &format!("{FLAGS} --messages-per-request 7"), 0, &["delivered    300 messages"]);
}

#[test]
fn rooms_without_devices_and_devices_in_none_are_allowed() {
    ends(Misdeed::None, "--devices 2 --rooms 5 --rate 100 --seconds 0.2", 0, &["delivered    8 messages"]);
    ends(Misdeed::None, "--devices 0 --rooms 5 --rate 100 --seconds 0.2", 0, &["nothing was checked"]);
}

#[test]
fn one_lost_message_fails_the_run() {
    ends(Misdeed::LoseOne, FLAGS, 99, &["lost "]);
    ends(Misdeed::LoseOneForAll, FLAGS, 99, &["lost "]);
}

#[test]
fn what_a_device_that_came_late_is_not_given_is_lost() {
    let late = "--set viewers.shape={ramp={over=0.3,from=0.6}}";
    ends(Misdeed::None, &format!("{FLAGS} {late}"), 0, &["verdict      ok"]);
    ends(Misdeed::ForgetLate, &format!("{FLAGS} {late}"), 99, &["lost "]);
}

#[test]
fn a_message_that_comes_twice_fails_the_run() {
    ends(Misdeed::SendTwice, FLAGS, 99, &["twice "]);
    ends(Misdeed::PublishTwiceForAll, FLAGS, 99, &["twice "]);
}

#[test]
fn a_swap_fails_the_run() {
    ends(Misdeed::Swap, FLAGS, 99, &["out_of_order "]);
    ends(Misdeed::SwapForAll, FLAGS, 99, &["out_of_order "]);
}

#[test]
fn one_altered_byte_fails_the_run() {
    ends(Misdeed::AlterOneByte, FLAGS, 99, &["altered "]);
    ends(Misdeed::AlterOneByte, &format!("{FLAGS} --encoding proto"), 99, &["altered "]);
}

#[test]
fn what_is_passed_over_must_be_told_exactly() {
    ends(Misdeed::PassOverAndSayExactly, FLAGS, 0, &["verdict      ok"]);
    ends(Misdeed::PassOverWithoutAWord, FLAGS, 99, &["gap "]);
    ends(Misdeed::PassOverAndMiscount, FLAGS, 99, &["skip_inexact "]);
}

/// Chat, gifts of three keys and a counter, all in each flush of 50 ms.
const MIX: &str = "--devices 6 --rooms 2 --type chat=400 --type gift=120x2:3 --type like=100x50 \
    --seconds 0.6 --payload-bytes 80 \
                   --settle-seconds 1";

#[test]
fn a_faultless_mix_passes_in_both_encodings_and_says_what_became_of_each_type() {
    for flags in [
        MIX.to_owned(),
        format!("{MIX} --encoding proto --messages-per-request 4"),
        format!("{MIX} --workers 3"),
    ] {
        ends(Misdeed::None, &flags, 0, &["verdict      ok"]);
    }
    let path = json_path("mix");
    ends(Misdeed::ShedAndSay, &format!("{MIX} --json {}", path.display()), 0, &["verdict      ok"]);
    let report = json_at(&path);
    let [chat, gift, like] = [0, 1, 2].map(|kind| &report["types"][kind]);
    let number = |value: &serde_json::Value| value.as_u64().unwrap();
    assert_eq!((number(&chat["offered"]), number(&chat["accepted"])), (240, 240), "{chat}");
    let account = &chat["account"];
    assert!(number(&account["skipped"]) > 100, "{chat}");
    assert_eq!(number(&account["given"]) + number(&account["skipped"]), 240, "{chat}");
    // Three devices in each of two rooms.
    assert_eq!(number(&chat["delivered"]), 3 * number(&account["given"]), "{chat}");
    assert_eq!(number(&chat["skipped"]), 3 * number(&account["skipped"]), "{chat}");
    assert_eq!((number(&gift["account"]["given"]), number(&gift["latency"]["count"])), (72, 216), "{gift}");
    assert_eq!((number(&like["accepted"]), number(&like["account"]["given"])), (3_000, 3_000), "{like}");
    assert_eq!(number(&like["delivered"]), 9_000, "{like}");
}

#[test]
fn what_was_shed_before_it_left_must_be_told_exactly() {
    ends(Misdeed::ShedAndSayLess, MIX, 99, &["lost "]);
    ends(Misdeed::ShedAndSayMore, MIX, 99, &["skip_inexact "]);
}

#[test]
fn a_gift_lost_in_a_flood_of_chat_fails_the_run() {
    ends(Misdeed::LoseGift, MIX, 99, &["lost "]);
}

#[test]
fn a_total_that_is_off_fails_the_run() {
    ends(Misdeed::MiscountTotal, MIX, 99, &["counter_inexact "]);
    ends(Misdeed::MiscountForOne, MIX, 99, &["counter_inexact "]);
}

#[test]
fn counts_of_merged_messages_add_up() {
    // A dozen of two keys in each flush: some merge whatever the machine does.
    let combos = MIX.replace("gift=120x2:3", "gift=480x2:2");
    assert_ne!(combos, MIX);
    ends(Misdeed::Merge, &combos, 0, &["verdict      ok"]);
    ends(Misdeed::MergeAndForget, &combos, 99, &["count_inexact "]);
}

#[test]
fn a_device_that_is_sent_more_than_it_is_to_show_fails_the_run() {
    // One message a flush of 50 ms is 20 a second; 200 a second are all of the chat.
    ends(Misdeed::ShedAndSay, &format!("{MIX} --readable-max chat=20"), 0, &["verdict      ok"]);
    ends(Misdeed::None, &format!("{MIX} --readable-max chat=20"), 99, &["readable_exceeded "]);
}

#[test]
fn a_device_cut_off_fails_the_run() {
    ends(Misdeed::CutOff, FLAGS, 99, &["disconnected "]);
}

#[test]
fn a_shed_message_that_appears_fails_the_run() {
    ends(Misdeed::ShedAndDeliver, FLAGS, 99, &["refused_appeared "]);
}

#[test]
fn a_run_in_which_nothing_was_published_is_not_ok() {
    ends(Misdeed::RefuseAll, FLAGS, 99, &["0 ok, 100 failed, 0 unknown"]);
    ends(Misdeed::RefuseAll, FLAGS, 99, &["verdict      NOTHING PUBLISHED"]);
    ends(Misdeed::FailAll, FLAGS, 99, &["0 ok, 0 failed, 100 unknown"]);
    ends(Misdeed::FailAll, "--devices 0 --rate 200 --seconds 0.5", 99, &["verdict      NOTHING PUBLISHED"]);
    ends(Misdeed::DuplicateAll, FLAGS, 99, &["verdict      NOTHING PUBLISHED"]);
}

#[test]
fn a_503_that_says_that_nothing_was_taken_is_held_to_it() {
    ends(Misdeed::RefuseAndDeliver, FLAGS, 99, &["refused_appeared "]);
}

#[test]
fn a_verdict_says_what_was_not_published() {
    ends(Misdeed::FailOne, FLAGS, 0, &["; but of 100 messages 0 were refused and "]);
}

#[test]
fn the_json_report_says_the_same() {
    let path = json_path("lost");
    ends(Misdeed::LoseOne, &format!("{FLAGS} --json {}", path.display()), 99, &["lost "]);
    let report = json_at(&path);
    assert_eq!(report["verdict"], "violations");
    assert!(report["violations"]["lost"]["count"].as_u64() > Some(0));
    assert!(report["latency"]["p99_ms"].as_f64() > Some(0.0));
    assert_eq!((&report["published"]["sent"], &report["published"]["ok"]), (&100.into(), &100.into()));
}

#[test]
fn what_is_not_roomcast_is_named_in_one_line_before_any_load() {
    ends(Misdeed::NotRoomcast, FLAGS, 2, &["HTTP 404"]);
    let mut nobody = FakeNode::start(Misdeed::None);
    nobody.ops = "127.0.0.1:1".parse().unwrap();
    let output = nobody.run(FLAGS);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("127.0.0.1:1") && said.lines().count() == 1, "{said}");
    let output = nobody.run("--rooms 0");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("--rooms") && said.lines().count() == 1, "{said}");
}

/// A report of its own for the test of this name.
fn json_path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("roomcast-loadgen-{name}-{}.json", std::process::id()))
}

fn json_at(path: &Path) -> serde_json::Value {
    let report = std::fs::read(path).expect("the report is there");
    drop(std::fs::remove_file(path));
    serde_json::from_slice(&report).expect("the report is JSON")
}

#[test]
fn a_report_says_what_a_frame_cost_the_node_and_the_floor() {
    let path = json_path("cpu");
    let flags = format!("{FLAGS} --json {}", path.display());
    ends(Misdeed::SayProcessorTime, &flags, 0, &["cpu_per_frame / floor = "]);
    let report = json_at(&path);
    let cpu = &report["cpu"];
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let frames = number(&report["seen"]["frames"]);
    let per_frame_ns = number(&cpu["cpu_per_frame_ns"]);
    // Looks at its memory ask the same door, and each question makes it more.
    let questions = per_frame_ns * frames / 1_000.0 / PROCESSOR_US as f64;
    assert!(questions >= 0.999 && (questions - questions.round()).abs() < 1e-6, "{report}");
    let floor = &cpu["floor"];
    assert_eq!((&floor["devices"], &floor["blocked"]), (&6.into(), &0.into()), "{report}");
    let over = per_frame_ns / number(&floor["cpu_per_send_ns"]);
    assert!((number(&cpu["cpu_per_frame_over_floor"]) - over).abs() < 1e-6 * over, "{report}");
    assert!(cpu["missing_because"].is_null(), "{report}");
}

#[test]
fn a_report_without_a_floor_says_why() {
    let unwanted = format!("{FLAGS} --no-floor");
    ends(Misdeed::SayProcessorTime, &unwanted, 0, &["ns of the node per frame; no floor: --no-floor"]);
    ends(Misdeed::None, FLAGS, 0, &["no roomcast_cpu_microseconds_total in /metrics"]);
    ends(
        Misdeed::SayProcessorTime,
        "--devices 0 --rate 200 --seconds 0.2",
        0,
        &["no figure: no frame arrived"],
    );
}

fn floor(flags: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roomcast-loadgen"));
    command.arg("floor").args(flags.split_whitespace()).output().expect("the program starts")
}

#[test]
fn a_floor_sends_to_every_device_in_every_round() {
    let path = json_path("floor");
    let flags = format!("--devices 40 --bytes 500 --rate 50 --seconds 0.2 --json {}", path.display());
    let output = floor(&flags);
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}{failed}");
    assert!(said.contains("40 devices, 500 bytes, 50 rounds/s; 400 sends, 0 would block"), "{said}");
    let figures = json_at(&path);
    assert_eq!((&figures["sends"], &figures["blocked"]), (&400.into(), &0.into()));
    assert!(figures["cpu_per_send_ns"].as_f64() > Some(0.0), "{figures}");
}

#[test]
fn a_floor_that_no_process_can_hold_is_refused_in_one_line() {
    let output = floor("--devices 20000");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("--devices: must be 1 to 19000") && said.lines().count() == 1, "{said}");
}
