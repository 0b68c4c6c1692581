//! The only source of time. Tests hold a clone and advance it; nothing else may read the system's clock for a date.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Timestamp;

/// Clock of the process. Clones share their offset, so that a test that advances one advances all.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// Offset from the system's clock, in microseconds.
    offset: Arc<AtomicI64>,
    /// In the simulation: an instant of the runtime, whose timers can be paused, and the time at that instant.
    #[cfg(feature = "test-hooks")]
    base: Option<(tokio::time::Instant, Timestamp)>,
}

impl Clock {
    /// Makes a clock that follows the system's.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// Makes a clock that starts at `now` and follows the timers of this runtime.
    #[cfg(feature = "test-hooks")]
    #[must_use]
    pub fn simulated(now: Timestamp) -> Self {
        Self { base: Some((tokio::time::Instant::now(), now)), ..Self::default() }
    }

    /// Returns the current instant.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.unshifted().micros().saturating_add(self.offset.load(Ordering::Relaxed)))
    }

    fn unshifted(&self) -> Timestamp {
        #[cfg(feature = "test-hooks")]
        if let Some((start, time)) = self.base {
            return time.saturating_add(start.elapsed());
        }
        let real = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(real.as_micros()).unwrap_or(i64::MAX))
    }

    /// Advances this clock and all its clones. For tests.
    pub fn advance(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.offset.fetch_add(micros, Ordering::Relaxed);
    }
}
