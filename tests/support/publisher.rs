//! An HTTP/1.1 client written by hand, so that a test can send what no library would.

use std::fmt;
use std::net::SocketAddr;

use prost::Message as _;
use roomcast_core::proto;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::comes;

/// `application/json`
pub(crate) const JSON: &str = "application/json";
/// `application/x-protobuf`
pub(crate) const PROTO: &str = "application/x-protobuf";

/// One door of a node, spoken to over a connection of its own for each request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Door(pub(crate) SocketAddr);

/// What a door answered.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Door {
    /// `GET`
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], b"").await
    }

    /// `DELETE`
    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.request("DELETE", path, &[], b"").await
    }

    /// `PUT` of a JSON value.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.request("PUT", path, &[("content-type", JSON)], body.to_string().as_bytes()).await
    }

    /// Publishes in JSON.
    pub(crate) async fn publish(&self, room: &str, request: &Value) -> Answer {
        self.publish_bytes(room, JSON, request.to_string().as_bytes()).await
    }

    /// Publishes in JSON at a door that may be gone.
    pub(crate) async fn try_publish(&self, room: &str, request: &Value) -> Option<Answer> {
        let (path, headers) = (format!("/v1/rooms/{room}/messages"), [("content-type", JSON)]);
        let answer = self.try_request("POST", &path, &headers, request.to_string().as_bytes()).await?;
        // Half an answer is none.
        serde_json::from_slice::<Value>(&answer.body).is_ok().then_some(answer)
    }

    /// Publishes in protobuf.
    pub(crate) async fn publish_proto(&self, room: &str, messages: Vec<proto::PublishMessage>) -> Answer {
        let request = proto::PublishRequest { messages }.encode_to_vec();
        self.publish_bytes(room, PROTO, &request).await
    }

    /// Publishes whatever these bytes are.
    pub(crate) async fn publish_bytes(&self, room: &str, content_type: &str, body: &[u8]) -> Answer {
        let path = format!("/v1/rooms/{room}/messages");
        self.request("POST", &path, &[("content-type", content_type)], body).await
    }

    /// One request with a well-formed head.
    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let answer = self.try_request(method, path, headers, body).await;
        answer.unwrap_or_else(|| panic!("no answer to {method} {path}"))
    }

    /// Likewise; `None`: the door could not be reached, or closed without an answer.
    pub(crate) async fn try_request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Option<Answer> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.0);
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || method == "POST" {
            request.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        let mut request = request.into_bytes();
        request.extend_from_slice(body);
        self.say(&request).await
    }

    /// Sends these bytes and reads the answer. `None`: the door closed without one.
    pub(crate) async fn say(&self, request: &[u8]) -> Option<Answer> {
        comes("an answer", async {
            let mut stream = TcpStream::connect(self.0).await.ok()?;
            // A door that refuses a request need not read all of it.
            drop(stream.write_all(request).await);
            read_answer(&mut stream).await
        })
        .await
    }
}

/// Reads one answer off a connection. `None`: it ended before a whole head.
pub(crate) async fn read_answer(stream: &mut TcpStream) -> Option<Answer> {
    let mut read = Vec::new();
    let head_end = loop {
        if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    };
    let mut body = read.split_off(head_end);
    let head = String::from_utf8(read).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            break;
        }
    }
    Some(Answer { status, headers, body })
}

/// With its body as text: it is read by people, when a test fails.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {}", self.status, self.headers, String::from_utf8_lossy(&self.body))
    }
}

impl Answer {
    /// Its body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// Its body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// What became of each message of a publish, in order; with its reason where one was given.
    pub(crate) fn results(&self) -> Vec<String> {
        let results = self.json()["results"].as_array().cloned().unwrap_or_default();
        let spelt = results.iter().map(|one| match one["reason"].as_str() {
            Some(reason) => format!("{}: {reason}", one["result"].as_str().unwrap()),
            None => one["result"].as_str().unwrap().to_owned(),
        });
        spelt.collect()
    }

    /// Asserts that it is a problem of this status, code and field, in the shape problems have.
    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16, code: &str, field: Option<&str>) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["field"].as_str(), field, "{problem}");
        assert_eq!(problem["type"], "about:blank", "{problem}");
        assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()), "{problem}");
        if matches!(status, 429 | 503) {
            let wait = self.header("retry-after").and_then(|wait| wait.parse::<u64>().ok());
            assert!(wait.is_some_and(|wait| wait >= 1), "{self:?}");
        }
    }
}
