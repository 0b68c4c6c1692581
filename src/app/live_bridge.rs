//! Forwards the live pushes of a notifications domain in another process to the feed of this one.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::domains::notifications::{Feed, Push};
use crate::messaging::grpc::Peer;

/// Copies pushes from other processes to the local feed.
pub struct LiveBridge {
    feed: Feed,
    /// Addresses of the processes whose pushes are forwarded already.
    sources: Mutex<BTreeSet<String>>,
}

impl LiveBridge {
    /// Creates a bridge that forwards to `feed`.
    pub fn new(feed: Feed) -> Self {
        Self { feed, sources: Mutex::default() }
    }

    /// Forwards the pushes of another process for as long as the peer is held. After every interruption the sessions
    /// are asked to read back what they may have missed.
    pub fn forward_from(&self, peer: &Arc<Peer>) {
        if !self.sources.lock().insert(peer.address().to_string()) {
            return;
        }
        let feed = self.feed.clone();
        peer.subscribe_live(Arc::new(move |item| match item.map(serde_json::from_slice::<Push>) {
            None => feed.send(Push::Resync),
            Some(Ok(push)) => feed.send(push),
            Some(Err(error)) => {
                log::error!("live: a push of another process cannot be decoded: {error}");
                feed.send(Push::Resync);
            }
        }));
    }
}

/// Encodes a push for other processes; empty if that fails, which is logged.
pub fn encode_push(push: &Push) -> Vec<u8> {
    serde_json::to_vec(push).unwrap_or_else(|error| {
        log::error!("live: a push cannot be encoded: {error}");
        Vec::new()
    })
}
