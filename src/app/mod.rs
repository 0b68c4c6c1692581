//! Composition root: opens the domains of one process and connects them by clients and events. The only module that
//! knows which domain runs where. [`registry`] lists the domains.
//!
//! Does not contain: a rule of any domain, HTTP, the command line.

mod builder;
mod domain_slot;
mod event_wiring;
mod live_bridge;
pub mod registry;
mod relocation;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;

use crate::domains::notifications::{Feed, Push};
use crate::events::RabbitMq;
use crate::messaging::CommonError;
use crate::messaging::grpc::{self, DomainService, ServerConfig};
use crate::runtime::DomainRuntime;
use crate::settings::{DomainLocation, EventTransport, Settings};
use crate::store::{OpenError, Store};
use crate::types::Clock;
use builder::AppBuilder;
pub use builder::peer_config;
pub use event_wiring::{EventRouter, OutboxSubscribers};
use live_bridge::{LiveBridge, encode_push};
pub use registry::{Clients, DOMAINS, DomainClient, DomainInfo, sample_data_domains, subscribers_of};
pub use relocation::{MovePermit, Placement, moved_away};

/// Interval at which stores delete rows that are no longer needed.
const PRUNE_INTERVAL: Duration = Duration::from_secs(3_600);
/// Interval at which the health of the domains is sampled, so that the time since which it holds is known.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);

/// Domains of one process, open and connected.
pub struct App {
    /// Clients for the domains.
    pub clients: Clients,
    /// Live pushes of this process.
    pub feed: Feed,
    runtime: Arc<DomainRuntime>,
    event_router: Arc<EventRouter>,
    /// Domains that other processes may call here.
    services: HashMap<&'static str, DomainService>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl App {
    /// Opens all domains that the settings place in this process and delivers their events. Must be called on the
    /// thread of an actix system.
    ///
    /// # Errors
    /// If a domain cannot be opened.
    pub fn open(settings: Settings, clock: Clock) -> Result<Self, OpenError> {
        let broker = match &settings.events {
            EventTransport::Direct => None,
            EventTransport::RabbitMq(uri) => Some(broker(uri, &settings)),
        };
        let (mut app, builder) = Self::build(DomainRuntime::new(settings, clock), broker)?;
        let AppBuilder { peer_config, peers, stores, remotes, slots, .. } = builder;
        remotes.iter().for_each(|(name, peer)| app.event_router.set_remote(name, peer));
        stores.into_iter().for_each(|store| app.event_router.add_local(store));
        app.tasks.push(actix::spawn(prune_loop(Arc::clone(&app.event_router))));
        app.tasks.push(actix::spawn(health_loop(app.clients.clone())));
        let live = LiveBridge::new(app.feed.clone());
        if let Some((_, peer)) = remotes.iter().find(|(name, _)| *name == "notifications") {
            live.forward_from(peer);
        }
        let placement =
            relocation::open(&app.runtime, Arc::clone(&app.event_router), slots, (peers, peer_config), live);
        app.clients.placement.redirect_to(&placement);
        Ok(app)
    }

    /// Opens all domains as [`Self::open`] does, unless another process has a database of theirs open.
    ///
    /// # Errors
    /// If a domain cannot be opened, or is open in another process.
    pub fn open_alone(settings: Settings, clock: Clock) -> Result<Self, OpenError> {
        let app = Self::open(settings, clock)?;
        let shared = app.stores().iter().find(|store| !store.is_sole_process()).map(Store::domain);
        match shared {
            None => Ok(app),
            Some(domain) => {
                app.close();
                Err(OpenError::setting(domain, "database", "is open in another mercat; stop that one first"))
            }
        }
    }

    /// Opens domains for a one-off command, which may run alongside a shop on the same databases. No event is
    /// delivered: the running shop does that, or the next one, because its caches depend on receiving every event.
    ///
    /// # Errors
    /// If a domain cannot be opened.
    pub fn open_for_command(settings: Settings, clock: Clock) -> Result<Self, OpenError> {
        Self::build(DomainRuntime::for_command(settings, clock), None).map(|(app, _)| app)
    }

    fn build(runtime: DomainRuntime, broker: Option<RabbitMq>) -> Result<(Self, AppBuilder), OpenError> {
        let (feed, runtime) = (Feed::default(), Arc::new(runtime));
        let mut builder = AppBuilder::new(&runtime)?;
        let clients = builder.open_all(&feed)?;
        let services = std::mem::take(&mut builder.services);
        let subscribers = std::mem::take(&mut builder.subscribers);
        let event_router = Arc::new(EventRouter::new(Arc::clone(&runtime.settings), subscribers, broker));
        Ok((Self { clients, feed, runtime, event_router, services, tasks: Vec::new() }, builder))
    }

    /// Binds the address at which other processes call the local domains; `None` if the settings name no address.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn grpc(&mut self) -> std::io::Result<Option<grpc::GrpcServer>> {
        let settings = Arc::clone(&self.runtime.settings);
        let Some(address) = settings.grpc else { return Ok(None) };
        let event_router = Arc::clone(&self.event_router);
        let is_live = matches!(settings.domain("notifications").place, DomainLocation::Local | DomainLocation::Standby);
        let feed = is_live.then(|| self.feed.clone());
        // With RabbitMQ no process pulls events.
        let event_reader = (settings.events == EventTransport::Direct).then(|| -> grpc::EventReader {
            Arc::new(move |source, subscriber, cursor| {
                let event_router = Arc::clone(&event_router);
                Box::pin(async move { event_router.read_events(&source, &subscriber, cursor).await })
            })
        });
        let config = ServerConfig {
            domains: std::mem::take(&mut self.services),
            event_reader,
            live_source: feed.map(|feed| -> grpc::LiveSource {
                Arc::new(move || {
                    grpc::live_stream(feed.subscribe(), encode_push(&Push::Resync), |push| encode_push(push))
                })
            }),
            tokens: [&settings.peers.token, &settings.peers.other_token].into_iter().flatten().cloned().collect(),
            tls: settings.peers.tls.clone(),
            message_max: grpc::message_max(settings.catalog.image_bytes_max),
            drain_timeout: settings.http.drain_timeout,
        };
        grpc::GrpcServer::bind(address, config).map(Some)
    }

    /// Returns the router of events, which also knows the outboxes of the local domains.
    #[must_use]
    pub const fn event_router(&self) -> &Arc<EventRouter> {
        &self.event_router
    }

    /// Returns the settings of this process.
    #[must_use]
    pub fn settings(&self) -> &Arc<Settings> {
        &self.runtime.settings
    }

    /// Returns the clock of this process.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.runtime.clock
    }

    /// Returns the databases of the local domains.
    pub(crate) fn stores(&self) -> Vec<Store> {
        self.event_router.relayed().into_iter().map(|(store, _)| store).collect()
    }

    /// Waits until every event has reached its subscribers, including the events that those caused.
    ///
    /// # Errors
    /// If a database or the broker cannot be read.
    pub async fn settle(&self) -> Result<(), CommonError> {
        wait_until_drained(&[self], EventRouter::relayed).await
    }

    /// Does the same as [`App::settle`] for all processes of a shop, in a test that holds them all: it also waits for
    /// subscribers that pull their events.
    ///
    /// # Errors
    /// If a database or the broker cannot be read.
    #[cfg(feature = "test-hooks")]
    pub async fn settle_all(apps: &[&Self]) -> Result<(), CommonError> {
        wait_until_drained(apps, EventRouter::retained).await
    }

    /// Closes the domains. Every write that was acknowledged is durable.
    pub fn close(self) {
        let runtime = Arc::clone(&self.runtime);
        drop(self);
        runtime.stop();
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
        self.event_router.stop();
    }
}

/// Returns the broker that carries events between the domains of a shop.
#[must_use]
pub fn broker(uri: &lapin::uri::AMQPUri, settings: &Settings) -> RabbitMq {
    // The queue of a domain that is off would only grow.
    let is_on = |domain: &DomainInfo| settings.domain(domain.name).place != DomainLocation::Off;
    let queues = DOMAINS.into_iter().filter(is_on).map(|domain| (domain.name, domain.subscriptions)).collect();
    RabbitMq::new(uri.clone(), settings.events_ca.clone(), queues)
}

/// Waits until all `subscribers` have received every event of `apps`, and until nothing new has happened in one full
/// round: delivering the last event of one app may cause an event in an app that was read before.
async fn wait_until_drained(
    apps: &[&App],
    subscribers: fn(&EventRouter) -> Vec<OutboxSubscribers>,
) -> Result<(), CommonError> {
    let mut previous = None;
    loop {
        let mut current = Some(Vec::new());
        for (source, subscribers) in apps.iter().flat_map(|app| subscribers(&app.event_router)) {
            let last = source.outbox_drained_at(subscribers).await?;
            current = current.zip(last).map(|(mut all, last)| {
                all.push(last);
                all
            });
        }
        match &current {
            Some(_) if previous == current => return Ok(()),
            Some(_) => drop(try_join_all(apps.iter().map(|app| app.event_router.flush())).await?),
            None => tokio::time::sleep(Duration::from_millis(2)).await,
        }
        previous = current;
    }
}

/// Returns pairs of a domain that runs in this process and a domain that it calls but that has no configured address.
#[must_use]
pub fn missing_dependencies(settings: &Settings) -> Vec<(&'static str, &'static str)> {
    let place = |name: &str| &settings.domain(name).place;
    DOMAINS
        .into_iter()
        .filter(|domain| matches!(place(domain.name), DomainLocation::Local | DomainLocation::Standby))
        .flat_map(|domain| domain.calls.iter().map(move |callee| (domain.name, *callee)))
        .filter(|(_, callee)| *place(callee) == DomainLocation::RemoteUnspecified)
        .collect()
}

async fn health_loop(clients: Clients) {
    loop {
        tokio::time::sleep(HEALTH_INTERVAL).await;
        let _ = clients.health();
    }
}

async fn prune_loop(event_router: Arc<EventRouter>) {
    loop {
        tokio::time::sleep(PRUNE_INTERVAL).await;
        for (store, subscribers) in event_router.retained() {
            if let Err(error) = store.prune(subscribers).await {
                log::warn!("{}: pruning failed: {error}", store.domain());
            }
        }
    }
}
