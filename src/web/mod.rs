//! The gateway: turns HTTP into messages, replies into JSON and errors into problem documents.
//!
//! Contains: the table of routes ([`ROUTES`]), authentication, limits of size and time, live sessions, the pages. Does
//! not contain: business rules and rights (both are decided at the messages), SQL, the places of domains. [`problem`]
//! is the only module that makes problem documents, and [`middleware`] the only one that every request passes.
//!
//! The gateway calls all domains, and no domain calls it. While a domain is down its own paths return 503; the others
//! keep working.

mod addresses;
mod audit;
mod auth;
mod body;
mod cart;
mod catalog;
mod client_ip;
mod comments;
mod connection;
mod cookies;
mod cors;
mod csrf;
mod domains;
mod etag;
mod extract;
pub mod grpc;
mod headers;
mod health;
mod idempotency_guard;
mod images;
pub mod live;
mod mailer;
mod metrics;
mod middleware;
mod names;
mod network_limit;
mod notifications;
mod origin;
mod pages;
mod payments;
mod pieces;
mod problem;
mod protocol_errors;
mod query;
mod rate_limit;
mod request_meta;
mod request_pacing;
mod respond;
mod routes;
mod served_counter;
mod state;
mod static_files;
mod stats;
mod users;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::middleware::{Compat, Condition};
use actix_web::{App as ActixApp, web};

use crate::app::App;
use connection::ServerTimeouts;
use state::GatewayState;

#[doc(hidden)]
pub use rate_limit::LimitClass;
#[doc(hidden)]
pub use routes::{BodyInfo, ROUTES, ReplyInfo, RouteAccess, RouteGroup, RouteInfo};

/// Timeout for the head of a request; 408 after it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest idle time of a connection.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Time that a closing connection may take to finish.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Interval at which the count of served requests is reported to the statistics.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);
/// Pause between the end of accepting and the stop, in which the last accepted connections reach their worker.
const ACCEPT_GRACE: Duration = Duration::from_millis(50);

/// The listening gateway. It serves from the moment it is started.
///
/// It does not handle signals: its owner does, and calls [`Handle::stop`].
pub struct Server {
    address: SocketAddr,
    server: actix_web::dev::Server,
    handle: Handle,
    /// Reports the count of served requests, in a process that runs the gateway.
    reporter: Option<tokio::task::JoinHandle<()>>,
}

/// Handle that stops a [`Server`]. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    server: actix_web::dev::ServerHandle,
    state: Arc<GatewayState>,
}

/// Binds the address in the settings of `app` and serves it: the whole gateway, or only health and metrics in a process
/// that runs without a gateway. Must be called on an actix system's thread.
///
/// # Errors
/// When the address cannot be bound.
pub fn start(app: &App) -> io::Result<Server> {
    metrics::record_start();
    let state = GatewayState::new(app);
    let settings = Arc::clone(&state.settings);
    let data = web::Data::from(Arc::clone(&state));
    let middleware_state = Arc::clone(&state);
    let routes = if settings.gateway { routes::configure } else { routes::configure_health_only };
    let origins: Arc<[String]> = settings.http.cors_origins.clone().into();
    let app = move || {
        // Without a listed origin the shop says nothing about other sites' pages, and browsers keep them out.
        let cors = Compat::new(Condition::new(!origins.is_empty(), cors::permissions(&origins)));
        ActixApp::new()
            .app_data(data.clone())
            .configure(routes)
            .wrap(cors)
            .wrap(middleware::RequestMiddleware(Arc::clone(&middleware_state)))
    };
    let timeouts = ServerTimeouts {
        keep_alive: KEEP_ALIVE,
        request_head: HEADER_TIMEOUT,
        disconnect: DISCONNECT_TIMEOUT,
        shutdown: settings.http.drain_timeout,
        workers: settings.http.workers,
    };
    let (address, server) = connection::serve(settings.listen, Arc::clone(&state.connections), timeouts, app)?;
    let handle = Handle { server: server.handle(), state: Arc::clone(&state) };
    let reporter = settings.gateway.then(|| {
        actix_web::rt::spawn(async move {
            loop {
                tokio::time::sleep(COUNT_INTERVAL).await;
                state.served.flush().await;
            }
        })
    });
    Ok(Server { address, server, handle, reporter })
}

impl Server {
    /// Bound address; with the port that the system chose if the settings name port 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Handle that stops the server.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs until the server is stopped. When this returns, the requests in flight have their response, as far as the
    /// drain timeout allowed, and the domains may be closed.
    ///
    /// # Errors
    /// When accepting connections failed for good.
    pub async fn run(self) -> io::Result<()> {
        let result = self.server.await;
        if let Some(reporter) = self.reporter {
            reporter.abort();
            // An aborted report may or may not have arrived; waiting for its end keeps the count exact.
            let _ = reporter.await;
            self.handle.state.served.flush().await;
        }
        result
    }
}

impl Handle {
    /// Stops the server. Gracefully: after the lame-duck time no new connection is accepted, idle ones are closed, and
    /// accepted requests get their response within the drain timeout. Otherwise at once.
    pub async fn stop(&self, graceful: bool) {
        self.state.drain();
        if graceful {
            tokio::time::sleep(self.state.settings.http.lame_duck).await;
            // A stopping worker drops the connections in its queue, so the queue has to be empty.
            self.server.pause().await;
            tokio::time::sleep(ACCEPT_GRACE).await;
            // The server would wait for live sessions, which have no end of their own.
            self.state.hub.close_all(DISCONNECT_TIMEOUT).await;
        }
        self.server.stop(graceful).await;
    }
}
