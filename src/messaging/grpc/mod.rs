//! gRPC between the processes of one shop: the only place that knows how a message gets from one to another.
//!
//! Lives here: the wire contract (`proto/mercat.proto`), the server for the domains of this process, and for those of
//! others the addresses, connections, circuit breakers and repetitions. Never enters: the name of any one domain, what
//! a message means, who may ask it (that is decided at the message, in the domain's own process).
//!
//! **What is believed.** A process of the shop says on whose behalf it asks, and is believed. So every process has to
//! know that it talks to one: by the token they share, or because nobody else reaches the address.
//!
//! **What is sent again.** What certainly never left, and what may be asked twice (`Request::RETRYABLE`, or an
//! idempotency key) after an answer was lost; at most four times, within the caller's deadline, while a small budget
//! lasts. Everything else whose answer is lost ends as `Unavailable`: nobody knows whether it was done.

mod breaker;
mod connection;
mod peer;
mod remote;
mod server;

#[cfg(test)]
mod tests;

use tonic::metadata::MetadataValue;

pub use connection::{AddressStatus, CallError, Connection, PeerConfig, PeerDomainInfo, PeerInfo, ReportedHealth};
pub use peer::{LONG_POLL_TIMEOUT, LiveSink, Peer};
pub use remote::{PeerRegistry, Remote, RemoteAddress};
pub use server::{
    BoxLiveStream, DomainService, EventReader, Handle, LiveSource, Server, ServerConfig, heard, patience,
};

/// The messages on the wire, as compiled from `proto/`.
#[allow(missing_docs, reason = "generated; the .proto has the comments")]
#[allow(clippy::all, clippy::pedantic, reason = "generated")]
pub mod proto {
    tonic::include_proto!("mercat.v1");
}

/// What `proto/` says, for programs that ask (the reflection service).
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Bytes of the largest message, unless images may be larger.
const MESSAGE_MAX: usize = 16 << 20;

impl PeerConfig {
    /// Returns the configuration of calls that carry `token` and whose largest payload is an image of
    /// `image_bytes_max` bytes.
    #[must_use]
    pub fn new(token: Option<&str>, image_bytes_max: usize) -> Self {
        let token = token.and_then(|token| {
            let mut value: MetadataValue<_> = format!("Bearer {token}").parse().ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Self { token, message_max: message_max(image_bytes_max) }
    }
}

/// Returns the limit of a message in bytes: at least 16 MiB, and enough for an image of `image_bytes_max` as base64.
#[must_use]
pub fn message_max(image_bytes_max: usize) -> usize {
    (image_bytes_max / 3 * 4 + (1 << 20)).max(MESSAGE_MAX)
}
