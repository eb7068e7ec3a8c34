//! The health check of a container, whose image has no shell and no curl: a question to the node's own operator
//! door.

use std::io;
use std::net::SocketAddr;

use roomcast_core::limits::{HEALTH_AGE_MAX, HEALTH_BYTES_MAX};

use crate::door::{DoorAnswer, DoorQuestion, OpsDoor};

/// Asks the node with this operator door for `/healthz`, and returns its answer.
///
/// # Errors
/// No node answers there in time, or it does not answer 200.
pub fn check(ops_listen: SocketAddr) -> io::Result<String> {
    let question =
        DoorQuestion { path: "/healthz", key: None, age_max: HEALTH_AGE_MAX, bytes_max: HEALTH_BYTES_MAX };
    match OpsDoor::of(ops_listen).ask(&question)? {
        DoorAnswer { status: 200, body } => Ok(body),
        DoorAnswer { status, body } => Err(io::Error::other(format!("not healthy: {status} {body:?}"))),
    }
}
