//! The kill switch of a connection.
//!
//! A session's actor is polled as the body of its response: while its socket is full it is not polled at all, so no
//! timer and no message of its own can end it. Whoever watches from outside must be able to.

use std::any::Any;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;
use socket2::{SockRef, Socket};

/// How long the kernel lets sent bytes wait for the peer to take them before it gives the connection up: the net
/// under everything else, for peers that vanish.
const UNTAKEN_MAX: Duration = Duration::from_secs(30);

/// Ends a connection from outside. Costs one file descriptor.
#[derive(Debug, Clone)]
pub struct KillSwitch(Arc<Socket>);

impl KillSwitch {
    /// Ends the connection now; both sides see it closed.
    pub fn kill(&self) {
        // An error says that it is closed already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// For `HttpServer::on_connect`, to be set before `bind`: gives each connection its kill switch, which the live
/// sessions need to drop readers that stopped reading.
pub fn on_connect(connection: &dyn Any, extensions: &mut Extensions) {
    let Some(stream) = connection.downcast_ref::<TcpStream>() else { return };
    let socket = SockRef::from(stream);
    if let Err(error) = socket.set_tcp_user_timeout(Some(UNTAKEN_MAX)) {
        log::debug!("a connection has no user timeout: {error}");
    }
    match socket.try_clone() {
        Ok(copy) => {
            extensions.insert(KillSwitch(Arc::new(copy)));
        }
        Err(error) => log::warn!("a connection has no kill switch: {error}"),
    }
}
