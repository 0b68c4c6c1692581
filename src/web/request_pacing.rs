//! Requests on one connection, handed to the dispatcher of actix-http one at a time.
//!
//! It decodes all requests that it has received, and keeps some kilobytes for each until its turn comes: a client that
//! sends thousands of the shortest requests at once (pipelining, RFC 9112 §9.3.2) would cost megabytes. So each read here
//! ends with the first request, and the next one waits for its response.

use std::io;
use std::task::{Context, Poll, Waker};

use actix_web::web::{Buf as _, BytesMut};
use memchr::memmem;
use tokio::io::ReadBuf;

/// Bytes at the end of a request's head. A body may contain them too, which only makes the reads shorter.
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// Bytes that were received on one connection and are not handed on yet.
#[derive(Debug, Default)]
pub struct RequestPacing {
    held: BytesMut,
    /// Whether the next read waits, so that the dispatcher decodes what it has.
    is_paused: bool,
    /// Whether what is held waits for the response to a request without a body.
    awaits_response: bool,
    reader: Option<Waker>,
}

impl RequestPacing {
    /// Fills `buffer` up to the end of the first request, from what is held or else by `read`.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
        read: impl FnOnce(&mut Context<'_>, &mut ReadBuf<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.is_paused) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !self.held.is_empty() {
            if self.awaits_response {
                self.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let length = first_request(&self.held).min(buffer.remaining());
            buffer.put_slice(&self.held[..length]);
            self.awaits_response = is_bodiless_request(&self.held[..length]);
            self.held.advance(length);
            self.is_paused = true;
            return Poll::Ready(Ok(()));
        }
        let start = buffer.filled().len();
        std::task::ready!(read(cx, buffer))?;
        let received = &buffer.filled()[start..];
        let length = first_request(received);
        if length < received.len() {
            self.awaits_response = is_bodiless_request(&received[..length]);
            self.held = BytesMut::from(&received[length..]);
            self.is_paused = true;
            buffer.set_filled(start + length);
        }
        Poll::Ready(Ok(()))
    }

    /// Goes on with what is held, because bytes of a response were written.
    pub fn on_write(&mut self) {
        self.awaits_response = false;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// Whether `bytes` are the head of a request after which another request follows.
fn is_bodiless_request(bytes: &[u8]) -> bool {
    let Some(head) = std::str::from_utf8(bytes).ok().and_then(|text| text.strip_suffix("\r\n\r\n")) else {
        return false;
    };
    let mut lines = head.split("\r\n");
    let is_request = lines.next().is_some_and(|line| line.contains(" HTTP/1."));
    let has_body = |line: &str| {
        let name = line.split(':').next().unwrap_or_default();
        ["content-length", "transfer-encoding", "upgrade"].iter().any(|body| name.eq_ignore_ascii_case(body))
    };
    is_request && !lines.any(has_body)
}

/// Number of bytes up to the end of the first head in `bytes`; all if there is none.
fn first_request(bytes: &[u8]) -> usize {
    memmem::find(bytes, END_OF_HEAD).map_or(bytes.len(), |start| start + END_OF_HEAD.len())
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Texts of the reads of a dispatcher with room for `room` bytes, of one that waits an empty one.
    fn reads(received: &[&str], room: usize) -> Vec<String> {
        let (mut pacing, mut received) = (RequestPacing::default(), received.iter());
        let mut texts = Vec::new();
        for _ in 0..100 {
            let mut memory = vec![0; room];
            let mut buffer = ReadBuf::new(&mut memory);
            let polled = pacing.poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer, |_, buffer| {
                buffer.put_slice(received.next().map_or(&[], |text| text.as_bytes()));
                Poll::Ready(Ok(()))
            });
            let text = String::from_utf8(buffer.filled().to_vec()).unwrap();
            match polled {
                Poll::Ready(read) if text.is_empty() => {
                    read.unwrap();
                    return texts;
                }
                _ => texts.push(text),
            }
        }
        panic!("it never ends: {texts:?}");
    }

    #[test]
    fn each_read_ends_with_a_request() {
        assert_eq!(reads(&["a\r\n\r\n", "b\r\n\r\n"], 99), ["a\r\n\r\n", "b\r\n\r\n"]);
        assert_eq!(reads(&["a\r\n\r\nb\r\n\r\nc"], 99), ["a\r\n\r\n", "", "b\r\n\r\n", "", "c", ""]);
        assert_eq!(reads(&["a\r\n\r\nbody", "more"], 99), ["a\r\n\r\n", "", "body", "", "more"]);
        assert_eq!(reads(&["a body without an end"], 99), ["a body without an end"]);
    }

    #[test]
    fn next_request_waits_for_the_response() {
        let mut pacing = RequestPacing::default();
        let text = b"GET /a HTTP/1.1\r\nhost: x\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 4\r\n\r\nbodyGET /c HTTP/1.1\r\n\r\n";
        let mut read = || {
            let mut memory = [0; 200];
            let mut buffer = ReadBuf::new(&mut memory);
            let polled = pacing.poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer, |_, buffer| {
                buffer.put_slice(text);
                Poll::Ready(Ok(()))
            });
            (polled.is_ready(), String::from_utf8(buffer.filled().to_vec()).unwrap())
        };
        assert!(read().1.starts_with("GET /a"));
        let _ = (read(), read());
        assert_eq!(read(), (false, String::new()));
        pacing.on_write();
        let mut read = || {
            let mut memory = [0; 200];
            let mut buffer = ReadBuf::new(&mut memory);
            let polled = pacing.poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer, |_, _| Poll::Pending);
            (polled.is_ready(), String::from_utf8(buffer.filled().to_vec()).unwrap())
        };
        assert!(read().1.starts_with("POST /b"));
        let _ = read();
        assert_eq!(read().1, "bodyGET /c HTTP/1.1\r\n\r\n", "a body needs no response");
    }

    #[test]
    fn small_buffer_loses_nothing() {
        let text = "a\r\n\r\nb\r\n\r\nbody of b";
        assert_eq!(reads(&[&text[..8], &text[8..16], &text[16..]], 8).concat(), text);
    }
}
