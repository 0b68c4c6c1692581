//! Opens the domains of one process, or connects to the processes where they run.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use actix::{Actor, Context, Handler};

use super::domain_slot::{DomainSlot, RelocatableDomain};
use super::registry::{self, Clients};
use super::relocation;
use crate::domains::notifications::Feed;
use crate::domains::{cart, catalog, comments, mailer, notifications, payments, stats, users};
use crate::events::Subscriber;
use crate::messaging::grpc::{DomainService, Peer, PeerConfig, PeerRegistry, Remote};
use crate::messaging::{Client, DeliverEvents, Envelope, RemoteCallable};
use crate::runtime::{DomainRuntime, RunningDomain};
use crate::settings::{DomainLocation, Settings};
use crate::store::{OpenError, Store};

/// Collects what opening the domains yields.
pub struct AppBuilder {
    runtime: Arc<DomainRuntime>,
    pub peer_config: PeerConfig,
    pub peers: PeerRegistry,
    /// Domains that were moved to another process by an earlier run, and where to.
    relocated: BTreeMap<String, DomainLocation>,
    /// Databases of the local domains.
    pub stores: Vec<Store>,
    /// Domains in other processes.
    pub remotes: Vec<(&'static str, Arc<Peer>)>,
    pub subscribers: Vec<Subscriber>,
    pub slots: Vec<Box<dyn RelocatableDomain>>,
    /// Domains that other processes may call here.
    pub services: HashMap<&'static str, DomainService>,
}

impl AppBuilder {
    /// Creates a builder without domains.
    ///
    /// # Errors
    /// If the record of moved domains cannot be read or an interrupted move cannot be completed.
    pub fn new(runtime: &Arc<DomainRuntime>) -> Result<Self, OpenError> {
        Ok(Self {
            peer_config: peer_config(&runtime.settings),
            runtime: Arc::clone(runtime),
            peers: PeerRegistry::default(),
            relocated: relocation::moved(&runtime.settings)?,
            stores: Vec::new(),
            remotes: Vec::new(),
            subscribers: Vec::new(),
            slots: Vec::new(),
            services: HashMap::new(),
        })
    }

    /// Opens all domains; live pushes of the notifications go to `feed`.
    ///
    /// # Errors
    /// If a domain cannot be opened.
    pub fn open_all(&mut self, feed: &Feed) -> Result<Clients, OpenError> {
        let users = self.domain("users", users::open)?;
        let catalog = self.domain("catalog", catalog::open)?;
        let payments = self.domain("payments", payments::open)?;
        let (stock, billing) = (catalog.clone(), payments.clone());
        let cart = self.domain("cart", move |runtime| cart::open(runtime, stock.clone(), billing.clone()))?;
        let accounts = users.clone();
        let mailer = self.domain("mailer", move |runtime| mailer::open(runtime, accounts.clone()))?;
        let stats = self.domain("stats", stats::open)?;
        let stock = catalog.clone();
        let comments = self.domain("comments", move |runtime| comments::open(runtime, stock.clone()))?;
        let live = feed.clone();
        let notifications = self.domain("notifications", move |runtime| notifications::open(runtime, live.clone()))?;
        let placement = Client::disabled(relocation::NAME);
        self.services.insert(relocation::NAME, DomainService::of(&placement));
        let status = Arc::new((self.runtime.clock.clone(), Default::default()));
        Ok(Clients { users, catalog, cart, payments, mailer, stats, comments, notifications, placement, status })
    }

    /// Opens one domain if the settings place it in this process.
    fn domain<A>(
        &mut self,
        name: &'static str,
        open: impl Fn(&DomainRuntime) -> Result<RunningDomain<A>, OpenError> + Send + Sync + 'static,
    ) -> Result<Client<A>, OpenError>
    where
        A: Actor<Context = Context<A>> + Handler<Envelope<DeliverEvents>> + RemoteCallable,
    {
        let settings = self.runtime.settings.domain(name);
        let client = match &settings.place {
            DomainLocation::Off | DomainLocation::RemoteUnspecified | DomainLocation::Standby => Client::disabled(name),
            DomainLocation::Remote(address) => {
                let peer = self.peers.at(address, &self.peer_config);
                self.remotes.push((name, Arc::clone(&peer)));
                Client::remote(name, Remote::new(name, A::names(), peer), settings.in_flight_max)
            }
            DomainLocation::Local => {
                let RunningDomain { client, store } = open(&self.runtime)?;
                self.stores.push(store);
                client
            }
        };
        // Nothing calls a domain that is off; one without a known address is served by processes of its own.
        if !matches!(settings.place, DomainLocation::Off | DomainLocation::RemoteUnspecified) {
            self.subscribers.push(Subscriber::new(name, registry::subscriptions(name), &client));
            // Calls to a domain that was moved away from here are forwarded for processes that still call here.
            if !matches!(settings.place, DomainLocation::Remote(_)) || self.relocated.contains_key(name) {
                self.services.insert(name, DomainService::of(&client));
            }
            self.slots.push(Box::new(DomainSlot::new(name, client.clone(), open)));
        }
        Ok(client)
    }
}

/// Returns the configuration of connections to other processes.
pub fn peer_config(settings: &Settings) -> PeerConfig {
    PeerConfig::new(settings.peers.token.as_deref(), settings.peers.tls.clone(), settings.catalog.image_bytes_max)
}
