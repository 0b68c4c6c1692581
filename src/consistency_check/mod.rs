//! Consistency check: invariants between the databases of the domains, such as one receipt per paid invoice.
//!
//! Does not contain: SQL, invariants within one database (each domain checks its own: [`CheckInvariants`]), any repair.
//! Calls all domains by messages only, and changes nothing.
//!
//! **Alongside a running shop.** The domains are read one after the other while the shop goes on, and events reach their
//! subscribers after they happened. So a disagreement between two domains is only a candidate at first. It is checked
//! again after all events up to then were delivered, and reported only if it is still there each time.
//!
//! **Size.** Records are read by pages; the ids of all sold holds are kept in memory, 16 bytes each.

mod candidates;
mod invoices;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use actix::{Actor, Context, Handler};
use tokio::time::Instant;

use crate::app::{Clients, subscribers_of};
use crate::messaging::{
    CheckInvariants, Client, CommonError, Envelope, HealthStatus, InvariantReport, Request, RequestContext,
};
use crate::types::{HoldId, InvoiceId, ProductId, Timestamp};

pub use crate::messaging::Violation;

#[cfg(test)]
mod tests;

/// Timeout of one call: a domain may have to read all of a large database.
const CALL_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// Time after which an undelivered event is itself an inconsistency.
const PROPAGATION_MAX: Duration = Duration::from_secs(30);
/// Number of times that a candidate is checked again.
const RECHECKS: u32 = 3;
/// Pause before candidates are checked again.
const RECHECK_PAUSE: Duration = Duration::from_millis(300);

const REMEDY_EVENTS: &str = "look for events in dead_letter and at the shop's log, and report this as a bug";
const REMEDY_MANUAL: &str = "correct the invoice manually in the back office, and report this as a bug";

/// Result of a consistency check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsistencyReport {
    /// Inconsistencies that were found.
    pub violations: Vec<Violation>,
    /// Number of records that were checked, by kind.
    pub checked: BTreeMap<String, i64>,
}

/// Subject of a candidate, by which it is checked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum CandidateKey {
    Invoice(InvoiceId),
    Hold(HoldId),
    Rating(ProductId),
    Days,
}

/// Inconsistency that may be due to an event in transit.
type Candidate = (CandidateKey, Violation);

/// Checks the databases of all domains that are switched on.
///
/// # Errors
/// If a domain cannot be called or cannot read its database. Inconsistencies are in the report.
pub async fn run(clients: &Clients) -> Result<ConsistencyReport, CommonError> {
    let mut check = Checker { clients, enabled: enabled_domains(clients), now: Timestamp::from_micros(0) };
    let mut report = ConsistencyReport::default();
    for (_, result) in check.check_invariants(true).await? {
        check.now = check.now.max(result.now);
        report.violations.extend(result.violations);
        report.checked.extend(result.row_counts);
    }
    let mut candidates = check.find_candidates().await?;
    for _ in 0..RECHECKS {
        if candidates.is_empty() {
            break;
        }
        let undelivered = check.wait_until_delivered().await?;
        if !undelivered.is_empty() {
            // Candidates cannot be judged while events are in transit.
            report.violations.extend(undelivered);
            return Ok(report);
        }
        candidates = check.recheck(candidates.into_iter().map(|(key, _)| key).collect()).await?;
        tokio::time::sleep(RECHECK_PAUSE).await;
    }
    report.violations.extend(candidates.into_iter().map(|(_, violation)| violation));
    Ok(report)
}

fn enabled_domains(clients: &Clients) -> HashSet<&'static str> {
    let is_on = |(name, health): (_, crate::messaging::Health)| (health.status != HealthStatus::Off).then_some(name);
    clients.health().into_iter().filter_map(is_on).collect()
}

fn call_context() -> RequestContext {
    RequestContext::internal("check").with_timeout(CALL_TIMEOUT)
}

/// Calls a domain with a request that has no errors of its own.
async fn call<A, R>(client: &Client<A>, request: R) -> Result<R::Reply, CommonError>
where
    A: Actor<Context = Context<A>> + Handler<Envelope<R>>,
    R: Request<Error = CommonError>,
{
    client.call(call_context(), request).await
}

fn violation(domain: &str, description: &str, found: String, remedy: &str) -> Violation {
    Violation { domain: domain.to_owned(), description: description.to_owned(), found, remedy: remedy.to_owned() }
}

struct Checker<'a> {
    clients: &'a Clients,
    /// Names of the domains that are switched on.
    enabled: HashSet<&'static str>,
    /// Latest time that a domain reported.
    now: Timestamp,
}

impl Checker<'_> {
    /// Has every domain check the invariants of its own database; unless `deep`, it reports only how far its events were
    /// delivered.
    async fn check_invariants(&self, deep: bool) -> Result<Vec<(&'static str, InvariantReport)>, CommonError> {
        let mut reports = Vec::new();
        for (name, client) in self.clients.domains() {
            if self.enabled.contains(name) {
                let subscribers = subscribers_of(name).into_iter().filter(|to| self.enabled.contains(to));
                let request = CheckInvariants { deep, subscribers: subscribers.map(str::to_owned).collect() };
                reports.push((name, client.check_invariants(call_context(), request).await?));
            }
        }
        Ok(reports)
    }

    /// Waits until every event so far was delivered, including the events that those caused. Returns those that took too
    /// long.
    async fn wait_until_delivered(&self) -> Result<Vec<Violation>, CommonError> {
        for _ in 0..2 {
            let reports = self.check_invariants(false).await?;
            let heads: HashMap<_, _> = reports.into_iter().map(|(name, report)| (name, report.head)).collect();
            let started = Instant::now();
            loop {
                let mut undelivered = Vec::new();
                for (source, report) in self.check_invariants(false).await? {
                    let head = heads.get(source).copied().unwrap_or(0);
                    for (subscriber, cursor) in report.cursors.iter().filter(|(_, cursor)| **cursor < head) {
                        undelivered.push(violation(
                            source,
                            "events are not delivered to their subscriber",
                            format!("{subscriber} has received events up to {cursor} of {head}"),
                            "start the shop or look at its log for the reason, then check again",
                        ));
                    }
                }
                if undelivered.is_empty() {
                    break;
                }
                if started.elapsed() > PROPAGATION_MAX {
                    return Ok(undelivered);
                }
                tokio::time::sleep(RECHECK_PAUSE).await;
            }
        }
        Ok(Vec::new())
    }
}
