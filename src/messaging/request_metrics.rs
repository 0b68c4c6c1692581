//! How often each message was asked, how long it took and how it failed, counted where it is asked from.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Instant;

use super::{DomainError, ErrorKind};
use crate::histogram::{Histogram, HistogramSnapshot};

/// The kinds of failure by the words that figures have for them, in the order of [`ErrorKind`].
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
    // No kind of failure: whoever asked went away before there was an answer.
    (ErrorKind::DeadlineExceeded, CANCELLED),
];
const CANCELLED: &str = "abandoned";

/// The messages that were asked at least once in this process.
static REGISTRY: Mutex<Vec<&'static RequestMetrics>> = Mutex::new(Vec::new());

/// What is counted of one message. There is one for each in a process: [`crate::requests!`] makes it, so that no call
/// has to look for it.
#[derive(Debug)]
pub struct RequestMetrics {
    name: &'static str,
    entered: Once,
    local: PlaceMetrics,
    remote: PlaceMetrics,
}

/// What is counted of one message that goes to one kind of place.
#[derive(Debug)]
struct PlaceMetrics {
    in_flight: AtomicI64,
    took: Histogram,
    failed: [AtomicU64; KINDS.len()],
}

/// What was counted of one message so far.
#[derive(Debug)]
pub struct RequestMetricsSnapshot {
    /// Its name.
    pub name: &'static str,
    /// `local` for calls to a domain in this process, `remote` for those to one elsewhere.
    pub place: &'static str,
    /// How many are under way.
    pub in_flight: i64,
    /// How many ended, and how long they took.
    pub took: HistogramSnapshot,
    /// How many of them failed, by kind.
    pub failed: Vec<(&'static str, u64)>,
}

impl PlaceMetrics {
    const fn new() -> Self {
        Self {
            in_flight: AtomicI64::new(0),
            took: Histogram::new(),
            failed: [const { AtomicU64::new(0) }; KINDS.len()],
        }
    }

    fn read(&self, name: &'static str, place: &'static str) -> Option<RequestMetricsSnapshot> {
        let (in_flight, took) = (self.in_flight.load(Relaxed), self.took.read());
        let failed = KINDS.iter().zip(&self.failed).map(|((_, kind), count)| (*kind, count.load(Relaxed)));
        let failed = failed.filter(|(_, count)| *count > 0).collect();
        (took.count > 0 || in_flight > 0).then_some(RequestMetricsSnapshot { name, place, in_flight, took, failed })
    }
}

impl RequestMetrics {
    /// The meter of the message with this name.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, entered: Once::new(), local: PlaceMetrics::new(), remote: PlaceMetrics::new() }
    }

    /// Counts a call that begins now, to a domain in this process or elsewhere.
    pub fn begin(&'static self, is_local: bool) -> CallTimer {
        self.entered.call_once(|| REGISTRY.lock().unwrap_or_else(PoisonError::into_inner).push(self));
        let tally = if is_local { &self.local } else { &self.remote };
        tally.in_flight.fetch_add(1, Relaxed);
        CallTimer { tally, began: Instant::now(), failed: Some(KINDS.len() - 1) }
    }

    /// What was counted in this process so far, in the order of names. A message that nobody asked is not in it.
    #[must_use]
    pub fn all() -> Vec<RequestMetricsSnapshot> {
        let mut asked = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner).clone();
        asked.sort_unstable_by_key(|meter| meter.name);
        let places =
            |meter: &RequestMetrics| [meter.local.read(meter.name, "local"), meter.remote.read(meter.name, "remote")];
        asked.into_iter().flat_map(places).flatten().collect()
    }
}

/// A call under way. However it ends, also when nobody waits for it any more, it is counted once.
#[derive(Debug)]
pub struct CallTimer {
    tally: &'static PlaceMetrics,
    began: Instant,
    failed: Option<usize>,
}

impl CallTimer {
    /// The call ends with this answer.
    pub fn end<T, E: DomainError>(mut self, answer: Result<T, E>) -> Result<T, E> {
        self.failed = answer.as_ref().err().map(|error| error.kind() as usize);
        answer
    }
}

impl Drop for CallTimer {
    fn drop(&mut self) {
        self.tally.in_flight.fetch_sub(1, Relaxed);
        self.tally.took.note(self.began.elapsed());
        if let Some(count) = self.failed.and_then(|kind| self.tally.failed.get(kind)) {
            count.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::CommonError;

    #[test]
    fn every_kind_has_its_word() {
        for (place, (kind, word)) in KINDS.into_iter().enumerate() {
            assert!(kind as usize == place || word == CANCELLED, "{word}");
        }
    }

    #[test]
    fn calls_are_counted_by_place_and_by_how_they_ended() {
        static METER: RequestMetrics = RequestMetrics::new("meter.Test");
        assert_eq!(METER.begin(true).end(Ok::<_, CommonError>(1)), Ok(1));
        assert!(METER.begin(true).end(Err::<(), _>(CommonError::Overloaded)).is_err());
        // Nobody waits for this one.
        drop(METER.begin(false));
        let own: Vec<RequestMetricsSnapshot> =
            RequestMetrics::all().into_iter().filter(|counted| counted.name == "meter.Test").collect();
        let told: Vec<_> = own.iter().map(|c| (c.place, c.took.count, c.in_flight, c.failed.clone())).collect();
        assert_eq!(told, [("local", 2, 0, vec![("unavailable", 1)]), ("remote", 1, 0, vec![("abandoned", 1)])]);
    }
}
