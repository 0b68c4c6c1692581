//! Handlers of the messages that every domain answers in the same way.

use std::sync::Arc;

use super::{Invariants, Store};
use crate::messaging::{AuditEntry, CheckInvariants, CommonError, InvariantReport, ListAuditEntries, RequestContext};

/// State of a domain's actor, as far as the shared handlers need it.
pub trait DomainState: 'static {
    /// Invariants of the domain's database.
    const INVARIANTS: Invariants;

    /// Returns the store of the domain.
    fn store(&self) -> &Store;
}

/// Checks the invariants of the domain's database.
pub async fn check_invariants<S: DomainState>(
    state: Arc<S>,
    _: RequestContext,
    request: CheckInvariants,
) -> Result<InvariantReport, CommonError> {
    state.store().check_invariants(request, S::INVARIANTS).await
}

/// Reads the domain's part of the audit log.
pub async fn list_audit_entries<S: DomainState>(
    state: Arc<S>,
    _: RequestContext,
    request: ListAuditEntries,
) -> Result<Vec<AuditEntry>, CommonError> {
    state.store().audit_entries(request).await
}
