//! Waits between failed sign-ins to one account.
//!
//! Failures are counted per account and network: after some the network waits, each time twice as long. Many failures from
//! many networks make the account guarded: networks that never signed in to it wait from their second failure on, and
//! longer. No failure of one network makes another wait for its first attempt, so that knowing an address is not enough to
//! lock its owner out. An account that does not exist is counted like one that does, and reveals nothing.
//!
//! In memory: a restart forgets. Of very many accounts and networks the least used are forgotten; to make the shop forget
//! one, an attacker has to fail tens of thousands of times, at the cost of a password hash each.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use parking_lot::Mutex;
use quick_cache::unsync::Cache;

use crate::messaging::CommonError;
use crate::types::{ClientNetwork, Timestamp};

/// Pairs of account and network, and accounts, that are remembered.
const REMEMBERED_MAX: usize = 65_536;
/// Attempts of a network at an account without a wait.
const FREE_ATTEMPTS: u32 = 10;
/// The same while the account is guarded, for networks that never signed in to it.
const FREE_ATTEMPTS_GUARDED: u32 = 1;
/// First wait.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// First wait while the account is guarded.
const WAIT_MIN_GUARDED: Duration = Duration::from_secs(60);
/// Longest wait.
const WAIT_MAX: Duration = Duration::from_secs(900);
/// Time without an attempt after which the failures of a network are forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3_600);
/// Failures of all networks after which an account is guarded.
const ACCOUNT_FAILURES: u32 = 50;
/// Time in which one of those failures is forgotten.
const FAILURE_COOLS_AFTER: Duration = Duration::from_secs(60);
/// Name of the limit in errors.
const LIMIT: &str = "signin_account";

/// Failed sign-ins of recent time.
pub struct SignInThrottle {
    hasher: RandomState,
    inner: Mutex<ThrottleInner>,
}

struct ThrottleInner {
    /// By hash of account and network.
    pairs: Cache<u64, PairAttempts>,
    /// By hash of the account: the time at which all failures are forgotten.
    accounts: Cache<u64, Timestamp>,
}

/// Attempts of one network at one account.
#[derive(Debug, Clone, Copy)]
struct PairAttempts {
    /// Attempts since the last success, those in progress included.
    count: u32,
    last_at: Timestamp,
    /// Whether this network has signed in to the account.
    is_known: bool,
}

/// An admitted attempt. One that is dropped without an outcome, because the shop could not decide, does not count.
pub struct SignInAttempt<'a> {
    throttle: &'a SignInThrottle,
    pair: u64,
    account: u64,
    is_decided: bool,
}

impl SignInThrottle {
    /// Nothing failed yet.
    pub fn new() -> Self {
        let inner = ThrottleInner { pairs: Cache::new(REMEMBERED_MAX), accounts: Cache::new(REMEMBERED_MAX) };
        Self { hasher: RandomState::new(), inner: Mutex::new(inner) }
    }

    /// Admits an attempt, which counts as failed until its outcome is known, so that many at once are counted too.
    ///
    /// # Errors
    /// `RateLimited` while the network has to wait.
    pub fn admit(&self, email: &str, network: ClientNetwork, now: Timestamp) -> Result<SignInAttempt<'_>, CommonError> {
        let (pair, account) = (self.hasher.hash_one((email, network)), self.hasher.hash_one(email));
        let mut inner = self.inner.lock();
        let known = inner.pairs.get(&pair).copied();
        let mut attempts = known.unwrap_or(PairAttempts { count: 0, last_at: now, is_known: false });
        if now.duration_since(attempts.last_at) >= FORGOTTEN_AFTER {
            attempts.count = 0;
        }
        let cools_for = inner.accounts.get(&account).map_or(Duration::ZERO, |cool_at| cool_at.duration_since(now));
        let is_guarded = cools_for > FAILURE_COOLS_AFTER * ACCOUNT_FAILURES && !attempts.is_known;
        let wait = wait_after(attempts.count, is_guarded);
        let left = attempts.last_at.saturating_add(wait).duration_since(now);
        // A clock that was set back does not prolong the wait.
        let left = left.min(wait);
        if !left.is_zero() {
            let retry_after = left.as_secs() + u64::from(left.subsec_nanos() > 0);
            return Err(CommonError::RateLimited { limit: LIMIT.to_owned(), retry_after });
        }
        attempts.count = attempts.count.saturating_add(1);
        attempts.last_at = now;
        inner.pairs.insert(pair, attempts);
        Ok(SignInAttempt { throttle: self, pair, account, is_decided: false })
    }
}

/// Wait after the last of `count` failures.
fn wait_after(count: u32, is_guarded: bool) -> Duration {
    let (free, first) = if is_guarded { (FREE_ATTEMPTS_GUARDED, WAIT_MIN_GUARDED) } else { (FREE_ATTEMPTS, WAIT_MIN) };
    match count.checked_sub(free) {
        Some(doublings) => first.saturating_mul(1 << doublings.min(20)).min(WAIT_MAX),
        None => Duration::ZERO,
    }
}

impl SignInAttempt<'_> {
    /// Records that the password was right: the network is known from now on, and waits no more.
    pub fn succeeded(mut self, now: Timestamp) {
        self.is_decided = true;
        let mut inner = self.throttle.inner.lock();
        inner.pairs.insert(self.pair, PairAttempts { count: 0, last_at: now, is_known: true });
    }

    /// Records that the password, or the account, was wrong.
    pub fn failed(mut self, now: Timestamp) {
        self.is_decided = true;
        let mut inner = self.throttle.inner.lock();
        let cool_at = inner.accounts.get(&self.account).copied().unwrap_or(now);
        let from = if cool_at > now { cool_at } else { now };
        let latest = now.saturating_add(FAILURE_COOLS_AFTER * (2 * ACCOUNT_FAILURES));
        inner.accounts.insert(self.account, from.saturating_add(FAILURE_COOLS_AFTER).min(latest));
    }
}

impl Drop for SignInAttempt<'_> {
    fn drop(&mut self) {
        if self.is_decided {
            return;
        }
        let mut inner = self.throttle.inner.lock();
        if let Some(attempts) = inner.pairs.get(&self.pair).copied() {
            let count = attempts.count.saturating_sub(1);
            inner.pairs.insert(self.pair, PairAttempts { count, ..attempts });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn network(number: u8) -> ClientNetwork {
        IpAddr::from([203, 0, 113, number]).into()
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000_000_000_000).saturating_add(Duration::from_secs(seconds))
    }

    fn retry_after(throttle: &SignInThrottle, from: u8, seconds: u64) -> u64 {
        match throttle.admit("ada@example.com", network(from), at(seconds)) {
            Ok(_) => 0,
            Err(CommonError::RateLimited { retry_after, .. }) => retry_after,
            Err(error) => panic!("{error}"),
        }
    }

    fn fail(throttle: &SignInThrottle, from: u8, seconds: u64) {
        throttle.admit("ada@example.com", network(from), at(seconds)).unwrap().failed(at(seconds));
    }

    #[test]
    fn s02_waits_double_and_are_forgotten() {
        let throttle = SignInThrottle::new();
        (0..FREE_ATTEMPTS).for_each(|_| fail(&throttle, 1, 0));
        let mut now = 0;
        for wait in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900] {
            assert_eq!(retry_after(&throttle, 1, now), wait);
            assert_eq!(retry_after(&throttle, 1, now + wait - 1), 1);
            now += wait;
            fail(&throttle, 1, now);
        }
        assert_eq!(retry_after(&throttle, 1, now + 3_600), 0);
    }

    #[test]
    fn s02_other_networks_and_accounts_do_not_wait() {
        let throttle = SignInThrottle::new();
        (0..FREE_ATTEMPTS).for_each(|_| fail(&throttle, 1, 0));
        assert_eq!(retry_after(&throttle, 1, 0), 1);
        assert_eq!(retry_after(&throttle, 2, 0), 0);
        assert!(throttle.admit("bob@example.com", network(1), at(0)).is_ok());
    }

    #[test]
    fn s02_guarded_account_admits_known_and_new_networks() {
        let throttle = SignInThrottle::new();
        throttle.admit("ada@example.com", network(1), at(0)).unwrap().succeeded(at(0));
        (100..200).for_each(|attacker| fail(&throttle, attacker, 0));
        assert_eq!(retry_after(&throttle, 100, 0), 60, "guarded: an attacker's second attempt waits");
        (0..FREE_ATTEMPTS).for_each(|_| fail(&throttle, 1, 0));
        assert_eq!(retry_after(&throttle, 1, 0), 1, "a known network waits no sooner than before");
        let first = throttle.admit("ada@example.com", network(2), at(0));
        first.unwrap().succeeded(at(0));
        fail(&throttle, 2, 0);
        assert_eq!(retry_after(&throttle, 2, 0), 0, "known from its first success on");
        assert_eq!(retry_after(&throttle, 101, 7_200), 0, "the guard ends");
    }

    #[test]
    fn attempts_at_once_are_counted_and_undecided_ones_are_not() {
        let throttle = SignInThrottle::new();
        let admit = || throttle.admit("ada@example.com", network(1), at(0));
        let running: Vec<_> = (0..FREE_ATTEMPTS).map(|_| admit().unwrap()).collect();
        assert!(admit().is_err());
        drop(running);
        assert!(admit().is_ok());
    }
}
