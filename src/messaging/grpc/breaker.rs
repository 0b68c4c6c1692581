//! Decides whether an address that keeps failing is still asked. Pure: no clock, no network.
//!
//! One broken connection loses every call on it at once, and that is no sign of an address that should be left alone. So
//! losses are counted by looks: the link looks at the other side after a loss, and what counts is how often in a row it
//! seemed well and calls were lost all the same.

/// Looks in a row before each of which calls were lost and none was answered, until an address is left alone.
pub const FAILED_PROBES_MAX: u32 = 5;

/// The count of one connection.
#[derive(Debug, Default)]
pub struct CircuitBreaker {
    /// Whether a call was lost since the last look.
    losing: bool,
    looks: u32,
    /// After having been left alone, an address gets one call at a time until one comes back.
    trial: bool,
    trying: bool,
}

impl CircuitBreaker {
    /// The breaker of a connection to an address that was left alone before.
    pub fn half_open() -> Self {
        Self { trial: true, ..Self::default() }
    }

    /// Whether a call may be made now. One that was let through must be told of by the methods below.
    pub fn admit(&mut self) -> bool {
        if self.is_open() || (self.trial && self.trying) {
            return false;
        }
        self.trying = self.trial;
        true
    }

    /// An answer came, whatever it says.
    pub fn answered(&mut self) {
        *self = Self::default();
    }

    /// No answer came: the connection broke, or there was none.
    pub fn lost(&mut self) {
        self.losing = true;
        self.trying = false;
    }

    /// The caller stopped waiting, which says nothing about the other side.
    pub fn given_up(&mut self) {
        self.trying = false;
    }

    /// The other side was looked at and seems well.
    pub fn looked(&mut self) {
        self.looks += u32::from(std::mem::take(&mut self.losing));
    }

    /// Whether the address is to be left alone.
    pub fn is_open(&self) -> bool {
        self.looks >= if self.trial { 1 } else { FAILED_PROBES_MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_so_many_looks_between_losses_and_one_answer_forgives_all() {
        let mut breaker = CircuitBreaker::default();
        for _ in 0..100 {
            assert!(breaker.admit());
            breaker.lost();
        }
        breaker.looked();
        assert!(!breaker.is_open(), "one broken connection, however much was on it");
        for _ in 2..FAILED_PROBES_MAX {
            breaker.lost();
            breaker.looked();
        }
        assert!(breaker.admit());
        breaker.answered();
        for _ in 0..FAILED_PROBES_MAX {
            assert!(breaker.admit());
            breaker.lost();
            breaker.looked();
        }
        assert!(breaker.is_open() && !breaker.admit());
    }

    #[test]
    fn half_open_it_lets_one_call_through_at_a_time() {
        let mut breaker = CircuitBreaker::half_open();
        assert!(breaker.admit());
        assert!(!breaker.admit(), "the first is not back yet");
        breaker.given_up();
        assert!(breaker.admit());
        breaker.answered();
        assert!(breaker.admit() && breaker.admit(), "closed again");
        let mut breaker = CircuitBreaker::half_open();
        assert!(breaker.admit());
        breaker.lost();
        breaker.looked();
        assert!(breaker.is_open(), "one loss is enough");
    }
}
