//! State shared by the handlers of payments, and the steps that attempts and refunds have in common.
//!
//! Does not contain: the rules of money (`model`), calls of the provider.

use std::time::Duration;

use tokio::sync::Mutex;

use super::provider::PaymentProvider;
use super::reconcile::RetrySchedule;
use super::{Invoice, PaymentsError, model, store};
use crate::messaging::{CommonError, Request, RequestContext};
use crate::store::{IdempotentRequest, LockSet, RESPONSE_TTL, Store, Tx};
use crate::tasks::InFlightSet;
use crate::types::{InvoiceId, PaymentId};

/// Time after which the provider's response counts as lost.
pub const PROVIDER_TIMEOUT: Duration = Duration::from_secs(30);

/// State shared by the handlers of this domain.
pub struct PaymentsState {
    pub store: Store,
    /// Time in which a new invoice can be paid.
    pub lifetime: Duration,
    pub(super) provider: Box<dyn PaymentProvider>,
    /// Ids of attempts and refunds in progress in this process; reconciliation skips them.
    pub(super) in_flight: InFlightSet<PaymentId>,
    /// Locked during a reconciliation round, so that rounds do not overlap.
    pub(super) round: Mutex<()>,
    /// Delays of attempts and refunds whose outcome the provider did not know.
    pub(super) retries: RetrySchedule,
}

impl PaymentsState {
    pub fn new(store: Store, provider: Box<dyn PaymentProvider>, lifetime: Duration) -> Self {
        Self {
            store,
            lifetime,
            provider,
            in_flight: InFlightSet::default(),
            round: Mutex::default(),
            retries: RetrySchedule::default(),
        }
    }
}

/// Result of the first step of an attempt or a refund. Each of them is committed.
pub enum BeginOutcome<T> {
    /// The same request was answered before, with an invoice or a definitive failure.
    Replayed(Box<Result<Invoice, PaymentsError>>),
    /// The request is rejected, and the rejection changed the invoice.
    Rejected(PaymentsError),
    /// The attempt or refund is recorded as processing.
    Started(T),
}

/// Returns the idempotent form of a request. Only calls of other domains may come without an idempotency key.
pub fn require_idempotency<R: Request>(
    ctx: &RequestContext,
    request: &R,
) -> Result<Option<IdempotentRequest>, CommonError> {
    match IdempotentRequest::from_context(ctx, request)? {
        None if !ctx.is_domain() => Err(CommonError::IdempotencyKeyRequired),
        idempotent => Ok(idempotent),
    }
}

/// Locks an invoice with its payments and refunds, and the idempotency key of the request.
pub fn invoice_lock(invoice: InvoiceId, idempotent: Option<&IdempotentRequest>) -> LockSet {
    let locks = LockSet::key("invoice", invoice);
    idempotent.map_or(locks.clone(), |idempotent| locks.with_key(idempotent))
}

/// Returns the failure with which the request was answered before, if it was definitive.
///
/// # Errors
/// If the key belongs to another request.
pub fn find_replayed_failure(
    tx: &mut Tx<'_>,
    idempotent: Option<&IdempotentRequest>,
) -> Result<Option<PaymentsError>, PaymentsError> {
    let Some(idempotent) = idempotent else { return Ok(None) };
    let since = tx.now.saturating_sub(RESPONSE_TTL);
    let Some((fingerprint, code)) = store::failed_attempt(tx.conn, idempotent, since)? else { return Ok(None) };
    match model::replayed_failure(&code) {
        Some(_) if fingerprint != idempotent.fingerprint => Err(CommonError::IdempotencyKeyReused.into()),
        failure => Ok(failure),
    }
}

/// Returns the response saved under the request's key, if there is one.
///
/// # Errors
/// If a request with this key is in progress, or the key belongs to another request.
pub fn find_replay(tx: &mut Tx<'_>, idempotent: Option<&IdempotentRequest>) -> Result<Option<Invoice>, PaymentsError> {
    let Some(idempotent) = idempotent else { return Ok(None) };
    if let Some(response) = tx.find_response::<Invoice, PaymentsError>(idempotent)? {
        return Ok(Some(response));
    }
    match store::running_fingerprint(tx.conn, idempotent)? {
        None => Ok(None),
        Some(running) if running == idempotent.fingerprint => Err(CommonError::RequestInProgress.into()),
        Some(_) => Err(CommonError::IdempotencyKeyReused.into()),
    }
}
