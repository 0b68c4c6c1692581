//! Handlers of `/invoices`, and of the payment provider's webhooks.

use serde::Deserialize;

use super::addresses::ORDER_ADDRESS_SERVER_SET;
use super::body::{ServerSetFields, UnreadBody};
use super::extract::ApiRequest;
use super::names::{API_BASE, GATEWAY};
use super::problem::Problem;
use super::query::Query;
use super::respond::ApiResult;
use crate::contract::catalog::GetOffers;
use crate::contract::payments::{
    CreateInvoice, GetInvoice, HandleProviderWebhook, InvoiceLine, ListInvoices, PayInvoice, PaymentsError,
    RefundInvoice, ReturnLine, ShippingCharge, VoidInvoice, default_tax_included,
};
use crate::contract::users::FilterExistingUsers;
use crate::messaging::CommonError;
use crate::types::{
    Amount, Currency, EmailAddress, FieldError, InvoiceId, PostalAddress, ProductId, Timestamp, UserId,
};

/// Largest body of a webhook, in bytes. Stripe's events have a few thousand.
const WEBHOOK_BYTES_MAX: usize = 256 * 1024;
/// Longest signature header, in characters.
const SIGNATURE_MAX: usize = 4_096;

/// Lines of an invoice whose products are looked up; the payments domain refuses one with more.
const LINES_MAX: usize = 1_000;

/// Body of a new invoice, which bills what its lines say and moves no stock. Only the cart ties an invoice to a checkout, so there is no field for it.
#[derive(Deserialize)]
pub struct CreateInvoiceBody {
    user_id: UserId,
    lines: Vec<InvoiceLine>,
    currency: Currency,
    #[serde(default)]
    shipping: Option<ShippingCharge>,
    #[serde(default = "default_tax_included")]
    tax_included: bool,
    #[serde(default)]
    shipping_address: Option<PostalAddress>,
    #[serde(default)]
    billing_address: Option<PostalAddress>,
    #[serde(default)]
    note: Option<String>,
    #[serde(default)]
    email: Option<EmailAddress>,
    #[serde(default)]
    expires_at: Option<Timestamp>,
}

/// Body of a payment: the provider's token of a payment method.
#[derive(Deserialize)]
pub struct PayBody {
    token: String,
}

/// Body of a refund. Without `amount` all money that is left is refunded.
#[derive(Default, Deserialize)]
pub struct RefundBody {
    #[serde(default)]
    amount: Option<Amount>,
    #[serde(default)]
    restock: bool,
    #[serde(default)]
    lines: Option<Vec<ReturnLine>>,
}

impl ServerSetFields for CreateInvoiceBody {
    const NAMES: &'static [&'static str] = ORDER_ADDRESS_SERVER_SET;
}
impl ServerSetFields for PayBody {}
impl ServerSetFields for RefundBody {}

fn invoice_id(request: &ApiRequest) -> Result<InvoiceId, Problem> {
    request.path_id("id", PaymentsError::InvoiceNotFound)
}

/// POST `/invoices`.
pub async fn create(request: ApiRequest, body: UnreadBody) -> ApiResult {
    request.authorize(&VoidInvoice { invoice_id: InvoiceId::from_uuid(uuid::Uuid::nil()) })?;
    let body: CreateInvoiceBody = body.json(&request).await?;
    check_references(&request, body.user_id, &body.lines).await?;
    let message = CreateInvoice {
        user_id: body.user_id,
        lines: body.lines,
        currency: body.currency,
        shipping: body.shipping,
        tax_included: body.tax_included,
        shipping_address: body.shipping_address,
        billing_address: body.billing_address,
        note: body.note,
        email: body.email,
        hold: None,
        checkout: None,
        expires_at: body.expires_at,
    };
    let invoice = request.clients().payments.call(request.ctx(), message).await?;
    request.created(&format!("{API_BASE}/invoices/{}", invoice.id), &invoice)
}

/// Checks that the buyer and the products of an invoice made by staff exist. Here and not in the payments domain, which
/// goes on without the others.
async fn check_references(request: &ApiRequest, user_id: UserId, lines: &[InvoiceLine]) -> Result<(), Problem> {
    let ctx = request.ctx().for_downstream_call(GATEWAY, None);
    let clients = request.clients();
    let mut errors = Vec::new();
    if clients.users.call(ctx.clone(), FilterExistingUsers { users: vec![user_id] }).await?.is_empty() {
        errors.push(FieldError::new("user_id", "unknown", "is no user of this shop"));
    }
    let product_ids: Vec<ProductId> = lines.iter().filter_map(|line| line.product_id).take(LINES_MAX).collect();
    if !product_ids.is_empty() {
        let offers = clients.catalog.call(ctx, GetOffers { product_ids }).await?;
        let is_unknown = |id: ProductId| !offers.iter().any(|offer| offer.product_id == id);
        for (n, line) in lines.iter().enumerate().take(LINES_MAX) {
            if line.product_id.is_some_and(is_unknown) {
                errors.push(FieldError::new(format!("lines.{n}.product_id"), "unknown", "is no product of this shop"));
            }
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(CommonError::ValidationFailed { errors }.into()) }
}

/// GET `/invoices/{id}`.
pub async fn get(request: ApiRequest) -> ApiResult {
    let invoice_id = invoice_id(&request)?;
    request.ok(&request.clients().payments.call(request.ctx(), GetInvoice { invoice_id }).await?)
}

/// GET `/invoices/`.
pub async fn list(request: ApiRequest) -> ApiResult {
    let mut query = Query::of(request.http());
    let message = ListInvoices {
        user_id: query.id("user_id"),
        status: query.one_of("status", "must be open, paid, expired, void or refunded"),
        page: query.page(),
    };
    query.finish()?;
    let page = request.clients().payments.call(request.ctx(), message).await?;
    request.page(page.next.as_ref(), &page)
}

/// POST `/invoices/{id}/pay`.
pub async fn pay(request: ApiRequest, body: UnreadBody) -> ApiResult {
    let invoice_id = invoice_id(&request)?;
    request.authorize(&GetInvoice { invoice_id })?;
    let PayBody { token } = body.json(&request).await?;
    request.ok(&request.clients().payments.call(request.ctx(), PayInvoice { invoice_id, token }).await?)
}

/// POST `/invoices/{id}/refund`.
pub async fn refund(request: ApiRequest, body: UnreadBody) -> ApiResult {
    let invoice_id = invoice_id(&request)?;
    request.authorize(&VoidInvoice { invoice_id })?;
    let RefundBody { amount, restock, lines } = body.json_or_default(&request).await?;
    let message = RefundInvoice { invoice_id, amount, restock, lines };
    request.ok(&request.clients().payments.call(request.ctx(), message).await?)
}

/// POST `/invoices/{id}/void`.
pub async fn void(request: ApiRequest) -> ApiResult {
    let invoice_id = invoice_id(&request)?;
    request.ok(&request.clients().payments.call(request.ctx(), VoidInvoice { invoice_id }).await?)
}

/// POST `/webhooks/stripe`. Authenticated by its signature alone, which the payments domain verifies over the unchanged
/// body.
pub async fn stripe_webhook(request: ApiRequest, body: UnreadBody) -> ApiResult {
    let signature = request.http().headers().get("stripe-signature").and_then(|value| value.to_str().ok());
    let signature = signature.filter(|text| text.len() <= SIGNATURE_MAX).unwrap_or_default().to_owned();
    let body = body.text(&request, WEBHOOK_BYTES_MAX).await?;
    let ctx = request.ctx().for_downstream_call(GATEWAY, None);
    request.clients().payments.call(ctx, HandleProviderWebhook { body, signature }).await?;
    request.ok(&serde_json::json!({ "received": true }))
}
