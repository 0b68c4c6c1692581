//! Checker: reads all books and reports every promise that is broken.
//!
//! Lives here: what the domains' books must say of each other, such as one receipt for each paid invoice. Never
//! enters: SQL, what a domain must find in its own books (each domain answers [`CheckInvariants`] for that), any repair.
//! Asks: every domain, by messages alone. Changes nothing.
//!
//! **Beside a running shop.** The domains are read one after the other while the shop goes on, and news travels between
//! them after it has happened. So what two domains disagree on is only a suspicion at first: it is looked at again once
//! everything that had happened by then has been heard, and told only if it is still there each time.
//!
//! **A shop of any size.** Things are read by pages; of a million sold holds their numbers are remembered, 16 bytes each.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use actix::{Actor, Context, Handler};
use tokio::time::Instant;

use crate::app::{self, Clients};
use crate::contract::cart::{CheckoutFacts, ListCheckoutFacts};
use crate::contract::catalog::{GetRatings, HoldFacts, ListHoldFacts, RatingFacts};
use crate::contract::comments::ListRatingFacts;
use crate::contract::mailer::{EmailFacts, ListEmailFacts};
use crate::contract::notifications::{AuditPaidNotifications, NotificationFacts};
use crate::contract::payments::{CountPaidByDay, InvoiceFacts, InvoiceSelection, InvoiceStatus, ListInvoiceFacts};
use crate::contract::stats::{CountOrders, ListOrderFacts, OrderFacts};
use crate::contract::users::FilterExistingUsers;
use crate::messaging::{
    CheckInvariants, Client, CommonError, Envelope, FACTS_PAGE_SIZE, HealthStatus, InvariantReport, Request,
    RequestContext, Selection,
};
use crate::types::{HoldId, InvoiceId, ProductId, Timestamp, UserId};

pub use crate::messaging::Violation;

#[cfg(test)]
mod tests;

/// How long one answer may take: a domain reads all of a large database for it.
const CALL_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// How long news may take from one domain to another before that is a fault itself.
const PROPAGATION_MAX: Duration = Duration::from_secs(30);
/// How often a suspicion is looked at again.
const RECHECKS: u32 = 3;
/// How long between two looks.
const RECHECK_PAUSE: Duration = Duration::from_millis(300);
/// How many suspicions are followed up. Where there are more, the first ones tell enough.
const CANDIDATES_MAX: usize = 1_000;
/// How long the mailer keeps a letter that has no address.
const PENDING_EMAIL_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long after its end a hold may still be held: the catalog looks every two seconds.
const HOLD_GRACE: Duration = Duration::from_secs(60);

const REMEDY_EVENTS: &str = "look for events set aside and at the shop's log; report it as a bug";
const REMEDY_MANUAL: &str = "look at the invoice in the back office and put it right by hand; report it as a bug";

/// What was looked at and what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong.
    pub faults: Vec<Violation>,
    /// How many of what were looked at.
    pub looked_at: BTreeMap<String, i64>,
}

/// What a suspicion is about: by this it is looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum CandidateKey {
    Invoice(InvoiceId),
    Hold(HoldId),
    Rating(ProductId),
    Days,
}

/// Looks at all books of the domains that are switched on.
///
/// # Errors
/// When a domain cannot be asked or cannot read its database. What is wrong with the books is in the report.
pub async fn run(clients: &Clients) -> Result<Report, CommonError> {
    let mut check = Checker { clients, on: switched_on(clients), now: Timestamp::from_micros(0) };
    let mut report = Report::default();
    for (_, audited) in check.audit(true).await? {
        check.now = check.now.max(audited.now);
        report.faults.extend(audited.faults);
        report.looked_at.extend(audited.looked_at);
    }
    let mut suspects = check.all().await?;
    for _ in 0..RECHECKS {
        if suspects.is_empty() {
            break;
        }
        let late = check.settled().await?;
        if !late.is_empty() {
            // Nobody can say what is missing while it is on its way.
            report.faults.extend(late);
            return Ok(report);
        }
        suspects = check.again(suspects.into_iter().map(|(subject, _)| subject).collect()).await?;
        tokio::time::sleep(RECHECK_PAUSE).await;
    }
    report.faults.extend(suspects.into_iter().map(|(_, fault)| fault));
    Ok(report)
}

fn switched_on(clients: &Clients) -> HashSet<&'static str> {
    let on = |(name, health): (_, crate::messaging::Health)| (health.status != HealthStatus::Off).then_some(name);
    clients.health().into_iter().filter_map(on).collect()
}

fn ctx() -> RequestContext {
    RequestContext::internal("check").with_timeout(CALL_TIMEOUT)
}

/// Asks a domain. What is asked here can fail only as everything can.
async fn ask<A, R>(client: &Client<A>, request: R) -> Result<R::Reply, CommonError>
where
    A: Actor<Context = Context<A>> + Handler<Envelope<R>>,
    R: Request<Error = CommonError>,
{
    client.call(ctx(), request).await
}

fn fault(domain: &str, what: &str, found: String, remedy: &str) -> Violation {
    Violation { domain: domain.to_owned(), what: what.to_owned(), found, remedy: remedy.to_owned() }
}

struct Checker<'a> {
    clients: &'a Clients,
    on: HashSet<&'static str>,
    /// The time, as the domains see it.
    now: Timestamp,
}

type Candidate = (CandidateKey, Violation);

/// What the others' books say of a page of invoices.
struct RelatedFacts {
    holds: HashMap<HoldId, HoldFacts>,
    checkouts: HashMap<crate::types::CheckoutId, CheckoutFacts>,
    users: Option<HashSet<UserId>>,
    letters: Vec<Option<EmailFacts>>,
    told: Vec<Option<NotificationFacts>>,
    logged: Option<OrderFacts>,
}

impl Checker<'_> {
    /// Has every domain look at its own books.
    async fn audit(&self, deep: bool) -> Result<Vec<(&'static str, InvariantReport)>, CommonError> {
        let mut all = Vec::new();
        macro_rules! audit_all {
            ($($domain:ident),+) => {$(
                let name = stringify!($domain);
                if self.on.contains(name) {
                    let subscribers_of = app::subscribers_of(name).into_iter().filter(|hearer| self.on.contains(hearer));
                    let subscribers = subscribers_of.map(str::to_owned).collect();
                    all.push((name, ask(&self.clients.$domain, CheckInvariants { deep, subscribers }).await?));
                }
            )+};
        }
        audit_all!(users, catalog, cart, payments, mailer, stats, comments, notifications);
        Ok(all)
    }

    /// Waits until everything that has happened so far has been heard by everybody, and what that made happen too.
    /// Gives back what took too long.
    async fn settled(&self) -> Result<Vec<Violation>, CommonError> {
        for _ in 0..2 {
            let heads: HashMap<_, _> = self.audit(false).await?.into_iter().map(|(name, a)| (name, a.head)).collect();
            let begun = Instant::now();
            loop {
                let mut late = Vec::new();
                for (source, audited) in self.audit(false).await? {
                    let head = heads.get(source).copied().unwrap_or(0);
                    for (subscriber, heard) in audited.heard.iter().filter(|(_, heard)| **heard < head) {
                        late.push(fault(
                            source,
                            "events do not reach their subscriber",
                            format!("{subscriber} has heard up to {heard} of {head}"),
                            "start the shop, or look at its log for why they wait, and check again",
                        ));
                    }
                }
                if late.is_empty() {
                    break;
                }
                if begun.elapsed() > PROPAGATION_MAX {
                    return Ok(late);
                }
                tokio::time::sleep(RECHECK_PAUSE).await;
            }
        }
        Ok(Vec::new())
    }

    /// Everything there is, page for page.
    async fn all(&self) -> Result<Vec<Candidate>, CommonError> {
        let mut suspects = Vec::new();
        let mut sold: HashSet<HoldId> = HashSet::new();
        if self.on.contains("payments") {
            let mut after = None;
            loop {
                let page = self.invoices(InvoiceSelection::After(after)).await?;
                let Some(last) = page.last() else { break };
                after = Some(last.id);
                sold.extend(page.iter().filter(|facts| facts.paid_at.is_some()).filter_map(|facts| facts.hold));
                suspects.extend(self.compare(&page).await?);
                if suspects.len() >= CANDIDATES_MAX {
                    return Ok(suspects);
                }
            }
            suspects.extend(self.days().await?);
        }
        if self.on.contains("catalog") {
            let mut after = None;
            loop {
                let page = ask(&self.clients.catalog, ListHoldFacts { which: Selection::After(after) }).await?;
                let Some(last) = page.last() else { break };
                after = Some(last.hold);
                suspects.extend(self.unsold(&page, |hold| sold.contains(&hold)));
                if suspects.len() >= CANDIDATES_MAX {
                    return Ok(suspects);
                }
            }
            if self.on.contains("comments") {
                let mut after = None;
                loop {
                    let page = ask(&self.clients.comments, ListRatingFacts { which: Selection::After(after) }).await?;
                    let Some(last) = page.last() else { break };
                    after = Some(last.product_id);
                    suspects.extend(self.ratings(&page).await?);
                }
            }
            suspects.extend(self.let_go().await?);
        }
        Ok(suspects)
    }

    /// The same questions once more about these alone.
    async fn again(&self, subjects: BTreeSet<CandidateKey>) -> Result<Vec<Candidate>, CommonError> {
        let (mut invoices, mut holds, mut rated, mut days) = (Vec::new(), Vec::new(), Vec::new(), false);
        for subject in subjects {
            match subject {
                CandidateKey::Invoice(id) => invoices.push(id),
                CandidateKey::Hold(id) => holds.push(id),
                CandidateKey::Rating(id) => rated.push(id),
                CandidateKey::Days => days = true,
            }
        }
        let mut suspects = Vec::new();
        for ids in invoices.chunks(FACTS_PAGE_SIZE) {
            let page = self.invoices(InvoiceSelection::These(ids.to_vec())).await?;
            suspects.extend(self.compare(&page).await?);
        }
        for ids in holds.chunks(FACTS_PAGE_SIZE) {
            let page = ask(&self.clients.catalog, ListHoldFacts { which: Selection::These(ids.to_vec()) }).await?;
            if self.on.contains("payments") {
                let of_them = self.invoices(InvoiceSelection::OfHolds(ids.to_vec())).await?;
                let sold: HashSet<HoldId> =
                    of_them.iter().filter(|facts| facts.paid_at.is_some()).filter_map(|facts| facts.hold).collect();
                suspects.extend(self.unsold(&page, |hold| sold.contains(&hold)));
            }
        }
        if !holds.is_empty() {
            suspects.extend(self.let_go().await?.into_iter().filter(|(subject, _)| match subject {
                CandidateKey::Hold(hold) => holds.contains(hold),
                _ => false,
            }));
        }
        for ids in rated.chunks(FACTS_PAGE_SIZE) {
            let page = ask(&self.clients.comments, ListRatingFacts { which: Selection::These(ids.to_vec()) }).await?;
            suspects.extend(self.ratings(&page).await?);
        }
        if days {
            suspects.extend(self.days().await?);
        }
        Ok(suspects)
    }

    async fn invoices(&self, which: InvoiceSelection) -> Result<Vec<InvoiceFacts>, CommonError> {
        ask(&self.clients.payments, ListInvoiceFacts { which }).await
    }

    /// Asks everybody about a page of invoices.
    async fn others(&self, page: &[InvoiceFacts]) -> Result<RelatedFacts, CommonError> {
        let mut others = RelatedFacts {
            holds: HashMap::new(),
            checkouts: HashMap::new(),
            users: None,
            letters: vec![None; page.len()],
            told: vec![None; page.len()],
            logged: None,
        };
        if self.on.contains("catalog") {
            let holds = page.iter().filter_map(|facts| facts.hold).collect();
            let found = ask(&self.clients.catalog, ListHoldFacts { which: Selection::These(holds) }).await?;
            others.holds = found.into_iter().map(|facts| (facts.hold, facts)).collect();
        }
        if self.on.contains("cart") {
            let checkouts = page.iter().filter_map(|facts| facts.checkout).collect();
            let found = ask(&self.clients.cart, ListCheckoutFacts { which: Selection::These(checkouts) }).await?;
            others.checkouts = found.into_iter().map(|facts| (facts.checkout, facts)).collect();
        }
        if self.on.contains("users") {
            let users: BTreeSet<UserId> = page.iter().map(|facts| facts.user_id).collect();
            let found = ask(&self.clients.users, FilterExistingUsers { users: users.into_iter().collect() }).await?;
            others.users = Some(found.into_iter().collect());
        }
        let invoices: Vec<InvoiceId> = page.iter().map(|facts| facts.id).collect();
        if self.on.contains("mailer") {
            let found = ask(&self.clients.mailer, ListEmailFacts { invoices: invoices.clone() }).await?;
            others.letters = found.into_iter().map(Some).collect();
        }
        if self.on.contains("notifications") {
            let paid = page.iter().map(|facts| (facts.user_id, facts.id)).collect();
            let found = ask(&self.clients.notifications, AuditPaidNotifications { paid }).await?;
            others.told = found.into_iter().map(Some).collect();
        }
        if self.on.contains("stats") {
            // One that is not paid is asked for too, at a time that never was, so that the answers stay in step.
            let never = Timestamp::from_micros(0);
            let orders = page.iter().map(|facts| (facts.id, facts.paid_at.unwrap_or(never))).collect();
            others.logged = Some(ask(&self.clients.stats, ListOrderFacts { orders }).await?);
        }
        Ok(others)
    }

    /// What each invoice of a page and the others' books disagree on.
    async fn compare(&self, page: &[InvoiceFacts]) -> Result<Vec<Candidate>, CommonError> {
        let others = self.others(page).await?;
        let now = self.now;
        let mut suspects = Vec::new();
        for (n, facts) in page.iter().enumerate() {
            let mut wrong = |domain: &str, what: &str, found: String| {
                let found = format!("{} {} is {}{found}", facts.number, facts.id, facts.status.as_str());
                suspects.push((CandidateKey::Invoice(facts.id), fault(domain, what, found, REMEDY_MANUAL)));
            };
            if self.on.contains("catalog") {
                goods(facts, &others, now, &mut wrong);
            }
            cart(facts, &others, &mut wrong);
            let known = others.users.as_ref().is_none_or(|users| users.contains(&facts.user_id));
            if let Some(Some(letters)) = others.letters.get(n) {
                mails(facts, letters, known, now, &mut wrong);
            }
            if let Some(Some(told)) = others.told.get(n) {
                told_once(facts, told, known, &mut wrong);
            }
            if let Some(logged) = &others.logged {
                logged_once(facts, logged.times.get(n).copied().unwrap_or(0), logged.kept_since, &mut wrong);
            }
        }
        Ok(suspects)
    }

    /// Sold stock that nobody paid, and stock that is held past its time.
    fn unsold(&self, page: &[HoldFacts], is_paid: impl Fn(HoldId) -> bool) -> Vec<Candidate> {
        let (now, mut suspects) = (self.now, Vec::new());
        for facts in page {
            let taken = matches!(facts.state.as_str(), "sold" | "returned");
            if taken && self.on.contains("payments") && !is_paid(facts.hold) {
                let found = format!("hold {} is {}", facts.hold, facts.state);
                let fault = fault("catalog", "stock is sold and no paid invoice is for it", found, REMEDY_MANUAL);
                suspects.push((CandidateKey::Hold(facts.hold), fault));
            }
            if facts.state == "held" && facts.expires_at.saturating_add(HOLD_GRACE) < now {
                let found = format!("hold {} ended at {}", facts.hold, facts.expires_at);
                let remedy = "the shop lets it go by itself while it runs: look at its log";
                suspects.push((
                    CandidateKey::Hold(facts.hold),
                    fault("catalog", "stock is held past its time", found, remedy),
                ));
            }
        }
        suspects
    }

    /// Stock that is held, or sold, though its checkout ended without an invoice; checkouts that stand with one which
    /// there is not.
    async fn let_go(&self) -> Result<Vec<Candidate>, CommonError> {
        let mut suspects = Vec::new();
        if !self.on.contains("cart") {
            return Ok(suspects);
        }
        let mut after = None;
        loop {
            let page = ask(&self.clients.cart, ListCheckoutFacts { which: Selection::After(after) }).await?;
            let Some(last) = page.last() else { return Ok(suspects) };
            after = Some(last.checkout);
            let holds = page.iter().map(|facts| facts.hold).collect();
            let found = ask(&self.clients.catalog, ListHoldFacts { which: Selection::These(holds) }).await?;
            let states: HashMap<HoldId, String> = found.into_iter().map(|facts| (facts.hold, facts.state)).collect();
            let known: HashSet<InvoiceId> = if self.on.contains("payments") {
                let ids = page.iter().filter_map(|facts| facts.invoice_id).collect();
                self.invoices(InvoiceSelection::These(ids)).await?.into_iter().map(|facts| facts.id).collect()
            } else {
                page.iter().filter_map(|facts| facts.invoice_id).collect()
            };
            for facts in &page {
                let state = states.get(&facts.hold).map(String::as_str);
                let ended = matches!(facts.state.as_str(), "cancelled" | "failed") && !facts.release_due;
                let wrong = if ended && state == Some("held") {
                    Some("a checkout ended and its stock is still held")
                } else if facts.state == "failed" && matches!(state, Some("sold" | "returned")) {
                    Some("a checkout failed and its stock is sold")
                } else if facts.invoice_id.is_some_and(|id| !known.contains(&id)) {
                    Some("a checkout stands with an invoice that there is not")
                } else {
                    None
                };
                if let Some(what) = wrong {
                    let found = format!(
                        "checkout {} is {}, hold {} is {}",
                        facts.checkout,
                        facts.state,
                        facts.hold,
                        state.unwrap_or("not there")
                    );
                    suspects.push((CandidateKey::Hold(facts.hold), fault("cart", what, found, REMEDY_MANUAL)));
                }
            }
            if suspects.len() >= CANDIDATES_MAX {
                return Ok(suspects);
            }
        }
    }

    /// Products that are rated differently here and there.
    async fn ratings(&self, page: &[RatingFacts]) -> Result<Vec<Candidate>, CommonError> {
        let products = page.iter().map(|facts| facts.product_id).collect();
        let shown = ask(&self.clients.catalog, GetRatings { products }).await?;
        let shown: HashMap<ProductId, RatingFacts> = shown.into_iter().map(|facts| (facts.product_id, facts)).collect();
        let differs = |facts: &&RatingFacts| shown.get(&facts.product_id).is_some_and(|shown| shown != *facts);
        let suspect = |facts: &RatingFacts| {
            let found = format!("product {}, whose comments sum to {} of {}", facts.product_id, facts.sum, facts.count);
            let what = "a product shows another rating than its comments have";
            (CandidateKey::Rating(facts.product_id), fault("catalog", what, found, REMEDY_EVENTS))
        };
        Ok(page.iter().filter(differs).map(suspect).collect())
    }

    /// Days on which the figures count other orders than were paid.
    async fn days(&self) -> Result<Vec<Candidate>, CommonError> {
        if !self.on.contains("stats") {
            return Ok(Vec::new());
        }
        let counted = ask(&self.clients.stats, CountOrders {}).await?;
        let paid = ask(&self.clients.payments, CountPaidByDay {}).await?;
        let mut days: BTreeMap<Timestamp, (i64, i64)> = BTreeMap::new();
        for (day, n) in paid {
            days.entry(day).or_default().0 = n;
        }
        for (day, n) in counted {
            days.entry(day).or_default().1 = n;
        }
        let differ = days.into_iter().filter(|(_, (paid, counted))| paid != counted);
        let suspect = |(day, (paid, counted)): (Timestamp, (i64, i64))| {
            let found = format!("{day}: {paid} paid, {counted} counted");
            (CandidateKey::Days, fault("stats", "a day's orders are not its paid invoices", found, REMEDY_EVENTS))
        };
        Ok(differ.map(suspect).collect())
    }
}

/// What the catalog must say of an invoice's goods.
fn goods(facts: &InvoiceFacts, others: &RelatedFacts, now: Timestamp, wrong: &mut impl FnMut(&str, &str, String)) {
    let Some(id) = facts.hold else { return };
    let hold = others.holds.get(&id);
    let state = hold.map_or("not there", |hold| hold.state.as_str());
    let fits = match facts.status {
        // Money that came too late for its goods goes back.
        InvoiceStatus::Paid | InvoiceStatus::Refunded if facts.unkept => matches!(state, "released" | "not there"),
        // Or all went back at somebody's wish before it was known that the goods were gone.
        InvoiceStatus::Paid | InvoiceStatus::Refunded if facts.restocked => matches!(state, "returned" | "released"),
        InvoiceStatus::Paid => state == "sold",
        InvoiceStatus::Refunded => matches!(state, "sold" | "released"),
        InvoiceStatus::Open if facts.expires_at > now => state == "held",
        InvoiceStatus::Open => matches!(state, "held" | "released"),
        InvoiceStatus::Expired | InvoiceStatus::Void => state == "released",
    };
    if !fits {
        let what = "stock and its invoice disagree";
        wrong(
            "catalog",
            what,
            format!("{}, hold {id} is {state}", if facts.restocked { " and came back" } else { "" }),
        );
    }
    if let Some(hold) = hold.filter(|hold| !hold.lines.is_empty()) {
        let held: Vec<_> = hold.lines.iter().map(|line| (line.product_id, line.quantity)).collect();
        if held != facts.goods {
            wrong("catalog", "what is held is not what the invoice says", format!(", hold {id}"));
        }
    }
}

/// What the cart must say of an invoice's checkout. One of an erased user is gone.
fn cart(facts: &InvoiceFacts, others: &RelatedFacts, wrong: &mut impl FnMut(&str, &str, String)) {
    let Some(checkout) = facts.checkout.and_then(|id| others.checkouts.get(&id)) else { return };
    let state = checkout.state.as_str();
    let fits = match facts.status {
        InvoiceStatus::Open => matches!(state, "held" | "invoiced"),
        InvoiceStatus::Paid | InvoiceStatus::Refunded => state == "paid",
        InvoiceStatus::Expired | InvoiceStatus::Void => state == "cancelled",
    };
    let same = checkout.invoice_id.is_none_or(|id| id == facts.id);
    if !fits || !same || facts.hold != Some(checkout.hold) {
        wrong("cart", "a checkout and its invoice disagree", format!(", checkout {} is {state}", checkout.checkout));
    }
}

/// One receipt for one paid order, one letter for each refund. Who is unknown has no address.
fn mails(
    facts: &InvoiceFacts,
    letters: &EmailFacts,
    known: bool,
    now: Timestamp,
    wrong: &mut impl FnMut(&str, &str, String),
) {
    let due = i64::from(facts.paid_at.is_some() && !facts.imported);
    let has = letters.receipts + letters.waiting;
    let may_be_gone =
        !known || (!facts.has_email && facts.paid_at.is_some_and(|at| now.duration_since(at) > PENDING_EMAIL_MAX));
    if has > due || (has < due && !may_be_gone) {
        wrong("mailer", "a paid order has not exactly one receipt", format!(" and has {has}"));
    }
    let due = if facts.imported { 0 } else { facts.refunds };
    if letters.refunds > due || (letters.refunds < due && !may_be_gone) {
        wrong(
            "mailer",
            "a refund has not exactly one letter",
            format!(", {due} refunds and {} letters", letters.refunds),
        );
    }
}

/// The buyer was told once.
fn told_once(facts: &InvoiceFacts, told: &NotificationFacts, known: bool, wrong: &mut impl FnMut(&str, &str, String)) {
    let due = i64::from(facts.paid_at.is_some() && !facts.imported);
    // What was told after this one is kept, so this one is too, unless it is as old as the oldest.
    let dropped = told.kept_since.is_some_and(|since| facts.paid_at.is_none_or(|at| at <= since));
    if told.times > due || (told.times < due && known && !told.erased && !dropped) {
        wrong(
            "notifications",
            "a buyer was not told once that they paid",
            format!(" and was told {} times", told.times),
        );
    }
}

/// The order is in the log once.
fn logged_once(facts: &InvoiceFacts, times: i64, kept_since: Timestamp, wrong: &mut impl FnMut(&str, &str, String)) {
    let Some(paid_at) = facts.paid_at else { return };
    if times > 1 || (times == 0 && paid_at > kept_since) {
        wrong("stats", "a paid order is not in the log once", format!(" and is there {times} times"));
    }
}
