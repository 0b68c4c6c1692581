//! Buckets of this process, in shards with a lock each.
//!
//! Memory is bounded: a full bucket needs no entry and is removed, and when a shard has no space left, callers that are not
//! in it share one overflow bucket of their class, so that an attack from very many networks costs strangers their share
//! and not the shop its memory.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use parking_lot::Mutex;

use super::gcra::{Gcra, Verdict};
use super::{LimitClass, Subject};

/// Shards; requests for different ones do not wait for each other.
const SHARDS: usize = 32;
/// Most buckets in one shard, about 60 bytes each.
const BUCKETS_PER_SHARD: usize = 4_096;
/// Quotas of an overflow bucket: it serves all strangers of its shard.
const OVERFLOW_SHARE: u32 = 16;
/// Time between two searches for full buckets in a shard, in microseconds.
const PRUNE_INTERVAL: i64 = 5_000_000;

/// Identity of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BucketKey {
    /// Class of the limit.
    pub class: LimitClass,
    /// Caller that is counted.
    pub subject: Subject,
}

/// Buckets in memory.
pub struct MemoryBuckets {
    hasher: RandomState,
    shards: Vec<Mutex<BucketShard>>,
}

#[derive(Default)]
struct BucketShard {
    /// Time at which each bucket is full again.
    buckets: HashMap<BucketKey, i64, RandomState>,
    /// The same for the overflow bucket of each class.
    overflow: [i64; LimitClass::ALL.len()],
    pruned_at: i64,
}

impl MemoryBuckets {
    /// No buckets yet: all are full.
    pub fn new() -> Self {
        Self { hasher: RandomState::new(), shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// Takes one request out of a bucket.
    pub fn check(&self, key: BucketKey, gcra: &Gcra, now: i64) -> Verdict {
        let number = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0);
        match self.shards.get(number) {
            Some(shard) => shard.lock().check(key, gcra, now),
            None => gcra.verdict(true, 0),
        }
    }

    /// Number of buckets with an entry.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().buckets.len()).sum()
    }
}

impl BucketShard {
    fn check(&mut self, key: BucketKey, gcra: &Gcra, now: i64) -> Verdict {
        // A clock that was set back must not keep buckets.
        if now.saturating_sub(self.pruned_at).abs() >= PRUNE_INTERVAL {
            self.prune(now);
        }
        if let Some(full_at) = self.buckets.get_mut(&key) {
            let (next, verdict) = gcra.decide(Some(*full_at), now);
            *full_at = next;
            return verdict;
        }
        if self.buckets.len() < BUCKETS_PER_SHARD {
            let (next, verdict) = gcra.decide(None, now);
            self.buckets.insert(key, next);
            return verdict;
        }
        let shared = gcra.times(OVERFLOW_SHARE);
        let full_at = &mut self.overflow[key.class as usize];
        let (next, verdict) = shared.decide(Some(*full_at), now);
        *full_at = next;
        verdict
    }

    /// Removes full buckets, and returns memory after a flood.
    fn prune(&mut self, now: i64) {
        self.pruned_at = now;
        self.buckets.retain(|_, full_at| *full_at > now);
        if self.buckets.capacity() > 4 * (self.buckets.len() + 64) {
            self.buckets.shrink_to(2 * self.buckets.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    use super::*;
    use crate::settings::Quota;

    fn key(number: u32) -> BucketKey {
        let address = IpAddr::V4(Ipv4Addr::from_bits(number));
        BucketKey { class: LimitClass::Guest, subject: Subject::Network(address.into()) }
    }

    #[test]
    fn callers_are_counted_apart_and_full_buckets_pruned() {
        let (buckets, gcra) = (MemoryBuckets::new(), Gcra::new(Quota { requests: 2, window: Duration::from_secs(10) }));
        for caller in 0..100 {
            let verdicts = [0; 3].map(|_| buckets.check(key(caller), &gcra, 1_000_000).is_allowed);
            assert_eq!(verdicts, [true, true, false], "{caller}");
        }
        assert_eq!(buckets.len(), 100);
        // All are full by now; each shard forgets its own when it is used next.
        for caller in 0..10_000 {
            assert!(buckets.check(key(caller), &gcra, 60_000_000).is_allowed);
        }
        for caller in 100_000..110_000 {
            assert!(buckets.check(key(caller), &gcra, 120_000_000).is_allowed);
        }
        assert_eq!(buckets.len(), 10_000);
    }

    #[test]
    fn flood_of_networks_is_bounded_and_known_ones_go_on() {
        let (buckets, gcra) = (MemoryBuckets::new(), Gcra::new(Quota { requests: 9, window: Duration::from_secs(60) }));
        assert!(buckets.check(key(0), &gcra, 0).is_allowed);
        let allowed = (1..300_000).filter(|caller| buckets.check(key(*caller), &gcra, 0).is_allowed).count();
        assert_eq!(buckets.len(), SHARDS * BUCKETS_PER_SHARD);
        let overflow = SHARDS * 9 * usize::try_from(OVERFLOW_SHARE).unwrap();
        assert_eq!(allowed + 1, SHARDS * BUCKETS_PER_SHARD + overflow);
        assert!(buckets.check(key(0), &gcra, 0).is_allowed);
    }
}
