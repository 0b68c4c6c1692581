//! `/invoices`, and what the payment provider tells by itself.

use serde::Deserialize;

use super::asked::{ApiRequest, ApiResult, BASE};
use super::input::{Query, ServerSetFields, UnreadBody};
use super::problem::Problem;
use crate::contract::payments::{
    CreateInvoice, GetInvoice, HandleProviderWebhook, InvoiceLine, ListInvoices, PayInvoice, PaymentsError,
    RefundInvoice, ReturnLine, VoidInvoice,
};
use crate::types::{Amount, Currency, EmailAddress, InvoiceId, Timestamp, UserId};

/// Bytes of what the provider tells at once. Stripe's events are a few thousand.
const NEWS_MAX: usize = 256 * 1024;
/// The most characters of the header that signs it.
const SIGNATURE_MAX: usize = 4_096;

/// A new invoice. What ties one to a checkout comes from the cart alone and has no field here.
#[derive(Deserialize)]
pub struct CreateInvoiceBody {
    user_id: UserId,
    lines: Vec<InvoiceLine>,
    currency: Currency,
    #[serde(default)]
    email: Option<EmailAddress>,
    #[serde(default)]
    expires_at: Option<Timestamp>,
}

/// What an invoice is paid with.
#[derive(Deserialize)]
pub struct PayBody {
    token: String,
}

/// How much goes back.
#[derive(Default, Deserialize)]
pub struct RefundBody {
    #[serde(default)]
    amount: Option<Amount>,
    #[serde(default)]
    restock: bool,
    #[serde(default)]
    lines: Option<Vec<ReturnLine>>,
}

impl ServerSetFields for CreateInvoiceBody {}
impl ServerSetFields for PayBody {}
impl ServerSetFields for RefundBody {}

fn invoice_id(asked: &ApiRequest) -> Result<InvoiceId, Problem> {
    asked.id("id", PaymentsError::InvoiceNotFound)
}

/// POST `/invoices`.
pub async fn create(asked: ApiRequest, sent: UnreadBody) -> ApiResult {
    asked.may(&VoidInvoice { invoice_id: InvoiceId::from_uuid(uuid::Uuid::nil()) })?;
    let CreateInvoiceBody { user_id, lines, currency, email, expires_at } = sent.json(&asked).await?;
    let request = CreateInvoice { user_id, lines, currency, email, hold: None, checkout: None, expires_at };
    let invoice = asked.clients().payments.call(asked.ctx(), request).await?;
    asked.created(&format!("{BASE}/invoices/{}", invoice.id), &invoice)
}

/// GET `/invoices/{id}`.
pub async fn get(asked: ApiRequest) -> ApiResult {
    let invoice_id = invoice_id(&asked)?;
    asked.ok(&asked.clients().payments.call(asked.ctx(), GetInvoice { invoice_id }).await?)
}

/// GET `/invoices/`.
pub async fn list(asked: ApiRequest) -> ApiResult {
    let mut query = Query::of(asked.request());
    let request = ListInvoices {
        user_id: query.id("user_id"),
        status: query.word("status", "must be open, paid, expired, void or refunded"),
        page: query.page(),
    };
    query.done()?;
    let page = asked.clients().payments.call(asked.ctx(), request).await?;
    asked.page(page.next.as_ref(), &page)
}

/// POST `/invoices/{id}/pay`.
pub async fn pay(asked: ApiRequest, sent: UnreadBody) -> ApiResult {
    let invoice_id = invoice_id(&asked)?;
    asked.may(&GetInvoice { invoice_id })?;
    let PayBody { token } = sent.json(&asked).await?;
    asked.ok(&asked.clients().payments.call(asked.ctx(), PayInvoice { invoice_id, token }).await?)
}

/// POST `/invoices/{id}/refund`.
pub async fn refund(asked: ApiRequest, sent: UnreadBody) -> ApiResult {
    let invoice_id = invoice_id(&asked)?;
    asked.may(&VoidInvoice { invoice_id })?;
    let RefundBody { amount, restock, lines } = sent.json_or_nothing(&asked).await?;
    let request = RefundInvoice { invoice_id, amount, restock, lines };
    asked.ok(&asked.clients().payments.call(asked.ctx(), request).await?)
}

/// POST `/invoices/{id}/void`.
pub async fn void(asked: ApiRequest) -> ApiResult {
    let invoice_id = invoice_id(&asked)?;
    asked.ok(&asked.clients().payments.call(asked.ctx(), VoidInvoice { invoice_id }).await?)
}

/// POST `/webhooks/stripe`. Nobody signs in here: whether it is from Stripe is shown by the signature, which payments
/// looks at with the body as it came.
pub async fn stripe(asked: ApiRequest, sent: UnreadBody) -> ApiResult {
    let signature = asked.request().headers().get("stripe-signature").and_then(|value| value.to_str().ok());
    let signature = signature.filter(|text| text.len() <= SIGNATURE_MAX).unwrap_or_default().to_owned();
    let body = sent.text(&asked, NEWS_MAX).await?;
    let ctx = asked.ctx().for_downstream_call("gateway", None);
    asked.clients().payments.call(ctx, HandleProviderWebhook { body, signature }).await?;
    asked.ok(&serde_json::json!({ "received": true }))
}
