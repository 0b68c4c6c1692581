//! Circuit breaker of one connection. Pure: no clock, no network.
//!
//! One broken connection fails all calls on it at once, which is no reason to stop calling the address. So failures are
//! counted per probe: the connection is probed after a failure, and the breaker counts how often in a row the probe
//! succeeded although calls had failed.

/// Successive probes, each after failed calls and no successful one, that open the breaker.
pub const FAILED_PROBES_MAX: u32 = 5;

/// State of one connection's breaker.
#[derive(Debug, Default)]
pub struct CircuitBreaker {
    /// Whether a call failed since the last probe.
    has_failures: bool,
    failed_probes: u32,
    /// Whether one call at a time is admitted until one succeeds, as after the breaker was open.
    is_half_open: bool,
    has_trial: bool,
}

impl CircuitBreaker {
    /// Returns the breaker of a connection whose predecessor was closed by an open breaker.
    pub fn half_open() -> Self {
        Self { is_half_open: true, ..Self::default() }
    }

    /// Whether a call may be made now. The outcome of an admitted call must be reported by one of the methods below.
    pub fn admit(&mut self) -> bool {
        if self.is_open() || (self.is_half_open && self.has_trial) {
            return false;
        }
        self.has_trial = self.is_half_open;
        true
    }

    /// Reports a reply, whatever it contains.
    pub fn on_success(&mut self) {
        *self = Self::default();
    }

    /// Reports a call without a reply: the connection broke, or there was none.
    pub fn on_failure(&mut self) {
        self.has_failures = true;
        self.has_trial = false;
    }

    /// Reports that the caller stopped waiting, which is no sign of a failure.
    pub fn on_cancelled(&mut self) {
        self.has_trial = false;
    }

    /// Reports a successful probe.
    pub fn on_probe_ok(&mut self) {
        self.failed_probes += u32::from(std::mem::take(&mut self.has_failures));
    }

    /// Whether the address is not to be called.
    pub fn is_open(&self) -> bool {
        self.failed_probes >= if self.is_half_open { 1 } else { FAILED_PROBES_MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaker_opens_after_failed_probes_and_resets() {
        let mut breaker = CircuitBreaker::default();
        for _ in 0..100 {
            assert!(breaker.admit());
            breaker.on_failure();
        }
        breaker.on_probe_ok();
        assert!(!breaker.is_open(), "one broken connection, however much was on it");
        for _ in 2..FAILED_PROBES_MAX {
            breaker.on_failure();
            breaker.on_probe_ok();
        }
        assert!(breaker.admit());
        breaker.on_success();
        for _ in 0..FAILED_PROBES_MAX {
            assert!(breaker.admit());
            breaker.on_failure();
            breaker.on_probe_ok();
        }
        assert!(breaker.is_open() && !breaker.admit());
    }

    #[test]
    fn half_open_breaker_admits_one_call_at_a_time() {
        let mut breaker = CircuitBreaker::half_open();
        assert!(breaker.admit());
        assert!(!breaker.admit(), "the first is not back yet");
        breaker.on_cancelled();
        assert!(breaker.admit());
        breaker.on_success();
        assert!(breaker.admit() && breaker.admit(), "closed again");
        let mut breaker = CircuitBreaker::half_open();
        assert!(breaker.admit());
        breaker.on_failure();
        breaker.on_probe_ok();
        assert!(breaker.is_open(), "one loss is enough");
    }
}
