//! Puts one process together: opens the domains that are here, and joins them by clients and events. The only
//! place that knows which domain is where.

mod domain_slot;
mod event_wiring;
mod relocation;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Actor, Context, Handler};
use futures_util::future::try_join_all;

use crate::domains::cart::{self, CartActor};
use crate::domains::catalog::{self, CatalogActor};
use crate::domains::comments::{self, CommentsActor};
use crate::domains::mailer::{self, MailerActor};
use crate::domains::notifications::{self, Feed, NotificationsActor, Push};
use crate::domains::payments::{self, PaymentsActor};
use crate::domains::stats::{self, StatsActor};
use crate::domains::users::{self, UsersActor};
use crate::events::{RabbitMq, Subscriber};
use crate::messaging::grpc::{self, DomainService, Peer, PeerConfig, PeerRegistry, Remote, ServerConfig};
use crate::messaging::{Client, CommonError, DeliverEvents, Envelope, Health, RemoteCallable, StatusTracker};
use crate::runtime::{DomainRuntime, RunningDomain};
use crate::settings::{DOMAINS, DomainLocation, EventTransport, Settings};
use crate::store::{OpenError, Store};
use crate::types::Clock;
use domain_slot::{DomainSlot, RelocatableDomain};
pub use event_wiring::{EventRouter, OutboxSubscribers};
pub use relocation::{MoveDomain, Moved, Placement, PlacementError, messages as placement_messages};

/// How often stores forget what has served its time.
const PRUNE_INTERVAL: Duration = Duration::from_secs(3_600);
/// How often it is looked how the domains are, so that it is known since when.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);

/// Which domains ask which.
const CALL_DEPENDENCIES: [(&str, &[&str]); 2] = [("cart", &["catalog", "payments"]), ("comments", &["catalog"])];

/// How every domain is asked.
#[derive(Clone)]
pub struct Clients {
    /// Who people are.
    pub users: Client<UsersActor>,
    /// What is for sale.
    pub catalog: Client<CatalogActor>,
    /// What people mean to buy.
    pub cart: Client<CartActor>,
    /// InvoiceSelection and money.
    pub payments: Client<PaymentsActor>,
    /// Mail.
    pub mailer: Client<MailerActor>,
    /// What happened.
    pub stats: Client<StatsActor>,
    /// What customers say.
    pub comments: Client<CommentsActor>,
    /// What users are told.
    pub notifications: Client<NotificationsActor>,
    /// Where each of them is, and who may change that.
    pub placement: Client<Placement>,
    since: Arc<(Clock, [StatusTracker; DOMAINS.len()])>,
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
            health.since = Some(since.record(health.status, clock));
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
    ground: Arc<DomainRuntime>,
    joints: Arc<EventRouter>,
    /// What other processes may ask this one.
    offers: HashMap<&'static str, DomainService>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// What opening gives.
struct AppBuilder {
    ground: Arc<DomainRuntime>,
    wire: PeerConfig,
    peers: PeerRegistry,
    /// Where domains were moved while the shop ran.
    moved: BTreeMap<String, DomainLocation>,
    /// The databases of the domains here.
    stores: Vec<Store>,
    /// The domains elsewhere.
    there: Vec<(&'static str, Arc<Peer>)>,
    subscribers: Vec<Subscriber>,
    seats: Vec<Box<dyn RelocatableDomain>>,
    offers: HashMap<&'static str, DomainService>,
}

/// Every domain, and the events it wants.
const SUBSCRIPTIONS: [(&str, &[&str]); 8] = [
    ("users", users::SUBSCRIPTIONS),
    ("catalog", catalog::SUBSCRIPTIONS),
    ("payments", payments::SUBSCRIPTIONS),
    ("cart", cart::SUBSCRIPTIONS),
    ("mailer", mailer::SUBSCRIPTIONS),
    ("stats", stats::SUBSCRIPTIONS),
    ("comments", comments::SUBSCRIPTIONS),
    ("notifications", notifications::SUBSCRIPTIONS),
];

impl AppBuilder {
    /// Takes a domain's place: opens it if it is to be here.
    fn domain<A>(
        &mut self,
        name: &'static str,
        open: impl Fn(&DomainRuntime) -> Result<RunningDomain<A>, OpenError> + Send + Sync + 'static,
    ) -> Result<Client<A>, OpenError>
    where
        A: Actor<Context = Context<A>> + Handler<Envelope<DeliverEvents>> + RemoteCallable,
    {
        let settings = self.ground.settings.domain(name);
        let client = match &settings.place {
            DomainLocation::Off | DomainLocation::RemoteUnspecified | DomainLocation::Standby => Client::disabled(name),
            DomainLocation::Remote(address) => {
                let peer = self.peers.at(address, &self.wire);
                self.there.push((name, Arc::clone(&peer)));
                Client::remote(name, Remote::new(name, A::names(), peer), settings.in_flight_max)
            }
            DomainLocation::Local => {
                let RunningDomain { client, store } = open(&self.ground)?;
                self.stores.push(store);
                client
            }
        };
        // A switched-off domain is asked by nobody, and one that is elsewhere has processes of its own.
        if !matches!(settings.place, DomainLocation::Off | DomainLocation::RemoteUnspecified) {
            self.subscribers.push(Subscriber::new(name, wants(name), &client));
            // What was moved away from here is asked on behalf of whoever still asks here.
            if !matches!(settings.place, DomainLocation::Remote(_)) || self.moved.contains_key(name) {
                self.offers.insert(name, DomainService::of(&client));
            }
            self.seats.push(Box::new(DomainSlot::new(name, client.clone(), open)));
        }
        Ok(client)
    }
}

impl App {
    /// Opens all domains that the settings place in this process, and joins them by their events. Must be called on an
    /// actix system's thread.
    pub fn open(settings: Settings, clock: Clock) -> Result<Self, OpenError> {
        let broker = match &settings.events {
            EventTransport::Direct => None,
            EventTransport::RabbitMq(uri) => Some(broker(uri, &settings)),
        };
        let (mut app, opening) = Self::domains(DomainRuntime::new(settings, clock), broker)?;
        let AppBuilder { ground, wire, peers, stores, there, seats, .. } = opening;
        there.iter().for_each(|(name, peer)| app.joints.is_there(name, peer));
        stores.into_iter().for_each(|store| app.joints.arrive(store));
        app.tasks.push(actix::spawn(tidy(Arc::clone(&app.joints))));
        app.tasks.push(actix::spawn(look(app.clients.clone())));
        let live = LiveBridge { feed: app.feed.clone(), followed: Mutex::default() };
        if let Some((_, peer)) = there.iter().find(|(name, _)| *name == "notifications") {
            live.show(peer);
        }
        let placement = relocation::open(&ground, Arc::clone(&app.joints), seats, (peers, wire), live);
        app.clients.placement.redirect_to(&placement);
        Ok(app)
    }

    /// Opens domains for one command, beside a shop that may be running on the same databases. No event is carried: the
    /// running shop does that, or the next one, and has to hear of everything itself to keep its memory fresh.
    pub fn open_for_command(settings: Settings, clock: Clock) -> Result<Self, OpenError> {
        Self::domains(DomainRuntime::for_command(settings, clock), None).map(|(app, _)| app)
    }

    fn domains(ground: DomainRuntime, broker: Option<RabbitMq>) -> Result<(Self, AppBuilder), OpenError> {
        let feed = Feed::default();
        let ground = Arc::new(ground);
        let mut opening = AppBuilder {
            wire: PeerConfig::new(ground.settings.peers.token.as_deref(), ground.settings.catalog.image_bytes_max),
            ground: Arc::clone(&ground),
            peers: PeerRegistry::default(),
            moved: relocation::moved(&ground.settings)?,
            stores: Vec::new(),
            there: Vec::new(),
            subscribers: Vec::new(),
            seats: Vec::new(),
            offers: HashMap::new(),
        };
        let users = opening.domain("users", users::open)?;
        let catalog = opening.domain("catalog", catalog::open)?;
        let payments = opening.domain("payments", payments::open)?;
        let (stock, money) = (catalog.clone(), payments.clone());
        let cart = opening.domain("cart", move |ground| cart::open(ground, stock.clone(), money.clone()))?;
        let mailer = opening.domain("mailer", mailer::open)?;
        let stats = opening.domain("stats", stats::open)?;
        let stock = catalog.clone();
        let comments = opening.domain("comments", move |ground| comments::open(ground, stock.clone()))?;
        let shown = feed.clone();
        let notifications =
            opening.domain("notifications", move |ground| notifications::open(ground, shown.clone()))?;
        let placement = Client::disabled(relocation::NAME);
        let since = Arc::new((ground.clock.clone(), Default::default()));
        let mut offers = std::mem::take(&mut opening.offers);
        offers.insert(relocation::NAME, DomainService::of(&placement));
        let clients =
            Clients { users, catalog, cart, payments, mailer, stats, comments, notifications, placement, since };
        let subscribers = std::mem::take(&mut opening.subscribers);
        let joints = Arc::new(EventRouter::new(Arc::clone(&ground.settings), subscribers, broker));
        Ok((Self { clients, feed, ground, joints, offers, tasks: Vec::new() }, opening))
    }

    /// Binds the address at which other processes ask the domains here, if the settings name one.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn grpc(&mut self) -> std::io::Result<Option<grpc::Server>> {
        let settings = Arc::clone(&self.ground.settings);
        let Some(address) = settings.grpc else { return Ok(None) };
        let joints = Arc::clone(&self.joints);
        let shows = matches!(settings.domain("notifications").place, DomainLocation::Local | DomainLocation::Standby);
        let feed = shows.then(|| self.feed.clone());
        // Over RabbitMQ nobody fetches.
        let news = (settings.events == EventTransport::Direct).then(|| -> grpc::EventReader {
            Arc::new(move |source, subscriber, told| {
                let joints = Arc::clone(&joints);
                Box::pin(async move { joints.news(&source, &subscriber, told).await })
            })
        });
        let offers = ServerConfig {
            domains: std::mem::take(&mut self.offers),
            event_reader: news,
            live_source: feed.map(|feed| -> grpc::LiveSource {
                Arc::new(move || grpc::live_stream(feed.subscribe(), written(&Push::Resync), |push| written(push)))
            }),
            token: settings.peers.token.clone(),
            message_max: grpc::message_max(settings.catalog.image_bytes_max),
            drain_timeout: settings.http.drain_timeout,
        };
        grpc::Server::bind(address, offers).map(Some)
    }

    /// The outboxes of the domains that are here at any moment.
    #[must_use]
    pub fn joints(&self) -> &Arc<EventRouter> {
        &self.joints
    }

    /// The names of what a domain of this version answers.
    #[must_use]
    pub fn names(domain: &str) -> Vec<&'static str> {
        match domain {
            "users" => UsersActor::names(),
            "catalog" => CatalogActor::names(),
            "cart" => CartActor::names(),
            "payments" => PaymentsActor::names(),
            "mailer" => MailerActor::names(),
            "stats" => StatsActor::names(),
            "comments" => CommentsActor::names(),
            "notifications" => NotificationsActor::names(),
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
        self.joints.told().into_iter().map(|(store, _)| store).collect()
    }

    /// Waits until every event has reached everybody it concerns, and the events those caused too.
    pub async fn settle(&self) -> Result<(), CommonError> {
        settle(&[self], EventRouter::told).await
    }

    /// [`App::settle`] for all processes of a shop, in a test that has them in hand: those are waited for too that fetch
    /// what they hear.
    #[cfg(feature = "test-hooks")]
    pub async fn settle_all(apps: &[&Self]) -> Result<(), CommonError> {
        settle(apps, EventRouter::kept).await
    }

    /// Closes the domains. Everything that was answered is durable.
    pub fn close(self) {
        let ground = Arc::clone(&self.ground);
        drop(self);
        ground.stop();
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
        self.joints.end();
    }
}

/// The events that a domain wants.
fn wants(domain: &str) -> &'static [&'static str] {
    SUBSCRIPTIONS.into_iter().find(|(name, _)| *name == domain).map_or(&[], |(_, wants)| wants)
}

/// The broker that carries events between the domains of a shop.
#[must_use]
pub fn broker(uri: &lapin::uri::AMQPUri, settings: &Settings) -> RabbitMq {
    // A queue that nobody will ever read would only grow.
    let there = |name: &str| settings.domain(name).place != DomainLocation::Off;
    RabbitMq::new(uri.clone(), SUBSCRIPTIONS.into_iter().filter(|(name, _)| there(name)).collect())
}

/// The domains that want to hear of events of `source`, wherever they are.
#[must_use]
pub fn subscribers_of(source: &str) -> Vec<&'static str> {
    let own = format!("{source}.");
    let hears = |wants: &[&str]| wants.iter().any(|event| event.starts_with(&own));
    SUBSCRIPTIONS.into_iter().filter(|(_, wants)| hears(wants)).map(|(name, _)| name).collect()
}

/// Waits until `whom` it concerns has heard of everything that has happened at `apps`, and nothing has happened from the
/// moment at which that was so of the first until it was so of the last: an effect of the last event of one may be an
/// event of another that was looked at before.
async fn settle(apps: &[&App], whom: fn(&EventRouter) -> Vec<OutboxSubscribers>) -> Result<(), CommonError> {
    let mut before = None;
    loop {
        let mut now = Some(Vec::new());
        for (source, told) in apps.iter().flat_map(|app| whom(&app.joints)) {
            let last = source.outbox_drained_at(told).await?;
            now = now.zip(last).map(|(mut all, last)| {
                all.push(last);
                all
            });
        }
        match &now {
            Some(_) if before == now => return Ok(()),
            Some(_) => drop(try_join_all(apps.iter().map(|app| app.joints.catch_up())).await?),
            None => tokio::time::sleep(Duration::from_millis(2)).await,
        }
        before = now;
    }
}

/// What is shown live here.
struct LiveBridge {
    feed: Feed,
    /// The processes whose notifications are shown.
    followed: Mutex<BTreeSet<String>>,
}

impl LiveBridge {
    /// Shows here what notifications in another process show there, for as long as anybody holds the peer. Whatever was
    /// lost while there was no stream, everybody who listens reads back.
    fn show(&self, peer: &Arc<Peer>) {
        let first = self.followed.lock().unwrap_or_else(PoisonError::into_inner).insert(peer.address().to_string());
        if !first {
            return;
        }
        let feed = self.feed.clone();
        peer.subscribe_live(Arc::new(move |item| match item.map(serde_json::from_slice::<Push>) {
            None => feed.send(Push::Resync),
            Some(Ok(push)) => feed.send(push),
            Some(Err(error)) => {
                log::error!("what is shown live cannot be read: {error}");
                feed.send(Push::Resync);
            }
        }));
    }
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
    CALL_DEPENDENCIES
        .into_iter()
        .filter(|(asking, _)| matches!(place(asking), DomainLocation::Local | DomainLocation::Standby))
        .flat_map(|(asking, asked)| asked.iter().map(move |asked| (asking, *asked)))
        .filter(|(_, asked)| *place(asked) == DomainLocation::RemoteUnspecified)
        .collect()
}

async fn look(clients: Clients) {
    loop {
        tokio::time::sleep(HEALTH_INTERVAL).await;
        let _ = clients.health();
    }
}

async fn tidy(joints: Arc<EventRouter>) {
    loop {
        tokio::time::sleep(PRUNE_INTERVAL).await;
        for (store, subscribers) in joints.kept() {
            if let Err(failure) = store.prune(subscribers).await {
                log::warn!("{}: could not be tidied: {failure}", store.domain());
            }
        }
    }
}
