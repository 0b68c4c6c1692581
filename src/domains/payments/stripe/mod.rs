//! The provider `stripe`: charges and refunds over Stripe's HTTP API, and its webhooks.
//!
//! Contains: the meaning of Stripe's responses for a payment. Does not contain: the state of an invoice; HTTP outside
//! `client`; SQL outside `store`.
//!
//! A charge is a payment intent of its own, created and confirmed in two requests, and its id is durable before the
//! second. So recovery of an interrupted attempt is certain: without an id the intent was never confirmed, and the
//! charge is voided so that it never will be; with an id Stripe is queried, and an intent that captured no money is
//! cancelled, which Stripe never undoes. A single request that is repeated under its key would be no lookup: it needs
//! the buyer's token, which is not stored, and Stripe forgets a key after a day. Stripe's search is not up to date,
//! according to its documentation.
//!
//! A refund is requested under a key of the shop. One that was requested before is first searched among the refunds of
//! its intent, by the key in its metadata, because Stripe may have forgotten the key itself.

mod amounts;
mod client;
mod signature;
mod store;
#[cfg(test)]
mod tests;
mod types;

use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::Method;
use serde::de::DeserializeOwned;

use super::provider::{
    Charge, ChargeOutcome, ChargeStatus, PaymentProvider, ProviderDispute, ProviderEvent, ProviderEventKind,
    ProviderRefund, ProviderUnavailable, RefundOutcome, RefundRequest, WebhookError,
};
use crate::contract::payments::DisputeStatus;
use crate::messaging::CommonError;
use crate::settings::StripeSettings;
use crate::store::Store;
use crate::types::Timestamp;
use client::{Api, ApiCall, ApiError, StripeError};
use store::StripeRefundState;
use types::{ChargeObject, Dispute, Intent, IntentStatus, ListPage, Refund, RefundStatus, WebhookEvent};

/// Time limit of a request that involves no bank.
const CALL_TIMEOUT: Duration = Duration::from_secs(8);
/// Time limit of a request in which Stripe queries a bank.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(20);
/// Pages of an intent's refunds that are searched, with 100 refunds per page.
const REFUND_PAGES_MAX: usize = 10;

/// A provider that captures and refunds money through Stripe.
pub struct StripeProvider {
    api: Api,
    store: Store,
    webhook_secrets: Vec<String>,
}

impl StripeProvider {
    /// Creates a provider that keeps Stripe's ids in `store`.
    ///
    /// # Errors
    /// If the secret key cannot be sent in a header, or TLS is not available.
    pub fn new(settings: &StripeSettings, store: Store) -> Result<Self, &'static str> {
        let api = Api::new(&settings.url, &settings.secret_key)?;
        Ok(Self { api, store, webhook_secrets: settings.webhook_secrets.clone() })
    }

    async fn get<T: DeserializeOwned>(&self, path: String, form: &[(&str, &str)]) -> Result<T, ApiError> {
        self.api.call(ApiCall { method: Method::GET, path, form, key: None, timeout: CALL_TIMEOUT }).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: String,
        form: &[(&str, &str)],
        key: Option<String>,
        timeout: Duration,
    ) -> Result<T, ApiError> {
        self.api.call(ApiCall { method: Method::POST, path, form, key, timeout }).await
    }

    async fn create_charge(&self, charge: Charge) -> ChargeOutcome {
        if charge.amount == 0 {
            return ChargeOutcome::Captured;
        }
        let intent = match self.create_intent(&charge).await {
            Ok(intent) => intent,
            Err(outcome) => return outcome,
        };
        let (key, id) = (charge.key.clone(), intent.clone());
        let recorded =
            self.store.write(move |tx| Ok::<_, CommonError>(store::set_charge_intent(tx.conn, &key, &id, tx.now)?));
        if !matches!(recorded.await, Ok(true)) {
            // Voided meanwhile, or not stored. Either way it is not confirmed, so no money is captured.
            self.cancel(&intent).await;
            return ChargeOutcome::Failed;
        }
        let path = format!("payment_intents/{intent}/confirm");
        match self.post::<Intent>(path, &[], Some(format!("{}/confirm", charge.key)), CONFIRM_TIMEOUT).await {
            Ok(confirmed) => self.interpret_intent(&intent, &confirmed).await,
            Err(ApiError::Rejected(error)) => {
                let outcome = map_confirm_error(&error);
                if outcome != ChargeOutcome::Unknown {
                    // Only the shop can confirm it, so cancelling merely leaves no incomplete intent at Stripe.
                    self.cancel(&intent).await;
                }
                outcome
            }
            Err(ApiError::NotSent) => ChargeOutcome::Failed,
            Err(ApiError::Unknown) => ChargeOutcome::Unknown,
        }
    }

    /// Creates the intent and returns its id. Any failure is definitive, because the intent is not confirmed.
    async fn create_intent(&self, charge: &Charge) -> Result<String, ChargeOutcome> {
        let amount = amounts::to_stripe(charge.currency, charge.amount).ok_or(ChargeOutcome::AmountRefused)?;
        let (amount, currency) = (amount.to_string(), charge.currency.as_str().to_ascii_lowercase());
        let invoice = charge.invoice.to_string();
        let mut form = vec![
            ("amount", amount.as_str()),
            ("currency", currency.as_str()),
            ("payment_method_types[]", "card"),
            ("metadata[mercat_payment]", charge.key.as_str()),
            ("metadata[mercat_invoice]", invoice.as_str()),
        ];
        match charge.token.split_once('_') {
            _ if !is_stripe_id(&charge.token) => return Err(ChargeOutcome::UnknownToken),
            Some(("pm" | "card" | "src", _)) => form.push(("payment_method", &charge.token)),
            Some(("tok", _)) => form
                .extend([("payment_method_data[type]", "card"), ("payment_method_data[card][token]", &charge.token)]),
            _ => return Err(ChargeOutcome::UnknownToken),
        }
        let path = "payment_intents".to_owned();
        match self.post::<Intent>(path, &form, Some(format!("{}/create", charge.key)), CALL_TIMEOUT).await {
            Ok(intent) if is_stripe_id(&intent.id) => Ok(intent.id),
            Err(ApiError::Rejected(error)) => Err(match map_create_error(&error) {
                ChargeOutcome::Failed => {
                    log::error!("stripe: payment intent rejected: check the shop's settings and its Stripe account");
                    ChargeOutcome::Failed
                }
                other => other,
            }),
            Ok(_) | Err(ApiError::NotSent | ApiError::Unknown) => Err(ChargeOutcome::Failed),
        }
    }

    /// Maps the state of an intent that was just confirmed; cancels one that needs the buyer.
    async fn interpret_intent(&self, id: &str, intent: &Intent) -> ChargeOutcome {
        let outcome = match intent.status {
            IntentStatus::Succeeded => return ChargeOutcome::Captured,
            IntentStatus::Canceled => return ChargeOutcome::Failed,
            IntentStatus::Processing | IntentStatus::Other => return ChargeOutcome::Unknown,
            IntentStatus::RequiresAction => ChargeOutcome::AuthenticationRequired,
            IntentStatus::RequiresPaymentMethod => ChargeOutcome::Declined,
            IntentStatus::RequiresConfirmation | IntentStatus::RequiresCapture => ChargeOutcome::Failed,
        };
        // The buyer could still confirm at the bank, so the failure is definitive only once the intent is cancelled.
        if self.cancel(id).await { outcome } else { ChargeOutcome::Unknown }
    }

    /// Cancels an intent. Returns `true` if it is certainly cancelled. Sent without a key: cancelling is idempotent, and
    /// Stripe would repeat an internal error of its own under the key for a day.
    async fn cancel(&self, intent: &str) -> bool {
        let path = format!("payment_intents/{intent}/cancel");
        let cancelled = self.post::<Intent>(path, &[], None, CALL_TIMEOUT).await;
        cancelled.is_ok_and(|intent| intent.status == IntentStatus::Canceled)
    }

    async fn reconcile_charge(&self, key: String) -> ChargeStatus {
        let recorded = self
            .store
            .write(move |tx| Ok::<_, CommonError>(store::void_unconfirmed_charge(tx.conn, &key, tx.now)?))
            .await;
        let intent = match recorded {
            Ok(Some(intent)) => intent,
            Ok(None) => return ChargeStatus::NotCharged,
            Err(_) => return ChargeStatus::Unknown,
        };
        let path = format!("payment_intents/{intent}");
        // Twice, because it may succeed between the query and the cancellation.
        for _ in 0..2 {
            let status = match self.get::<Intent>(path.clone(), &[]).await {
                Ok(found) => found.status,
                Err(ApiError::Rejected(_)) => {
                    log::error!("stripe: {intent} not found: is the secret key that of another account?");
                    return ChargeStatus::Unknown;
                }
                Err(_) => return ChargeStatus::Unknown,
            };
            match status {
                IntentStatus::Succeeded => return ChargeStatus::Captured,
                IntentStatus::Canceled => return ChargeStatus::NotCharged,
                IntentStatus::Processing | IntentStatus::Other => return ChargeStatus::Unknown,
                _ if self.cancel(&intent).await => return ChargeStatus::NotCharged,
                _ => {}
            }
        }
        ChargeStatus::Unknown
    }

    async fn create_refund(&self, request: RefundRequest) -> RefundOutcome {
        if request.amount == 0 {
            return RefundOutcome::Done;
        }
        let Some(amount) = amounts::to_stripe(request.currency, request.amount) else {
            return RefundOutcome::AmountRefused;
        };
        let state = {
            let request = request.clone();
            self.store
                .write(move |tx| Ok::<_, CommonError>(store::begin_refund_request(tx.conn, &request, tx.now)?))
                .await
        };
        let state = match state {
            Ok(Some(state)) => state,
            Ok(None) => {
                log::error!("stripe: refund of {} failed: the charge was not captured by Stripe", request.charge);
                return RefundOutcome::Failed;
            }
            Err(_) => return RefundOutcome::Unknown,
        };
        let refund = match self.find_refund(&request, &state).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => {
                let amount = amount.to_string();
                let form = [
                    ("payment_intent", state.intent.as_str()),
                    ("amount", &amount),
                    ("metadata[mercat_refund]", &request.key),
                ];
                let key = format!("{}/refund/{}", request.key, state.attempt);
                self.post::<Refund>("refunds".to_owned(), &form, Some(key), CONFIRM_TIMEOUT).await
            }
            Err(error) => Err(error),
        };
        match refund {
            Ok(refund) => self.interpret_refund(request, refund).await,
            Err(ApiError::Rejected(error)) => self.begin_new_refund_attempt(request, map_refund_error(&error)).await,
            Err(ApiError::NotSent) => RefundOutcome::Failed,
            Err(ApiError::Unknown) => RefundOutcome::Unknown,
        }
    }

    /// Maps the state of a refund; records the id of one that is pending and the failure of one that failed.
    async fn interpret_refund(&self, request: RefundRequest, refund: Refund) -> RefundOutcome {
        match refund.status {
            RefundStatus::Succeeded => RefundOutcome::Done,
            RefundStatus::Failed | RefundStatus::Canceled => {
                self.begin_new_refund_attempt(request, RefundOutcome::Failed).await
            }
            status => {
                let recorded = self
                    .store
                    .write(move |tx| Ok::<_, CommonError>(store::set_refund_id(tx.conn, &request.key, &refund.id)?));
                if let Err(error) = recorded.await {
                    log::warn!("stripe: refund id not stored, the next attempt searches for it: {error}");
                }
                if status == RefundStatus::Other { RefundOutcome::Unknown } else { RefundOutcome::Pending }
            }
        }
    }

    /// Finds the refund that an earlier request created, if it did.
    async fn find_refund(
        &self,
        request: &RefundRequest,
        state: &StripeRefundState,
    ) -> Result<Option<Refund>, ApiError> {
        if let Some(refund) = &state.refund {
            return self.get(format!("refunds/{refund}"), &[]).await.map(Some).map_err(map_lookup_error);
        }
        if state.is_first {
            return Ok(None);
        }
        // A failed one has been recorded as such; the current attempt is a later one.
        let is_active = |refund: &Refund| !matches!(refund.status, RefundStatus::Failed | RefundStatus::Canceled);
        let is_ours = |refund: &Refund| refund.metadata.mercat_refund.as_deref() == Some(&request.key);
        let refunds = self.list_refunds(&state.intent).await?;
        Ok(refunds.into_iter().find(|refund| is_ours(refund) && is_active(refund)))
    }

    /// Lists all refunds of a payment intent, newest first.
    async fn list_refunds(&self, intent: &str) -> Result<Vec<Refund>, ApiError> {
        let mut refunds: Vec<Refund> = Vec::new();
        for _ in 0..REFUND_PAGES_MAX {
            let after = refunds.last().map(|refund| refund.id.clone());
            let mut form = vec![("payment_intent", intent), ("limit", "100")];
            if let Some(after) = &after {
                form.push(("starting_after", after));
            }
            let page: ListPage<Refund> = self.get("refunds".to_owned(), &form).await.map_err(map_lookup_error)?;
            let has_more = page.has_more && !page.data.is_empty();
            refunds.extend(page.data);
            if !has_more {
                return Ok(refunds);
            }
        }
        log::error!("stripe: {intent} has more than {REFUND_PAGES_MAX} pages of refunds");
        Err(ApiError::Unknown)
    }

    /// Lists the completed refunds of an intent that were made in Stripe's dashboard or by another program.
    async fn list_dashboard_refunds(&self, intent: String) -> Result<Vec<ProviderRefund>, ProviderUnavailable> {
        let refunds = self.list_refunds(&intent).await.map_err(|_| ProviderUnavailable)?;
        let foreign = refunds.into_iter().filter(|refund| {
            refund.metadata.mercat_refund.is_none() && matches!(refund.status, RefundStatus::Succeeded)
        });
        foreign
            .map(|refund| {
                let amount = amounts::parse(&refund.currency, refund.amount).ok_or_else(|| {
                    log::error!("stripe: the amount of refund {} has no form in this shop", refund.id);
                    ProviderUnavailable
                })?;
                Ok(ProviderRefund { id: refund.id, amount })
            })
            .collect()
    }

    /// Records that a refund failed definitively, so that its next attempt has a new key at Stripe.
    async fn begin_new_refund_attempt(&self, request: RefundRequest, outcome: RefundOutcome) -> RefundOutcome {
        if outcome == RefundOutcome::Unknown {
            return outcome;
        }
        match self.store.write(move |tx| Ok::<_, CommonError>(store::next_refund_attempt(tx.conn, &request.key)?)).await
        {
            Ok(()) => outcome,
            // The same attempt gets the same response again, which is harmless.
            Err(_) => RefundOutcome::Unknown,
        }
    }
}

impl PaymentProvider for StripeProvider {
    fn capture(&self, charge: Charge) -> BoxFuture<'_, ChargeOutcome> {
        Box::pin(self.create_charge(charge))
    }

    fn refund(&self, request: RefundRequest) -> BoxFuture<'_, RefundOutcome> {
        Box::pin(self.create_refund(request))
    }

    fn lookup(&self, key: String) -> BoxFuture<'_, ChargeStatus> {
        Box::pin(self.reconcile_charge(key))
    }

    fn find_charge(&self, provider_charge: String) -> BoxFuture<'_, Result<Option<String>, ProviderUnavailable>> {
        let found = self.store.read(move |conn| Ok::<_, CommonError>(store::charge_of_intent(conn, &provider_charge)?));
        Box::pin(async { found.await.map_err(|_| ProviderUnavailable) })
    }

    fn list_foreign_refunds(
        &self,
        provider_charge: String,
    ) -> BoxFuture<'_, Result<Vec<ProviderRefund>, ProviderUnavailable>> {
        Box::pin(self.list_dashboard_refunds(provider_charge))
    }

    fn verify_webhook(&self, body: &str, signature: &str, now: Timestamp) -> Result<ProviderEvent, WebhookError> {
        if self.webhook_secrets.is_empty() {
            return Err(WebhookError::Unsupported);
        }
        if !signature::verify(signature, body, &self.webhook_secrets, now) {
            return Err(WebhookError::InvalidSignature);
        }
        let event: WebhookEvent = serde_json::from_str(body).map_err(|error| {
            log::error!("stripe: webhook body is malformed: {error}");
            WebhookError::Malformed
        })?;
        Ok(ProviderEvent { kind: event_kind(&event)?, id: event.id })
    }
}

/// Maps an event of Stripe. Most are irrelevant: an endpoint may subscribe to all kinds.
fn event_kind(event: &WebhookEvent) -> Result<ProviderEventKind, WebhookError> {
    let malformed = |error: serde_json::Error| {
        log::error!("stripe: event {} is malformed: {error}", event.id);
        WebhookError::Malformed
    };
    Ok(match event.kind.as_str() {
        "payment_intent.succeeded" => {
            let intent: Intent = serde_json::from_str(event.data.object.get()).map_err(malformed)?;
            match (intent.paid(), intent.metadata.mercat_payment) {
                (Some((amount, currency)), Some(charge)) => ProviderEventKind::Captured { charge, amount, currency },
                (None, Some(_)) => return Err(WebhookError::Malformed),
                // Of another application on the same account.
                (_, None) => ProviderEventKind::Irrelevant,
            }
        }
        "payment_intent.payment_failed" | "payment_intent.canceled" => {
            let intent: Intent = serde_json::from_str(event.data.object.get()).map_err(malformed)?;
            intent
                .metadata
                .mercat_payment
                .map_or(ProviderEventKind::Irrelevant, |key| ProviderEventKind::Changed { key })
        }
        "refund.created" | "refund.updated" | "refund.failed" | "charge.refund.updated" => {
            let refund: Refund = serde_json::from_str(event.data.object.get()).map_err(malformed)?;
            match (refund.metadata.mercat_refund, refund.status) {
                (Some(refund), RefundStatus::Succeeded) => ProviderEventKind::Refunded { refund },
                (Some(key), _) => ProviderEventKind::Changed { key },
                (None, _) => refunds_changed(refund.payment_intent),
            }
        }
        "charge.refunded" => {
            let charge: ChargeObject = serde_json::from_str(event.data.object.get()).map_err(malformed)?;
            refunds_changed(charge.payment_intent)
        }
        "charge.dispute.created" | "charge.dispute.updated" | "charge.dispute.closed" => {
            let dispute: Dispute = serde_json::from_str(event.data.object.get()).map_err(malformed)?;
            dispute_kind(dispute)?
        }
        _ => ProviderEventKind::Irrelevant,
    })
}

/// Maps a change of the refunds of an intent. Charges without one are not the shop's.
fn refunds_changed(intent: Option<String>) -> ProviderEventKind {
    match intent.filter(|intent| is_stripe_id(intent)) {
        Some(provider_charge) => ProviderEventKind::RefundsChanged { provider_charge },
        None => ProviderEventKind::Irrelevant,
    }
}

/// Maps a dispute. A closed inquiry (`warning_closed`) moved no money.
fn dispute_kind(dispute: Dispute) -> Result<ProviderEventKind, WebhookError> {
    let Some(provider_charge) = dispute.payment_intent else { return Ok(ProviderEventKind::Irrelevant) };
    let amount = amounts::parse(&dispute.currency, dispute.amount).ok_or(WebhookError::Malformed)?;
    let status = match dispute.status.as_str() {
        "won" | "warning_closed" | "prevented" => DisputeStatus::Won,
        "lost" => DisputeStatus::Lost,
        _ => DisputeStatus::Open,
    };
    let due_by = dispute.evidence_details.due_by.and_then(|seconds| seconds.checked_mul(1_000_000));
    let (reason, respond_by) = (dispute.reason, due_by.map(Timestamp::from_micros));
    Ok(ProviderEventKind::Disputed(ProviderDispute { provider_charge, status, amount, reason, respond_by }))
}

/// Maps an error response to the creation of an intent.
fn map_create_error(error: &StripeError) -> ChargeOutcome {
    let about_token = error.param.as_deref().is_some_and(|param| param.starts_with("payment_method"));
    match error.code.as_deref() {
        Some("amount_too_small" | "amount_too_large" | "invalid_charge_amount") => ChargeOutcome::AmountRefused,
        Some("invalid_charge_amount_no_decimal_compatible" | "currency_not_supported") => ChargeOutcome::AmountRefused,
        Some("resource_missing" | "token_already_used" | "token_in_use") => ChargeOutcome::UnknownToken,
        _ if error.status == 402 => ChargeOutcome::Declined,
        _ if error.status == 404 || about_token => ChargeOutcome::UnknownToken,
        _ => ChargeOutcome::Failed,
    }
}

/// Maps an error response to the confirmation of an intent. Only card and permission errors count as definitive.
fn map_confirm_error(error: &StripeError) -> ChargeOutcome {
    let authentication_codes = ["authentication_required", "authentication_not_handled", "requires_action_not_handled"];
    let is_authentication =
        |code: &Option<String>| code.as_deref().is_some_and(|code| authentication_codes.contains(&code));
    match error.status {
        402 if is_authentication(&error.code) || is_authentication(&error.decline_code) => {
            ChargeOutcome::AuthenticationRequired
        }
        402 => ChargeOutcome::Declined,
        401 | 403 => ChargeOutcome::Failed,
        // A state that does not fit, a card that was removed meanwhile: a lookup of the intent decides.
        _ => ChargeOutcome::Unknown,
    }
}

/// Maps an error response to a refund request.
fn map_refund_error(error: &StripeError) -> RefundOutcome {
    match error.code.as_deref() {
        Some("amount_too_small" | "invalid_charge_amount_no_decimal_compatible") => RefundOutcome::AmountRefused,
        _ => RefundOutcome::Failed,
    }
}

/// Maps an error response to a refund query. A refund that is not found may still exist, so the outcome is unknown.
fn map_lookup_error(error: ApiError) -> ApiError {
    match error {
        ApiError::Rejected(_) => {
            log::error!("stripe: refund not found: is the secret key that of another account?");
            ApiError::Unknown
        }
        other => other,
    }
}

/// Returns `true` if a text has the form of a Stripe id, so that it can be part of a path.
fn is_stripe_id(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
