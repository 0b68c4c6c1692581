//! gRPC between the processes of one shop.
//!
//! Contains: the wire contract (`proto/mercat.proto`), the server for local domains, and for remote ones name resolution,
//! connections, circuit breakers and retries. Does not contain: any one domain or message, or access control, which is
//! decided at the message in the domain's own process.
//!
//! **Trust.** A process of the shop states the caller of a request and is trusted. So the server must only be reachable by
//! processes of the shop: by the token they share, or because the address is private.
//!
//! **Retries.** A request that was not sent is sent again; after a lost reply also one that is retryable
//! (`Request::RETRYABLE`, or an idempotency key). At most four attempts, within the caller's deadline and a retry budget.
//! Any other lost reply ends as `Unavailable`: the outcome is unknown.

mod breaker;
mod connection;
mod peer;
mod remote;
mod server;
mod tls;

#[cfg(test)]
pub mod test_authority;
#[cfg(test)]
mod tests;

use tonic::metadata::MetadataValue;

use crate::types::PeerTls;

pub use connection::{AddressStatus, CallError, Connection, PeerConfig, PeerDomainInfo, PeerInfo, ReportedHealth};
pub use peer::{LONG_POLL_TIMEOUT, LiveSink, Peer};
pub use remote::{PeerRegistry, Remote, RemoteAddress};
pub use server::{
    BoxLiveStream, DomainService, EventReader, GrpcHandle, GrpcServer, LiveSource, ServerConfig, live_stream,
    parse_timeout,
};

/// Messages and services compiled from `proto/`.
#[allow(missing_docs, reason = "generated; the .proto has the comments")]
#[allow(clippy::all, clippy::pedantic, reason = "generated")]
pub mod proto {
    tonic::include_proto!("mercat.v1");
}

/// Descriptors of `proto/`, for the reflection service.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Bytes of the largest message, unless images may be larger.
const MESSAGE_MAX: usize = 16 << 20;

impl PeerConfig {
    /// Returns the configuration of calls that carry `token`, use `tls` where the address asks for it, and whose largest
    /// payload is an image of `image_bytes_max` bytes.
    #[must_use]
    pub fn new(token: Option<&str>, tls: Option<PeerTls>, image_bytes_max: usize) -> Self {
        let token = token.and_then(|token| {
            let mut value: MetadataValue<_> = format!("Bearer {token}").parse().ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Self { token, tls, message_max: message_max(image_bytes_max) }
    }
}

/// Returns the limit of a message in bytes: at least 16 MiB, and enough for an image of `image_bytes_max` as base64.
#[must_use]
pub fn message_max(image_bytes_max: usize) -> usize {
    (image_bytes_max / 3 * 4 + (1 << 20)).max(MESSAGE_MAX)
}
