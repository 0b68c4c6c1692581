//! Histogram of durations in atomic counters: an observation is a few additions, without a lock or an allocation.
//!
//! Does not contain: the text format of metrics (`web::metrics`). Imports nothing of this crate.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the buckets in nanoseconds; one more bucket has no bound.
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

/// Histogram of durations.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
}

/// Contents of a [`Histogram`] at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramSnapshot {
    /// Number of observations.
    pub count: u64,
    /// Sum of all observations in seconds.
    pub sum: f64,
    /// Upper bound in seconds and number of observations of each bucket, not cumulative; the last bound is `f64::INFINITY`.
    pub buckets: [(f64, u64); BUCKETS],
}

impl Histogram {
    /// Returns an empty histogram.
    #[must_use]
    pub const fn new() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS], nanos: AtomicU64::new(0) }
    }

    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(BOUNDS.partition_point(|bound| *bound < nanos)) {
            bucket.fetch_add(1, Relaxed);
        }
        self.nanos.fetch_add(nanos, Relaxed);
    }

    /// Returns the contents.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a sum of seconds for a graph")]
    pub fn snapshot(&self) -> HistogramSnapshot {
        let mut buckets = [(f64::INFINITY, 0); BUCKETS];
        for (entry, bound) in buckets.iter_mut().zip(BOUNDS) {
            entry.0 = bound as f64 / 1e9;
        }
        for (entry, bucket) in buckets.iter_mut().zip(&self.buckets) {
            entry.1 = bucket.load(Relaxed);
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
    fn durations_fall_into_bucket_of_next_bound() {
        let histogram = Histogram::new();
        for micros in [0, 100, 101, 9_999_999, 10_000_000, 10_000_001, 60_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let snapshot = histogram.snapshot();
        let filled: Vec<(f64, u64)> = snapshot.buckets.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0.0001, 2), (0.00025, 1), (10.0, 2), (f64::INFINITY, 2)]);
        assert_eq!(snapshot.count, 7);
        assert!((snapshot.sum - 90.000_201).abs() < 1e-6, "{}", snapshot.sum);
    }
}
