//! What an event means for people: the words of a user's notification, and the live topics it goes out on.
//! No clock, no SQL.

use serde::Serialize;
use serde_json::{Value, json};
use time::macros::format_description;

use super::Push;
use crate::contract::cart::CartStarted;
use crate::contract::catalog::{BackInStock, LowStock, ProductChanged};
use crate::contract::comments::CommentAdded;
use crate::contract::mailer::{EmailChanged, EmailFailed};
use crate::contract::payments::{
    Invoice, InvoiceCreated, InvoiceExpired, InvoicePaid, InvoiceRefunded, InvoiceVoided, LATE_PAYMENT, OUT_OF_STOCK,
    PaymentFailed,
};
use crate::contract::users::{AccessChanged, UserErased, UserRegistered};
use crate::messaging::{Event, EventEnvelope};
use crate::types::{Timestamp, UserId};

/// The topic of everything for sale.
const CATALOG: &str = "catalog";
/// The staff's topic of orders.
const ORDERS: &str = "orders";
/// The staff's topic of figures.
const STATS: &str = "stats";
/// The staff's topic of mails.
const EMAILS: &str = "emails";

/// What a user is told.
#[derive(Debug, Clone, PartialEq)]
pub struct NewNotification {
    /// A stable word for programs.
    pub kind: &'static str,
    /// In a few words.
    pub title: String,
    /// In a sentence.
    pub body: String,
    /// For programs.
    pub data: Value,
}

/// What an event is to this domain.
#[derive(Debug, Default, PartialEq)]
pub struct EventProjection {
    /// Who is told what, for good.
    pub told: Option<(UserId, NewNotification)>,
    /// Whose stream goes.
    pub erased: Option<UserId>,
    /// What goes out live.
    pub live: Vec<Push>,
}

impl EventProjection {
    fn tell(mut self, user: UserId, kind: &'static str, title: String, body: String, data: Value) -> Self {
        self.told = Some((user, NewNotification { kind, title, body, data }));
        self
    }

    fn show(mut self, topic: impl Into<String>, kind: &str, data: &Value) -> Self {
        self.live.push(Push::Event { topic: topic.into(), kind: kind.to_owned(), data: data.clone() });
        self
    }

    /// For the staff's figures, which are read anew: what changed says only that something did.
    fn figures_changed(self, cause: &str) -> Self {
        self.show(STATS, "stats_changed", &json!({ "cause": cause }))
    }

    /// For the staff who watch orders.
    fn order(self, kind: &str, data: &Value) -> Self {
        self.show(ORDERS, kind, data).figures_changed(kind)
    }
}

/// What `event` means; nothing for an event this domain does not know.
///
/// # Errors
/// When the event's name is known and its data are not.
pub fn meaning(event: &EventEnvelope) -> Result<EventProjection, serde_json::Error> {
    macro_rules! match_event {
        ($($event:ty => $meaning:path,)+) => {
            match event.name.as_str() {
                $(<$event as Event>::NAME => event.decode::<$event>()?.map($meaning).transpose(),)+
                _ => return Ok(EventProjection::default()),
            }
        };
    }
    let meaning = match_event! {
        UserRegistered => registered,
        UserErased => erased,
        AccessChanged => access_changed,
        InvoiceCreated => created,
        InvoicePaid => paid,
        PaymentFailed => failed,
        InvoiceExpired => expired,
        InvoiceVoided => voided,
        InvoiceRefunded => refunded,
        ProductChanged => product_changed,
        BackInStock => back_in_stock,
        LowStock => low_stock,
        CommentAdded => comment_added,
        CartStarted => cart_started,
        EmailChanged => email_changed,
        EmailFailed => email_failed,
    };
    Ok(meaning?.unwrap_or_default())
}

type ProjectionResult = Result<EventProjection, serde_json::Error>;

fn value(event: &impl Serialize) -> Result<Value, serde_json::Error> {
    serde_json::to_value(event)
}

/// What programs need of an invoice to show it or to ask for it.
fn brief(invoice: &Invoice) -> Result<Value, serde_json::Error> {
    Ok(json!({
        "invoice_id": invoice.id,
        "number": invoice.number,
        "status": value(&invoice.status)?,
        "total": invoice.total,
        "currency": invoice.currency,
    }))
}

/// A time as people read it.
fn minute(at: Timestamp) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    at.to_utc().format(format).unwrap_or_else(|_| at.to_string())
}

fn registered(event: UserRegistered) -> ProjectionResult {
    let body = "Your account is ready. What happens with your orders is told here.".to_owned();
    let title = if event.name.is_empty() { "Welcome!".to_owned() } else { format!("Welcome, {}!", event.name) };
    let data = json!({ "user_id": event.user_id });
    Ok(EventProjection::default()
        .tell(event.user_id, "user_registered", title, body, data)
        .figures_changed("user_registered"))
}

fn erased(event: UserErased) -> ProjectionResult {
    let gone = Push::AccessChanged { user_id: event.user_id, session_id: None };
    Ok(EventProjection { erased: Some(event.user_id), live: vec![gone], told: None })
}

fn access_changed(event: AccessChanged) -> ProjectionResult {
    let changed = Push::AccessChanged { user_id: event.user_id, session_id: event.session_id };
    Ok(EventProjection { live: vec![changed], ..EventProjection::default() })
}

fn created(InvoiceCreated { invoice }: InvoiceCreated) -> ProjectionResult {
    let (kind, total) = ("invoice_created", invoice.currency.format(invoice.total));
    let mut data = brief(&invoice)?;
    data["expires_at"] = value(&invoice.expires_at)?;
    let title = format!("Invoice {} is ready", invoice.number);
    let body = format!("{total} is to be paid by {}.", minute(invoice.expires_at));
    Ok(EventProjection::default().tell(invoice.user_id, kind, title, body, data).order(kind, &value(&invoice)?))
}

fn paid(InvoicePaid { invoice, imported, .. }: InvoicePaid) -> ProjectionResult {
    if imported {
        return Ok(EventProjection::default());
    }
    let (kind, total) = ("invoice_paid", invoice.currency.format(invoice.total));
    let mut data = brief(&invoice)?;
    data["paid_at"] = value(&invoice.paid_at)?;
    let title = "Thank you for your order".to_owned();
    let body = format!("We received {total} for invoice {}.", invoice.number);
    Ok(EventProjection::default().tell(invoice.user_id, kind, title, body, data).order(kind, &value(&invoice)?))
}

fn failed(event: PaymentFailed) -> ProjectionResult {
    let kind = "payment_failed";
    let why = match event.reason.as_str() {
        "card_declined" => "The card was declined",
        "authentication_required" => "The card's bank wanted you to confirm the payment, which is not possible here",
        _ => "The payment did not go through",
    };
    let title = "Your payment failed".to_owned();
    let body = format!("{why}. Invoice {} is still open: you can try again.", event.number);
    let data = json!({ "invoice_id": event.invoice_id, "number": event.number, "reason": event.reason });
    let seen = json!({
        "id": event.invoice_id, "number": event.number, "user_id": event.user_id, "status": "open", "reason": event.reason
    });
    Ok(EventProjection::default().tell(event.user_id, kind, title, body, data).order(kind, &seen))
}

fn expired(event: InvoiceExpired) -> ProjectionResult {
    let kind = "invoice_expired";
    let title = format!("Invoice {} has expired", event.number);
    let body = "It was not paid in time, so nothing was bought. You can order again whenever you like.".to_owned();
    let data = json!({ "invoice_id": event.invoice_id, "number": event.number });
    let seen = json!({ "id": event.invoice_id, "number": event.number, "user_id": event.user_id, "status": "expired" });
    Ok(EventProjection::default().tell(event.user_id, kind, title, body, data).order(kind, &seen))
}

/// Staff see it; the buyer or the staff member who did it knows already.
fn voided(event: InvoiceVoided) -> ProjectionResult {
    let seen = json!({ "id": event.invoice_id, "number": event.number, "user_id": event.user_id, "status": "void" });
    Ok(EventProjection::default().order("invoice_voided", &seen))
}

fn refunded(event: InvoiceRefunded) -> ProjectionResult {
    if event.imported {
        return Ok(EventProjection::default());
    }
    let (kind, invoice) = ("invoice_refunded", &event.invoice);
    let amount = invoice.currency.format(event.amount);
    let mut data = brief(invoice)?;
    data["amount"] = json!(event.amount);
    data["refunded"] = json!(invoice.refunded);
    data["reason"] = json!(event.reason);
    let title = format!("{amount} is on its way back to you");
    let body = match event.reason.as_str() {
        OUT_OF_STOCK => format!(
            "We are sorry: what you ordered with invoice {} was sold out before your payment came. \
             We are sending {amount} back.",
            invoice.number
        ),
        LATE_PAYMENT => format!(
            "Your payment came when invoice {} could not be paid any more. We are sending all of it back.",
            invoice.number
        ),
        _ => format!("We are sending {amount} of invoice {} back.", invoice.number),
    };
    Ok(EventProjection::default().tell(invoice.user_id, kind, title, body, data).order(kind, &value(invoice)?))
}

fn product_changed(event: ProductChanged) -> ProjectionResult {
    let (kind, data) = ("product_changed", value(&event)?);
    Ok(EventProjection::default().show(format!("product:{}", event.product_id), kind, &data).show(CATALOG, kind, &data))
}

fn back_in_stock(event: BackInStock) -> ProjectionResult {
    let (kind, data) = ("back_in_stock", value(&event)?);
    Ok(EventProjection::default().show(format!("product:{}", event.product_id), kind, &data).show(CATALOG, kind, &data))
}

fn low_stock(event: LowStock) -> ProjectionResult {
    Ok(EventProjection::default().show(STATS, "low_stock", &value(&event)?))
}

fn comment_added(CommentAdded { comment }: CommentAdded) -> ProjectionResult {
    Ok(EventProjection::default().show(format!("comments:{}", comment.product_id), "comment_added", &value(&comment)?))
}

fn cart_started(_: CartStarted) -> ProjectionResult {
    Ok(EventProjection::default().figures_changed("cart_started"))
}

fn email_changed(event: EmailChanged) -> ProjectionResult {
    Ok(EventProjection::default().show(EMAILS, "email_changed", &value(&event)?))
}

fn email_failed(event: EmailFailed) -> ProjectionResult {
    Ok(EventProjection::default().show(EMAILS, "email_failed", &value(&event)?))
}
