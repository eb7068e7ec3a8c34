//! The fake node's connections: a thread for each, and the requests on it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

/// Serves every connection of a listener on a thread of its own, with its place in the order of arrival.
pub(crate) fn accept(listener: TcpListener, serve: impl Fn(TcpStream, usize) + Send + Sync + 'static) {
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for (arrival, stream) in listener.incoming().flatten().enumerate() {
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || serve(stream, arrival));
        }
    });
}

/// One request.
pub(crate) struct Request {
    pub(crate) path: String,
    /// It publishes; others only look.
    pub(crate) is_post: bool,
    /// Its body is protobuf.
    pub(crate) is_proto: bool,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// The room of its path.
    pub(crate) fn room(&self) -> &str {
        self.path.split('/').nth(3).unwrap_or_default()
    }
}

/// The next request of a connection; `None` when there is none to come.
pub(crate) fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        head.push(line.to_ascii_lowercase());
    }
    let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Request {
        path: head[0].split(' ').nth(1).unwrap_or_default().to_owned(),
        is_post: head[0].starts_with("post"),
        is_proto: head.iter().any(|line| line.contains("content-type: application/x-protobuf")),
        body,
    })
}
