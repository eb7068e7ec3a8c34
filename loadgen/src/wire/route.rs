//! The answer to `GET /v1/route`: the nodes for a room, from bytes. Pure.

use serde::Deserialize;

use crate::wire::doors::Door;
use crate::wire::http::read_head;

/// Largest answer accepted: some hundred nodes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Nodes read of an answer. Later nodes are left out.
const NODES_MAX: usize = 64;

/// The nodes for a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    /// Doors and their weights, at least one.
    pub(crate) nodes: Vec<(Door, u64)>,
    /// Milliseconds for which the answer holds.
    pub(crate) ttl_ms: u64,
}

#[derive(Debug, Deserialize)]
struct JsonRoute {
    nodes: Vec<JsonNode>,
    ttl_ms: u64,
}

#[derive(Debug, Deserialize)]
struct JsonNode {
    url: String,
    weight: u64,
}

/// The path of the question for `room`.
pub(crate) fn route_path(room: &str) -> String {
    format!("/v1/route?room={room}")
}

/// Reads a route from the bytes received so far; `None` while bytes are missing.
///
/// # Errors
/// A sentence about an answer that names no node.
pub(crate) fn read_route(received: &[u8]) -> Result<Option<Route>, String> {
    let Some(head) = read_head(received, ANSWER_BYTES_MAX)? else { return Ok(None) };
    let Some(body) = head.body(received, ANSWER_BYTES_MAX)? else { return Ok(None) };
    if head.code != 200 {
        return Err(format!("HTTP {}", head.code));
    }
    let JsonRoute { nodes, ttl_ms } =
        serde_json::from_slice(body).map_err(|error| format!("no route: {error}"))?;
    let nodes = nodes.into_iter().take(NODES_MAX);
    let nodes = nodes.map(|node| Ok((viewer_door(&node.url)?, node.weight)));
    let nodes = nodes.collect::<Result<Vec<_>, String>>()?;
    if nodes.is_empty() {
        return Err("a route without a node".into());
    }
    Ok(Some(Route { nodes, ttl_ms }))
}

/// A viewer door that a node names.
///
/// # Errors
/// A sentence about a URL that devices here can't use.
pub(crate) fn viewer_door(url: &str) -> Result<Door, String> {
    let door: Door = url.parse().map_err(|error| format!("{url:?}: {error}"))?;
    if door.scheme == "ws" { Ok(door) } else { Err(format!("{url:?}: devices here speak ws:// alone")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &str) -> Vec<u8> {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    #[test]
    fn a_route_names_nodes_with_weights_and_its_life() {
        let body = r#"{"room":"r1","nodes":[{"url":"ws://127.0.0.1:7600","region":"eu","weight":70},
            {"url":"ws://127.0.0.1:7700","region":"","weight":0}],"ttl_ms":10000}"#;
        let answer = answer(body);
        assert_eq!(read_route(&answer[..answer.len() - 1]), Ok(None));
        let route = read_route(&answer).unwrap().expect("a route");
        let nodes: Vec<_> = route.nodes.iter().map(|(door, weight)| (door.to_string(), *weight)).collect();
        assert_eq!(nodes, [("ws://127.0.0.1:7600".to_owned(), 70), ("ws://127.0.0.1:7700".to_owned(), 0)]);
        assert_eq!(route.ttl_ms, 10_000);
    }

    #[test]
    fn an_answer_without_a_node_is_no_route() {
        for body in [
            r#"{"room":"r1","nodes":[],"ttl_ms":1}"#,
            r#"{"nodes":[{"url":"wss://127.0.0.1:1","weight":1}],"ttl_ms":1}"#,
            r#"{"nodes":[{"url":"nonsense","weight":1}],"ttl_ms":1}"#,
            "{}",
        ] {
            assert!(read_route(&answer(body)).is_err(), "{body}");
        }
        assert!(read_route(b"HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n").is_err());
    }
}
