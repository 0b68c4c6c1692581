//! Looks at the head of each WebSocket frame before its body is read.
//!
//! The codec learns that a frame is too large only when it has all of it in memory, whatever length the peer claims;
//! a head it cannot read it reads again for ever; and it is fed everything that has arrived before the first frame
//! is taken. So this stream stands before it: it lets one frame through at a time, and nothing after a bad head.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::error::PayloadError;
use actix_web::web::Bytes;
use futures_util::Stream;

use super::session::CloseCause;

/// The most bytes of a frame, and of a message made of several.
pub const FRAME_MAX: usize = 64 * 1024;
/// The most bytes of a control frame (RFC 6455 §5.5).
const CONTROL_MAX: u64 = 125;
/// The most bytes of a frame's head that a client sends: two, eight for the length, four for the mask.
const HEAD_MAX: usize = 14;

/// Why nothing more is let through, shared with the session.
pub type CloseReasonSlot = Rc<Cell<Option<CloseCause>>>;

/// A stream of bytes that ends at the first frame that may not be.
pub struct FrameLimiter<S> {
    bytes: S,
    verdict: CloseReasonSlot,
    /// Arrived and not let through yet.
    waiting: Bytes,
    head: [u8; HEAD_MAX],
    head_len: usize,
    /// Bytes of the present frame's body that are still to come.
    body_left: usize,
    /// A whole frame was let through: the codec takes it before it gets more.
    pause: bool,
}

impl<S> FrameLimiter<S> {
    /// Stands before `bytes`.
    pub fn new(bytes: S, verdict: CloseReasonSlot) -> Self {
        Self { bytes, verdict, waiting: Bytes::new(), head: [0; HEAD_MAX], head_len: 0, body_left: 0, pause: false }
    }

    /// How many of the waiting bytes belong to the present frame, and whether it ends with them.
    fn measure(&mut self) -> Result<(usize, bool), CloseCause> {
        let mut taken = 0;
        while self.body_left == 0 {
            let Some(byte) = self.waiting.get(taken) else { return Ok((taken, false)) };
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
        let body = self.body_left.min(self.waiting.len() - taken);
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
        if self.verdict.get().is_some() {
            return Poll::Ready(None);
        }
        if std::mem::take(&mut self.pause) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.waiting.is_empty() {
            match Pin::new(&mut self.bytes).poll_next(cx) {
                Poll::Ready(Some(Ok(bytes))) => self.waiting = bytes,
                // A peer that breaks off is gone, whatever it was saying.
                Poll::Ready(None | Some(Err(_))) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
        match self.measure() {
            Ok((taken, whole)) => {
                self.pause = whole;
                Poll::Ready(Some(Ok(self.waiting.split_to(taken))))
            }
            Err(ending) => {
                self.verdict.set(Some(ending));
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
        let verdict = CloseReasonSlot::default();
        let pieces: Vec<_> = bytes.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let mut gate = FrameLimiter::new(stream::iter(pieces), Rc::clone(&verdict));
        let mut through = 0;
        loop {
            match gate.next().now_or_never() {
                Some(Some(Ok(bytes))) => through += bytes.len(),
                Some(Some(Err(_))) => {}
                Some(None) => return (through, verdict.get()),
                None => {}
            }
        }
    }

    #[test]
    fn frames_go_through_whole_and_nothing_after_a_bad_head_in_whatever_pieces_it_comes() {
        let hello = [&[0x81, 0x85, 1, 2, 3, 4][..], &[9; 5]].concat();
        let empty = [0x89, 0x80, 1, 2, 3, 4].to_vec();
        let longest = [&[0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4][..], &vec![7; FRAME_MAX]].concat();
        let cases: [(&str, Vec<u8>, Option<CloseCause>); 7] = [
            ("good ones", [hello.clone(), empty.clone(), longest, hello.clone()].concat(), None),
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
        for (what, bytes, end) in cases {
            let stream = [hello.clone(), bytes, hello.clone()].concat();
            for piece in [1, 2, 3, 7, 1_000, 1 << 20] {
                let (through, verdict) = run(&stream, piece);
                assert_eq!(verdict, end, "{what} in pieces of {piece}");
                match end {
                    None => assert_eq!(through, stream.len(), "{what} in pieces of {piece}"),
                    Some(_) => assert!(through < hello.len() + HEAD_MAX, "{what} in pieces of {piece}"),
                }
            }
        }
    }
}
