//! Comparison of records across domains: stock and invoices, checkouts and stock, ratings and comments, statistics.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use super::{Candidate, CandidateKey, Checker, REMEDY_EVENTS, REMEDY_MANUAL, call, violation};
use crate::contract::cart::ListCheckoutFacts;
use crate::contract::catalog::{GetRatings, HoldFacts, ListHoldFacts, RatingFacts};
use crate::contract::comments::ListRatingFacts;
use crate::contract::payments::{CountPaidByDay, InvoiceFacts, InvoiceSelection, ListInvoiceFacts};
use crate::contract::stats::CountOrders;
use crate::messaging::{CommonError, FACTS_PAGE_SIZE, Selection};
use crate::types::{HoldId, InvoiceId, ProductId, Timestamp};

/// Most candidates that are followed up; where there are more, the first ones suffice.
const CANDIDATES_MAX: usize = 1_000;
/// Time after its expiry for which a hold may still be held: the catalog releases holds every two seconds.
const HOLD_GRACE: Duration = Duration::from_secs(60);

impl Checker<'_> {
    /// Reads all records page by page and returns what disagrees.
    pub(super) async fn find_candidates(&self) -> Result<Vec<Candidate>, CommonError> {
        let mut candidates = Vec::new();
        let mut sold: HashSet<HoldId> = HashSet::new();
        if self.enabled.contains("payments") {
            let mut after = None;
            loop {
                let page = self.invoices(InvoiceSelection::After(after)).await?;
                let Some(last) = page.last() else { break };
                after = Some(last.id);
                sold.extend(page.iter().filter(|facts| facts.paid_at.is_some()).filter_map(|facts| facts.hold));
                candidates.extend(self.compare(&page).await?);
                if candidates.len() >= CANDIDATES_MAX {
                    return Ok(candidates);
                }
            }
            candidates.extend(self.days().await?);
        }
        if self.enabled.contains("catalog") {
            let mut after = None;
            loop {
                let page = call(&self.clients.catalog, ListHoldFacts { which: Selection::After(after) }).await?;
                let Some(last) = page.last() else { break };
                after = Some(last.hold);
                candidates.extend(self.unsold(&page, |hold| sold.contains(&hold)));
                if candidates.len() >= CANDIDATES_MAX {
                    return Ok(candidates);
                }
            }
            if self.enabled.contains("comments") {
                let mut after = None;
                loop {
                    let page = call(&self.clients.comments, ListRatingFacts { which: Selection::After(after) }).await?;
                    let Some(last) = page.last() else { break };
                    after = Some(last.product_id);
                    candidates.extend(self.ratings(&page).await?);
                }
            }
            candidates.extend(self.checkouts().await?);
        }
        Ok(candidates)
    }

    /// Checks the subjects of earlier candidates again.
    pub(super) async fn recheck(&self, keys: BTreeSet<CandidateKey>) -> Result<Vec<Candidate>, CommonError> {
        let (mut invoices, mut holds, mut rated, mut days) = (Vec::new(), Vec::new(), Vec::new(), false);
        for key in keys {
            match key {
                CandidateKey::Invoice(id) => invoices.push(id),
                CandidateKey::Hold(id) => holds.push(id),
                CandidateKey::Rating(id) => rated.push(id),
                CandidateKey::Days => days = true,
            }
        }
        let mut candidates = Vec::new();
        for ids in invoices.chunks(FACTS_PAGE_SIZE) {
            let page = self.invoices(InvoiceSelection::These(ids.to_vec())).await?;
            candidates.extend(self.compare(&page).await?);
        }
        for ids in holds.chunks(FACTS_PAGE_SIZE) {
            let page = call(&self.clients.catalog, ListHoldFacts { which: Selection::These(ids.to_vec()) }).await?;
            if self.enabled.contains("payments") {
                let of_them = self.invoices(InvoiceSelection::OfHolds(ids.to_vec())).await?;
                let sold: HashSet<HoldId> =
                    of_them.iter().filter(|facts| facts.paid_at.is_some()).filter_map(|facts| facts.hold).collect();
                candidates.extend(self.unsold(&page, |hold| sold.contains(&hold)));
            }
        }
        if !holds.is_empty() {
            candidates.extend(self.checkouts().await?.into_iter().filter(|(key, _)| match key {
                CandidateKey::Hold(hold) => holds.contains(hold),
                _ => false,
            }));
        }
        for ids in rated.chunks(FACTS_PAGE_SIZE) {
            let page = call(&self.clients.comments, ListRatingFacts { which: Selection::These(ids.to_vec()) }).await?;
            candidates.extend(self.ratings(&page).await?);
        }
        if days {
            candidates.extend(self.days().await?);
        }
        Ok(candidates)
    }

    pub(super) async fn invoices(&self, which: InvoiceSelection) -> Result<Vec<InvoiceFacts>, CommonError> {
        call(&self.clients.payments, ListInvoiceFacts { which }).await
    }

    /// Finds stock that was sold without a paid invoice, and stock that is held after its expiry.
    fn unsold(&self, page: &[HoldFacts], is_paid: impl Fn(HoldId) -> bool) -> Vec<Candidate> {
        let (now, mut candidates) = (self.now, Vec::new());
        for facts in page {
            let is_sold = matches!(facts.state.as_str(), "sold" | "returned");
            if is_sold && self.enabled.contains("payments") && !is_paid(facts.hold) {
                let found = format!("hold {} is {}", facts.hold, facts.state);
                let violation = violation("catalog", "stock was sold without a paid invoice", found, REMEDY_MANUAL);
                candidates.push((CandidateKey::Hold(facts.hold), violation));
            }
            if facts.state == "held" && facts.expires_at.saturating_add(HOLD_GRACE) < now {
                let found = format!("hold {} expired at {}", facts.hold, facts.expires_at);
                let remedy = "a running shop releases it automatically: look at its log";
                candidates.push((
                    CandidateKey::Hold(facts.hold),
                    violation("catalog", "stock is held after its expiry", found, remedy),
                ));
            }
        }
        candidates
    }

    /// Finds stock that is held or sold although its checkout ended without an invoice, and checkouts with a missing
    /// invoice.
    async fn checkouts(&self) -> Result<Vec<Candidate>, CommonError> {
        let mut candidates = Vec::new();
        if !self.enabled.contains("cart") {
            return Ok(candidates);
        }
        let mut after = None;
        loop {
            let page = call(&self.clients.cart, ListCheckoutFacts { which: Selection::After(after) }).await?;
            let Some(last) = page.last() else { return Ok(candidates) };
            after = Some(last.checkout);
            let holds = page.iter().map(|facts| facts.hold).collect();
            let found = call(&self.clients.catalog, ListHoldFacts { which: Selection::These(holds) }).await?;
            let states: HashMap<HoldId, String> = found.into_iter().map(|facts| (facts.hold, facts.state)).collect();
            let known: HashSet<InvoiceId> = if self.enabled.contains("payments") {
                let ids = page.iter().filter_map(|facts| facts.invoice_id).collect();
                self.invoices(InvoiceSelection::These(ids)).await?.into_iter().map(|facts| facts.id).collect()
            } else {
                page.iter().filter_map(|facts| facts.invoice_id).collect()
            };
            for facts in &page {
                let state = states.get(&facts.hold).map(String::as_str);
                let ended = matches!(facts.state.as_str(), "cancelled" | "failed") && !facts.release_due;
                let problem = if ended && state == Some("held") {
                    Some("checkout ended but its stock is still held")
                } else if facts.state == "failed" && matches!(state, Some("sold" | "returned")) {
                    Some("checkout failed but its stock was sold")
                } else if facts.invoice_id.is_some_and(|id| !known.contains(&id)) {
                    Some("checkout references a missing invoice")
                } else {
                    None
                };
                if let Some(what) = problem {
                    let found = format!(
                        "checkout {} is {}, hold {} is {}",
                        facts.checkout,
                        facts.state,
                        facts.hold,
                        state.unwrap_or("missing")
                    );
                    candidates.push((CandidateKey::Hold(facts.hold), violation("cart", what, found, REMEDY_MANUAL)));
                }
            }
            if candidates.len() >= CANDIDATES_MAX {
                return Ok(candidates);
            }
        }
    }

    /// Finds products whose rating differs from that of their comments.
    async fn ratings(&self, page: &[RatingFacts]) -> Result<Vec<Candidate>, CommonError> {
        let products = page.iter().map(|facts| facts.product_id).collect();
        let displayed = call(&self.clients.catalog, GetRatings { products }).await?;
        let displayed: HashMap<ProductId, RatingFacts> =
            displayed.into_iter().map(|facts| (facts.product_id, facts)).collect();
        let differs =
            |facts: &&RatingFacts| displayed.get(&facts.product_id).is_some_and(|displayed| displayed != *facts);
        let candidate = |facts: &RatingFacts| {
            let found = format!("product {}, whose {2} comments sum to {1}", facts.product_id, facts.sum, facts.count);
            let what = "product rating differs from its comments";
            (CandidateKey::Rating(facts.product_id), violation("catalog", what, found, REMEDY_EVENTS))
        };
        Ok(page.iter().filter(differs).map(candidate).collect())
    }

    /// Finds days whose order count differs from the number of paid invoices.
    async fn days(&self) -> Result<Vec<Candidate>, CommonError> {
        if !self.enabled.contains("stats") {
            return Ok(Vec::new());
        }
        let counted = call(&self.clients.stats, CountOrders {}).await?;
        let paid = call(&self.clients.payments, CountPaidByDay {}).await?;
        let mut days: BTreeMap<Timestamp, (i64, i64)> = BTreeMap::new();
        for (day, n) in paid {
            days.entry(day).or_default().0 = n;
        }
        for (day, n) in counted {
            days.entry(day).or_default().1 = n;
        }
        let differ = days.into_iter().filter(|(_, (paid, counted))| paid != counted);
        let candidate = |(day, (paid, counted)): (Timestamp, (i64, i64))| {
            let found = format!("{day}: {paid} paid, {counted} counted");
            (
                CandidateKey::Days,
                violation("stats", "orders of a day differ from its paid invoices", found, REMEDY_EVENTS),
            )
        };
        Ok(differ.map(candidate).collect())
    }
}
