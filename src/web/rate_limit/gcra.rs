//! The generic cell rate algorithm (ITU-T I.371, virtual scheduling): a token bucket in one number.
//!
//! The number is the theoretical arrival time: the instant at which the bucket is full again. It is all that is stored per
//! bucket, in memory and in Redis. Times are microseconds since 1970.

use std::time::Duration;

use crate::settings::Quota;

/// A quota as the algorithm counts with it, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gcra {
    requests: u32,
    /// Time in which one request is refilled.
    pub emission: i64,
    /// Time in which the whole quota is refilled.
    pub window: i64,
}

/// Outcome for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the request is within the quota.
    pub is_allowed: bool,
    /// Requests that are left now.
    pub remaining: u32,
    /// Time until the next request is allowed if this one is not, and until the quota is whole again if it is.
    pub reset: Duration,
}

impl Gcra {
    /// The algorithm for a quota.
    pub fn new(quota: Quota) -> Self {
        let emission = micros(quota.window) / i64::from(quota.requests);
        let emission = emission.max(1);
        Self { requests: quota.requests, emission, window: emission.saturating_mul(i64::from(quota.requests)) }
    }

    /// The algorithm for `factor` times the quota.
    pub fn times(&self, factor: u32) -> Self {
        let requests = self.requests.saturating_mul(factor);
        let window = Duration::from_micros(u64::try_from(self.window).unwrap_or(0));
        Self::new(Quota { requests, window })
    }

    /// Decides on a request at `now` for a bucket that is full at `full_at`; returns when it is full after the request.
    pub fn decide(&self, full_at: Option<i64>, now: i64) -> (i64, Verdict) {
        // A clock that was set back must not lock anyone out for longer than a window.
        let full_at = full_at.unwrap_or(now).clamp(now, now.saturating_add(self.window));
        let next = full_at.saturating_add(self.emission);
        let is_allowed = next - now <= self.window;
        let full_at = if is_allowed { next } else { full_at };
        (full_at, self.verdict(is_allowed, full_at - now))
    }

    /// The verdict for a bucket that is full again `backlog` microseconds after the request.
    pub fn verdict(&self, is_allowed: bool, backlog: i64) -> Verdict {
        let left = (self.window - backlog).max(0) / self.emission;
        let wait = if is_allowed { backlog } else { backlog + self.emission - self.window };
        Verdict {
            is_allowed,
            remaining: u32::try_from(left).unwrap_or(u32::MAX).min(self.requests),
            reset: Duration::from_micros(u64::try_from(wait).unwrap_or(0)),
        }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gcra(requests: u32, seconds: u64) -> Gcra {
        Gcra::new(Quota { requests, window: Duration::from_secs(seconds) })
    }

    #[test]
    fn burst_then_refill_one_by_one() {
        let ten = gcra(10, 60);
        let mut full_at = None;
        for left in (0..10).rev() {
            let (next, verdict) = ten.decide(full_at, 0);
            assert_eq!((verdict.is_allowed, verdict.remaining), (true, left));
            full_at = Some(next);
        }
        let (_, verdict) = ten.decide(full_at, 0);
        assert_eq!((verdict.is_allowed, verdict.remaining, verdict.reset), (false, 0, Duration::from_secs(6)));
        let (next, verdict) = ten.decide(full_at, 6_000_000);
        assert!(verdict.is_allowed);
        assert!(!ten.decide(Some(next), 6_000_000).1.is_allowed);
    }

    proptest! {
        /// In any span no more requests pass than the quota at once and its refill over that span.
        #[test]
        fn no_span_lets_more_pass_than_burst_and_refill(
            requests in 1_u32..50,
            seconds in 1_u64..100,
            gaps in proptest::collection::vec(0_i64..5_000_000, 1..200),
        ) {
            let gcra = gcra(requests, seconds);
            let (mut now, mut full_at, mut passed) = (0, None, Vec::new());
            for gap in gaps {
                now += gap;
                let (next, verdict) = gcra.decide(full_at, now);
                full_at = Some(next);
                if verdict.is_allowed {
                    passed.push(now);
                } else {
                    // Who waits as long as the verdict says is let in.
                    let later = now + i64::try_from(verdict.reset.as_micros()).unwrap();
                    prop_assert!(gcra.decide(full_at, later).1.is_allowed);
                }
            }
            for (first, begin) in passed.iter().enumerate() {
                for (last, end) in passed.iter().enumerate().skip(first) {
                    let most = i64::from(requests) + (end - begin) / gcra.emission;
                    prop_assert!(i64::try_from(last - first + 1).unwrap() <= most);
                }
            }
        }

        #[test]
        fn clock_set_back_locks_out_for_one_window_at_most(full_at in 0_i64..1_000_000_000_000, now in 0_i64..1_000) {
            let gcra = gcra(5, 10);
            let (next, _) = gcra.decide(Some(full_at), now);
            prop_assert!(gcra.decide(Some(next), now + gcra.window).1.is_allowed);
        }
    }
}
