//! The answer to a pull of a room's reliable stream, as bytes. Pure.

use crate::wire::frame::{StreamPage, decode_page};

/// Largest answer that is waited for: everything alive of a room (8 MiB), as JSON.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What the bytes read so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Read {
    /// Not the whole answer yet.
    Half,
    /// No page, in words.
    Bad(String),
    /// A page.
    Whole(StreamPage),
}

/// Reads what was answered so far.
#[must_use]
pub(crate) fn read_page(bytes: &[u8]) -> Read {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let head_bytes = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < ANSWER_BYTES_MAX => return Read::Half,
        Ok(httparse::Status::Partial) => return Read::Bad("an endless answer".into()),
        Err(error) => return Read::Bad(format!("no HTTP answer: {error}")),
    };
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok());
    let Some(body_bytes) = length.filter(|bytes: &usize| *bytes <= ANSWER_BYTES_MAX) else {
        return Read::Bad("an answer without a Content-Length, or of more than 32 MiB".into());
    };
    let Some(body) = bytes.get(head_bytes..head_bytes + body_bytes) else { return Read::Half };
    match response.code {
        Some(200) => decode_page(body).map_or_else(Read::Bad, Read::Whole),
        code => Read::Bad(format!("HTTP {}", code.unwrap_or(0))),
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
            assert_eq!(read_page(&answer.as_bytes()[..end]), Read::Half, "{end} bytes");
        }
        let Read::Whole(page) = read_page(answer.as_bytes()) else { panic!("a page") };
        assert_eq!((page.span.after, page.span.through, page.offset, page.reliable.len()), (7, 9, 9, 1));
        assert!(matches!(read_page(b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n"), Read::Bad(_)));
        assert!(matches!(read_page(b"HTTP/1.1 200 X\r\n\r\n"), Read::Bad(_)));
    }
}
