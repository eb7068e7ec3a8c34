//! HTTP/1.1 answers of the node's doors, read from the bytes received so far. Pure.

/// The head of an answer: status line and headers.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    pub(crate) code: u16,
    /// Length of the head. The body, or the first frame after an upgrade, starts behind.
    pub(crate) bytes: usize,
    headers: Vec<httparse::Header<'a>>,
}

/// The `Authorization` line of a request; empty without a token.
pub(crate) fn authorization(bearer: Option<&str>) -> String {
    bearer.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default()
}

/// The code of a door that does not know the `Host` of a request.
pub(crate) const FOREIGN_HOST: u16 = 421;

/// The trouble behind [`FOREIGN_HOST`], and the remedy.
pub(crate) fn foreign_host(authority: &str) -> String {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    format!(
        "HTTP {FOREIGN_HOST}: a door without keys does not know the host {host}; add \"{host}\" to `hosts` in the \
         node's configuration"
    )
}

/// Reads the head of an answer; `None` while the end of the head is missing.
///
/// # Errors
/// A sentence about bytes that are no HTTP, or about a head of more than `bytes_max`.
pub(crate) fn read_head(received: &[u8], bytes_max: usize) -> Result<Option<Head<'_>>, String> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(received) {
        Ok(httparse::Status::Complete(bytes)) => {
            let code = response.code.unwrap_or(0);
            Ok(Some(Head { code, bytes, headers: response.headers.to_vec() }))
        }
        Ok(httparse::Status::Partial) if received.len() < bytes_max => Ok(None),
        // A peer that never ends its head would fill the generator's memory.
        Ok(httparse::Status::Partial) => Err("an endless answer".into()),
        Err(error) => Err(format!("no HTTP answer: {error}")),
    }
}

impl<'a> Head<'a> {
    /// The trimmed value of a header; `None` when absent or no UTF-8.
    pub(crate) fn header(&self, name: &str) -> Option<&'a str> {
        let found = self.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok().map(str::trim)
    }

    /// The body within `received`; `None` while the last byte of the body is missing.
    ///
    /// # Errors
    /// A sentence about a missing length, or about a body of more than `bytes_max`.
    pub(crate) fn body<'b>(&self, received: &'b [u8], bytes_max: usize) -> Result<Option<&'b [u8]>, String> {
        let length = self.header("content-length").and_then(|length| length.parse::<usize>().ok());
        match length {
            // roomcast never answers in chunks, so an answer without a length is from another program.
            None => Err("an answer without a Content-Length".into()),
            Some(length) if length > bytes_max => Err(format!("an answer of more than {bytes_max} bytes")),
            Some(length) => Ok(received.get(self.bytes..self.bytes + length)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(received: &[u8]) -> Result<Option<&[u8]>, String> {
        read_head(received, 64)?.map_or(Ok(None), |head| head.body(received, 64))
    }

    #[test]
    fn a_body_is_there_with_its_last_byte() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\na 1\nb";
        for end in 0..answer.len() {
            assert_eq!(body(&answer[..end]), Ok(None), "{end} bytes");
        }
        assert_eq!(body(answer), Ok(Some(&b"a 1\nb"[..])));
        assert!(body(b"HTTP/1.1 200 OK\r\n\r\nendless").is_err());
        assert!(body(b"HTTP/1.1 200 OK\r\ncontent-length: 65\r\n\r\n").is_err());
    }

    #[test]
    fn a_head_without_an_end_is_given_up_past_its_bound() {
        let head = [b"HTTP/1.1 200 OK\r\n".as_slice(), &[b'x'; 64]].concat();
        assert!(matches!(read_head(&head[..63], 64), Ok(None)));
        assert!(read_head(&head, 64).is_err());
    }
}
