//! Rate limit of the frames that a client sends.

use std::time::Instant;

/// Token bucket: a number of frames per second, and twice as many in a burst.
pub struct TokenBucket {
    per_second: f64,
    left: f64,
    refilled_at: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, left: 2.0 * per_second, refilled_at: Instant::now() }
    }

    /// Takes a token. Returns `false` if there is none.
    pub fn take(&mut self) -> bool {
        let now = Instant::now();
        let refill = now.duration_since(self.refilled_at).as_secs_f64() * self.per_second;
        self.left = (self.left + refill).min(2.0 * self.per_second);
        self.refilled_at = now;
        let has_token = self.left >= 1.0;
        if has_token {
            self.left -= 1.0;
        }
        has_token
    }
}
