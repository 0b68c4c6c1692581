//! Problem documents for requests that the HTTP parser refuses.
//!
//! The dispatcher of actix-http answers them itself, before any middleware, with a status and an empty body, and has no
//! hook for it. [`ProtocolErrors`] stands between it and the socket and writes a problem document in place of such a
//! response. All responses of the application carry a request id, which tells them apart.

use std::io;
use std::task::Poll;

use actix_web::body::MessageBody as _;
use actix_web::http::StatusCode;

use super::headers::REQUEST_ID;
use super::problem::Problem;
use super::request_meta::request_id;

/// Longest response of the dispatcher, in bytes: a status line and the headers `content-length`, `connection`, `date`.
const EMPTY_RESPONSE_MAX: usize = 256;
/// End of a head without a body.
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// Replaces the dispatcher's empty error responses on one connection.
#[derive(Debug, Default)]
pub struct ProtocolErrors {
    /// Unwritten rest of a problem document.
    unwritten: Vec<u8>,
    /// Whether a problem document was written; it is the last response of its connection.
    has_failed: bool,
}

impl ProtocolErrors {
    /// Writes `bytes` by `write`, a problem document in place of an empty error response at their end. Returns how many
    /// of `bytes` are done with.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn poll_write(
        &mut self,
        bytes: &[u8],
        mut write: impl FnMut(&[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let Some((start, status)) = empty_error(bytes) else { return write(bytes) };
        if start > 0 {
            return write(&bytes[..start]);
        }
        if !self.has_failed {
            self.has_failed = true;
            self.unwritten = last_response(problem_of(status));
        }
        while !self.unwritten.is_empty() {
            match write(&self.unwritten) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => drop(self.unwritten.drain(..written)),
                other => return other,
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    /// Whether a request of this connection was refused by the parser.
    pub fn has_failed(&self) -> bool {
        self.has_failed
    }
}

/// Position and status of an empty error response at the end of `bytes`.
fn empty_error(bytes: &[u8]) -> Option<(usize, StatusCode)> {
    if !bytes.ends_with(END_OF_HEAD) {
        return None;
    }
    let tail = bytes.len().saturating_sub(EMPTY_RESPONSE_MAX);
    let is_start = |window: &[u8]| window == b"HTTP/1.";
    let start = tail + bytes[tail..].windows(7).rposition(is_start)?;
    let head = std::str::from_utf8(&bytes[start..]).ok()?.to_ascii_lowercase();
    let status = StatusCode::from_bytes(head.get(9..12)?.as_bytes()).ok()?;
    let is_empty = head.contains("\r\ncontent-length: 0\r\n") && head.find("\r\n\r\n") == Some(head.len() - 4);
    let is_ours = head.contains(REQUEST_ID.as_str());
    (status.as_u16() >= 400 && is_empty && !is_ours).then_some((start, status))
}

fn problem_of(status: StatusCode) -> Problem {
    match status {
        StatusCode::BAD_REQUEST => Problem::new(
            status,
            "malformed_request",
            "this is not a valid HTTP/1.1 request; check its first line, its headers and how its body is coded",
        ),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Problem::new(
            status,
            "request_head_too_large",
            "the first line and the headers of the request are too large; shorten its path, or remove headers or cookies",
        ),
        StatusCode::REQUEST_TIMEOUT => {
            Problem::new(status, "request_timeout", "the head of the request did not arrive in time; send it again")
        }
        status => Problem::from_status(status),
    }
}

/// The bytes of a response after which the connection is closed.
pub fn last_response(problem: Problem) -> Vec<u8> {
    let id = request_id(None);
    let (head, body) = problem.to_response(&id).into_parts();
    let body = body.try_into_bytes().unwrap_or_default();
    let mut response =
        format!("HTTP/1.1 {}\r\nconnection: close\r\n{REQUEST_ID}: {id}\r\n", head.status()).into_bytes();
    response.extend_from_slice(b"x-content-type-options: nosniff\r\n");
    for (name, value) in head.headers() {
        response.extend_from_slice(format!("{name}: ").as_bytes());
        response.extend_from_slice(value.as_bytes());
        response.extend_from_slice(b"\r\n");
    }
    response.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    response.extend_from_slice(&body);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\ndate: now\r\n\r\n";

    /// Writes everything through a socket that takes three bytes at a time and is full every other time.
    fn written(bytes: &[u8]) -> String {
        let (mut errors, mut taken, mut is_full) = (ProtocolErrors::default(), Vec::new(), false);
        let mut rest = bytes;
        while !rest.is_empty() {
            let polled = errors.poll_write(rest, |bytes| {
                is_full = !is_full;
                if is_full {
                    return Poll::Pending;
                }
                let some = &bytes[..bytes.len().min(3)];
                taken.extend_from_slice(some);
                Poll::Ready(Ok(some.len()))
            });
            if let Poll::Ready(done) = polled {
                rest = &rest[done.unwrap()..];
            }
        }
        String::from_utf8(taken).unwrap()
    }

    #[test]
    fn empty_error_is_replaced_after_other_responses() {
        let ok = "HTTP/1.1 200 OK\r\nx-request-id: 1\r\ncontent-length: 2\r\n\r\nok";
        let text = written(&[ok.as_bytes(), EMPTY].concat());
        let problem = text.strip_prefix(ok).unwrap();
        assert!(problem.starts_with("HTTP/1.1 400 Bad Request\r\nconnection: close\r\nx-request-id: "), "{problem}");
        assert!(problem.contains("malformed_request"), "{problem}");
        assert!(!problem.contains("date: now"), "{problem}");
    }

    #[test]
    fn other_responses_stay() {
        for text in [
            "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\nX-Request-Id: 1\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\n\r\n\r\n",
            "HTTP/1.",
            "\r\n\r\n",
        ] {
            assert_eq!(written(text.as_bytes()), text);
        }
    }
}
