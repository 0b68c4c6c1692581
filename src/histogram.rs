//! What is measured while the shop runs, as plain atomic numbers: noting something is a few additions, without a lock, an
//! allocation or a look-up. Never enters: how it is shown (`web::metrics`), what is measured (that is where it happens).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Up to how many nanoseconds each bucket of a [`Histogram`] reaches; one more is for what took longer.
const BOUNDS: [u64; 16] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];
const BUCKETS: usize = BOUNDS.len() + 1;

/// How long something takes, as a histogram.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
}

/// What a [`Histogram`] held at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramSnapshot {
    /// How often it was noted.
    pub count: u64,
    /// How long all of them took together, in seconds.
    pub sum: f64,
    /// Up to how many seconds, and how many took that long and no less; the last bound is `f64::INFINITY`.
    pub buckets: [(f64, u64); BUCKETS],
}

impl Histogram {
    /// Nothing noted yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS], nanos: AtomicU64::new(0) }
    }

    /// Notes one.
    pub fn note(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(BOUNDS.partition_point(|bound| *bound < nanos)) {
            bucket.fetch_add(1, Relaxed);
        }
        self.nanos.fetch_add(nanos, Relaxed);
    }

    /// What was noted so far.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a sum of seconds for a graph")]
    pub fn read(&self) -> HistogramSnapshot {
        let mut buckets = [(f64::INFINITY, 0); BUCKETS];
        for (shown, bound) in buckets.iter_mut().zip(BOUNDS) {
            shown.0 = bound as f64 / 1e9;
        }
        for (shown, bucket) in buckets.iter_mut().zip(&self.buckets) {
            shown.1 = bucket.load(Relaxed);
        }
        // Counted from the buckets, so that the two always agree.
        let count = buckets.iter().map(|(_, count)| count).sum();
        HistogramSnapshot { count, sum: self.nanos.load(Relaxed) as f64 / 1e9, buckets }
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_in_the_one_bucket_that_reaches_it() {
        let timing = Histogram::new();
        for micros in [0, 100, 101, 9_999_999, 10_000_000, 10_000_001, 60_000_000] {
            timing.note(Duration::from_micros(micros));
        }
        let times = timing.read();
        let filled: Vec<(f64, u64)> = times.buckets.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0.0001, 2), (0.00025, 1), (10.0, 2), (f64::INFINITY, 2)]);
        assert_eq!(times.count, 7);
        assert!((times.sum - 90.000_201).abs() < 1e-6, "{}", times.sum);
    }
}
