//! Rate limits of what a client sends in one session.

use std::time::Instant;

/// Token bucket: a number of tokens per second, and a number at once.
pub struct TokenBucket {
    per_second: f64,
    burst: f64,
    left: f64,
    refilled_at: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(per_second: f64, burst: f64) -> Self {
        Self { per_second, burst, left: burst, refilled_at: Instant::now() }
    }

    /// Takes a token. Returns `false` if there is none.
    pub fn take(&mut self) -> bool {
        let now = Instant::now();
        let refill = now.duration_since(self.refilled_at).as_secs_f64() * self.per_second;
        self.left = (self.left + refill).min(self.burst);
        self.refilled_at = now;
        let has_token = self.left >= 1.0;
        if has_token {
            self.left -= 1.0;
        }
        has_token
    }
}
