//! Several doors, takeovers and moves from the outside, against nodes that break one promise at a time.

#[expect(dead_code, reason = "most misdeeds are for other tests")]
mod support;

use support::{FakeNode, Misdeed, ends, ends_at};

/// Six devices in two rooms, ten coupons to each room within a second, and chat beside them.
const FLAGS: &str =
    "--devices 6 --rooms 2 --rate 20 --reliable-rate 20 --seconds 1 --payload-bytes 80 --settle-seconds 1";

#[test]
fn two_doors_share_devices_publishes_and_one_ledger() {
    let pair = FakeNode::start_pair(Misdeed::None);
    let all =
        ["verdict      ok", "20 ok, 0 failed", "delivered    60 messages", "applied      60, 0 came again"];
    let pair = ends_at(pair, Misdeed::None, FLAGS, 0, &all);
    let (upgrades, requests) = pair.visits();
    assert_eq!(upgrades, [3, 3]);
    assert!(requests.iter().all(|requests| *requests >= 15), "{requests:?}");
    let misdeed = Misdeed::LoseOneBetweenNodes;
    // Without reliable messages the third batch is one of chat.
    let flags = FLAGS.replace("--rate 20 --reliable-rate 20", "--rate 200");
    ends_at(FakeNode::start_pair(misdeed), misdeed, &flags, 99, &["lost "]);
}

#[test]
fn doors_come_from_a_scenario_as_well() {
    let pair = FakeNode::start_pair(Misdeed::None);
    let doors = pair.doors();
    let (viewer, publisher): (Vec<&String>, Vec<&String>) =
        doors[1..].iter().partition(|door| door.contains("viewer"));
    let list = |doors: &[&String]| {
        let urls: Vec<String> = doors
            .iter()
            .filter_map(|door| door.split_once('=').map(|(_, url)| format!("\"{url}\"")))
            .collect();
        format!("[{}]", urls.join(","))
    };
    let sets = format!("--set doors.viewer={} --set doors.publisher={}", list(&viewer), list(&publisher));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_roomcast-loadgen"));
    command.arg("run").args(FLAGS.split_whitespace()).args(sets.split_whitespace()).arg(&doors[0]);
    let output = command.output().expect("the program starts");
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(report.contains("delivered    60 messages"), "{report}");
    assert_eq!(pair.visits().0, [3, 3]);
}

#[test]
fn devices_go_where_a_route_names_a_node_for_their_room() {
    let pair = FakeNode::start_pair(Misdeed::None);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_roomcast-loadgen"));
    command.arg("run").args(FLAGS.split_whitespace());
    command.arg(format!("--route=http://{}", pair.viewer));
    command.args(pair.doors().into_iter().filter(|door| !door.contains("viewer")));
    let output = command.output().expect("the program starts");
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(
        report.contains("delivered    60 messages"),
        "{report}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(pair.visits().0, [0, 6]);
}

#[test]
fn devices_that_are_sent_elsewhere_go_there_and_miss_nothing_reliable() {
    let pair = FakeNode::start_pair(Misdeed::SendElsewhere);
    let said = ["verdict      ok", "applied      60", "3 sent elsewhere, 0 re-welcomes"];
    let pair = ends_at(pair, Misdeed::SendElsewhere, FLAGS, 0, &said);
    assert_eq!(pair.visits().0, [3, 6]);
    assert_eq!(pair.resumed(), 3);
}

#[test]
fn a_takeover_is_lived_through_on_the_same_connections() {
    let flags = format!("{FLAGS} --through-restarts");
    let said = [
        "verdict      ok",
        "20 durable",
        "applied      60",
        "0 sent elsewhere, 3 re-welcomes",
        "0 reconnects",
        "threshold    holds  runs=1: 1",
    ];
    for encoding in ["json", "proto"] {
        ends(Misdeed::TakeOver, &format!("{flags} --encoding {encoding} --threshold runs=1"), 0, &said);
    }
    ends(Misdeed::TakeOver, FLAGS, 99, &["a second welcome"]);
}

#[test]
fn plain_messages_lost_with_a_run_are_counted_and_break_no_promise() {
    let flags = format!("{FLAGS} --through-restarts").replace("--rate 20 ", "--rate 800 ");
    ends(Misdeed::TakeOverAndLose, &flags, 0, &["verdict      ok", "chat lost with a run that ended: "]);
}

#[test]
fn a_reliable_message_missing_after_a_takeover_fails_the_run() {
    let flags = format!("{FLAGS} --through-restarts");
    ends(Misdeed::TakeOverAndSkip, &flags, 99, &["i4_offset_missing", "passed over offset 4"]);
    ends(Misdeed::TakeOverInSilence, &flags, 99, &["foreign "]);
}

#[test]
fn faults_are_carried_out_by_name_and_shown_beside_each_node() {
    let mut node = FakeNode::start_pair(Misdeed::SayProcessorTime);
    let file =
        |name: &str| std::env::temp_dir().join(format!("roomcast-faults-{}-{name}", std::process::id()));
    let told = |name: &str| {
        let text = std::fs::read_to_string(file(name)).expect(name);
        drop(std::fs::remove_file(file(name)));
        text
    };
    let flags = |faults: &str| {
        format!(
            "{FLAGS} --ops-door=http://{} --set commands.node.kill=echo>{} --set commands.nats.stop=exit${{IFS}}7 \
             --set faults=[{faults}] --json {} --html {}",
            node.ops,
            file("{name}").display(),
            file("json").display(),
            file("html").display()
        )
    };
    let kill = "{at=0.2,do=\"kill\",node=\"node-2\"}";
    let said = [
        "verdict      ok",
        "kill node-2: exit status: 0, took",
        "threshold    holds  fault `kill node-2`",
        "seconds         node-1         node-2   failed",
        "1 kill node-2",
    ];
    let flags_of_one = flags(kill);
    let flags_of_two = flags(&format!("{{at=0.3,do=\"stop\",nats=\"nats-9\"}},{kill}"));
    node = ends_at(node, Misdeed::SayProcessorTime, &flags_of_one, 0, &said);
    assert_eq!(told("node-2"), "\n");
    let report: serde_json::Value = serde_json::from_str(&told("json")).expect("JSON");
    assert_eq!(
        (&report["nodes"][1]["name"], &report["faults"][0]["name"]),
        (&"node-2".into(), &"kill node-2".into())
    );
    assert!(report["nodes"][0]["samples"].as_array().is_some_and(|samples| !samples.is_empty()), "{report}");
    let page = told("html");
    assert!(page.contains("<h2>Each node</h2>") && page.contains("<title>1: kill node-2</title>"));
    // The faults stand in the order of their times. A command that failed is named, and fails the run.
    let said = ["fault 2      after", "stop nats-9: exit status: 7, took", "FAILED fault `stop nats-9`"];
    ends_at(node, Misdeed::SayProcessorTime, &flags_of_two, 99, &said);
    assert!(
        told("json").contains("stop nats-9")
            && told("html").contains("exit status: 7")
            && told("node-2") == "\n"
    );
}
