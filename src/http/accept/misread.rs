//! Refusals of bytes that are no request. hyper refuses such bytes by itself, with a status alone. A peer
//! hears a problem instead, as for every other refusal.

use hyper::StatusCode;

use crate::http::problem::Problem;
use roomcast_core::limits::{HEAD_BYTES_MAX, REQUEST_BYTES_MAX};

/// A refusal in our words, on its way to the socket.
#[derive(Debug)]
pub(super) struct Misread {
    pub(super) answer: Vec<u8>,
    /// Bytes of `answer` that the socket has taken.
    pub(super) written: usize,
}

impl Misread {
    /// Our words for the answer that hyper begins to write. `None`: the answer is no refusal of hyper's own.
    pub(super) fn instead_of(hypers: &[u8], is_immense: bool) -> Option<Self> {
        let status = hypers.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
        let problem = match StatusCode::from_bytes(status).ok()? {
            StatusCode::BAD_REQUEST | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE if is_immense => {
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large")
                    .allowed(format!("a body of at most {REQUEST_BYTES_MAX} bytes"))
            }
            StatusCode::BAD_REQUEST => Problem::new(StatusCode::BAD_REQUEST, "bad_request")
                .allowed("a request of HTTP/1.1 (RFC 9112)"),
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large")
                    .allowed(format!("a head of at most {HEAD_BYTES_MAX} bytes and 100 lines"))
            }
            StatusCode::URI_TOO_LONG => Problem::new(StatusCode::URI_TOO_LONG, "target_too_long")
                .allowed(format!("a head of at most {HEAD_BYTES_MAX} bytes")),
            _ => return None,
        };
        Some(Self { answer: problem.spelt(), written: 0 })
    }
}

/// True if a line of a head announces a body whose length takes twenty digits or more: past the reach of
/// hyper's numbers, and past every limit.
///
/// A length that two reads cut in half is missed. The request is then refused as no request.
pub(super) fn announces_too_much(head: &[u8]) -> bool {
    let lines = head.split(|byte| *byte == b'\n');
    lines.filter_map(|line| line.split_at_checked(CONTENT_LENGTH.len())).any(|parts| {
        let digits = parts.1.trim_ascii();
        let significant = digits.iter().skip_while(|digit| **digit == b'0').count();
        parts.0.eq_ignore_ascii_case(CONTENT_LENGTH)
            && significant >= 20
            && digits.iter().all(u8::is_ascii_digit)
    })
}

const CONTENT_LENGTH: &[u8] = b"content-length:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_hypers_own_is_said_in_our_words() {
        let said = |hypers: &[u8], is_immense| {
            let answer = Misread::instead_of(hypers, is_immense)?.answer;
            Some(String::from_utf8(answer).unwrap())
        };
        let refused = said(b"HTTP/1.1 400 Bad Request\r\n", false).unwrap();
        assert!(refused.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{refused}");
        assert!(refused.contains("\r\ncontent-type: application/problem+json\r\n"), "{refused}");
        let (head, body) = refused.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
        assert!(body.contains(r#""code":"bad_request""#), "{body}");
        let immense = said(b"HTTP/1.1 400 Bad Request\r\n", true).unwrap();
        assert!(immense.starts_with("HTTP/1.1 413 ") && immense.contains("request_too_large"), "{immense}");
        let head = said(b"HTTP/1.1 431 Request Header Fields Too Large\r\n", false).unwrap();
        assert!(head.contains("head_too_large"), "{head}");
        assert_eq!(said(b"HTTP/1.1 200 OK\r\n", false), None);
        assert_eq!(said(b"HTTP/1.1 101 Switching Protocols\r\n", false), None);
    }

    #[test]
    fn a_length_past_all_numbers_is_found_in_a_head() {
        let head = |value: &str| format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {value}\r\n\r\n");
        for immense in ["18446744073709551615", "99999999999999999999999", " 18446744073709551616 "] {
            assert!(announces_too_much(head(immense).as_bytes()), "{immense}");
        }
        for other in
            ["7", "9223372036854775808", "0000000000000000000000007", "-1", "x", "1844674407370955161x5"]
        {
            assert!(!announces_too_much(head(other).as_bytes()), "{other}");
        }
    }
}
