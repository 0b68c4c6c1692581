//! Kill switch of a connection.
//!
//! A session's actor is polled as the body of its response: while its socket is full it is not polled at all, so none of
//! its timers and messages can end it. The hub ends it from outside.

use std::any::Any;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;
use socket2::{SockRef, Socket};

/// Time after which the kernel closes a connection whose peer does not acknowledge sent bytes (`TCP_USER_TIMEOUT`): the
/// last resort for peers that vanish.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

/// Ends a connection from outside. Costs one file descriptor.
#[derive(Debug, Clone)]
pub struct KillSwitch(Arc<Socket>);

impl KillSwitch {
    /// Shuts the connection down in both directions.
    pub fn kill(&self) {
        // Fails only if the connection is closed already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// Adds a kill switch to a new connection, by which the hub cuts clients that stopped reading. For
/// `HttpServer::on_connect`, to be set before `bind`.
pub fn on_connect(connection: &dyn Any, extensions: &mut Extensions) {
    let Some(stream) = connection.downcast_ref::<TcpStream>() else { return };
    let socket = SockRef::from(stream);
    if let Err(error) = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX)) {
        log::debug!("live: setting the user timeout of a connection failed: {error}");
    }
    match socket.try_clone() {
        Ok(copy) => {
            extensions.insert(KillSwitch(Arc::new(copy)));
        }
        Err(error) => log::warn!("live: making the kill switch of a connection failed: {error}"),
    }
}
