//! Caches for authentication: users by token, and API key usage that is not written yet. Bounded, and safe to lose.
//!
//! Invariant: a token that has ended is never served from the cache, whichever process ended it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use quick_cache::sync::Cache;

use super::Authenticated;
use crate::messaging::Credential;
use crate::store::CacheLease;
use crate::types::{ApiKeyId, SessionId, Timestamp, UserId};

/// Maximum number of cached tokens, about 150 bytes per token.
const CACHED_TOKENS_MAX: usize = 16_384;
/// Maximum number of keys with unwritten usage. Beyond it the usage of further keys is dropped until the next flush.
const PENDING_USES_MAX: usize = 10_000;
const MINUTE_MICROS: i64 = 60_000_000;

/// The user behind a credential, as read from the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenHolder {
    pub authenticated: Authenticated,
    /// Time of the last use that the database has; only of interest for sessions of staff.
    pub last_used_at: Timestamp,
}

/// Users by credential, as read from the database. `None` for a credential that has ended: it never becomes valid again.
pub struct TokenCache {
    entries: Cache<Credential, Option<TokenHolder>>,
    /// Number of invalidations so far, so that an entry read before one is not cached after it.
    invalidations: AtomicU64,
    /// Permission to serve from the cache, with its epoch.
    lease: CacheLease,
    epoch: AtomicU64,
}

/// State of the cache before a database query. See [`TokenCache::insert_if_current`].
#[derive(Clone, Copy)]
pub struct CacheStamp(u64);

impl TokenCache {
    pub fn new(lease: CacheLease) -> Self {
        let epoch = AtomicU64::new(lease.epoch().unwrap_or(0));
        Self { entries: Cache::new(CACHED_TOKENS_MAX), invalidations: AtomicU64::new(0), lease, epoch }
    }

    /// Returns `true` if the cache may be used: not while another process can end a session in the same database.
    fn is_trusted(&self) -> bool {
        let Some(epoch) = self.lease.epoch() else { return false };
        if self.epoch.swap(epoch, Ordering::SeqCst) != epoch {
            self.clear();
        }
        true
    }

    /// Looks up a credential; the outer `None` is a cache miss.
    pub fn get(&self, credential: &Credential) -> Option<Option<TokenHolder>> {
        if self.is_trusted() { self.entries.get(credential) } else { None }
    }

    /// Returns a stamp, to be taken before the database is queried.
    pub fn stamp(&self) -> CacheStamp {
        CacheStamp(self.invalidations.load(Ordering::SeqCst))
    }

    /// Inserts what the database returned, unless anything was invalidated since `stamp`: then it may be stale. Checked
    /// after inserting, because an invalidation counts before it removes.
    pub fn insert_if_current(&self, stamp: CacheStamp, credential: Credential, entry: Option<TokenHolder>) {
        if !self.is_trusted() {
            return;
        }
        self.entries.insert(credential, entry);
        if self.invalidations.load(Ordering::SeqCst) != stamp.0 {
            self.entries.remove(&credential);
        }
    }

    /// Removes a credential that has ended. Called after the change is durable and before it is answered.
    pub fn invalidate(&self, credential: &Credential) {
        self.invalidations.fetch_add(1, Ordering::SeqCst);
        self.entries.remove(credential);
    }

    /// Removes all credentials of a user. Scans the whole cache (under a millisecond); such changes are rare.
    pub fn invalidate_user(&self, user: UserId) {
        self.invalidations.fetch_add(1, Ordering::SeqCst);
        self.entries.retain(|_, entry| entry.is_none_or(|cache| cache.authenticated.identity.user_id != user));
    }

    /// Removes everything.
    pub fn clear(&self) {
        self.invalidations.fetch_add(1, Ordering::SeqCst);
        self.entries.clear();
    }
}

/// Last use of API keys, rounded down to the minute, until it is flushed: one write per interval, not per request.
#[derive(Default)]
pub struct KeyUsage(Mutex<HashMap<ApiKeyId, Timestamp>>);

impl KeyUsage {
    /// Records the use of a key.
    pub fn record(&self, key: ApiKeyId, now: Timestamp) {
        let minute = Timestamp::from_micros(now.micros() - now.micros().rem_euclid(MINUTE_MICROS));
        let mut uses = self.0.lock();
        if uses.len() < PENDING_USES_MAX || uses.contains_key(&key) {
            let last = uses.entry(key).or_insert(minute);
            *last = minute.max(*last);
        }
    }

    /// Time of the last unwritten use of a key.
    pub fn pending(&self, key: ApiKeyId) -> Option<Timestamp> {
        self.0.lock().get(&key).copied()
    }

    /// Copies all unwritten uses, which stay until [`KeyUsage::flushed`], so that a failed write loses nothing.
    pub fn all(&self) -> Vec<(ApiKeyId, Timestamp)> {
        self.0.lock().iter().map(|(key, at)| (*key, *at)).collect()
    }

    /// Removes uses that were written. A later use of the same key stays.
    pub fn flushed(&self, uses: &[(ApiKeyId, Timestamp)]) {
        let mut pending = self.0.lock();
        for (key, at) in uses {
            if pending.get(key) == Some(at) {
                pending.remove(key);
            }
        }
    }
}

/// Last use of the sessions of staff, which end when they are idle. Kept in memory while they are in use, and written once
/// per interval.
pub struct SessionUsage {
    idle_max: Duration,
    uses: Mutex<HashMap<SessionId, Timestamp>>,
    /// Uses until this time are written.
    written_until: Mutex<Timestamp>,
}

impl SessionUsage {
    /// `idle_max` is the time after which an unused session has ended.
    pub fn new(idle_max: Duration) -> Self {
        let written_until = Mutex::new(Timestamp::from_micros(0));
        Self { idle_max, uses: Mutex::default(), written_until }
    }

    /// Records the use of a session, unless it was idle for too long; then returns `false`.
    pub fn record(&self, session: SessionId, last_written: Timestamp, now: Timestamp) -> bool {
        let mut uses = self.uses.lock();
        let last = uses.get(&session).map_or(last_written, |last| last_written.max(*last));
        if now.duration_since(last) > self.idle_max {
            return false;
        }
        if uses.len() >= PENDING_USES_MAX && !uses.contains_key(&session) {
            uses.retain(|_, at| now.duration_since(*at) <= self.idle_max);
        }
        if uses.len() < PENDING_USES_MAX || uses.contains_key(&session) {
            uses.insert(session, now.max(last));
        }
        true
    }

    /// Returns the uses since the last write, and forgets sessions that are idle.
    pub fn unwritten(&self, now: Timestamp) -> Vec<(SessionId, Timestamp)> {
        let since = *self.written_until.lock();
        let mut uses = self.uses.lock();
        uses.retain(|_, at| now.duration_since(*at) <= self.idle_max);
        uses.iter().filter(|(_, at)| **at >= since).map(|(session, at)| (*session, *at)).collect()
    }

    /// Notes that the uses until `until` are written.
    pub fn written(&self, until: Timestamp) {
        *self.written_until.lock() = until;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::{Identity, Role};

    #[test]
    fn entry_read_before_invalidation_is_not_cached() {
        let (cache, user) = (TokenCache::new(CacheLease::default()), UserId::new());
        let credential = Credential::Session(SessionId::new());
        let identity = Identity::new(user, Role::Admin, credential);
        let authenticated = Authenticated { identity, expires_at: None };
        let entry = Some(TokenHolder { authenticated, last_used_at: Timestamp::from_micros(0) });
        let stamp = cache.stamp();
        cache.invalidate_user(user);
        cache.insert_if_current(stamp, credential, entry);
        assert_eq!(cache.get(&credential), None);
        cache.insert_if_current(cache.stamp(), credential, entry);
        assert_eq!(cache.get(&credential), Some(entry));
        cache.invalidate_user(UserId::new());
        assert_eq!(cache.get(&credential), Some(entry), "another user's change leaves it");
        cache.invalidate_user(user);
        assert_eq!(cache.get(&credential), None);
    }

    #[test]
    fn caches_are_bounded() {
        let (cache, uses) = (TokenCache::new(CacheLease::default()), KeyUsage::default());
        for _ in 0..2 * CACHED_TOKENS_MAX {
            cache.insert_if_current(cache.stamp(), Credential::Session(SessionId::new()), None);
            uses.record(ApiKeyId::new(), Timestamp::from_micros(0));
        }
        assert!(cache.entries.len() <= CACHED_TOKENS_MAX);
        assert_eq!(uses.all().len(), PENDING_USES_MAX);
    }

    #[test]
    fn idle_session_ends_and_used_one_stays() {
        let usage = SessionUsage::new(Duration::from_secs(60));
        let session = SessionId::new();
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        for second in [0, 50, 100, 150] {
            assert!(usage.record(session, at(0), at(second)), "used again within a minute, at {second} s");
        }
        assert_eq!(usage.unwritten(at(150)), [(session, at(150))]);
        usage.written(at(151));
        assert_eq!(usage.unwritten(at(160)), []);
        assert!(!usage.record(session, at(150), at(211)));
    }
}
