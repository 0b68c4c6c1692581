//! The gateway: turns HTTP into messages and replies into JSON, errors into problem documents.
//!
//! Lives here: paths, who asks (authentication, not rights), limits of size and time, the pages. Never enters: a
//! business rule, a right (both are at the messages), SQL, where a domain is. [`problem`] is the only place that
//! makes problem documents, [`edge`] the only one that every request passes.
//!
//! It asks all domains and is asked by none. While a domain is down its own paths answer 503; the others go on.

mod asked;
mod cart;
mod catalog;
mod comments;
mod domains;
pub mod grpc;
mod health;
mod images;
mod input;
pub mod live;
mod mailer;
mod metrics;
mod middleware;
mod notifications;
mod payments;
mod problem;
mod routes;
mod state;
mod static_files;
mod stats;
mod users;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{App as Site, HttpServer, web};

use crate::app::App;
use state::GatewayState;

/// How long a client may take for the head of a request, before it is answered with 408.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be idle.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long a closing connection is listened to.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How many connections one worker has at most; more wait to be accepted.
const CONNECTIONS_MAX: usize = 25_000;
/// How often the statistics are told how many requests were served.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);
/// How long a stop waits, once no connection is accepted any more, until those accepted last are in a worker's hands.
const ACCEPT_GRACE: Duration = Duration::from_millis(50);

/// The gateway, listening. It serves from the moment it is made.
///
/// It does not listen to signals: whoever made it does that, and calls [`Handle::stop`].
pub struct Server {
    address: SocketAddr,
    server: actix_web::dev::Server,
    handle: Handle,
    /// Only where the gateway is.
    counting: Option<tokio::task::JoinHandle<()>>,
}

/// Stops a [`Server`] from elsewhere. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    server: actix_web::dev::ServerHandle,
    gate: Arc<GatewayState>,
}

/// Binds the address in the settings of `app` and serves it: the whole gateway, or in a process that is to run without it
/// only how the process is. Must be called on an actix system's thread.
///
/// # Errors
/// When the address cannot be bound.
pub fn start(app: &App) -> io::Result<Server> {
    metrics::begin();
    let gate = GatewayState::new(app);
    let settings = Arc::clone(&gate.settings);
    let data = web::Data::from(Arc::clone(&gate));
    let edge = Arc::clone(&gate);
    let routes = if settings.gateway { routes::all } else { routes::bare };
    let mut server = HttpServer::new(move || {
        Site::new().app_data(data.clone()).configure(routes).wrap(middleware::RequestMiddleware(Arc::clone(&edge)))
    })
    .on_connect(live::on_connect)
    .disable_signals()
    .keep_alive(KEEP_ALIVE)
    .client_request_timeout(HEADER_TIMEOUT)
    .client_disconnect_timeout(DISCONNECT_TIMEOUT)
    .max_connections(CONNECTIONS_MAX)
    .shutdown_timeout(settings.http.drain_timeout.as_secs())
    .tcp_nodelay(true);
    if settings.http.workers > 0 {
        server = server.workers(settings.http.workers);
    }
    let server = server.bind(settings.listen)?;
    let address = server.addrs().first().copied().unwrap_or(settings.listen);
    let server = server.run();
    let handle = Handle { server: server.handle(), gate: Arc::clone(&gate) };
    let counting = settings.gateway.then(|| {
        actix_web::rt::spawn(async move {
            loop {
                tokio::time::sleep(COUNT_INTERVAL).await;
                gate.tell_served().await;
            }
        })
    });
    Ok(Server { address, server, handle, counting })
}

impl Server {
    /// Where it listens; with the port the system gave when none was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What stops it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs until it is stopped. When this returns, the requests under way have been answered, as far as the drain
    /// timeout allowed, and the domains may be closed.
    ///
    /// # Errors
    /// When accepting connections failed for good.
    pub async fn run(self) -> io::Result<()> {
        let result = self.server.await;
        if let Some(counting) = self.counting {
            counting.abort();
            // An aborted telling may or may not have been heard; waiting for its end keeps the count whole.
            let _ = counting.await;
            self.handle.gate.tell_served().await;
        }
        result
    }
}

impl Handle {
    /// Stops the server. Gracefully: no new connection is taken, idle ones are closed, and what was accepted is
    /// answered, unless it takes longer than the drain timeout. Otherwise: at once.
    pub async fn stop(&self, graceful: bool) {
        self.gate.drain();
        if graceful {
            // A worker that is told to stop drops what still waits in its queue, so nothing may wait there.
            self.server.pause().await;
            tokio::time::sleep(ACCEPT_GRACE).await;
            // A socket has no end of its own, and the server would wait for one.
            self.gate.hub.close_all(DISCONNECT_TIMEOUT).await;
        }
        self.server.stop(graceful).await;
    }
}
