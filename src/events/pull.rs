//! Events between processes, where it is the subscriber's process that knows the way: it fetches them.
//!
//! For each source and subscriber in different processes, whoever knows the other's place does the work: the source
//! tells, as it does in one process, or the subscriber fetches. When both know, the source tells and the subscriber
//! leaves it alone. So moving a domain out takes one address in one process, and events flow both ways.

use std::sync::Arc;
use std::time::Duration;

use super::Subscriber;
use crate::messaging::grpc::proto::{EventsReply, EventsRequest};
use crate::messaging::grpc::{CallError, LONG_POLL_TIMEOUT, Peer};
use crate::messaging::{CommonError, DeliverEvents, EventEnvelope, RequestContext};
use crate::store::Store;

/// How long a subscriber leaves a source alone that tells it by itself.
const PUSHED_RECHECK: Duration = Duration::from_secs(15);
/// The first and the longest pause after a source could not be asked.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How long the store is waited for when nobody wakes it.
const POLL_INTERVAL: Duration = Duration::from_millis(700);

/// The fetching of one remote domain's events for one subscriber here. It stops when dropped.
pub struct EventPuller(tokio::task::JoinHandle<()>);

impl EventPuller {
    /// Starts to fetch the events of `source` at `peer` for `to`. Must be called on an actix system's thread.
    #[must_use]
    pub fn start(source: &'static str, peer: Arc<Peer>, to: Subscriber) -> Self {
        Self(actix::spawn(fetch(source, peer, to)))
    }
}

impl Drop for EventPuller {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn fetch(source: &'static str, peer: Arc<Peer>, to: Subscriber) {
    let (mut pause, mut told) = (BACKOFF.0, 0);
    loop {
        let request = EventsRequest { source: source.to_owned(), subscriber: to.name.to_owned(), told };
        let done = match peer.events(request).await {
            Ok(reply) => take(source, &to, reply).await,
            Err(CallError::NotSent(why) | CallError::Unknown(why) | CallError::Refused(_, why)) => Err(why),
        };
        match done {
            Ok(Some(last)) => (told, pause) = (last, BACKOFF.0),
            Ok(None) => tokio::time::sleep(PUSHED_RECHECK).await,
            Err(why) => {
                log::debug!("events: {source}'s cannot be fetched for {}: {why}", to.name);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(BACKOFF.1);
            }
        }
    }
}

/// Tells the subscriber; gives up to where it has been told, or nothing when the source does that.
async fn take(source: &'static str, to: &Subscriber, reply: EventsReply) -> Result<Option<i64>, String> {
    if reply.told_by_source {
        return Ok(None);
    }
    if reply.last == 0 {
        return Ok(Some(0));
    }
    let mut events: Vec<EventEnvelope> = serde_json::from_slice(&reply.events).map_err(|error| error.to_string())?;
    // The source may be of another version and know of other wishes.
    events.retain(|event| to.wants(event));
    if !events.is_empty() {
        let ctx = RequestContext::internal(source).with_timeout(Duration::from_secs(30));
        to.tell(ctx, DeliverEvents { events }).await.map_err(|failure| failure.to_string())?;
    }
    Ok(Some(reply.last))
}

/// The events of `source` for a subscriber in another process: those after what it says it was told, as soon as there
/// are any, and none after a while.
///
/// # Errors
/// When the database cannot be read or written.
pub async fn next(
    source: Store,
    subscriber: &'static str,
    wants: &[&str],
    told: i64,
) -> Result<EventsReply, CommonError> {
    if told > 0 {
        source.outbox_advance_cursor(subscriber, told).await?;
    }
    let end = tokio::time::Instant::now() + LONG_POLL_TIMEOUT;
    loop {
        let news = source.outbox_changed();
        let rows = source.outbox_read_after(subscriber, super::relay::BATCH).await?;
        let Some((last, _)) = rows.last() else {
            if tokio::time::Instant::now() >= end {
                return Ok(EventsReply::default());
            }
            let _ = tokio::time::timeout(POLL_INTERVAL, news).await;
            continue;
        };
        let last = *last;
        let events: Vec<EventEnvelope> =
            rows.into_iter().map(|(_, event)| event).filter(|event| wants.contains(&event.name.as_str())).collect();
        if events.is_empty() {
            // Nothing of interest to it: passed over without a way across the wire.
            source.outbox_advance_cursor(subscriber, last).await?;
            continue;
        }
        let events = serde_json::to_vec(&events).map_err(|error| {
            log::error!("events of {} have no JSON form: {error}", source.domain());
            CommonError::Internal
        })?;
        return Ok(EventsReply { events: events.into(), last, told_by_source: false });
    }
}
