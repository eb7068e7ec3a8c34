//! Doors without keys refuse what a stranger's web page may have caused.
//!
//! A browser beside the node sends any page's requests to it, and a page can point a name of its own at this
//! machine. A door with keys is safe from both: the page has no key.

use std::net::IpAddr;

use hyper::header::{HOST, ORIGIN};
use hyper::{HeaderMap, StatusCode};

use super::problem::Problem;
use super::request::only;
use crate::auth::Hosts;

/// Checks that a request to the open door on `door` names this machine in its `Host`.
///
/// # Errors
/// 421 `host_not_allowed`.
pub(super) fn check_own_host(headers: &HeaderMap, hosts: &Hosts, door: IpAddr) -> Result<(), Problem> {
    // Only HTTP/1.0 has no Host, and no browser speaks it.
    if !headers.contains_key(HOST)
        || only(headers, &HOST).is_some_and(|host| hosts.are_reached_by(host, door))
    {
        return Ok(());
    }
    Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "host_not_allowed")
        .field("host")
        .allowed("localhost, a loopback address, the door's own address, or a name in hosts"))
}

/// Checks that a request to the open door on `door` comes from no page, or from a page of this machine, and
/// names this machine.
///
/// # Errors
/// 421 `host_not_allowed`, 403 `origin_not_allowed`.
pub(super) fn check_not_foreign(headers: &HeaderMap, hosts: &Hosts, door: IpAddr) -> Result<(), Problem> {
    check_own_host(headers, hosts, door)?;
    if !headers.contains_key(ORIGIN)
        || only(headers, &ORIGIN).is_some_and(|page| hosts.serve_page(page, door))
    {
        return Ok(());
    }
    Err(Problem::new(StatusCode::FORBIDDEN, "origin_not_allowed")
        .field("origin")
        .allowed("no Origin, or one of this machine or of a name in hosts: the door has no keys"))
}
