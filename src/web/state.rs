//! State that all requests of the gateway share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::{HttpRequest, web};

use super::connection::ConnectionLimits;
use super::idempotency_guard::IdempotencyKeys;
use super::live::{Hub, LiveSettings};
use super::origin::AllowedOrigins;
use super::pages::Pages;
use super::rate_limit::RateLimits;
use super::served_counter::ServedCounter;
use crate::app::{App, Clients, EventRouter};
use crate::messaging::CommonError;
use crate::settings::Settings;
use crate::types::Clock;

/// Shared state of the gateway: actix `Data` of every handler.
pub struct GatewayState {
    /// Clients for the domains.
    pub clients: Clients,
    /// Settings of this process.
    pub settings: Arc<Settings>,
    /// Source of time.
    pub clock: Clock,
    /// Origins whose pages may change something.
    pub origins: AllowedOrigins,
    /// Live sessions.
    pub hub: Hub,
    /// Databases of the local domains, with the subscribers that each keeps events for.
    pub outboxes: Arc<EventRouter>,
    /// Storefront and back office.
    pub pages: Pages,
    /// Open connections.
    pub connections: Arc<ConnectionLimits>,
    /// Rate limits.
    pub limits: RateLimits,
    /// Idempotency keys in flight.
    pub idempotency: Arc<IdempotencyKeys>,
    /// Count of served requests.
    pub served: ServedCounter,
    draining: AtomicBool,
}

impl GatewayState {
    /// The state of a gateway for `app`. Must be called on an actix system's thread.
    pub fn new(app: &App) -> Arc<Self> {
        let clients = app.clients.clone();
        let connections = Arc::new(ConnectionLimits::new(app.settings()));
        let origins = AllowedOrigins::of(app.settings());
        let live = live_settings(app.settings(), origins.clone(), &connections);
        let (users, notifications) = (clients.users.clone(), clients.notifications.clone());
        Arc::new(Self {
            origins,
            hub: Hub::start(&app.feed, app.clock().clone(), users, notifications, live),
            served: ServedCounter::new(clients.stats.clone()),
            pages: Pages::new(app.settings()),
            connections,
            limits: RateLimits::new(&app.settings().limits, app.clock()),
            idempotency: IdempotencyKeys::new(app.clock().clone()),
            clients,
            outboxes: Arc::clone(app.event_router()),
            settings: Arc::clone(app.settings()),
            clock: app.clock().clone(),
            draining: AtomicBool::new(false),
        })
    }

    /// The state in a request's application data.
    pub fn of(request: &HttpRequest) -> Result<Arc<Self>, CommonError> {
        request.app_data::<web::Data<Self>>().map(|data| Arc::clone(data)).ok_or_else(|| {
            log::error!("web: missing GatewayState in app data");
            CommonError::Internal
        })
    }

    /// Whether the public address of the shop is https.
    pub fn is_https(&self) -> bool {
        self.settings.public_url.as_deref().is_some_and(|url| url.starts_with("https://"))
    }

    /// Marks the process as stopping: readiness checks fail and connections are closed after their response.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the process is stopping.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// Limits of the live sessions, which are a part of the connections.
fn live_settings(settings: &Settings, origins: AllowedOrigins, connections: &ConnectionLimits) -> LiveSettings {
    let defaults = LiveSettings::default();
    let sockets_max = connections.sessions_max().min(defaults.sockets_max);
    let per_network = match settings.limits.sockets_per_network {
        0 => sockets_max.div_ceil(4),
        most => most,
    };
    LiveSettings {
        sockets_max,
        sockets_per_network: settings.limits.enabled.then_some(per_network),
        origins,
        ..defaults
    }
}
