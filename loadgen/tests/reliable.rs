//! Reliable messages from the outside, against a server that breaks one promise of the stream at a time.

#[expect(dead_code, reason = "misdeeds of batches are for other tests")]
mod support;

use support::{Misdeed, ends};

/// Six devices in two rooms, ten coupons to each room within a second, and chat beside them.
const FLAGS: &str =
    "--devices 6 --rooms 2 --rate 20 --reliable-rate 20 --seconds 1 --payload-bytes 80 --settle-seconds 1";

#[test]
fn a_faultless_stream_passes_in_both_encodings_and_is_acknowledged() {
    let all =
        ["verdict      ok", "20 published: 20 durable", "applied      60, 0 came again", "apply        p50"];
    for encoding in ["json", "proto"] {
        let server = ends(Misdeed::None, &format!("{FLAGS} --encoding {encoding}"), 0, &all);
        let acks = server.acks();
        assert!(
            acks.iter().any(|(_, epoch, offset)| epoch == "000000000000000e" && *offset == 10),
            "{acks:?}"
        );
        assert!(acks.iter().all(|(room, ..)| room.starts_with("lg-")), "{acks:?}");
    }
    ends(Misdeed::None, &format!("{FLAGS} --workers 3"), 0, &all);
    ends(Misdeed::None, &FLAGS.replace("--rate 20", "--rate 0"), 0, &["verdict      ok", "60, 0 came again"]);
}

#[test]
fn devices_that_drop_every_acknowledgement_send_none() {
    let flags = format!("{FLAGS} --drop-acks-share 1 --drop-acks 1");
    let server = ends(Misdeed::None, &flags, 0, &["verdict      ok", "devices did  0 acks"]);
    assert_eq!(server.acks(), []);
}

#[test]
fn a_lost_frame_is_pulled_and_a_carried_one_is_counted() {
    let server = ends(Misdeed::LoseFrame, FLAGS, 0, &["verdict      ok", "applied      60"]);
    drop(server);
    ends(Misdeed::CarryTwice, FLAGS, 0, &["verdict      ok", "60 came again: 2.000 copies each"]);
    ends(Misdeed::KnowNothing, FLAGS, 0, &["verdict      ok", "applied      60"]);
}

#[test]
fn an_answer_that_was_lost_is_asked_for_again_with_the_same_id() {
    ends(Misdeed::AnswerLate, FLAGS, 0, &["verdict      ok", "20 durable", "1 attempts repeated"]);
}

#[test]
fn i1_a_store_that_lost_a_durable_message_fails_the_run() {
    ends(Misdeed::ForgetOne, FLAGS, 99, &["i1_not_stored", "I1 room 0: message"]);
    ends(Misdeed::AnswerOnly, FLAGS, 99, &["i1_not_stored"]);
}

#[test]
fn i2_a_message_that_comes_late_or_never_fails_the_run() {
    let settles = FLAGS.replace("--settle-seconds 1", "--settle-seconds 5");
    ends(Misdeed::TellNothing, &settles, 99, &["i2_not_applied", "and never applied offset 3"]);
    ends(Misdeed::TellLate, &settles, 99, &["i2_late", "applied offset 3"]);
}

/// Every device but the first of each room reads at 64 kbit/s, for longer than a late message takes.
const SLOW: &str = "--devices 6 --rooms 2 --rate 4 --reliable-rate 20 --seconds 5 --payload-bytes 80 \
                    --settle-seconds 4 --set habits.slow_share=1 --set habits.slow_bytes_per_second=8000";

#[test]
fn i2_devices_that_read_slowly_are_held_to_it_from_their_rate() {
    ends(Misdeed::None, SLOW, 0, &["verdict      ok", "apply (slow) p50"]);
    ends(Misdeed::TellLate, SLOW, 99, &["i2_late", "a slow reader, applied offset 3"]);
    let slower = SLOW.replace("second=8000", "second=4000");
    ends(Misdeed::TellLate, &slower, 0, &["verdict      ok"]);
}

#[test]
fn i3_a_message_with_two_offsets_fails_the_run() {
    ends(Misdeed::StoreTwice, FLAGS, 99, &["i3_applied_twice", "at offset 3 and at"]);
}

#[test]
fn i4_an_offset_that_is_passed_over_fails_the_run() {
    ends(Misdeed::HideOffset, FLAGS, 99, &["i4_offset_missing", "passed over offset 3"]);
    ends(Misdeed::SkipOffset, FLAGS, 99, &["i4_offset_missing", "nobody knows a message there"]);
}

#[test]
fn i5_a_message_of_another_room_fails_the_run() {
    ends(Misdeed::CrossRooms, FLAGS, 99, &["i5_other_room"]);
}

#[test]
fn i6_a_message_that_is_not_what_was_published_fails_the_run() {
    ends(Misdeed::AlterPayload, FLAGS, 99, &["i6_altered"]);
    ends(Misdeed::AlterId, &format!("{FLAGS} --encoding proto"), 99, &["i6_altered"]);
    ends(Misdeed::Invent, FLAGS, 99, &["i6_not_published"]);
}

#[test]
fn i7_a_refused_message_that_appears_fails_the_run() {
    ends(Misdeed::RefuseAndStore, FLAGS, 99, &["i7_refused_appeared", "2 refused"]);
}

/// Long enough for every device to cut itself off a few times.
const COMES_BACK: &str =
    "--devices 6 --rooms 2 --rate 20 --reliable-rate 20 --seconds 9 --payload-bytes 80 --reconnect-share 1";

#[test]
fn devices_that_cut_themselves_off_come_back_with_their_cursor() {
    let server = ends(Misdeed::None, COMES_BACK, 0, &["verdict      ok", "180 durable", "applied      540"]);
    assert!(server.resumed() > 0);
    let server = ends(Misdeed::None, &format!("{COMES_BACK} --encoding proto"), 0, &["applied      540"]);
    assert!(server.resumed() > 0);
}

#[test]
fn i4_a_false_reset_fails_the_run() {
    ends(Misdeed::ResetFalsely, COMES_BACK, 99, &["i4_false_reset", "reset \"ahead\""]);
}

#[test]
fn devices_that_stall_are_not_blamed_for_it() {
    let flags = COMES_BACK.replace("--reconnect-share 1", "--stall-share 1 --stall-seconds 2");
    ends(Misdeed::None, &flags, 0, &["verdict      ok", "applied      540"]);
}

#[test]
fn a_restart_is_a_violation_or_is_lived_through() {
    ends(Misdeed::Restart, FLAGS, 99, &["disconnected"]);
    let flags = format!("{FLAGS} --through-restarts --seconds 3").replace("--seconds 1 ", "");
    // Nobody was there meanwhile, so only the store tells of messages.
    let all = [
        "verdict      ok",
        "60 durable",
        "applied      180",
        "6 reconnects",
        "not judged   missing messages in 2 of 2 rooms",
    ];
    ends(Misdeed::Restart, &flags, 0, &all);
    ends(Misdeed::RestartAndForget, &flags, 99, &["i1_not_stored"]);
}

#[test]
fn the_json_report_says_the_same() {
    let path = std::env::temp_dir().join(format!("roomcast-loadgen-reliable-{}.json", std::process::id()));
    drop(ends(Misdeed::HideOffset, &format!("{FLAGS} --json {}", path.display()), 99, &[]));
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    drop(std::fs::remove_file(&path));
    assert!(report["violations"]["i4_offset_missing"]["count"].as_u64() > Some(0));
    let reliable = &report["reliable"];
    assert_eq!((&reliable["durable"], &reliable["refused"]), (&20.into(), &0.into()));
    assert!(reliable["apply"]["p99_ms"].as_f64() > Some(0.0) && reliable["acks_sent"].as_u64() > Some(0));
}
