//! What all requests share: how the domains are asked, the settings, the wishes in flight, the count of requests.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};

use super::live::{Hub, LiveSettings};
use crate::app::{App, Clients, EventRouter};
use crate::contract::stats::{AddServedRequests, GetServedRequests, StatsError};
use crate::messaging::{CommonError, IdempotencyKey, RequestContext};
use crate::settings::Settings;
use crate::store::RESPONSE_TTL;
use crate::types::{Clock, Timestamp};

/// Who the gateway is to the domains.
const NAME: &str = "gateway";

/// The most wishes with a key that may be in flight at once. More are refused as too much at once.
const KEYS_IN_FLIGHT_MAX: usize = 16_384;

/// Of how many answered wishes it is remembered where they went.
const KEY_TARGETS_MAX: usize = 16_384;

/// A hash that is remembered in the place of what may be long.
type Hash128 = [u8; 16];

/// The shared state of the gateway.
pub struct GatewayState {
    /// How the domains are asked.
    pub clients: Clients,
    /// The settings of this process.
    pub settings: Arc<Settings>,
    /// The one source of time.
    pub clock: Clock,
    /// All who listen live.
    pub hub: Hub,
    /// The databases of the domains that are here, and for whom each keeps events.
    pub outboxes: Arc<EventRouter>,
    draining: AtomicBool,
    served: ServedCounter,
    wishes: Mutex<HashSet<(String, IdempotencyKey)>>,
    /// Where wishes went that were answered well, and when. A domain knows its own by their content; it cannot know
    /// that a key was used for another domain's path, or with another query.
    places: Cache<Hash128, (Hash128, Timestamp)>,
}

/// Requests served that the statistics do not know of yet.
#[derive(Default)]
struct ServedCounter {
    /// Not yet told.
    waiting: AtomicI64,
    /// Being told this moment.
    underway: AtomicI64,
    /// What was told to another process without an answer, and under which key: told again as it was, so that it counts
    /// once.
    unanswered: Mutex<Option<(i64, IdempotencyKey)>>,
}

/// Holds a wish's place while its request runs; a second one with the same key waits outside meanwhile.
pub struct IdempotencyGuard {
    gate: Arc<GatewayState>,
    name: (String, IdempotencyKey),
    place: Hash128,
}

impl IdempotencyGuard {
    /// Notes that it was answered well, so that its key stands for this place alone from now on. A refusal is not
    /// noted: nothing was done under its key.
    pub fn was_answered(&self) {
        self.gate.places.insert(mark_of(&self.name), (self.place, self.gate.clock.now()));
    }
}

fn mark(parts: [&str; 3]) -> Hash128 {
    let hash = parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part).chain_update([0])).finalize();
    let mut mark = Hash128::default();
    mark.copy_from_slice(&hash[..size_of::<Hash128>()]);
    mark
}

fn mark_of((scope, key): &(String, IdempotencyKey)) -> Hash128 {
    mark([scope, key.as_str(), ""])
}

impl Drop for IdempotencyGuard {
    fn drop(&mut self) {
        self.gate.wishes.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

impl GatewayState {
    /// The gate of `app`. Must be called on an actix system's thread.
    pub fn new(app: &App) -> Arc<Self> {
        let clients = app.clients.clone();
        let live = LiveSettings { public_url: app.settings().public_url.clone(), ..LiveSettings::default() };
        let (users, notifications) = (clients.users.clone(), clients.notifications.clone());
        Arc::new(Self {
            hub: Hub::start(&app.feed, app.clock().clone(), users, notifications, live),
            clients,
            outboxes: Arc::clone(app.joints()),
            settings: Arc::clone(app.settings()),
            clock: app.clock().clone(),
            draining: AtomicBool::new(false),
            served: ServedCounter::default(),
            wishes: Mutex::default(),
            places: Cache::new(KEY_TARGETS_MAX),
        })
    }

    /// From now on the process is on its way out: it says so to whoever asks whether it may get traffic.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the process is on its way out.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Counts a request as served.
    pub fn count(&self) {
        self.served.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// How many requests were served since the shop was opened.
    pub async fn served(&self, ctx: RequestContext) -> Result<i64, StatsError> {
        let told = self.clients.stats.call(ctx.for_downstream_call(NAME, None), GetServedRequests {}).await?;
        // What is being told this moment may be counted on both sides: a count that runs a moment ahead is better
        // than one that goes back.
        Ok(told + self.served.waiting.load(Ordering::Relaxed) + self.served.underway.load(Ordering::Relaxed))
    }

    /// Tells the statistics what they do not know yet. ApiRequest by one task alone. May be dropped at any moment: what was
    /// under way elsewhere is told again by the next, under the same key.
    pub async fn tell_served(&self) {
        let unanswered = self.unanswered().clone();
        if let Some((count, key)) = unanswered
            && !self.tell(count, key).await
        {
            return;
        }
        let count = self.served.waiting.swap(0, Ordering::Relaxed);
        if count > 0 {
            self.tell(count, IdempotencyKey::own(&format!("served/{}", crate::types::fresh()))).await;
        }
    }

    /// Tells one number; says whether it is over with it.
    async fn tell(&self, count: i64, key: IdempotencyKey) -> bool {
        self.served.underway.store(count, Ordering::Relaxed);
        // In one process no answer is lost, and a key a second would only fill the list of answers.
        let elsewhere = self.clients.stats.elsewhere().is_some();
        let ctx = if elsewhere {
            RequestContext::internal(NAME).with_key(key.clone())
        } else {
            RequestContext::internal(NAME)
        };
        if elsewhere {
            *self.unanswered() = Some((count, key));
        }
        if let Err(failure) = self.clients.stats.call(ctx, AddServedRequests { count }).await {
            log::debug!("{count} served requests could not be counted: {failure}");
            if elsewhere && matches!(failure, CommonError::Unavailable | CommonError::DeadlineExceeded) {
                return false;
            }
            // Certainly not done, so it is told again. With any other failure nobody knows, and a few requests
            // less are no harm, while an endless repetition would count them many times over.
            if matches!(failure, CommonError::Overloaded | CommonError::Unavailable | CommonError::StorageUnavailable) {
                self.served.waiting.fetch_add(count, Ordering::Relaxed);
            }
        }
        *self.unanswered() = None;
        self.served.underway.store(0, Ordering::Relaxed);
        true
    }

    fn unanswered(&self) -> MutexGuard<'_, Option<(i64, IdempotencyKey)>> {
        self.served.unanswered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the place of the wish in `ctx`, if it has a key. The second of two simultaneous ones is refused, so
    /// that it neither runs beside the first nor waits in a queue it could fill. `place` is where it goes: method, path
    /// and query; one whose key went elsewhere within the day is refused.
    pub fn begin(
        self: &Arc<Self>,
        ctx: &RequestContext,
        place: [&str; 3],
    ) -> Result<Option<IdempotencyGuard>, CommonError> {
        let Some(key) = ctx.key.clone() else { return Ok(None) };
        let name = (ctx.caller.scope(), key);
        let place = mark(place);
        let since = self.clock.now().minus(RESPONSE_TTL);
        if self.places.get(&mark_of(&name)).is_some_and(|(before, at)| before != place && at > since) {
            return Err(CommonError::IdempotencyKeyReused);
        }
        let mut wishes = self.wishes.lock().unwrap_or_else(PoisonError::into_inner);
        if wishes.len() >= KEYS_IN_FLIGHT_MAX {
            return Err(CommonError::Overloaded);
        }
        if !wishes.insert(name.clone()) {
            return Err(CommonError::RequestInProgress);
        }
        drop(wishes);
        Ok(Some(IdempotencyGuard { gate: Arc::clone(self), name, place }))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::settings::DomainLocation;
    use crate::types::Address;

    #[actix::test]
    async fn what_is_being_told_elsewhere_when_the_process_ends_is_counted_once() {
        let dir = tempfile::tempdir().unwrap();
        let only_stats = |place: DomainLocation| {
            let mut settings = Settings::for_test(dir.path());
            for domain in &mut settings.domains {
                domain.place = if domain.name == "stats" { place.clone() } else { DomainLocation::Off };
            }
            settings
        };
        let mut there = only_stats(DomainLocation::Local);
        there.grpc = Some(([127, 0, 0, 1], 0).into());
        let mut there = App::open(there, Clock::system()).unwrap();
        let server = there.grpc().unwrap().unwrap();
        let address = Address { host: "127.0.0.1".to_owned(), port: server.address().port() };
        actix::spawn(server.run());
        let here = App::open(only_stats(DomainLocation::Remote(address)), Clock::system()).unwrap();
        let gate = GatewayState::new(&here);
        let known =
            async || here.clients.stats.call(RequestContext::internal("test"), GetServedRequests {}).await.unwrap();
        assert_eq!(known().await, 0);
        for _ in 0..12 {
            gate.count();
        }
        assert!(gate.tell_served().now_or_never().is_none(), "it was told without a way across the wire");
        gate.count();
        gate.tell_served().await;
        assert_eq!(known().await, 13);
        gate.tell_served().await;
        assert_eq!(known().await, 13);
    }
}
