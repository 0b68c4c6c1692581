//! The one loop that forwards events from a source to a subscriber, whatever the source is.

use std::time::Duration;

use super::Subscriber;
use crate::messaging::{Backoff, DeliverEvents, EventEnvelope, RequestContext};

/// Time limit of one delivery.
pub const DELIVER_TIMEOUT: Duration = Duration::from_secs(30);

/// Events of one domain, read in order for one subscriber.
pub trait EventSource {
    /// Level at which a failed attempt is logged.
    const FAILURE_LEVEL: log::Level;

    /// Returns the name of the domain whose events these are.
    fn domain(&self) -> &'static str;

    /// Reads the next events and the sequence number of the last one; `None` if there are none at present.
    async fn next_batch(&mut self, subscriber: &'static str) -> Result<Option<(Vec<EventEnvelope>, i64)>, String>;

    /// Moves the cursor of the subscriber to `last`: everything up to it has been delivered.
    async fn advance(&mut self, subscriber: &'static str, last: i64) -> Result<(), String>;

    /// Waits, after an empty batch, until reading again makes sense.
    async fn wait(&mut self);
}

/// Forwards the events of `source` to `subscriber` until the task is aborted.
pub async fn forward_loop(mut source: impl EventSource, subscriber: Subscriber, mut backoff: Backoff) {
    loop {
        match forward_batch(&mut source, &subscriber).await {
            Ok(true) => backoff.reset(),
            Ok(false) => {
                backoff.reset();
                source.wait().await;
            }
            Err(error) => {
                let (level, from, to) = (level_of(&source), source.domain(), subscriber.name());
                log::log!(level, "event delivery from {from} to {to} failed: {error}; retrying");
                backoff.wait().await;
            }
        }
    }
}

const fn level_of<S: EventSource>(_: &S) -> log::Level {
    S::FAILURE_LEVEL
}

/// Delivers one batch. Returns `false` if there was none.
async fn forward_batch(source: &mut impl EventSource, subscriber: &Subscriber) -> Result<bool, String> {
    let Some((mut events, last)) = source.next_batch(subscriber.name()).await? else { return Ok(false) };
    events.retain(|event| subscriber.is_subscribed_to(event));
    if !events.is_empty() {
        let ctx = RequestContext::internal(source.domain()).with_timeout(DELIVER_TIMEOUT);
        subscriber.deliver(ctx, DeliverEvents { events }).await.map_err(|error| error.to_string())?;
    }
    source.advance(subscriber.name(), last).await?;
    Ok(true)
}
