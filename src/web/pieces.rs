//! Bodies in pieces: what a connection keeps in memory does not grow with the response.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::web::Bytes;

/// Size of a piece, in bytes. The dispatcher of actix-http copies a piece as a whole before it is sent, and no further one
/// until then.
const PIECE: usize = 16 * 1_024;

/// A body whose bytes are all there, sent piece by piece.
pub struct Pieces(Bytes);

impl Pieces {
    /// The same body: in pieces if it is large, as it is if it is small or a stream.
    pub fn of(body: BoxBody) -> BoxBody {
        match body.try_into_bytes() {
            Ok(bytes) if bytes.len() > PIECE => BoxBody::new(Self(bytes)),
            Ok(bytes) => BoxBody::new(bytes),
            Err(stream) => stream,
        }
    }
}

impl MessageBody for Pieces {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.0.len() as u64)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let length = self.0.len().min(PIECE);
        Poll::Ready((length > 0).then(|| Ok(self.0.split_to(length))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_web::test]
    async fn pieces_are_the_whole_body() {
        for length in [0, 1, PIECE, PIECE + 1, 3 * PIECE] {
            let bytes = Bytes::from_iter((0..length).map(|n| (n % 251) as u8));
            let body = Pieces::of(BoxBody::new(bytes.clone()));
            assert_eq!(body.size(), BodySize::Sized(length as u64));
            assert_eq!(actix_web::body::to_bytes(body).await.unwrap(), bytes);
        }
    }
}
