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
    let Target { ops_doors, publisher_doors, publisher_key, .. } = &plan.target;
    ops_doors.iter().try_for_each(look_at_operators)?;
    publisher_doors.iter().try_for_each(|door| look_at_publishers(door, publisher_key.as_deref()))
}

fn look_at_operators(door: &Door) -> Result<(), String> {
    let ready = match door.ask("/readyz", None, ANSWER_AGE_MAX) {
        Ok(200) => Ok(()),
        // Starting or draining.
        Ok(503) => Err("the node is not ready".to_owned()),
        Ok(code) => Err(format!("/readyz answers {code}, not roomcast")),
        Err(reason) => Err(reason),
    };
    ready.map_err(|reason| format!("operator door {door}: {reason}"))
}

fn look_at_publishers(door: &Door, publisher_key: Option<&str>) -> Result<(), String> {
    let rooms = match door.ask("/v1/rooms?limit=1", publisher_key, ANSWER_AGE_MAX) {
        Ok(200) => Ok(()),
        Ok(401 | 403) => Err("wants another --publisher-key".to_owned()),
        Ok(code) => Err(format!("/v1/rooms answers {code}, not roomcast")),
        Err(reason) => Err(reason),
    };
    rooms.map_err(|reason| format!("publisher door {door}: {reason}"))
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
    let Target { viewer_doors, ops_doors, publisher_doors, publisher_key, device_token, .. } = &plan.target;
    let page = page_path(&room_name(&plan.target.room_stem, 0), None);
    // Without devices the viewer doors are no part of the run.
    let viewer_doors = if plan.devices > 0 { &**viewer_doors } else { &[] };
    let bearer = publisher_key.as_deref();
    let operators =
        ops_doors.iter().map(|door| Question { name: "operator", door, path: "/readyz", bearer: None });
    let publishers = publisher_doors.iter();
    let publishers =
        publishers.map(|door| Question { name: "publisher", door, path: "/v1/rooms?limit=1", bearer });
    let bearer = device_token.as_deref();
    let viewers = viewer_doors.iter().map(|door| Question { name: "viewer", door, path: &page, bearer });
    let questions: Vec<Question<'_>> = operators.chain(publishers).chain(viewers).collect();
    // All at once: three doors of a node that hangs cost the time of one.
    let silences: Vec<Option<String>> = std::thread::scope(|scope| {
        let asked: Vec<_> =
            questions.iter().map(|question| scope.spawn(|| question.silence(ANSWER_AGE_MAX_AFTER))).collect();
        asked.into_iter().map(|asked| asked.join().ok().flatten()).collect()
    });
    // A run through restarts may end with a node of the cluster dead, while another node answers.
    let is_borne = |name: &str| {
        let mut same = questions.iter().zip(&silences).filter(|(question, _)| question.name == name);
        plan.awkward.through_restarts && same.any(|(_, silence)| silence.is_none())
    };
    let silent = questions.iter().zip(&silences).filter(|(question, _)| !is_borne(question.name));
    let silent: Vec<&str> = silent.filter_map(|(_, silence)| silence.as_deref()).collect();
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
