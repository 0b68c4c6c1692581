//! Messages of the consistency check: every domain answers [`CheckInvariants`] for its own database.
//!
//! Contains: the request, its report, and how facts of a domain are selected for checks across domains.
//! Does not contain: the invariants themselves and their queries (`crate::store` and the domains' stores), checks across
//! domains (`crate::consistency_check`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::CommonError;
use crate::types::Timestamp;

/// Breach of an invariant, found in the data of one domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Domain whose data it was found in.
    pub domain: String,
    /// Description of the breach.
    pub description: String,
    /// Ids and numbers of the rows concerned.
    pub found: String,
    /// Remedy for the operator.
    pub remedy: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}: {}; {}", self.domain, self.description, self.found, self.remedy)
    }
}

/// Checks the invariants of a domain's own database, in one read transaction.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckInvariants {
    /// Whether the invariant queries run; otherwise only the positions of its events are read.
    pub deep: bool,
    /// Names of the subscribers whose cursors are reported.
    pub subscribers: Vec<String>,
}

/// Reply to [`CheckInvariants`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InvariantReport {
    /// The domain's clock at the time of the check.
    pub now: Timestamp,
    /// Breaches found, at most 50 per invariant.
    pub violations: Vec<Violation>,
    /// Number of rows checked, by kind.
    pub row_counts: BTreeMap<String, i64>,
    /// Sequence number of the newest event in the outbox; 0 before the first.
    pub head: i64,
    /// Sequence number up to which each subscriber has acknowledged, or the broker has confirmed for it.
    pub cursors: BTreeMap<String, i64>,
}

/// Selection of rows that a domain reports facts of.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection<T> {
    /// The next [`FACTS_PAGE_SIZE`] rows in the order of their ids.
    After(Option<T>),
    /// Rows with these ids, at most [`FACTS_PAGE_SIZE`]; unknown ids are left out.
    These(Vec<T>),
}

/// Largest number of rows in one reply with facts.
pub const FACTS_PAGE_SIZE: usize = 500;

crate::requests! { CommonError;
    "store.CheckInvariants": CheckInvariants => InvariantReport, read, |_| Access::Internal;
}
