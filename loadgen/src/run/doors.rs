//! The doors of the node before and after the run: is roomcast there, and is the node there still.

use std::time::Duration;

use crate::clock::{monotonic_ns, sleep_until};
use crate::scenario::plan::{Plan, Target, room_name};
use crate::wire::doors::{ANSWER_AGE_MAX, ANSWER_AGE_MAX_AFTER, Door};
use crate::wire::page::page_path;

/// Time between two looks at a node that may be restarting.
const LOOK_AGAIN_NS: u64 = 200_000_000;

/// Checks by one request each that roomcast answers at the doors.
///
/// # Errors
/// A sentence with the door and the trouble.
pub(crate) fn look(plan: &Plan) -> Result<(), String> {
    let Target { ops_door, publisher_door, publisher_key, .. } = &plan.target;
    let ready = match ops_door.ask("/readyz", None, ANSWER_AGE_MAX) {
        Ok(200) => Ok(()),
        // Starting or draining.
        Ok(503) => Err("the node is not ready".to_owned()),
        Ok(code) => Err(format!("/readyz answers {code}, not roomcast")),
        Err(reason) => Err(reason),
    };
    ready.map_err(|reason| format!("operator door {ops_door}: {reason}"))?;
    let rooms = match publisher_door.ask("/v1/rooms?limit=1", publisher_key.as_deref(), ANSWER_AGE_MAX) {
        Ok(200) => Ok(()),
        Ok(401 | 403) => Err("wants another --publisher-key".to_owned()),
        Ok(code) => Err(format!("/v1/rooms answers {code}, not roomcast")),
        Err(reason) => Err(reason),
    };
    rooms.map_err(|reason| format!("publisher door {publisher_door}: {reason}"))
}

/// The doors without an answer after the run, in words; `None`: all doors answer. A node that may restart is
/// asked again until `until_ns`.
///
/// Any answer counts, since a door may refuse by its own rules. A node that froze with every message delivered
/// breaks no other promise, so without this look its run would be a good run.
pub(crate) fn silence(plan: &Plan, until_ns: u64) -> Option<String> {
    loop {
        let silence = silent_doors(plan)?;
        if !plan.awkward.through_restarts || monotonic_ns() >= until_ns {
            return Some(silence);
        }
        sleep_until(monotonic_ns() + LOOK_AGAIN_NS);
    }
}

fn silent_doors(plan: &Plan) -> Option<String> {
    let Target { viewer_door, ops_door, publisher_door, publisher_key, device_token, .. } = &plan.target;
    let page = page_path(&room_name(&plan.target.room_stem, 0), None);
    let mut questions = vec![
        Question { name: "operator", door: ops_door, path: "/readyz", bearer: None },
        Question {
            name: "publisher",
            door: publisher_door,
            path: "/v1/rooms?limit=1",
            bearer: publisher_key.as_deref(),
        },
    ];
    // Without devices the viewer door is no part of the run.
    if plan.devices > 0 {
        let bearer = device_token.as_deref();
        questions.push(Question { name: "viewer", door: viewer_door, path: &page, bearer });
    }
    // All at once: three doors of a node that hangs cost the time of one.
    let silent: Vec<String> = std::thread::scope(|scope| {
        let asked: Vec<_> =
            questions.iter().map(|question| scope.spawn(|| question.silence(ANSWER_AGE_MAX_AFTER))).collect();
        asked.into_iter().filter_map(|asked| asked.join().ok().flatten()).collect()
    });
    (!silent.is_empty()).then(|| format!("the node does not answer: {}", silent.join("; ")))
}

struct Question<'a> {
    name: &'a str,
    door: &'a Door,
    path: &'a str,
    bearer: Option<&'a str>,
}

impl Question<'_> {
    fn silence(&self, age_max: Duration) -> Option<String> {
        let Self { name, door, path, bearer } = self;
        door.ask(path, *bearer, age_max).err().map(|reason| format!("{name} door {door}: {reason}"))
    }
}
