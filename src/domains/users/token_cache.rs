//! What is known in memory about tokens: whose they are, and when keys were used. Bounded, and safe to lose.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use quick_cache::sync::Cache;

use super::Authenticated;
use crate::messaging::Credential;
use crate::store::CacheLease;
use crate::types::{ApiKeyId, Timestamp, UserId};

/// Tokens remembered at once, about 150 bytes each.
const CACHED_TOKENS_MAX: usize = 16_384;
/// Keys whose use is not written yet. Past it the use of further keys goes unnoted until the next writing.
const PENDING_USES_MAX: usize = 10_000;
const MINUTE_MICROS: i64 = 60_000_000;

/// Whose tokens are, as the database said; `None` for one that has ended, because no ended one ever comes back.
pub struct TokenCache {
    answers: Cache<Credential, Option<Authenticated>>,
    /// Counts what was forgotten, so that an answer read before a change is not remembered after it.
    changes: AtomicU64,
    /// Whether anything may be believed, and since when.
    memory: CacheLease,
    era: AtomicU64,
}

/// When a question to the database began. See [`TokenCache::learn`].
#[derive(Clone, Copy)]
pub struct CacheStamp(u64);

impl TokenCache {
    pub fn new(memory: CacheLease) -> Self {
        let era = AtomicU64::new(memory.era().unwrap_or(0));
        Self { answers: Cache::new(CACHED_TOKENS_MAX), changes: AtomicU64::new(0), memory, era }
    }

    /// Whether what is known may be believed: not while another process can end a session behind our back.
    fn holds(&self) -> bool {
        let Some(era) = self.memory.era() else { return false };
        if self.era.swap(era, Ordering::SeqCst) != era {
            self.forget_all();
        }
        true
    }

    /// What is known of a token: outer `None` when nothing is.
    pub fn get(&self, credential: &Credential) -> Option<Option<Authenticated>> {
        if self.holds() { self.answers.get(credential) } else { None }
    }

    /// To be taken before the database is asked.
    pub fn mark(&self) -> CacheStamp {
        CacheStamp(self.changes.load(Ordering::SeqCst))
    }

    /// Remembers what the database said, unless something was forgotten since `mark`: then it may have said what no
    /// longer holds. Looked at after remembering, because forgetting counts before it removes.
    pub fn learn(&self, mark: CacheStamp, credential: Credential, answer: Option<Authenticated>) {
        if !self.holds() {
            return;
        }
        self.answers.insert(credential, answer);
        if self.changes.load(Ordering::SeqCst) != mark.0 {
            self.answers.remove(&credential);
        }
    }

    /// To be called after a change is durable and before it is answered: this token has ended.
    pub fn forget(&self, credential: &Credential) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.answers.remove(credential);
    }

    /// Likewise for all tokens of a user. Walks the whole cache (under a millisecond): such changes are rare.
    pub fn forget_user(&self, user: UserId) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.answers.retain(|_, answer| answer.is_none_or(|known| known.identity.user_id != user));
    }

    pub fn forget_all(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.answers.clear();
    }
}

/// When keys were last used, to the minute, until it is written: one write a while, never one a request.
#[derive(Default)]
pub struct KeyUsage(Mutex<HashMap<ApiKeyId, Timestamp>>);

impl KeyUsage {
    /// A key was used.
    pub fn note(&self, key: ApiKeyId, now: Timestamp) {
        let minute = Timestamp::from_micros(now.micros() - now.micros().rem_euclid(MINUTE_MICROS));
        let mut uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if uses.len() < PENDING_USES_MAX || uses.contains_key(&key) {
            let last = uses.entry(key).or_insert(minute);
            *last = minute.max(*last);
        }
    }

    /// When a key was last used, if that is not written yet.
    pub fn unwritten(&self, key: ApiKeyId) -> Option<Timestamp> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied()
    }

    /// All that is to be written. Taken by copy, so that nothing is lost when the writing fails.
    pub fn all(&self) -> Vec<(ApiKeyId, Timestamp)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(key, at)| (*key, *at)).collect()
    }

    /// These are written. A use that was noted meanwhile stays.
    pub fn written(&self, uses: &[(ApiKeyId, Timestamp)]) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, at) in uses {
            if noted.get(key) == Some(at) {
                noted.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::{Identity, Role};
    use crate::types::SessionId;

    #[test]
    fn an_answer_read_before_a_change_is_not_remembered_after_it() {
        let (known, user) = (TokenCache::new(CacheLease::default()), UserId::new());
        let credential = Credential::Session(SessionId::new());
        let identity = Identity { user_id: user, role: Role::Admin, credential };
        let answer = Some(Authenticated { identity, expires_at: None });
        let mark = known.mark();
        known.forget_user(user);
        known.learn(mark, credential, answer);
        assert_eq!(known.get(&credential), None);
        known.learn(known.mark(), credential, answer);
        assert_eq!(known.get(&credential), Some(answer));
        known.forget_user(UserId::new());
        assert_eq!(known.get(&credential), Some(answer), "another user's change leaves it");
        known.forget_user(user);
        assert_eq!(known.get(&credential), None);
    }

    #[test]
    fn memory_is_bounded() {
        let (known, uses) = (TokenCache::new(CacheLease::default()), KeyUsage::default());
        for _ in 0..2 * CACHED_TOKENS_MAX {
            known.learn(known.mark(), Credential::Session(SessionId::new()), None);
            uses.note(ApiKeyId::new(), Timestamp::from_micros(0));
        }
        assert!(known.answers.len() <= CACHED_TOKENS_MAX);
        assert_eq!(uses.all().len(), PENDING_USES_MAX);
    }
}
