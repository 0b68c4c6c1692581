//! The one source of time. Tests hold a clone and move it; nothing else may ask the system for the date.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Timestamp;

/// Says what time it is. Clones share the same time, so a test that moves one moves them all.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// How far ahead of the system's clock this one runs, in microseconds.
    ahead: Arc<AtomicI64>,
    /// In the laboratory: what time it was at an instant of the runtime, whose timers can be paused.
    #[cfg(feature = "test-hooks")]
    since: Option<(tokio::time::Instant, Timestamp)>,
}

impl Clock {
    /// The clock of the machine.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock on which it is `now`, and which goes as the timers of this runtime go.
    #[cfg(feature = "test-hooks")]
    #[must_use]
    pub fn simulated(now: Timestamp) -> Self {
        Self { since: Some((tokio::time::Instant::now(), now)), ..Self::default() }
    }

    /// The current instant.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.base().micros().saturating_add(self.ahead.load(Ordering::Relaxed)))
    }

    fn base(&self) -> Timestamp {
        #[cfg(feature = "test-hooks")]
        if let Some((begun, then)) = self.since {
            return then.plus(begun.elapsed());
        }
        let real = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(real.as_micros()).unwrap_or(i64::MAX))
    }

    /// Moves this clock and all its clones forward: a day passes at once.
    pub fn advance(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.ahead.fetch_add(micros, Ordering::Relaxed);
    }
}
