//! Requests, replies, events and errors of the payments domain. Contains no behaviour beyond their error kinds.

use serde::{Deserialize, Serialize};

use crate::messaging::{CommonError, DomainError, ErrorKind};
use crate::types::{
    Amount, CheckoutId, Currency, EmailAddress, FieldError, HoldId, InvoiceId, Page, PageRequest, Percentage,
    PostalAddress, ProductId, Quantity, Timestamp, UserId,
};

/// A demand for payment, with its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invoice {
    /// Id of the invoice.
    pub id: InvoiceId,
    /// Number shown to people, `INV-000001` upwards: consecutive, without gaps, never reused.
    pub number: String,
    /// Buyer.
    pub user_id: UserId,
    /// State of the invoice.
    pub status: InvoiceStatus,
    /// Billed items, 1 to 1,000 lines.
    pub lines: Vec<InvoiceLine>,
    /// Sum of lines, delivery and, unless the prices include it, tax, in minor units of `currency`.
    pub total: Amount,
    /// Amount refunded so far, in minor units of `currency`; refunds in progress are not part of it.
    pub refunded: Amount,
    /// Amount of refunds in progress, in minor units of `currency`: requested, and not yet confirmed by the provider. A
    /// bank may take days.
    #[serde(default)]
    pub refunding: Amount,
    /// Amount in minor units of `currency` that was paid when the invoice could no longer take it, and was sent back. It
    /// is part of neither `total` nor `refunded`.
    #[serde(default)]
    pub returned_late: Amount,
    /// State of the buyer's dispute with the bank; `null` without one.
    #[serde(default)]
    pub dispute: Option<DisputeStatus>,
    /// Currency of all amounts of the invoice.
    pub currency: Currency,
    /// Delivery and its price; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shipping: Option<ShippingCharge>,
    /// Tax in all, in minor units of `currency`.
    #[serde(default)]
    pub tax: Amount,
    /// Whether the prices of lines and delivery include the tax. If not, it is added to them in `total`.
    #[serde(default = "default_tax_included")]
    pub tax_included: bool,
    /// Tax per rate, the highest rate first. The amounts add up to `tax`.
    #[serde(default)]
    pub taxes: Vec<TaxTotal>,
    /// Address that the goods are delivered to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shipping_address: Option<PostalAddress>,
    /// Address that the invoice is made out to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billing_address: Option<PostalAddress>,
    /// Message of the buyer to the shop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Address for the receipt, if the buyer named one; otherwise it goes to the user's own address.
    pub email: Option<EmailAddress>,
    /// Whether a payment attempt is in progress. Such an invoice neither expires nor can it be voided.
    pub processing: bool,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time from which the invoice can no longer be paid.
    pub expires_at: Timestamp,
    /// Time of capture; `null` while unpaid.
    pub paid_at: Option<Timestamp>,
}

/// State of an invoice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvoiceStatus {
    /// Awaiting payment.
    Open,
    /// Paid, with at most a part of it refunded.
    Paid,
    /// Not paid in time.
    Expired,
    /// Cancelled before it was paid.
    Void,
    /// Paid and refunded in full.
    Refunded,
}

/// State of a dispute (chargeback): the buyer's bank demands the money back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisputeStatus {
    /// Awaiting the shop's evidence, or the bank's decision.
    Open,
    /// Decided for the shop.
    Won,
    /// Decided for the buyer: the money is gone.
    Lost,
}

/// A line of an invoice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceLine {
    /// Text shown to the buyer, 1 to 300 characters on one line.
    pub description: String,
    /// Product that was sold; absent for services and fees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_id: Option<ProductId>,
    /// Number of units, 1 to 10,000.
    pub quantity: Quantity,
    /// Price of one unit in minor units of the invoice's currency, 0 to 1,000,000,000,000.
    pub unit_price: Amount,
    /// Tax on the line; absent for an untaxed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax: Option<TaxRate>,
}

/// A tax and its rate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaxRate {
    /// Name on the invoice, such as `VAT`, 1 to 100 characters.
    pub name: String,
    /// Rate in percent, as a decimal number such as `5.5`.
    pub rate: Percentage,
}

/// The tax of one rate on an invoice. It is rounded per line, half up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaxTotal {
    /// The tax and its rate.
    #[serde(flatten)]
    pub tax: TaxRate,
    /// Net amount that is taxed, in minor units.
    pub base: Amount,
    /// Tax on it, in minor units.
    pub amount: Amount,
}

/// Delivery of an invoice's goods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShippingCharge {
    /// Name of the method, 1 to 100 characters.
    pub method: String,
    /// Price in minor units of the invoice's currency, 0 to 1,000,000,000,000.
    pub price: Amount,
    /// Tax on the price; absent for an untaxed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax: Option<TaxRate>,
}

/// Prices include the tax unless the invoice says otherwise.
#[must_use]
pub const fn default_tax_included() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_default_tax_included(tax_included: &bool) -> bool {
    *tax_included
}

/// Creates an open invoice with the next number.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreateInvoice {
    /// Buyer.
    pub user_id: UserId,
    /// Billed items, 1 to 1,000 lines.
    pub lines: Vec<InvoiceLine>,
    /// Currency of all amounts.
    pub currency: Currency,
    /// Delivery and its price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shipping: Option<ShippingCharge>,
    /// Whether the prices of lines and delivery include the tax.
    #[serde(default = "default_tax_included", skip_serializing_if = "is_default_tax_included")]
    pub tax_included: bool,
    /// Address that the goods are delivered to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shipping_address: Option<PostalAddress>,
    /// Address that the invoice is made out to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billing_address: Option<PostalAddress>,
    /// Message of the buyer to the shop, at most 2,000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Address for the receipt; defaults to the user's own address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<EmailAddress>,
    /// Stock hold that the payment turns into a sale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldId>,
    /// Checkout that the invoice belongs to. A second request for the same checkout returns the same invoice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkout: Option<CheckoutId>,
    /// Time from which the invoice can no longer be paid; defaults to now plus `payments.invoice_lifetime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// Reads an invoice. Answers `invoice_not_found` for another user's invoice, unless staff asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetInvoice {
    /// Invoice to read.
    pub invoice_id: InvoiceId,
}

/// Lists invoices, newest first: the caller's own, or all of them for staff.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListInvoices {
    /// Only invoices of this user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// Only invoices in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<InvoiceStatus>,
    /// Page to return.
    #[serde(flatten)]
    pub page: PageRequest,
}

/// Pays an invoice. Requires an idempotency key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PayInvoice {
    /// Invoice to pay.
    pub invoice_id: InvoiceId,
    /// Payment token that the provider issued to the buyer's browser, at most 500 characters. Neither stored nor
    /// logged.
    pub token: String,
}

/// Refunds an invoice in full or in part. Requires an idempotency key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RefundInvoice {
    /// Invoice to refund.
    pub invoice_id: InvoiceId,
    /// Amount in minor units of the invoice's currency. Defaults to the price of `lines`, or without them to all that
    /// has not been refunded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<Amount>,
    /// Whether units return to stock: those of `lines`, or without them all that have not been returned. Without
    /// `lines` it requires a refund of all that is left.
    #[serde(default)]
    pub restock: bool,
    /// Returned units, one entry per product, 1 to 1,000 entries, at most as many units as were sold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<Vec<ReturnLine>>,
}

/// Returned units of one product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReturnLine {
    /// Product that was returned.
    pub product_id: ProductId,
    /// Number of units, at least 1.
    pub quantity: Quantity,
}

/// Handles a webhook of the payment provider, passed on as it was received. The signature authenticates it, not the
/// caller.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HandleProviderWebhook {
    /// Raw request body; the signature covers every byte.
    pub body: String,
    /// Value of the provider's signature header.
    pub signature: String,
}

/// Voids an open invoice. Voiding it again changes nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VoidInvoice {
    /// Invoice to void.
    pub invoice_id: InvoiceId,
}

/// Records a past order, for demo data. Sends no email, moves no money and touches no stock.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImportInvoice {
    /// Buyer.
    pub user_id: UserId,
    /// Billed items, 1 to 1,000 lines.
    pub lines: Vec<InvoiceLine>,
    /// Currency of all amounts.
    pub currency: Currency,
    /// Final state; anything but `void`. An open one can be paid like any other.
    pub status: InvoiceStatus,
    /// Time of creation, and of payment if it was paid.
    pub at: Timestamp,
}

crate::requests! { PaymentsError;
    "payments.CreateInvoice": CreateInvoice => Invoice, once, |_| Access::Staff(Role::Manager);
    "payments.GetInvoice": GetInvoice => Invoice, read, |_| Access::SignedIn;
    "payments.ListInvoices": ListInvoices => Page<Invoice>, read, |_| Access::SignedIn;
    "payments.PayInvoice": PayInvoice => Invoice, once, |_| Access::SignedIn;
    "payments.RefundInvoice": RefundInvoice => Invoice, once, |_| Access::Staff(Role::Manager);
    "payments.HandleProviderWebhook": HandleProviderWebhook => (), retry, |_| Access::Internal;
    "payments.VoidInvoice": VoidInvoice => Invoice, retry, |_| Access::Staff(Role::Manager);
    "payments.ImportInvoice": ImportInvoice => Invoice, once, |_| Access::Internal;
}

/// An invoice was created.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InvoiceCreated {
    /// The new invoice.
    pub invoice: Invoice,
}

/// An invoice was paid: the provider has captured the money.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InvoicePaid {
    /// The invoice after the payment.
    pub invoice: Invoice,
    /// Stock hold of the invoice; it becomes a sale.
    pub hold: Option<HoldId>,
    /// Checkout that the invoice belongs to.
    pub checkout: Option<CheckoutId>,
    /// Whether the invoice is an imported past order. Only statistics count such an event; it moves no stock and sends
    /// no email.
    #[serde(default, alias = "past")]
    pub imported: bool,
}

/// A payment attempt failed; the invoice is still open.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PaymentFailed {
    /// Invoice that was to be paid.
    pub invoice_id: InvoiceId,
    /// Number of the invoice, as shown to people.
    pub number: String,
    /// Buyer.
    pub user_id: UserId,
    /// Machine-readable code such as `card_declined`.
    pub reason: String,
}

/// An invoice was not paid in time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InvoiceExpired {
    /// Invoice that expired.
    pub invoice_id: InvoiceId,
    /// Number of the invoice, as shown to people.
    pub number: String,
    /// Buyer.
    pub user_id: UserId,
    /// Stock hold of the invoice; it is released.
    pub hold: Option<HoldId>,
    /// Checkout that the invoice belongs to.
    pub checkout: Option<CheckoutId>,
}

/// An unpaid invoice was voided.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InvoiceVoided {
    /// Invoice that was voided.
    pub invoice_id: InvoiceId,
    /// Number of the invoice, as shown to people.
    pub number: String,
    /// Buyer.
    pub user_id: UserId,
    /// Stock hold of the invoice; it is released.
    pub hold: Option<HoldId>,
    /// Checkout that the invoice belongs to.
    pub checkout: Option<CheckoutId>,
}

/// Reason code of a refund that staff requested.
pub const REQUESTED: &str = "requested";
/// Reason code of a refund for a sale that could not be fulfilled.
pub const OUT_OF_STOCK: &str = "out_of_stock";
/// Reason code of a refund of money that arrived when the invoice could no longer take it, and so never counted as
/// paid.
pub const LATE_PAYMENT: &str = "late_payment";

/// Reason code of a refund that was made at the provider and not through the shop, such as in Stripe's dashboard.
pub const AT_PROVIDER: &str = "at_provider";

/// The buyer disputed a payment with the bank, or such a dispute changed. Staff must respond at the provider.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PaymentDisputed {
    /// The invoice with the new state of the dispute.
    pub invoice: Invoice,
    /// Disputed amount, in minor units of the invoice's currency.
    pub amount: Amount,
    /// The bank's reason as the provider names it, such as `fraudulent`.
    pub reason: String,
    /// Time by which evidence must be submitted.
    pub respond_by: Option<Timestamp>,
}

/// Money was refunded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InvoiceRefunded {
    /// The invoice after the refund.
    pub invoice: Invoice,
    /// Amount of this refund, in minor units of the invoice's currency.
    pub amount: Amount,
    /// Whether units return to stock.
    pub restock: bool,
    /// Units that return; all that have not been returned when empty and `restock` is set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<ReturnLine>,
    /// Stock hold that was sold with the invoice.
    pub hold: Option<HoldId>,
    /// Machine-readable code: [`REQUESTED`], [`OUT_OF_STOCK`], [`LATE_PAYMENT`] or [`AT_PROVIDER`].
    pub reason: String,
    /// Whether the invoice is an imported past order. Only statistics count such an event; it moves no stock and sends
    /// no email.
    #[serde(default, alias = "past")]
    pub imported: bool,
}

crate::events! { pub const EVENTS;
    "payments.invoice_created": InvoiceCreated;
    "payments.invoice_paid": InvoicePaid;
    "payments.payment_failed": PaymentFailed;
    "payments.invoice_expired": InvoiceExpired;
    "payments.invoice_voided": InvoiceVoided;
    "payments.invoice_refunded": InvoiceRefunded;
    "payments.payment_disputed": PaymentDisputed;
}

/// Lists what `mercat check` compares between invoices and other domains.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListInvoiceFacts {
    /// Invoices to report on.
    pub which: InvoiceSelection,
}

/// Selection of invoices for [`ListInvoiceFacts`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvoiceSelection {
    /// The next 500 invoices in the order of their ids, from the start when `None`.
    After(Option<InvoiceId>),
    /// The invoices with these ids, at most 500; unknown ids are skipped.
    These(Vec<InvoiceId>),
    /// The invoices with these stock holds, at most 500. Scans all invoices.
    OfHolds(Vec<HoldId>),
}

/// Facts of an invoice that must agree with the data of other domains.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InvoiceFacts {
    /// Id of the invoice.
    pub id: InvoiceId,
    /// Number of the invoice, as shown to people.
    pub number: String,
    /// Buyer.
    pub user_id: UserId,
    /// State of the invoice.
    pub status: InvoiceStatus,
    /// Whether the invoice is an imported past order.
    pub imported: bool,
    /// Whether the invoice names an address for its receipt.
    pub has_email: bool,
    /// Stock hold of the invoice.
    pub hold: Option<HoldId>,
    /// Checkout that the invoice belongs to.
    pub checkout: Option<CheckoutId>,
    /// Units sold per product, in the order of the product ids.
    pub goods: Vec<(ProductId, Quantity)>,
    /// Time from which the invoice can no longer be paid.
    pub expires_at: Timestamp,
    /// Time of capture; `None` while unpaid.
    pub paid_at: Option<Timestamp>,
    /// Number of completed refunds, late payments that were sent back included.
    pub refunds: i64,
    /// Whether completed refunds returned all units to stock.
    pub restocked: bool,
    /// Whether money was or is being refunded because the sale could not be fulfilled.
    pub unkept: bool,
}

/// Counts paid invoices per UTC day, for `mercat check`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CountPaidByDay {}

crate::requests! { crate::messaging::CommonError;
    "payments.ListInvoiceFacts": ListInvoiceFacts => Vec<InvoiceFacts>, read, |_| Access::Internal;
    "payments.CountPaidByDay": CountPaidByDay => Vec<(Timestamp, i64)>, read, |_| Access::Internal;
}

/// Errors of the payments domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum PaymentsError {
    /// The invoice does not exist, or the caller may not see it.
    #[error("there is no such invoice")]
    InvoiceNotFound,
    /// The bank declined the card. The invoice is still open.
    #[error("your card was declined; you have not been charged; try another card")]
    CardDeclined,
    /// The bank requires 3-D Secure, which is not supported. The invoice is still open.
    #[error("your bank requires confirmation (3-D Secure), which this shop does not support; try another card")]
    AuthenticationRequired,
    /// The provider does not accept this amount or currency. An invoice that was to be paid is still open.
    #[error("the payment provider does not accept this amount in this currency; no money was moved")]
    AmountRefused,
    /// The webhook is not signed by the provider, or its signature is too old.
    #[error("the webhook signature is invalid or too old")]
    BadSignature,
    /// The webhook is signed, but its body is malformed.
    #[error("the webhook is signed, but its body is malformed")]
    #[serde(rename = "malformed_webhook")]
    UnreadableWebhook,
    /// The shop's provider has no webhooks, or no webhook secret is configured.
    #[error("webhooks are disabled: payments.stripe_webhook_secrets is not set")]
    NoWebhooks,
    /// The provider does not know the payment token. The invoice is still open.
    #[error("the payment provider does not know this payment token; you have not been charged")]
    UnknownToken,
    /// The invoice is paid or refunded.
    #[error("this invoice is already paid")]
    AlreadyPaid,
    /// The invoice was not paid in time.
    #[error("this invoice has expired and cannot be paid; check out again")]
    InvoiceExpired,
    /// The invoice was voided.
    #[error("this invoice was voided and cannot be paid")]
    InvoiceVoid,
    /// A payment attempt for the invoice is in progress.
    #[error("a payment of this invoice is in progress; check the invoice again in a moment")]
    PaymentInProgress,
    /// The invoice is not paid, so there is nothing to refund.
    #[error("only a paid invoice can be refunded")]
    NotPaid,
    /// The invoice is not open, so it cannot be voided.
    #[error("only an open invoice can be voided; refund a paid one")]
    NotOpen,
    /// The refund exceeds what is left of the captured amount.
    #[error("at most {left} (minor units) of this invoice can still be refunded")]
    RefundTooLarge {
        /// Amount that can still be refunded, in minor units of the invoice's currency.
        left: Amount,
    },
    /// The provider failed; no money was moved, and a retry is safe.
    #[error("the payment provider failed; no money was moved, and it is safe to try again")]
    ProviderFailed,
    /// An error common to all domains.
    #[error(transparent)]
    #[serde(untagged)]
    Common(#[from] CommonError),
}

crate::impl_from_common_errors!(PaymentsError);

impl DomainError for PaymentsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::InvoiceNotFound | Self::NoWebhooks => ErrorKind::NotFound,
            Self::CardDeclined | Self::AuthenticationRequired => ErrorKind::PaymentRequired,
            Self::UnknownToken | Self::AmountRefused => ErrorKind::Invalid,
            Self::BadSignature | Self::UnreadableWebhook => ErrorKind::Malformed,
            Self::AlreadyPaid
            | Self::InvoiceExpired
            | Self::InvoiceVoid
            | Self::PaymentInProgress
            | Self::NotPaid
            | Self::NotOpen
            | Self::RefundTooLarge { .. } => ErrorKind::Conflict,
            Self::ProviderFailed => ErrorKind::Upstream,
            Self::Common(error) => error.kind(),
        }
    }

    fn fields(&self) -> &[FieldError] {
        match self {
            Self::Common(error) => error.fields(),
            _ => &[],
        }
    }
}
