//! Count of served requests, on its way to the statistics.
//!
//! Invariant: a number that was sent to another process without an acknowledgement is sent again unchanged and under
//! the same key, so that it counts once.

use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;

use super::names::GATEWAY;
use crate::contract::stats::{AddServedRequests, GetServedRequests, StatsError};
use crate::domains::stats::StatsActor;
use crate::messaging::{Client, CommonError, IdempotencyKey, RequestContext};

/// Requests served that the statistics do not include yet.
pub struct ServedCounter {
    stats: Client<StatsActor>,
    /// Not reported yet.
    pending: AtomicI64,
    /// Being reported at this moment.
    in_flight: AtomicI64,
    /// Last report to another process that was not acknowledged, and its key.
    unacknowledged: Mutex<Option<(i64, IdempotencyKey)>>,
}

impl ServedCounter {
    /// A counter at zero that reports to `stats`.
    pub fn new(stats: Client<StatsActor>) -> Self {
        Self { stats, pending: AtomicI64::new(0), in_flight: AtomicI64::new(0), unacknowledged: Mutex::default() }
    }

    /// Counts one request.
    pub fn increment(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of requests served since the shop was opened.
    pub async fn total(&self, ctx: RequestContext) -> Result<i64, StatsError> {
        let reported = self.stats.call(ctx.for_downstream_call(GATEWAY, None), GetServedRequests {}).await?;
        // A report in flight may count on both sides: a total that runs a moment ahead is better than one that falls.
        Ok(reported + self.pending.load(Ordering::Relaxed) + self.in_flight.load(Ordering::Relaxed))
    }

    /// Reports what the statistics do not include yet. To be called by one task only. May be dropped at any moment: a
    /// report in flight to another process is repeated by the next call, under the same key.
    pub async fn flush(&self) {
        let unacknowledged = self.unacknowledged.lock().clone();
        if let Some((count, key)) = unacknowledged
            && !self.report(count, key).await
        {
            return;
        }
        let count = self.pending.swap(0, Ordering::Relaxed);
        if count > 0 {
            self.report(count, IdempotencyKey::internal(&format!("served/{}", crate::types::new_uuid()))).await;
        }
    }

    /// Reports one number. Returns `false` if it has to be repeated under the same key.
    async fn report(&self, count: i64, key: IdempotencyKey) -> bool {
        self.in_flight.store(count, Ordering::Relaxed);
        // In one process no reply is lost, and a key per second would only fill the table of responses.
        let is_remote = self.stats.remote_peer().is_some();
        let ctx = if is_remote {
            RequestContext::internal(GATEWAY).with_key(key.clone())
        } else {
            RequestContext::internal(GATEWAY)
        };
        if is_remote {
            *self.unacknowledged.lock() = Some((count, key));
        }
        if let Err(error) = self.stats.call(ctx, AddServedRequests { count }).await {
            log::debug!("web: reporting {count} served requests failed: {error}");
            if is_remote && matches!(error, CommonError::Unavailable | CommonError::DeadlineExceeded) {
                return false;
            }
            // These are certainly without effect, so they are reported again. After any other error the effect is
            // unknown: losing a few requests does no harm, counting them again and again would.
            if matches!(error, CommonError::Overloaded | CommonError::Unavailable | CommonError::StorageUnavailable) {
                self.pending.fetch_add(count, Ordering::Relaxed);
            }
        }
        *self.unacknowledged.lock() = None;
        self.in_flight.store(0, Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::app::App;
    use crate::settings::{DomainLocation, Settings};
    use crate::types::{Address, Clock};

    #[actix::test]
    async fn interrupted_remote_report_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        let only_stats = |place: DomainLocation| {
            let mut settings = Settings::for_test(dir.path());
            for domain in &mut settings.domains {
                domain.place = if domain.name == "stats" { place.clone() } else { DomainLocation::Off };
            }
            settings
        };
        let mut remote = only_stats(DomainLocation::Local);
        remote.grpc = Some(([127, 0, 0, 1], 0).into());
        let mut remote = App::open(remote, Clock::system()).unwrap();
        let server = remote.grpc().unwrap().unwrap();
        let address = Address { is_tls: false, host: "127.0.0.1".to_owned(), port: server.address().port() };
        actix::spawn(server.run());
        let local = App::open(only_stats(DomainLocation::Remote(address)), Clock::system()).unwrap();
        let counter = ServedCounter::new(local.clients.stats.clone());
        let reported =
            async || local.clients.stats.call(RequestContext::internal("test"), GetServedRequests {}).await.unwrap();
        assert_eq!(reported().await, 0);
        for _ in 0..12 {
            counter.increment();
        }
        assert!(counter.flush().now_or_never().is_none(), "the report did not cross a process boundary");
        counter.increment();
        counter.flush().await;
        assert_eq!(reported().await, 13);
        counter.flush().await;
        assert_eq!(reported().await, 13);
    }
}
