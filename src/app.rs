//! Puts one process together: opens the domains that are here, and joins them by clients and events. The only
//! place that knows which domain is where.

use std::time::Duration;

use actix::{Actor, Context, Handler};

use crate::cart::{self, Carts};
use crate::catalog::{self, Catalog};
use crate::comments::{self, Comments};
use crate::events::{Broker, Deliver, Hearing, Relay, Subscriber};
use crate::ground::{Ground, Opened};
use crate::mailer::{self, Mailer};
use crate::messaging::{Client, Envelope, Failure, Health};
use crate::notifications::{self, Feed, Notifications};
use crate::payments::{self, Payments};
use crate::settings::{Events, Place, Settings};
use crate::stats::{self, Stats};
use crate::store::{OpenError, Store};
use crate::types::Clock;
use crate::users::{self, Users};

/// How often stores forget what has served its time.
const TIDY_EVERY: Duration = Duration::from_secs(3_600);

/// How every domain is asked.
#[derive(Clone)]
pub struct Clients {
    /// Who people are.
    pub users: Client<Users>,
    /// What is for sale.
    pub catalog: Client<Catalog>,
    /// What people mean to buy.
    pub cart: Client<Carts>,
    /// Invoices and money.
    pub payments: Client<Payments>,
    /// Mail.
    pub mailer: Client<Mailer>,
    /// What happened.
    pub stats: Client<Stats>,
    /// What customers say.
    pub comments: Client<Comments>,
    /// What users are told.
    pub notifications: Client<Notifications>,
}

impl Clients {
    /// How each domain is.
    #[must_use]
    pub fn health(&self) -> Vec<(&'static str, Health)> {
        vec![
            ("users", self.users.health()),
            ("catalog", self.catalog.health()),
            ("cart", self.cart.health()),
            ("payments", self.payments.health()),
            ("mailer", self.mailer.health()),
            ("stats", self.stats.health()),
            ("comments", self.comments.health()),
            ("notifications", self.notifications.health()),
        ]
    }
}

/// The domains of one process, open and joined.
pub struct App {
    /// How the domains are asked.
    pub clients: Clients,
    /// What goes out live.
    pub feed: Feed,
    ground: Ground,
    relays: Vec<Relay>,
    /// For domains that hear over RabbitMQ.
    hearing: Option<Hearing>,
    tidier: Option<tokio::task::JoinHandle<()>>,
}

/// Every domain, and the events it wants.
const WANTS: [(&str, &[&str]); 8] = [
    ("users", users::WANTS),
    ("catalog", catalog::WANTS),
    ("payments", payments::WANTS),
    ("cart", cart::WANTS),
    ("mailer", mailer::WANTS),
    ("stats", stats::WANTS),
    ("comments", comments::WANTS),
    ("notifications", notifications::WANTS),
];

/// The domains opened so far.
struct Opening<'a> {
    ground: &'a Ground,
    stores: Vec<Store>,
    subscribers: Vec<Subscriber>,
}

impl Opening<'_> {
    /// Opens a domain if it is to be here.
    fn domain<A>(
        &mut self,
        name: &'static str,
        open: impl FnOnce(&Ground) -> Result<Opened<A>, OpenError>,
    ) -> Result<Client<A>, OpenError>
    where
        A: Actor<Context = Context<A>> + Handler<Envelope<Deliver>>,
    {
        match self.ground.settings.domain(name).place {
            Place::Off => Ok(Client::off(name)),
            Place::Local => {
                let Opened { client, store } = open(self.ground)?;
                self.stores.push(store);
                self.subscribers.push(Subscriber::new(name, wants(name), &client));
                Ok(client)
            }
        }
    }
}

impl App {
    /// Opens all domains that the settings place in this process, and joins them by their events. Must be called on an
    /// actix system's thread.
    pub fn open(settings: Settings, clock: Clock) -> Result<Self, OpenError> {
        let (mut app, stores, subscribers) = Self::domains(Ground::new(settings, clock))?;
        match &app.settings().events {
            Events::Direct => app.relays = stores.into_iter().map(|store| join(store, &subscribers)).collect(),
            Events::RabbitMq(uri) => {
                // A queue that nobody will ever read would only grow.
                let there = |name: &str| app.settings().domain(name).place != Place::Off;
                let broker = Broker::new(uri.clone(), WANTS.into_iter().filter(|(name, _)| there(name)).collect());
                app.relays = stores.into_iter().map(|store| Relay::start(store, vec![broker.publisher()])).collect();
                app.hearing = Some(broker.hear(subscribers));
            }
        }
        app.tidier = Some(actix::spawn(tidy(app.relays.iter().map(|r| (r.source(), r.subscribers())).collect())));
        Ok(app)
    }

    /// Opens domains for one command, beside a shop that may be running on the same databases. No event is carried: the
    /// running shop does that, or the next one, and has to hear of everything itself to keep its memory fresh.
    pub fn open_beside(settings: Settings, clock: Clock) -> Result<Self, OpenError> {
        Self::domains(Ground::beside(settings, clock)).map(|(app, ..)| app)
    }

    fn domains(ground: Ground) -> Result<(Self, Vec<Store>, Vec<Subscriber>), OpenError> {
        let feed = Feed::default();
        let mut opening = Opening { ground: &ground, stores: Vec::new(), subscribers: Vec::new() };
        let users = opening.domain("users", users::open)?;
        let catalog = opening.domain("catalog", catalog::open)?;
        let payments = opening.domain("payments", payments::open)?;
        let cart = opening.domain("cart", |g| cart::open(g, catalog.clone(), payments.clone()))?;
        let mailer = opening.domain("mailer", mailer::open)?;
        let stats = opening.domain("stats", stats::open)?;
        let comments = opening.domain("comments", |g| comments::open(g, catalog.clone()))?;
        let notifications = opening.domain("notifications", |g| notifications::open(g, feed.clone()))?;
        let Opening { stores, subscribers, .. } = opening;
        let clients = Clients { users, catalog, cart, payments, mailer, stats, comments, notifications };
        Ok((Self { clients, feed, ground, relays: Vec::new(), hearing: None, tidier: None }, stores, subscribers))
    }

    /// The settings of this process.
    #[must_use]
    pub fn settings(&self) -> &std::sync::Arc<Settings> {
        &self.ground.settings
    }

    /// The one source of time of this process.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.ground.clock
    }

    /// The databases of the domains that are here.
    #[cfg(test)]
    pub(crate) fn stores(&self) -> Vec<Store> {
        self.relays.iter().map(Relay::source).collect()
    }

    /// Waits until every event has reached everybody it concerns, and the events those caused too.
    pub async fn settle(&self) -> Result<(), Failure> {
        // Twice in a row, because an effect of the last event of one round may be an event of a domain looked at before.
        let mut quiet = 0;
        while quiet < 2 {
            let mut settled = true;
            for relay in &self.relays {
                settled &= relay.is_settled().await?;
            }
            if let Some(hearing) = self.hearing.as_ref().filter(|_| settled) {
                hearing.catch_up().await?;
            }
            quiet = if settled { quiet + 1 } else { 0 };
            if !settled {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        Ok(())
    }

    /// Closes the domains. Everything that was answered is durable.
    pub fn close(self) {
        if let Some(tidier) = &self.tidier {
            tidier.abort();
        }
        drop(self.relays);
        drop(self.hearing);
        drop(self.clients);
        self.ground.stop();
    }
}

/// The events that a domain wants.
fn wants(domain: &str) -> &'static [&'static str] {
    WANTS.into_iter().find(|(name, _)| *name == domain).map_or(&[], |(_, wants)| wants)
}

/// The domains that want to hear of events of `source`, wherever they are.
#[must_use]
pub fn hearers(source: &str) -> Vec<&'static str> {
    let own = format!("{source}.");
    let hears = |wants: &[&str]| wants.iter().any(|event| event.starts_with(&own));
    WANTS.into_iter().filter(|(_, wants)| hears(wants)).map(|(name, _)| name).collect()
}

/// Joins a domain's outbox to everybody here who wants an event of it.
fn join(store: Store, subscribers: &[Subscriber]) -> Relay {
    let hearers = hearers(store.domain());
    let to = subscribers.iter().filter(|subscriber| hearers.contains(&subscriber.name())).cloned().collect();
    Relay::start(store, to)
}

async fn tidy(stores: Vec<(Store, Vec<&'static str>)>) {
    loop {
        tokio::time::sleep(TIDY_EVERY).await;
        for (store, subscribers) in &stores {
            if let Err(failure) = store.tidy(subscribers.clone()).await {
                log::warn!("{}: could not be tidied: {failure}", store.domain());
            }
        }
    }
}
