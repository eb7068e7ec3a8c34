//! After the run: the living messages of a reliable stream, pulled at the viewer door like a device does.

use std::time::Duration;

use crate::clock::monotonic_ns;
use crate::devices::streams::Original;
use crate::ledger::{Kind, Stored, Violations};
use crate::scenario::plan::{Target, room_name};
use crate::wire::doors::ANSWER_AGE_MAX;
use crate::wire::frame::Welcome;
use crate::wire::page::{page_path, read_page};

/// More time for each page that came: a run of many rooms has many, and a node that answers is no node that
/// hangs.
const PAGE_NS: u64 = 10_000_000;
/// Least time left for an attempt, since a limit of 0 is no limit for the kernel.
const ATTEMPT_MS_MIN: u64 = 1;
/// Pages of a room, past which the stream has no end.
const PAGES_MAX: usize = 10_000;

/// The time for all pulls of a run.
#[derive(Debug, Clone)]
pub(crate) struct PullTime {
    pub(crate) deadline_ns: u64,
    /// The node does not answer, in words: no pull is tried.
    pub(crate) silence: Option<String>,
}

/// Pulls the stored messages of `room`, and judges each message by itself.
///
/// # Errors
/// A sentence, when the node does not answer until the deadline.
pub(crate) fn pull(
    target: &Target,
    room: u32,
    original: &Original,
    time: &mut PullTime,
    violations: &mut Violations,
) -> Result<Stored, String> {
    if let Some(silence) = &time.silence {
        return Err(silence.clone());
    }
    let name = room_name(&target.room_stem, room);
    let mut stored = Stored { asked_ns: monotonic_ns(), ..Stored::default() };
    let mut cursor = None;
    let mut scratch = Vec::new();
    for _ in 0..PAGES_MAX {
        let page = ask_patiently(target, &page_path(&name, cursor.as_deref()), time.deadline_ns)?;
        time.deadline_ns += PAGE_NS;
        stored.epoch.clone_from(&page.epoch);
        for message in &page.reliable {
            match original.tell(room, message, &mut scratch) {
                Ok(what) => drop(stored.messages.insert(message.offset, what)),
                Err(kind) => violations.add(kind, 1, || {
                    format!(
                        "room {room}: offset {} in the store is no message of this run: id {:?}",
                        message.offset, message.id
                    )
                }),
            }
        }
        if page.room != name {
            violations
                .add(Kind::I5OtherRoom, 1, || format!("I5 room {room}: a pull gave room {}", page.room));
        }
        // A cursor that does not move would ask for the same page for ever.
        let next = format!("{}:{}", page.epoch, page.through);
        if page.through >= page.offset || page.epoch.is_empty() || cursor.as_ref() == Some(&next) {
            return Ok(stored);
        }
        cursor = Some(next);
    }
    Err(format!("{name}: more than {PAGES_MAX} pages"))
}

/// Asks again until the deadline, at the viewer doors in turn, because a node may be starting.
fn ask_patiently(target: &Target, path: &str, deadline_ns: u64) -> Result<Welcome, String> {
    for door in target.viewer_doors.iter().cycle() {
        let left_ms = deadline_ns.saturating_sub(monotonic_ns()) / 1_000_000;
        let age_max = Duration::from_millis(left_ms.max(ATTEMPT_MS_MIN)).min(ANSWER_AGE_MAX);
        match door.exchange(path, target.device_token.as_deref(), age_max, read_page) {
            Ok(page) => return Ok(page),
            Err(reason) if monotonic_ns() >= deadline_ns => return Err(reason),
            Err(_) => std::thread::park_timeout(Duration::from_millis(200)),
        }
    }
    Err("no viewer door".into())
}
