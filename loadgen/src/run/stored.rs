//! After the run: the living messages of a reliable stream, pulled at the viewer door like a device does.

use std::time::Duration;

use crate::clock::monotonic_ns;
use crate::devices::streams::Original;
use crate::ledger::{Kind, Stored, Violations};
use crate::scenario::plan::{Target, room_name};
use crate::wire::frame::Welcome;
use crate::wire::page::{page_path, read_page};

/// The time of attempts at a page, because the node may be starting.
const ROOM_AGE_MAX_NS: u64 = 10_000_000_000;
/// Pages of a room, past which the stream has no end.
const PAGES_MAX: usize = 10_000;

/// Pulls the stored messages of `room`, and judges each message by itself.
pub(crate) fn pull(
    target: &Target,
    room: u32,
    original: &Original,
    violations: &mut Violations,
) -> Result<Stored, String> {
    let name = room_name(&target.room_stem, room);
    let mut stored = Stored { asked_ns: monotonic_ns(), ..Stored::default() };
    let mut cursor = None;
    let mut scratch = Vec::new();
    for _ in 0..PAGES_MAX {
        let page = ask_patiently(target, &page_path(&name, cursor.as_deref()))?;
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

fn ask_patiently(target: &Target, path: &str) -> Result<Welcome, String> {
    let deadline_ns = monotonic_ns() + ROOM_AGE_MAX_NS;
    loop {
        let begun_ns = monotonic_ns();
        match target.viewer_door.exchange(path, target.device_token.as_deref(), read_page) {
            Ok(page) => return Ok(page),
            Err(reason) if begun_ns >= deadline_ns => return Err(reason),
            Err(_) => std::thread::park_timeout(Duration::from_millis(200)),
        }
    }
}
