//! Advisory locks of write jobs, so that on PostgreSQL those that share one wait for each other and no others.
//!
//! On SQLite all jobs of a domain run one after the other and no lock is taken. On PostgreSQL a job without names locks
//! the whole domain in all processes: what it reads holds until it ends, as on SQLite. A job with names runs beside
//! those with other names. It must name all rows that its decision depends on, because others may change what it does
//! not name. Rows that are only added, and those that a single statement or a unique key keeps right, need no name.

use std::collections::BTreeSet;
use std::fmt::Display;

use sha2::{Digest as _, Sha256};

use super::IdempotentRequest;

/// Advisory locks that a write job takes on PostgreSQL. Ignored on SQLite, where jobs run one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockSet(Option<BTreeSet<String>>);

impl LockSet {
    /// Returns the lock of the whole domain: no other job writes meanwhile.
    #[must_use]
    pub const fn domain() -> Self {
        Self(None)
    }

    /// Returns the empty set, for jobs that no other job's decision depends on: rows that are only added, single
    /// statements that are right without a lock.
    #[must_use]
    pub const fn none() -> Self {
        Self(Some(BTreeSet::new()))
    }

    /// Returns the lock of one thing, such as a user's cart.
    #[must_use]
    pub fn key(kind: &str, key: impl Display) -> Self {
        Self::none().with(kind, key)
    }

    /// Adds the lock of another thing.
    #[must_use]
    pub fn with(mut self, kind: &str, key: impl Display) -> Self {
        if let Some(names) = &mut self.0 {
            names.insert(format!("{kind}\0{key}"));
        }
        self
    }

    /// Adds the idempotency key of this request: of two equal requests at once, one waits for the other.
    #[must_use]
    pub fn with_key(self, request: &IdempotentRequest) -> Self {
        self.with("answer", format_args!("{}\0{}", request.scope, request.key.as_str()))
    }

    /// Whether it is the lock of the whole domain.
    #[must_use]
    pub const fn is_domain(&self) -> bool {
        self.0.is_none()
    }

    /// Returns the statements that begin a transaction with these locks, which end with it. They are taken in the order
    /// of their numbers, so that no two jobs deadlock.
    pub(super) fn begin(&self, schema: &str) -> String {
        let domain = lock_id(schema, "");
        match &self.0 {
            None => format!("BEGIN; SELECT pg_advisory_xact_lock({domain})"),
            Some(names) => {
                let numbers: BTreeSet<i64> = names.iter().map(|name| lock_id(schema, name)).collect();
                let mut sql = format!("BEGIN; SELECT pg_advisory_xact_lock_shared({domain})");
                for number in numbers {
                    sql.push_str(&format!("; SELECT pg_advisory_xact_lock({number})"));
                }
                sql
            }
        }
    }
}

/// Hashes a name to the number of its lock. A collision only makes two jobs wait for each other without need.
pub(super) fn lock_id(schema: &str, name: &str) -> i64 {
    let hash = Sha256::new().chain_update(schema).chain_update([0]).chain_update(name).finalize();
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash[..8]);
    i64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_taken_in_one_order() {
        let (a, b) = (LockSet::key("product", 1).with("product", 2), LockSet::key("product", 2).with("product", 1));
        assert_eq!(a.begin("catalog"), b.begin("catalog"));
        assert_ne!(a.begin("catalog"), a.begin("cart"));
        assert!(LockSet::domain().with("product", 1).is_domain());
    }
}
