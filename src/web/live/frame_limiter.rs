//! Limit on the size of WebSocket frames, applied to each frame's head before its body is read.
//!
//! The codec of the library detects an oversized frame only once all of it is in memory, whatever length the head
//! announces; it parses an invalid head again and again; and it gets everything that has arrived before it takes the
//! first frame. This stream before it passes one frame at a time, and nothing after an invalid head.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::error::PayloadError;
use actix_web::web::Bytes;
use futures_util::Stream;

use super::close_cause::CloseCause;

/// Largest frame, and largest message made of several frames, in bytes.
pub const FRAME_MAX: usize = 64 * 1024;
/// Largest control frame, in bytes (RFC 6455 §5.5).
const CONTROL_MAX: u64 = 125;
/// Longest head of a client's frame, in bytes: two, eight for the length, four for the mask.
const HEAD_MAX: usize = 14;

/// Cause for which the stream has ended, shared with the session.
pub type CloseReasonSlot = Rc<Cell<Option<CloseCause>>>;

/// Stream of bytes that ends at the first invalid or oversized frame.
pub struct FrameLimiter<S> {
    bytes: S,
    close_reason: CloseReasonSlot,
    /// Bytes that have arrived and are not passed on yet.
    pending: Bytes,
    head: [u8; HEAD_MAX],
    head_len: usize,
    /// Bytes missing from the body of the present frame.
    body_left: usize,
    /// Whether a whole frame was passed on, which the codec takes before it gets more.
    is_paused: bool,
}

impl<S> FrameLimiter<S> {
    /// Limits the frames in `bytes`.
    pub fn new(bytes: S, close_reason: CloseReasonSlot) -> Self {
        Self {
            bytes,
            close_reason,
            pending: Bytes::new(),
            head: [0; HEAD_MAX],
            head_len: 0,
            body_left: 0,
            is_paused: false,
        }
    }

    /// Returns the number of pending bytes that belong to the present frame, and whether the frame ends with them.
    fn measure(&mut self) -> Result<(usize, bool), CloseCause> {
        let mut taken = 0;
        while self.body_left == 0 {
            let Some(byte) = self.pending.get(taken) else { return Ok((taken, false)) };
            let Some(slot) = self.head.get_mut(self.head_len) else { return Err(CloseCause::Protocol) };
            *slot = *byte;
            self.head_len += 1;
            taken += 1;
            if let Some(length) = read_head(self.head.get(..self.head_len).unwrap_or_default())? {
                self.head_len = 0;
                self.body_left = length;
                if length == 0 {
                    return Ok((taken, true));
                }
            }
        }
        let body = self.body_left.min(self.pending.len() - taken);
        self.body_left -= body;
        Ok((taken + body, self.body_left == 0))
    }
}

/// The length of the body after this head, once the head is whole.
fn read_head(head: &[u8]) -> Result<Option<usize>, CloseCause> {
    let [first, second, rest @ ..] = head else { return Ok(None) };
    let (reserved, operation, masked) = (first & 0x70, first & 0x0f, second & 0x80 != 0);
    if reserved != 0 || !masked || !matches!(operation, 0..=2 | 8..=10) {
        return Err(CloseCause::Protocol);
    }
    let (length, mask) = match (second & 0x7f, rest) {
        (126, [a, b, mask @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), mask),
        (127, [a, b, c, d, e, f, g, h, mask @ ..]) => (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), mask),
        (126 | 127, _) => return Ok(None),
        (short, mask) => (u64::from(short), mask),
    };
    let (control, last) = (operation >= 8, first & 0x80 != 0);
    if control && (length > CONTROL_MAX || !last) {
        return Err(CloseCause::Protocol);
    }
    let length = usize::try_from(length).ok().filter(|length| *length <= FRAME_MAX).ok_or(CloseCause::TooLarge)?;
    Ok(if mask.len() < 4 { None } else { Some(length) })
}

impl<S: Stream<Item = Result<Bytes, PayloadError>> + Unpin> Stream for FrameLimiter<S> {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.close_reason.get().is_some() {
            return Poll::Ready(None);
        }
        if std::mem::take(&mut self.is_paused) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.pending.is_empty() {
            match Pin::new(&mut self.bytes).poll_next(cx) {
                Poll::Ready(Some(Ok(bytes))) => self.pending = bytes,
                // After an error on the connection the peer is gone.
                Poll::Ready(None | Some(Err(_))) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
        match self.measure() {
            Ok((taken, is_whole)) => {
                self.is_paused = is_whole;
                Poll::Ready(Some(Ok(self.pending.split_to(taken))))
            }
            Err(cause) => {
                self.close_reason.set(Some(cause));
                Poll::Ready(Some(Err(PayloadError::Overflow)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, StreamExt, stream};

    fn run(bytes: &[u8], piece: usize) -> (usize, Option<CloseCause>) {
        let close_reason = CloseReasonSlot::default();
        let pieces: Vec<_> = bytes.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let mut limiter = FrameLimiter::new(stream::iter(pieces), Rc::clone(&close_reason));
        let mut passed = 0;
        loop {
            match limiter.next().now_or_never() {
                Some(Some(Ok(bytes))) => passed += bytes.len(),
                Some(Some(Err(_))) => {}
                Some(None) => return (passed, close_reason.get()),
                None => {}
            }
        }
    }

    #[test]
    fn limiter_passes_nothing_after_an_invalid_head() {
        let hello = [&[0x81, 0x85, 1, 2, 3, 4][..], &[9; 5]].concat();
        let empty = [0x89, 0x80, 1, 2, 3, 4].to_vec();
        let longest = [&[0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4][..], &vec![7; FRAME_MAX]].concat();
        let cases: [(&str, Vec<u8>, Option<CloseCause>); 7] = [
            ("valid frames", [hello.clone(), empty.clone(), longest, hello.clone()].concat(), None),
            ("one byte too long", vec![0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 1, 1, 2, 3, 4], Some(CloseCause::TooLarge)),
            (
                "endless",
                vec![0x82, 0xff, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0],
                Some(CloseCause::TooLarge),
            ),
            ("unmasked", vec![0x81, 0x05], Some(CloseCause::Protocol)),
            ("reserved bits", vec![0xc1, 0x85], Some(CloseCause::Protocol)),
            ("unknown operation", vec![0x83, 0x85], Some(CloseCause::Protocol)),
            ("long ping", vec![0x89, 0xfe, 0, 200, 0, 0, 0, 0], Some(CloseCause::Protocol)),
        ];
        for (name, bytes, end) in cases {
            let stream = [hello.clone(), bytes, hello.clone()].concat();
            for piece in [1, 2, 3, 7, 1_000, 1 << 20] {
                let (passed, cause) = run(&stream, piece);
                assert_eq!(cause, end, "{name} in pieces of {piece}");
                match end {
                    None => assert_eq!(passed, stream.len(), "{name} in pieces of {piece}"),
                    Some(_) => assert!(passed < hello.len() + HEAD_MAX, "{name} in pieces of {piece}"),
                }
            }
        }
    }
}
