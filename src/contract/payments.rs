//! What payments can be asked, answers and announces.

use serde::{Deserialize, Serialize};

use crate::messaging::{CommonError, DomainError, ErrorKind};
use crate::types::{
    Amount, CheckoutId, Currency, EmailAddress, FieldError, HoldId, InvoiceId, Page, PageRequest, ProductId, Quantity,
    Timestamp, UserId,
};

/// What a buyer owes, owed or got back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invoice {
    /// Which.
    pub id: InvoiceId,
    /// Its number: `INV-000001`, without gaps, never used again.
    pub number: String,
    /// Whose.
    pub user_id: UserId,
    /// How it stands.
    pub status: InvoiceStatus,
    /// What for.
    pub lines: Vec<InvoiceLine>,
    /// What all lines come to, in minor units.
    pub total: Amount,
    /// How much of it went back, in minor units.
    pub refunded: Amount,
    /// Of all amounts.
    pub currency: Currency,
    /// Where its receipt goes, when the buyer said so.
    pub email: Option<EmailAddress>,
    /// Whether the provider was asked for the money and has not answered yet.
    pub processing: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// Until when it can be paid.
    pub expires_at: Timestamp,
    /// When it was paid.
    pub paid_at: Option<Timestamp>,
}

/// How an invoice stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvoiceStatus {
    /// To be paid.
    Open,
    /// Paid.
    Paid,
    /// Nobody paid in time.
    Expired,
    /// Taken back before it was paid.
    Void,
    /// Paid, and all of it went back.
    Refunded,
}

/// One line of an invoice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceLine {
    /// What for, 1 to 300 characters.
    pub description: String,
    /// Which product, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_id: Option<ProductId>,
    /// How many, 1 to 10,000.
    pub quantity: Quantity,
    /// What one costs, in minor units, 0 to 1,000,000,000,000.
    pub unit_price: Amount,
}

/// Makes an invoice.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreateInvoice {
    /// Whose.
    pub user_id: UserId,
    /// What for, 1 to 1,000 lines.
    pub lines: Vec<InvoiceLine>,
    /// Of all amounts.
    pub currency: Currency,
    /// Where its receipt goes, if not to the user's own address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<EmailAddress>,
    /// The stock that is set aside for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldId>,
    /// The checkout it comes from: asked twice for one checkout, there is one invoice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkout: Option<CheckoutId>,
    /// Until when it can be paid; as the shop's settings say when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// Reads an invoice. Another user's is answered as if there were none.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetInvoice {
    /// Which.
    pub invoice_id: InvoiceId,
}

/// Lists invoices, newest first: the caller's own, or for staff everybody's.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListInvoices {
    /// Only this user's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// Only those that stand so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<InvoiceStatus>,
    /// Which page.
    #[serde(flatten)]
    pub page: PageRequest,
}

/// Pays an invoice. Needs an idempotency key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PayInvoice {
    /// Which.
    pub invoice_id: InvoiceId,
    /// What the provider gave the buyer's browser for the card.
    pub token: String,
}

/// Gives money back. Needs an idempotency key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RefundInvoice {
    /// Which.
    pub invoice_id: InvoiceId,
    /// How much, in minor units. When absent: what `lines` cost, or without them all that is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<Amount>,
    /// Whether goods go back on the shelf: those of `lines`, or without them all that have not come back yet, which
    /// goes only with all the money that is left.
    #[serde(default)]
    pub restock: bool,
    /// The goods that come back, a product once, 1 to 1,000 of them; never more of one than was sold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<Vec<ReturnLine>>,
}

/// Goods that come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReturnLine {
    /// Which product.
    pub product_id: ProductId,
    /// How many, at least 1.
    pub quantity: Quantity,
}

/// Hands on what the payment provider told the shop by itself, as it came. Whether it is from the provider is shown by
/// its signature, not by who hands it on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HandleProviderWebhook {
    /// The body, to the byte.
    pub body: String,
    /// The header that signs it.
    pub signature: String,
}

/// Takes an unpaid invoice back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VoidInvoice {
    /// Which.
    pub invoice_id: InvoiceId,
}

/// Writes a paid or otherwise ended order of the past into the books; for the demo shop. It tells nobody by mail
/// and touches no stock.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImportInvoice {
    /// Whose.
    pub user_id: UserId,
    /// What for.
    pub lines: Vec<InvoiceLine>,
    /// Of all amounts.
    pub currency: Currency,
    /// How it ended.
    pub status: InvoiceStatus,
    /// When it was made, and paid if it was.
    pub at: Timestamp,
}

crate::requests! { PaymentsError;
    "payments.CreateInvoice": CreateInvoice => Invoice, once, |_| Access::Admin;
    "payments.GetInvoice": GetInvoice => Invoice, retry, |_| Access::SignedIn;
    "payments.ListInvoices": ListInvoices => Page<Invoice>, retry, |_| Access::SignedIn;
    "payments.PayInvoice": PayInvoice => Invoice, once, |_| Access::SignedIn;
    "payments.RefundInvoice": RefundInvoice => Invoice, once, |_| Access::Admin;
    "payments.HandleProviderWebhook": HandleProviderWebhook => (), retry, |_| Access::Internal;
    "payments.VoidInvoice": VoidInvoice => Invoice, retry, |_| Access::Admin;
    "payments.ImportInvoice": ImportInvoice => Invoice, once, |_| Access::Internal;
}

/// An invoice was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InvoiceCreated {
    /// The invoice as it was made.
    pub invoice: Invoice,
}

/// An invoice was paid: the money is ours.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InvoicePaid {
    /// The invoice as it is now.
    pub invoice: Invoice,
    /// The stock that was set aside for it.
    pub hold: Option<HoldId>,
    /// The checkout it comes from.
    pub checkout: Option<CheckoutId>,
    /// Whether it is an order of the past, told for the statistics alone.
    #[serde(default)]
    pub past: bool,
}

/// A try to pay failed; the invoice is still open.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PaymentFailed {
    /// Which invoice.
    pub invoice_id: InvoiceId,
    /// Its number.
    pub number: String,
    /// Whose.
    pub user_id: UserId,
    /// Why, in a stable word such as `card_declined`.
    pub reason: String,
}

/// Nobody paid in time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InvoiceExpired {
    /// Which invoice.
    pub invoice_id: InvoiceId,
    /// Its number.
    pub number: String,
    /// Whose.
    pub user_id: UserId,
    /// The stock that was set aside for it.
    pub hold: Option<HoldId>,
    /// The checkout it comes from.
    pub checkout: Option<CheckoutId>,
}

/// An unpaid invoice was taken back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InvoiceVoided {
    /// Which invoice.
    pub invoice_id: InvoiceId,
    /// Its number.
    pub number: String,
    /// Whose.
    pub user_id: UserId,
    /// The stock that was set aside for it.
    pub hold: Option<HoldId>,
    /// The checkout it comes from.
    pub checkout: Option<CheckoutId>,
}

/// Why money goes back: somebody asked.
pub const REQUESTED: &str = "requested";
/// Why money goes back: the sale could not be kept.
pub const OUT_OF_STOCK: &str = "out_of_stock";
/// Why money goes back: it came for an invoice that could not take it any more, so that it never counted as paid.
pub const LATE_PAYMENT: &str = "late_payment";

/// Money went back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InvoiceRefunded {
    /// The invoice as it is now.
    pub invoice: Invoice,
    /// How much went back this time, in minor units.
    pub amount: Amount,
    /// Whether the goods go back on the shelf.
    pub restock: bool,
    /// Which goods; all that have not come back yet when none are named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<ReturnLine>,
    /// The stock that was sold by it.
    pub hold: Option<HoldId>,
    /// Why, in a stable word: [`REQUESTED`], [`OUT_OF_STOCK`] or [`LATE_PAYMENT`].
    pub reason: String,
    /// Whether it is an order of the past, told for the statistics alone.
    #[serde(default)]
    pub past: bool,
}

crate::events! {
    "payments.invoice_created": InvoiceCreated;
    "payments.invoice_paid": InvoicePaid;
    "payments.payment_failed": PaymentFailed;
    "payments.invoice_expired": InvoiceExpired;
    "payments.invoice_voided": InvoiceVoided;
    "payments.invoice_refunded": InvoiceRefunded;
}

/// Tells facts about invoices. For `mercat check`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListInvoiceFacts {
    /// About which.
    pub which: InvoiceSelection,
}

/// Which invoices facts are wanted of.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvoiceSelection {
    /// The next 500 in the order of their ids.
    After(Option<InvoiceId>),
    /// These, at most 500; those that do not exist are left out.
    These(Vec<InvoiceId>),
    /// Those for which this stock was set aside, at most 500. Looks at all there are.
    OfHolds(Vec<HoldId>),
}

/// What must agree with the books of others about an invoice.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InvoiceFacts {
    /// Which.
    pub id: InvoiceId,
    /// Its number.
    pub number: String,
    /// Whose.
    pub user_id: UserId,
    /// How it stands.
    pub status: InvoiceStatus,
    /// Whether it is an order of the past, written into the books.
    pub past: bool,
    /// Whether it says where its receipt goes.
    pub has_email: bool,
    /// The stock set aside for it.
    pub hold: Option<HoldId>,
    /// The checkout it comes from.
    pub checkout: Option<CheckoutId>,
    /// How many of which products, in the order of their ids.
    pub goods: Vec<(ProductId, Quantity)>,
    /// Until when it can or could be paid.
    pub expires_at: Timestamp,
    /// When it was paid.
    pub paid_at: Option<Timestamp>,
    /// How many refunds are done.
    pub refunds: i64,
    /// Whether all goods came back with them.
    pub restocked: bool,
    /// Whether its money went or goes back because the sale could not be kept.
    pub unkept: bool,
}

/// Counts the paid invoices of each day of UTC. For `mercat check`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CountPaidByDay {}

crate::requests! { crate::messaging::CommonError;
    "payments.ListInvoiceFacts": ListInvoiceFacts => Vec<InvoiceFacts>, retry, |_| Access::Internal;
    "payments.CountPaidByDay": CountPaidByDay => Vec<(Timestamp, i64)>, retry, |_| Access::Internal;
}

/// An error of payments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum PaymentsError {
    /// No such invoice, or not for the caller.
    #[error("there is no such invoice")]
    InvoiceNotFound,
    /// The provider says no. The invoice is still open.
    #[error("the card was declined; the invoice is still open, try another card")]
    CardDeclined,
    /// The buyer's bank wants to hear from the buyer first. The invoice is still open.
    #[error("the card's bank asks its owner to confirm payments, which this shop cannot do; try another card")]
    AuthenticationRequired,
    /// The provider cannot move so much, so little, or this currency. The invoice is still open.
    #[error("the payment provider cannot move this amount in this currency; nothing was moved")]
    AmountRefused,
    /// What is said to come from the provider does not.
    #[error("the signature is not the provider's for this body, or it is too old")]
    BadSignature,
    /// What comes from the provider cannot be read.
    #[error("the message is signed, but it cannot be read")]
    UnreadableNews,
    /// The provider of this shop tells nothing by itself, or has no secret to sign with.
    #[error("this shop hears of no provider here: it takes no messages without payments.stripe_webhook_secrets")]
    NoWebhooks,
    /// The provider does not know the token. The invoice is still open.
    #[error("the payment token is not one the provider knows; nothing was charged")]
    UnknownToken,
    /// It was paid before.
    #[error("this invoice is paid already")]
    AlreadyPaid,
    /// It ran out.
    #[error("this invoice has expired and cannot be paid; check out again")]
    InvoiceExpired,
    /// It was taken back.
    #[error("this invoice was voided and cannot be paid")]
    InvoiceVoid,
    /// A payment of it is under way.
    #[error("a payment of this invoice is under way; look at the invoice in a moment")]
    PaymentInProgress,
    /// Only a paid invoice can be refunded.
    #[error("only a paid invoice can be refunded")]
    NotPaid,
    /// Only an open invoice can be voided.
    #[error("only an open invoice can be voided; refund a paid one")]
    NotOpen,
    /// More than is left of what was taken.
    #[error("at most {left} (minor units) of this invoice can still be refunded")]
    RefundTooLarge {
        /// How much is left, in minor units.
        left: Amount,
    },
    /// The provider failed. It is safe to try again.
    #[error("the payment provider failed; nothing is lost, it is safe to try again")]
    ProviderFailed,
    /// What can happen to any request.
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
            Self::BadSignature | Self::UnreadableNews => ErrorKind::Malformed,
            Self::AlreadyPaid
            | Self::InvoiceExpired
            | Self::InvoiceVoid
            | Self::PaymentInProgress
            | Self::NotPaid
            | Self::NotOpen
            | Self::RefundTooLarge { .. } => ErrorKind::Conflict,
            Self::ProviderFailed => ErrorKind::Upstream,
            Self::Common(failure) => failure.kind(),
        }
    }

    fn fields(&self) -> &[FieldError] {
        match self {
            Self::Common(failure) => failure.fields(),
            _ => &[],
        }
    }
}
