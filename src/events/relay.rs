//! Carries a domain's outbox to its subscribers, each at its own pace.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::{Actor, Context, Handler};
use futures_util::future::LocalBoxFuture;
use tokio::task::JoinHandle;

use crate::messaging::{Client, CommonError, DeliverEvents, Envelope, EventEnvelope, RequestContext};
use crate::store::Store;

/// How many events are read and told at once.
pub(super) const BATCH: i64 = 256;
/// How long a relay sleeps at most when nobody wakes it: how news of another process on the same database are found.
const POLL_INTERVAL: Duration = Duration::from_millis(700);
/// How much longer the next subscriber's relay sleeps. All waking at once would want a thread each to read.
const POLL_STAGGER: Duration = Duration::from_millis(37);
/// The first and the longest pause before a subscriber that failed is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

type DeliverFn =
    Arc<dyn Fn(RequestContext, DeliverEvents) -> LocalBoxFuture<'static, Result<(), CommonError>> + Send + Sync>;

/// Somebody who wants to hear of some events.
#[derive(Clone)]
pub struct Subscriber {
    pub(super) name: &'static str,
    /// Everything, when none are named.
    wants: Option<&'static [&'static str]>,
    tell: DeliverFn,
}

impl Subscriber {
    /// The domain behind `client`, which wants the events named in `wants`.
    pub fn new<A>(name: &'static str, wants: &'static [&'static str], client: &Client<A>) -> Self
    where
        A: Actor<Context = Context<A>> + Handler<Envelope<DeliverEvents>>,
    {
        let client = client.clone();
        let tell: DeliverFn = Arc::new(move |ctx, deliver| {
            let client = client.clone();
            Box::pin(async move { client.call(ctx, deliver).await })
        });
        Self { name, wants: Some(wants), tell }
    }

    /// Somebody who wants to hear of everything, and takes it by `tell`.
    pub fn of_everything(
        name: &'static str,
        tell: impl Fn(DeliverEvents) -> LocalBoxFuture<'static, Result<(), CommonError>> + Send + Sync + 'static,
    ) -> Self {
        Self { name, wants: None, tell: Arc::new(move |_, deliver| tell(deliver)) }
    }

    /// Tells it. What it said yes to is durable there.
    pub async fn tell(&self, ctx: RequestContext, deliver: DeliverEvents) -> Result<(), CommonError> {
        (self.tell)(ctx, deliver).await
    }

    /// Whether it wants to hear of this.
    pub(super) fn wants(&self, event: &EventEnvelope) -> bool {
        self.wants.is_none_or(|wants| wants.contains(&event.name.as_str()))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }
}

/// The carrying of one domain's events to all who want them.
pub struct Relay {
    source: Store,
    carried: Mutex<Vec<(&'static str, JoinHandle<()>)>>,
}

impl Relay {
    /// Starts to carry the events of `source`; stops when dropped. Must be called on an actix system's thread.
    #[must_use]
    pub fn start(source: Store, subscribers: Vec<Subscriber>) -> Self {
        let relay = Self { source, carried: Mutex::default() };
        subscribers.into_iter().for_each(|to| relay.add(to));
        relay
    }

    /// Carries them to one more. Must be called on an actix system's thread.
    pub fn add(&self, to: Subscriber) {
        let mut carried = self.carried();
        let (name, nap) = (to.name, POLL_INTERVAL + POLL_STAGGER * u32::try_from(carried.len()).unwrap_or(0));
        carried.push((name, actix::spawn(carry(self.source.clone(), to, nap))));
    }

    /// Carries them to this one no more. What it has not heard of waits for it.
    pub fn remove(&self, name: &str) {
        self.carried().retain(|(to, task)| {
            let stays = *to != name;
            if !stays {
                task.abort();
            }
            stays
        });
    }

    fn carried(&self) -> MutexGuard<'_, Vec<(&'static str, JoinHandle<()>)>> {
        self.carried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose events it carries.
    #[must_use]
    pub fn source(&self) -> Store {
        self.source.clone()
    }

    /// The names of those it carries them to.
    #[must_use]
    pub fn subscribers(&self) -> Vec<&'static str> {
        self.carried().iter().map(|(name, _)| *name).collect()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        for (_, task) in self.carried().iter() {
            task.abort();
        }
    }
}

async fn carry(source: Store, to: Subscriber, nap: Duration) {
    let mut pause = BACKOFF.0;
    loop {
        // Asked for before the outbox is read: an event that is committed in between wakes us at once.
        let news = source.outbox_changed();
        match carry_some(&source, &to).await {
            Ok(true) => pause = BACKOFF.0,
            Ok(false) => {
                pause = BACKOFF.0;
                let _ = tokio::time::timeout(nap, news).await;
            }
            Err(failure) => {
                log::warn!("events: {} did not take {}'s events: {failure}", to.name, source.domain());
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(BACKOFF.1);
            }
        }
    }
}

/// Tells one batch; says whether there was any.
async fn carry_some(source: &Store, to: &Subscriber) -> Result<bool, CommonError> {
    let rows = source.outbox_read_after(to.name, BATCH).await?;
    let Some((last, _)) = rows.last() else { return Ok(false) };
    let last = *last;
    let events: Vec<EventEnvelope> = rows.into_iter().map(|(_, event)| event).filter(|event| to.wants(event)).collect();
    if !events.is_empty() {
        to.tell(
            RequestContext::internal(source.domain()).with_timeout(Duration::from_secs(30)),
            DeliverEvents { events },
        )
        .await?;
    }
    source.outbox_advance_cursor(to.name, last).await?;
    Ok(true)
}
