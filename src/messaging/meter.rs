//! How often each message was asked, how long it took and how it failed, counted where it is asked from.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Instant;

use super::{DomainError, ErrorKind};
use crate::meters::{Times, Timing};

/// The kinds of failure by the words that figures have for them, in the order of [`ErrorKind`].
const KINDS: [(ErrorKind, &str); 16] = [
    (ErrorKind::Malformed, "malformed"),
    (ErrorKind::Unauthenticated, "unauthenticated"),
    (ErrorKind::PaymentRequired, "payment_required"),
    (ErrorKind::Forbidden, "forbidden"),
    (ErrorKind::NotFound, "not_found"),
    (ErrorKind::Conflict, "conflict"),
    (ErrorKind::Precondition, "precondition"),
    (ErrorKind::TooLarge, "too_large"),
    (ErrorKind::UnsupportedMedia, "unsupported_media"),
    (ErrorKind::Invalid, "invalid"),
    (ErrorKind::TooMany, "too_many"),
    (ErrorKind::Internal, "internal"),
    (ErrorKind::Upstream, "upstream"),
    (ErrorKind::Unavailable, "unavailable"),
    (ErrorKind::Deadline, "deadline"),
    // No kind of failure: whoever asked went away before there was an answer.
    (ErrorKind::Deadline, ABANDONED),
];
const ABANDONED: &str = "abandoned";

/// The messages that were asked at least once in this process.
static ASKED: Mutex<Vec<&'static Meter>> = Mutex::new(Vec::new());

/// What is counted of one message. There is one for each in a process: [`crate::requests!`] makes it, so that no call
/// has to look for it.
#[derive(Debug)]
pub struct Meter {
    name: &'static str,
    entered: Once,
    local: Tally,
    remote: Tally,
}

/// What is counted of one message that goes to one kind of place.
#[derive(Debug)]
struct Tally {
    in_flight: AtomicI64,
    took: Timing,
    failed: [AtomicU64; KINDS.len()],
}

/// What was counted of one message so far.
#[derive(Debug)]
pub struct Counted {
    /// Its name.
    pub name: &'static str,
    /// `local` for calls to a domain in this process, `remote` for those to one elsewhere.
    pub place: &'static str,
    /// How many are under way.
    pub in_flight: i64,
    /// How many ended, and how long they took.
    pub took: Times,
    /// How many of them failed, by kind.
    pub failed: Vec<(&'static str, u64)>,
}

impl Tally {
    const fn new() -> Self {
        Self { in_flight: AtomicI64::new(0), took: Timing::new(), failed: [const { AtomicU64::new(0) }; KINDS.len()] }
    }

    fn read(&self, name: &'static str, place: &'static str) -> Option<Counted> {
        let (in_flight, took) = (self.in_flight.load(Relaxed), self.took.read());
        let failed = KINDS.iter().zip(&self.failed).map(|((_, kind), count)| (*kind, count.load(Relaxed)));
        let failed = failed.filter(|(_, count)| *count > 0).collect();
        (took.count > 0 || in_flight > 0).then_some(Counted { name, place, in_flight, took, failed })
    }
}

impl Meter {
    /// The meter of the message with this name.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, entered: Once::new(), local: Tally::new(), remote: Tally::new() }
    }

    /// Counts a call that begins now, to a domain in this process or elsewhere.
    pub fn begin(&'static self, is_local: bool) -> Watched {
        self.entered.call_once(|| ASKED.lock().unwrap_or_else(PoisonError::into_inner).push(self));
        let tally = if is_local { &self.local } else { &self.remote };
        tally.in_flight.fetch_add(1, Relaxed);
        Watched { tally, began: Instant::now(), failed: Some(KINDS.len() - 1) }
    }

    /// What was counted in this process so far, in the order of names. A message that nobody asked is not in it.
    #[must_use]
    pub fn all() -> Vec<Counted> {
        let mut asked = ASKED.lock().unwrap_or_else(PoisonError::into_inner).clone();
        asked.sort_unstable_by_key(|meter| meter.name);
        let places = |meter: &Meter| [meter.local.read(meter.name, "local"), meter.remote.read(meter.name, "remote")];
        asked.into_iter().flat_map(places).flatten().collect()
    }
}

/// A call under way. However it ends, also when nobody waits for it any more, it is counted once.
#[derive(Debug)]
pub struct Watched {
    tally: &'static Tally,
    began: Instant,
    failed: Option<usize>,
}

impl Watched {
    /// The call ends with this answer.
    pub fn end<T, E: DomainError>(mut self, answer: Result<T, E>) -> Result<T, E> {
        self.failed = answer.as_ref().err().map(|error| error.kind() as usize);
        answer
    }
}

impl Drop for Watched {
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
    use crate::messaging::Failure;

    #[test]
    fn every_kind_has_its_word() {
        for (place, (kind, word)) in KINDS.into_iter().enumerate() {
            assert!(kind as usize == place || word == ABANDONED, "{word}");
        }
    }

    #[test]
    fn calls_are_counted_by_place_and_by_how_they_ended() {
        static METER: Meter = Meter::new("meter.Test");
        assert_eq!(METER.begin(true).end(Ok::<_, Failure>(1)), Ok(1));
        assert!(METER.begin(true).end(Err::<(), _>(Failure::Overloaded)).is_err());
        // Nobody waits for this one.
        drop(METER.begin(false));
        let own: Vec<Counted> = Meter::all().into_iter().filter(|counted| counted.name == "meter.Test").collect();
        let told: Vec<_> = own.iter().map(|c| (c.place, c.took.count, c.in_flight, c.failed.clone())).collect();
        assert_eq!(told, [("local", 2, 0, vec![("unavailable", 1)]), ("remote", 1, 0, vec![("abandoned", 1)])]);
    }
}
