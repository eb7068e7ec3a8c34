//! The selftest as a whole: a worker, a source and a publisher of this machine.

use std::process::Command;

#[test]
fn a_selftest_verifies_every_frame_and_says_how_fast() {
    let file = std::env::temp_dir().join(format!("roomcast-selftest-{}.json", std::process::id()));
    let tested = Command::new(env!("CARGO_BIN_EXE_roomcast-loadgen"))
        .args(["selftest", "--devices", "5", "--seconds", "1", "--json"])
        .arg(&file)
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&tested.stdout);
    assert_eq!(tested.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&tested.stderr));
    assert!(said.contains("frames/s verified per core"), "{said}");
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).expect("a report")).expect("JSON");
    drop(std::fs::remove_file(&file));
    for part in ["batched", "single"] {
        let of = |name: &str| report[part][name].as_u64().expect("a count");
        // Each frame is decoded once and compared four times, unless a device was far behind.
        assert!(
            of("frames") >= 5 && of("frames").is_multiple_of(5) && of("decoded") >= of("frames") / 5,
            "{report}"
        );
    }
    assert_eq!(
        (report["publishing"]["sent"].as_u64(), report["publishing"]["ok"].as_u64()),
        (Some(2_000), Some(2_000))
    );
}
