//! The one list of the domains. Everything that goes through all of them iterates [`DOMAINS`] or
//! [`Clients::domains`]: event wiring, health, doctor, check, backup, the move to PostgreSQL, tests and benchmarks.
//!
//! A new domain is one entry of `registry!` and its name in [`DOMAIN_NAMES`], which the settings use because they know
//! no domain: an entry without a name, or a name without an entry, does not compile. Does not contain: where a domain
//! runs (settings), how it is opened (the composition root).

use std::sync::Arc;

use actix::{Actor, Context, Handler};
use futures_util::future::LocalBoxFuture;

use super::relocation::Placement;
use crate::contract;
use crate::domains::cart::{self, CartActor};
use crate::domains::catalog::{self, CatalogActor};
use crate::domains::comments::{self, CommentsActor};
use crate::domains::mailer::{self, MailerActor};
use crate::domains::notifications::{self, NotificationsActor};
use crate::domains::payments::{self, PaymentsActor};
use crate::domains::stats::{self, StatsActor};
use crate::domains::users::{self, UsersActor};
use crate::messaging::{
    AuditEntry, CheckInvariants, Client, CommonError, Envelope, Health, InvariantReport, ListAuditEntries,
    RemoteCallable, RequestContext, StatusTracker,
};
use crate::settings::DOMAIN_NAMES;
use crate::store::{AfterCopy, Migrations};
use crate::types::Clock;

/// Static description of one domain.
pub struct DomainInfo {
    /// Name in settings, file names, message names and metrics.
    pub name: &'static str,
    /// Names of the events that are delivered to it.
    pub subscriptions: &'static [&'static str],
    /// Names of the events that it publishes.
    pub events: &'static [&'static str],
    /// Names of the domains that it calls.
    pub calls: &'static [&'static str],
    /// Migrations of its database.
    pub migrations: fn() -> Migrations,
    /// Names of the messages that its actor handles.
    pub messages: fn() -> Vec<&'static str>,
    /// Rebuilds what is not copied from SQLite to PostgreSQL, such as a search index.
    pub after_copy: Option<AfterCopy>,
    /// Whether the sample data are loaded into it, which needs it in the loading process.
    pub has_sample_data: bool,
}

/// Calls that every domain answers, whatever the type of its actor.
pub trait DomainClient {
    /// Returns the domain's health as this process sees it.
    fn health(&self) -> Health;
    /// Has the domain check the invariants of its own database.
    fn check_invariants(
        &self,
        ctx: RequestContext,
        request: CheckInvariants,
    ) -> LocalBoxFuture<'_, Result<InvariantReport, CommonError>>;
    /// Reads the domain's part of the audit log.
    fn list_audit_entries(
        &self,
        ctx: RequestContext,
        request: ListAuditEntries,
    ) -> LocalBoxFuture<'_, Result<Vec<AuditEntry>, CommonError>>;
}

impl<A> DomainClient for Client<A>
where
    A: Actor<Context = Context<A>> + Handler<Envelope<CheckInvariants>> + Handler<Envelope<ListAuditEntries>>,
{
    fn health(&self) -> Health {
        Self::health(self)
    }

    fn check_invariants(
        &self,
        ctx: RequestContext,
        request: CheckInvariants,
    ) -> LocalBoxFuture<'_, Result<InvariantReport, CommonError>> {
        Box::pin(self.call(ctx, request))
    }

    fn list_audit_entries(
        &self,
        ctx: RequestContext,
        request: ListAuditEntries,
    ) -> LocalBoxFuture<'_, Result<Vec<AuditEntry>, CommonError>> {
        Box::pin(self.call(ctx, request))
    }
}

/// Declares the domains: documentation, name, actor, the domains it calls, the step after a copy to PostgreSQL, whether
/// the sample data are loaded into it.
macro_rules! registry {
    (
        $($(#[doc = $doc:literal])+
        $name:ident: $actor:ty, calls: [$($callee:ident),*], after_copy: $after_copy:expr, sample_data: $sample:literal;)+
    ) => {
        /// The domains of the shop, each after those that it calls.
        pub const DOMAINS: [DomainInfo; DOMAIN_NAMES.len()] = [$(DomainInfo {
            name: stringify!($name),
            subscriptions: $name::SUBSCRIPTIONS,
            events: contract::$name::EVENTS,
            calls: &[$(stringify!($callee)),*],
            migrations: || $name::MIGRATIONS,
            messages: <$actor as RemoteCallable>::names,
            after_copy: $after_copy,
            has_sample_data: $sample,
        }),+];

        /// Clients for all domains, wherever each of them runs.
        #[derive(Clone)]
        pub struct Clients {
            $($(#[doc = $doc])+ pub $name: Client<$actor>,)+
            /// Moves domains between processes.
            pub placement: Client<Placement>,
            pub(super) status: Arc<(Clock, [StatusTracker; DOMAINS.len()])>,
        }

        impl Clients {
            /// Returns the client of each domain, in the order of [`DOMAINS`].
            #[must_use]
            pub fn domains(&self) -> [(&'static str, &dyn DomainClient); DOMAINS.len()] {
                [$((stringify!($name), &self.$name as &dyn DomainClient)),+]
            }
        }
    };
}

registry! {
    /// Accounts, sessions, API keys.
    users: UsersActor, calls: [], after_copy: None, sample_data: true;
    /// Products, stock, images.
    catalog: CatalogActor, calls: [], after_copy: Some(catalog::rebuild_search_index), sample_data: true;
    /// Invoices and money.
    payments: PaymentsActor, calls: [], after_copy: None, sample_data: true;
    /// Carts and checkouts.
    cart: CartActor, calls: [catalog, payments], after_copy: None, sample_data: false;
    /// Outgoing e-mail.
    mailer: MailerActor, calls: [users], after_copy: None, sample_data: false;
    /// Action log and statistics.
    stats: StatsActor, calls: [], after_copy: None, sample_data: false;
    /// Reviews and ratings.
    comments: CommentsActor, calls: [catalog], after_copy: None, sample_data: true;
    /// Notifications of each user, and the live feed.
    notifications: NotificationsActor, calls: [], after_copy: None, sample_data: false;
}

const _: () = {
    let mut n = 0;
    while n < DOMAINS.len() {
        assert!(is_same(DOMAINS[n].name, DOMAIN_NAMES[n]), "settings::DOMAIN_NAMES and the registry differ");
        n += 1;
    }
};

const fn is_same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut n = 0;
    while n < a.len() {
        if a[n] != b[n] {
            return false;
        }
        n += 1;
    }
    true
}

impl Clients {
    /// Returns the health of each domain, with the time since which it has this status.
    #[must_use]
    pub fn health(&self) -> Vec<(&'static str, Health)> {
        let (clock, trackers) = &*self.status;
        let with_time = |((name, client), tracker): ((_, &dyn DomainClient), &StatusTracker)| {
            let mut health = client.health();
            health.since = Some(tracker.record(health.status, clock));
            (name, health)
        };
        self.domains().into_iter().zip(trackers).map(with_time).collect()
    }
}

/// Returns the description of a domain, or `None` if there is no such domain.
#[must_use]
pub fn find(name: &str) -> Option<DomainInfo> {
    DOMAINS.into_iter().find(|domain| domain.name == name)
}

/// Returns the names of the domains that the sample data are loaded into.
#[must_use]
pub fn sample_data_domains() -> Vec<&'static str> {
    DOMAINS.into_iter().filter(|domain| domain.has_sample_data).map(|domain| domain.name).collect()
}

/// Returns the events that are delivered to a domain; none if there is no such domain.
#[must_use]
pub fn subscriptions(domain: &str) -> &'static [&'static str] {
    find(domain).map_or(&[], |domain| domain.subscriptions)
}

/// Returns the domains that subscribe to an event of `source`, wherever they run.
#[must_use]
pub fn subscribers_of(source: &str) -> Vec<&'static str> {
    let is_from_source = |event: &&str| event.split_once('.').is_some_and(|(domain, _)| domain == source);
    DOMAINS.into_iter().filter(|to| to.subscriptions.iter().any(is_from_source)).map(|to| to.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registry_calls_name_earlier_domains() {
        for (n, domain) in DOMAINS.into_iter().enumerate() {
            for callee in domain.calls {
                assert!(DOMAIN_NAMES[..n].contains(callee), "{} calls {callee}, which is not before it", domain.name);
            }
        }
    }

    #[test]
    fn registry_subscriptions_name_known_domains() {
        for domain in DOMAINS {
            for event in domain.subscriptions {
                let source = event.split('.').next().unwrap();
                assert!(DOMAIN_NAMES.contains(&source), "{} subscribes to {event}", domain.name);
                assert!(subscribers_of(source).contains(&domain.name));
            }
        }
    }

    #[test]
    fn registry_messages_carry_their_domain() {
        for domain in DOMAINS {
            let messages = (domain.messages)();
            assert!(messages.contains(&"store.CheckInvariants"), "{}: {messages:?}", domain.name);
            let is_own = |name: &&str| ["store", "events", domain.name].contains(&name.split('.').next().unwrap());
            assert!(messages.iter().all(is_own), "{}: {messages:?}", domain.name);
        }
    }
}
