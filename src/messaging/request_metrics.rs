//! Metrics per message: number of calls, durations and errors, counted at the caller.

use std::sync::Once;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;

use super::{DomainError, ErrorKind};
use crate::histogram::{Histogram, HistogramSnapshot};

/// Label values of the error kinds, in the order of [`ErrorKind`].
const KINDS: [(ErrorKind, &str); 16] = [
    (ErrorKind::Malformed, "malformed"),
    (ErrorKind::Unauthenticated, "unauthenticated"),
    (ErrorKind::PaymentRequired, "payment_required"),
    (ErrorKind::Forbidden, "forbidden"),
    (ErrorKind::NotFound, "not_found"),
    (ErrorKind::Conflict, "conflict"),
    (ErrorKind::PreconditionFailed, "precondition"),
    (ErrorKind::TooLarge, "too_large"),
    (ErrorKind::UnsupportedMedia, "unsupported_media"),
    (ErrorKind::Invalid, "invalid"),
    (ErrorKind::TooManyRequests, "too_many"),
    (ErrorKind::Internal, "internal"),
    (ErrorKind::Upstream, "upstream"),
    (ErrorKind::Unavailable, "unavailable"),
    (ErrorKind::DeadlineExceeded, "deadline"),
    // Not an error kind: the caller stopped waiting before there was a reply.
    (ErrorKind::DeadlineExceeded, CANCELLED),
];
const CANCELLED: &str = "abandoned";

/// Metrics of all messages that were called at least once in this process.
static REGISTRY: Mutex<Vec<&'static RequestMetrics>> = Mutex::new(Vec::new());

/// Metrics of one message. [`crate::requests!`] makes one static per message, so that no call has to look it up.
#[derive(Debug)]
pub struct RequestMetrics {
    name: &'static str,
    registered: Once,
    local: PlaceMetrics,
    remote: PlaceMetrics,
}

/// Metrics of one message to local or to remote domains.
#[derive(Debug)]
struct PlaceMetrics {
    in_flight: AtomicI64,
    durations: Histogram,
    errors: [AtomicU64; KINDS.len()],
}

/// Metrics of one message at one moment.
#[derive(Debug)]
pub struct RequestMetricsSnapshot {
    /// Name of the message.
    pub name: &'static str,
    /// `local` for calls to a domain in this process, `remote` for calls to another process.
    pub place: &'static str,
    /// Number of calls in progress.
    pub in_flight: i64,
    /// Durations of finished calls.
    pub durations: HistogramSnapshot,
    /// Number of errors by kind.
    pub errors: Vec<(&'static str, u64)>,
}

impl PlaceMetrics {
    const fn new() -> Self {
        Self {
            in_flight: AtomicI64::new(0),
            durations: Histogram::new(),
            errors: [const { AtomicU64::new(0) }; KINDS.len()],
        }
    }

    fn snapshot(&self, name: &'static str, place: &'static str) -> Option<RequestMetricsSnapshot> {
        let (in_flight, durations) = (self.in_flight.load(Relaxed), self.durations.snapshot());
        let errors = KINDS.iter().zip(&self.errors).map(|((_, kind), count)| (*kind, count.load(Relaxed)));
        let errors = errors.filter(|(_, count)| *count > 0).collect();
        (durations.count > 0 || in_flight > 0).then_some(RequestMetricsSnapshot {
            name,
            place,
            in_flight,
            durations,
            errors,
        })
    }
}

impl RequestMetrics {
    /// Returns the metrics of the message with this name.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, registered: Once::new(), local: PlaceMetrics::new(), remote: PlaceMetrics::new() }
    }

    /// Starts to measure a call to a local or to a remote domain.
    pub fn start(&'static self, is_local: bool) -> CallTimer {
        self.registered.call_once(|| REGISTRY.lock().push(self));
        let place = if is_local { &self.local } else { &self.remote };
        place.in_flight.fetch_add(1, Relaxed);
        CallTimer { place, started_at: Instant::now(), error: Some(KINDS.len() - 1) }
    }

    /// Returns the metrics of all messages that were called in this process, ordered by name.
    #[must_use]
    pub fn all() -> Vec<RequestMetricsSnapshot> {
        let mut all = REGISTRY.lock().clone();
        all.sort_unstable_by_key(|metrics| metrics.name);
        let places = |metrics: &RequestMetrics| {
            [metrics.local.snapshot(metrics.name, "local"), metrics.remote.snapshot(metrics.name, "remote")]
        };
        all.into_iter().flat_map(places).flatten().collect()
    }
}

/// Measurement of one call. Dropped without [`CallTimer::finish`], the call counts as abandoned.
#[derive(Debug)]
pub struct CallTimer {
    place: &'static PlaceMetrics,
    started_at: Instant,
    error: Option<usize>,
}

impl CallTimer {
    /// Records the result of the call and returns it.
    pub fn finish<T, E: DomainError>(mut self, result: Result<T, E>) -> Result<T, E> {
        self.error = result.as_ref().err().map(|error| error.kind() as usize);
        result
    }
}

impl Drop for CallTimer {
    fn drop(&mut self) {
        self.place.in_flight.fetch_sub(1, Relaxed);
        self.place.durations.observe(self.started_at.elapsed());
        if let Some(count) = self.error.and_then(|kind| self.place.errors.get(kind)) {
            count.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::CommonError;

    #[test]
    fn error_kinds_match_their_label_values() {
        for (position, (kind, label)) in KINDS.into_iter().enumerate() {
            assert!(kind as usize == position || label == CANCELLED, "{label}");
        }
    }

    #[test]
    fn calls_are_counted_by_place_and_result() {
        static METRICS: RequestMetrics = RequestMetrics::new("meter.Test");
        assert_eq!(METRICS.start(true).finish(Ok::<_, CommonError>(1)), Ok(1));
        assert!(METRICS.start(true).finish(Err::<(), _>(CommonError::Overloaded)).is_err());
        // The caller stops waiting.
        drop(METRICS.start(false));
        let snapshots: Vec<RequestMetricsSnapshot> =
            RequestMetrics::all().into_iter().filter(|snapshot| snapshot.name == "meter.Test").collect();
        let counts: Vec<_> =
            snapshots.iter().map(|c| (c.place, c.durations.count, c.in_flight, c.errors.clone())).collect();
        assert_eq!(counts, [("local", 2, 0, vec![("unavailable", 1)]), ("remote", 1, 0, vec![("abandoned", 1)])]);
    }
}
