//! The answer to a pull of a room's reliable stream, from bytes to a page. Pure.

use crate::wire::frame::{Welcome, decode_page};
use crate::wire::http::read_head;

/// Largest answer accepted: 8 MiB of live messages in one room, with room for their JSON spelling.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The path of the part of `room`'s reliable stream behind `cursor`; without a cursor of the whole stream.
pub(crate) fn page_path(room: &str, cursor: Option<&str>) -> String {
    let after = cursor.map(|cursor| format!("?after={cursor}")).unwrap_or_default();
    format!("/v1/rooms/{room}/reliable{after}")
}

/// Reads a page from the bytes received so far; `None` while bytes are missing.
///
/// # Errors
/// A sentence about an answer that holds no page.
pub(crate) fn read_page(received: &[u8]) -> Result<Option<Welcome>, String> {
    let Some(head) = read_head(received, ANSWER_BYTES_MAX)? else { return Ok(None) };
    let Some(body) = head.body(received, ANSWER_BYTES_MAX)? else { return Ok(None) };
    // The body first: the connection may be closed only behind the whole answer.
    match head.code {
        200 => decode_page(body).map(Some),
        code => Err(format!("HTTP {code}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_whole_only_with_its_last_byte() {
        let body = r#"{"room":"r","epoch":"0e","offset":9,"reset":null,"after":7,"through":9,"reliable":[
            {"type":"coupon","payload":"x","id":"a","offset":8}]}"#;
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        for end in 0..answer.len() {
            assert_eq!(read_page(&answer.as_bytes()[..end]), Ok(None), "{end} bytes");
        }
        let page = read_page(answer.as_bytes()).unwrap().expect("a page");
        assert_eq!((page.after, page.through, page.offset, page.reliable.len()), (7, 9, 9, 1));
        assert!(read_page(b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n").is_err());
        assert!(read_page(b"HTTP/1.1 200 X\r\n\r\n").is_err());
    }
}
