//! Messages of the audit log: every domain keeps the actions of staff on its data, and answers [`ListAuditEntries`].
//!
//! Does not contain: the recording, which is part of a write (`crate::store`); the order over all domains (`crate::web`).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{CommonError, Role};
use crate::types::{AuditEntryId, Timestamp, UserId};

/// Action of a member of staff.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Id of the entry.
    pub id: AuditEntryId,
    /// Time of the action.
    pub at: Timestamp,
    /// Member of staff.
    pub user_id: UserId,
    /// Role at that time.
    pub role: Role,
    /// `session`, or `api_key` with the id of the key.
    pub credential: String,
    /// Network that the request came from; `null` if it is unknown.
    pub network: Option<String>,
    /// Id of the request, as in the log.
    pub request_id: String,
    /// Name of the request, such as `catalog.UpdateProduct`.
    pub action: String,
    /// Ids in the request, by field.
    pub subject: Value,
    /// State before and after, for actions that record it; `null` for others.
    pub change: Option<Value>,
}

/// Reads the newest entries of one domain, newest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListAuditEntries {
    /// Only entries of this member of staff.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// Only entries before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<(Timestamp, AuditEntryId)>,
    /// Maximum number of entries, 1 to 1,000.
    pub limit: i64,
}

crate::requests! { CommonError;
    "store.ListAuditEntries": ListAuditEntries => Vec<AuditEntry>, read, |_| Access::Staff(Role::Admin);
}
