//! Comparison of each invoice with its stock, checkout, e-mails, notification and entry in the action log.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use super::{Candidate, CandidateKey, Checker, REMEDY_MANUAL, call, violation};
use crate::contract::cart::{CheckoutFacts, ListCheckoutFacts};
use crate::contract::catalog::{HoldFacts, ListHoldFacts};
use crate::contract::mailer::{EmailFacts, ListEmailFacts};
use crate::contract::notifications::{AuditPaidNotifications, NotificationFacts};
use crate::contract::payments::{InvoiceFacts, InvoiceStatus};
use crate::contract::stats::{ListOrderFacts, OrderFacts};
use crate::contract::users::FilterExistingUsers;
use crate::messaging::{CommonError, Selection};
use crate::types::{CheckoutId, HoldId, InvoiceId, Timestamp, UserId};

/// Time for which the mailer keeps an e-mail whose recipient has no address yet.
const PENDING_EMAIL_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Facts of the other domains about a page of invoices; vectors have the order of the page.
struct RelatedFacts {
    holds: HashMap<HoldId, HoldFacts>,
    checkouts: HashMap<CheckoutId, CheckoutFacts>,
    users: Option<HashSet<UserId>>,
    emails: Vec<Option<EmailFacts>>,
    notifications: Vec<Option<NotificationFacts>>,
    orders: Option<OrderFacts>,
}

impl Checker<'_> {
    /// Reads what the other domains know about a page of invoices.
    async fn related_facts(&self, page: &[InvoiceFacts]) -> Result<RelatedFacts, CommonError> {
        let mut related = RelatedFacts {
            holds: HashMap::new(),
            checkouts: HashMap::new(),
            users: None,
            emails: vec![None; page.len()],
            notifications: vec![None; page.len()],
            orders: None,
        };
        if self.enabled.contains("catalog") {
            let holds = page.iter().filter_map(|facts| facts.hold).collect();
            let found = call(&self.clients.catalog, ListHoldFacts { which: Selection::These(holds) }).await?;
            related.holds = found.into_iter().map(|facts| (facts.hold, facts)).collect();
        }
        if self.enabled.contains("cart") {
            let checkouts = page.iter().filter_map(|facts| facts.checkout).collect();
            let found = call(&self.clients.cart, ListCheckoutFacts { which: Selection::These(checkouts) }).await?;
            related.checkouts = found.into_iter().map(|facts| (facts.checkout, facts)).collect();
        }
        if self.enabled.contains("users") {
            let users: BTreeSet<UserId> = page.iter().map(|facts| facts.user_id).collect();
            let found = call(&self.clients.users, FilterExistingUsers { users: users.into_iter().collect() }).await?;
            related.users = Some(found.into_iter().collect());
        }
        let invoices: Vec<InvoiceId> = page.iter().map(|facts| facts.id).collect();
        if self.enabled.contains("mailer") {
            let found = call(&self.clients.mailer, ListEmailFacts { invoices: invoices.clone() }).await?;
            related.emails = found.into_iter().map(Some).collect();
        }
        if self.enabled.contains("notifications") {
            let paid = page.iter().map(|facts| (facts.user_id, facts.id)).collect();
            let found = call(&self.clients.notifications, AuditPaidNotifications { paid }).await?;
            related.notifications = found.into_iter().map(Some).collect();
        }
        if self.enabled.contains("stats") {
            // Unpaid invoices are included, at an impossible time, so that the replies have the order of the page.
            let never = Timestamp::from_micros(0);
            let orders = page.iter().map(|facts| (facts.id, facts.paid_at.unwrap_or(never))).collect();
            related.orders = Some(call(&self.clients.stats, ListOrderFacts { orders }).await?);
        }
        Ok(related)
    }

    /// Compares a page of invoices with the other domains.
    pub(super) async fn compare(&self, page: &[InvoiceFacts]) -> Result<Vec<Candidate>, CommonError> {
        let related = self.related_facts(page).await?;
        let now = self.now;
        let mut candidates = Vec::new();
        for (n, facts) in page.iter().enumerate() {
            let mut report = |domain: &str, what: &str, found: String| {
                let found = format!("{} {} is {}{found}", facts.number, facts.id, facts.status.as_str());
                candidates.push((CandidateKey::Invoice(facts.id), violation(domain, what, found, REMEDY_MANUAL)));
            };
            if self.enabled.contains("catalog") {
                check_stock(facts, &related, now, &mut report);
            }
            check_checkout(facts, &related, &mut report);
            let is_known = related.users.as_ref().is_none_or(|users| users.contains(&facts.user_id));
            if let Some(Some(emails)) = related.emails.get(n) {
                check_emails(facts, emails, is_known, now, &mut report);
            }
            if let Some(Some(notified)) = related.notifications.get(n) {
                check_notification(facts, notified, is_known, &mut report);
            }
            if let Some(orders) = &related.orders {
                check_order_log(facts, orders.times.get(n).copied().unwrap_or(0), orders.kept_since, &mut report);
            }
        }
        Ok(candidates)
    }
}

/// Checks the state and the lines of an invoice's hold.
fn check_stock(
    facts: &InvoiceFacts,
    related: &RelatedFacts,
    now: Timestamp,
    report: &mut impl FnMut(&str, &str, String),
) {
    let Some(id) = facts.hold else { return };
    let hold = related.holds.get(&id);
    let state = hold.map_or("missing", |hold| hold.state.as_str());
    let fits = match facts.status {
        // Paid after the stock was gone: the money is refunded.
        InvoiceStatus::Paid | InvoiceStatus::Refunded if facts.unkept => matches!(state, "released" | "missing"),
        // Refunded on request before it was known that the stock was gone.
        InvoiceStatus::Paid | InvoiceStatus::Refunded if facts.restocked => matches!(state, "returned" | "released"),
        InvoiceStatus::Paid => state == "sold",
        InvoiceStatus::Refunded => matches!(state, "sold" | "released"),
        InvoiceStatus::Open if facts.expires_at > now => state == "held",
        InvoiceStatus::Open => matches!(state, "held" | "released"),
        InvoiceStatus::Expired | InvoiceStatus::Void => state == "released",
    };
    if !fits {
        let what = "stock and invoice disagree";
        report(
            "catalog",
            what,
            format!("{}, hold {id} is {state}", if facts.restocked { " and restocked" } else { "" }),
        );
    }
    if let Some(hold) = hold.filter(|hold| !hold.lines.is_empty()) {
        let held: Vec<_> = hold.lines.iter().map(|line| (line.product_id, line.quantity)).collect();
        if held != facts.goods {
            report("catalog", "hold and invoice have different lines", format!(", hold {id}"));
        }
    }
}

/// Checks the state of an invoice's checkout; that of an erased user is gone.
fn check_checkout(facts: &InvoiceFacts, related: &RelatedFacts, report: &mut impl FnMut(&str, &str, String)) {
    let Some(checkout) = facts.checkout.and_then(|id| related.checkouts.get(&id)) else { return };
    let state = checkout.state.as_str();
    let fits = match facts.status {
        InvoiceStatus::Open => matches!(state, "held" | "invoiced"),
        InvoiceStatus::Paid | InvoiceStatus::Refunded => state == "paid",
        InvoiceStatus::Expired | InvoiceStatus::Void => state == "cancelled",
    };
    let same = checkout.invoice_id.is_none_or(|id| id == facts.id);
    if !fits || !same || facts.hold != Some(checkout.hold) {
        report("cart", "checkout and invoice disagree", format!(", checkout {} is {state}", checkout.checkout));
    }
}

/// Checks that a paid order has one receipt and each refund one e-mail. An unknown user has no address.
fn check_emails(
    facts: &InvoiceFacts,
    emails: &EmailFacts,
    is_known: bool,
    now: Timestamp,
    report: &mut impl FnMut(&str, &str, String),
) {
    let due = i64::from(facts.paid_at.is_some() && !facts.imported);
    let has = emails.receipts + emails.waiting;
    let may_be_gone =
        !is_known || (!facts.has_email && facts.paid_at.is_some_and(|at| now.duration_since(at) > PENDING_EMAIL_MAX));
    if has > due || (has < due && !may_be_gone) {
        report("mailer", "paid order must have exactly one receipt", format!(" and has {has}"));
    }
    let due = if facts.imported { 0 } else { facts.refunds };
    if emails.refunds > due || (emails.refunds < due && !may_be_gone) {
        report(
            "mailer",
            "refund must have exactly one e-mail",
            format!(", {due} refunds and {} e-mails", emails.refunds),
        );
    }
}

/// Checks that the buyer was notified of the payment once.
fn check_notification(
    facts: &InvoiceFacts,
    notified: &NotificationFacts,
    is_known: bool,
    report: &mut impl FnMut(&str, &str, String),
) {
    let due = i64::from(facts.paid_at.is_some() && !facts.imported);
    // Later notifications are kept, so this one is too, unless it is as old as the oldest.
    let dropped = notified.kept_since.is_some_and(|since| facts.paid_at.is_none_or(|at| at <= since));
    if notified.times > due || (notified.times < due && is_known && !notified.erased && !dropped) {
        report(
            "notifications",
            "paid order must have exactly one notification",
            format!(" and has {}", notified.times),
        );
    }
}

/// Checks that the order is in the action log once.
fn check_order_log(
    facts: &InvoiceFacts,
    times: i64,
    kept_since: Timestamp,
    report: &mut impl FnMut(&str, &str, String),
) {
    let Some(paid_at) = facts.paid_at else { return };
    if times > 1 || (times == 0 && paid_at > kept_since) {
        report("stats", "paid order must be in the action log once", format!(" and is there {times} times"));
    }
}
