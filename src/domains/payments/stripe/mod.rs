//! The provider `stripe`: money taken and given back over Stripe's HTTP interface, and its webhooks read.
//!
//! Lives here: what Stripe's answers mean for a payment. Never enters: the state of an invoice, SQL.
//!
//! A charge is a payment intent of its own, made and confirmed in two requests, and its name is durable between the
//! two. So whoever finds a try that nobody works on knows: without a name it was never confirmed, and is declared void
//! so that it never will be; with one Stripe can be asked for it, and an intent that took no money is cancelled, which
//! Stripe never takes back. To send one request and ask again under its key would be no lookup: that takes the buyer's
//! token, which is not kept, and Stripe forgets a key after a day. Its search is not up to date by its own account.
//!
//! A return is asked for under a key of ours. One that was asked for before is first looked for among the refunds of
//! its intent, by the key in its metadata, because Stripe may have forgotten the key itself.

mod amounts;
mod client;
mod signature;
#[cfg(test)]
mod tests;
mod types;

use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::Method;
use serde::de::DeserializeOwned;

use super::provider::{
    Charge, ChargeOutcome, ChargeStatus, PaymentProvider, ProviderEvent, ProviderEventKind, RefundOutcome,
    RefundRequest, WebhookError,
};
use super::store::{self, StripeRefundState};
use crate::messaging::CommonError;
use crate::settings::StripeSettings;
use crate::store::Store;
use crate::types::Timestamp;
use client::{Api, ApiCall, ApiError, StripeError};
use types::{Event, Intent, IntentStatus, Page, Refund, RefundStatus};

/// How long most requests may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(8);
/// How long the one may take in which a bank is asked.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(20);
/// How many pages of an intent's refunds are looked through, a hundred each.
const PAGES_MAX: usize = 10;

/// Takes money through Stripe.
pub struct StripeProvider {
    api: Api,
    books: Store,
    webhook_secrets: Vec<String>,
}

impl StripeProvider {
    /// The provider of these settings, with its books in `books`; or what is wrong with the key.
    pub fn new(settings: &StripeSettings, books: Store) -> Result<Self, &'static str> {
        let api = Api::new(&settings.url, &settings.secret_key)?;
        Ok(Self { api, books, webhook_secrets: settings.webhook_secrets.clone() })
    }

    async fn get<T: DeserializeOwned>(&self, path: String, form: &[(&str, &str)]) -> Result<T, ApiError> {
        self.api.ask(ApiCall { method: Method::GET, path, form, key: None, patience: CALL_TIMEOUT }).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: String,
        form: &[(&str, &str)],
        key: Option<String>,
        patience: Duration,
    ) -> Result<T, ApiError> {
        self.api.ask(ApiCall { method: Method::POST, path, form, key, patience }).await
    }

    async fn take(&self, charge: Charge) -> ChargeOutcome {
        if charge.amount == 0 {
            return ChargeOutcome::Captured;
        }
        let intent = match self.make(&charge).await {
            Ok(intent) => intent,
            Err(certain) => return certain,
        };
        let (key, name) = (charge.key.clone(), intent.clone());
        let noted = self.books.write(move |tx| Ok::<_, CommonError>(store::name_charge(tx.conn, &key, &name, tx.now)?));
        if !matches!(noted.await, Ok(true)) {
            // Declared void meanwhile, or not to be kept: either way it is not confirmed, so nothing is taken.
            self.cancel(&intent).await;
            return ChargeOutcome::Failed;
        }
        let path = format!("payment_intents/{intent}/confirm");
        match self.post::<Intent>(path, &[], Some(format!("{}/confirm", charge.key)), CONFIRM_TIMEOUT).await {
            Ok(found) => self.judge(&intent, &found).await,
            Err(ApiError::Refused(refusal)) => {
                let charged = not_taken(&refusal);
                if charged != ChargeOutcome::Unknown {
                    // Nobody could confirm it but us; this only leaves nothing unfinished in Stripe's books.
                    self.cancel(&intent).await;
                }
                charged
            }
            Err(ApiError::NotHeard) => ChargeOutcome::Failed,
            Err(ApiError::Unknown) => ChargeOutcome::Unknown,
        }
    }

    /// Makes the intent. Whatever goes wrong here, nothing was taken and nothing will be: it is not confirmed.
    async fn make(&self, charge: &Charge) -> Result<String, ChargeOutcome> {
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
            _ if !is_name(&charge.token) => return Err(ChargeOutcome::UnknownToken),
            Some(("pm" | "card" | "src", _)) => form.push(("payment_method", &charge.token)),
            Some(("tok", _)) => form
                .extend([("payment_method_data[type]", "card"), ("payment_method_data[card][token]", &charge.token)]),
            _ => return Err(ChargeOutcome::UnknownToken),
        }
        let path = "payment_intents".to_owned();
        match self.post::<Intent>(path, &form, Some(format!("{}/create", charge.key)), CALL_TIMEOUT).await {
            Ok(intent) if is_name(&intent.id) => Ok(intent.id),
            Err(ApiError::Refused(refusal)) => Err(match not_made(&refusal) {
                ChargeOutcome::Failed => {
                    log::error!("payments: Stripe takes no payments of this shop: see its settings and its account");
                    ChargeOutcome::Failed
                }
                other => other,
            }),
            Ok(_) | Err(ApiError::NotHeard | ApiError::Unknown) => Err(ChargeOutcome::Failed),
        }
    }

    /// What an intent that was just confirmed has come to.
    async fn judge(&self, name: &str, intent: &Intent) -> ChargeOutcome {
        let charged = match intent.status {
            IntentStatus::Succeeded => return ChargeOutcome::Captured,
            IntentStatus::Canceled => return ChargeOutcome::Failed,
            IntentStatus::Processing | IntentStatus::Other => return ChargeOutcome::Unknown,
            IntentStatus::RequiresAction => ChargeOutcome::NeedsBuyer,
            IntentStatus::RequiresPaymentMethod => ChargeOutcome::Declined,
            IntentStatus::RequiresConfirmation | IntentStatus::RequiresCapture => ChargeOutcome::Failed,
        };
        // The buyer could still answer their bank, so it is over only once Stripe says so.
        if self.cancel(name).await { charged } else { ChargeOutcome::Unknown }
    }

    /// Cancels an intent; says whether it certainly is. Without a key: it cannot be done twice, and Stripe would keep a
    /// failure of its own under the key for a day.
    async fn cancel(&self, intent: &str) -> bool {
        let path = format!("payment_intents/{intent}/cancel");
        let cancelled = self.post::<Intent>(path, &[], None, CALL_TIMEOUT).await;
        cancelled.is_ok_and(|intent| intent.status == IntentStatus::Canceled)
    }

    async fn look_up(&self, key: String) -> ChargeStatus {
        let found =
            self.books.write(move |tx| Ok::<_, CommonError>(store::settle_charge(tx.conn, &key, tx.now)?)).await;
        let intent = match found {
            Ok(Some(intent)) => intent,
            Ok(None) => return ChargeStatus::NotCharged,
            Err(_) => return ChargeStatus::Unknown,
        };
        let path = format!("payment_intents/{intent}");
        // Twice, because it may succeed between the look and the cancelling.
        for _ in 0..2 {
            let status = match self.get::<Intent>(path.clone(), &[]).await {
                Ok(found) => found.status,
                Err(ApiError::Refused(_)) => {
                    log::error!("payments: Stripe does not know {intent}: is the key that of another account?");
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

    async fn give_back(&self, back: RefundRequest) -> RefundOutcome {
        if back.amount == 0 {
            return RefundOutcome::Done;
        }
        let Some(amount) = amounts::to_stripe(back.currency, back.amount) else { return RefundOutcome::AmountRefused };
        let asked = {
            let back = back.clone();
            self.books.write(move |tx| Ok::<_, CommonError>(store::begin_return(tx.conn, &back, tx.now)?)).await
        };
        let asked = match asked {
            Ok(Some(asked)) => asked,
            Ok(None) => {
                log::error!("payments: {} was not taken by Stripe, so it cannot be given back there", back.charge);
                return RefundOutcome::Failed;
            }
            Err(_) => return RefundOutcome::Unknown,
        };
        let found = match self.find_refund(&back, &asked).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => {
                let amount = amount.to_string();
                let form = [
                    ("payment_intent", asked.intent.as_str()),
                    ("amount", &amount),
                    ("metadata[mercat_refund]", &back.key),
                ];
                let key = format!("{}/refund/{}", back.key, asked.turn);
                self.post::<Refund>("refunds".to_owned(), &form, Some(key), CONFIRM_TIMEOUT).await
            }
            Err(trouble) => Err(trouble),
        };
        match found {
            Ok(refund) => match refund.status {
                RefundStatus::Succeeded => RefundOutcome::Done,
                RefundStatus::Failed | RefundStatus::Canceled => self.turn_over(back, RefundOutcome::Failed).await,
                RefundStatus::Pending | RefundStatus::RequiresAction | RefundStatus::Other => {
                    let named = self
                        .books
                        .write(move |tx| Ok::<_, CommonError>(store::name_return(tx.conn, &back.key, &refund.id)?));
                    if named.await.is_err() {
                        log::warn!("payments: the name of a refund cannot be kept; it is looked for the next time");
                    }
                    RefundOutcome::Unknown
                }
            },
            Err(ApiError::Refused(refusal)) => self.turn_over(back, not_returned(&refusal)).await,
            Err(ApiError::NotHeard) => RefundOutcome::Failed,
            Err(ApiError::Unknown) => RefundOutcome::Unknown,
        }
    }

    /// The refund that an earlier asking made, if it did.
    async fn find_refund(&self, back: &RefundRequest, asked: &StripeRefundState) -> Result<Option<Refund>, ApiError> {
        if let Some(refund) = &asked.refund {
            return self.get(format!("refunds/{refund}"), &[]).await.map(Some).map_err(not_there);
        }
        if asked.first {
            return Ok(None);
        }
        let mut after = String::new();
        for _ in 0..PAGES_MAX {
            let mut form = vec![("payment_intent", asked.intent.as_str()), ("limit", "100")];
            if !after.is_empty() {
                form.push(("starting_after", &after));
            }
            let page: Page<Refund> = self.get("refunds".to_owned(), &form).await.map_err(not_there)?;
            let (more, last) = (page.has_more, page.data.last().map(|refund| refund.id.clone()));
            // One that failed was answered for: since then the turn is another.
            let alive = |refund: &Refund| !matches!(refund.status, RefundStatus::Failed | RefundStatus::Canceled);
            let ours = |refund: &Refund| refund.metadata.mercat_refund.as_deref() == Some(&back.key);
            if let Some(found) = page.data.into_iter().find(|refund| ours(refund) && alive(refund)) {
                return Ok(Some(found));
            }
            match last {
                Some(last) if more => after = last,
                _ => return Ok(None),
            }
        }
        log::error!("payments: {} has more refunds than are looked through", asked.intent);
        Err(ApiError::Unknown)
    }

    /// Notes that a return certainly failed, so that asking for it again is a new wish for Stripe.
    async fn turn_over(&self, back: RefundRequest, returned: RefundOutcome) -> RefundOutcome {
        if returned == RefundOutcome::Unknown {
            return returned;
        }
        match self.books.write(move |tx| Ok::<_, CommonError>(store::turn_return(tx.conn, &back.key)?)).await {
            Ok(()) => returned,
            // The same turn again gets the same answer again: no harm.
            Err(_) => RefundOutcome::Unknown,
        }
    }
}

impl PaymentProvider for StripeProvider {
    fn capture(&self, charge: Charge) -> BoxFuture<'_, ChargeOutcome> {
        Box::pin(self.take(charge))
    }

    fn refund(&self, back: RefundRequest) -> BoxFuture<'_, RefundOutcome> {
        Box::pin(self.give_back(back))
    }

    fn lookup(&self, key: String) -> BoxFuture<'_, ChargeStatus> {
        Box::pin(self.look_up(key))
    }

    fn read_news(&self, body: &str, signature: &str, now: Timestamp) -> Result<ProviderEvent, WebhookError> {
        if self.webhook_secrets.is_empty() {
            return Err(WebhookError::WebhooksUnsupported);
        }
        if !signature::is_true(signature, body, &self.webhook_secrets, now) {
            return Err(WebhookError::NotSigned);
        }
        let event: Event = serde_json::from_str(body).map_err(|error| {
            log::error!("payments: a webhook of Stripe is not understood: {error}");
            WebhookError::Unreadable
        })?;
        Ok(ProviderEvent { about: about(&event)?, id: event.id })
    }
}

/// What an event of Stripe means here. Most mean nothing: an endpoint may be sent all kinds there are.
fn about(event: &Event) -> Result<ProviderEventKind, WebhookError> {
    let unreadable = |error: serde_json::Error| {
        log::error!("payments: event {} of Stripe is not understood: {error}", event.id);
        WebhookError::Unreadable
    };
    Ok(match event.kind.as_str() {
        "payment_intent.succeeded" => {
            let intent: Intent = serde_json::from_str(event.data.object.get()).map_err(unreadable)?;
            match (intent.paid(), intent.metadata.mercat_payment) {
                (Some((amount, currency)), Some(charge)) => ProviderEventKind::Captured { charge, amount, currency },
                (None, Some(_)) => return Err(WebhookError::Unreadable),
                // Somebody else's on the same account.
                (_, None) => ProviderEventKind::Irrelevant,
            }
        }
        "payment_intent.payment_failed" | "payment_intent.canceled" => {
            let intent: Intent = serde_json::from_str(event.data.object.get()).map_err(unreadable)?;
            intent
                .metadata
                .mercat_payment
                .map_or(ProviderEventKind::Irrelevant, |key| ProviderEventKind::Changed { key })
        }
        "refund.created" | "refund.updated" | "refund.failed" | "charge.refund.updated" => {
            let refund: Refund = serde_json::from_str(event.data.object.get()).map_err(unreadable)?;
            match (refund.metadata.mercat_refund, refund.status) {
                (Some(back), RefundStatus::Succeeded) => ProviderEventKind::RefundOutcome { back },
                (Some(key), _) => ProviderEventKind::Changed { key },
                (None, _) => ProviderEventKind::Irrelevant,
            }
        }
        _ => ProviderEventKind::Irrelevant,
    })
}

/// What a refusal to make an intent means.
fn not_made(refusal: &StripeError) -> ChargeOutcome {
    let about_token = refusal.param.as_deref().is_some_and(|param| param.starts_with("payment_method"));
    match refusal.code.as_deref() {
        Some("amount_too_small" | "amount_too_large" | "invalid_charge_amount") => ChargeOutcome::AmountRefused,
        Some("invalid_charge_amount_no_decimal_compatible" | "currency_not_supported") => ChargeOutcome::AmountRefused,
        Some("resource_missing" | "token_already_used" | "token_in_use") => ChargeOutcome::UnknownToken,
        _ if refusal.status == 402 => ChargeOutcome::Declined,
        _ if refusal.status == 404 || about_token => ChargeOutcome::UnknownToken,
        _ => ChargeOutcome::Failed,
    }
}

/// What a refusal to confirm an intent means. Only what Stripe says of cards is taken for certain.
fn not_taken(refusal: &StripeError) -> ChargeOutcome {
    let about_buyer = ["authentication_required", "authentication_not_handled", "requires_action_not_handled"];
    let said = |word: &Option<String>| word.as_deref().is_some_and(|word| about_buyer.contains(&word));
    match refusal.status {
        402 if said(&refusal.code) || said(&refusal.decline_code) => ChargeOutcome::NeedsBuyer,
        402 => ChargeOutcome::Declined,
        401 | 403 => ChargeOutcome::Failed,
        // A state that does not fit, a card that was taken away meanwhile: the intent itself is asked.
        _ => ChargeOutcome::Unknown,
    }
}

/// What a refusal of a refund means.
fn not_returned(refusal: &StripeError) -> RefundOutcome {
    match refusal.code.as_deref() {
        Some("amount_too_small" | "invalid_charge_amount_no_decimal_compatible") => RefundOutcome::AmountRefused,
        _ => RefundOutcome::Failed,
    }
}

/// A refund that Stripe does not show is not one that was never made.
fn not_there(trouble: ApiError) -> ApiError {
    match trouble {
        ApiError::Refused(_) => {
            log::error!("payments: Stripe does not show a refund: is the key that of another account?");
            ApiError::Unknown
        }
        other => other,
    }
}

/// Whether a text can be a name of Stripe's, and so stand in a path.
fn is_name(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
