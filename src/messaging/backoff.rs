//! Exponential backoff: delays that double from an initial to a maximal one.

use std::time::Duration;

/// Delays between retries. A `const` of this type is the policy, a variable its state.
#[derive(Debug, Clone)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Returns a backoff whose first delay is `initial` and whose longest is `max`.
    #[must_use]
    pub const fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max, next: initial }
    }

    /// Returns the longest delay.
    #[must_use]
    pub const fn max(&self) -> Duration {
        self.max
    }

    /// Starts again with the initial delay, as after a success.
    pub const fn reset(&mut self) {
        self.next = self.initial;
    }

    /// Returns the next delay and doubles the one after it.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(self.max);
        delay
    }

    /// Sleeps for the next delay.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_delay()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_max_until_reset() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(150));
        let delays: Vec<u128> = (0..4).map(|_| backoff.next_delay().as_millis()).collect();
        assert_eq!(delays, [50, 100, 150, 150]);
        backoff.reset();
        assert_eq!(backoff.next_delay().as_millis(), 50);
    }
}
