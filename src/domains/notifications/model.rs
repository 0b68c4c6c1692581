//! Projection of events into notifications and pushes: texts for users, topics for live sessions. No clock, no SQL.

use serde::Serialize;
use serde_json::{Value, json};
use time::macros::format_description;

use super::Push;
use crate::contract::cart::CartStarted;
use crate::contract::catalog::{BackInStock, LowStock, ProductChanged};
use crate::contract::comments::CommentAdded;
use crate::contract::mailer::{DeliveryStalled, EmailChanged, EmailFailed};
use crate::contract::payments::{
    Invoice, InvoiceCreated, InvoiceExpired, InvoicePaid, InvoiceRefunded, InvoiceVoided, LATE_PAYMENT, OUT_OF_STOCK,
    PaymentDisputed, PaymentFailed,
};
use crate::contract::users::{AccessChanged, UserErased, UserRegistered};
use crate::messaging::CommonError;
use crate::types::{NotificationId, Timestamp, UserId};

/// Topic of changes to any product.
const CATALOG: &str = "catalog";
/// Topic of orders, for administrators.
const ORDERS: &str = "orders";
/// Topic of statistics, for administrators.
const STATS: &str = "stats";
/// Topic of emails, for administrators.
const EMAILS: &str = "emails";
/// Lines of an order that its notification for staff names.
const LINES_SHOWN: usize = 3;

/// A notification before it has its place in a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct NewNotification {
    /// Machine-readable kind.
    pub kind: &'static str,
    /// Headline in English.
    pub title: String,
    /// One or two sentences in English.
    pub body: String,
    /// Values of the event for programs.
    pub data: Value,
}

/// A notification for all staff who follow the shop.
#[derive(Debug, Clone, PartialEq)]
pub struct StaffNotification {
    /// The notification.
    pub new: NewNotification,
    /// Whether it shows e-mails, which not all staff may see.
    pub is_of_email: bool,
}

/// Effects of an event on this domain.
#[derive(Debug, Default, PartialEq)]
pub struct EventProjection {
    /// User and notification to append to their stream.
    pub notification: Option<(UserId, NewNotification)>,
    /// Notification for the staff who follow the shop.
    pub for_staff: Option<StaffNotification>,
    /// User whose rights changed and who follows the shop no longer, until they look with the new ones.
    pub unfollowed: Option<UserId>,
    /// User whose stream is deleted.
    pub erased: Option<UserId>,
    /// Pushes to broadcast after the commit.
    pub pushes: Vec<Push>,
}

impl EventProjection {
    fn notify(mut self, user: UserId, kind: &'static str, title: String, body: String, data: Value) -> Self {
        self.notification = Some((user, NewNotification { kind, title, body, data }));
        self
    }

    fn notify_staff(mut self, kind: &'static str, title: String, body: String, data: Value) -> Self {
        let new = NewNotification { kind, title, body, data };
        self.for_staff = Some(StaffNotification { new, is_of_email: false });
        self
    }

    fn notify_mail_staff(self, kind: &'static str, title: String, body: String, data: Value) -> Self {
        let mut projection = self.notify_staff(kind, title, body, data);
        projection.for_staff.iter_mut().for_each(|notification| notification.is_of_email = true);
        projection
    }

    fn broadcast(mut self, topic: impl Into<String>, kind: &str, data: &Value) -> Self {
        self.pushes.push(Push::Event { topic: topic.into(), kind: kind.to_owned(), data: data.clone() });
        self
    }

    /// Announces changed statistics. The push carries only the cause: the client reads them again.
    fn broadcast_stats(self, cause: &str) -> Self {
        self.broadcast(STATS, "stats_changed", &json!({ "cause": cause }))
    }

    /// Announces an order's change, which changes the statistics too.
    fn broadcast_order(self, kind: &str, data: &Value) -> Self {
        self.broadcast(ORDERS, kind, data).broadcast_stats(kind)
    }
}

crate::event_handlers! {
    /// Projects an event to a notification, an erasure and live pushes.
    ///
    /// # Errors
    /// `Internal` when the data are not those of the event's type.
    pub fn project() -> Result<EventProjection, CommonError>;
    UserRegistered => registered,
    UserErased => erased,
    AccessChanged => access_changed,
    InvoiceCreated => created,
    InvoicePaid => paid,
    PaymentFailed => failed,
    InvoiceExpired => expired,
    InvoiceVoided => voided,
    InvoiceRefunded => refunded,
    PaymentDisputed => disputed,
    ProductChanged => product_changed,
    BackInStock => back_in_stock,
    LowStock => low_stock,
    CommentAdded => comment_added,
    CartStarted => cart_started,
    EmailChanged => email_changed,
    EmailFailed => email_failed,
    DeliveryStalled => delivery_stalled,
}

type ProjectionResult = Result<EventProjection, CommonError>;

fn value(event: &impl Serialize) -> Result<Value, CommonError> {
    serde_json::to_value(event).map_err(|error| {
        log::error!("notifications: encoding failed: {error}");
        CommonError::Internal
    })
}

/// Summarizes an invoice for programs.
fn invoice_summary(invoice: &Invoice) -> Result<Value, CommonError> {
    Ok(json!({
        "invoice_id": invoice.id,
        "number": invoice.number,
        "status": value(&invoice.status)?,
        "total": invoice.total,
        "currency": invoice.currency,
    }))
}

/// Formats a time to the minute, in UTC.
fn format_minute(at: Timestamp) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    at.to_utc().format(format).unwrap_or_else(|_| at.to_string())
}

/// Push that tells the other sessions of a user that a notification was read.
pub fn read_event(user_id: UserId, id: NotificationId) -> Push {
    Push::UserEvent { user_id, kind: "notification_read".to_owned(), data: json!({ "id": id }) }
}

fn registered(event: UserRegistered) -> ProjectionResult {
    let body = "Your account is ready. Updates about your orders will appear here.".to_owned();
    let title = if event.name.is_empty() { "Welcome!".to_owned() } else { format!("Welcome, {}!", event.name) };
    let data = json!({ "user_id": event.user_id });
    Ok(EventProjection::default()
        .notify(event.user_id, "user_registered", title, body, data)
        .broadcast_stats("user_registered"))
}

fn erased(event: UserErased) -> ProjectionResult {
    let push = Push::AccessChanged { user_id: event.user_id, session_id: None };
    Ok(EventProjection { erased: Some(event.user_id), pushes: vec![push], ..EventProjection::default() })
}

fn access_changed(event: AccessChanged) -> ProjectionResult {
    let push = Push::AccessChanged { user_id: event.user_id, session_id: event.session_id };
    // The end of one session changes no rights.
    let unfollowed = event.session_id.is_none().then_some(event.user_id);
    Ok(EventProjection { unfollowed, pushes: vec![push], ..EventProjection::default() })
}

fn created(InvoiceCreated { invoice }: InvoiceCreated) -> ProjectionResult {
    let (kind, total) = ("invoice_created", invoice.currency.format(invoice.total));
    let mut data = invoice_summary(&invoice)?;
    data["expires_at"] = value(&invoice.expires_at)?;
    let title = format!("Invoice {} is ready", invoice.number);
    let body = format!("{total} is to be paid by {}.", format_minute(invoice.expires_at));
    Ok(EventProjection::default()
        .notify(invoice.user_id, kind, title, body, data)
        .broadcast_order(kind, &value(&invoice)?))
}

fn paid(InvoicePaid { invoice, imported, .. }: InvoicePaid) -> ProjectionResult {
    if imported {
        return Ok(EventProjection::default());
    }
    let (kind, total) = ("invoice_paid", invoice.currency.format(invoice.total));
    let mut data = invoice_summary(&invoice)?;
    data["paid_at"] = value(&invoice.paid_at)?;
    let title = "Thank you for your order".to_owned();
    let body = format!("We received {total} for invoice {}.", invoice.number);
    let order = format!("New order {}: {total}", invoice.number);
    Ok(EventProjection::default()
        .notify(invoice.user_id, kind, title, body, data.clone())
        .notify_staff("order_placed", order, ordered_lines(&invoice), data)
        .broadcast_order(kind, &value(&invoice)?))
}

/// The first lines of an order, as text.
fn ordered_lines(invoice: &Invoice) -> String {
    let shown = invoice.lines.iter().take(LINES_SHOWN).map(|line| format!("{} × {}", line.quantity, line.description));
    let mut lines = shown.collect::<Vec<_>>().join(", ");
    if invoice.lines.len() > LINES_SHOWN {
        lines.push_str(&format!(", and {} more", invoice.lines.len() - LINES_SHOWN));
    }
    lines
}

fn failed(event: PaymentFailed) -> ProjectionResult {
    let kind = "payment_failed";
    let reason = match event.reason.as_str() {
        "card_declined" => "The card was declined",
        "authentication_required" => "The card's bank wanted you to confirm the payment, which is not possible here",
        _ => "The payment did not go through",
    };
    let title = "Your payment failed".to_owned();
    let body = format!("{reason}. Invoice {} is still open: you can try again.", event.number);
    let data = json!({ "invoice_id": event.invoice_id, "number": event.number, "reason": event.reason });
    let order = json!({
        "id": event.invoice_id, "number": event.number, "user_id": event.user_id, "status": "open", "reason": event.reason
    });
    Ok(EventProjection::default().notify(event.user_id, kind, title, body, data).broadcast_order(kind, &order))
}

fn expired(event: InvoiceExpired) -> ProjectionResult {
    let kind = "invoice_expired";
    let title = format!("Invoice {} has expired", event.number);
    let body = "It was not paid in time, so nothing was bought. You can order again whenever you like.".to_owned();
    let data = json!({ "invoice_id": event.invoice_id, "number": event.number });
    let order =
        json!({ "id": event.invoice_id, "number": event.number, "user_id": event.user_id, "status": "expired" });
    Ok(EventProjection::default().notify(event.user_id, kind, title, body, data).broadcast_order(kind, &order))
}

/// Announced to administrators only: the customer or administrator who voided it knows already.
fn voided(event: InvoiceVoided) -> ProjectionResult {
    let order = json!({ "id": event.invoice_id, "number": event.number, "user_id": event.user_id, "status": "void" });
    Ok(EventProjection::default().broadcast_order("invoice_voided", &order))
}

fn refunded(event: InvoiceRefunded) -> ProjectionResult {
    if event.imported {
        return Ok(EventProjection::default());
    }
    let (kind, invoice) = ("invoice_refunded", &event.invoice);
    let amount = invoice.currency.format(event.amount);
    let mut data = invoice_summary(invoice)?;
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
    Ok(EventProjection::default()
        .notify(invoice.user_id, kind, title, body, data)
        .broadcast_order(kind, &value(invoice)?))
}

fn disputed(event: PaymentDisputed) -> ProjectionResult {
    let mut data = value(&event.invoice)?;
    data["dispute_amount"] = json!(event.amount);
    data["dispute_reason"] = json!(event.reason);
    data["respond_by"] = json!(event.respond_by);
    let title = format!("The payment of order {} is disputed", event.invoice.number);
    let body = "Respond in your payment provider's dashboard.".to_owned();
    let summary = invoice_summary(&event.invoice)?;
    Ok(EventProjection::default().notify_staff("payment_disputed", title, body, summary).broadcast(
        ORDERS,
        "payment_disputed",
        &data,
    ))
}

fn product_changed(event: ProductChanged) -> ProjectionResult {
    let (kind, data) = ("product_changed", value(&event)?);
    Ok(EventProjection::default()
        .broadcast(format!("product:{}", event.product_id), kind, &data)
        .broadcast(CATALOG, kind, &data))
}

fn back_in_stock(event: BackInStock) -> ProjectionResult {
    let (kind, data) = ("back_in_stock", value(&event)?);
    Ok(EventProjection::default()
        .broadcast(format!("product:{}", event.product_id), kind, &data)
        .broadcast(CATALOG, kind, &data))
}

fn low_stock(event: LowStock) -> ProjectionResult {
    let title = if event.stock > 0 {
        format!("{}: {} left", event.name, event.stock)
    } else {
        format!("{} is sold out", event.name)
    };
    let data = value(&event)?;
    Ok(EventProjection::default()
        .notify_staff("low_stock", title, format!("SKU {}", event.sku), data.clone())
        .broadcast(STATS, "low_stock", &data))
}

fn comment_added(CommentAdded { comment }: CommentAdded) -> ProjectionResult {
    Ok(EventProjection::default().broadcast(
        format!("comments:{}", comment.product_id),
        "comment_added",
        &value(&comment)?,
    ))
}

fn cart_started(_: CartStarted) -> ProjectionResult {
    Ok(EventProjection::default().broadcast_stats("cart_started"))
}

fn email_changed(event: EmailChanged) -> ProjectionResult {
    Ok(EventProjection::default().broadcast(EMAILS, "email_changed", &value(&event)?))
}

fn email_failed(event: EmailFailed) -> ProjectionResult {
    let title = format!("An e-mail to {} could not be delivered", event.to);
    let data = value(&event)?;
    Ok(EventProjection::default().notify_mail_staff("email_failed", title, event.subject, data.clone()).broadcast(
        EMAILS,
        "email_failed",
        &data,
    ))
}

fn delivery_stalled(event: DeliveryStalled) -> ProjectionResult {
    let title = "E-mails are not being delivered".to_owned();
    let body = format!("{} wait since {}. See the page of e-mails.", event.queued, format_minute(event.since));
    let data = value(&event)?;
    Ok(EventProjection::default().notify_mail_staff("delivery_stalled", title, body, data.clone()).broadcast(
        EMAILS,
        "delivery_stalled",
        &data,
    ))
}
