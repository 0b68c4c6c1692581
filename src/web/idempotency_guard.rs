//! Idempotency keys in flight, and the targets that completed ones were used for.
//!
//! Contains only what a domain cannot know: that a second request with a key runs at the same time, and that a key was
//! used for another domain's path. Does not contain the stored responses: those are in each domain's database.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};

use crate::messaging::{CommonError, IdempotencyKey, RequestContext};
use crate::store::RESPONSE_TTL;
use crate::types::{Clock, Timestamp};

/// Most keys that may be in flight at once. Further requests are rejected as overload.
const KEYS_IN_FLIGHT_MAX: usize = 16_384;

/// Number of completed keys whose target is remembered.
const KEY_TARGETS_MAX: usize = 16_384;

/// Hash that stands for keys and targets of any length.
type Hash128 = [u8; 16];

/// A key and the scope it is valid in: that of one caller.
type ScopedKey = (String, IdempotencyKey);

/// Idempotency keys of this gateway.
pub struct IdempotencyKeys {
    clock: Clock,
    in_flight: Mutex<HashSet<ScopedKey>>,
    /// Target and time of the last successful use of a key.
    targets: Cache<Hash128, (Hash128, Timestamp)>,
}

/// Keeps a key in flight while its request runs; a second request with the same key is rejected meanwhile.
pub struct IdempotencyGuard {
    keys: Arc<IdempotencyKeys>,
    key: ScopedKey,
    target: Hash128,
}

impl IdempotencyKeys {
    /// No keys yet.
    pub fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self { clock, in_flight: Mutex::default(), targets: Cache::new(KEY_TARGETS_MAX) })
    }

    /// Marks the key of `ctx`, if it has one, as in flight. `target` is method, path and query.
    ///
    /// # Errors
    /// [`CommonError::IdempotencyKeyReused`] when the key was used for another target within [`RESPONSE_TTL`],
    /// [`CommonError::RequestInProgress`] while a request with this key runs, and [`CommonError::Overloaded`] when too
    /// many keys are in flight.
    pub fn begin_idempotent(
        self: &Arc<Self>,
        ctx: &RequestContext,
        target: [&str; 3],
    ) -> Result<Option<IdempotencyGuard>, CommonError> {
        let Some(key) = ctx.key.clone() else { return Ok(None) };
        let key = (ctx.caller.scope(), key);
        let target = hash(target);
        let since = self.clock.now().saturating_sub(RESPONSE_TTL);
        if self.targets.get(&hash_key(&key)).is_some_and(|(used_for, at)| used_for != target && at > since) {
            return Err(CommonError::IdempotencyKeyReused);
        }
        let mut in_flight = self.in_flight.lock();
        if in_flight.len() >= KEYS_IN_FLIGHT_MAX {
            return Err(CommonError::Overloaded);
        }
        if !in_flight.insert(key.clone()) {
            return Err(CommonError::RequestInProgress);
        }
        drop(in_flight);
        Ok(Some(IdempotencyGuard { keys: Arc::clone(self), key, target }))
    }
}

impl IdempotencyGuard {
    /// Binds the key to its target from now on. Not called for an error: nothing was done under the key then.
    pub fn record_success(&self) {
        self.keys.targets.insert(hash_key(&self.key), (self.target, self.keys.clock.now()));
    }
}

impl Drop for IdempotencyGuard {
    fn drop(&mut self) {
        self.keys.in_flight.lock().remove(&self.key);
    }
}

fn hash(parts: [&str; 3]) -> Hash128 {
    let hash = parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part).chain_update([0])).finalize();
    let mut short = Hash128::default();
    short.copy_from_slice(&hash[..size_of::<Hash128>()]);
    short
}

fn hash_key((scope, key): &ScopedKey) -> Hash128 {
    hash([scope, key.as_str(), ""])
}
