//! Pulling of events from domains in other processes.
//!
//! For each source and subscriber in different processes, the process that knows the other's address does the work: the
//! source pushes, as it does within one process, or the subscriber pulls. If both know, the source pushes and tells the
//! puller so. One address in one process is enough to move a domain out, and events flow both ways.

use std::sync::Arc;
use std::time::Duration;

use super::Subscriber;
use super::forward::{EventSource, forward_loop};
use crate::messaging::grpc::proto::{EventsReply, EventsRequest};
use crate::messaging::grpc::{CallError, LONG_POLL_TIMEOUT, Peer};
use crate::messaging::{Backoff, CommonError, EventEnvelope};
use crate::store::Store;

/// Time between two requests to a source that pushes its events.
const PUSHED_RECHECK: Duration = Duration::from_secs(15);
/// Pauses after failed requests and deliveries.
const PULL_BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
/// Longest time between two reads of the outbox without a notification.
const POLL_INTERVAL: Duration = Duration::from_millis(700);

/// Pulling of one remote domain's events for one local subscriber. Stops when dropped.
pub struct EventPuller(tokio::task::JoinHandle<()>);

impl EventPuller {
    /// Starts to pull the events of `domain` from `peer`. Must be called on an actix system's thread.
    #[must_use]
    pub fn start(domain: &'static str, peer: Arc<Peer>, subscriber: Subscriber) -> Self {
        let source = RemoteSource { domain, peer, cursor: 0, is_pushed: false };
        Self(actix::spawn(forward_loop(source, subscriber, PULL_BACKOFF)))
    }
}

impl Drop for EventPuller {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Outbox of a domain in another process.
struct RemoteSource {
    domain: &'static str,
    peer: Arc<Peer>,
    /// Sequence number of the last delivered event; 0 if not known here.
    cursor: i64,
    /// Whether the source said that it pushes to this subscriber.
    is_pushed: bool,
}

impl EventSource for RemoteSource {
    // An unreachable peer is logged by its connection.
    const FAILURE_LEVEL: log::Level = log::Level::Debug;

    fn domain(&self) -> &'static str {
        self.domain
    }

    async fn next_batch(&mut self, subscriber: &'static str) -> Result<Option<(Vec<EventEnvelope>, i64)>, String> {
        let request =
            EventsRequest { source: self.domain.to_owned(), subscriber: subscriber.to_owned(), cursor: self.cursor };
        let reply = self.peer.events(request).await.map_err(CallError::into_reason)?;
        self.is_pushed = reply.pushed_by_source;
        if reply.pushed_by_source {
            return Ok(None);
        }
        if reply.last == 0 {
            self.cursor = 0;
            return Ok(None);
        }
        let events = serde_json::from_slice(&reply.events).map_err(|error| error.to_string())?;
        Ok(Some((events, reply.last)))
    }

    async fn advance(&mut self, _: &'static str, last: i64) -> Result<(), String> {
        self.cursor = last;
        Ok(())
    }

    async fn wait(&mut self) {
        // Otherwise the request was a long poll that has waited already.
        if self.is_pushed {
            tokio::time::sleep(PUSHED_RECHECK).await;
        }
    }
}

/// Reads the events of `source` for a subscriber in another process: stores its cursor, then returns the events after it
/// as soon as there are any, or none after [`LONG_POLL_TIMEOUT`].
///
/// # Errors
/// When the database cannot be read or written.
pub async fn read_for_remote(
    source: Store,
    subscriber: &'static str,
    subscriptions: &[&str],
    cursor: i64,
) -> Result<EventsReply, CommonError> {
    if cursor > 0 {
        source.outbox_advance_cursor(subscriber, cursor).await?;
    }
    let end = tokio::time::Instant::now() + LONG_POLL_TIMEOUT;
    loop {
        let changed = source.outbox_changed();
        let rows = source.outbox_read_after(subscriber, super::relay::BATCH).await?;
        let Some((last, _)) = rows.last() else {
            if tokio::time::Instant::now() >= end {
                return Ok(EventsReply::default());
            }
            let _ = tokio::time::timeout(POLL_INTERVAL, changed).await;
            continue;
        };
        let last = *last;
        let events: Vec<EventEnvelope> = rows
            .into_iter()
            .map(|(_, event)| event)
            .filter(|event| subscriptions.contains(&event.name.as_str()))
            .collect();
        if events.is_empty() {
            // None of its subscriptions: skipped without a round trip.
            source.outbox_advance_cursor(subscriber, last).await?;
            continue;
        }
        let events = serde_json::to_vec(&events).map_err(|error| {
            log::error!("events of {}: encoding failed: {error}", source.domain());
            CommonError::Internal
        })?;
        return Ok(EventsReply { events: events.into(), last, pushed_by_source: false });
    }
}
