//! Puts one process together: opens the domains that are here, and joins them by clients and events. The only
//! place that knows which domain is where.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler};

use crate::cart::{self, Carts};
use crate::catalog::{self, Catalog};
use crate::comments::{self, Comments};
use crate::events::{self, Broker, Deliver, Fetch, Hearing, Relay, Subscriber};
use crate::ground::{Ground, Opened};
use crate::mailer::{self, Mailer};
use crate::messaging::grpc::proto::EventsReply;
use crate::messaging::grpc::{self, Offer, Offers, Peer, Peers, Remote, Wire};
use crate::messaging::{Client, Envelope, Failure, Health, Served, Since};
use crate::notifications::{self, Feed, Notifications, Push};
use crate::payments::{self, Payments};
use crate::settings::{DOMAINS, Events, Place, Settings};
use crate::stats::{self, Stats};
use crate::store::{OpenError, Store, WeakStore};
use crate::types::Clock;
use crate::users::{self, Users};

/// How often stores forget what has served its time.
const TIDY_EVERY: Duration = Duration::from_secs(3_600);
/// How often it is looked how the domains are, so that it is known since when.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Which domains ask which.
const ASKS: [(&str, &[&str]); 2] = [("cart", &["catalog", "payments"]), ("comments", &["catalog"])];

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
    since: Arc<(Clock, [Since; DOMAINS.len()])>,
}

impl Clients {
    /// How each domain is.
    #[must_use]
    pub fn health(&self) -> Vec<(&'static str, Health)> {
        let (clock, since) = &*self.since;
        let mut all = vec![
            ("users", self.users.health()),
            ("catalog", self.catalog.health()),
            ("cart", self.cart.health()),
            ("payments", self.payments.health()),
            ("mailer", self.mailer.health()),
            ("stats", self.stats.health()),
            ("comments", self.comments.health()),
            ("notifications", self.notifications.health()),
        ];
        for ((_, health), since) in all.iter_mut().zip(since) {
            health.since = Some(since.note(health.status, clock));
        }
        all
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
    /// What is fetched of domains in other processes; held for its drop.
    _fetches: Vec<Fetch>,
    /// What other processes may ask this one.
    offers: HashMap<&'static str, Offer>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// What opening gives.
struct Joined {
    app: App,
    stores: Vec<Store>,
    /// The domains here and those elsewhere.
    here: Vec<Subscriber>,
    there: Vec<(Subscriber, Arc<Peer>)>,
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
    here: Vec<Subscriber>,
    there: Vec<(Subscriber, Arc<Peer>)>,
    wire: Wire,
    peers: Peers,
    offers: HashMap<&'static str, Offer>,
}

impl Opening<'_> {
    /// Opens a domain if it is to be here.
    fn domain<A>(
        &mut self,
        name: &'static str,
        open: impl FnOnce(&Ground) -> Result<Opened<A>, OpenError>,
    ) -> Result<Client<A>, OpenError>
    where
        A: Actor<Context = Context<A>> + Handler<Envelope<Deliver>> + Served,
    {
        let settings = self.ground.settings.domain(name);
        match &settings.place {
            Place::Off | Place::Elsewhere => Ok(Client::off(name)),
            Place::Remote(address) => {
                let peer = self.peers.at(address, &self.wire);
                let remote = Remote::new(name, A::names(), Arc::clone(&peer), settings.in_flight_max);
                let client = Client::remote(name, remote);
                self.there.push((Subscriber::new(name, wants(name), &client), peer));
                Ok(client)
            }
            Place::Local => {
                let Opened { client, store } = open(self.ground)?;
                self.stores.push(store);
                self.here.push(Subscriber::new(name, wants(name), &client));
                if self.ground.settings.grpc.is_some() {
                    self.offers.insert(name, Offer::of(&client));
                }
                Ok(client)
            }
        }
    }
}

impl App {
    /// Opens all domains that the settings place in this process, and joins them by their events. Must be called on an
    /// actix system's thread.
    pub fn open(settings: Settings, clock: Clock) -> Result<Self, OpenError> {
        let Joined { mut app, stores, here, there } = Self::domains(Ground::new(settings, clock))?;
        match &app.settings().events {
            Events::Direct => {
                let tellable: Vec<Subscriber> = here.iter().chain(there.iter().map(|(to, _)| to)).cloned().collect();
                app.relays = stores.into_iter().map(|store| join(store, &tellable)).collect();
                app._fetches = there.iter().flat_map(|(source, peer)| fetch(source.name(), peer, &here)).collect();
            }
            Events::RabbitMq(uri) => {
                let broker = broker(uri, app.settings());
                app.relays = stores.into_iter().map(|store| Relay::start(store, vec![broker.publisher()])).collect();
                app.hearing = Some(broker.hear(here));
            }
        }
        let kept = app.relays.iter().map(|relay| (relay.source(), app.keeps_for(relay))).collect();
        app.tasks.push(actix::spawn(tidy(kept)));
        app.tasks.push(actix::spawn(look(app.clients.clone())));
        if let Some(elsewhere) = app.clients.notifications.elsewhere() {
            show(elsewhere.peer(), app.feed.clone());
        }
        Ok(app)
    }

    /// Opens domains for one command, beside a shop that may be running on the same databases. No event is carried: the
    /// running shop does that, or the next one, and has to hear of everything itself to keep its memory fresh.
    pub fn open_beside(settings: Settings, clock: Clock) -> Result<Self, OpenError> {
        Self::domains(Ground::beside(settings, clock)).map(|joined| joined.app)
    }

    fn domains(ground: Ground) -> Result<Joined, OpenError> {
        let feed = Feed::default();
        let mut opening = Opening {
            wire: Wire::of(&ground.settings),
            ground: &ground,
            stores: Vec::new(),
            here: Vec::new(),
            there: Vec::new(),
            peers: Peers::default(),
            offers: HashMap::new(),
        };
        let users = opening.domain("users", users::open)?;
        let catalog = opening.domain("catalog", catalog::open)?;
        let payments = opening.domain("payments", payments::open)?;
        let cart = opening.domain("cart", |g| cart::open(g, catalog.clone(), payments.clone()))?;
        let mailer = opening.domain("mailer", mailer::open)?;
        let stats = opening.domain("stats", stats::open)?;
        let comments = opening.domain("comments", |g| comments::open(g, catalog.clone()))?;
        let notifications = opening.domain("notifications", |g| notifications::open(g, feed.clone()))?;
        let Opening { stores, here, there, offers, .. } = opening;
        let since = Arc::new((ground.clock.clone(), Default::default()));
        let clients = Clients { users, catalog, cart, payments, mailer, stats, comments, notifications, since };
        let app = Self {
            clients,
            feed,
            ground,
            relays: Vec::new(),
            hearing: None,
            _fetches: Vec::new(),
            offers,
            tasks: Vec::new(),
        };
        Ok(Joined { app, stores, here, there })
    }

    /// Binds the address at which other processes ask the domains here, if the settings name one.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn grpc(&mut self) -> std::io::Result<Option<grpc::Server>> {
        let settings = Arc::clone(&self.ground.settings);
        let Some(address) = settings.grpc else { return Ok(None) };
        let sources: HashMap<String, (Store, Vec<&'static str>)> = self
            .relays
            .iter()
            .map(|relay| (relay.source().domain().to_owned(), (relay.source(), relay.subscribers())))
            .collect();
        let sources = Arc::new(sources);
        let feed = self.domain_is_here("notifications").then(|| self.feed.clone());
        // Over RabbitMQ nobody fetches.
        let news = (settings.events == Events::Direct).then(|| -> grpc::News {
            Arc::new(move |source, subscriber, told| {
                let sources = Arc::clone(&sources);
                Box::pin(async move { news(&sources, &source, &subscriber, told).await })
            })
        });
        let offers = Offers {
            domains: std::mem::take(&mut self.offers),
            news,
            show: feed.map(|feed| -> grpc::Show {
                Arc::new(move || grpc::heard(feed.listen(), written(&Push::Lost), |push| written(push)))
            }),
            token: settings.peers.token.clone(),
            message_max: grpc::message_max(&settings),
            drain_timeout: settings.http.drain_timeout,
        };
        grpc::Server::bind(address, offers).map(Some)
    }

    fn domain_is_here(&self, name: &str) -> bool {
        self.ground.settings.domain(name).place == Place::Local
    }

    /// For whom a domain's events are kept until they were told: for those that are told from here, and those that may
    /// come and fetch them.
    fn keeps_for(&self, relay: &Relay) -> Vec<&'static str> {
        let mut names = relay.subscribers();
        if self.ground.settings.events != Events::Direct {
            return names;
        }
        for name in hearers(relay.source().domain()) {
            if self.ground.settings.domain(name).place == Place::Elsewhere && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// The databases of the domains that are here, each with those for whom its events are kept until they were told.
    #[must_use]
    pub fn outboxes(&self) -> Vec<(WeakStore, Vec<&'static str>)> {
        self.relays.iter().map(|relay| (relay.source().downgrade(), self.keeps_for(relay))).collect()
    }

    /// The names of what a domain of this version answers.
    #[must_use]
    pub fn names(domain: &str) -> Vec<&'static str> {
        match domain {
            "users" => Users::names(),
            "catalog" => Catalog::names(),
            "cart" => Carts::names(),
            "payments" => Payments::names(),
            "mailer" => Mailer::names(),
            "stats" => Stats::names(),
            "comments" => Comments::names(),
            "notifications" => Notifications::names(),
            _ => Vec::new(),
        }
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
        for task in &self.tasks {
            task.abort();
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

/// The broker that carries events between the domains of a shop.
#[must_use]
pub fn broker(uri: &lapin::uri::AMQPUri, settings: &Settings) -> Broker {
    // A queue that nobody will ever read would only grow.
    let there = |name: &str| settings.domain(name).place != Place::Off;
    Broker::new(uri.clone(), WANTS.into_iter().filter(|(name, _)| there(name)).collect())
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

/// What of a remote domain's events is fetched for the domains here.
fn fetch(source: &'static str, peer: &Arc<Peer>, here: &[Subscriber]) -> Vec<Fetch> {
    let hearers = hearers(source);
    let to = here.iter().filter(|subscriber| hearers.contains(&subscriber.name()));
    to.map(|to| Fetch::start(source, Arc::clone(peer), to.clone())).collect()
}

/// Answers a process that fetches events.
async fn news(
    sources: &HashMap<String, (Store, Vec<&'static str>)>,
    source: &str,
    subscriber: &str,
    told: i64,
) -> Result<EventsReply, Failure> {
    let hearer = hearers(source).into_iter().find(|hearer| *hearer == subscriber);
    let (Some((store, told_here)), Some(hearer)) = (sources.get(source), hearer) else {
        return Err(Failure::Unavailable);
    };
    if told_here.contains(&hearer) {
        return Ok(EventsReply { told_by_source: true, ..EventsReply::default() });
    }
    events::next(store.clone(), hearer, wants(hearer), told).await
}

/// Shows here what notifications in another process show there. Whatever was lost while there was no stream, everybody
/// who listens reads back.
fn show(peer: &Arc<Peer>, feed: Feed) {
    peer.follow(Arc::new(move |item| match item.map(serde_json::from_slice::<Push>) {
        None => feed.send(Push::Lost),
        Some(Ok(push)) => feed.send(push),
        Some(Err(error)) => {
            log::error!("what is shown live cannot be read: {error}");
            feed.send(Push::Lost);
        }
    }));
}

fn written(push: &Push) -> Vec<u8> {
    serde_json::to_vec(push).unwrap_or_else(|error| {
        log::error!("what is shown live has no JSON form: {error}");
        Vec::new()
    })
}

/// The domains that one here asks and that are in no place this process knows of.
#[must_use]
pub fn unreachable(settings: &Settings) -> Vec<(&'static str, &'static str)> {
    let place = |name: &str| &settings.domain(name).place;
    ASKS.into_iter()
        .filter(|(asking, _)| *place(asking) == Place::Local)
        .flat_map(|(asking, asked)| asked.iter().map(move |asked| (asking, *asked)))
        .filter(|(_, asked)| *place(asked) == Place::Elsewhere)
        .collect()
}

async fn look(clients: Clients) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let _ = clients.health();
    }
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
